"""SIGTERM and Ctrl-C: quiet, whole steps, the shell's exit status; pycolmap leaves no stack trace behind."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from craym_nerfstudio import stops
from craym_nerfstudio.cli.main import main
from craym_nerfstudio.stops import Terminated, at_once, ended_by, heed_stops, load_pycolmap, load_trimesh, whole

BOTH = pytest.mark.parametrize(
    ("number", "kind", "status"), [(signal.SIGINT, KeyboardInterrupt, 130), (signal.SIGTERM, Terminated, 143)]
)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@BOTH
def test_a_stop_is_raised_at_once_and_has_the_status_that_shells_know(
    number: signal.Signals, kind: type, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    heed_stops()
    with pytest.raises(kind) as caught:
        os.kill(os.getpid(), number)
    end = ended_by(caught.value, "Go on.")
    assert end.code == status and "Go on." in capsys.readouterr().out


@BOTH
def test_a_stop_within_a_step_waits_for_its_end(number: signal.Signals, kind: type, status: int) -> None:
    heed_stops()
    done = False
    with pytest.raises(kind), whole():
        os.kill(os.getpid(), number)
        done = True
    assert done
    with whole():  # the stop was raised, once
        pass


def test_a_second_stop_ends_the_step(capsys: pytest.CaptureFixture[str]) -> None:
    heed_stops()
    with pytest.raises(KeyboardInterrupt), whole():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("still running")
    assert signal.getsignal(signal.SIGTERM) == stops._handle


def test_what_a_shell_lets_its_jobs_ignore_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    heed_stops()
    os.kill(os.getpid(), signal.SIGINT)


def test_foreign_code_is_ended_without_delay() -> None:
    heed_stops()
    with at_once():
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == stops._handle


STAND_IN = """
import os, signal
signal.signal(signal.SIGTERM, lambda *_: print("*** stack trace ***", flush=True))
os.kill(os.getpid(), signal.SIGTERM)
"""
"""What pycolmap does when it is imported, and the worst moment for a stop."""


@pytest.mark.parametrize(("heed", "status"), [("heed_stops()", 143), ("pass", -signal.SIGTERM)])
@pytest.mark.parametrize("moment", ["during", "after"])
def test_no_stack_trace_when_pycolmap_is_imported(heed: str, status: int, moment: str, tmp_path: Path) -> None:
    program = f"""
import os, signal, sys
from craym_nerfstudio.stops import *
sys.path.insert(0, {str(tmp_path)!r})
{heed}
try:
    load_pycolmap()
    os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt as stop:
    raise ended_by(stop) from None
"""
    if moment == "during":
        (tmp_path / "pycolmap.py").write_text(STAND_IN)
    # A process of several threads hands the signal to any of them that lets it pass: numpy is to start none.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert ended.returncode == status
    assert ended.stderr == "" and "***" not in ended.stdout


def test_no_stack_trace_when_another_thread_takes_the_stop() -> None:
    """The real pycolmap, at the moment when its handler is in place and ours is not yet back."""
    program = """
import os, signal, sys, threading, time
from craym_nerfstudio.stops import heed_stops, load_pycolmap
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()  # lets every signal pass
heed_stops()

def stop(frame, event, _):
    if event == "call" and frame.f_code.co_name == "import_module_symbols":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)  # the other thread ends the process

sys.setprofile(stop)
load_pycolmap()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGTERM
    assert ended.stderr == "" and ended.stdout == ""


def test_a_stop_while_the_command_line_is_parsed_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("craym_nerfstudio.cli.main.tyro.cli", stopped)
    with pytest.raises(SystemExit) as end:
        main(["report"])
    assert end.value.code == 143


def test_stderr_is_back_after_pycolmap() -> None:
    program = "import sys; from craym_nerfstudio.stops import load_pycolmap; load_pycolmap(); sys.stderr.write('heard')"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stderr == "heard"


def test_pycolmap_comes_through_one_door() -> None:
    """Imported past it, its crash handler would answer SIGTERM with a C++ stack trace."""
    assert load_pycolmap().__name__ == "pycolmap"
    package = Path(stops.__file__).parent
    found = [path for path in package.rglob("*.py") if re.search(r"^\s*import pycolmap", path.read_text(), re.M)]
    assert found == [package / "stops.py"]


def test_a_stop_waits_for_an_import_that_would_swallow_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As trimesh's, which goes on without packages whose import ends in whatever way."""
    (tmp_path / "trimesh.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    swallowed = False\n"
        "except BaseException:\n    swallowed = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "trimesh", raising=False)
    heed_stops()
    try:
        with pytest.raises(KeyboardInterrupt):
            load_trimesh()
        assert sys.modules["trimesh"].swallowed is False
    finally:
        sys.modules.pop("trimesh", None)
