"""Steps that are replayed compute what plain steps compute.

A GPU is stood in for: what was recorded is done again with everything that Python knows of a step as it was then, its
number, its seeds, so that only clock, generators and parameters tell one replay from another, as on a GPU.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from craym_nerfstudio import recording
from craym_nerfstudio.data.datamanager import CraymDataManager
from craym_nerfstudio.data.grey_photos import GreyPhotos
from craym_nerfstudio.data.image_store import ImageStore
from craym_nerfstudio.pipeline import CraymPipeline
from craym_nerfstudio.recording import StepRecorder
from craym_nerfstudio.rendering import renderer
from craym_nerfstudio.rendering.sections import roomy_sections
from craym_nerfstudio.schedules import StepGenerator
from tests.host.tiny_run import TinyData, tiny_config

STEPS = 44
"""Photos are compared from 6 on, two levels fade in until 20, poses wait until 16, the ramp of L_a begins at 22."""


class Replayed:
    """In place of CUDA's graphs."""

    def __init__(self, pipeline: CraymPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pipeline, self.model, self.replays, self.recordings = pipeline, pipeline.craym_model, 0, 0
        self.recording, seeded = False, StepGenerator.at

        def at(source: StepGenerator, seed: int, device: torch.device) -> torch.Generator:
            if self.recording:
                return source._generator
            return seeded(source, seed, device)

        monkeypatch.setattr(StepGenerator, "at", at)
        monkeypatch.setattr(recording, "capture", self.capture)

    def capture(self, work: Callable[[], Any], generators: list[torch.Generator]) -> tuple[Callable[[], None], Any]:
        clock, number = self.model.clock, self.model.step
        assert len(generators) == 2
        assert clock is not None

        def again() -> Any:
            step, self.model.clock, self.model.step, self.recording = self.model.step, clock, number, True
            try:
                with torch.enable_grad():
                    return work()
            finally:
                self.model.clock, self.model.step, self.recording = None, step, False

        def replay() -> None:
            self.replays += 1
            for kept, value in zip(leaves(result), leaves(again()), strict=True):
                kept.copy_(value.detach())

        self.recordings += 1
        result = again()
        for kept in leaves(result):  # a recording computes nothing
            kept.fill_(torch.nan)
        return replay, result


def leaves(result: tuple) -> list[Tensor]:
    """All tensors of what a step left behind."""
    taken, gradients = result
    return [*taken.outputs.values(), *taken.losses.values(), *(g for g in gradients if g is not None)]


Background = Literal["color", "field"]


def trained(
    data: TinyData,
    output: Path,
    device: str,
    recorder: Callable[[CraymPipeline], Any],
    background: Background = "color",
) -> dict[str, Tensor]:
    """Losses by step, and the parameters at the end."""
    config = tiny_config(data.folder, output, STEPS)
    config.pipeline.model.background = background
    config.fit_schedules()
    # Stage 0 has found nothing here: poses wait as if it had.
    config.pipeline.model.camera_optimizer.settled_delay_steps = 16
    config.pipeline.model.point_alignment_steps = (22, 40)
    config.pipeline.model.consistency_steps = (5, 30)
    config.pipeline.model.start_levels, config.pipeline.model.steps_per_level = 2, 10
    torch.manual_seed(0)
    pipeline = config.pipeline.setup(device=device, test_mode="val")
    model = pipeline.craym_model
    model.camera_optimizer.any_settled = True
    manager, around = pipeline.datamanager, torch.arange(1, 9)
    neighbours = (torch.arange(len(manager.train_dataset))[:, None] + around) % len(manager.train_dataset)
    model.photos = GreyPhotos(manager.train_images(), manager.train_dataset.cameras, neighbours.to(device))
    pipeline.__dict__["_recorder"] = recorder(pipeline)
    optimizer, found = torch.optim.SGD(model.parameters(), lr=1e-3), {}
    for step in range(STEPS):
        model.update_to_step(step)
        optimizer.zero_grad()
        _, losses, _ = pipeline.get_train_loss_dict(step)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        found |= {f"{name} {step}": value.detach().clone() for name, value in losses.items()}
    return found | {name: value.detach() for name, value in model.named_parameters()}


def assert_agree(replayed: dict[str, Tensor], plain: dict[str, Tensor], **within: float) -> None:
    """All numbers agree; a patch more or less of the few that are compared may have been taken for a wrong one."""
    compared = [name for name in plain if name.startswith("consistency")]
    close = [torch.allclose(replayed[name], plain[name], **within) for name in compared]
    assert len(compared) > STEPS // 2
    assert sum(close) > 0.8 * len(close)
    for name in plain.keys() - compared:
        torch.testing.assert_close(replayed[name], plain[name], **within, msg=lambda text, n=name: f"{n}: {text}")


def plainly(_: CraymPipeline) -> None:
    """No recorder."""


@pytest.fixture
def like_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU evaluates active sections alone and walks over its pixels; here it does as a GPU."""
    monkeypatch.setattr(renderer, "active_sections", partial(roomy_sections, share=0.75))
    training_batch = CraymDataManager._training_batch

    def drawn(self: CraymDataManager, images: ImageStore, step: int, generator: torch.Generator) -> Any:
        monkeypatch.setattr(images, "next_pixels", lambda first, count: images.random_pixels(count, generator))
        return training_batch(self, images, step, generator)

    monkeypatch.setattr(CraymDataManager, "_training_batch", drawn)


@pytest.mark.usefixtures("like_a_gpu")
@pytest.mark.parametrize("background", ["color", "field"])
def test_replayed_steps_are_plain_steps(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: Background
) -> None:
    stand_ins = []

    def replaying(pipeline: CraymPipeline) -> StepRecorder:
        stand_ins.append(Replayed(pipeline, monkeypatch))
        return StepRecorder(pipeline.craym_model, pipeline)

    plain = trained(tiny_data, tmp_path / "plain", "cpu", plainly, background)
    replayed = trained(tiny_data, tmp_path / "replayed", "cpu", replaying, background)
    assert stand_ins[0].recordings == 6
    assert stand_ins[0].replays > STEPS // 2
    assert plain.keys() == replayed.keys()
    assert_agree(replayed, plain, rtol=2e-3, atol=2e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("background", ["color", "field"])
def test_a_card_replays_what_it_computes_plainly(tiny_data: TinyData, tmp_path: Path, background: Background) -> None:
    """Sums by atomic additions differ from run to run, and a field of a few steps carries that on."""
    recorders = []

    def replaying(pipeline: CraymPipeline) -> StepRecorder:
        recorders.append(StepRecorder(pipeline.craym_model, pipeline))
        return recorders[0]

    plain = trained(tiny_data, tmp_path / "plain", "cuda", plainly, background)
    replayed = trained(tiny_data, tmp_path / "replayed", "cuda", replaying, background)
    assert recorders[0].replays
    assert_agree(replayed, plain, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("switch", ["enrichment", "coherency"])
def test_the_viewers_switches_begin_a_phase(tiny_data: TinyData, tmp_path: Path, switch: str) -> None:
    model = tiny_config(tiny_data.folder, tmp_path).pipeline.setup(device="cpu", test_mode="val").craym_model
    before = model.phase
    setattr(model.config, switch, False)
    assert model.phase != before


def test_steps_that_cannot_be_recorded_are_taken_plainly(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pipeline = tiny_config(tiny_data.folder, tmp_path, STEPS).pipeline.setup(device="cpu", test_mode="val")

    def refused(*_: object) -> None:
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(recording, "capture", refused)
    recorder, before = StepRecorder(pipeline.craym_model, pipeline), pipeline.generators(0)
    for step in range(4):
        pipeline.craym_model.update_to_step(step)
        assert all(loss.requires_grad for loss in recorder.take(step).losses.values())
    assert pipeline.craym_model.clock is None
    # On a GPU, generators that a recording broke off with refuse to draw.
    assert not any(new is old for new, old in zip(pipeline.generators(0), before, strict=True))
    assert capsys.readouterr().err.count("not permitted") + capsys.readouterr().out.count("not permitted") <= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_card_goes_on_where_a_recording_fails(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    recorders, compute = [], CraymPipeline.compute

    def asking(pipeline: CraymPipeline, step: int) -> Any:
        taken = compute(pipeline, step)
        if torch.cuda.is_current_stream_capturing():
            taken.outputs["rgb"].sum().item()
        return taken

    def replaying(pipeline: CraymPipeline) -> StepRecorder:
        recorders.append(StepRecorder(pipeline.craym_model, pipeline))
        return recorders[0]

    plain = trained(tiny_data, tmp_path / "plain", "cuda", plainly)
    monkeypatch.setattr(CraymPipeline, "compute", asking)
    failed = trained(tiny_data, tmp_path / "failed", "cuda", replaying)
    assert recorders[0].failure is not None and "previous error" not in str(recorders[0].failure)
    assert_agree(failed, plain, rtol=2e-2, atol=1e-3)
