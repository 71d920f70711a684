"""Where training starts from: matches, and the poses that matched-ray bundle adjustment (stage 0) makes of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from craym_nerfstudio.console import console
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.sfm.result import Intrinsics, StageZero
from craym_nerfstudio.sfm.shared_intrinsics import correct_bearings
from craym_nerfstudio.storage import content_key

if TYPE_CHECKING:
    from craym_nerfstudio.data.datamanager import CraymDataManagerConfig

_VERSION = 2
_MIN_POINTS = 100
_MIN_CONFIDENCE = 0.02
"""Matches that stage 0 believes less than this are not drawn any more."""


@dataclass(frozen=True)
class Region:
    """The sphere of the host's frame that holds the surface."""

    center: Float[np.ndarray, "3"]
    radius: float


@dataclass
class PoseStart:
    """What is known before the field is trained, in the host's frame."""

    c2w: Float[np.ndarray, "cams 3 4"]
    matches: Matches | None = None
    region: Region | None = None
    stage_zero: StageZero | None = None
    intrinsics: Intrinsics | None = None
    """Corrections to the given intrinsics, which the matches' bearings already carry."""


def pose_start(
    views: Views, config: "CraymDataManagerConfig", has_alpha: bool, fixed: Sequence[int] = ()
) -> PoseStart:
    """Find matches and, with ``pose_init = "matched-rays"``, adjust the poses to them; both are cached.

    Raises:
        InputError: the images cannot be matched; the message says how to train without matches.
    """
    if config.matcher == "none":
        return PoseStart(views.c2w)
    from craym_nerfstudio.matching.find import find_matches

    matches = find_matches(views, config.matcher, config.cache_dir)
    if config.pose_init == "input":
        return PoseStart(views.c2w, matches)
    stage = _adjusted(views, matches, config.cache_dir, fixed, config.refine_intrinsics)
    report_stage_zero(stage)
    if stage.intrinsics is not None:
        bearings = correct_bearings(torch.from_numpy(matches.bearings), stage.intrinsics)
        matches = replace(matches, bearings=bearings.numpy())
    trusted = replace(matches, confidence=(matches.confidence * stage.match_weight).astype(np.float32))
    trusted = trusted.subset(trusted.confidence > _MIN_CONFIDENCE)
    matches = trusted if len(trusted.confidence) else matches
    return PoseStart(stage.c2w, matches, _region(stage, has_alpha), stage, stage.intrinsics)


def _adjusted(
    views: Views, matches: Matches, cache_dir: Path, fixed: Sequence[int], refine_intrinsics: bool
) -> StageZero:
    inputs = (views.c2w, views.focal_px, matches.keypoints, matches.bearings, matches.pairs, sorted(fixed))
    key = content_key(_VERSION, *inputs, refine_intrinsics)
    path = cache_dir / f"stage0-{key}.npz"
    if path.exists():
        console.print(f"Stage 0: cached ({path})")
        return StageZero.load(path)
    from craym_nerfstudio.sfm.adjust import adjust_rays

    with console.status("Stage 0: matched-ray bundle adjustment"):
        stage = adjust_rays(views, matches, fixed=fixed, refine_intrinsics=refine_intrinsics)
    stage.save(path)
    return stage


def report_stage_zero(stage: StageZero) -> None:
    """Print what stage 0 decided and found."""
    states = {state: stage.state.count(state) for state in ("adjusted", "predicted", "kept")}
    before, after = stage.median_epipolar_px
    console.print(
        f"Stage 0: cameras {', '.join(f'{count} {name}' for name, count in states.items() if count)}; "
        f"epipolar residual {before:.2f} -> {after:.2f} px; {len(stage.points)} points; {stage.decision.reason}"
    )
    if stage.intrinsics is not None:
        found = stage.intrinsics
        x, y = found.center
        console.print(
            f"Stage 0: focal length x {found.focal_factor:.4f}, principal point moved by ({x:+.4f}, {y:+.4f}) focal "
            f"lengths, radial distortion {found.k1:+.4f}, {found.k2:+.4f}"
        )
    for note in stage.notes:
        console.print(f"[yellow]Stage 0: {note}")


def _region(stage: StageZero, has_alpha: bool) -> Region | None:
    """Sphere around the triangulated points of an isolated object; None keeps the dataparser's guess.

    Where a background is seen too, the points do not tell what is of interest, unless the guess misses nearly all.
    """
    points = stage.points[stage.track_length >= 3]
    if len(points) < _MIN_POINTS:
        return None
    inside = float((np.linalg.norm(points, axis=-1) < 1.0).mean())
    if not has_alpha and inside > 0.3:
        return None
    low, high = np.quantile(points, [0.02, 0.98], axis=0)
    center = 0.5 * (low + high)
    distance = np.linalg.norm(points - center, axis=-1)
    # Keypoints miss what has no texture: a wide margin.
    reach = 1.3 * np.quantile(distance, 0.98) if has_alpha else np.quantile(distance, 0.7)
    return Region(center, float(reach))
