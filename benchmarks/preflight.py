"""Plants each classic mistake in a dataset and records what `craym preflight` makes of it.

    export OMP_WAIT_POLICY=PASSIVE
    python -m benchmarks.preflight --data ../shared/data/fox

Every mistake is a transforms.json of its own with absolute image paths; rotated images are really rotated. Descriptor
matches are shared between mistakes where pictures, intrinsics and pairs are the same.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from craym_nerfstudio.cli.preflight import load_views
from craym_nerfstudio.preflight.check import check

ROOT = Path(__file__).resolve().parent.parent
CLOCKWISE = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}
Plant = Callable[[dict, Path], None]


def change_poses(change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    """Plants what `change` makes of all c2w [cams,4,4]."""

    def plant(content: dict, folder: Path) -> None:
        del folder
        c2w = np.array([frame["transform_matrix"] for frame in content["frames"]])
        for frame, matrix in zip(content["frames"], change(c2w), strict=True):
            frame["transform_matrix"] = matrix.tolist()

    return plant


def scale_focal(factor: float) -> Plant:
    """Plants a focal length that is `factor` times the true one."""

    def plant(content: dict, folder: Path) -> None:
        del folder
        for table in (content, *content["frames"]):
            for key in ("fl_x", "fl_y"):
                if key in table:
                    table[key] *= factor
            for key in ("camera_angle_x", "camera_angle_y"):
                if key in table:
                    table[key] = 2 * np.arctan(np.tan(table[key] / 2) / factor)

    return plant


def rotate_files(degrees: int, only: tuple[int, ...] | None = None) -> Plant:
    """Plants image files turned clockwise; where that exchanges width and height, so it does in the JSON file."""

    def plant(content: dict, folder: Path) -> None:
        for number, frame in enumerate(content["frames"]):
            if only is None or number in only:
                path = folder / f"{number:04d}.png"
                with Image.open(frame["file_path"]) as image:
                    image.transpose(CLOCKWISE[degrees]).save(path, compress_level=1)
                frame["file_path"] = str(path)
        if only is None and degrees != 180:
            content["w"], content["h"] = content["h"], content["w"]

    return plant


def exchange_two(c2w: np.ndarray) -> np.ndarray:
    """Poses of two images exchanged."""
    changed = c2w.copy()
    changed[[3, len(c2w) // 2]] = changed[[len(c2w) // 2, 3]]
    return changed


def random_poses(c2w: np.ndarray) -> np.ndarray:
    """Poses that have nothing to do with the images."""
    random = np.random.RandomState(0)
    changed = np.tile(np.eye(4), (len(c2w), 1, 1))
    changed[:, :3, :3] = Rotation.random(len(c2w), random_state=random).as_matrix()
    changed[:, :3, 3] = random.standard_normal((len(c2w), 3))
    return changed


OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
MISTAKES: dict[str, tuple[str, Plant]] = {
    "none": ("", lambda content, folder: None),
    "OpenCV axes": ("opencv-axes", change_poses(lambda c2w: c2w @ OPENCV)),
    "w2c": ("w2c", change_poses(np.linalg.inv)),
    "w2c in OpenCV axes": ("w2c-opencv-axes", change_poses(lambda c2w: np.linalg.inv(c2w @ OPENCV))),
    "shifted by one": ("out-of-order", change_poses(lambda c2w: np.roll(c2w, 1, axis=0))),
    "reversed": ("out-of-order", change_poses(lambda c2w: c2w[::-1])),
    "shuffled": ("out-of-order", change_poses(lambda c2w: c2w[np.random.RandomState(0).permutation(len(c2w))])),
    "two exchanged": ("out-of-order", change_poses(exchange_two)),
    "random poses": ("", change_poses(random_poses)),
    "focal length x 0.5": ("wrong-focal-length", scale_focal(0.5)),
    "focal length x 0.7": ("wrong-focal-length", scale_focal(0.7)),
    "focal length x 1.5": ("wrong-focal-length", scale_focal(1.5)),
    "focal length x 2": ("wrong-focal-length", scale_focal(2.0)),
    "files rotated by 90": ("rotated-images", rotate_files(90)),
    "files rotated by 180": ("rotated-images", rotate_files(180)),
    "files rotated by 270": ("rotated-images", rotate_files(270)),
    "two files rotated by 180": ("rotated-images", rotate_files(180, (4, 17))),
}
"""What is planted: the kind of finding that names it, and how."""


def run(name: str, data: Path, every: int, matcher: str, max_image_size_px: int, cache_dir: Path) -> dict:
    """Plant one mistake and check the dataset."""
    expected, plant = MISTAKES[name]
    content = deepcopy(json.loads((data / "transforms.json").read_text()))
    content["frames"] = sorted(content["frames"], key=lambda frame: frame["file_path"])[::every]
    for frame in content["frames"]:
        frame["file_path"] = str((data / frame["file_path"]).resolve())
    with tempfile.TemporaryDirectory() as folder:
        plant(content, Path(folder))
        path = Path(folder) / "transforms.json"
        path.write_text(json.dumps(content))
        clock = time.perf_counter()
        checked = check(load_views(path, max_image_size_px), matcher, cache_dir)  # type: ignore[arg-type]
        seconds = time.perf_counter() - clock
    kinds = [finding.kind for finding in checked.diagnosis.findings]
    result = {
        "mistake": name,
        "found": kinds,
        "right": kinds == ([expected] if expected else []),
        "grade": checked.verdict.grade,
        "exit_status": checked.verdict.exit_status,
        "findings": [finding.problem.replace(str(data.resolve()), data.name) for finding in checked.diagnosis.findings],
        "images": len(checked.views.names),
        "relative_rotation_deg": [checked.diagnosis.given.rotation_deg, checked.diagnosis.remaining.rotation_deg],
        "epipolar_px": [_median(checked.given_px), _median(checked.adjusted_px)],
        "suspicious": len(checked.suspicious),
        "seconds": seconds,
    }
    print(f"{name}: {kinds or 'nothing'} ({'right' if result['right'] else 'WRONG'}), {result['grade']}, "
          f"{seconds:.0f} s", flush=True)
    return result


def _median(values: np.ndarray) -> float | None:
    return float(np.nanmedian(values)) if np.isfinite(values).any() else None


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=list(MISTAKES), default=list(MISTAKES))
    parser.add_argument("--every", type=int, default=1, help="take every n-th image")
    parser.add_argument("--matcher", default="sift")
    parser.add_argument("--max-image-size-px", type=int, default=1000)
    parser.add_argument("--cache-dir", type=Path)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "preflight.json")
    args = parser.parse_args()
    results = json.loads(args.output.read_text())["runs"] if args.output.exists() else []
    with tempfile.TemporaryDirectory() as empty:
        cache_dir = args.cache_dir or Path(empty)
        for name in args.only:
            found = run(name, args.data, args.every, args.matcher, args.max_image_size_px, cache_dir)
            # Runs of only some mistakes replace those, and one that is stopped has written what it finished.
            results = [result for result in results if result["mistake"] != name] + [found]
            results.sort(key=lambda result: list(MISTAKES).index(result["mistake"]))
            write(results, args.output)
    print(f"{sum(result['right'] for result in results)} of {len(results)} right, written to {args.output}")


def write(results: list[dict], path: Path) -> None:
    """All runs so far, and what they ran on."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    content = {
        "command": " ".join(["python -m benchmarks.preflight", *sys.argv[1:]]),
        "commit": commit.stdout.strip(),
        "machine": platform.machine(),
        "runs": results,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
