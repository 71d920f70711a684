"""Two processes train the tiny scene together: other rays each, the same parameters, one search for matches."""

import os
from pathlib import Path

import torch
from nerfstudio.pipelines import base_pipeline
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from tests.host.tiny_run import TinyData, tiny_config

STEPS = 3


class OnCpu(DistributedDataParallel):
    """The host names CUDA devices, whatever the model is on."""

    def __init__(self, model: torch.nn.Module, **_: object) -> None:
        super().__init__(model, find_unused_parameters=True)


def train(rank: int, data: Path, output: Path, port: int) -> None:
    """What one of two processes does; it leaves its rays and its parameters in a file."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    base_pipeline.DDP = OnCpu
    config = tiny_config(data, output)
    torch.manual_seed(rank)
    pipeline = config.pipeline.setup(device="cpu", test_mode="val", world_size=2, local_rank=rank)
    optimizer = torch.optim.SGD([value for value in pipeline.model.parameters() if value.requires_grad], lr=1e-3)
    rays = []
    for step in range(STEPS):
        pipeline.craym_model.update_to_step(step)
        rays.append(pipeline.datamanager.next_train(step)[1]["indices"])
        optimizer.zero_grad()
        _, losses, _ = pipeline.get_train_loss_dict(step)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    state = {name: value for name, value in pipeline.model.named_parameters()}
    torch.save({"rays": torch.cat(rays), "state": state}, output / f"rank{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_draw_other_rays_and_stay_equal(tiny_data: TinyData, tmp_path: Path) -> None:
    multiprocessing.spawn(train, (tiny_data.folder, tmp_path, 29_511), nprocs=2)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert first["rays"].shape == second["rays"].shape
    assert (first["rays"] == second["rays"]).all(-1).float().mean() < 0.01
    assert first["state"].keys() == second["state"].keys()
    for name, value in first["state"].items():
        torch.testing.assert_close(value, second["state"][name], rtol=0, atol=1e-6, msg=name)
