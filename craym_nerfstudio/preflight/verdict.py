"""What the findings amount to: good, repairable or hopeless, and which cameras deserve a look."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from craym_nerfstudio.matching.verify import threshold_px
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.preflight.diagnose import Diagnosis
from craym_nerfstudio.sfm.adjust import are_in_one_place
from craym_nerfstudio.sfm.result import StageZero

Grade = Literal["good", "repairable", "hopeless"]
EXIT_STATUS: dict[Grade, int] = {"good": 0, "repairable": 1, "hopeless": 3}
"""2 is that of input errors."""

_UNRELATED_DEG = 40.0
"""Disagreement with the images beyond which rough poses are no better than none."""
_FEWEST_REGISTERED = 0.5
_OUTLYING = 3.0
"""Times the median over cameras at which a figure is suspicious, if it exceeds"""
_LEAST_PX, _LEAST_DEG = 2.0, 2.0
_UNEXPLAINED = 3.0
"""Times the matching threshold that may be left after stage 0."""


@dataclass(frozen=True)
class Suspicion:
    """A camera that deserves a look, and why."""

    camera: int
    name: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """The grade, one sentence on why, and what to do next."""

    grade: Grade
    reason: str
    advice: str

    @property
    def exit_status(self) -> int:
        """Exit status of the command."""
        return EXIT_STATUS[self.grade]


def suspicions(
    names: list[str],
    stage: StageZero | None,
    component: Int[np.ndarray, " cams"],
    before_px: Float[np.ndarray, " cams"],
    after_px: Float[np.ndarray, " cams"],
    moved_deg: Float[np.ndarray, " cams"],
    keypoints: Int[np.ndarray, " cams"],
) -> list[Suspicion]:
    """Cameras that share too little with the largest group, are off their epipolar lines, or were moved far."""
    largest = np.bincount(component).argmax()
    alone = np.bincount(component)[component] == 1
    found = []
    for k, name in enumerate(names):
        reasons = []
        if keypoints[k] == 0:
            reasons.append("nothing to match in it: is it masked whole, or empty?")
        elif alone[k]:
            reasons.append("no verified matches with any other image")
        elif component[k] != largest:
            reasons.append("its group of images has no matches with the largest group")
        elif stage is not None and stage.state[k] == "predicted":
            reasons.append("too few matches to solve its pose")
        if _outlies(before_px, k, _LEAST_PX):
            reasons.append(f"matches {before_px[k]:.1f} px off under its given pose")
        if _outlies(after_px, k, _LEAST_PX):
            reasons.append(f"matches still {after_px[k]:.1f} px off after stage 0")
        if _outlies(moved_deg, k, _LEAST_DEG):
            reasons.append(f"stage 0 turned it by {moved_deg[k]:.1f} degrees")
        if reasons:
            found.append(Suspicion(k, name, tuple(reasons)))
    return found


def _outlies(values: Float[np.ndarray, " cams"], camera: int, least: float) -> bool:
    if not np.isfinite(values[camera]):
        return False
    return bool(values[camera] > max(least, _OUTLYING * np.nanmedian(values)))


def judge(
    views: Views,
    diagnosis: Diagnosis,
    matches: int,
    stage: StageZero | None,
    before_px: Float[np.ndarray, " cams"],
    after_px: Float[np.ndarray, " cams"],
    suspicious: list[Suspicion],
) -> Verdict:
    """Grade of the input."""
    problem = _hopeless(views, diagnosis, matches, stage, after_px)
    if problem is not None:
        return Verdict("hopeless", *problem)
    assert stage is not None
    before, after = float(np.nanmedian(before_px)), float(np.nanmedian(after_px))
    if diagnosis.findings:
        kinds = ", ".join(finding.kind for finding in diagnosis.findings)
        reason = f"{kinds}; with that repaired, matches are {before:.2f} px off, {after:.2f} px after stage 0"
        return Verdict("repairable", reason, "Change what is named above, then check again.")
    off = [each for each in suspicious if _outlies(before_px, each.camera, _LEAST_PX)]
    figures = f"matches are {before:.2f} px off their epipolar lines, {after:.2f} px after stage 0"
    if stage.decision.chosen == "input" and not off:
        return Verdict("good", f"the given poses explain the images: {figures}", "Train.")
    if stage.decision.chosen == "input":
        return Verdict("repairable", f"{len(off)} cameras contradict the others; {figures}", _TRAIN)
    if before <= _FINE_PX and not off:
        return Verdict(
            "good", f"the given poses explain the images, and stage 0 makes them better: {figures}", "Train."
        )
    return Verdict("repairable", f"the poses are rough: {figures}", _TRAIN)


_FINE_PX = 0.15
"""What detectors scatter by themselves: poses that leave no more are not rough."""
_TRAIN = "Train: stage 0, on by default, makes this repair."


def _hopeless(
    views: Views, diagnosis: Diagnosis, matches: int, stage: StageZero | None, after_px: Float[np.ndarray, " cams"]
) -> tuple[str, str] | None:
    """Why nothing can be made of the input and what would help; None when something can."""
    if are_in_one_place(diagnosis.repaired.c2w):
        return (
            "all cameras are in one place, so that the poses say nothing about where things are",
            "Write the cameras' positions: an exporter may have failed; or estimate poses with SfM (ns-process-data).",
        )
    if matches == 0 or stage is None:
        return "no verified matches between the images", "Add images with more overlap and texture; check the masks."
    remaining = diagnosis.remaining.rotation_deg
    if remaining > _UNRELATED_DEG:
        return (
            f"the poses have nothing to do with the images (relative rotations {remaining:.0f} degrees off)",
            "Check that poses and images are of one capture, or estimate poses with SfM (ns-process-data).",
        )
    registered = float(stage.registered.mean())
    if registered < _FEWEST_REGISTERED:
        share = f"only {round(100 * registered)} % of the images have enough matches"
        return share, "Add images that overlap with two others each, or leave out those that do not."
    left, limit = float(np.nanmedian(after_px)), _UNEXPLAINED * threshold_px(views)
    if left > limit:
        return (
            f"no poses were found that explain the matches ({left:.1f} px off after stage 0)",
            "Check intrinsics and distortion, or estimate poses with SfM (ns-process-data).",
        )
    return None
