"""Much data: time and peak memory of each step before training; writes benchmarks/results/large.json.

    python -m benchmarks.large --scratch FOLDER

Surveys of flat ground, photographed straight down from a grid of places: every photo is a window of one texture,
enlarged to the size of the photo, so that any number of views of any size has exact poses. Seconds are of the
processor, all threads together, and of the clock, which other work on the machine slows down; a step's peak counts all
that the process holds then.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from benchmarks.harness import command, machine
from craym_nerfstudio.data.dataparser import CraymDataParser, CraymDataParserConfig
from craym_nerfstudio.data.dataset import load_image_store
from craym_nerfstudio.matching.find import find_matches
from craym_nerfstudio.matching.pairs import candidate_pairs
from craym_nerfstudio.preflight.check import check
from craym_nerfstudio.sfm.second_look import adjust_twice
from craym_nerfstudio.storage import write_json

RESULTS = Path(__file__).parent / "results" / "large.json"
_WINDOW_PX = (684, 456)
_STEP = 0.3
"""Between two photos, in parts of one."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Case:
    """A survey of `rows` x `columns` photos, each `enlarged` from a window of 684 x 456 px."""

    rows: int
    columns: int
    enlarged: int = 1
    suffix: str = ".jpg"


CASES = {
    "3 photos": Case(1, 3),
    "1200 photos": Case(30, 40),
    "100 photos of 20 megapixels": Case(10, 10, enlarged=8),
    "1 GB of PNG": Case(5, 5, enlarged=8, suffix=".png"),
}


def write_survey(case: Case, folder: Path) -> None:
    """Images and transforms.json."""
    random = np.random.RandomState(0)
    width, height = _WINDOW_PX
    step = np.round(_STEP * np.array(_WINDOW_PX)).astype(int)
    size = step * [case.columns - 1, case.rows - 1] + _WINDOW_PX
    texture = np.zeros((size[1], size[0], 3), np.float32)
    for cell_px, share in ((3, 0.4), (8, 0.5), (24, 0.6), (80, 0.5)):
        cells = random.randint(0, 256, (size[1] // cell_px + 2, size[0] // cell_px + 2, 3)).astype(np.uint8)
        whole = Image.fromarray(cells).resize((int(size[0]), int(size[1])), Image.Resampling.BICUBIC)
        texture += share * np.asarray(whole)
    ground = Image.fromarray(((texture - texture.min()) / np.ptp(texture) * 255).astype(np.uint8))
    (folder / "images").mkdir(parents=True)
    full, frames = (width * case.enlarged, height * case.enlarged), []
    is_png = case.suffix == ".png"
    noise = random.randint(0, 9, (full[1], full[0], 3)).astype(np.uint8) if is_png else None
    for row in range(case.rows):
        for column in range(case.columns):
            x, y = step * [column, row]
            picture = ground.crop((x, y, x + width, y + height)).resize(full, Image.Resampling.BILINEAR)
            if noise is not None:  # without it a PNG would be small
                picture = Image.fromarray(np.minimum(np.asarray(picture), 246) + np.roll(noise, 97 * column, axis=1))
            name = f"images/{row:03d}_{column:03d}{case.suffix}"
            picture.save(folder / name, **({"compress_level": 1} if is_png else {"quality": 92}))
            pose = np.eye(4)
            # The ground lies at z = 0, a unit is the width of a window.
            pose[:3, 3] = [(x + width / 2) / width, -(y + height / 2) / width, 1.0]
            frames.append({"file_path": name, "transform_matrix": pose.tolist()})
    focal = {"fl_x": full[0], "fl_y": full[0], "cx": full[0] / 2, "cy": full[1] / 2, "w": full[0], "h": full[1]}
    write_json(folder / "transforms.json", {**focal, "frames": frames})


def _peak_mb() -> int:
    """Most memory since the last call."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s+(\d+)", status)
    return round(int(found[1]) / 1024) if found else 0


def measure(data: Path, cache: Path, last: str) -> dict[str, dict[str, float]]:
    """Seconds and memory of each step up to the `last`, in the order of a run."""
    steps: dict[str, dict[str, float]] = {}

    class Enough(Exception):
        pass

    def step(name: str, work: Callable[[], Result]) -> Result:
        _peak_mb()
        start, began = time.process_time(), time.monotonic()
        result = work()
        spent = {"cpu_s": time.process_time() - start, "wall_s": time.monotonic() - began}
        steps[name] = {kind: round(value, 1) for kind, value in spent.items()} | {"peak_mb": _peak_mb()}
        print(name, steps[name], flush=True)
        if name == last:
            raise Enough
        return result

    with suppress(Enough):
        parser = CraymDataParser(CraymDataParserConfig(data=data))
        views = step("read", lambda: parser.scene).views
        step("pair", lambda: candidate_pairs(views))
        matches = step("match", lambda: find_matches(views, "sift", cache))
        step("stage 0", lambda: adjust_twice(views, matches))
        step("load images", lambda: load_image_store(parser.get_dataparser_outputs("train")))
        step("preflight", lambda: check(views, "sift", cache))
        step("match again", lambda: find_matches(views, "sift", cache))
    return steps


def main() -> None:
    """Measure every case in a process of its own and add to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--cases", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--last", default="", help="step after which to stop, such as pair; all by default")
    parser.add_argument("--inside", action="store_true", help="measure here, as this script calls itself")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    told_command = command().replace(str(arguments.scratch), "FOLDER")
    for name in arguments.cases:
        folder = arguments.scratch / name.replace(" ", "_")
        if arguments.inside:
            (folder / "steps.json").write_text(json.dumps(measure(folder, folder / "cache", arguments.last)))
            return
        if not (folder / "transforms.json").exists():
            write_survey(CASES[name], folder)
        again = [sys.executable, "-m", "benchmarks.large", "--inside", "--scratch", str(arguments.scratch)]
        shutil.rmtree(folder / "cache", ignore_errors=True)
        subprocess.run([*again, "--last", arguments.last, "--cases", name], check=True)
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"cases": {}}
        size_mb = sum(path.stat().st_size for path in folder.glob("images/*")) >> 20
        case = CASES[name]
        told = {"images": case.rows * case.columns, "width_px": _WINDOW_PX[0] * case.enlarged, "files_mb": size_mb}
        results["cases"][name] = told | {"steps": json.loads((folder / "steps.json").read_text())}
        write_json(RESULTS, results | {"command": told_command, "machine": machine(torch.device("cpu"))})


if __name__ == "__main__":
    main()
