"""Fill tables: one process and one JSON file per cell; what is there is not repeated.

    export OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1
    python -m benchmarks.run poses --size cpu --data-root ../shared/data
    python -m benchmarks.run ablation --only '*lego*' --minutes 30

Tables: poses, views and surfaces (the same cells, other figures), ablation, outliers, sparse, speed. The most
informative cells come first. A cell that fails is recorded with its reason and left alone until ``--retry-failed``.
When ``--minutes`` are over, or on Ctrl-C, the running cell is not recorded; a training that ran out of minutes keeps
its state and goes on the next time. Two of these may run side by side: they do not take the same cell.
"""

import argparse
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
from resource import struct_rusage

from benchmarks.tables import RESULTS, ROOT, SIZES, TABLES, Cell, cells

PAUSED, MISSING = 75, 76
GRACE_S = 100.0
"""A cell that does not stop by itself so long after its time is stopped."""
Launch = Callable[[Cell, Path, float], list[str]]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--size", choices=list(SIZES), default="cpu")
    parser.add_argument("--device", default="", help="cuda where there is one")
    parser.add_argument("--only", default="*", help="cells whose name matches; several patterns with commas")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--data-root", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "benchmarks", help="scenes, caches, states")
    parser.add_argument("--retry-failed", action="store_true")
    parser.add_argument("--list", action="store_true", help="tell which cells are there, run none")
    args = parser.parse_args()
    chosen = [cell for cell in cells(args.table, args.size) if matches(cell, args.only)]
    if args.list:
        for cell in chosen:
            print(f"{status(args.results / cell.path):9} {cell.name}")
        return
    device = args.device or _best_device()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def launch(cell: Cell, output: Path, seconds: float) -> list[str]:
        options = ["--data-root", args.data_root, "--work", args.work, "--device", device, "--seconds", seconds]
        # What one commit has trained, another must not go on with.
        options += ["--state", args.work / "state" / running_commit()]
        module = [sys.executable, "-m", "benchmarks.cells", json.dumps(asdict(cell)), output]
        return [str(part) for part in (*module, *options)]

    run_all(chosen, args.results, args.work, launch, time.monotonic() + 60 * args.minutes, args.retry_failed)


def matches(cell: Cell, patterns: str) -> bool:
    """Whether the name of a cell matches one of some patterns."""
    return any(fnmatch(cell.name, pattern) for pattern in patterns.split(","))


def status(path: Path) -> str:
    """`finished`, `failed` or `not run`."""
    return json.loads(path.read_text())["status"] if path.exists() else "not run"


def run_all(
    chosen: list[Cell], results: Path, work: Path, launch: Launch, deadline: float, retry_failed: bool = False
) -> None:
    """Fill the cells that are not filled yet, until the deadline."""
    for number, cell in enumerate(chosen, 1):
        path = results / cell.path
        done = ("finished",) if retry_failed else ("finished", "failed")
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
    output, log = (work / folder / cell.path for folder in ("output", "logs"))
    log = log.with_suffix(".log")
    for place in (output, log, path):
        place.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
    command = launch(cell, output, deadline - time.monotonic())
    start, started, commit = time.monotonic(), datetime.now(UTC), running_commit()
    with log.open("a") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True)
        code, usage, stopped = _wait(process, deadline + GRACE_S)
    if code == MISSING:
        return "skipped: the scene is not on this machine"
    if code == PAUSED or stopped:
        return "not finished in time, goes on the next time"
    content = _outcome(output, code, log)
    record = {
        **asdict(cell),
        "command": cell.command(),
        "commit": commit,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_memory_mb": usage.ru_maxrss >> 10,
        **content,
    }
    write(path, record)
    output.unlink(missing_ok=True)
    told = content.get("reason") or summary(content["result"])
    return f"{content['status']} in {record['seconds']:.0f} s: {told}"


def _wait(process: subprocess.Popen, limit: float) -> tuple[int, struct_rusage, bool]:
    """Exit code, what it used, and whether the process had to be stopped."""
    stopped = False
    try:
        while True:
            pid, code, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > limit and not stopped:
                os.killpg(process.pid, signal.SIGKILL)
                stopped = True
            time.sleep(0.05)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        os.wait4(process.pid, 0)
        raise
    process.returncode = os.waitstatus_to_exitcode(code)
    return process.returncode, usage, stopped


def _outcome(output: Path, code: int, log: Path) -> dict:
    if output.exists():
        return json.loads(output.read_text())
    last = (log.read_text(errors="replace").strip().splitlines() or [""])[-1][:300]
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    return {"status": "failed", "reason": f"{how}; last output: {last}"}


def write(path: Path, record: dict) -> None:
    """Write a result so that it is whole or absent."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(path)


def summary(result: dict) -> str:
    """The figures that one wants to see first."""
    names = {
        "pose_rotation_deg": "deg",
        "pose_translation_x100": "translation x100",
        "psnr": "dB",
        "ms_per_step": "ms per step",
    }
    told = [f"{result[name]:.3f} {unit}" for name, unit in names.items() if name in result]
    if result.get("surface"):
        told.append(f"Chamfer {result['surface'].get('chamfer', result['surface']['completeness']):.4f}")
    return ", ".join(told)


def running_commit() -> str:
    """The commit that runs, marked where files differ from it; CRAYM_COMMIT tells it where there is no repository."""
    told = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    if not told:
        return os.environ.get("CRAYM_COMMIT", "unknown")
    code = ["craym_nerfstudio", "benchmarks/*.py"]
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *code], cwd=ROOT, capture_output=True)
    return told + ("-changed" if changed.returncode == 1 else "")


def _best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    main()
