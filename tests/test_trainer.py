"""Checkpoints on small stand-ins: atomic, safe to load, kept when writing fails or training is interrupted."""

import errno
import warnings
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nerfstudio.engine.trainer import Trainer

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.methods import craym_cpu, craym_lite
from craym_nerfstudio.model import CraymModelConfig
from craym_nerfstudio.trainer import SCHEDULED, CraymTrainer


def small_trainer(folder: Path, only_latest: bool = True) -> CraymTrainer:
    """A trainer of one linear layer, without a pipeline of nerfstudio."""
    trainer = CraymTrainer.__new__(CraymTrainer)
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(layer.parameters())
    trainer.config = SimpleNamespace(save_only_latest_checkpoint=only_latest, max_num_iterations=1000)  # type: ignore[assignment]
    trainer._start_step, trainer.world_size, trainer.callbacks = 0, 1, []
    trainer.base_dir, trainer.checkpoint_dir = folder, folder / "nerfstudio_models"
    layer.own_threads, layer.stage_zero, layer.relocation = nullcontext, None, None  # type: ignore[assignment]
    trainer.pipeline = layer  # type: ignore[assignment]
    schedulers = {"fields": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)}
    trainer.optimizers = SimpleNamespace(optimizers={"fields": optimizer}, schedulers=schedulers)  # type: ignore[assignment]
    trainer.grad_scaler = torch.amp.GradScaler("cpu", enabled=False)  # type: ignore[assignment]
    trainer.training_state = "training"
    return trainer


def saved(trainer: CraymTrainer) -> list[str]:
    """Names of the checkpoints that exist."""
    return sorted(path.name for path in trainer.checkpoint_dir.iterdir())


def fail_with(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let writing end half-way."""

    def save(content: Any, file: Any) -> None:
        file.write(b"half a checkpoint")
        raise error

    monkeypatch.setattr(torch, "save", save)


def test_checkpoint_holds_what_the_host_loads(tmp_path: Path) -> None:
    trainer = small_trainer(tmp_path)
    trainer.save_checkpoint(7)
    (path,) = trainer.checkpoint_dir.iterdir()
    assert path.name == "step-000000007.ckpt"
    content = torch.load(path, weights_only=True)
    assert content.keys() == {"step", "pipeline", "optimizers", "schedulers", "scalers"}
    assert content["step"] == 7
    torch.testing.assert_close(content["pipeline"]["weight"], trainer.pipeline.weight.data)  # type: ignore[operator]


@pytest.mark.parametrize(("only_latest", "left"), [(True, [9]), (False, [7, 9])])
def test_older_checkpoints_go_when_asked(tmp_path: Path, only_latest: bool, left: list[int]) -> None:
    trainer = small_trainer(tmp_path, only_latest)
    trainer.save_checkpoint(7)
    trainer.save_checkpoint(9)
    assert saved(trainer) == [f"step-{step:09d}.ckpt" for step in left]
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "Disk full"),
        (RuntimeError("PytorchStreamWriter failed writing file"), "Disk full"),
        (OSError(errno.EIO, "Input/output error"), r"Cannot write \(Input/output error\)"),
    ],
)
def test_failed_writing_keeps_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    trainer = small_trainer(tmp_path)
    trainer.save_checkpoint(7)
    fail_with(monkeypatch, error)
    with pytest.raises(InputError, match=rf"{reason}.*step-000000009\.ckpt.*space.*--max-num-iterations 992"):
        trainer.save_checkpoint(9)
    assert saved(trainer) == ["step-000000007.ckpt"]
    assert not list(tmp_path.glob(".*.tmp"))


def interrupt(trainer: CraymTrainer, monkeypatch: pytest.MonkeyPatch, steps: int, status: int = 130) -> None:
    """Take steps 100, 101... and press Ctrl-C within the next one."""

    def train(self: Trainer) -> None:
        for step in range(100, 100 + steps):
            self.train_iteration(step)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "train_iteration", lambda self, step: (None, {}, {}))
    monkeypatch.setattr(Trainer, "train", train)
    with pytest.raises(SystemExit) as ended:
        trainer.train()
    assert ended.value.code == status


def test_interrupt_saves_the_last_step_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = small_trainer(tmp_path)
    interrupt(trainer, monkeypatch, steps=3)
    assert saved(trainer) == ["step-000000102.ckpt"]
    assert f"--load-dir {tmp_path}/nerfstudio_models --max-num-iterations 897" in capsys.readouterr().out


def test_interrupt_before_the_first_step_leaves_the_checkpoint_it_resumed_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = small_trainer(tmp_path)
    trainer.save_checkpoint(99)
    interrupt(trainer, monkeypatch, steps=0)
    assert saved(trainer) == ["step-000000099.ckpt"]


def test_closing_the_viewer_after_training_is_no_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = small_trainer(tmp_path)
    trainer.is_reported = True
    interrupt(trainer, monkeypatch, steps=1, status=0)
    assert "--load-dir" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        ("", "max_num_iterations", 0),
        ("pipeline", "test_pose_steps", -5),
        ("pipeline.datamanager", "train_num_rays_per_batch", 0),
        ("pipeline.model", "eval_num_rays_per_chunk", 0),
        ("pipeline.model", "ssim_loss_mult", -1.0),
    ],
)
def test_numbers_of_which_nothing_comes_are_refused_before_any_work(place: str, name: str, value: float):
    config = deepcopy(craym_lite.config)
    setattr(attrgetter(place)(config) if place else config, name, value)
    with pytest.raises(InputError, match=f"{name.replace('_', '-')} is {value}"):
        config.setup(local_rank=0, world_size=1)


def test_schedules_are_as_long_as_the_training():
    """Halved training, halved schedules, wherever they stand; and only once."""
    config = deepcopy(craym_lite.config)
    long = deepcopy(config)
    config.max_num_iterations //= 2
    config.fit_schedules()
    config.fit_schedules()
    model, before = config.pipeline.model, long.pipeline.model
    for name in ("steps_per_level", "surface_interval_steps", "landmark_steps"):
        assert getattr(model, name) == round(getattr(before, name) / 2)
    assert model.point_alignment_steps == tuple(round(steps / 2) for steps in before.point_alignment_steps)
    assert model.camera_optimizer.settled_delay_steps == round(before.camera_optimizer.settled_delay_steps / 2)
    for name, group in config.optimizers.items():
        assert group["scheduler"].max_steps == config.max_num_iterations
        assert group["scheduler"].warmup_steps == round(long.optimizers[name]["scheduler"].warmup_steps / 2)


def test_the_longer_preset_has_the_short_ones_schedules_at_its_own_length():
    short, config = craym_lite.config.pipeline.model, deepcopy(craym_cpu.config)
    times = config.max_num_iterations / craym_lite.config.max_num_iterations
    config.fit_schedules()  # as `setup` does: nothing is left to scale
    assert config.pipeline.model.consistency_steps == tuple(round(times * each) for each in short.consistency_steps)
    assert {group["scheduler"].max_steps for group in config.optimizers.values()} == {config.max_num_iterations}
    assert craym_lite.config.pipeline.datamanager.dataparser.max_image_size_px == 400


def test_every_step_count_of_the_model_is_scaled():
    counted = {item.name for item in fields(CraymModelConfig) if "steps" in item.name}
    assert counted - {"grid_refresh_steps"} == set(SCHEDULED)


def test_a_stop_after_the_last_step_tells_how_to_judge_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = small_trainer(tmp_path)
    trainer.config.max_num_iterations = 103
    interrupt(trainer, monkeypatch, steps=3)
    assert saved(trainer) == ["step-000000102.ckpt"]
    assert f"ns-eval --load-config {tmp_path}/config.yml" in capsys.readouterr().out


class Payload:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_a_checkpoint_from_a_stranger_runs_nothing(tmp_path: Path) -> None:
    trainer = small_trainer(tmp_path)
    trainer.checkpoint_dir.mkdir()
    torch.save({"step": 1, "pipeline": Payload(tmp_path / "pwned")}, trainer.checkpoint_dir / "step-000000001.ckpt")
    trainer.config.load_dir, trainer.config.load_checkpoint = trainer.checkpoint_dir, None
    trainer.config.load_step = None
    with pytest.raises(InputError, match=r"Cannot resume \(Weights only load failed"):
        trainer._load_checkpoint()
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [None, b"", b"PK half a checkpoint"])
def test_resuming_from_half_or_no_checkpoint_is_an_input_error(tmp_path: Path, content: bytes | None) -> None:
    trainer = small_trainer(tmp_path)
    trainer.checkpoint_dir.mkdir()
    if content is not None:
        (trainer.checkpoint_dir / "step-000000001.ckpt").write_bytes(content)
    trainer.config.load_dir, trainer.config.load_checkpoint = trainer.checkpoint_dir, None
    trainer.config.load_step = None
    with pytest.raises(InputError, match="Cannot resume"):
        trainer._load_checkpoint()


def test_the_last_run_that_did_not_end_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, ended in (("old", False), ("ended", True)):
        other = small_trainer(tmp_path / name)
        other.save_checkpoint(7)
        if ended:
            (tmp_path / name / "metrics.json").write_text("{}")
    trainer = small_trainer(tmp_path / "new")
    trainer.config.relative_model_dir = Path("nerfstudio_models/")  # type: ignore[misc]
    trainer._mention_unfinished()
    told = capsys.readouterr().out
    assert f"step 7; to go on there: the same command and --load-dir {tmp_path}/old/nerfstudio_models" in told
    assert told.endswith("--max-num-iterations 992\n")


def test_the_hosts_trainer_is_set_up_without_warnings_of_others() -> None:
    """It is built before the pipeline, and calls what torch has deprecated."""

    def build(config: Any, **_: Any) -> str:
        warnings.warn_explicit("deprecated", FutureWarning, "trainer.py", 137, module="nerfstudio.engine.trainer")
        return "trainer"

    config = deepcopy(craym_lite.config)
    config._target = build  # type: ignore[assignment]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert config.setup() == "trainer"
    assert seen == []


def test_more_processes_than_gpus_are_refused_before_they_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    config = deepcopy(craym_lite.config)
    config.machine.num_devices = 2
    with pytest.raises(InputError, match=r"--machine.num-devices 2 .* there are 1"):
        config.print_to_terminal()


def test_the_viewer_waits_for_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It draws in a thread of its own, under the lock, and puts the model back into training when it is done."""
    trainer = small_trainer(tmp_path)
    trainer.train_lock, held = Lock(), []
    monkeypatch.setattr("craym_nerfstudio.trainer.report_training", lambda *_: held.append(trainer.train_lock.locked()))
    trainer._report(0)
    assert held == [True] and not trainer.train_lock.locked() and trainer.is_reported
