"""ns-eval and ns-render on a tiny run."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.scripts.render import DatasetRender, RenderInterpolated
from PIL import Image

from craym_nerfstudio import pictures
from craym_nerfstudio.data.reference import ReferencePoses
from craym_nerfstudio.evaluation.images import lpips_metric
from craym_nerfstudio.export.run import load_run
from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.pipeline import CraymPipeline
from tests.host.conftest import TrainedRun
from tests.host.tiny_run import SIZE_PX, TEST, TRAIN
from tests.sfm.synthetic import ring

POSE_METRICS = ("pose_rotation_deg", "pose_translation_x100")


@pytest.fixture(autouse=True)
def no_torch_hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """A machine that has never downloaded weights."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path_factory.getbasetemp() / "no_hub"))
    lpips_metric.cache_clear()
    yield
    lpips_metric.cache_clear()


def test_a_camera_that_is_lost_does_not_turn_the_test_views() -> None:
    """Of 20 cameras on a ring one stands where it should not: test views follow the others."""
    true = ring(20)
    model = Similarity.of(0.5, translation=np.array([1.0, 2.0, 3.0])).poses(true)
    model[7, :, 3] += 1.0
    reference = ReferencePoses(true.numpy(), None, "here")
    pipeline = SimpleNamespace(datamanager=SimpleNamespace(reference=reference), refined_c2w=lambda: model)
    found = CraymPipeline.reference_to_model(cast(CraymPipeline, pipeline))
    torch.testing.assert_close(found.poses(true)[:7], model[:7], atol=1e-6, rtol=0)


def test_eval_reports_images_and_poses(trained: TrainedRun, tmp_path: Path) -> None:
    ComputePSNR(trained.config_path, tmp_path / "eval.json", tmp_path / "pictures").main()
    results = json.loads((tmp_path / "eval.json").read_text())["results"]
    expected = {"psnr", "ssim", *POSE_METRICS, *(f"{name}_before" for name in POSE_METRICS)}
    assert expected <= results.keys()
    assert not any("lpips" in name for name in results)
    assert all(isinstance(value, float) and np.isfinite(value) for value in results.values())
    at_the_end = json.loads((trained.folder / "metrics.json").read_text())["results"]
    for name in expected:
        assert results[name] == pytest.approx(at_the_end[name], abs=2e-3), name
    assert len(list((tmp_path / "pictures").glob("eval_img_*.png"))) == TEST


@pytest.mark.parametrize(("split", "count"), [("test", TEST), ("train", TRAIN)])
def test_render_dataset(trained: TrainedRun, tmp_path: Path, split: str, count: int) -> None:
    DatasetRender(load_config=trained.config_path, output_path=tmp_path, split=split, image_format="png").main()
    for name in ("rgb", "gt-rgb", "depth", "accumulation", "normals"):
        pictures = sorted(path for path in (tmp_path / split / name).rglob("*") if path.is_file())
        assert len(pictures) == count, name
        assert Image.open(pictures[0]).size == (SIZE_PX, SIZE_PX)
    # Drawn from the refined training cameras, or from test cameras that followed them; not from what was given.
    run = load_run(trained.config_path)
    manager = run.pipeline.datamanager
    cameras = (manager.train_dataset if split == "train" else manager.eval_dataset).cameras
    given = run.pipeline.given_c2w() if split == "train" else run.pipeline.test_c2w
    assert (cameras.camera_to_worlds - given).abs().max() > 1e-3
    expected = run.pipeline.craym_model.get_outputs_for_camera(cameras[:1])["rgb"]
    shown = np.asarray(Image.open(sorted((tmp_path / split / "rgb").rglob("*.png"))[0]))
    assert np.abs(shown / 255.0 - expected.numpy()).max() < 0.01
    if split == "train":
        torch.testing.assert_close(cameras.camera_to_worlds, run.pipeline.refined_c2w())


def test_depth_in_pictures_is_that_of_a_backdrop_where_nothing_is(trained: TrainedRun) -> None:
    run = load_run(trained.config_path)
    model, camera = run.pipeline.craym_model, run.pipeline.datamanager.train_dataset.cameras[:1]
    with torch.no_grad():
        picture = model.get_outputs_for_camera(camera)
        exported = model.get_outputs_for_camera_ray_bundle(camera.generate_rays(0, keep_shape=True))
    missed = exported["accumulation"] < 0.1
    distances = (run.pipeline.refined_c2w()[:, :, 3] - camera.camera_to_worlds[0, :, 3]).norm(dim=-1)
    assert missed.any() and (exported["depth"][missed] == 1e3).all()
    assert distances.max() - 1e-4 <= picture["depth"].max() < 10.0
    assert (picture["normals"][missed.expand_as(picture["normals"])] == 0.5).all()


def test_a_picture_is_whole_though_training_goes_on_meanwhile(
    trained: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The viewer draws in a thread of its own: an evaluation that ends sets the model to train between two parts."""
    run = load_run(trained.config_path)
    model, camera = run.pipeline.craym_model, run.pipeline.datamanager.train_dataset.cameras[:1]
    render, calls = model.tracer.render, []

    def interrupted(*rays):
        calls.append(model.training)
        model.training = len(calls) > 1
        return render(*rays)

    monkeypatch.setattr(pictures, "_RAYS", SIZE_PX * SIZE_PX // 2)
    expected = model.get_outputs_for_camera(camera)
    monkeypatch.setattr(model.tracer, "render", interrupted)
    picture = model.get_outputs_for_camera(camera)
    assert len(calls) == 2
    assert picture.keys() == expected.keys()
    torch.testing.assert_close(picture["normals"], expected["normals"])


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="videos need ffmpeg (apt-get install ffmpeg)")
def test_render_interpolate(trained: TrainedRun, tmp_path: Path) -> None:
    video = tmp_path / "between.mp4"
    RenderInterpolated(
        load_config=trained.config_path, output_path=video, pose_source="train", interpolation_steps=2, frame_rate=4
    ).main()
    assert video.stat().st_size > 1000
