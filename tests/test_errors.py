"""What a user sees of an input error."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from craym_nerfstudio.cli.main import main
from craym_nerfstudio.errors import InputError

SCRIPT = """
from craym_nerfstudio.errors import InputError, show_input_errors
show_input_errors()
show_input_errors()
raise {}
"""


def run(exception: str) -> subprocess.CompletedProcess:
    script = SCRIPT.format(exception)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[1])


def test_one_line_names_problem_file_and_remedy() -> None:
    long_path = "/data/" + "a_long_folder/" * 12 + "transforms.json"
    result = run(f"InputError('Missing [image]', '{long_path}', 'Put it there.')")
    assert result.returncode != 0 and result.stdout == ""
    assert result.stderr == f"Error: Missing [image]: {long_path}. Put it there.\n"


def test_a_crash_has_a_status_of_its_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Python's own, 1, is what `craym preflight` calls repairable."""
    monkeypatch.setattr("craym_nerfstudio.cli.preflight.PreflightCommand.main", lambda _: 1 / 0)
    with pytest.raises(SystemExit) as end:
        main(["preflight", "--data", "scene", "--output", "out"])
    assert end.value.code == 70 and "ZeroDivisionError" in capsys.readouterr().err


def test_a_full_gpu_is_one_line_with_the_flags_that_help() -> None:
    error = "type('OutOfMemoryError', (RuntimeError,), {})"
    result = run(f"{error}('CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 4 GiB')")
    assert result.returncode != 0
    assert result.stderr.startswith("Error: CUDA out of memory. ") and result.stderr.count("\n") == 1
    for flag in ("train-num-rays-per-batch", "eval-num-rays-per-chunk", "viewer.num-rays-per-chunk"):
        assert flag in result.stderr
    assert torch.OutOfMemoryError.__name__ == "OutOfMemoryError"


def test_other_errors_keep_their_traceback() -> None:
    result = run("ValueError('a bug')")
    assert result.returncode != 0
    assert "Traceback" in result.stderr and result.stderr.endswith("ValueError: a bug\n")


def test_errors_travel_between_processes() -> None:
    error = InputError("Missing image", Path("a.png"), "Put it there.")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "Missing image: a.png. Put it there."
