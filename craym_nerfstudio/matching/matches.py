"""Verified keypoint matches of all image pairs, and the file that keeps them."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.storage import read_npz, write_npz

_FORMAT = "craym-matches-1"


@dataclass
class Matches:
    """Matches of verified image pairs; matches of one pair are neighbours, in the order of `pairs`."""

    names: list[str]
    """Names of all images; pairs count in this list."""
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
        return Matches(
            names=list(self.names),
            pairs=self.pairs[kept_pair],
            rotation=self.rotation[kept_pair],
            translation=self.translation[kept_pair],
            pair_of_match=renumbered[self.pair_of_match[keep]],
            keypoints=self.keypoints[keep],
            keypoint_ids=self.keypoint_ids[keep],
            bearings=self.bearings[keep],
            confidence=self.confidence[keep],
            detector=self.detector,
        )

    def save(self, path: Path) -> None:
        """Write atomically as npz.

        Raises:
            InputError: the disk is full or the folder cannot be written; the old file stays as it was.
        """
        arrays = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        arrays["names"] = np.array(self.names, dtype=np.str_)
        write_npz(path, {"format": np.array(_FORMAT), **arrays})

    @classmethod
    def load(cls, path: Path) -> "Matches":
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing, damaged or of another format.
        """
        arrays = read_npz(path)
        expected = {field.name for field in fields(cls)} | {"format"}
        if set(arrays) != expected or str(arrays.pop("format")) != _FORMAT:
            raise InputError("Not a matches file of this version", path, "Delete it and match the images again.")
        names = [str(name) for name in arrays.pop("names")]
        detector = str(arrays.pop("detector"))
        return cls(names=names, detector=detector, **arrays)
