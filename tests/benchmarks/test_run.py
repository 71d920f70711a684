"""The runner of the benchmarks: nothing is repeated, nothing is lost, failures are recorded."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from benchmarks.run import claimed, run_all, status
from benchmarks.suite import METHODS, MISSING, PAUSED, TABLES, Cell, cells

CELLS = [Cell("shipped", "lego_400", "barf", method) for method in ("held", "stage0", "craym")]
FINISH = "import json,sys; json.dump({'status': 'finished', 'result': {'psnr': 30.0}}, open(sys.argv[1], 'w'))"


class Launcher:
    """Starts a small program instead of a measurement, and counts."""

    def __init__(self, programs: dict[str, str] | None = None) -> None:
        self.programs = programs or {}
        self.started: list[str] = []

    def __call__(self, cell: Cell, output: Path, seconds: float) -> list[str]:
        self.started.append(cell.method)
        return [sys.executable, "-S", "-c", self.programs.get(cell.method, FINISH), str(output)]


def fill(tmp_path: Path, launch: Launcher, **options: bool) -> None:
    """All three cells."""
    run_all(CELLS, tmp_path / "results", tmp_path / "work", launch, time.monotonic() + 60.0, **options)


def record(tmp_path: Path, number: int) -> dict:
    """What was recorded of a cell."""
    return json.loads((tmp_path / "results" / CELLS[number].path).read_text())


def test_finished_cells_are_not_repeated(tmp_path: Path) -> None:
    first, second = Launcher(), Launcher()
    fill(tmp_path, first)
    fill(tmp_path, second)
    assert first.started == ["held", "stage0", "craym"]
    assert second.started == []
    found = record(tmp_path, 0)
    assert found["command"] == "python -m benchmarks.run shipped --size shipped --only shipped-lego_400-barf-held-seed0"
    assert found["status"] == "finished" and found["result"] == {"psnr": 30.0} and found["seed"] == 0
    assert found["seconds"] >= 0 and len(found["commit"]) >= 40


def test_a_failed_cell_is_recorded_and_repeated_only_on_request(tmp_path: Path) -> None:
    failing = Launcher({"stage0": "raise SystemExit('no matches at all')"})
    fill(tmp_path, failing)
    fill(tmp_path, failing)
    assert failing.started == ["held", "stage0", "craym"]
    assert record(tmp_path, 1)["reason"] == "exit status 1; last output: no matches at all"
    again = Launcher()
    fill(tmp_path, again, retry_failed=True)
    assert again.started == ["stage0"] and record(tmp_path, 1)["status"] == "finished"


def test_a_killed_process_is_recorded_as_failed(tmp_path: Path) -> None:
    fill(tmp_path, Launcher({"held": "import os; os.kill(os.getpid(), 9)"}))
    assert record(tmp_path, 0)["status"] == "failed"
    assert record(tmp_path, 0)["reason"].startswith("killed by SIGKILL")
    assert record(tmp_path, 1)["status"] == "finished"


@pytest.mark.parametrize("code", [PAUSED, MISSING])
def test_paused_and_missing_are_no_results(tmp_path: Path, code: int) -> None:
    launch = Launcher({"stage0": f"raise SystemExit({code})"})
    fill(tmp_path, launch)
    fill(tmp_path, launch)
    assert launch.started == ["held", "stage0", "craym", "stage0"]
    assert status(tmp_path / "results" / CELLS[1].path) == "not run"


def test_nothing_starts_after_the_deadline(tmp_path: Path) -> None:
    launch = Launcher()
    run_all(CELLS, tmp_path / "results", tmp_path / "work", launch, time.monotonic() - 1.0)
    assert launch.started == []


def test_two_runners_take_different_cells(tmp_path: Path) -> None:
    launch = Launcher()
    with claimed(tmp_path / "work" / "locks" / f"shipped-{CELLS[0].name}") as mine:
        assert mine
        fill(tmp_path, launch)
    assert launch.started == ["stage0", "craym"]


def test_a_killed_runner_takes_its_cell_along_and_resumes(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from benchmarks.run import run_all; "
        "from tests.benchmarks import test_run as t; "
        "t.run_all(t.CELLS, Path(sys.argv[1]) / 'results', Path(sys.argv[1]) / 'work', "
        "t.Launcher({'stage0': sys.argv[2]}), time.monotonic() + 60)"
    )
    slow = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    command = [sys.executable, "-c", program, str(tmp_path), slow]
    # Tests that a shell started in the background inherit that Ctrl-C is ignored.
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    root = Path(__file__).parents[2]
    runner = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, preexec_fn=listening)
    for _ in range(600):
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            break
        time.sleep(0.05)
    runner.send_signal(signal.SIGINT)
    runner.wait(timeout=20)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    again = Launcher()
    fill(tmp_path, again)
    assert again.started == ["stage0", "craym"]


@pytest.mark.parametrize("table", TABLES)
def test_cells_have_names_of_their_own(table: str) -> None:
    found = cells(table)
    assert len({cell.name for cell in found}) == len(found) > 0
    assert all(cell.method in METHODS for cell in found)


def test_the_first_seed_of_everything_comes_first() -> None:
    seeds = [cell.seed for cell in cells("shipped")]
    assert seeds == sorted(seeds) and set(seeds) == {0, 1, 2}
