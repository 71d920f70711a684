"""Cells of our own: the given poses, stage 0 alone, and craym with parts switched on and off.

A training that runs out of time keeps its state and goes on from there the next time.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from nerfstudio.engine.trainer import TrainerConfig

from benchmarks.harness import Run, method_config
from benchmarks.scenes import Scene
from benchmarks.stage0 import errors
from benchmarks.suite import METHODS, PAUSED, Cell, NoResult
from craym_nerfstudio.data.dataparser import CraymDataParserConfig
from craym_nerfstudio.data.scene import Scene as Dataset
from craym_nerfstudio.data.scene import read_scene
from craym_nerfstudio.evaluation.surfaces import compare_surfaces, sample_mesh
from craym_nerfstudio.export.photo_views import Visibility
from craym_nerfstudio.geometry.alignment import align_poses
from craym_nerfstudio.matching.find import find_matches
from craym_nerfstudio.pipeline import CraymPipeline
from craym_nerfstudio.sfm.second_look import adjust_twice
from craym_nerfstudio.storage import write_atomically

_SAVE_S = 120.0


@dataclass(frozen=True)
class Place:
    """Where a cell works, on what, and until when."""

    work: Path
    """Scenes, and matches and stage 0 that all cells share."""
    state: Path
    """Checkpoint of an unfinished cell."""
    device: torch.device
    deadline: float
    """In seconds of ``time.monotonic``."""


def parser_config(cell: Cell, scene: Scene) -> CraymDataParserConfig:
    """The parser that every method reads the scene with."""
    return CraymDataParserConfig(
        data=scene.folder / "transforms_colmap.json" if cell.noise == "colmap" else scene.folder,
        max_image_size_px=cell.scale.shown_px,
        pose_noise=cell.noise if cell.noise not in ("none", "colmap", "any") else "none",  # type: ignore[arg-type]
        pose_noise_seed=cell.seed,
        reference_poses=scene.folder,
    )


def given(cell: Cell, scene: Scene) -> Dataset:
    """The images with the given poses, and the true ones."""
    return read_scene(parser_config(cell, scene))


def pose_results(c2w: np.ndarray, data: Dataset, chosen: slice | list[int] = slice(None)) -> dict:
    """Errors of the chosen training poses, under the names that trained cells use."""
    assert data.reference is not None
    true = torch.from_numpy(data.reference.train_c2w[chosen])
    return {f"pose_{name}": value for name, value in errors(c2w, true).items()}


def stage0_cell(cell: Cell, scene: Scene, place: Place) -> dict:
    """Matched-ray bundle adjustment, and no training."""
    data, start = given(cell, scene), time.perf_counter()
    views = data.posed_views()
    matches = find_matches(views, "auto", place.work / "cache")
    matched = time.perf_counter()
    matches, stage = adjust_twice(views, matches)
    times = {"matching_s": round(matched - start, 2), "adjustment_s": round(time.perf_counter() - matched, 2)}
    result = pose_results(stage.c2w[np.isin(views.names, data.views.names)], data)
    return {**result, **times, "matches": len(matches), "cameras": stage.counts, "stage0": stage.decision.reason}


def craym_config(cell: Cell, scene: Scene, place: Place) -> TrainerConfig:
    """The method at the size of the cell, its schedule shortened in proportion."""
    size = cell.scale
    config = method_config("craym-lite")
    config.max_num_iterations = size.steps
    config.fit_schedules()
    pipeline = config.pipeline
    pipeline.datamanager.dataparser = parser_config(cell, scene)
    pipeline.datamanager.seed = pipeline.model.seed = cell.seed
    pipeline.start.cache_dir = place.work / "cache"
    # As ns-train does it.
    method = tyro.conf.FlagConversionOff[tyro.extras.subcommand_type_from_defaults({"craym-lite": config})]
    return tyro.cli(tyro.conf.SuppressFixed[method], args=["craym-lite", *METHODS[cell.method].flags])


def trained(config: TrainerConfig, cell: Cell, steps: int, place: Place) -> tuple[Run, dict]:
    """A finished training, from the kept state if there is one, and what it took.

    Raises:
        NoResult: the deadline came first; the state is kept.
    """
    start = time.perf_counter()
    run = Run(config, place.device, cell.seed)
    setup_s = time.perf_counter() - start
    if place.state.exists():
        # Written below; schedulers of the host keep numpy numbers in their state.
        run.load(torch.load(place.state, map_location="cpu", weights_only=False))
    saved = time.monotonic()
    while run.step < steps:
        run.advance(min(10, steps - run.step))
        late = time.monotonic() > place.deadline
        if late or run.step == steps or time.monotonic() - saved > _SAVE_S:
            write_atomically(place.state, lambda file: torch.save(run.state(), file))
            saved = time.monotonic()
        if late:
            raise NoResult(PAUSED, f"{run.step} of {steps} steps")
    run.pipeline.eval()
    return run, {"setup_s": round(setup_s, 2), "train_s": round(run.seconds, 2), "steps": run.step}


def craym_cell(cell: Cell, scene: Scene, place: Place) -> dict:
    """Train, judge the test views and the poses, extract the surface and compare it."""
    size = cell.scale
    run, result = trained(craym_config(cell, scene, place), cell, size.steps, place)
    pipeline = run.pipeline
    assert isinstance(pipeline, CraymPipeline)
    result |= pipeline.get_average_eval_image_metrics(run.step)
    result |= _surface(pipeline, scene, size.mesh_resolution)
    start = pipeline.start
    if start is not None and start.matches is not None:
        result["matches"] = len(start.matches)
        result |= {} if start.stage_zero is None else {"stage0": start.stage_zero.decision.reason}
    return result


def _surface(pipeline: CraymPipeline, scene: Scene, resolution: int) -> dict:
    """Figures of the surface, or why there is none; the rest of the cell stands without it."""
    reference, true = scene.surface(), pipeline.datamanager.reference
    if reference is None or true is None:
        return {}
    model = pipeline.craym_model
    aligned = align_poses(pipeline.refined_c2w().double(), torch.from_numpy(true.train_c2w))
    try:
        # Wants numba, which not every machine has that can train.
        from craym_nerfstudio.export.mesh import extract_mesh

        # What no camera sees stays, as in all cells before: the reference leaves it out.
        everything = extract_mesh(model, resolution, [], Visibility(model.tracer, 0.0, model.device), "keep")
        mesh = everything.moved(aligned @ model.world_from_unit)
        samples = sample_mesh(mesh.vertices, mesh.faces)
        metrics = compare_surfaces(samples, reference).metrics()
    except (ValueError, ImportError) as error:
        return {"surface": {}, "surface_problem": str(error)}
    found = {"surface": metrics, "surface_reference": reference.kind, "mesh_resolution": resolution}
    masked = scene.masked_points()
    if masked is not None:
        metrics["masked_median_mm"] = float(np.median(samples.nearest(masked.points)[0]) * masked.unit_mm)
    return found
