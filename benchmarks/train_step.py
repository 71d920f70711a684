"""Time whole training steps: ours, ours on the torch encoding, and nerfacto (torch), in one process.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.train_step --output benchmarks/results/train_step.json
    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.train_step --gate

A step is the host's: data, forward, all losses (random, key and auxiliary rays, patches), backward, optimizers, and the
refresh of the cached distances. The field is warmed up first, over a schedule that ends where every level and every
loss is on; all our contestants then start from that state. Contestants take turns, so that a busy machine disturbs all
alike; times are medians, ratios medians of the ratios. nerfacto renders as many rays per step, with its defaults.

``--gate`` leaves nerfacto out and ends with exit status 1 when the ratio to the torch encoding has fallen below that of
``baseline.json`` by more than the share that is stated there.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from nerfstudio.engine.trainer import TrainerConfig

from benchmarks.harness import Run, command, keep, machine, method_config, nerfacto_config
from benchmarks.suite import ROOT
from craym_nerfstudio.fields.encoding import choose_backend

BASELINE = ROOT / "benchmarks" / "baseline.json"
EVERYTHING_ON = 0.55
"""Share of the schedule after which all levels and all losses are on."""


def our_config(args: argparse.Namespace, backend: str) -> TrainerConfig:
    """The method on the data, with one implementation of the encoding."""
    config = method_config(args.method)
    config.pipeline.datamanager.dataparser.data = args.data
    config.pipeline.start.matcher, config.pipeline.start.cache_dir = "sift", args.cache_dir
    config.pipeline.model.sdf_field.encoding = backend
    return config


def rays_per_step(config: TrainerConfig) -> int:
    """Random rays, patches, key and auxiliary rays."""
    manager = config.pipeline.datamanager
    keys = 2 * manager.num_key_pairs * (1 + manager.num_aux_rays)
    return manager.train_num_rays_per_batch + manager.num_patches * manager.patch_side_px**2 + keys


def contestants(args: argparse.Namespace, native: str, device: torch.device) -> dict[str, Run]:
    """All of them, where every level and every loss is on; ours go on from the state of the native one."""
    configs = {native: our_config(args, native)}
    if native != "torch":
        configs["torch_backend"] = our_config(args, "torch")
    if not args.gate:
        parser, rays = configs[native].pipeline.datamanager.dataparser, rays_per_step(configs[native])
        configs["nerfacto"] = nerfacto_config(parser, rays, 30_000, "white")
    runs = {name: Run(config, device) for name, config in configs.items()}
    first = runs[native]
    first.skim(args.warm_steps, EVERYTHING_ON)
    for name, run in runs.items():
        if name == "nerfacto":
            run.step = args.warm_steps
        elif run is not first:
            run.load(first.state())
        run.advance(2)
    return runs


def compare(args: argparse.Namespace, native: str, device: torch.device) -> dict:
    """Steps of all contestants in turn."""
    runs = contestants(args, native, device)
    rounds: list[dict[str, float]] = []
    for _ in range(args.repeats):
        rounds.append({name: run.advance(args.steps) / args.steps for name, run in runs.items()})
        print(json.dumps({name: round(1000 * seconds, 1) for name, seconds in rounds[-1].items()}), flush=True)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device) >> 20
    return {
        "backend": native,
        "rays_per_step": rays_per_step(runs[native].config),
        "steps_per_second": round(1 / statistics.median(r[native] for r in rounds), 2),
        "ms_per_step": {name: round(1000 * statistics.median(r[name] for r in rounds), 1) for name in runs},
        **{
            f"ratio_vs_{name}": round(statistics.median(r[name] / r[native] for r in rounds), 2)
            for name in runs
            if name != native
        },
        "peak_memory_mb": memory,
    }


def fallen(result: dict, baseline: dict) -> str:
    """Why the gate is shut; empty where it is open."""
    known = baseline["train_step"].get(result["backend"])
    if known is None:
        return f"no baseline for {result['backend']}"
    least, ratio = (1 - baseline["allowed_fall"]) * known["ratio_vs_torch_backend"], result["ratio_vs_torch_backend"]
    return f"{ratio} times as fast as the torch encoding, {least:.2f} are wanted" if ratio < least else ""


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--gate", action="store_true", help="fail where the baseline is missed")
    parser.add_argument("--method", choices=["craym-lite", "craym"], default="craym-lite")
    parser.add_argument("--data", type=Path, default=ROOT / "samples" / "still_life")
    parser.add_argument("--steps", type=int, default=10, help="timed steps per turn")
    parser.add_argument("--repeats", type=int, default=7, help="turns; medians are reported")
    parser.add_argument("--warm-steps", type=int, default=300, help="steps of training before anything is timed")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cache-dir", type=Path, default=None, help="where matches are kept between runs")
    return parser.parse_args()


def main() -> int:
    """Run what was asked for and write JSON; exit status."""
    args, scratch = parse(), tempfile.TemporaryDirectory(prefix="craym_benchmark_")
    args.cache_dir = args.cache_dir or Path(scratch.name)
    device = torch.device(args.device)
    native, _ = choose_backend(device, "auto")
    result: dict = {"command": command(), "method": args.method, "data": args.data.name}
    result |= {**compare(args, native, device), "machine": machine(device)}
    keep(args.output, result)
    print(json.dumps(result, indent=1))
    missed = fallen(result, json.loads(BASELINE.read_text())) if args.gate else ""
    if missed:
        print(missed, file=sys.stderr)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
