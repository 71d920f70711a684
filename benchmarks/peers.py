"""What a user would pick instead: pycolmap without the given poses, nerfacto with nerfstudio's camera optimizer."""

import statistics
import time
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManagerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models.nerfacto import NerfactoModelConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from PIL import Image
from torch import Tensor, nn
from torchmetrics.image import lpip

from benchmarks.harness import Run
from benchmarks.scenes import Scene
from benchmarks.stage0 import figures
from benchmarks.tables import SIZES, Cell
from benchmarks.train import MATCHER, Place, advance, device_memory, phase
from craym_nerfstudio.data.dataparser import CraymDataParserConfig, ReferencePoses
from craym_nerfstudio.data.views import views_from_outputs
from craym_nerfstudio.evaluation.images import image_metrics, refine_camera, with_pose
from craym_nerfstudio.geometry.alignment import align_poses
from craym_nerfstudio.matching.find import find_matches
from craym_nerfstudio.sfm.adjust import adjust_rays

NERFACTO_RAYS = 1024
TEST_POSE_STEPS, TEST_POSE_RAYS = 100, 256


def parser_config(cell: Cell, scene: Scene) -> CraymDataParserConfig:
    """The parser that every method reads the scene with."""
    protocol = cell.noise if cell.noise not in ("none", "colmap", "any") else "none"
    return CraymDataParserConfig(
        data=scene.data(cell.noise),
        max_image_size_px=10_000,
        pose_noise=protocol,  # type: ignore[arg-type]
        pose_noise_seed=cell.seed,
        reference_poses=scene.truth,
    )


def _outputs(cell: Cell, scene: Scene) -> tuple[DataparserOutputs, ReferencePoses]:
    outputs = parser_config(cell, scene).setup().get_dataparser_outputs("train")
    return outputs, outputs.metadata["reference"]


def pose_results(c2w: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Errors under the names that trained cells use."""
    found = figures(c2w, torch.from_numpy(true))
    names = {"rotation_deg": "pose_rotation_deg", "translation_x100": "pose_translation_x100"}
    return {names.get(name, f"pose_{name}"): value for name, value in found.items()}


def input_cell(cell: Cell, scene: Scene, place: Place) -> dict:
    """The given poses."""
    outputs, reference = _outputs(cell, scene)
    return pose_results(views_from_outputs(outputs).c2w, reference.train_c2w)


def stage0_cell(cell: Cell, scene: Scene, place: Place) -> dict:
    """Matched-ray bundle adjustment, and no training."""
    outputs, reference = _outputs(cell, scene)
    views, start = views_from_outputs(outputs), time.perf_counter()
    matches = find_matches(views, MATCHER, place.cache)  # type: ignore[arg-type]
    matched = time.perf_counter()
    stage = adjust_rays(views, matches)
    times = {"matching_s": round(matched - start, 2), "adjustment_s": round(time.perf_counter() - matched, 2)}
    states = {state: stage.state.count(state) for state in ("adjusted", "predicted", "kept")}
    result = pose_results(stage.c2w, reference.train_c2w)
    return {**result, **times, "matches": len(matches), "cameras": states, "stage0": stage.decision.reason}


def pycolmap_cell(cell: Cell, scene: Scene, place: Place) -> dict:
    """pycolmap's own pipeline with its defaults: SIFT, exhaustive matching, mapping with the true intrinsics held."""
    import pycolmap

    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.ERROR)
    outputs, reference = _outputs(cell, scene)
    start = time.perf_counter()
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        names = _write_photos(outputs, folder / "images")
        models = _map(pycolmap, outputs.cameras, folder, cell.method == "pycolmap_incremental", cell.seed)
    if not models:
        raise RuntimeError("pycolmap found no model")
    images = max(models, key=lambda model: model.num_reg_images()).images.values()
    poses = {image.name: image.cam_from_world().inverse().matrix() for image in images if image.has_pose}
    registered = [index for index, name in enumerate(names) if name in poses]
    # OpenCV's axes to OpenGL's.
    c2w = np.stack([poses[names[index]] for index in registered]) * np.array([1.0, -1.0, -1.0, 1.0])
    counts = {"registered": len(registered), "images": len(names), "models": len(models)}
    counts["sfm_s"] = round(time.perf_counter() - start, 2)
    if len(registered) < 3:
        raise RuntimeError(f"pycolmap registered {len(registered)} of {len(names)} images")
    return {**pose_results(c2w, reference.train_c2w[registered]), **counts}


def _write_photos(outputs: DataparserOutputs, folder: Path) -> list[str]:
    """The training images over white, under numbered names."""
    folder.mkdir()
    names = []
    for number, path in enumerate(outputs.image_filenames):
        with Image.open(path) as image:
            photo = image.convert("RGBA")
        white = Image.new("RGBA", photo.size, (255, 255, 255, 255))
        names.append(f"{number:04d}.png")
        Image.alpha_composite(white, photo).convert("RGB").save(folder / names[-1])
    return names


def _map(pycolmap, cameras: Cameras, folder: Path, incremental: bool, seed: int) -> list:
    database, images, output = folder / "database.db", folder / "images", folder / "sparse"
    output.mkdir()
    values = [float(value[0, 0]) for value in (cameras.fx, cameras.fy, cameras.cx, cameras.cy)]
    reader = pycolmap.ImageReaderOptions(camera_model="PINHOLE", camera_params=",".join(map(str, values)))
    # Among machines of different size one thread is the same amount of work.
    pycolmap.extract_features(
        database, images, camera_mode=pycolmap.CameraMode.SINGLE, reader_options=reader, device=pycolmap.Device.cpu
    )
    pycolmap.match_exhaustive(database, device=pycolmap.Device.cpu)
    if incremental:
        options = pycolmap.IncrementalPipelineOptions(ba_refine_focal_length=False, ba_refine_extra_params=False)
        options.random_seed = seed
        return list(pycolmap.incremental_mapping(database, images, output, options).values())
    options = pycolmap.GlobalPipelineOptions(random_seed=seed)
    options.mapper.bundle_adjustment.refine_focal_length = False
    options.mapper.bundle_adjustment.refine_extra_params = False
    return list(pycolmap.global_mapping(database, images, output, options).values())


def nerfacto_config(cell: Cell, scene: Scene, steps: int) -> TrainerConfig:
    """nerfacto as registered, its torch implementation, with the SO3xR3 camera optimizer and its usual prior."""
    # Its constructor loads the weights of a metric that is not used here, from the network.
    lpip.LearnedPerceptualImagePatchSimilarity = lambda **_: nn.Identity()  # type: ignore[misc,assignment]
    parser = parser_config(cell, scene)
    manager = VanillaDataManagerConfig(
        data=parser.data,
        dataparser=parser,  # type: ignore[arg-type]
        train_num_rays_per_batch=NERFACTO_RAYS,
        eval_num_rays_per_batch=NERFACTO_RAYS,
    )
    model = NerfactoModelConfig(
        implementation="torch",
        eval_num_rays_per_chunk=1 << 13,
        camera_optimizer=CameraOptimizerConfig(mode="SO3xR3"),
    )
    if parser.setup().get_dataparser_outputs("train").metadata["has_alpha"]:
        model.background_color = "white"
    decay = ExponentialDecaySchedulerConfig(lr_final=1e-4, max_steps=steps)
    optimizer = {"optimizer": AdamOptimizerConfig(lr=1e-2, eps=1e-15), "scheduler": decay}
    poses = ExponentialDecaySchedulerConfig(lr_final=1e-4, max_steps=steps)
    return TrainerConfig(
        method_name="nerfacto",
        max_num_iterations=steps,
        mixed_precision=True,
        pipeline=VanillaPipelineConfig(datamanager=manager, model=model),
        optimizers={
            "proposal_networks": optimizer,
            "fields": deepcopy(optimizer),
            "camera_opt": {"optimizer": AdamOptimizerConfig(lr=1e-3, eps=1e-15), "scheduler": poses},
        },
        viewer=ViewerConfig(num_rays_per_chunk=1 << 13),
    )


def nerfacto_cell(cell: Cell, scene: Scene, place: Place) -> dict:
    """Train, then judge poses and test views as craym's are judged: alignment, refinement of each test pose."""
    steps = SIZES[cell.size].nerfacto_steps
    start = time.perf_counter()
    run = Run(nerfacto_config(cell, scene, steps), place.device, cell.seed)
    reference = run.pipeline.datamanager.train_dataparser_outputs.metadata["reference"]
    setup_s = time.perf_counter() - start
    advance(run, steps, place)
    refined = nerfacto_poses(run).double().cpu()
    views = phase(place, "views", lambda: _views(run, refined, reference))
    times = {"setup_s": round(setup_s, 2), "train_s": round(run.seconds, 2), "steps": run.step}
    poses = pose_results(refined.numpy(), reference.train_c2w)
    return {**poses, **views, **times, **device_memory(place.device)}


@torch.no_grad()
def nerfacto_poses(run: Run) -> Tensor:
    """Training poses as its rays use them: the host turns directions and shifts origins on the world side."""
    c2w = run.pipeline.datamanager.train_dataset.cameras.camera_to_worlds.to(run.device)
    moves = run.model.camera_optimizer(torch.arange(len(c2w), device=run.device))
    return torch.cat([moves[:, :, :3] @ c2w[:, :, :3], c2w[:, :, 3:] + moves[:, :, 3:]], dim=-1)


def _views(run: Run, refined: Tensor, reference: ReferencePoses) -> dict[str, float]:
    run.pipeline.eval()
    similarity = align_poses(torch.from_numpy(reference.train_c2w), refined)
    dataset, rows = run.pipeline.datamanager.eval_dataset, []
    for index in range(len(dataset)):
        data = dataset[index]
        true = torch.from_numpy(reference.test_c2w[index])
        camera = with_pose(dataset.cameras[index : index + 1].to(run.device), similarity.poses(true))
        image, mask = data["image"].to(run.device), data.get("mask")
        camera = refine_camera(run.model, camera, image, mask, TEST_POSE_STEPS, TEST_POSE_RAYS).to(run.device)
        rows.append(image_metrics(run.model.get_outputs_for_camera(camera)["rgb"], image, mask))
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}
