"""What matched-ray bundle adjustment hands on: poses, points, tracks, how certain they are, and what was decided."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.sfm.triangulate import triangulate
from craym_nerfstudio.storage import read_npz, write_npz

CameraState = Literal["adjusted", "predicted", "kept", "found"]
"""Adjusted to its rays; without enough rays, predicted from its neighbours; left as it was given; found by its photo in
the trained field."""

STAGE_ZERO_NAME = "stage0.npz"
"""File in the folder of a run."""
_FEW_CAMERAS = 10
"""So few images are explained by shape as well as by poses: training moves its cameras by 0.1 to 0.2 degrees where
matches do not notice (lego_400 of 6 views from 0.42 to 0.61, dtu_scan24 of 3 from 0.27 to 0.39, 0.15 px both)."""

_KNOWN_SHARE = 0.5
"""Of all cameras, that must be known for the others' photos to wait."""

_UNFIT_PX, _UNFIT_MEDIANS = 0.5, 6.0
"""Epipolar distance of a camera's matches, at least and in medians over the cameras, from which on it does not fit: one
that took bricks for others was 7.9 medians and 17 degrees off, right ones are up to 5.3 medians off."""

_CONFIRMED_RATIO = 1.2
"""Distances of held-out matches under exact poses of photographs, relative to those under adjusted ones, at most."""


@dataclass(frozen=True)
class Decision:
    """Which poses won on the matches that no adjustment saw, and by what figures."""

    chosen: Literal["solution", "input"]
    reason: str
    held_out: int
    """Held-out matches that either set of poses explains."""
    input_px: float
    """Their median epipolar distance under the input poses."""
    solution_px: float

    @property
    def confirms_input(self) -> bool:
        """Whether the input poses explain the matches as exact ones do, and not only as well as can be told."""
        return self.chosen == "input" and self.input_px <= _CONFIRMED_RATIO * self.solution_px


@dataclass(frozen=True)
class Intrinsics:
    """Corrections of the focal length (factor), principal point, and radial distortion, shared by all views.

    They apply to the plane coordinates p of a bearing (right and down, at distance 1): the true ray is that of
    ``q (1 + k1 |q|^2 + k2 |q|^4) / focal_factor`` with ``q = p - center``. Views whose focal lengths are corrected one
    by one have ``p / own_focal`` in place of p.
    """

    focal_factor: float = 1.0
    center: tuple[float, float] = (0.0, 0.0)
    """Shift of the principal point in units of the given focal length."""
    k1: float = 0.0
    k2: float = 0.0
    own_focal: tuple[float, ...] = ()
    """Factor on the focal length of each training image, before the shared one; empty where none has its own."""

    def values(self) -> list[float]:
        """Focal factor, center, k1, k2, own focals as one list; the inverse of `from_values`."""
        return [self.focal_factor, *self.center, self.k1, self.k2, *self.own_focal]

    def of_cameras(self, kept: Bool[np.ndarray, " cams"]) -> "Intrinsics":
        """What holds for some of the images."""
        own = np.array(self.own_focal)
        return replace(self, own_focal=tuple(own[kept].tolist())) if self.own_focal else self

    @property
    def in_words(self) -> str:
        """The corrections, such as "focal length x 1.0213, principal point moved by (+0.010, -0.003) focal lengths"."""
        words = []
        if self.own_focal:
            words.append(f"focal length of each image x {min(self.own_focal):.4f} to {max(self.own_focal):.4f}")
        if self.focal_factor != 1.0 or not self.own_focal:
            words.append(f"focal length{' of all' if self.own_focal else ''} x {self.focal_factor:.4f}")
        if any(self.center):
            words.append("principal point moved by ({:+.4f}, {:+.4f}) focal lengths".format(*self.center))
        if self.k1 or self.k2:
            words.append(f"radial distortion {self.k1:+.4f}, {self.k2:+.4f}")
        return ", ".join(words)

    @classmethod
    def from_values(cls, values: Sequence[float]) -> "Intrinsics":
        """What `values` listed."""
        focal, x, y, k1, k2, *own_focal = (float(value) for value in values)
        return cls(focal, (x, y), k1, k2, tuple(own_focal))


_LENSES = ("intrinsics", "suspected")
"""Fields that may be there or not."""


@dataclass
class StageZero:
    """Poses in the frame and scale of the rough ones (float64), with everything that was learned on the way."""

    names: list[str]
    c2w: Float[np.ndarray, "cams 3 4"]
    state: list[CameraState]
    component: Int[np.ndarray, " cams"]
    """Cameras of one number were solved together; -1 for those that were not."""
    rotation_sigma_deg: Float[np.ndarray, " cams"]
    translation_sigma: Float[np.ndarray, " cams"]
    """World units. Both are formal and know keypoint noise alone; NaN where rays do not fix a camera."""
    num_rays: Int[np.ndarray, " cams"]
    """Rays of each camera that meet a point."""
    epipolar_before_px: Float[np.ndarray, " cams"]
    epipolar_after_px: Float[np.ndarray, " cams"]
    """Median epipolar distance of each camera's believable matches under input and final poses; NaN without any."""
    points: Float[np.ndarray, "points 3"]
    point_sigma: Float[np.ndarray, " points"]
    """World units, cameras taken as exact."""
    track_length: Int[np.ndarray, " points"]
    ray_point: Int[np.ndarray, " rays"]
    ray_image: Int[np.ndarray, " rays"]
    ray_keypoint_px: Float[np.ndarray, "rays 2"]
    """In images of the size that training or export goes by; other pixels are those of images as they were matched."""
    ray_bearing: Float[np.ndarray, "rays 3"]
    match_weight: Float[np.ndarray, " matches"]
    """Belief, 0 to 1, that each match of the input is right, in its order."""
    keypoint_sigma_px: float
    """Estimated standard deviation of keypoints, per axis."""
    decision: Decision
    intrinsics: Intrinsics | None = None
    suspected: Intrinsics | None = None
    """Corrections under which kept poses explain the matches, and which were not made:"""
    suspected_of: Bool[np.ndarray, " cams"] | None = None
    """of these cameras, or of all;"""
    focal_factors: Float[np.ndarray, " cams"] | None = None
    """beside them on each camera's own focal length, 1 where it is right."""
    looked_again: bool = False
    """Whether it rests on the matches of a second look (`second_look`) instead of those that were found first."""
    notes: list[str] = field(default_factory=list)
    """What a user should know, one sentence each."""

    @property
    def registered(self) -> Bool[np.ndarray, " cams"]:
        """Cameras whose pose rests on rays or on an input that the rays confirm."""
        return np.asarray([state != "predicted" for state in self.state])

    @property
    def is_sure(self) -> Bool[np.ndarray, " points"]:
        """Points that three rays meet at: two always pass near one another.

        Of few cameras two are enough: hardly any point is seen by more, and what only two see would be lost.
        """
        return self.track_length >= (2 if len(self.names) < _FEW_CAMERAS else 3)

    def known_poses(self) -> dict[str, Tensor]:
        """What pose optimisation is to know of its cameras.

        It holds those whose given poses are confirmed, from which it would drift by hundredths of a degree (exact in,
        exact out), and of few cameras all that rays hold.
        """
        confirmed = np.array([state == "kept" for state in self.state]) & self.decision.confirms_input
        held = confirmed | (self.registered & (len(self.names) < _FEW_CAMERAS))
        known = {"settled": self.registered, "sigma_deg": self.rotation_sigma_deg, "held": held}
        return {name: torch.from_numpy(values) for name, values in known.items()}

    @property
    def lost(self) -> Bool[np.ndarray, " cams"]:
        """Cameras that were only predicted, or adjusted to matches that they do not fit, where enough others are known
        to tell of the scene without their photos.
        """
        adjusted = np.array([state == "adjusted" for state in self.state])
        lost = ~self.registered | (adjusted & unfit(self.epipolar_after_px))
        return lost & (np.sum(~lost) >= max(_FEW_CAMERAS, _KNOWN_SHARE * len(lost)))

    def with_found(self, found: Bool[np.ndarray, " cams"]) -> "StageZero":
        """The same, some cameras of which were found later: nothing of their rays and matches holds any more."""
        if not found.any():
            return self
        return replace(
            self.without_rays(found),
            state=["found" if is_found else state for state, is_found in zip(self.state, found, strict=True)],
            rotation_sigma_deg=np.where(found, np.nan, self.rotation_sigma_deg),
            translation_sigma=np.where(found, np.nan, self.translation_sigma),
            num_rays=np.where(found, 0, self.num_rays),
            epipolar_after_px=np.where(found, np.nan, self.epipolar_after_px),
        )

    def of_cameras(self, kept: Bool[np.ndarray, " cams"]) -> "StageZero":
        """The same, of some cameras alone; what it says of matches stays that of all."""
        if kept.all():
            return self
        fewer, number = self.without_rays(~kept), np.cumsum(kept) - 1
        each = ("rotation_sigma_deg", "translation_sigma", "epipolar_before_px", "epipolar_after_px")
        columns = ("c2w", "component", *each, "suspected_of", "focal_factors")
        return replace(
            fewer,
            names=[name for name, is_kept in zip(self.names, kept, strict=True) if is_kept],
            state=[state for state, is_kept in zip(self.state, kept, strict=True) if is_kept],
            ray_image=number[fewer.ray_image],
            num_rays=np.bincount(fewer.ray_image, minlength=len(kept))[kept],
            **{name: values[kept] for name in columns if (values := getattr(self, name)) is not None},
            **{name: lens.of_cameras(kept) for name in _LENSES if (lens := getattr(self, name)) is not None},
        )

    def without_rays(self, cameras: Bool[np.ndarray, " cams"]) -> "StageZero":
        """The same points without the rays of some cameras; those that no two of the others see are left out."""
        kept = ~cameras[self.ray_image]
        length = np.bincount(self.ray_point[kept], minlength=len(self.points))
        seen = length >= 2
        kept &= seen[self.ray_point]
        rays = ("ray_image", "ray_keypoint_px", "ray_bearing")
        return replace(
            self,
            points=self.points[seen],
            point_sigma=self.point_sigma[seen],
            track_length=length[seen],
            ray_point=(np.cumsum(seen) - 1)[self.ray_point[kept]],
            **{name: getattr(self, name)[kept] for name in rays},
        )

    @property
    def counts(self) -> dict[str, int]:
        """Cameras in each state."""
        return {state: self.state.count(state) for state in get_args(CameraState)}

    @property
    def counts_in_words(self) -> str:
        """The same, such as "38 adjusted, 2 predicted"."""
        return ", ".join(f"{count} {state}" for state, count in self.counts.items() if count)

    @property
    def median_epipolar_px(self) -> tuple[float, float]:
        """Median over cameras of the epipolar distance under the input and the final poses; NaN without matches."""
        return float(np.nanmedian(self.epipolar_before_px)), float(np.nanmedian(self.epipolar_after_px))

    def moved(self, similarity: Similarity) -> "StageZero":
        """The same in another frame."""
        return replace(
            self,
            c2w=similarity.poses(self.c2w),
            translation_sigma=similarity.lengths(self.translation_sigma),
            points=similarity.points(self.points),
            point_sigma=similarity.lengths(self.point_sigma),
        )

    def under(self, c2w: Float[np.ndarray, "cams 3 4"]) -> "StageZero":
        """The same tracks under other poses of the cameras, triangulated anew."""
        _, points, _ = triangulate(torch.from_numpy(c2w), self.ray_image, self.ray_bearing, self.ray_point)
        return replace(self, c2w=c2w, points=points.numpy())

    def save(self, path: Path) -> None:
        """Write atomically as npz; raises InputError when the disk is full."""
        values = {name: value for name, value in vars(self).items() if name not in ("decision", *_LENSES)}
        values |= {f"decision_{name}": value for name, value in vars(self.decision).items()}
        values |= {name: np.array(lens.values()) for name in _LENSES if (lens := getattr(self, name)) is not None}
        values = {name: value for name, value in values.items() if value is not None}
        kinds = {name: np.str_ if isinstance(value, list) else None for name, value in values.items()}
        write_npz(path, {name: np.asarray(value, dtype=kinds[name]) for name, value in values.items()})

    @classmethod
    def load(cls, path: Path) -> "StageZero":
        """Read what `save` wrote; raises InputError naming a file that is not one."""
        arrays = read_npz(path)
        values: dict = {item.name: arrays[item.name] for item in fields(cls) if item.name in arrays}
        for name in ("names", "state", "notes"):
            values[name] = [str(v) for v in arrays[name]]
        values["keypoint_sigma_px"] = float(arrays["keypoint_sigma_px"])
        values["looked_again"] = bool(arrays.get("looked_again", False))
        figures = {key: arrays[f"decision_{key}"].item() for key in Decision.__dataclass_fields__}
        values["decision"] = Decision(**figures)
        values |= {name: Intrinsics.from_values(arrays[name].tolist()) for name in _LENSES if name in arrays}
        assert set(values["state"]) <= set(get_args(CameraState))
        return cls(**values)


def unfit(epipolar_px: Float[np.ndarray, " cams"]) -> Bool[np.ndarray, " cams"]:
    """Cameras whose matches are much further from their epipolar lines than others' are; NaN: without matches."""
    known = epipolar_px[np.isfinite(epipolar_px)]
    limit_px = max(_UNFIT_PX, _UNFIT_MEDIANS * float(np.median(known))) if len(known) else np.inf
    return np.nan_to_num(epipolar_px) > limit_px
