"""One tiny dataset and one trained run for all host tests."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.scripts import train
from nerfstudio.utils import writer

from tests.host.tiny_run import TinyData, tiny_config, write_tiny_data


@dataclass(frozen=True)
class TrainedRun:
    """What ``ns-train`` left behind."""

    data: TinyData
    config: TrainerConfig
    folder: Path

    @property
    def config_path(self) -> Path:
        """What the host's commands take as --load-config."""
        return self.folder / "config.yml"

    @property
    def checkpoints(self) -> Path:
        """What it takes as --load-dir."""
        return self.folder / "nerfstudio_models"


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> TinyData:
    return write_tiny_data(tmp_path_factory.mktemp("tiny_data"))


@pytest.fixture(scope="session")
def trained(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """60 steps through the host's own entry point."""
    config = tiny_config(tiny_data.folder, tmp_path_factory.mktemp("runs"))
    train.main(config)
    return TrainedRun(tiny_data, config, config.get_base_dir())


@pytest.fixture(autouse=True)
def no_event_writers() -> Iterator[None]:
    """The host keeps its log files open in a module's global list."""
    yield
    writer.EVENT_WRITERS.clear()
