"""Matchers side by side, followed by stage 0 alone: benchmarks/results/matchers.json, and a table of medians.

    python -m samples.make_solids /tmp/solids
    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.matchers --solids /tmp/solids --data-root ../shared/data

Rows that the JSON has are not measured again. Seconds are CPU seconds of one thread from an empty cache; with
``--cache-dir`` features and pairs that are there cost nothing, and ``cached`` says so. Those of ``auto`` include
SIFT's, which goes first. Translations are in units of the data, x100; angles in degrees.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.stage0 import ROOT, Run, figures, load_views, machine
from craym_nerfstudio.geometry.alignment import pose_errors
from craym_nerfstudio.matching.find import find_matches
from craym_nerfstudio.sfm.adjust import adjust_rays
from craym_nerfstudio.sfm.ray_graph import connected

ROWS: tuple[tuple[str, str, int, tuple[int, ...]], ...] = (
    ("spot", "barf", 1, (0, 1, 2)),
    ("solids", "barf", 1, (0, 1, 2)),
    ("lego_400", "barf", 5, (0, 1, 2)),
    ("spot", "l2g", 1, (0, 1, 2)),
    ("spot", "real", 1, (0, 1, 2)),
    ("spot", "barf", 2, (0, 1, 2)),
    ("still_life", "barf", 1, (0,)),
    ("lego_400", "barf", 1, (0,)),
    ("chair_400", "barf", 1, (0,)),
    ("dtu_scan24", "colmap", 1, (0,)),
    ("temple_ring", "ten", 1, (0,)),
    ("hololens_000", "none", 1, (0,)),
    ("fox", "none", 1, (0,)),
)
KEYS = ("scene", "noise", "every", "seed", "matcher")


def cpu_model() -> str:
    """Name of the processor, where the system tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def measure(run: Run, data_root: Path, cache_dir: Path) -> dict:
    """Match and adjust one start."""
    cached = any(cache_dir.glob("features-*.npz"))
    views, true = load_views(run, data_root)
    start = time.process_time()
    matches = find_matches(views, run.matcher, cache_dir)  # type: ignore[arg-type]
    matched = time.process_time()
    stage = adjust_rays(views, matches)
    adjusted = time.process_time()
    found = figures(stage.c2w, true)
    per_camera = None if true is None else pose_errors(torch.from_numpy(stage.c2w), true).rotation_deg.numpy()
    return {
        **{key: vars(run)[key] for key in KEYS},
        "detector": matches.detector,
        "given_deg": figures(views.c2w, true).get("rotation_deg"),
        "rotation_deg": found.get("rotation_deg"),
        "translation_x100": found.get("translation_x100"),
        "worst_camera_deg": found.get("rotation_deg_max"),
        "beyond_5_deg": None if per_camera is None else int((per_camera > 5).sum()),
        "predicted": stage.state.count("predicted"),
        "matching_cpu_s": round(matched - start, 1),
        "cpu_s": round(adjusted - start, 1),
        "cached": cached,
        "components": len(np.unique(connected(matches.pairs.astype(np.int64), len(views.names)))),
        "pairs_verified": len(matches.pairs),
        "matches": len(matches),
        "keypoint_sigma_px": stage.keypoint_sigma_px,
        "cpu_model": cpu_model(),
        **{key: machine()[key] for key in ("commit", "torch")},
        "command": f"python -m benchmarks.matchers --only {run.scene}:{run.noise}:{run.every}:{run.matcher}",
    }


def table(results: list[dict]) -> None:
    """Print the medians over seeds of every row."""
    groups: dict[tuple, list[dict]] = {}
    for result in results:
        groups.setdefault(tuple(result[key] for key in ("scene", "every", "noise", "matcher")), []).append(result)
    print("| scene | every | start | matcher | deg | x100 | worst deg | pieces | pairs | cpu s |\n" + "|---" * 10 + "|")
    for group, members in sorted(groups.items()):
        names = ("rotation_deg", "translation_x100", "worst_camera_deg", "components", "pairs_verified", "cpu_s")
        values = ([member[name] for member in members if member[name] is not None] for name in names)
        cells = [f"{statistics.median(known):.4g}" if known else "-" for known in values]
        print(f"| {' | '.join([*map(str, group), *cells])} |")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--solids", type=Path, help="folder that samples.make_solids wrote; left out without it")
    parser.add_argument("--matchers", default="sift,auto")
    parser.add_argument("--only", default="", help="rows that begin so, as scene:noise:every")
    parser.add_argument("--cache-dir", type=Path)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "matchers.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(args.output.read_text()) if args.output.is_file() else []
    done = {tuple(result[key] for key in KEYS) for result in results}
    for scene, noise, every, seeds in ROWS:
        for seed, matcher in ((seed, matcher) for seed in seeds for matcher in args.matchers.split(",")):
            folder = args.solids if scene == "solids" else args.data_root / scene
            named = f"{scene}:{noise}:{every}:{matcher}".startswith(args.only)
            if folder is None or not named or (scene, noise, every, seed, matcher) in done:
                continue
            run = Run(folder.name, noise, every, seed, matcher=matcher)
            with tempfile.TemporaryDirectory() as empty:
                result = measure(run, folder.parent, args.cache_dir or Path(empty))
            results.append({**result, "scene": scene})
            args.output.parent.mkdir(parents=True, exist_ok=True)
            args.output.write_text("[\n" + ",\n".join(map(json.dumps, results)) + "\n]\n")
    table(results)


if __name__ == "__main__":
    main()
