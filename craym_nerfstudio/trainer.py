"""nerfstudio's trainer with checkpoints that survive a full disk, Ctrl-C, SIGTERM and a kill."""

import errno
import os
import pickle
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
import yaml
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import TRAIN_INTERATION_OUTPUT, Trainer, TrainerConfig
from nerfstudio.utils.decorators import check_main_thread

from craym_nerfstudio.console import console, silence_others, typed, warn
from craym_nerfstudio.errors import InputError, show_input_errors
from craym_nerfstudio.pipeline import CraymPipeline, CraymPipelineConfig
from craym_nerfstudio.report.record import METRICS_NAME
from craym_nerfstudio.report.summary import announce_training, report_training
from craym_nerfstudio.sfm.result import STAGE_ZERO_NAME, StageZero
from craym_nerfstudio.stops import Terminated, ended_by, heed_stops, whole
from craym_nerfstudio.storage import write_atomically, write_text

_UNREADABLE = (OSError, RuntimeError, ValueError, LookupError, AssertionError, EOFError, pickle.UnpicklingError)

SCHEDULED = (
    "steps_per_level",
    "cosine_anneal_steps",
    "surface_interval_steps",
    "epipolar_anneal_steps",
    "point_alignment_steps",
    "silhouette_steps",
    "landmark_steps",
    "consistency_steps",
)
"""Settings of the model that are counted in steps of training, for a training of the method's own length."""


@dataclass
class CraymTrainerConfig(TrainerConfig):
    """nerfstudio's settings, which are not printed page by page: they stand in the run's config.yml."""

    _target: type = field(default_factory=lambda: CraymTrainer)

    def setup(self, **kwargs: Any) -> Any:
        """The trainer, its schedules as long as the training; the host's has warnings of its own to give."""
        silence_others()
        self._check_numbers()
        self.fit_schedules()
        return super().setup(**kwargs)

    def _check_numbers(self) -> None:
        """Refuse what would end in a traceback, or train away from the photos, after minutes of matching.

        Raises:
            InputError: a number that is too small.
        """
        pipeline = cast(CraymPipelineConfig, self.pipeline)
        losses = [each.name for each in fields(pipeline.model) if each.name.endswith("_loss_mult")]
        least: list[tuple[str, Any, str, float]] = [
            ("", self, "max_num_iterations", 1),
            ("pipeline.", pipeline, "test_pose_steps", 0),
            ("pipeline.datamanager.", pipeline.datamanager, "train_num_rays_per_batch", 1),
            ("pipeline.model.", pipeline.model, "eval_num_rays_per_chunk", 1),
            *(("pipeline.model.", pipeline.model, name, 0) for name in losses),
        ]
        for prefix, owner, name, bound in least:
            if not getattr(owner, name) >= bound:
                flag = f"{prefix}{name}".replace("_", "-")
                raise InputError(f"{flag} is {getattr(owner, name)}", None, f"Give {bound:g} or more.")

    def fit_schedules(self) -> None:
        """Scale everything that is scheduled from the length that it is stated for to that of this training.

        The former is the length of the optimizers' schedules: once scaled, a config stays as it is. The latter counts
        the steps of the checkpoint that training goes on from as well.
        """
        share = (self._steps_before() + self.max_num_iterations) / self.optimizers["fields"]["scheduler"].max_steps

        def scaled(steps: Any) -> Any:
            return tuple(scaled(each) for each in steps) if isinstance(steps, tuple) else max(1, round(share * steps))

        pipeline = cast(CraymPipelineConfig, self.pipeline)
        scheduled: list[tuple[Any, str]] = [(pipeline.model, name) for name in SCHEDULED]
        scheduled.append((pipeline.model.camera_optimizer, "settled_delay_steps"))
        for group in self.optimizers.values():
            scheduled += [(group["scheduler"], "max_steps"), (group["scheduler"], "warmup_steps")]
        for owner, name in scheduled:
            setattr(owner, name, scaled(getattr(owner, name)))

    def _steps_before(self) -> int:
        """Steps behind the checkpoint that training goes on from."""
        if self.load_checkpoint is not None:
            checkpoints = [self.load_checkpoint]
        else:
            checkpoints = [] if self.load_dir is None else list(self.load_dir.glob("step-*.ckpt"))
        steps = [_step_of(path) for path in checkpoints]
        return 1 + (max(steps, default=-1) if self.load_step is None else self.load_step)

    def print_to_terminal(self) -> None:
        """One line.

        Raises:
            InputError: the machine lacks the GPUs that were asked for; the host would say so in each process.
        """
        show_input_errors()
        wanted, found = self.machine.num_devices, torch.cuda.device_count()
        if wanted * self.machine.num_machines > 1 and wanted > found:
            raise InputError(
                f"--machine.num-devices {wanted} asks for as many CUDA devices on this machine; there are {found}",
                remedy="Leave the flag out: one process trains on what is there.",
            )
        console.print(f"{self.method_name}: settings and results in {self.get_base_dir()}")

    def save_config(self) -> None:
        """Write ``config.yml``, which every later command reads, as a whole, with the schedules as this run has them.

        Raises:
            InputError: the folder of results cannot be written.
        """
        self.fit_schedules()
        write_text(self.get_base_dir() / "config.yml", yaml.dump(self))


class CraymTrainer(Trainer):
    """Writes checkpoints atomically, and one more when training is stopped; says how to go on."""

    config: CraymTrainerConfig
    pipeline: CraymPipeline
    last_taken: int | None = None
    """The last step whose update is part of the parameters; None before this process has taken one."""
    last_saved: int | None = None
    """The step of the last checkpoint that this process wrote."""
    _saved_stage: StageZero | None = None
    is_reported: bool = False
    """Whether nothing is left to do but to close the viewer."""

    def setup(self, test_mode: str = "val") -> None:
        """Build the pipeline, say what it runs on, and report when training ends; a stop says what is kept."""
        heed_stops()
        if self.device == "cpu" and self.config.method_name == "craym":
            warn("No GPU found: `craym` will be slow; `ns-train craym-lite` is sized for this.")
        try:
            super().setup(test_mode)  # type: ignore[arg-type]
            self._announce()
        except KeyboardInterrupt as stop:
            cache = cast(CraymPipelineConfig, self.config.pipeline).start.cache_dir
            self._end(stop, f"What was found of matches is kept in {cache}: the same command goes on from there.")

    def _announce(self) -> None:
        end = [TrainingCallbackLocation.AFTER_TRAIN]
        self.callbacks.append(TrainingCallback(end, self._report))
        if self.local_rank > 0:
            return
        for partial in self.base_dir.glob(".*.ckpt.*.tmp"):  # what a kill left
            partial.unlink()
        self._save_stage_zero()
        viewer_host = self.config.viewer.websocket_host if self.config.is_viewer_enabled() else None
        announce_training(self.pipeline, self._start_step, self.config.max_num_iterations, viewer_host)
        if self.config.load_dir is None and self.config.load_checkpoint is None:
            self._mention_unfinished()

    def _save_stage_zero(self) -> None:
        """Its points and tracks are part of what a run hands over, and which cameras were found in training."""
        stage = self.pipeline.stage_zero
        if stage is not None and stage is not self._saved_stage:
            stage.save(self.base_dir / STAGE_ZERO_NAME)
            self._saved_stage = stage

    def _report(self, step: int) -> None:
        with self.train_lock:  # the viewer, which draws in a thread of its own, would let the model train meanwhile
            report_training(self.pipeline, self.base_dir, step)
        self.is_reported = True

    def _mention_unfinished(self) -> None:
        """Name the checkpoint of the last run of this data that did not end, if there is one."""
        runs = [path for path in self.base_dir.parent.glob("*/") if not (path / METRICS_NAME).exists()]
        folders = [path / self.config.relative_model_dir for path in runs if path != self.base_dir]
        checkpoints = [path for folder in folders for path in folder.glob("step-*.ckpt")]
        if not checkpoints:
            return
        last = max(checkpoints, key=lambda path: path.stat().st_mtime)
        step = _step_of(last)
        left = self.config.max_num_iterations - step - 1
        if left > 0:
            text = f"This run starts anew. One that did not end stands at step {step}; to go on there: the same command"
            console.print(f"{text} and {_resume(last.parent, left)}")

    def train(self) -> None:
        """Train; a stop between two steps keeps what was learned."""
        try:
            with self.pipeline.own_threads():
                super().train()
        except KeyboardInterrupt as stop:
            # Before the first step there is nothing to keep, and a checkpoint of step 0 would replace the one that
            # this run resumed from.
            if self.last_taken is not None and self.last_saved != self.last_taken:
                for callback in self.callbacks:  # what follows a step belongs to it, and may be done twice
                    callback.run_callback_at_location(self.last_taken, TrainingCallbackLocation.AFTER_TRAIN_ITERATION)
                self.save_checkpoint(self.last_taken)
            self._end(stop, self._how_to_go_on())

    def _after_train(self) -> None:
        if self.pipeline.relocation is not None:
            self.save_checkpoint(self.step)  # before what may take minutes
            with self.train_lock:
                self.pipeline.relocate(final=True)
        super()._after_train()

    def _end(self, stop: KeyboardInterrupt, line: str) -> NoReturn:
        if self.world_size > 1:
            raise stop  # the host ends its processes together
        if self.is_reported and not isinstance(stop, Terminated):
            raise SystemExit(0)  # the host asks for Ctrl-C to close the viewer
        raise ended_by(stop, line) from None

    def _how_to_go_on(self) -> str:
        if self.is_reported:
            return f"The run had ended; it is in {self.base_dir}"
        if self.last_saved is None:
            return "No checkpoint was written yet: the same command starts again, with the matches that are kept."
        left = self._start_step + self.config.max_num_iterations - self.last_saved - 1
        if left > 0:
            return f"Go on with the same command and {_resume(self.checkpoint_dir, left)}"
        config, output = typed(self.base_dir / "config.yml"), typed(self.base_dir / "eval.json")
        command = f"ns-eval --load-config {config} --output-path {output}"
        return f"Training had ended, its views were not judged yet: {command}"

    def train_iteration(self, step: int) -> TRAIN_INTERATION_OUTPUT:
        """One step, whole: the host counts it before it is taken, a stop must know whether it was."""
        with whole():
            result = super().train_iteration(step)
            self.last_taken = step
        return result

    def _load_checkpoint(self) -> None:
        """Resume where that is asked for; torch reads tensors and numbers alone, whoever wrote the file.

        Raises:
            InputError: no checkpoint lies there, or it is damaged or of other settings.
        """
        try:
            super()._load_checkpoint()
        except _UNREADABLE as error:
            place = self.config.load_checkpoint or self.config.load_dir
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            remedy = "Give the folder nerfstudio_models of a run with the same settings, or an older --load-step."
            raise InputError(f"Cannot resume ({reason})", place, remedy) from error

    @check_main_thread
    def save_checkpoint(self, step: int) -> None:
        """Write ``step-{step}.ckpt`` beside its name first and move it into place; older ones go only then.

        Raises:
            InputError: the disk is full or not writable; the previous checkpoint is untouched.
        """
        path = self.checkpoint_dir / f"step-{step:09d}.ckpt"
        content = {
            "step": step,
            "pipeline": self.pipeline.state_dict(),
            "optimizers": {name: value.state_dict() for name, value in self.optimizers.optimizers.items()},
            "schedulers": {name: value.state_dict() for name, value in self.optimizers.schedulers.items()},
            "scalers": self.grad_scaler.state_dict(),
        }
        try:
            # Half ones outside of the checkpoint folder: the host reads a step number from every name in there.
            write_atomically(path, lambda file: _save(content, file), beside=self.base_dir)
        except InputError as error:
            remedy = f"Free some space. {self._how_to_go_on()}"
            raise InputError(error.problem, path, remedy) from error
        self.last_saved = step
        self._save_stage_zero()
        if self.config.save_only_latest_checkpoint:
            for old in self.checkpoint_dir.glob("*.ckpt"):
                if old != path:
                    old.unlink()


def _step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was written at, as its name says."""
    return int(checkpoint.stem.removeprefix("step-"))


def _resume(folder: Path, steps: int) -> str:
    """The flags that go on from the last checkpoint of a folder, for as many steps as are left."""
    return f"--load-dir {typed(folder)} --max-num-iterations {steps}"


def _save(content: dict, file: object) -> None:
    try:
        torch.save(content, file)  # type: ignore[arg-type]
    except RuntimeError as error:
        # How torch tells that a file took no more.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
