"""The parts of the first run on a GPU, most informative first; see `benchmarks.first_run`."""

import os
import shutil
import statistics
import sysconfig
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from unittest import mock

import torch
from torch import Tensor

from benchmarks.harness import Run, method_config
from craym_nerfstudio.data.dataparser import CraymDataParserConfig
from craym_nerfstudio.fields.encoding import GridSpec, HashEncoding
from craym_nerfstudio.fields.encoding.fused import Upstream
from craym_nerfstudio.fields.encoding.grid import Grid
from craym_nerfstudio.pipeline import CraymPipeline
from craym_nerfstudio.rendering import sampling
from craym_nerfstudio.trainer import CraymTrainerConfig

FULL = GridSpec(16, 4, 19, 32, 1.2011, "smoothstep")
"""That of `craym` for photos of 400 px: 500 cells on the finest level."""
TINY = GridSpec(4, 4, 10, 8, 1.5, "smoothstep")
MOST_ERROR = {"features": 1e-3, "pulled": 1e-3, "by points": 5e-2, "by table": 1e-3, "sections": 2e-2}
"""Relative, of the kernels against float64. With 2048 cells a position in single precision is off by 1e-4 of a cell,
and a point that lands in the next cell has another curvature: right kernels stay below a fifth of this."""
FOR_JUDGING_S = 25.0
"""Set-up of the training, and ten test views at its end."""


class StopRun(Exception):
    """Nothing that could come after this would tell anything."""


@dataclass
class Session:
    """What the parts share."""

    carry: Path
    output: Path
    device: torch.device
    tiny: bool
    rays: int
    deadline: float
    found: dict = field(default_factory=dict)
    """By part; earlier ones are read by later ones."""
    save: Callable[[], None] = lambda: None

    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()

    @property
    def cuda(self) -> bool:
        """Whether there is a GPU to ask."""
        return self.device.type == "cuda"


def first_config(carry: Path, tiny: bool, rays: int = 0) -> CraymTrainerConfig:
    """`craym` on the scene that was carried, from `l2g` poses."""
    config = method_config("craym-lite" if tiny else "craym")
    pipeline, scene = config.pipeline, next((carry / "scenes").iterdir())
    pipeline.datamanager.dataparser = CraymDataParserConfig(
        data=scene, max_image_size_px=10_000, pose_noise="l2g", reference_poses=scene
    )
    pipeline.datamanager.train_num_rays_per_batch = rays or pipeline.datamanager.train_num_rays_per_batch
    pipeline.start.matcher, pipeline.start.cache_dir = "sift", carry / "cache"
    return config


def facts(session: Session) -> dict:
    """What decides everything else: the card, its memory's speed, the cost of a launch, and what Triton needs."""
    told: dict = {name: shutil.which(name) for name in ("gcc", "cc", "git")}
    told |= {"python_h": (Path(sysconfig.get_paths()["include"]) / "Python.h").exists(), "cores": os.cpu_count()}
    if not session.cuda:
        return told
    import triton
    from triton.testing import do_bench

    card, source = torch.cuda.get_device_properties(0), torch.empty(2**28, device=session.device)
    target, one = torch.empty_like(source), torch.zeros(1, device=session.device)
    copy_ms = do_bench(lambda: target.copy_(source), return_mode="median")
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(3000):
        one.add_(1)
    launch_us = (time.perf_counter() - start) / 3000 * 1e6
    told |= {"gpu": card.name, "sms": card.multi_processor_count, "l2_mib": card.L2_cache_size >> 20}
    told |= {"memory_mib": card.total_memory >> 20, "triton": triton.__version__}
    return told | {"copy_gb_s": round(2 * source.nbytes / copy_ms / 1e6), "host_us_per_launch": round(launch_us, 2)}


def _results(encoding: HashEncoding, x: Tensor, weights: list[float]) -> list[Tensor]:
    """Features, pulled back vectors, and gradients by points and table of a loss on both."""
    points = x.clone().requires_grad_()
    features, pullback = encoding.encode_with_pullback(points, weights)
    direction = torch.linspace(-1, 1, features.shape[1], device=x.device, dtype=x.dtype)
    pulled = pullback(direction.expand_as(features).contiguous())
    (features.square().sum() + (pulled.norm(dim=-1) - 1).square().sum()).backward()
    assert points.grad is not None and encoding.table.grad is not None
    return [features.detach(), pulled.detach(), points.grad, encoding.table.grad]


def correct(session: Session) -> dict:
    """Relative errors of the fused kernels against float64 on the CPU: sizes around a block, masked and fading levels.

    Raises:
        StopRun: they are wrong.
    """
    spec, backend, rows = TINY if session.tiny else FULL, "triton" if session.cuda else "cpu", {}
    half, generator = spec.levels // 2, torch.Generator().manual_seed(0)
    masks = {"all": [1.0] * spec.levels, "masked": [1.0] * half + [0.3] + [0.0] * (spec.levels - half - 1)}
    fused, exact = HashEncoding(spec, backend).to(session.device), HashEncoding(spec, "torch").double()  # type: ignore[arg-type]
    torch.nn.init.normal_(fused.table, std=0.1)
    exact.load_state_dict({name: value.double().cpu() for name, value in fused.state_dict().items()})
    for count in (1, 255, 257, 300 if session.tiny else 20_000):
        for name, weights in masks.items():
            fused.zero_grad()
            exact.zero_grad()
            x = (torch.rand(count, 3, dtype=torch.float64, generator=generator) * 1.1 - 0.05).float()
            both = zip(
                _results(fused, x.to(session.device), weights), _results(exact, x.double(), weights), strict=True
            )
            rows[f"{count} {name}"] = [float((a.double().cpu() - b).norm() / b.norm()) for a, b in both]
    worst = dict(zip(MOST_ERROR, (max(column) for column in zip(*rows.values(), strict=True)), strict=False))
    session.found["errors"] = {", ".join(MOST_ERROR): rows}
    if session.cuda:
        worst["sections"] = _sampling_error(session.device)
    wrong = [f"{name} by {error:.1e}" for name, error in worst.items() if not error < MOST_ERROR[name]]
    if wrong:
        raise StopRun(f"the kernels are wrong: {', '.join(wrong)}")
    return {"worst": worst}


def _sampling_error(device: torch.device) -> float:
    """Share of sections that the kernel places elsewhere than the tensor operations do, by a thousandth or more."""
    grid, rays = sampling.DistanceGrid(64).to(device), 4096
    grid.values.copy_((grid.points.norm(dim=-1) - 0.5).view(grid.values.shape))
    origins = torch.nn.functional.normalize(torch.randn(rays, 3, device=device), dim=-1) * 2.0
    towards = torch.nn.functional.normalize(0.5 * torch.randn(rays, 3, device=device) - origins, dim=-1)
    sharp, jitter = torch.tensor(200.0, device=device), torch.rand(rays, 1, device=device)
    placing = sampling.Placing(64, 32, sharp, 0.1, 1e-3, jitter)
    ours, exact = (place(grid, origins, towards, placing) for place in (sampling._place_by_triton, sampling._place))
    elsewhere = (ours.middles - exact.middles).abs() > 1e-3
    return float((elsewhere | (ours.active != exact.active)).float().mean())


def kernels(session: Session) -> dict:
    """Microseconds of the grid's kernels by block size, of the optimizer, and of clearing the gradient."""
    if not session.cuda:
        return {}
    grid = Grid(
        FULL, torch.randn(FULL.n_entries, FULL.features_per_level, device=session.device) * 0.1, (1.0,) * FULL.levels
    )
    rows = []
    for block, points in ((64, 65536), (128, 65536), (256, 65536), (128, 262144)):
        with mock.patch.object(triton_kernels(), "BLOCK", block):
            rows.append({"block": block, "points": points, **_kernel_times(grid, points)})
        print(rows[-1], flush=True)
    parameter = torch.nn.Parameter(grid.table)
    parameter.grad = torch.randn_like(grid.table)
    adam = torch.optim.AdamW([parameter], lr=1e-2, fused=True)
    return {"us": rows, "adamw_us": _us(adam.step), "clear_us": _us(lambda: torch.zeros_like(grid.table))}


def triton_kernels() -> ModuleType:
    """The module whose `BLOCK` the launches read; imports triton."""
    from craym_nerfstudio.fields.encoding import triton_backend

    return triton_backend.kernels


def _us(work: Callable[[], object]) -> float:
    from triton.testing import do_bench

    return round(1000 * do_bench(work, warmup=10, rep=60, return_mode="median"), 1)


def _kernel_times(grid: Grid, points: int) -> dict[str, float]:
    """Of all four, for points that lie along rays as sections near a surface do."""
    from craym_nerfstudio.fields.encoding.triton_backend import TritonKernels

    ours, device = TritonKernels(), grid.table.device
    start, ray = (draw(points // 32, 1, 3, device=device) for draw in (torch.rand, torch.randn))
    along = torch.linspace(-0.04, 0.04, 32, device=device)[:, None]
    x = (0.25 + 0.5 * start + torch.nn.functional.normalize(ray, dim=-1) * along).reshape(-1, 3).clamp(0, 1)
    by_features, pulled = torch.randn(points, grid.spec.n_features, device=device), torch.randn_like(x)
    _, jacobian = ours.forward(x, grid, True)
    assert jacobian is not None
    upstream = Upstream(features=by_features, direction=by_features, pulled=pulled)
    return {
        "forward": _us(lambda: ours.forward(x, grid, False)),
        "forward_jacobian": _us(lambda: ours.forward(x, grid, True)),
        "pull": _us(lambda: ours.pull(jacobian, by_features)),
        "push": _us(lambda: ours.push(jacobian, pulled)),
        "backward": _us(lambda: ours.backward(x, grid, upstream, False, True)),
        "backward_points": _us(lambda: ours.backward(x, grid, upstream, True, True)),
    }


def step(session: Session) -> dict:
    """Milliseconds of steps along the schedule, plain, recorded, and recorded with fewer rays; what two kinds agree in.

    Of plain and recorded steps also the waits that really happen, and what the card did.
    """
    tiny, result = session.tiny, {}
    kinds = {"plain": (False, session.rays), "recorded": (True, session.rays), "recorded, 1024 rays": (True, 1024)}
    ends = {}
    for kind, (recorded, rays) in list(kinds.items())[: 2 if tiny else 3]:
        config = first_config(session.carry, tiny, rays)
        config.pipeline.cuda_graph = recorded
        run = Run(config, session.device)
        run.advance(5 if tiny else 100)
        ends[kind] = [value.detach().clone() for value in run.pipeline.model.parameters()]
        rows = result.setdefault("ms", {}).setdefault(kind, {})
        for at in (100,) if tiny else (1000, 5000, 13000):
            run.step = at
            run.advance(1 if tiny else 20)
            rows[at] = round(
                1000 * statistics.median(run.advance(1 if tiny else 40) for _ in range(4)) / (1 if tiny else 40), 2
            )
            print("step", kind, at, rows[at], "ms", flush=True)
        if session.cuda:
            result[kind] = _recording(run) | _profile(run)
        session.found["step"] = result
        session.save()
    first, second = (torch.cat([value.flatten() for value in ends[kind]]) for kind in ("plain", "recorded"))
    return {**result, "parameters differ by": float((first - second).norm() / first.norm())}


def _recording(run: Run) -> dict:
    """Whether steps are replayed, and why not."""
    assert isinstance(run.pipeline, CraymPipeline)
    recorder = run.pipeline._recorder
    failure = None if recorder is None else recorder.failure
    lines = [] if failure is None else traceback.format_exception(failure)
    return {"replayed": recorder is not None and recorder.replays, "failure": "".join(lines)[-3000:]}


def _profile(run: Run) -> dict:
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.advance(1)
    torch.cuda.set_sync_debug_mode("default")
    places = [f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        run.advance(10)
    events = profiled.key_averages()
    top = sorted((e for e in events if e.self_device_time_total), key=lambda e: -e.self_device_time_total)[:30]
    return {
        "waits": {place: places.count(place) for place in dict.fromkeys(places)},
        "busy_ms": round(sum(e.self_device_time_total for e in events) / 10_000, 3),
        "calls": {e.key: e.count / 10 for e in events if e.key.startswith("cu")},
        "top_us_and_count": {e.key[:80]: [round(e.self_device_time_total / 10, 1), e.count / 10] for e in top},
        "peak_mib": torch.cuda.max_memory_allocated() >> 20,
    }


def train(session: Session) -> dict:
    """One training whose schedule is cut to the time that is left; poses along the way, test views at its end."""
    config, known = first_config(session.carry, session.tiny, session.rays), session.found.get("step", {}).get("ms")
    ms = 1.1 * max(known["recorded"].values()) if known else 20.0
    steps = 12 if session.tiny else max(200, min(20_000, int((session.left() - FOR_JUDGING_S) * 1000 / ms)))
    config.max_num_iterations = steps
    config.fit_schedules()
    if session.cuda:
        torch.cuda.reset_peak_memory_stats()
    run, curve = Run(config, session.device), []
    pipeline = run.pipeline
    assert isinstance(pipeline, CraymPipeline)
    result: dict = {"steps": steps, "curve": curve}
    for mark in (round(steps * share) for share in (0.25, 0.5, 0.75, 1.0)):
        # A machine that is slower than it was must not take what was learned along.
        while run.step < mark and session.left() > 0.6 * FOR_JUDGING_S:
            run.advance(min(50, mark - run.step))
        sharpness = float(pipeline.craym_model.scene.inv_s)
        curve.append({"step": run.step, "train_s": round(run.seconds, 1), "inv_s": round(sharpness, 1)})
        curve[-1] |= pipeline.pose_metrics()
        print(curve[-1], flush=True)
        session.found["train"] = result
        session.save()
    if session.cuda:
        result["peak_mib"] = torch.cuda.max_memory_allocated() >> 20
    start = time.monotonic()
    result["views"] = pipeline.get_average_eval_image_metrics(run.step, session.output / "pictures")
    return {**result, "judging_s": round(time.monotonic() - start, 1)}


PARTS: dict[str, Callable[[Session], dict]] = {
    "facts": facts,
    "correct": correct,
    "kernels": kernels,
    "step": step,
    "train": train,
}
