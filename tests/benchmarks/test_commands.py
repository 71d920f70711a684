"""What holds for the commands of all benchmarks."""

import importlib
import re
import shlex
import sys
import warnings
from pathlib import Path

import pytest

import benchmarks
from benchmarks.harness import command

FILES = sorted(Path(__file__).parents[2].joinpath("benchmarks").glob("*.py"))
COMMANDS = [path for path in FILES if "argparse.ArgumentParser(" in path.read_text()]


def test_warnings_of_others_stay_out_of_the_terminal() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        importlib.reload(benchmarks)
        warnings.warn_explicit("deprecated", FutureWarning, "_script.py", 1, module="torch.jit._script")
        warnings.warn_explicit("ours", UserWarning, "run.py", 1, module="benchmarks.run")
    assert [str(each.message) for each in seen] == ["ours"]


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_help_shows_the_command_as_it_is_typed(path: Path) -> None:
    """A line of its own in the docstring, which argparse must not wrap into the text."""
    text = path.read_text()
    assert re.search(rf"^    .*python -m benchmarks\.{path.stem}\b", text, re.MULTILINE)
    assert "formatter_class=argparse.RawDescriptionHelpFormatter" in text


def test_the_command_beside_figures_can_be_typed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words with blanks are quoted; folders of this machine are not told."""
    words = ["--data-root", "/here/data", "--only", "OpenCV axes", "still_life=/here/outputs/run", "--output=a.json"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words])
    told = ["--data-root", "DATA", "--only", "OpenCV axes", "still_life=RUN", "--output=a.json"]
    assert shlex.split(command())[3:] == told
