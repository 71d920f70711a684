"""What a user would pick instead: pycolmap without the given poses, nerfacto with nerfstudio's camera optimizer."""

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.harness import Run, nerfacto_config
from benchmarks.scenes import Scene
from benchmarks.suite import SIZES, Cell
from benchmarks.train import Place, given, parser_config, pose_results, trained
from craym_nerfstudio.cameras.photometric import refine_cameras, with_poses
from craym_nerfstudio.data.reference import ReferencePoses
from craym_nerfstudio.evaluation.images import image_metrics
from craym_nerfstudio.geometry.alignment import align_poses
from craym_nerfstudio.geometry.axes import flip_pose_axes

NERFACTO_RAYS = 1024
TEST_POSE_STEPS, TEST_POSE_RAYS = 100, 256


def pycolmap_cell(cell: Cell, scene: Scene, place: Place) -> dict:
    """pycolmap's own pipeline with its defaults: SIFT, exhaustive matching, mapping with the true intrinsics held."""
    data, start = given(cell, scene), time.perf_counter()
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        names = _write_photos(data.views.paths, folder / "images")
        models = _map(data.frames.intrinsics_px[0], folder, cell.method == "pycolmap_incremental", cell.seed)
    if not models:
        raise RuntimeError("pycolmap found no model")
    images = max(models, key=lambda model: model.num_reg_images()).images.values()
    poses = {image.name: image.cam_from_world().inverse().matrix() for image in images if image.has_pose}
    registered = [index for index, name in enumerate(names) if name in poses]
    if len(registered) < 3:
        raise RuntimeError(f"pycolmap registered {len(registered)} of {len(names)} images")
    c2w = flip_pose_axes(np.stack([poses[names[index]] for index in registered]))
    counts = {"registered": len(registered), "images": len(names), "models": len(models)}
    return {**pose_results(c2w, data, registered), **counts, "sfm_s": round(time.perf_counter() - start, 2)}


def _write_photos(paths: list[Path], folder: Path) -> list[str]:
    """The training images over white, under numbered names."""
    folder.mkdir()
    names = [f"{number:04d}.png" for number in range(len(paths))]
    for name, path in zip(names, paths, strict=True):
        with Image.open(path) as image:
            photo = image.convert("RGBA")
        white = Image.new("RGBA", photo.size, (255, 255, 255, 255))
        Image.alpha_composite(white, photo).convert("RGB").save(folder / name)
    return names


def _map(intrinsics_px: np.ndarray, folder: Path, incremental: bool, seed: int) -> list:
    import pycolmap

    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.ERROR)
    database, images, output = folder / "database.db", folder / "images", folder / "sparse"
    output.mkdir()
    parameters = ",".join(map(str, intrinsics_px.tolist()))
    reader = pycolmap.ImageReaderOptions(camera_model="PINHOLE", camera_params=parameters)
    mode, cpu = pycolmap.CameraMode.SINGLE, pycolmap.Device.cpu
    pycolmap.extract_features(database, images, camera_mode=mode, reader_options=reader, device=cpu)
    pycolmap.match_exhaustive(database, device=cpu)
    if incremental:
        options = pycolmap.IncrementalPipelineOptions(ba_refine_focal_length=False, ba_refine_extra_params=False)
        options.random_seed = seed
        return list(pycolmap.incremental_mapping(database, images, output, options).values())
    options = pycolmap.GlobalPipelineOptions(random_seed=seed)
    options.mapper.bundle_adjustment.refine_focal_length = False
    options.mapper.bundle_adjustment.refine_extra_params = False
    return list(pycolmap.global_mapping(database, images, output, options).values())


def nerfacto_cell(cell: Cell, scene: Scene, place: Place) -> dict:
    """Train, then judge poses and test views as craym's are judged: alignment, refinement of each test pose."""
    steps, data = SIZES[cell.size].nerfacto_steps, given(cell, scene)
    background = "white" if data.has_alpha else "last_sample"
    config = nerfacto_config(parser_config(cell, scene), NERFACTO_RAYS, steps, background)
    run, result = trained(config, cell, steps, place)
    refined = nerfacto_poses(run).double().cpu()
    return {**pose_results(refined.numpy(), data), **judged_views(run, refined, data.reference), **result}


@torch.no_grad()
def nerfacto_poses(run: Run) -> Tensor:
    """Training poses as its rays use them: the host turns directions and shifts origins on the world side."""
    c2w = run.pipeline.datamanager.train_dataset.cameras.camera_to_worlds.to(run.device)
    moves = run.pipeline.model.camera_optimizer(torch.arange(len(c2w), device=run.device))
    return torch.cat([moves[:, :, :3] @ c2w[:, :, :3], c2w[:, :, 3:] + moves[:, :, 3:]], dim=-1)


def judged_views(run: Run, refined: Tensor, reference: ReferencePoses) -> dict[str, float]:
    """Mean figures of the test views, from the reference's poses moved to the refined ones, each refined in turn."""
    model = run.pipeline.model
    similarity = align_poses(torch.from_numpy(reference.train_c2w), refined)
    model.requires_grad_(False)
    dataset, rows = run.pipeline.datamanager.eval_dataset, []
    for index in range(len(dataset)):
        data, true = dataset[index], torch.from_numpy(reference.test_c2w[index])
        camera = with_poses(dataset.cameras[index : index + 1].to(run.device), similarity.poses(true)[None])
        image, mask = data["image"].to(run.device), data.get("mask")
        pixels = ([image], [mask], TEST_POSE_STEPS, TEST_POSE_RAYS)
        camera = with_poses(camera, refine_cameras(lambda rays: model(rays)["rgb"], camera, *pixels))
        rows.append(image_metrics(model.get_outputs_for_camera(camera)["rgb"], image, mask))
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}
