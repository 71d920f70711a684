"""Photos that were exposed differently: found from matched key rays, trained as if taken alike, judged as they are."""

import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from craym_nerfstudio.start.exposure import find_exposure
from tests.host.tiny_run import TEST, TRAIN, TinyData, tiny_config

GAINS = np.exp(np.random.default_rng(0).uniform(-1.0, 0.0, (TRAIN + TEST, 3)))


def as_photos(data: TinyData, folder: Path, gains: np.ndarray) -> Path:
    """The data without alpha, on a grey background, every image times its gains."""
    shutil.copytree(data.folder, folder)
    images = [folder / f"{split}/r_{k}.png" for split, n in (("train", TRAIN), ("test", TEST)) for k in range(n)]
    for path, gain in zip(images, gains, strict=True):
        rgba = np.asarray(Image.open(path), dtype=np.float64)
        alpha = rgba[..., 3:] / 255.0
        Image.fromarray(np.round((rgba[..., :3] * alpha + 128.0 * (1.0 - alpha)) * gain).astype(np.uint8)).save(path)
    return folder


def test_exposures_are_found_taken_out_and_put_back(tiny_data: TinyData, tmp_path: Path) -> None:
    config = tiny_config(as_photos(tiny_data, tmp_path / "photos", GAINS), tmp_path)
    config.pipeline.datamanager.dataparser.pose_noise = "none"
    pipeline = config.pipeline.setup(device="cpu", test_mode="val")
    truth = np.log(GAINS[:TRAIN])
    np.testing.assert_allclose(pipeline.log_gain, truth - truth.mean(0), atol=0.1)
    # Training sees photos that agree.
    images, matches = pipeline.datamanager.train_images(), pipeline.start.matches
    assert find_exposure(images, matches).spread < 0.05
    images.gain = None
    assert find_exposure(images, matches).spread > 0.2
    # A view that is right but for its exposure is judged right.
    camera, batch = next(iter(pipeline.datamanager.fixed_indices_eval_dataloader))
    shown = {"rgb": batch["image"] / torch.tensor([0.7, 1.0, 0.8]), "accumulation": torch.ones(48, 48, 1)}
    shown |= {"depth": torch.ones(48, 48, 1), "normals": torch.ones(48, 48, 3)}
    pipeline.model.volume_picture = lambda _: dict(shown)
    metrics, _ = pipeline._views.judged(camera, batch)
    assert metrics["psnr"] > 35.0


def test_photos_taken_alike_stay_as_they_are(tiny_data: TinyData, tmp_path: Path) -> None:
    config = tiny_config(as_photos(tiny_data, tmp_path / "photos", np.ones((TRAIN + TEST, 3))), tmp_path)
    pipeline = config.pipeline.setup(device="cpu", test_mode="val")
    assert not pipeline.log_gain.any()
    assert pipeline.datamanager.train_images().gain is None
