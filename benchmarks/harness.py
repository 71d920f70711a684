"""Training runs inside one process: the real pipeline and the host's own step, advanced by hand and timed.

Also what every script tells beside its figures: the machine, the commit, and how it was started.
"""

import os
import platform
import re
import shlex
import sys
import time
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import torch
from nerfstudio.configs.method_configs import method_configs
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from torch import nn
from torchmetrics.image import lpip

from benchmarks.suite import running_commit
from craym_nerfstudio.data.dataset import CraymDataset
from craym_nerfstudio.methods import craym, craym_lite
from craym_nerfstudio.pipeline import CraymPipeline
from craym_nerfstudio.storage import write_json
from craym_nerfstudio.trainer import CraymTrainerConfig


class Run:
    """A training run that is advanced by hand; ``seconds`` counts its steps alone, not its evaluation."""

    def __init__(self, config: TrainerConfig, device: torch.device, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.config, self.device = deepcopy(config), device
        self.config.machine.device_type = device.type  # type: ignore[assignment]
        self.config.mixed_precision &= device.type == "cuda"
        # It takes the steps; its own loop would log, evaluate and save between them.
        self.trainer = Trainer(self.config)
        self.pipeline = self.trainer.pipeline = self.config.pipeline.setup(device=str(device), test_mode="val")
        self.optimizers = self.trainer.optimizers = self.trainer.setup_optimizers()
        attributes = TrainingCallbackAttributes(self.optimizers, self.trainer.grad_scaler, self.pipeline, trainer=None)
        self.callbacks = self.pipeline.get_training_callbacks(attributes)
        self.step, self.seconds = 0, 0.0
        self.pipeline.train()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def advance(self, steps: int = 1) -> float:
        """Take steps as the host's trainer does; returns their seconds."""
        ours = isinstance(self.pipeline, CraymPipeline)
        start = self._now()
        with self.pipeline.own_threads() if ours else nullcontext():
            for _ in range(steps):
                self._call_back(TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
                self.trainer.train_iteration(self.step)
                self._call_back(TrainingCallbackLocation.AFTER_TRAIN_ITERATION)
                self.step += 1
        spent = self._now() - start
        self.seconds += spent
        return spent

    def _call_back(self, location: TrainingCallbackLocation) -> None:
        for callback in self.callbacks:
            callback.run_callback_at_location(self.step, location)

    def skim(self, steps: int, share: float = 1.0) -> None:
        """Train for a few steps that are spread over a share of the schedule, and stand at its end."""
        last = int(share * self.config.max_num_iterations)
        for k in range(steps):
            self.step = last * k // steps
            self.advance()
        self.step = last

    def _stateful(self) -> dict[str, Any]:
        optimizers = {f"optimizer {name}": each for name, each in self.optimizers.optimizers.items()}
        schedulers = {f"scheduler {name}": each for name, each in self.optimizers.schedulers.items()}
        return {"pipeline": self.pipeline, "scaler": self.trainer.grad_scaler, **optimizers, **schedulers}

    def state(self) -> dict[str, Any]:
        """What `load` needs to go on from here."""
        numbers = {"step": self.step, "seconds": self.seconds, "random": torch.get_rng_state()}
        return numbers | {name: each.state_dict() for name, each in self._stateful().items()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on where another run of the same method stood."""
        for name, each in self._stateful().items():
            each.load_state_dict(state[name])
        self.step, self.seconds = state["step"], state["seconds"]
        torch.set_rng_state(state["random"])


def method_config(name: str) -> CraymTrainerConfig:
    """A copy of a method's config."""
    return deepcopy(cast(CraymTrainerConfig, {"craym": craym, "craym-lite": craym_lite}[name].config))


def nerfacto_config(parser: DataParserConfig, rays: int, steps: int, background: str) -> TrainerConfig:
    """nerfacto as registered, without tiny-cuda-nn, its schedules at the length of the training."""
    # Its constructor loads the weights of a metric that is not used here, from the network.
    lpip.LearnedPerceptualImagePatchSimilarity = lambda **_: nn.Identity()  # type: ignore[misc,assignment]
    config = deepcopy(method_configs["nerfacto"])
    # Ours shows photos at the size that the parser gives their cameras.
    config.pipeline.datamanager = VanillaDataManagerConfig(
        _target=VanillaDataManager[CraymDataset],
        data=parser.data,
        dataparser=parser,
        train_num_rays_per_batch=rays,
        eval_num_rays_per_batch=rays,
    )
    model = config.pipeline.model
    model.implementation, model.background_color, model.eval_num_rays_per_chunk = "torch", background, 1 << 13
    config.max_num_iterations = steps
    for group in config.optimizers.values():
        group["scheduler"].max_steps = steps
    return config


def machine(device: torch.device) -> dict[str, str | int | float]:
    """What a reader needs to judge the figures."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu": f"{cpu[1] if cpu else platform.processor()} ({torch.backends.cpu.get_cpu_capability()})",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
        "commit": running_commit(),
    }


def command() -> str:
    """How this process was started; where data and runs lie on this machine is nobody's matter."""
    module, words = sys.modules["__main__"].__spec__, list(sys.argv[1:])
    for number, word in enumerate(words):
        name, is_run, _ = word.partition("=")
        if is_run and not name.startswith("-"):
            words[number] = f"{name}=RUN"
        elif number and words[number - 1] == "--data-root":
            words[number] = "DATA"
    return shlex.join(["python", "-m", module.name if module else "?", *words])


def keep(path: Path | None, result: dict) -> None:
    """Write what has been measured so far, where a file was asked for."""
    if path is not None:
        write_json(path, result)
