"""Cells that look at one thing: wrong matches planted among the right ones, and time."""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import EVERYTHING_ON, Run
from benchmarks.peers import nerfacto_config
from benchmarks.scenes import Scene
from benchmarks.stage0 import with_wrong_matches
from benchmarks.tables import SIZES, SPEED, Cell
from benchmarks.train import Place, advance, craym_config, device_memory, matches_kept, phase
from craym_nerfstudio.data.key_rays import KeyRaySource
from craym_nerfstudio.matching import find
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.views import Views

_LOOKED_AT = 2048
"""Matches of each kind whose matchability is asked for."""
_WARM_STEPS = {"tiny": 5, "cpu": 200, "paper": 400}
_TURNS, _STEPS_PER_TURN = 7, 10
_PSNR_EVERY_S = {"tiny": 2.0, "cpu": 20.0, "paper": 10.0}
_PSNR_POINTS = {"tiny": 2, "cpu": 12, "paper": 18}
_PSNR_VIEWS = 3


@contextmanager
def planted_matches(share: float, seed: int) -> Iterator[dict[str, Matches]]:
    """Lets matching return a share of wrong matches; yields the matches as they are and which of them are wrong."""
    found: dict[str, Matches] = {}
    original = find.find_matches

    def spoiled(views: Views, matcher: find.Matcher, cache_dir: Path) -> Matches:
        matches = original(views, matcher, cache_dir)
        changed = with_wrong_matches(matches, share, seed)
        wrong = (changed.keypoint_ids != matches.keypoint_ids).any(-1)
        found.update(right=changed.subset(~wrong))
        if wrong.any():
            found.update(wrong=changed.subset(wrong))
        return changed

    find.find_matches = spoiled  # type: ignore[assignment]
    try:
        yield found
    finally:
        find.find_matches = original


def outlier_cell(cell: Cell, scene: Scene, place: Place) -> dict:
    """Train among wrong matches; how well the matchability w tells them from right ones."""
    with planted_matches(cell.wrong, cell.seed) as found:
        run = Run(craym_config(cell, scene, place), place.device, cell.seed)
    advance(run, SIZES[cell.size].steps, place)
    figures = phase(place, "matchability", lambda: {"matchability": matchability_figures(run, found)})
    times = {"train_s": round(run.seconds, 2), "steps": run.step}
    return {**run.pipeline.pose_metrics(), **figures, **times, **matches_kept(run.pipeline)}


def matchability_figures(run: Run, found: dict[str, Matches]) -> dict:
    """AUC of w for right against wrong matches, medians, and histograms over [0, 1] in 20 bins."""
    values = {kind: matchability_of(run, matches) for kind, matches in found.items()}
    result: dict = {f"median_{kind}": float(np.median(w)) for kind, w in values.items()}
    for kind, w in values.items():
        result[f"histogram_{kind}"] = np.histogram(w, bins=20, range=(0.0, 1.0))[0].tolist()
    if "wrong" in values:
        result["auc"] = area_under_curve(values["right"], values["wrong"])
    return result


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive exceeds a negative, ties counted half (Mann-Whitney)."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)]
    return float((ranks.mean() - 0.5 * (len(positive) + 1)) / len(negative))


@torch.no_grad()
def matchability_of(run: Run, matches: Matches) -> np.ndarray:
    """The w of Eq. 3 of random draws of these matches, after training."""
    pipeline, manager = run.pipeline, run.pipeline.datamanager
    cameras, kept = manager.train_dataset.cameras, manager.key_source
    focal_px = torch.cat([cameras.fx, cameras.fy], dim=-1).double().mean(-1).cpu().numpy()
    size_px = torch.cat([cameras.width, cameras.height], dim=-1).cpu().numpy()
    manager.key_source = KeyRaySource(matches, focal_px, size_px).to(run.device)
    pipeline.train()
    found = []
    for number in range(max(1, _LOOKED_AT // manager.config.num_key_pairs)):
        rays, _ = manager.next_train(run.step + 1 + number)
        found.append(pipeline.model(rays)["matchability"].cpu())
    manager.key_source = kept
    return torch.cat(found).numpy()


def speed_cell(cell: Cell, scene: Scene, place: Place) -> dict:
    """Seconds per step with everything on, or PSNR over training time, from exact poses."""
    case, size = SPEED[cell.method], SIZES[cell.size]
    nerfacto = case.method == "nerfacto"
    config = nerfacto_config(cell, scene, size.steps) if nerfacto else craym_config(cell, scene, place)
    if not nerfacto:
        config.pipeline.datamanager.train_num_rays_per_batch = (
            case.rays or config.pipeline.datamanager.train_num_rays_per_batch
        )
    if case.levels:
        config.pipeline.model.start_levels, config.pipeline.model.steps_per_level = case.levels, 10**9
    run = Run(config, place.device, cell.seed)
    result = psnr_over_time(run, cell.size) if case.what == "psnr" else step_times(run, cell.size)
    views = len(run.pipeline.datamanager.train_dataset)
    return {**vars(case), "training_views": views, **result, **device_memory(place.device)}


def step_times(run: Run, size: str) -> dict:
    """Median milliseconds of a step after a shortened schedule that ends where everything is on."""
    run.skim(_WARM_STEPS[size], EVERYTHING_ON)
    turns = [1000 * run.advance(_STEPS_PER_TURN) / _STEPS_PER_TURN for _ in range(_TURNS)]
    return {"ms_per_step": round(statistics.median(turns), 2), "ms_turns": [round(turn, 2) for turn in turns]}


def psnr_over_time(run: Run, size: str) -> dict:
    """PSNR of some test views at equal distances of training time."""
    curve = []
    for point in range(1, _PSNR_POINTS[size] + 1):
        while run.seconds < point * _PSNR_EVERY_S[size]:
            run.advance()
        curve.append({"train_s": round(run.seconds, 1), "step": run.step, "psnr": round(run.psnr(_PSNR_VIEWS), 3)})
    return {"curve": curve}
