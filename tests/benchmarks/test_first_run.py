"""The first run on a GPU, rehearsed: it stops where going on would waste the card's time."""

import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import first_run_parts
from benchmarks.first_run import nothing_is_searched, run
from benchmarks.first_run_parts import MOST_ERROR, Session, StopRun, correct
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.fields.encoding import HashEncoding
from craym_nerfstudio.matching import find
from craym_nerfstudio.sfm import second_look


def rehearsal(tmp_path: Path) -> Session:
    """A session on the CPU."""
    return Session(tmp_path, tmp_path, torch.device("cpu"), True, 0, time.monotonic() + 60)


def test_wrong_kernels_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worst = correct(rehearsal(tmp_path))["worst"]
    assert all(0 < error < 0.05 * MOST_ERROR[name] for name, error in worst.items())
    # A kernel that forgets the factor of the level that fades in.
    found = first_run_parts._results

    def forgetful(encoding: HashEncoding, x: Tensor, weights: list[float]) -> list[Tensor]:
        exact = encoding.requested == "torch"
        return found(encoding, x, weights if exact else [float(weight > 0) for weight in weights])

    monkeypatch.setattr(first_run_parts, "_results", forgetful)
    session = rehearsal(tmp_path)
    with pytest.raises(StopRun, match="wrong: features by"):
        correct(session)
    assert session.found["errors"]


def test_what_the_folder_lacks_is_not_searched_for() -> None:
    with nothing_is_searched():
        for search in (find.all_features, second_look.adjust_twice):
            with pytest.raises(StopRun, match="prepare it again"):
                search()


def test_no_gpu_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"No CUDA device .* --device cpu"):
        run(Namespace(device="cuda", output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
