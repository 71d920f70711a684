"""Time whole training steps: ours, ours on the torch encoding, and nerfacto (torch), in one process.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/train_step.py --output benchmarks/results/train_step.json

A step is the host's: data, forward, all losses (random, key and auxiliary rays, patches), backward, optimizers, and the
refresh of the cached distances. The field is warmed up first, over a schedule that ends where every level and every
loss is on; all our contestants then start from that state. Contestants take turns, so that a busy machine disturbs all
alike; times are medians, ratios medians of the ratios. nerfacto renders as many rays per step, with its defaults.

    --psnr-seconds 180    PSNR of test views after that much training time of each, interleaved in short slices, all
                          with the exact poses held; schedules of ours shortened to what fits into it
    --scaling             seconds per step against rays and against active levels, with plots in docs/images/
"""

import argparse
import json
import os
import resource
import statistics
import tempfile
from copy import deepcopy
from pathlib import Path

import torch
from harness import EVERYTHING_ON, ROOT, Run, command, keep, machine, shorten
from nerfstudio.configs.method_configs import method_configs
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManagerConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.engine.trainer import TrainerConfig
from recipes import change, flags
from torch import nn
from torchmetrics.image import lpip

from craym_nerfstudio.fields.encoding import choose_backend
from craym_nerfstudio.methods import craym, craym_lite

SLICE_S = 4.0
PSNR_OF = ("cpu", "triton", "torch_backend", "nerfacto")
RAYS, LEVELS = (80, 320, 640, 1280, 2560), (1, 2, 4, 6, 8)


def our_config(arguments: argparse.Namespace, backend: str) -> TrainerConfig:
    """The method on the data, with one implementation of the encoding."""
    config = deepcopy((craym_lite if arguments.method == "craym-lite" else craym).config)
    manager = config.pipeline.datamanager
    manager.data, manager.cache_dir, manager.matcher = arguments.data, arguments.cache_dir, "sift"
    manager.pose_noise = arguments.noise
    config.pipeline.model.sdf_field.encoding = backend
    return config


def nerfacto_config(data: Path, rays: int) -> TrainerConfig:
    """nerfacto without tiny-cuda-nn, with the settings that its authors give for Blender scenes."""
    # Its constructor loads the weights of a metric that is not used here, from the network.
    lpip.LearnedPerceptualImagePatchSimilarity = lambda **_: nn.Identity()  # type: ignore[misc,assignment]
    config = deepcopy(method_configs["nerfacto"])
    parser = BlenderDataParserConfig(data=data)
    config.pipeline.datamanager = VanillaDataManagerConfig(
        data=data, dataparser=parser, train_num_rays_per_batch=rays, eval_num_rays_per_batch=rays
    )
    model = config.pipeline.model
    model.implementation, model.background_color, model.camera_optimizer.mode = "torch", "white", "off"
    model.near_plane, model.far_plane, model.disable_scene_contraction = 2.0, 6.0, True
    model.proposal_initial_sampler, model.distortion_loss_mult = "uniform", 0.0
    model.use_average_appearance_embedding = False
    return config


def rays_per_step(config: TrainerConfig) -> int:
    """Random rays, patches, key and auxiliary rays."""
    manager = config.pipeline.datamanager
    keys = 2 * manager.num_key_pairs * (1 + manager.num_aux_rays)
    return manager.train_num_rays_per_batch + manager.num_patches * manager.patch_side_px**2 + keys


def contestants(arguments: argparse.Namespace, native: str) -> dict[str, TrainerConfig]:
    """Configs of every contestant."""
    configs = {native: our_config(arguments, native)}
    if native != "torch":
        configs["torch_backend"] = our_config(arguments, "torch")
    if (arguments.data / "transforms_train.json").exists():
        configs["nerfacto"] = nerfacto_config(arguments.data, rays_per_step(configs[native]))
    return configs


def fresh_runs(configs: dict[str, TrainerConfig], device: torch.device, seed: int) -> dict[str, Run]:
    """Runs that have taken no step yet."""
    # The host's Blender parser reads a "val" split, which not every scene has, unless it is told to test.
    modes = {name: "test" if name == "nerfacto" else "val" for name in configs}
    return {name: Run(config, device, seed, modes[name]) for name, config in configs.items()}


def warm_up(runs: dict[str, Run], native: str, steps: int) -> None:
    """Train the native contestant through a shortened schedule and give its state to the other ones of ours."""
    run = runs[native]
    run.skim(steps, EVERYTHING_ON)
    for name, other in runs.items():
        if other is not run and name != "nerfacto":
            other.pipeline.load_state_dict(run.pipeline.state_dict())
            other.optimizers.load_optimizers({k: v.state_dict() for k, v in run.optimizers.optimizers.items()})
        other.step = steps if name == "nerfacto" else run.step
        other.advance(2)


def compare(arguments: argparse.Namespace, native: str, device: torch.device) -> dict:
    """Steps of all contestants in turn."""
    runs = fresh_runs(contestants(arguments, native), device, arguments.seed)
    warm_up(runs, native, arguments.warm_steps)
    rounds: list[dict[str, float]] = []
    for _ in range(arguments.repeats):
        rounds.append({name: run.advance(arguments.steps) / arguments.steps for name, run in runs.items()})
        print(json.dumps({name: round(1000 * seconds, 1) for name, seconds in rounds[-1].items()}), flush=True)
    ours, rays = runs[native], rays_per_step(runs[native].config)
    result = {
        "backend": native,
        "rays_per_step": rays,
        "steps_per_second": round(1 / statistics.median(r[native] for r in rounds), 2),
        "ms_per_step": {name: round(1000 * statistics.median(r[name] for r in rounds), 1) for name in runs},
    }
    for name, key in (("torch_backend", "ratio_vs_torch_backend"), ("nerfacto", "ratio_vs_nerfacto")):
        if name in runs:
            result[key] = round(statistics.median(r[name] / r[native] for r in rounds), 2)
    result["parts_ms"] = parts_ms(ours, arguments.steps)
    result["peak_memory_mb"] = peak_memory_mb(device)
    return result


def parts_ms(run: Run, steps: int) -> dict[str, float]:
    """Median milliseconds of each part of a step."""
    run.time_parts()
    run.advance(steps)
    return {name: round(statistics.median(times), 1) for name, times in run.parts.items()}


def peak_memory_mb(device: torch.device) -> int:
    """High-water mark of this process (all contestants together), or of the device's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def fit_schedule(config: TrainerConfig, device: torch.device, arguments: argparse.Namespace) -> None:
    """Shorten a schedule to the steps that fit into the time of the PSNR comparison, as a run that skims it tells."""
    run = Run(config, device, arguments.seed)
    run.advance()  # compilation is not a step
    run.seconds = 0.0
    run.skim(arguments.warm_steps)
    shorten(config, round(arguments.psnr_seconds * arguments.warm_steps / run.seconds))


def psnr_over_time(arguments: argparse.Namespace, native: str, device: torch.device) -> dict[str, dict]:
    """Step and PSNR of contestants at a third, two thirds and all of the training time; nerfacto's at the end alone.

    The schedules of ours are shortened to the steps that fit into that time, as who has no more would do it. The exact
    poses are held (configs/poses_exact.args), as nerfacto holds them.
    """
    configs = {name: config for name, config in contestants(arguments, native).items() if name in arguments.psnr_of}
    for name in configs.keys() - {"nerfacto"}:
        change(configs[name], flags(ROOT / "configs" / "poses_exact.args"))
        fit_schedule(configs[name], device, arguments)
    runs = fresh_runs(configs, device, arguments.seed)
    found: dict[str, dict] = {name: {} for name in runs}
    for share in (1 / 3, 2 / 3, 1):
        goal = share * arguments.psnr_seconds
        while any(run.seconds < goal for run in runs.values()):
            for run in runs.values():
                stop = min(run.seconds + SLICE_S, goal)
                while run.seconds < stop:
                    run.advance()
        for name, run in runs.items():
            if name == "nerfacto" and share < 1:
                continue  # it renders a test view in half a minute of a CPU
            point = {"step": run.step, "schedule": run.config.max_num_iterations}
            point["psnr"] = round(run.psnr(arguments.views), 2)
            found[name][f"{goal:.0f} s"] = point
            print(json.dumps({"contestant": name, "seconds": goal, **point}), flush=True)
    return found


def scaling(arguments: argparse.Namespace, native: str, device: torch.device) -> dict[str, list[dict]]:
    """Seconds per step against rays and against active levels, from one trained state."""
    run = Run(our_config(arguments, native), device, arguments.seed)
    warm_up({native: run}, native, arguments.warm_steps)
    state, start = deepcopy(run.pipeline.state_dict()), run.step
    manager, model = run.pipeline.datamanager.config, run.model.config
    usual, sweep = manager.train_num_rays_per_batch, {"rays": [], "levels": []}
    cases = [("rays", rays) for rays in RAYS] + [("levels", k) for k in LEVELS if k <= model.sdf_field.num_levels]
    times: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    for _ in range(arguments.repeats):
        for kind, number in cases:
            run.pipeline.load_state_dict(state)
            manager.train_num_rays_per_batch = number if kind == "rays" else usual
            model.start_levels = number if kind == "levels" else model.sdf_field.num_levels
            model.steps_per_level = 10**9
            run.step = start
            run.advance()
            times[kind, number].append(run.advance(arguments.steps) / arguments.steps)
    for (kind, number), seconds in times.items():
        manager.train_num_rays_per_batch = number if kind == "rays" else usual
        size = rays_per_step(run.config) if kind == "rays" else number
        sweep[kind].append({kind: size, "seconds": round(statistics.median(seconds), 5)})
    for kind, rows in sweep.items():
        plot(rows, kind, ROOT / "docs" / "images" / f"scaling_{kind}.png")
    return sweep


def plot(rows: list[dict], kind: str, path: Path) -> None:
    """Points and, for orientation, the straight line through the origin and the last one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    x, y = [row[kind] for row in rows], [1000 * row["seconds"] for row in rows]
    figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
    axes.plot([0, x[-1]], [0, y[-1]], color="0.7", linestyle="--", label="proportional")
    axes.plot(x, y, marker="o", label="measured")
    axes.set(xlabel={"rays": "rays per step", "levels": "active levels (of 8)"}[kind], ylabel="ms per training step")
    axes.set_xlim(0)
    axes.set_ylim(0)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--method", choices=["craym-lite", "craym"], default="craym-lite")
    parser.add_argument("--data", type=Path, default=ROOT / "samples" / "still_life")
    parser.add_argument("--noise", default="none", help="protocol that perturbs the poses; other matches are cached")
    parser.add_argument("--steps", type=int, default=10, help="timed steps per turn")
    parser.add_argument("--repeats", type=int, default=7, help="turns; medians are reported")
    parser.add_argument("--warm-steps", type=int, default=300, help="steps of training before anything is timed")
    parser.add_argument("--psnr-seconds", type=float, default=0.0, help="also train this long and report PSNR")
    parser.add_argument("--psnr-of", nargs="+", default=[*PSNR_OF], help="of these")
    parser.add_argument("--views", type=int, default=4, help="test views for the PSNR")
    parser.add_argument("--scaling", action="store_true", help="also time against rays and levels, and plot")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cache-dir", type=Path, default=None, help="where matches are kept between runs")
    return parser.parse_args()


def main() -> None:
    """Run what was asked for and write JSON."""
    arguments, scratch = parse(), tempfile.TemporaryDirectory(prefix="craym_benchmark_")
    arguments.cache_dir = arguments.cache_dir or Path(scratch.name)
    device = torch.device(arguments.device)
    native, _ = choose_backend(device, "auto")
    result: dict = {"command": command(), "method": arguments.method, "data": arguments.data.name}
    result |= compare(arguments, native, device)
    result["machine"] = machine(device) | {"omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "")}
    keep(arguments.output, result)
    if arguments.scaling:
        result["scaling"] = scaling(arguments, native, device)
        keep(arguments.output, result)
    if arguments.psnr_seconds:
        result["psnr_over_time"] = psnr_over_time(arguments, native, device)
        keep(arguments.output, result)
    print(json.dumps(result, indent=1))
    scratch.cleanup()


if __name__ == "__main__":
    main()
