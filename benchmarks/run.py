"""Fill tables: one process and one JSON file per cell; what is there is not repeated.

    export OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1
    python -m benchmarks.run shipped --data-root ../shared/data
    python -m benchmarks.run ablation --only '*lego*' --minutes 30

The most informative cells come first. A cell that fails is recorded with its reason and left alone until
``--retry-failed``. When ``--minutes`` are over, or on Ctrl-C, the running cell is not recorded; a training that ran out
of minutes keeps its state and goes on the next time. Two of these may run side by side: they do not take the same cell.
"""

import argparse
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

from benchmarks.suite import DATA, MISSING, PAUSED, RESULTS, ROOT, SIZES, TABLES, Cell, cells, running_commit
from craym_nerfstudio.storage import write_json

GRACE_S = 100.0
"""A cell that does not stop by itself so long after its time is stopped."""
SHOWN = ("pose_rotation_deg", "pose_translation_x100", "psnr")
Launch = Callable[[Cell, Path, float], list[str]]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--size", choices=SIZES, default="shipped")
    parser.add_argument("--device", default="", help="by default cuda where there is one")
    parser.add_argument("--only", default="*", help="cells whose name matches; several patterns with commas")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--data-root", type=Path, default=DATA)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "benchmarks", help="scenes, caches, states")
    parser.add_argument("--retry-failed", action="store_true")
    parser.add_argument("--list", action="store_true", help="tell which cells are there, run none")
    args = parser.parse_args()
    patterns = args.only.split(",")
    chosen = [cell for cell in cells(args.table, args.size) if any(fnmatch(cell.name, each) for each in patterns)]
    if args.list:
        for cell in chosen:
            print(f"{status(args.results / cell.path):9} {cell.name}")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def launch(cell: Cell, output: Path, seconds: float) -> list[str]:
        # What one commit has trained, another must not go on with.
        state = args.work / "state" / running_commit() / cell.path.with_suffix(".ckpt")
        task = {"cell": asdict(cell), "data_root": args.data_root, "work": args.work, "state": state}
        task |= {"output": output, "device": args.device, "seconds": seconds}
        return [sys.executable, "-m", "benchmarks.cells", json.dumps(task, default=str)]

    run_all(chosen, args.results, args.work, launch, time.monotonic() + 60 * args.minutes, args.retry_failed)


def status(path: Path) -> str:
    """`finished`, `failed` or `not run`."""
    return json.loads(path.read_text())["status"] if path.exists() else "not run"


def run_all(
    chosen: list[Cell], results: Path, work: Path, launch: Launch, deadline: float, retry_failed: bool = False
) -> None:
    """Fill the cells that are not filled yet, until the deadline."""
    done = ("finished",) if retry_failed else ("finished", "failed")
    for number, cell in enumerate(chosen, 1):
        path = results / cell.path
        with claimed(work / "locks" / f"{cell.table}-{cell.name}") as mine:
            if not mine or status(path) in done:
                continue
            if time.monotonic() >= deadline:
                print("out of time", flush=True)
                return
            outcome = fill(cell, path, work, launch, deadline)
        print(f"[{number}/{len(chosen)}] {cell.table} {cell.name}: {outcome}", flush=True)


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process, and no other, may take a cell; a process that dies gives it back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def fill(cell: Cell, path: Path, work: Path, launch: Launch, deadline: float) -> str:
    """Run one cell in a process of its own and record what became of it; one line for the log."""
    output, log = work / "output" / cell.path, (work / "logs" / cell.path).with_suffix(".log")
    for place in (output, log):
        place.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
    command = launch(cell, output, deadline - time.monotonic())
    start, started, commit = time.monotonic(), datetime.now(UTC), running_commit()
    with log.open("a") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True)
        code = _wait(process, deadline + GRACE_S)
    if code == MISSING:
        return "skipped: the scene is not on this machine"
    if code in (PAUSED, None):
        return "not finished in time, goes on the next time"
    content = _outcome(output, code, log)
    output.unlink(missing_ok=True)
    seconds = round(time.monotonic() - start, 1)
    repeat = f"python -m benchmarks.run {cell.table} --size {cell.size} --only {cell.name}"
    told = {"command": repeat, "commit": commit, "started": started.isoformat(timespec="seconds")}
    write_json(path, {**asdict(cell), **told, "seconds": seconds, **content})
    figures = {name: value for name, value in content.get("result", {}).items() if name in SHOWN}
    return f"{content['status']} in {seconds:.0f} s: {content.get('reason') or figures}"


def _wait(process: subprocess.Popen, limit: float) -> int | None:
    """Exit code; None for a process that had to be stopped."""
    try:
        return process.wait(None if limit == float("inf") else max(0.0, limit - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None
    finally:
        # Nothing that it has started may outlast it, or this process.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _outcome(output: Path, code: int, log: Path) -> dict:
    if output.exists():
        return json.loads(output.read_text())
    last = (log.read_text(errors="replace").strip().splitlines() or [""])[-1][:300]
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    return {"status": "failed", "reason": f"{how}; last output: {last}"}


if __name__ == "__main__":
    main()
