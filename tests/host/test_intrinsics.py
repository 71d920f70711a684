"""Intrinsics that stage 0 found are those of training, of test views, and of whoever loads the checkpoint."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from craym_nerfstudio.sfm.result import Intrinsics
from craym_nerfstudio.start.find import Start
from tests.host.tiny_run import TinyData, tiny_config

FOUND = Intrinsics(1.25, (0.01, 0.0), 0.02, 0.0)


def test_found_intrinsics_are_kept_in_the_checkpoint(tiny_data: TinyData, tmp_path: Path) -> None:
    config = tiny_config(tiny_data.folder, tmp_path).pipeline
    manager = config.setup(device="cpu", test_mode="inference").datamanager
    given, c2w = manager.train_dataset.cameras, manager.views().c2w
    own = tuple(np.linspace(0.97, 1.03, len(c2w)).tolist())
    found = replace(FOUND, own_focal=own)
    start = Start(c2w, np.zeros(len(c2w), dtype=bool), tiny_data.matches, intrinsics=found)
    trained = config.setup(device="cpu", test_mode="val", start=start)
    loaded = config.setup(device="cpu", test_mode="inference")
    loaded.load_pipeline(trained.state_dict(), 0)
    for pipeline in (trained, loaded):
        manager = pipeline.datamanager
        assert manager.intrinsics == found
        train = [manager.train_cameras, manager.train_dataset.cameras]
        # Test images were not adjusted one by one.
        test = [manager.eval_cameras, manager.fixed_indices_eval_dataloader.cameras]
        for cameras, factors in [(each, own) for each in train] + [(each, (1.0,)) for each in test]:
            expected = 1.25 * torch.tensor(factors)[:, None] * given.fx[:1].expand_as(cameras.fx)
            torch.testing.assert_close(cameras.fx, expected, rtol=1e-3, atol=0)
            assert (cameras.distortion_params[:, 0].abs() > 1e-3).all()
