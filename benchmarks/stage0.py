"""Matched-ray bundle adjustment from rough poses: errors before and after, one JSON file per run.

    export OMP_WAIT_POLICY=PASSIVE
    python -m benchmarks.stage0 --scene lego_400 --noise barf --seed 0 --data-root ../shared/data
    python -m benchmarks.stage0 --table --data-root ../shared/data

The last command makes every row of the table over three seeds, spoils matches, takes 25, 50 and 100 views, prints the
medians and draws them; runs whose result exists are not repeated. Translations are in units of the data, x100: of the
w2c translation vectors (as in the papers) and of the camera centres. Matching starts from an empty cache unless
``--cache-dir`` is given; seconds are wall clock, ``cpu_s`` those of all threads.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from craym_nerfstudio.data.dataparser import CraymDataParserConfig
from craym_nerfstudio.data.views import views_from_outputs
from craym_nerfstudio.geometry.alignment import align_poses, pose_errors
from craym_nerfstudio.geometry.lie import so3_exp
from craym_nerfstudio.geometry.rays import focus_point
from craym_nerfstudio.matching.find import find_matches
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.sfm.adjust import adjust_rays
from craym_nerfstudio.sfm.result import StageZero

ROOT = Path(__file__).resolve().parent.parent
INPUT_FILES = {("dtu_scan24", "colmap"): "transforms_colmap.json"}
UNKNOWN_TRUTH = ("hololens_000", "fox")
SEEDS = (0, 1, 2)
WRONG = (0.0, 0.2, 0.4, 0.6)
TABLE: tuple[tuple[str, str, int], ...] = (
    ("lego_400", "barf", 1),
    ("lego_400", "l2g", 1),
    ("chair_400", "barf", 1),
    ("chair_400", "l2g", 1),
    ("still_life", "barf", 1),
    ("lego_400", "barf", 5),
    ("dtu_scan24", "colmap", 1),
    ("temple_ring", "ten", 1),
    ("hololens_000", "none", 1),
    ("fox", "none", 1),
    ("lego_400", "none", 1),
    ("dtu_scan24", "none", 1),
    ("temple_ring", "none", 1),
    ("still_life", "none", 1),
)


@dataclass(frozen=True)
class Run:
    """One start: which scene, what noise (protocols, `ten` degrees and percent, `colmap` file), which images."""

    scene: str
    noise: str
    every: int = 1
    seed: int = 0
    wrong: float = 0.0
    matcher: str = "auto"

    @property
    def name(self) -> str:
        """File name of the result."""
        every = f"-every{self.every}" if self.every > 1 else ""
        wrong = f"-wrong{round(100 * self.wrong)}" if self.wrong else ""
        matcher = f"-{self.matcher}" if self.matcher != "auto" else ""
        return f"{self.scene}-{self.noise}{every}{wrong}{matcher}-seed{self.seed}"


def load_views(run: Run, data_root: Path) -> tuple[Views, torch.Tensor | None]:
    """Views with rough poses, and true poses where they are known."""
    folder = ROOT / "samples" / run.scene if run.scene == "still_life" else data_root / run.scene
    data = folder / INPUT_FILES.get((run.scene, run.noise), "")
    truth = folder / "transforms.json"
    config = CraymDataParserConfig(
        data=data if data.is_file() else folder,
        eval_interval=0,
        pose_noise=run.noise if run.noise in ("barf", "l2g", "l2g-low", "real") else "none",  # type: ignore[arg-type]
        pose_noise_seed=run.seed,
        reference_poses=truth if truth.is_file() and run.scene not in UNKNOWN_TRUTH else None,
    )
    outputs = config.setup().get_dataparser_outputs("train")
    views = views_from_outputs(outputs)
    reference = outputs.metadata["reference"]
    true = None if reference is None else torch.from_numpy(reference.train_c2w)
    if run.noise == "ten":
        views = replace(views, c2w=ten_degrees(views.c2w, run.seed))
    chosen = np.arange(0, len(views.names), run.every)
    return every_nth(views, chosen), None if true is None else true[torch.from_numpy(chosen)]


def every_nth(views: Views, chosen: np.ndarray) -> Views:
    """Only the chosen images."""
    return Views(
        names=[views.names[k] for k in chosen],
        paths=[views.paths[k] for k in chosen],
        mask_paths=None if views.mask_paths is None else [views.mask_paths[k] for k in chosen],
        c2w=views.c2w[chosen],
        focal_px=views.focal_px[chosen],
        size_px=views.size_px[chosen],
        bearings=lambda image, keypoints: views.bearings(int(chosen[image]), keypoints),
    )


def ten_degrees(c2w: np.ndarray, seed: int) -> np.ndarray:
    """Poses turned by 10 degrees and shifted by 10 % of the camera's distance, both in random directions."""
    random = np.random.RandomState(seed)
    axes, shifts = random.standard_normal((2, len(c2w), 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    shifts /= np.linalg.norm(shifts, axis=1, keepdims=True)
    poses = torch.from_numpy(c2w)
    distance = (poses[:, :, 3] - focus_point(poses[:, :, 3], -poses[:, :, 2])).norm(dim=1).numpy()
    turned = c2w[:, :, :3] @ so3_exp(torch.from_numpy(np.radians(10) * axes)).numpy()
    return np.concatenate([turned, c2w[:, :, 3:] + 0.1 * (distance[:, None] * shifts)[..., None]], axis=-1)


def with_wrong_matches(matches: Matches, fraction: float, seed: int) -> Matches:
    """Matches of which a fraction ends at some other matched keypoint of the second image."""
    random = np.random.RandomState(seed)
    images, ids = matches.images[:, 1], matches.keypoint_ids.copy()
    keypoints, bearings = matches.keypoints.copy(), matches.bearings.copy()
    for match in np.nonzero(random.uniform(size=len(ids)) < fraction)[0]:
        other = random.choice(np.nonzero(images == images[match])[0])
        ids[match, 1] = matches.keypoint_ids[other, 1]
        keypoints[match, 1], bearings[match, 1] = matches.keypoints[other, 1], matches.bearings[other, 1]
    return replace(matches, keypoint_ids=ids, keypoints=keypoints, bearings=bearings)


def figures(c2w: np.ndarray, true: torch.Tensor | None) -> dict[str, float]:
    """Errors against true poses after alignment."""
    if true is None:
        return {}
    poses = torch.from_numpy(np.asarray(c2w, dtype=np.float64))
    errors = pose_errors(poses, true)
    centers = align_poses(poses, true).poses(poses)[:, :, 3]
    return {
        "rotation_deg": errors.rotation_deg_mean,
        "rotation_deg_median": errors.rotation_deg_median,
        "rotation_deg_max": float(errors.rotation_deg.max()),
        "translation_x100": errors.translation_x100_mean,
        "center_x100": 100 * float((centers - true[:, :, 3]).norm(dim=1).mean()),
    }


def moved(views: Views, stage: StageZero) -> dict[str, float]:
    """How far cameras moved, after an alignment that takes out the common motion."""
    before, after = torch.from_numpy(np.asarray(views.c2w, dtype=np.float64)), torch.from_numpy(stage.c2w)
    change = pose_errors(after, before)
    return {"deg_median": change.rotation_deg_median, "deg_max": float(change.rotation_deg.max())}


def measure(run: Run, data_root: Path, cache_dir: Path | None) -> dict:
    """Match and adjust one start."""
    views, true = load_views(run, data_root)
    clock, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as empty:
        matches = find_matches(views, run.matcher, cache_dir or Path(empty))  # type: ignore[arg-type]
    matched, matched_cpu = time.perf_counter() - clock, time.process_time() - cpu
    if run.wrong:
        matches = with_wrong_matches(matches, run.wrong, run.seed)
    clock, cpu = time.perf_counter(), time.process_time()
    stage = adjust_rays(views, matches)
    adjusted, adjusted_cpu = time.perf_counter() - clock, time.process_time() - cpu
    return {
        **vars(run),
        "cameras": {state: stage.state.count(state) for state in ("adjusted", "predicted", "kept")},
        "matches": len(matches),
        "pairs": len(matches.pairs),
        "points": len(stage.points),
        "before": figures(views.c2w, true),
        "after": figures(stage.c2w, true),
        "moved": moved(views, stage),
        "epipolar_px": stage.median_epipolar_px,
        "keypoint_sigma_px": stage.keypoint_sigma_px,
        "formal_rotation_sigma_deg": float(np.nanmean(stage.rotation_sigma_deg)),
        "decision": stage.decision.reason,
        "seconds": {"matching": matched, "adjustment": adjusted},
        "cpu_s": {"matching": matched_cpu, "adjustment": adjusted_cpu},
        "load_average": os.getloadavg()[0],
    }


def machine() -> dict[str, str | int]:
    """What the run ran on, and of which commit."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "commit": commit.stdout.strip(),
        "machine": f"{platform.machine()}, {cores} cores",
        "torch": torch.__version__,
        "command": " ".join(["python -m benchmarks.stage0", *sys.argv[1:]]),
    }


def perform(run: Run, args: argparse.Namespace) -> dict:
    """Measure, print and store one run, or read its result."""
    path = args.output / f"{run.name}.json"
    if path.exists():
        return json.loads(path.read_text())
    result = {**measure(run, args.data_root, args.cache_dir), **machine()}
    args.output.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result) + "\n")
    print(
        f"{run.name}: {outcome(result)}; {result['cameras']}; epipolar {result['epipolar_px'][0]:.2f} -> "
        f"{result['epipolar_px'][1]:.2f} px; {sum(result['seconds'].values()):.0f} s "
        f"({sum(result['cpu_s'].values()):.0f} cpu s)",
        flush=True,
    )
    return result


def outcome(result: dict) -> str:
    """Errors where the truth is known, else how far cameras moved."""
    before, after, moves = result["before"], result["after"], result["moved"]
    if not after:
        return f"moved {moves['deg_median']:.2f} deg (at most {moves['deg_max']:.2f})"
    errors = f"{before['rotation_deg']:.3f} -> {after['rotation_deg']:.4f} deg"
    return f"{errors}, translation {after['translation_x100']:.3f}, centre {after['center_x100']:.3f}"


def summarise(results: list[dict]) -> None:
    """Print the medians over seeds of every row."""
    rows: dict[tuple[str, str, int], list[dict]] = {}
    for result in results:
        rows.setdefault((result["scene"], result["noise"], result["every"]), []).append(result)
    print("| scene | start | rotation deg | translation x100 | centre x100 | cpu s |\n|---|---|---|---|---|---|")
    for (scene, noise, every), members in rows.items():
        cells = []
        for key in ("rotation_deg", "translation_x100", "center_x100"):
            values = [m["after"][key] for m in members if m["after"]]
            cells.append(f"{statistics.median(values):.3f}" if values else "-")
        seconds = statistics.median(sum(m["cpu_s"].values()) for m in members)
        print(f"| {scene}{f', every {every}' if every > 1 else ''} | {noise} | {' | '.join(cells)} | {seconds:.0f} |")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", default="lego_400")
    parser.add_argument("--noise", default="barf", help="none, barf, l2g, l2g-low, real, ten, colmap")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="take every n-th image")
    parser.add_argument("--wrong", type=float, default=0.0, help="fraction of matches to spoil")
    parser.add_argument("--matcher", default="auto")
    parser.add_argument("--table", action="store_true", help="all rows of the acceptance table, three seeds each")
    parser.add_argument("--data-root", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--cache-dir", type=Path)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "stage0")
    args = parser.parse_args()
    if not args.table:
        perform(Run(args.scene, args.noise, args.every, args.seed, args.wrong, args.matcher), args)
        return
    summarise([perform(run, args) for run in table_runs(args.matcher)])
    wrong = [perform(Run("still_life", "barf", seed=seed, wrong=share), args) for share in WRONG for seed in SEEDS]
    scaling = [perform(Run("lego_400", "barf", every, matcher="sift"), args) for every in (4, 2, 1)]
    draw(wrong, scaling, ROOT / "docs" / "images")


def table_runs(matcher: str) -> list[Run]:
    """Every row with its seeds."""
    noisy = ("barf", "l2g", "ten")
    return [
        Run(scene, noise, every, seed, matcher=matcher)
        for scene, noise, every in TABLE
        for seed in (SEEDS if noise in noisy else SEEDS[:1])
    ]


def draw(wrong: list[dict], scaling: list[dict], folder: Path) -> None:
    """Pose error against planted wrong matches, and seconds against views."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    left.plot([100 * r["wrong"] for r in wrong], [r["after"]["rotation_deg"] for r in wrong], "o")
    medians = [statistics.median(r["after"]["rotation_deg"] for r in wrong if r["wrong"] == share) for share in WRONG]
    left.plot([100 * share for share in WRONG], medians, "-")
    left.set(xlabel="planted wrong matches, %", ylabel="rotation error, degrees", ylim=(0, None))
    left.set_title("still_life from barf noise")
    views = [sum(r["cameras"].values()) for r in scaling]
    for key in ("matching", "adjustment"):
        right.plot(views, [r["cpu_s"][key] for r in scaling], "o", label=key)
    right.set(xlabel="views", ylabel="CPU seconds", ylim=(0, None), xlim=(0, None))
    right.set_title("lego_400")
    right.legend()
    figure.savefig(folder / "stage0.png", dpi=110)


if __name__ == "__main__":
    main()
