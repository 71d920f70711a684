"""Cells that train a field: craym with parts switched on and off, and nerfacto with nerfstudio's camera optimizer.

A cell that runs out of time keeps its state and goes on from there the next time.
"""

import json
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from nerfstudio.engine.trainer import TrainerConfig

from benchmarks.harness import Run, shorten
from benchmarks.recipes import change
from benchmarks.scenes import Scene
from benchmarks.tables import METHODS, SIZES, Cell
from craym_nerfstudio.evaluation.surfaces import compare_surfaces, sample_mesh
from craym_nerfstudio.geometry.alignment import Similarity, align_poses
from craym_nerfstudio.methods import craym, craym_lite
from craym_nerfstudio.pipeline import CraymPipeline
from craym_nerfstudio.storage import write_atomically

MATCHER = "sift"
"""The same on every machine, whatever is installed there."""
_SAVE_S = 120.0


class OutOfTime(Exception):
    """The time of this process is up; the state is kept."""


@dataclass(frozen=True)
class Place:
    """Where a cell works, on what, and until when."""

    work: Path
    device: torch.device
    deadline: float
    """In seconds of ``time.monotonic``."""
    state: Path
    """Checkpoint of an unfinished cell."""

    @property
    def cache(self) -> Path:
        """Matches and stage 0, shared by all cells."""
        return self.work / "cache"


def craym_config(cell: Cell, scene: Scene, place: Place) -> TrainerConfig:
    """The method at the size of the cell, its schedule shortened in proportion."""
    size = SIZES[cell.size]
    config = deepcopy((craym_lite if size.method == "craym-lite" else craym).config)
    shorten(config, size.steps)
    manager, model = config.pipeline.datamanager, config.pipeline.model
    manager.data, manager.reference_poses, manager.cache_dir = scene.data(cell.noise), scene.truth, place.cache
    manager.dataparser.max_image_size_px = 10_000
    manager.matcher, manager.seed, model.seed = MATCHER, cell.seed, cell.seed
    manager.pose_noise = cell.noise if cell.noise not in ("none", "colmap") else "none"
    manager.pose_noise_seed = cell.seed
    config.mixed_precision = place.device.type == "cuda"
    if cell.method in METHODS:
        change(config, dict(METHODS[cell.method].changes))
    return config


def advance(run: Run, steps: int, place: Place) -> None:
    """Train up to a number of steps, from the kept state if there is one.

    Raises:
        OutOfTime: the deadline came first.
    """
    if place.state.exists():
        _restore(run, place.state)
    saved = time.monotonic()
    while run.step < steps:
        run.advance(min(10, steps - run.step))
        late = time.monotonic() > place.deadline
        if late or run.step == steps or time.monotonic() - saved > _SAVE_S:
            _keep(run, place.state)
            saved = time.monotonic()
        if late and run.step < steps:
            raise OutOfTime(f"{run.step} of {steps} steps")


def _keep(run: Run, path: Path) -> None:
    optimizers = run.optimizers
    content = {
        "step": run.step,
        "seconds": run.seconds,
        "pipeline": run.pipeline.state_dict(),
        "optimizers": {name: each.state_dict() for name, each in optimizers.optimizers.items()},
        "schedulers": {name: each.state_dict() for name, each in optimizers.schedulers.items()},
        "scaler": run.scaler.state_dict(),
        "random": torch.get_rng_state(),
    }
    write_atomically(path, lambda file: torch.save(content, file))


def _restore(run: Run, path: Path) -> None:
    # Written by this file; schedulers of the host keep numpy numbers in their state.
    content = torch.load(path, map_location="cpu", weights_only=False)
    run.step, run.seconds = content["step"], content["seconds"]
    run.pipeline.load_state_dict(content["pipeline"])
    for name, each in run.optimizers.optimizers.items():
        each.load_state_dict(content["optimizers"][name])
    for name, each in run.optimizers.schedulers.items():
        each.load_state_dict(content["schedulers"][name])
    run.scaler.load_state_dict(content["scaler"])
    torch.set_rng_state(content["random"])


def phase(place: Place, name: str, work: Callable[[], dict]) -> dict:
    """What a part of a cell gave, from an earlier try if that finished it; parts after the deadline wait.

    Raises:
        OutOfTime: the deadline has passed.
    """
    path = place.state.with_suffix(f".{name}.json")
    if path.exists():
        return json.loads(path.read_text())
    if time.monotonic() > place.deadline:
        raise OutOfTime(f"before {name}")
    start = time.perf_counter()
    result = {**work(), f"{name}_s": round(time.perf_counter() - start, 2)}
    write_atomically(path, lambda file: file.write(json.dumps(result).encode()))
    return result


def craym_cell(cell: Cell, scene: Scene, place: Place) -> dict:
    """Train, judge the test views and the poses, extract the surface and compare it."""
    start = time.perf_counter()
    run = Run(craym_config(cell, scene, place), place.device, cell.seed)
    setup_s = time.perf_counter() - start
    advance(run, SIZES[cell.size].steps, place)
    pipeline = run.pipeline
    assert isinstance(pipeline, CraymPipeline)
    views = phase(place, "views", lambda: _views(run))
    surface = {}
    if cell.shows_surface:
        surface = phase(place, "surface", lambda: _surface(pipeline, scene, SIZES[cell.size].mesh_resolution))
    times = {"setup_s": round(setup_s, 2), "train_s": round(run.seconds, 2), "steps": run.step}
    return {**views, **surface, **times, **matches_kept(pipeline), **device_memory(place.device)}


def _views(run: Run) -> dict:
    run.pipeline.eval()
    return run.pipeline.get_average_eval_image_metrics(run.step)


def _surface(pipeline: CraymPipeline, scene: Scene, resolution: int) -> dict:
    """Figures of the surface, or why there is none; the rest of the cell stands without it."""
    reference, poses = scene.surface(), pipeline.datamanager.reference
    if reference is None or poses is None:
        return {}
    model = pipeline.craym_model
    try:
        # Wants numba, which not every machine has that can train.
        from craym_nerfstudio.export.mesh import extract_mesh

        mesh = extract_mesh(model, resolution)
        upright = torch.eye(3, dtype=torch.float64)
        mesh = mesh.moved(Similarity(model.radius.double().cpu(), upright, model.center.double().cpu()))
        mesh = mesh.moved(align_poses(pipeline.refined_c2w().double(), torch.from_numpy(poses.train_c2w)))
        metrics = compare_surfaces(sample_mesh(mesh.vertices, mesh.faces), reference).metrics()
    except (ValueError, ImportError) as error:
        return {"surface": {}, "surface_problem": str(error)}
    return {"surface": metrics, "surface_reference": reference.kind, "mesh_resolution": resolution}


def matches_kept(pipeline: CraymPipeline) -> dict:
    """How many matches training drew from, and what stage 0 decided."""
    start = pipeline.datamanager.start
    if start is None or start.matches is None:
        return {}
    stage = start.stage_zero
    return {"matches": len(start.matches)} | ({} if stage is None else {"stage0": stage.decision.reason})


def device_memory(device: torch.device) -> dict:
    """High-water mark of the device's memory; that of the process is measured from outside."""
    return {"device_memory_mb": torch.cuda.max_memory_allocated(device) >> 20} if device.type == "cuda" else {}
