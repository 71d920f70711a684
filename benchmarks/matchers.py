"""Matchers side by side, each followed by stage 0: benchmarks/results/matchers.json.

    python -m samples.make_solids DATA/solids
    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.matchers --data-root DATA

Rows that the JSON has are not measured again. CPU seconds are those of one thread, from an empty cache unless
``cached``; those of ``auto`` include SIFT's, which goes first. Translations are in units of the data, x100.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import command, machine
from benchmarks.stage0 import Case, errors, load_views
from benchmarks.suite import DATA, RESULTS, SEEDS
from craym_nerfstudio.geometry.alignment import pose_errors
from craym_nerfstudio.matching.find import find_matches
from craym_nerfstudio.sfm.adjust import adjust_rays
from craym_nerfstudio.sfm.ray_graph import connected
from craym_nerfstudio.storage import write_json

CASES = [
    *(
        Case(*each, seed=seed)
        for each in (("spot", "barf"), ("solids", "barf"), ("lego_400", "barf", 5))
        for seed in SEEDS
    ),
    *(Case(*each, seed=seed) for each in (("spot", "l2g"), ("spot", "real"), ("spot", "barf", 2)) for seed in SEEDS),
    *(Case(scene, "barf") for scene in ("still_life", "lego_400", "chair_400")),
    *(Case("dtu_scan24", "colmap"), Case("temple_ring", "ten"), Case("hololens_000", "none"), Case("fox", "none")),
]


def measure(case: Case, matcher: str, data_root: Path, cache_dir: Path) -> dict:
    """Match and adjust one start."""
    cached = any(cache_dir.glob("features-*.npz"))
    views, true, _ = load_views(case, data_root)
    start = time.process_time()
    matches = find_matches(views, matcher, cache_dir)  # type: ignore[arg-type]
    matched = time.process_time()
    stage = adjust_rays(views, matches)
    adjusted = time.process_time()
    found = errors(stage.c2w, true)
    beyond = None if true is None else int((pose_errors(torch.from_numpy(stage.c2w), true).rotation_deg > 5).sum())
    return {
        **identity(case, matcher),
        "detector": matches.detector,
        "given_deg": errors(views.c2w, true).get("rotation_deg"),
        "rotation_deg": found.get("rotation_deg"),
        "translation_x100": found.get("translation_x100"),
        "worst_camera_deg": found.get("rotation_deg_max"),
        "beyond_5_deg": beyond,
        "predicted": stage.state.count("predicted"),
        "matching_cpu_s": round(matched - start, 1),
        "cpu_s": round(adjusted - start, 1),
        "cached": cached,
        "components": len(np.unique(connected(matches.pairs.astype(np.int64), len(views.names)))),
        "pairs_verified": len(matches.pairs),
        "matches": len(matches),
        "keypoint_sigma_px": stage.keypoint_sigma_px,
        "command": command(),
        "machine": machine(torch.device("cpu")),
    }


def identity(case: Case, matcher: str) -> dict:
    """What makes a row of the JSON."""
    return {"scene": case.scene, "noise": case.noise, "every": case.every, "seed": case.seed, "matcher": matcher}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=DATA)
    parser.add_argument("--matchers", default="sift,auto")
    parser.add_argument("--only", default="", help="cases whose names begin so, as spot-barf")
    parser.add_argument("--cache-dir", type=Path)
    parser.add_argument("--output", type=Path, default=RESULTS / "matchers.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(args.output.read_text()) if args.output.is_file() else []
    for case in (case for case in CASES if case.name.startswith(args.only)):
        for matcher in args.matchers.split(","):
            wanted = identity(case, matcher)
            if any(wanted.items() <= row.items() for row in rows):
                continue
            with tempfile.TemporaryDirectory() as empty:
                rows.append(measure(case, matcher, args.data_root, args.cache_dir or Path(empty)))
            write_json(args.output, rows)
            print(json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    main()
