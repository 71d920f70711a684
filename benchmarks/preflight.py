"""Plants each classic mistake in a dataset and records what `craym preflight` makes of it.

    export OMP_WAIT_POLICY=PASSIVE
    python -m benchmarks.preflight --data ../shared/data/fox

Every mistake is a transforms.json of its own with absolute image paths; rotated images are really rotated. Descriptor
matches are shared between mistakes where pictures, intrinsics and pairs are the same.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from benchmarks.harness import command, keep, machine
from benchmarks.suite import RESULTS
from craym_nerfstudio.cli.preflight import load_scene
from craym_nerfstudio.preflight.check import check

CLOCKWISE = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}
OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


def change_poses(change: Callable[[np.ndarray], np.ndarray], content: dict, _: Path) -> None:
    """Plants what `change` makes of all c2w [cams,4,4]."""
    c2w = np.array([frame["transform_matrix"] for frame in content["frames"]])
    for frame, matrix in zip(content["frames"], change(c2w), strict=True):
        frame["transform_matrix"] = matrix.tolist()


def scale_focal(factor: float, content: dict, _: Path) -> None:
    """Plants a focal length that is `factor` times the true one."""
    for table in (content, *content["frames"]):
        table.update({key: factor * table[key] for key in ("fl_x", "fl_y") if key in table})
        angles = [key for key in ("camera_angle_x", "camera_angle_y") if key in table]
        table.update({key: 2 * np.arctan(np.tan(table[key] / 2) / factor) for key in angles})


def rotate_files(degrees: int, only: tuple[int, ...], content: dict, folder: Path) -> None:
    """Plants image files turned clockwise; where that exchanges width and height, so it does in the JSON file."""
    for number, frame in enumerate(content["frames"]):
        if number in only or not only:
            path = folder / f"{number:04d}.png"
            with Image.open(frame["file_path"]) as image:
                image.transpose(CLOCKWISE[degrees]).save(path, compress_level=1)
            frame["file_path"] = str(path)
    if not only and degrees != 180:
        content["w"], content["h"] = content["h"], content["w"]


def exchange_two(c2w: np.ndarray) -> np.ndarray:
    """Poses of two images exchanged."""
    order = np.arange(len(c2w))
    order[[3, len(c2w) // 2]] = len(c2w) // 2, 3
    return c2w[order]


def random_poses(c2w: np.ndarray) -> np.ndarray:
    """Poses that have nothing to do with the images."""
    random = np.random.RandomState(0)
    changed = np.tile(np.eye(4), (len(c2w), 1, 1))
    changed[:, :3, :3] = Rotation.random(len(c2w), random_state=random).as_matrix()
    changed[:, :3, 3] = random.standard_normal((len(c2w), 3))
    return changed


_POSES: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "none": ("", lambda c2w: c2w),
    "OpenCV axes": ("opencv-axes", lambda c2w: c2w @ OPENCV),
    "w2c": ("w2c", np.linalg.inv),
    "w2c in OpenCV axes": ("w2c-opencv-axes", lambda c2w: np.linalg.inv(c2w @ OPENCV)),
    "shifted by one": ("out-of-order", lambda c2w: np.roll(c2w, 1, axis=0)),
    "reversed": ("out-of-order", lambda c2w: c2w[::-1]),
    "shuffled": ("out-of-order", lambda c2w: c2w[np.random.RandomState(0).permutation(len(c2w))]),
    "two exchanged": ("out-of-order", exchange_two),
    "random poses": ("", random_poses),
}
MISTAKES: dict[str, tuple[str, Callable[[dict, Path], None]]] = {
    **{name: (kind, partial(change_poses, change)) for name, (kind, change) in _POSES.items()},
    **{f"focal length x {x:g}": ("wrong-focal-length", partial(scale_focal, x)) for x in (0.5, 0.7, 1.5, 2.0)},
    **{f"files rotated by {x}": ("rotated-images", partial(rotate_files, x, ())) for x in CLOCKWISE},
    "two files rotated by 180": ("rotated-images", partial(rotate_files, 180, (4, 17))),
}
"""What is planted: the kind of finding that names it, and how."""


def run(name: str, args: argparse.Namespace, cache_dir: Path) -> dict:
    """Plant one mistake and check the dataset."""
    (expected, plant), data = MISTAKES[name], args.data
    content = json.loads((data / "transforms.json").read_text())
    content["frames"] = sorted(content["frames"], key=lambda frame: frame["file_path"])[:: args.every]
    for frame in content["frames"]:
        frame["file_path"] = str((data / frame["file_path"]).resolve())
    with tempfile.TemporaryDirectory() as folder:
        plant(content, Path(folder))
        path = Path(folder) / "transforms.json"
        path.write_text(json.dumps(content))
        clock = time.perf_counter()
        checked = check(load_scene(path, 1000).views, args.matcher, cache_dir)
        seconds = time.perf_counter() - clock
    findings = checked.diagnosis.findings
    kinds = [finding.kind for finding in findings]
    return {
        "mistake": name,
        "found": kinds,
        "right": kinds == ([expected] if expected else []),
        "grade": checked.verdict.grade,
        "findings": [finding.problem.replace(str(data.resolve()), data.name) for finding in findings],
        "seconds": seconds,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=list(MISTAKES), default=list(MISTAKES))
    parser.add_argument("--every", type=int, default=1, help="take every n-th image")
    parser.add_argument("--matcher", default="sift")
    parser.add_argument("--output", type=Path, default=RESULTS / "preflight.json")
    args = parser.parse_args()
    known = json.loads(args.output.read_text())["runs"] if args.output.exists() else []
    results = {result["mistake"]: result for result in known}
    with tempfile.TemporaryDirectory() as empty:
        for name in args.only:
            found = results[name] = run(name, args, Path(empty))
            told = f"{found['found'] or 'nothing'} ({'right' if found['right'] else 'WRONG'}), {found['grade']}"
            print(f"{name}: {told}, {found['seconds']:.0f} s", flush=True)
            # Runs of only some mistakes replace those, and one that is stopped has written what it finished.
            runs = [results[each] for each in MISTAKES if each in results]
            keep(args.output, {"command": command(), "machine": machine(torch.device("cpu")), "runs": runs})


if __name__ == "__main__":
    main()
