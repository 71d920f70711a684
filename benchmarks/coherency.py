"""Whether matchability (MRC, Eq. 3) tells right matches from wrong ones, early and late in training.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.coherency --output benchmarks/results/coherency.json

From `barf` noise stage 0 runs first; then a share of its matches is made to end at another matched keypoint of the
second image, and ``craym-lite`` trains with all of them, key rays and epipolar loss alike. AUC: the probability that a
right match has a larger w than a wrong one.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from benchmarks.harness import Run, command, keep, machine
from benchmarks.scenes import prepare
from benchmarks.stage0 import with_wrong_matches
from benchmarks.suite import DATA, SIZES, Cell
from benchmarks.train import Place, craym_config
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.pipeline import CraymPipeline
from craym_nerfstudio.viewer.layers import agreement

_JUDGED = 3000
"""Matches that are looked at, about."""
_BINS = 10


def auc(right: Float[np.ndarray, " n"], wrong: Float[np.ndarray, " m"]) -> float:
    """Probability that a figure of `right` is larger than one of `wrong`; ties count half."""
    ranks = rankdata(np.concatenate([right, wrong]))[: len(right)]
    return float((ranks.sum() - len(right) * (len(right) + 1) / 2) / (len(right) * len(wrong)))


def weights_of(pipeline: CraymPipeline, matches: Matches) -> Float[np.ndarray, " matches"]:
    """The w of matches under the poses and the field as they are."""
    c2w, weights = pipeline.refined_c2w().double().numpy(), np.zeros(len(matches))
    for pair in np.unique(matches.pair_of_match):
        own = matches.pair_of_match == pair
        bearings = matches.bearings[own].astype(np.float64)
        weights[own] = agreement(pipeline.craym_model, c2w[matches.pairs[pair]], bearings).cpu().numpy()
    return weights


def figures(weights: Float[np.ndarray, " n"], wrong: Bool[np.ndarray, " n"]) -> dict:
    """AUC, medians and histograms of right and of wrong matches."""
    kinds = {"right": weights[~wrong], "wrong": weights[wrong]}
    told: dict = {"auc": round(auc(kinds["right"], kinds["wrong"]), 4)}
    for name, values in kinds.items():
        told[f"{name}_median"] = round(float(np.median(values)), 4)
        told[f"{name}_share_above_half"] = round(float((values > 0.5).mean()), 4)
        told[f"{name}_histogram"] = np.histogram(values, _BINS, (0.0, 1.0))[0].tolist()
    return told


def measure(scene: str, wrong_share: float, steps: int, seed: int, data_root: Path, work: Path) -> dict:
    """Train with wrong matches, and look at w early, in the middle and at the end."""
    place = Place(work, work / "none", torch.device("cuda" if torch.cuda.is_available() else "cpu"), float("inf"))
    cell = Cell("coherency", scene, "barf", "craym", seed)
    config = craym_config(cell, prepare(scene, SIZES["shipped"], data_root, work), place)
    config.max_num_iterations = steps
    config.fit_schedules()
    run = Run(config, place.device, seed)
    pipeline = run.pipeline
    assert isinstance(pipeline, CraymPipeline) and pipeline.start is not None and pipeline.start.matches is not None
    planted = with_wrong_matches(pipeline.start.matches, wrong_share, seed)
    wrong = planted.keypoint_ids[:, 1] != pipeline.start.matches.keypoint_ids[:, 1]
    pipeline.datamanager.draw_matches(planted)
    judged = np.zeros(len(planted), dtype=bool)
    judged[np.random.RandomState(seed).permutation(len(planted))[:_JUDGED]] = True
    looks = []
    for share in (0.0, 0.1, 0.3, 1.0):
        run.advance(round(share * steps) - run.step)
        pipeline.eval()
        looks.append({"step": run.step, **figures(weights_of(pipeline, planted.subset(judged)), wrong[judged])})
        pipeline.train()
        print(scene, json.dumps(looks[-1]), flush=True)
    shares = {"wrong_share": wrong_share, "matches": len(planted)}
    return {"scene": scene, "seed": seed, "steps": steps, **shares, "looks": looks, **pipeline.pose_metrics()}


def main() -> None:
    """Measure scene by scene and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--data-root", type=Path, default=DATA)
    parser.add_argument("--work", type=Path, default=Path("outputs/benchmarks"))
    parser.add_argument("--scenes", nargs="+", default=["still_life", "lego_400"])
    parser.add_argument("--wrong", type=float, default=0.3)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    about, runs = {"command": command()}, []
    for scene in given.scenes:
        runs.append(measure(scene, given.wrong, given.steps, given.seed, given.data_root, given.work))
        keep(given.output, {**about, "machine": machine(torch.device("cpu")), "runs": runs})


if __name__ == "__main__":
    main()
