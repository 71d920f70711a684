"""Kernels are loaded once, whoever asks."""

import importlib
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from craym_nerfstudio.kernels.loader import load_kernels

MODULE = """
from types import SimpleNamespace
work = SimpleNamespace(stats=SimpleNamespace(cache_path={cache!r}))
"""


def test_two_threads_at_once_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "slow_kernels.py").write_text(MODULE.format(cache=str(tmp_path / "cache")))
    monkeypatch.syspath_prepend(tmp_path)
    both, load = threading.Barrier(2, timeout=10), importlib.import_module

    def import_module(name: str):
        found = load(name)
        with suppress(threading.BrokenBarrierError):  # passed at once by two threads that import, and by nobody else
            both.wait(0.2)
        return found

    monkeypatch.setattr(importlib, "import_module", import_module)
    found: list = []
    ask = [threading.Thread(target=lambda: found.append(load_kernels("slow_kernels", "work", "Test"))) for _ in "ab"]
    for thread in ask:
        thread.start()
    for thread in ask:
        thread.join()
    assert found[0] is found[1]
    assert capsys.readouterr().out.count("Test: compiling the CPU kernels") == 1
