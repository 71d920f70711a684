"""nerfstudio's trainer with checkpoints that survive a full disk, Ctrl-C and a kill."""

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import TRAIN_INTERATION_OUTPUT, Trainer, TrainerConfig
from nerfstudio.utils.decorators import check_main_thread

from craym_nerfstudio.console import console
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.pipeline import CraymPipeline, CraymPipelineConfig
from craym_nerfstudio.report.summary import announce_training, report_training
from craym_nerfstudio.sfm.result import STAGE_ZERO_NAME

_UNWRITABLE = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT)

SCHEDULED = (
    "steps_per_level",
    "cosine_anneal_steps",
    "surface_interval_steps",
    "epipolar_anneal_steps",
    "point_alignment_steps",
    "landmark_steps",
)
"""Settings of the model that are counted in steps of training, for a training of the method's own length."""


@dataclass
class CraymTrainerConfig(TrainerConfig):
    """nerfstudio's settings, which are not printed page by page: they stand in the run's config.yml."""

    _target: type = field(default_factory=lambda: CraymTrainer)

    def save_config(self) -> None:
        """Write config.yml, with the schedules as this run has them."""
        self.fit_schedules()
        super().save_config()

    def setup(self, **kwargs: Any) -> Any:
        """The trainer, its schedules as long as the training."""
        self.fit_schedules()
        return super().setup(**kwargs)

    def fit_schedules(self) -> None:
        """Scale everything that is scheduled from the length that it is stated for to `max_num_iterations`.

        That length is the one of the optimizers' schedules: once scaled, a config stays as it is.
        """
        share = self.max_num_iterations / self.optimizers["fields"]["scheduler"].max_steps

        def scaled(steps: Any) -> Any:
            return tuple(scaled(each) for each in steps) if isinstance(steps, tuple) else max(1, round(share * steps))

        pipeline = cast(CraymPipelineConfig, self.pipeline)
        scheduled: list[tuple[Any, str]] = [(pipeline.model, name) for name in SCHEDULED]
        scheduled.append((pipeline.model.camera_optimizer, "settled_delay_steps"))
        for group in self.optimizers.values():
            scheduled += [(group["scheduler"], "max_steps"), (group["scheduler"], "warmup_steps")]
        for owner, name in scheduled:
            setattr(owner, name, scaled(getattr(owner, name)))

    def print_to_terminal(self) -> None:
        """One line."""
        console.print(f"{self.method_name}: settings and results in {self.get_base_dir()}")


class CraymTrainer(Trainer):
    """Writes checkpoints atomically, and one more when training is interrupted."""

    pipeline: CraymPipeline
    last_taken: int | None = None
    """The last step whose update is part of the parameters; None before this process has taken one."""

    def setup(self, test_mode: str = "val") -> None:
        """Build the pipeline, say what it runs on, and report when training ends."""
        if self.device == "cpu" and self.config.method_name == "craym":
            console.print("[yellow]No GPU found: `craym` will be slow; `ns-train craym-lite` is sized for this.")
        super().setup(test_mode)  # type: ignore[arg-type]
        end = [TrainingCallbackLocation.AFTER_TRAIN]
        self.callbacks.append(TrainingCallback(end, lambda step: report_training(self.pipeline, self.base_dir, step)))
        if self.local_rank == 0:
            if self.pipeline.stage_zero is not None:  # its points and tracks are part of what a run hands over
                self.pipeline.stage_zero.save(self.base_dir / STAGE_ZERO_NAME)
            announce_training(self.pipeline, self._start_step, self.config.max_num_iterations)

    def train(self) -> None:
        """Train; an interrupt keeps what was learned."""
        try:
            with self.pipeline.own_threads():
                super().train()
        except KeyboardInterrupt:
            # After the last step the host keeps the viewer open until Ctrl-C; before the first there is nothing to
            # keep, and a checkpoint of step 0 would replace the one that this run resumed from.
            if self.training_state != "completed" and self.last_taken is not None:
                self.save_checkpoint(self.last_taken)
                resume = f"[bold]--load-dir {self.checkpoint_dir}[/bold]"
                console.print(f"[yellow]Interrupted. Go on with the same command and {resume}")
            raise

    def train_iteration(self, step: int) -> TRAIN_INTERATION_OUTPUT:
        """One step; the host counts it before it is taken, an interrupt must know whether it was."""
        result = super().train_iteration(step)
        self.last_taken = step
        return result

    @check_main_thread
    def save_checkpoint(self, step: int) -> None:
        """Write ``step-{step}.ckpt`` beside its name first and move it into place; older ones go only then.

        Raises:
            InputError: the disk is full or not writable; the previous checkpoint is untouched.
        """
        self.checkpoint_dir.mkdir(parents=True, exist_ok=True)
        path = self.checkpoint_dir / f"step-{step:09d}.ckpt"
        # Outside of the checkpoint folder: the host reads a step number from every name in there.
        partial = self.base_dir / f"{path.name}.partial"
        try:
            self._write(step, partial)
            os.replace(partial, path)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno not in _UNWRITABLE:
                raise
            remedy = "Free disk space and resume with --load-dir."
            raise InputError("cannot write the checkpoint", path, remedy) from error
        if self.config.save_only_latest_checkpoint:
            for old in self.checkpoint_dir.glob("*.ckpt"):
                if old != path:
                    old.unlink()

    def _write(self, step: int, path: Path) -> None:
        content = {
            "step": step,
            "pipeline": self.pipeline.state_dict(),
            "optimizers": {name: value.state_dict() for name, value in self.optimizers.optimizers.items()},
            "schedulers": {name: value.state_dict() for name, value in self.optimizers.schedulers.items()},
            "scalers": self.grad_scaler.state_dict(),
        }
        with path.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
