"""Peak resident memory: setting up training and a few steps, and a thousand views of one megapixel.

    python benchmarks/memory.py --data ../shared/data/lego_400 --output benchmarks/results/memory.json

Each case runs in its own process. The thousand views are noise written to a temporary folder and deleted afterwards;
they are not matched, so the figure is that of reading, holding and drawing from the images, with the whole model.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from harness import Run, command, keep, machine
from PIL import Image

from craym_nerfstudio.methods import craym_lite


def write_noise(folder: Path, views: int, side_px: int) -> None:
    """A ring of cameras around noise, as transforms.json and JPEG files."""
    generator, frames = np.random.default_rng(0), []
    (folder / "images").mkdir(parents=True)
    noise = generator.integers(0, 255, (side_px, side_px, 3), dtype=np.uint8)
    for view in range(views):
        name = f"images/{view:04d}.jpg"
        Image.fromarray(np.roll(noise, 7 * view, axis=1)).save(folder / name, quality=30)
        angle = 2 * np.pi * view / views
        pose = np.eye(4)
        pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [np.sin(angle), 0, -np.cos(angle)], [0, 1, 0]]
        pose[:3, 3] = 3 * pose[:3, 2]
        frames.append({"file_path": name, "transform_matrix": pose.tolist()})
    intrinsics = {"w": side_px, "h": side_px, "fl_x": 1.2 * side_px, "fl_y": 1.2 * side_px}
    intrinsics |= {"cx": 0.5 * side_px, "cy": 0.5 * side_px, "camera_model": "OPENCV"}
    (folder / "transforms.json").write_text(json.dumps({**intrinsics, "frames": frames}))


def peak_mb() -> int:
    """High-water mark of this process's resident memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def measure(data: Path, max_side_px: int, matcher: str, cache_dir: Path, steps: int, queue: object) -> None:
    """Set up `craym-lite`, take some steps and put the figures into the queue."""
    config = deepcopy(craym_lite.config)
    manager = config.pipeline.datamanager
    manager.data, manager.matcher, manager.cache_dir = data, matcher, cache_dir
    manager.dataparser.max_image_size_px = max_side_px
    before, start = peak_mb(), time.perf_counter()
    run = Run(config, torch.device("cpu"))
    loaded, seconds = peak_mb(), time.perf_counter() - start
    run.advance(steps)
    images = run.pipeline.datamanager.images
    queue.put(  # type: ignore[attr-defined]
        {
            "views": len(images),
            "megapixels": round(len(images.pixels) / 1e6, 1),
            "images_dtype": str(images.pixels.dtype),
            "images_mb": images.bytes >> 20,
            "imports_mb": before,
            "setup_peak_mb": loaded,
            "training_peak_mb": peak_mb(),
            "setup_s": round(seconds, 1),
        }
    )


def in_own_process(*arguments: object) -> dict:
    """`measure` in a fresh interpreter, so that peaks do not add up."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=measure, args=(*arguments, queue))
    child.start()
    child.join()
    if child.exitcode != 0:
        raise SystemExit(f"the measurement failed with exit code {child.exitcode}")
    return queue.get()


def main() -> None:
    """Measure both cases and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--data", type=Path, default=None, help="a scene of about 100 views of 400 px, with matching")
    parser.add_argument("--views", type=int, default=1000, help="views of noise")
    parser.add_argument("--side-px", type=int, default=1000, help="side of the views of noise")
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    result: dict = {"command": command(), "machine": machine(torch.device("cpu"))}
    with tempfile.TemporaryDirectory(prefix="craym_memory_") as scratch:
        folder = Path(scratch)
        if arguments.data is not None:
            result["scene"] = {"data": arguments.data.name}
            result["scene"] |= in_own_process(arguments.data, 400, "sift", folder / "cache", arguments.steps)
        if arguments.views:
            write_noise(folder / "noise", arguments.views, arguments.side_px)
            result["noise"] = in_own_process(
                folder / "noise", arguments.side_px, "none", folder / "cache", arguments.steps
            )
    print(json.dumps(result, indent=1))
    keep(arguments.output, result)


if __name__ == "__main__":
    main()
