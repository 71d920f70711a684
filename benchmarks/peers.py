"""What a user would pick instead: pycolmap, without the given poses."""

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from benchmarks.scenes import Scene
from benchmarks.suite import Cell
from benchmarks.train import Place, parser_config, pose_results
from craym_nerfstudio.data.scene import read_scene
from craym_nerfstudio.geometry.axes import flip_pose_axes


def pycolmap_cell(cell: Cell, scene: Scene, place: Place) -> dict:
    """pycolmap's own pipeline with its defaults: SIFT, exhaustive matching, mapping with the true intrinsics held."""
    # The intrinsics of the photos as they lie there.
    data = read_scene(replace(parser_config(cell, scene), max_image_size_px=cell.scale.image_px))
    start = time.perf_counter()
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
