"""ns-train, its checkpoints and its resume."""

import json
import signal
import time
from pathlib import Path

import pytest
import torch
from nerfstudio.scripts import train

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.export.config_file import load_config
from tests.full_disk import bytes_a_file
from tests.host.conftest import TrainedRun
from tests.host.tiny_run import SAVED_STEP, STEPS, TINY_FLAGS, TinyData, command, start, tiny_config


def load(path: Path) -> dict:
    """A checkpoint, as safely as the host and others load it."""
    return torch.load(path, map_location="cpu", weights_only=True)


def test_training_leaves_a_run(trained: TrainedRun) -> None:
    names = {path.name for path in trained.folder.iterdir()}
    assert {"config.yml", "dataparser_transforms.json", "metrics.json", "cameras.png", "test_views"} <= names
    results = json.loads((trained.folder / "metrics.json").read_text())["results"]
    assert results["psnr"] > 8
    assert results["pose_rotation_deg_before"] > 0.3


def test_checkpoints_load_without_trusting_them(trained: TrainedRun) -> None:
    state = load(trained.checkpoints / f"step-{STEPS - 1:09d}.ckpt")
    assert state["step"] == STEPS - 1
    assert state["pipeline"]["_model.camera_optimizer.motion.residual"].abs().max() > 0


def test_thirty_and_thirty_steps_equal_sixty(trained: TrainedRun, tmp_path: Path) -> None:
    config = tiny_config(trained.data.folder, tmp_path, steps=STEPS - 1 - SAVED_STEP)
    config.load_dir, config.load_step = trained.checkpoints, SAVED_STEP
    train.main(config)
    name = f"step-{STEPS - 1:09d}.ckpt"
    straight, resumed = load(trained.checkpoints / name), load(config.get_checkpoint_dir() / name)
    assert straight["pipeline"].keys() == resumed["pipeline"].keys()
    for key, value in straight["pipeline"].items():
        torch.testing.assert_close(resumed["pipeline"][key], value, rtol=0, atol=1e-6, msg=key)
    assert straight["schedulers"] == resumed["schedulers"]


def test_full_disk_keeps_the_last_checkpoint(trained: TrainedRun, tmp_path: Path) -> None:
    config = tiny_config(trained.data.folder, tmp_path, steps=5)
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    trainer.save_checkpoint(3)
    before = (trainer.checkpoint_dir / "step-000000003.ckpt").read_bytes()
    with (
        bytes_a_file(len(before) // 2),
        pytest.raises(InputError, match=r"^Disk full .*step-000000004\.ckpt.*--load-dir"),
    ):
        trainer.save_checkpoint(4)
    assert [path.name for path in trainer.checkpoint_dir.iterdir()] == ["step-000000003.ckpt"]
    assert (trainer.checkpoint_dir / "step-000000003.ckpt").read_bytes() == before
    assert not list(trainer.base_dir.glob(".*.tmp"))


@pytest.fixture(scope="module")
def stopped(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> dict[signal.Signals, Path]:
    """Folders of two runs of ``ns-train`` that were stopped once they had written a checkpoint."""
    root = tmp_path_factory.mktemp("stopped")
    flags = ["--data", str(tiny_data.folder), "--output-dir", str(root), "--vis", "tensorboard", *TINY_FLAGS]
    flags += ["--experiment-name", "stopped", "--steps-per-save", "5", "--max-num-iterations", "1000000"]
    stops = (signal.SIGTERM, signal.SIGKILL)
    runs = {stop: start(command(*flags, "--timestamp", stop.name), root / f"{stop.name}.txt") for stop in stops}
    folders = {stop: root / "stopped" / "craym-lite" / stop.name for stop in stops}
    try:
        for stop, process in runs.items():
            log, deadline = root / f"{stop.name}.txt", time.monotonic() + 240
            while not list(folders[stop].glob("nerfstudio_models/*.ckpt")):
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            process.send_signal(stop)
        for process in runs.values():
            process.wait(60)
    finally:
        for process in runs.values():
            process.kill()
    assert [runs[stop].returncode for stop in stops] == [143, -signal.SIGKILL]
    return folders


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL], ids=["terminate", "kill"])
def test_stopped_training_can_go_on(stop: signal.Signals, stopped: dict[signal.Signals, Path]) -> None:
    folder = stopped[stop]
    if stop == signal.SIGTERM:
        log = (folder.parents[2] / "SIGTERM.txt").read_text()
        (line,) = [line for line in log.splitlines() if "Go on with the same command" in line]
        (last_file,) = folder.glob("nerfstudio_models/*.ckpt")
        left = 999_999 - load(last_file)["step"]
        assert line.endswith(f"--load-dir {last_file.parent} --max-num-iterations {left}")
        assert "Traceback" not in log and "***" not in log
    else:
        (folder / ".step-000000123.ckpt.1-2.tmp").write_bytes(b"a kill may leave half a checkpoint")
    (checkpoint,) = folder.glob("nerfstudio_models/*.ckpt")
    last = load(checkpoint)["step"]
    assert stop == signal.SIGTERM or last % 5 == 0
    config = load_config(folder / "config.yml")
    config.load_dir, config.max_num_iterations = folder / "nerfstudio_models", 2
    config.viewer.quit_on_train_completion = True
    train.main(config)
    assert load(folder / "nerfstudio_models" / f"step-{last + 2:09d}.ckpt")["step"] == last + 2


def test_matches_count_where_no_key_rays_are_rendered(tiny_data: TinyData, tmp_path: Path) -> None:
    config = tiny_config(tiny_data.folder, tmp_path)
    config.pipeline.datamanager.num_key_pairs = 0
    pipeline = config.pipeline.setup(device="cpu", test_mode="val")
    pipeline.craym_model.update_to_step(SAVED_STEP)
    _, losses, _ = pipeline.get_train_loss_dict(SAVED_STEP)
    assert {"photometric", "epipolar"} < losses.keys()
    assert "point_alignment" not in losses
    torch.stack(list(losses.values())).sum().backward()
