"""A corrected copy of the cameras that were checked: what preflight found is mended, the original stays as it is."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Float

from craym_nerfstudio.data.calibration import calibrated_lens
from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.data.scene import Scene
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.export.refined import RefinedCameras
from craym_nerfstudio.export.transforms import write_transforms
from craym_nerfstudio.preflight.check import Checked
from craym_nerfstudio.preflight.diagnose import Finding
from craym_nerfstudio.preflight.hypotheses import Poses, pose_guesses, quarter_turn, turned_axes
from craym_nerfstudio.sfm.result import Intrinsics


def check_folder(folder: Path) -> Path:
    """Where the copy will be written.

    Raises:
        InputError: a transforms.json lies there already: what somebody wrote is never overwritten.
    """
    path = folder / "transforms.json"
    if path.exists():
        raise InputError("A corrected copy is never written over another file", path, "Give --fix a new folder.")
    return path


def write_fixed(scene: Scene, checked: Checked, path: Path) -> list[str]:
    """Write the cameras with everything mended that was found, for nerfstudio; returns what was changed.

    What reading repairs (names, one scale in all rotations, rounded rotations, sizes) is written as it was read.

    Raises:
        InputError: the input is hopeless, or the file cannot be written.
    """
    if checked.verdict.grade == "hopeless":
        raise InputError(f"There is nothing to mend: {checked.verdict.reason}", scene.original.source)
    findings, names = checked.diagnosis.findings, checked.views.names
    train = replace(scene.original.subset(scene.train), c2w=checked.diagnosis.repaired.c2w)
    rest = scene.original.subset(np.setdiff1d(scene.test, scene.train))
    test = replace(rest, c2w=_in_convention(rest.c2w, findings, names))
    fixed = [_mended(frames, findings) for frames in (train, test)]
    unmoved = np.zeros(len(train), dtype=bool)
    cameras = RefinedCameras(fixed[0], scene.rough_c2w, unmoved, fixed[1])
    write_transforms(cameras, path, "absolute", include_test=True)
    return [finding.kind for finding in findings]


def _in_convention(c2w: Poses, findings: Sequence[Finding], names: list[str]) -> Poses:
    """Poses of other images of the same files: conventions were mistaken for them, too; an order was not."""
    for guess in pose_guesses(names):
        if guess.kind != "out-of-order" and any((f.kind, f.remedy) == (guess.kind, guess.remedy) for f in findings):
            c2w = guess.repair(c2w) if len(c2w) else c2w
    return c2w


def _mended(frames: Frames, findings: Sequence[Finding]) -> Frames:
    for finding in findings:
        details = finding.details
        if finding.kind == "wrong-focal-length":
            frames = _with_lens(frames, Intrinsics(float(details["factor"])))  # type: ignore[arg-type]
        elif finding.kind == "wrong-intrinsics":
            some = cast(list[str], details.get("images", frames.names))
            frames = _with_lens(frames, Intrinsics(**cast(dict, details["lens"])), set(some))
        elif finding.kind == "wrong-focal-lengths":
            factors = cast(dict[str, float], details["factors"])
            pinhole = frames.intrinsics_px.copy()
            pinhole[:, :2] *= np.array([factors.get(name, 1.0) for name in frames.names])[:, None]
            frames = replace(frames, intrinsics_px=pinhole)
        elif "clockwise_deg" in details:
            chosen = set(details.get("images", frames.names))  # type: ignore[call-overload]
            turns = int(details["clockwise_deg"]) // 90  # type: ignore[call-overload]
            frames = _as_files_lie(frames, turns, [k for k, name in enumerate(frames.names) if name in chosen])
    return frames


def _with_lens(frames: Frames, lens: Intrinsics, only: set[str] | None = None) -> Frames:
    pinhole, distortion = frames.intrinsics_px.copy(), frames.distortion.copy()
    for k, kind in enumerate(frames.camera_types):
        if only is not None and frames.names[k] not in only:
            continue
        if kind == "PERSPECTIVE" and lens != Intrinsics(lens.focal_factor):
            pinhole[k], distortion[k] = calibrated_lens(pinhole[k], distortion[k], frames.size_px[k], lens)
        else:
            pinhole[k, :2] *= lens.focal_factor
    return replace(frames, intrinsics_px=pinhole, distortion=distortion)


def _as_files_lie(frames: Frames, turns: int, chosen: list[int]) -> Frames:
    """Cameras of files that were turned clockwise against what poses and intrinsics describe: both follow the files."""
    c2w, pinhole = frames.c2w.copy(), frames.intrinsics_px.copy()
    c2w[chosen] = turned_axes(c2w[chosen], quarter_turn(turns))
    for k in chosen:
        pinhole[k] = _turned(pinhole[k], frames.size_px[k].tolist(), turns)
    return replace(frames, c2w=c2w, intrinsics_px=pinhole)


def _turned(pinhole: Float[np.ndarray, "4"], size_px: list[int], turns: int) -> list[float]:
    """Of the upright image, for the file of width and height `size_px` that was turned clockwise."""
    fx, fy, cx, cy = pinhole.tolist()
    width, height = size_px
    if turns == 2:
        return [fx, fy, width - cx, height - cy]
    return [fy, fx, width - cy, cx] if turns == 1 else [fy, fx, cy, height - cx]
