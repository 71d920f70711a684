"""Training runs inside one process for the benchmarks: the real pipeline, one step at a time, timed.

The scripts beside this file are started by their path (``python benchmarks/train_step.py``), which puts it in reach.
"""

import functools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path

import torch
from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import TrainerConfig

from craym_nerfstudio.pipeline import CraymPipeline
from craym_nerfstudio.storage import write_atomically

ROOT = Path(__file__).resolve().parent.parent
EVERYTHING_ON = 0.55
"""Share of the schedule after which all levels and all losses are on."""
_SCALED_STEPS = ("epipolar_anneal_steps", "steps_per_level", "cosine_anneal_steps", "surface_interval_steps")


class Run:
    """A training run that is advanced by hand; ``seconds`` counts its steps alone, not its evaluation."""

    def __init__(
        self, config: TrainerConfig, device: torch.device, seed: int = 0, test_mode: str = "val"
    ) -> None:
        torch.manual_seed(seed)
        self.config, self.device = deepcopy(config), device
        self.mixed = self.config.mixed_precision and device.type == "cuda"
        self.pipeline = self.config.pipeline.setup(device=str(device), test_mode=test_mode)
        self.optimizers = Optimizers(deepcopy(self.config.optimizers), self.pipeline.get_param_groups())
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.mixed)
        attributes = TrainingCallbackAttributes(self.optimizers, self.scaler, self.pipeline, trainer=_NoTrainer())
        self.callbacks = self.pipeline.get_training_callbacks(attributes)
        self.step, self.seconds = 0, 0.0
        self.parts: dict[str, list[float]] = {}
        self.pipeline.train()

    @property
    def model(self):
        """The model of the pipeline."""
        return self.pipeline.model

    def advance(self, steps: int = 1) -> float:
        """Take steps as the host's trainer does; returns their seconds."""
        ours = isinstance(self.pipeline, CraymPipeline)
        start = self._now()
        with self.pipeline.own_threads() if ours else nullcontext():
            for _ in range(steps):
                self._one_step()
                self.step += 1
        spent = self._now() - start
        self.seconds += spent
        return spent

    def skim(self, steps: int, share: float = 1.0) -> None:
        """Train for a few steps that are spread over a share of the schedule, and stand at its end."""
        last = int(share * self.config.max_num_iterations)
        for k in range(steps):
            self.step = last * k // steps
            self.advance()
        self.step = last

    def _one_step(self) -> None:
        self._call_back(TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
        self.optimizers.zero_grad_all()
        with torch.autocast(self.device.type, enabled=self.mixed):
            _, loss_dict, _ = self.pipeline.get_train_loss_dict(self.step)
            loss = functools.reduce(torch.add, loss_dict.values())
        with self._part("backward"):
            self.scaler.scale(loss).backward()
        with self._part("optimizer"):
            self.optimizers.optimizer_scaler_step_all(self.scaler)
            self.scaler.update()
            self.optimizers.scheduler_step_all(self.step)
        with self._part("grid refresh"):
            self._call_back(TrainingCallbackLocation.AFTER_TRAIN_ITERATION)

    def _call_back(self, location: TrainingCallbackLocation) -> None:
        for callback in self.callbacks:
            callback.run_callback_at_location(self.step, location)

    def time_parts(self) -> None:
        """From now on, keep the seconds of each part of a step; on CUDA this waits after every part."""
        model, manager = self.pipeline.model, self.pipeline.datamanager
        manager.next_train = self._timed("data", manager.next_train)
        model.forward = self._timed("forward", model.forward)
        model.get_metrics_dict = self._timed("metrics", model.get_metrics_dict)
        model.get_loss_dict = self._timed("losses", model.get_loss_dict)
        self.parts = {"data": []}

    def _timed(self, name: str, work: Callable) -> Callable:
        @functools.wraps(work)
        def timed(*args, **kwargs):
            with self._part(name):
                return work(*args, **kwargs)

        return timed

    @contextmanager
    def _part(self, name: str):
        if not self.parts:
            yield
            return
        start = self._now()
        yield
        self.parts.setdefault(name, []).append(1000 * (self._now() - start))

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @torch.no_grad()
    def psnr(self, views: int) -> float:
        """Mean PSNR over equally spaced test views; for our models, their poses aligned with the refined ones."""
        self.pipeline.eval()
        dataset = self.pipeline.datamanager.eval_dataset
        aligned = isinstance(self.pipeline, CraymPipeline)
        values = []
        for index in torch.linspace(0, len(dataset) - 1, views).long().tolist():
            camera = dataset.cameras[index : index + 1].to(self.device)
            if aligned:
                camera = self.pipeline.test_camera(camera, index, self.pipeline.reference_to_model())
            image = dataset[index]["image"].to(self.device)
            error = (self.model.get_outputs_for_camera(camera)["rgb"].clamp(0, 1) - image).square().mean()
            values.append(-10.0 * float(torch.log10(error)))
        self.pipeline.train()
        return sum(values) / len(values)


def shorten(config: TrainerConfig, steps: int) -> None:
    """Everything that is scheduled, in proportion to the number of steps."""
    share, model = steps / config.max_num_iterations, config.pipeline.model
    config.max_num_iterations = steps
    for name in _SCALED_STEPS:
        setattr(model, name, max(1, round(share * getattr(model, name))))
    model.point_alignment_steps = tuple(round(share * step) for step in model.point_alignment_steps)
    # The poses of stage 0 wait for a field that is better than a blur: it takes its steps however short the schedule.
    optimizer = model.camera_optimizer
    optimizer.settled_delay_steps = min(optimizer.settled_delay_steps, steps // 2)
    for group in config.optimizers.values():
        group["scheduler"].max_steps = steps
        group["scheduler"].warmup_steps = max(1, round(share * group["scheduler"].warmup_steps))


class _NoTrainer:
    """Stands for the trainer in callbacks that none of the benchmarks reaches."""

    base_dir = ROOT / "outputs"


def machine(device: torch.device) -> dict[str, str | int | float]:
    """What a reader needs to judge the figures."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu": cpu_model(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
        "commit": commit.stdout.strip(),
    }


def cpu_model() -> str:
    """The processor's name and its instruction set, where the system tells."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def command() -> str:
    """How this process was started, paths relative to the repository."""
    module = sys.modules["__main__"].__spec__
    started = ["-m", module.name] if module else [f"benchmarks/{Path(sys.argv[0]).name}"]
    return " ".join(["python", *started, *sys.argv[1:]])


def keep(path: Path | None, result: dict) -> None:
    """Write what has been measured so far, where a file was asked for."""
    if path is not None:
        write_atomically(path, lambda file: file.write((json.dumps(result, indent=1) + "\n").encode()))
