"""Train the same method on each implementation of the hash grid that runs here, and compare what comes out.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/equality.py --output benchmarks/results/equality.json

Every implementation takes as many steps from the same seeds, on a schedule shortened to that number. They draw the same
rays and differ by rounding alone, which training amplifies: figures agree as two runs of one of them would.
"""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

import torch
from harness import ROOT, Run, command, keep, machine, shorten
from train_step import our_config

from craym_nerfstudio.fields.encoding import choose_backend

FIGURES = ("psnr", "pose_rotation_deg", "pose_translation_x100")


def train(arguments: argparse.Namespace, backend: str, seed: int) -> dict[str, float]:
    """Final figures of one training run."""
    config = our_config(arguments, backend)
    shorten(config, arguments.steps)
    manager = config.pipeline.datamanager
    manager.pose_noise_seed = manager.seed = config.pipeline.model.seed = seed
    run = Run(config, torch.device(arguments.device), seed)
    run.advance(arguments.steps)
    metrics = run.pipeline.get_average_eval_image_metrics(run.step)
    result = {name: round(metrics[name], 4) for name in FIGURES} | {"train_s": round(run.seconds, 1)}
    print(json.dumps({"backend": backend, "seed": seed, **result}), flush=True)
    return result


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--method", choices=["craym-lite", "craym"], default="craym-lite")
    parser.add_argument("--data", type=Path, default=ROOT / "samples" / "still_life")
    parser.add_argument("--noise", default="barf", help="protocol that perturbs the poses")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cache-dir", type=Path, default=None, help="where matches are kept between runs")
    return parser.parse_args()


def main() -> None:
    """Train all, print and write the figures and their differences."""
    arguments, scratch = parse(), tempfile.TemporaryDirectory(prefix="craym_benchmark_")
    arguments.cache_dir = arguments.cache_dir or Path(scratch.name)
    device = torch.device(arguments.device)
    native, _ = choose_backend(device, "auto")
    runs = {
        backend: {seed: train(arguments, backend, seed) for seed in arguments.seeds}
        for backend in dict.fromkeys([native, "torch"])
    }
    means = {
        backend: {name: round(statistics.fmean(run[name] for run in of_seed.values()), 4) for name in FIGURES}
        for backend, of_seed in runs.items()
    }
    difference = {name: round(means[native][name] - means["torch"][name], 4) for name in FIGURES}
    result = {"command": command(), "method": arguments.method}
    result |= {"data": arguments.data.name, "steps": arguments.steps, "noise": arguments.noise, "backend": native}
    result |= {"runs": runs, "means": means, "difference": difference}
    result["machine"] = machine(device) | {"omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "")}
    print(json.dumps({"means": means, "difference": difference}, indent=1))
    keep(arguments.output, result)
    scratch.cleanup()


if __name__ == "__main__":
    main()
