"""Fills one cell in a process of its own, which `benchmarks.run` starts and whose end it records."""

import json
import resource
import sys
import time
import traceback
from pathlib import Path

import numpy  # noqa: F401  pycolmap's wheel aborts unless it comes first
import torch

from benchmarks.harness import machine
from benchmarks.peers import pycolmap_cell
from benchmarks.scenes import prepare
from benchmarks.suite import METHODS, Cell, NoResult
from benchmarks.train import Place, craym_cell, stage0_cell
from craym_nerfstudio.storage import write_json

KINDS = {"stage0": stage0_cell, "craym": craym_cell, "pycolmap": pycolmap_cell}


def fill(cell: Cell, data_root: Path, place: Place) -> dict:
    """What a cell measures.

    Raises:
        NoResult: to be continued, or the scene is not on this machine.
    """
    scene = prepare(cell.scene, cell.scale, data_root, place.work, cell.views)
    result = KINDS[METHODS[cell.method].kind](cell, scene, place)
    if place.device.type == "cuda":
        result["device_memory_mb"] = torch.cuda.max_memory_allocated(place.device) >> 20
    return {"images_key": scene.fingerprint(), **result}


def main() -> int:
    """Do what the runner has written as the one argument; exit status."""
    task = json.loads(sys.argv[1])
    data_root, work, state, output = (Path(task[name]) for name in ("data_root", "work", "state", "output"))
    device = torch.device(task["device"] or ("cuda" if torch.cuda.is_available() else "cpu"))
    place = Place(work, state, device, time.monotonic() + task["seconds"])
    try:
        content = {"status": "finished", "result": fill(Cell(**task["cell"]), data_root, place)}
    except NoResult as error:
        status, reason = error.args
        print(reason, file=sys.stderr)
        return status
    except Exception as error:
        traceback.print_exc()
        content = {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:500]}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = {"cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1), "peak_memory_mb": usage.ru_maxrss >> 10}
    write_json(output, {**spent, "machine": machine(device), **content})
    if content["status"] == "finished":
        state.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
