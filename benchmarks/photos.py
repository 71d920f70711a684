"""Images alone: what is placed, how well, and what stage 0 makes of it; adds to benchmarks/results/photos.json.

    python -m benchmarks.photos --data-root DATA [--scenes still_life temple]

Cameras are compared with the true ones after the best similarity between them; seconds are of the processor.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.data.read_photos import read_unposed
from craym_nerfstudio.data.scene import detect_and_read
from craym_nerfstudio.data.views import views_of
from craym_nerfstudio.data.world import find_target
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.alignment import align_poses, pose_errors
from craym_nerfstudio.geometry.lie import rotation_angle_deg
from craym_nerfstudio.matching.find import find_matches
from craym_nerfstudio.photos.files import POSITIONS_NAME
from craym_nerfstudio.sfm.second_look import adjust_twice
from craym_nerfstudio.storage import write_json

Result = TypeVar("Result")
RESULTS = Path(__file__).parent / "results" / "photos.json"


@dataclass(frozen=True)
class Case:
    """Which images of which data are used."""

    data: str
    every: int = 1
    longest_px: int = 10_000
    positions_off: float | None = None
    """Noise of measured positions that go with the photos, in parts of the cameras' distance to what they look at."""
    is_video: bool = False
    """The images become the frames of one MP4."""


CASES = {
    "still_life": Case("samples/still_life"),
    "temple": Case("temple_ring"),
    "dtu": Case("dtu_scan24"),
    "lego": Case("lego_400"),
    "lego_every_5th": Case("lego_400", every=5),
    "chair": Case("chair_400"),
    "fox": Case("fox", longest_px=960),
    "fox_mp4": Case("fox", longest_px=960, is_video=True),
    "dtu_positions": Case("dtu_scan24", positions_off=0.02),
}


def measure(case: Case, root: Path, scratch: Path) -> dict:
    """Figures of one scene; the refusal in words where there is one."""
    truth = detect_and_read(Path(case.data) if case.data.startswith("samples") else root / case.data)
    chosen = np.arange(len(truth)) if truth.train is None else truth.train
    truth = truth.subset(chosen[:: case.every])
    _copy(truth, scratch / "photos", case.longest_px)
    if case.positions_off is not None:
        _write_positions(truth, scratch / "photos" / POSITIONS_NAME, case.positions_off)
    data, cache = scratch / "photos", scratch / "cache"
    names = [path.name for path in truth.paths]
    if case.is_video:
        data, names = _film(data), [f"frame_{number:06d}.jpg" for number in range(len(truth))]
    try:
        frames, place_s = _timed(lambda: read_unposed(data, "auto", cache))
    except InputError as error:
        return {"images": len(truth), "refused": error.problem}
    true = truth.subset(np.array([names.index(path.name) for path in frames.paths])).scaled_to(frames.size_px)
    views = views_of(frames, frames.c2w)
    matches, match_s = _timed(lambda: find_matches(views, "auto", cache))
    (matches, stage), stage0_s = _timed(lambda: adjust_twice(views, matches, refine_intrinsics=True))
    factor = 1.0 if stage.intrinsics is None else stage.intrinsics.focal_factor
    return {
        "images": len(truth),
        "placed": len(frames),
        **_errors(frames, frames.c2w, true, 1.0, "placed"),
        **_errors(frames, stage.c2w, true, factor, "adjusted"),
        **({} if case.positions_off is None else _frame_errors(stage.c2w, true.c2w, frames)),
        "stage0": stage.decision.reason,
        "intrinsics_adjusted": stage.intrinsics is not None,
        **{"place_cpu_s": place_s, "match_cpu_s": match_s, "adjust_cpu_s": stage0_s},
    }


def _copy(truth: Frames, folder: Path, longest_px: int) -> None:
    """The image files under their names, shrunk where they are larger; nothing else."""
    folder.mkdir()
    for path in truth.paths:
        with Image.open(path) as image:
            if max(image.size) <= longest_px:
                shutil.copy(path, folder / path.name)
            else:
                image.thumbnail((longest_px, longest_px), Image.Resampling.BOX)
                image.save(folder / path.name, quality=95)


def _film(folder: Path) -> Path:
    """The images of a folder, in the order of their names, as a video beside it."""
    import av

    path = folder.with_suffix(".mp4")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "18"})
        stream.pix_fmt = "yuv420p"
        pictures = sorted(folder.iterdir())
        with Image.open(pictures[0]) as first:
            stream.width, stream.height = first.size
        for each in pictures:
            with Image.open(each) as image:
                container.mux(stream.encode(av.VideoFrame.from_image(image.convert("RGB"))))
        container.mux(stream.encode())
    return path


def _write_positions(truth: Frames, path: Path, off: float) -> None:
    noise = np.random.RandomState(0).normal(0, off * find_target(truth.c2w).distance, (len(truth), 3))
    rows = zip(truth.paths, truth.c2w[:, :, 3] + noise, strict=True)
    path.write_text("name,x,y,z\n" + "".join(f"{image.name},{x},{y},{z}\n" for image, (x, y, z) in rows))


def _frame_errors(c2w: np.ndarray, true: np.ndarray, frames: Frames) -> dict[str, float]:
    """How far the cameras as a whole are from the frame and the scale of the positions."""
    assert frames.pose_sigma is not None
    similarity = align_poses(torch.from_numpy(c2w), torch.from_numpy(true))
    middle = c2w[:, :, 3].mean(0)
    values = {
        "positions_off": float(np.nanmedian(frames.pose_sigma)),
        "frame_shift": float(np.linalg.norm(similarity.points(middle) - middle)),
        "frame_rotation_deg": float(rotation_angle_deg(similarity.rotation[None])[0]),
        "frame_scale_error_percent": 100 * (float(similarity.scale) - 1),
    }
    return {name: round(value, 5) for name, value in values.items()}


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    start = time.process_time()
    return work(), round(time.process_time() - start, 1)


def _errors(frames: Frames, c2w: np.ndarray, true: Frames, factor: float, when: str) -> dict[str, float]:
    found = pose_errors(torch.from_numpy(c2w), torch.from_numpy(true.c2w))
    focal = frames.intrinsics_px[:, :2].mean() * factor / true.intrinsics_px[:, :2].mean()
    names = ("rotation_deg", "translation_x100", "focal_error_percent")
    values = (found.rotation_deg_mean, found.translation_x100_mean, 100 * (focal - 1))
    return {f"{when}_{name}": round(float(value), 4) for name, value in zip(names, values, strict=True)}


def main() -> None:
    """Measure and add to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--scenes", nargs="*", choices=list(CASES), default=list(CASES))
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in arguments.scenes:
        with TemporaryDirectory() as scratch:
            results[name] = measure(CASES[name], arguments.data_root, Path(scratch))
        write_json(RESULTS, results)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
