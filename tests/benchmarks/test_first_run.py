"""The first run on a GPU, rehearsed: it stops where going on would waste the card's time."""

import time
from pathlib import Path

import pytest
import torch

from benchmarks import first_run_parts
from benchmarks.first_run import nothing_is_searched
from benchmarks.first_run_parts import Session, StopRun, correct
from craym_nerfstudio.matching import find
from craym_nerfstudio.sfm import adjust


def rehearsal(tmp_path: Path) -> Session:
    """A session on the CPU."""
    return Session(tmp_path, tmp_path, torch.device("cpu"), True, 0, time.monotonic() + 60)


def test_wrong_kernels_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < correct(rehearsal(tmp_path))["worst"] < 1e-5
    monkeypatch.setattr(first_run_parts, "MOST_ERROR", 1e-9)
    session = rehearsal(tmp_path)
    with pytest.raises(StopRun, match="wrong by"):
        correct(session)
    assert session.found["errors"]["worst"] > 1e-9


def test_what_the_folder_lacks_is_not_searched_for() -> None:
    with nothing_is_searched():
        for search in (find.all_features, adjust.adjust_rays):
            with pytest.raises(StopRun, match="prepare it again"):
                search()
