"""ns-export on a tiny run, and the promises to it that decide whether its meshes are right."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.utils.eval_utils import eval_setup

from craym_nerfstudio.pipeline import CraymPipeline
from tests.host.conftest import TrainedRun
from tests.host.tiny_run import TRAIN

_WANTS = "ns-export needs libusb-1.0-0 libgl1 libegl1 libopengl0 libfontconfig1 (apt-get install)"
open3d = pytest.importorskip("open3d", reason=_WANTS, exc_type=ImportError)
exporter = pytest.importorskip("nerfstudio.scripts.exporter", reason=_WANTS, exc_type=ImportError)
marching_cubes = pytest.importorskip("nerfstudio.exporter.marching_cubes", reason=_WANTS, exc_type=ImportError)


@pytest.fixture(scope="module")
def pipeline(trained: TrainedRun) -> CraymPipeline:
    return eval_setup(trained.config_path)[1]


def on_surface(pipeline: CraymPipeline, points: np.ndarray) -> float:
    """Median distance of points of the host's frame from the zero level of the field."""
    return float(pipeline.craym_model.sdf(torch.from_numpy(points).float()).abs().median())


def test_the_probe_of_the_exporters(pipeline: CraymPipeline) -> None:
    # One ray with an un-normalised direction, float camera indices and no near and far, as validate_pipeline sends it.
    towards = torch.tensor([[0.0, 0.0, -3.0]])
    bundle = RayBundle(
        origins=torch.tensor([[0.1, 0.1, 3.0]]),
        directions=towards,
        pixel_area=torch.ones(1, 1),
        camera_indices=torch.zeros(1, 1),
        metadata={"directions_norm": towards.norm(dim=-1, keepdim=True)},
    )
    with torch.no_grad():
        outputs = pipeline.model(bundle)
    shapes = {name: tuple(value.shape) for name, value in outputs.items()}
    assert shapes == {"rgb": (1, 3), "accumulation": (1, 1), "depth": (1, 1), "normals": (1, 3)}
    assert outputs["normals"].min() >= 0 and outputs["normals"].max() <= 1
    assert pipeline.model.get_rgba_image(outputs).shape == (1, 4)
    if outputs["accumulation"] > 0.5:
        assert 1.5 < float(outputs["depth"]) < 4.5, "depth is a distance, whatever the length of the direction"


def test_exporters_get_other_rays_each_time(pipeline: CraymPipeline) -> None:
    """They ask for step 0 until they have enough points."""
    first, second = (pipeline.datamanager.next_train(0)[0].directions for _ in range(2))
    assert (first != second).any(dim=-1).float().mean() > 0.9


def test_depth_is_distance_along_unit_rays(pipeline: CraymPipeline) -> None:
    manager = pipeline.datamanager
    manager.train_pixel_sampler.num_rays_per_batch = 2048
    rays, batch = manager.next_train(0)
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(2048))
    with torch.no_grad():
        outputs = pipeline.model(rays)
    assert all(len(value) == 2048 for value in outputs.values())
    # After 60 steps the surface is a twentieth wide, and few rays end on it for certain.
    hit = outputs["accumulation"][:, 0] > 0.75
    points = (rays.origins + rays.directions * outputs["depth"])[hit]
    assert hit.any() and on_surface(pipeline, points.numpy()) < 0.15
    assert (outputs["depth"][outputs["accumulation"] < 0.5] > 100).all()
    assert batch["image"].shape == (2048, 4)


def test_export_pointcloud(trained: TrainedRun, pipeline: CraymPipeline, tmp_path: Path) -> None:
    exporter.ExportPointCloud(trained.config_path, tmp_path, num_points=3000, num_rays_per_batch=2048).main()
    cloud = open3d.io.read_point_cloud(str(tmp_path / "point_cloud.ply"))
    points, normals = np.asarray(cloud.points), np.asarray(cloud.normals)
    assert len(points) > 2000 and cloud.has_colors()
    assert on_surface(pipeline, points) < 0.15
    assert (points * normals).sum(-1).mean() > 0


def test_export_poisson(trained: TrainedRun, pipeline: CraymPipeline, tmp_path: Path) -> None:
    exporter.ExportPoissonMesh(
        trained.config_path, tmp_path, num_points=4000, num_rays_per_batch=2048, texture_method="point_cloud"
    ).main()
    mesh = open3d.io.read_triangle_mesh(str(tmp_path / "poisson_mesh.ply"))
    assert len(mesh.triangles) > 500
    assert on_surface(pipeline, np.asarray(mesh.vertices)) < 0.15


def test_export_tsdf(trained: TrainedRun, pipeline: CraymPipeline, tmp_path: Path) -> None:
    exporter.ExportTSDFMesh(
        trained.config_path, tmp_path, resolution=[48, 48, 48], texture_method="nerf", unwrap_method="custom",
        downscale_factor=1, target_num_faces=300, px_per_uv_triangle=2,
    ).main()  # fmt: skip
    mesh = open3d.io.read_triangle_mesh(str(tmp_path / "tsdf_mesh.ply"))
    assert len(mesh.triangles) > 500
    assert on_surface(pipeline, np.asarray(mesh.vertices)) < 0.25
    assert (tmp_path / "material_0.png").is_file() and (tmp_path / "mesh.obj").is_file()


def test_export_cameras_writes_refined_poses(trained: TrainedRun, pipeline: CraymPipeline, tmp_path: Path) -> None:
    exporter.ExportCameraPoses(trained.config_path, tmp_path).main()
    frames = json.loads((tmp_path / "transforms_train.json").read_text())
    assert len(frames) == TRAIN
    np.testing.assert_allclose([frame["transform"] for frame in frames], pipeline.refined_c2w(), atol=1e-6)
    assert not np.allclose(pipeline.refined_c2w(), pipeline.given_c2w(), atol=1e-3)


def test_what_the_hosts_marching_cubes_need(pipeline: CraymPipeline) -> None:
    # The command itself moves 512^3 points to CUDA; its arithmetic runs on any device.
    model = pipeline.model
    assert hasattr(model.config, "sdf_field")
    axis = torch.linspace(-1, 1, 64)
    pyramid = marching_cubes.create_point_pyramid(torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")))

    def evaluate(points: torch.Tensor) -> torch.Tensor:
        return marching_cubes.evaluate_sdf(lambda x: model.field.forward_geonetwork(x)[:, 0].contiguous(), points)

    values = marching_cubes.evaluate_multiresolution_sdf(evaluate, pyramid, None, 1.0, -1.0, 64)
    assert values.shape == (64**3,) and values.min() < 0 < values.max()
