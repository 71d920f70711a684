"""Verified keypoint matches of all image pairs, and the file that keeps them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.storage import read_npz, write_npz

_FORMAT = "craym-matches-3"
_TEXTS = ("names", "file_keys")
_NO_GUESS = np.zeros((0, 3, 4))


@dataclass
class Matches:
    """Matches of verified image pairs; matches of one pair are neighbours, in the order of `pairs`."""

    names: list[str]
    """Names of all images; pairs count in this list."""
    size_px: Int[np.ndarray, "images 2"]
    """Width and height of the images that keypoints refer to."""
    pairs: Int32[np.ndarray, "pairs 2"]
    """Image numbers (i, j), i < j."""
    rotation: Float[np.ndarray, "pairs 3 3"]
    """Estimated relative rotation, ``x_j = R x_i + t`` in OpenGL camera frames, float64."""
    translation: Float[np.ndarray, "pairs 3"]
    """Estimated direction of t, unit length; its scale is unknown to two views."""
    pair_of_match: Int32[np.ndarray, " matches"]
    keypoints: Float32[np.ndarray, "matches 2 2"]
    """(view i or j; x, y) in px, first pixel's centre at 0.5."""
    keypoint_ids: Int32[np.ndarray, "matches 2"]
    """Number of the keypoint inside its image: equal numbers are the same point."""
    bearings: Float32[np.ndarray, "matches 2 3"]
    """Unit directions in the OpenGL camera frame, lens distortion removed."""
    confidence: Float32[np.ndarray, " matches"]
    """In (0, 1]: likeness of the descriptors, distance to the epipolar line, support of the pair."""
    detector: str
    guess_c2w: Float[np.ndarray, "images_or_0 3 4"] = field(default_factory=_NO_GUESS.copy)
    """Poses nearer to the truth than the rough ones, in their frame, where matching needed and found some; or none."""
    file_keys: list[str] = field(default_factory=list)
    """Digests of the image files, in matches that are kept for another day; or none."""

    def __len__(self) -> int:
        return len(self.pair_of_match)

    @property
    def images(self) -> Int32[np.ndarray, "matches 2"]:
        """Image numbers of each match."""
        return self.pairs[self.pair_of_match]

    @property
    def pair_counts(self) -> Int[np.ndarray, " pairs"]:
        """Number of matches of each pair."""
        return np.bincount(self.pair_of_match, minlength=len(self.pairs))

    def subset(self, keep: Bool[np.ndarray, " matches"]) -> "Matches":
        """Only the matches where `keep` holds; pairs left without matches disappear."""
        kept_pair = np.zeros(len(self.pairs), dtype=bool)
        kept_pair[self.pair_of_match[keep]] = True
        renumbered = (np.cumsum(kept_pair) - 1).astype(np.int32)
        return replace(
            self,
            pairs=self.pairs[kept_pair],
            rotation=self.rotation[kept_pair],
            translation=self.translation[kept_pair],
            pair_of_match=renumbered[self.pair_of_match[keep]],
            keypoints=self.keypoints[keep],
            keypoint_ids=self.keypoint_ids[keep],
            bearings=self.bearings[keep],
            confidence=self.confidence[keep],
        )

    def between(self, names: list[str], size_px: Int[np.ndarray, "cams 2"]) -> "Matches":
        """The matches between these images alone, keypoints scaled to `size_px`.

        Raises:
            ValueError: an image was not matched, or in another shape or order; the message says which.
        """
        missing = sorted(set(names) - set(self.names))
        if missing:
            raise ValueError(f"{missing[0]} is not among the images matched")
        here = np.array([self.names.index(name) for name in names])
        if (np.diff(here) <= 0).any():
            raise ValueError("the images were matched in another order")
        ratio = size_px / self.size_px[here]
        # Sizes are rounded to whole pixels.
        reshaped = np.abs(ratio[:, 0] / ratio[:, 1] - 1) > 2 / np.minimum(size_px, self.size_px[here]).min(1)
        if reshaped.any():
            first = int(np.argmax(reshaped))
            was, now = ("x".join(map(str, sizes[first])) for sizes in (self.size_px[here], size_px))
            raise ValueError(f"{names[first]} was matched at {was} pixels and has {now} now")
        kept = self.subset(np.isin(self.images, here).all(1))
        number = np.zeros(len(self.names), dtype=np.int32)
        number[here] = np.arange(len(here))
        keypoints = kept.keypoints * ratio[number[kept.images]].astype(np.float32)
        guess = self.guess_c2w[here] if len(self.guess_c2w) else self.guess_c2w
        keys = [self.file_keys[k] for k in here] if self.file_keys else []
        renamed = replace(kept, names=list(names), size_px=size_px, guess_c2w=guess, file_keys=keys)
        return replace(renamed, pairs=number[kept.pairs], keypoints=keypoints)

    def save(self, path: Path) -> None:
        """Write atomically as npz.

        Raises:
            InputError: the disk is full or the folder cannot be written; the old file stays as it was.
        """
        arrays = {each.name: np.asarray(getattr(self, each.name)) for each in fields(self)}
        for name in _TEXTS:
            arrays[name] = np.array(getattr(self, name), dtype=np.str_)
        write_npz(path, {"format": np.array(_FORMAT), **arrays})

    @classmethod
    def load(cls, path: Path) -> "Matches":
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing, damaged or of another format.
        """
        arrays = read_npz(path)
        arrays.setdefault("file_keys", np.array([], dtype=np.str_))
        expected = {each.name for each in fields(cls)} | {"format"}
        if set(arrays) != expected or str(arrays.pop("format")) != _FORMAT:
            raise InputError("Not a matches file of this version", path, "Delete it and match the images again.")
        names, file_keys = ([str(text) for text in arrays.pop(name)] for name in _TEXTS)
        detector = str(arrays.pop("detector"))
        return cls(names=names, file_keys=file_keys, detector=detector, **arrays)


def groups_in_words(sizes: Sequence[int], most: int = 12) -> str:
    """Sizes of the groups of images that matches connect, such as "3 groups, of 40, 12, 3"."""
    if len(sizes) == 1:
        return f"all in one group of {sizes[0]}"
    listed = ", ".join(str(size) for size in sizes[:most])
    return f"{len(sizes)} groups, of {listed}" + (", ..." if len(sizes) > most else "")
