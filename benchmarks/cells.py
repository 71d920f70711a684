"""Fills one cell in a process of its own: ``python -m benchmarks.cells '{"table": ...}' OUTPUT ...``.

Started by `benchmarks.run`, which records what becomes of the process. Exit status 75: out of time, to be continued;
76: the scene is not on this machine.
"""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy  # noqa: F401  pycolmap's wheel aborts unless it comes first
import torch

from benchmarks.harness import machine
from benchmarks.peers import input_cell, nerfacto_cell, pycolmap_cell, stage0_cell
from benchmarks.probes import outlier_cell, speed_cell
from benchmarks.scenes import Scene, SceneMissing, fingerprint, prepare
from benchmarks.tables import METHODS, SIZES, SPEED, Cell
from benchmarks.train import OutOfTime, Place, craym_cell
from craym_nerfstudio.storage import write_atomically

PAUSED, MISSING = 75, 76

KINDS: dict[str, Callable[[Cell, Scene, Place], dict]] = {
    "input": input_cell,
    "stage0": stage0_cell,
    "pycolmap": pycolmap_cell,
    "craym": craym_cell,
    "nerfacto": nerfacto_cell,
}


def fill(cell: Cell, data_root: Path, place: Place) -> dict:
    """What a cell measures.

    Raises:
        OutOfTime: to be continued.
        SceneMissing: the scene is not on this machine.
    """
    share = SPEED[cell.method].image_share if cell.table == "speed" else 0.0
    views = SPEED[cell.method].views if cell.table == "speed" else cell.views
    scene = prepare(cell.scene, SIZES[cell.size], data_root, place.work, 0 if cell.table == "speed" else views, share)
    work = {"outliers": outlier_cell, "speed": speed_cell}.get(cell.table)
    work = work or KINDS[METHODS[cell.method].kind]
    return {"images_key": fingerprint(scene), **work(cell, scene, place)}


def main() -> int:
    """Command line, for `benchmarks.run`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cell", type=lambda text: Cell(**json.loads(text)))
    parser.add_argument("output", type=Path)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True, help="checkpoints of unfinished cells")
    parser.add_argument("--device", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    args = parser.parse_args()
    device = torch.device(args.device)
    state = args.state / args.cell.table / f"{args.cell.name}.ckpt"
    place = Place(args.work, device, time.monotonic() + args.seconds, state)
    # The commit is recorded by the runner: this process may outlast the moment at which the code was loaded.
    told = {name: value for name, value in machine(device).items() if name != "commit"}
    try:
        result = fill(args.cell, args.data_root, place)
    except OutOfTime as error:
        print(f"paused: {error}", file=sys.stderr)
        return PAUSED
    except SceneMissing as error:
        print(error, file=sys.stderr)
        return MISSING
    except Exception as error:
        traceback.print_exc()
        content = {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:500], "machine": told}
        write_atomically(args.output, lambda file: file.write(json.dumps(content).encode()))
        return 1
    content = {"status": "finished", "machine": told, "result": result}
    write_atomically(args.output, lambda file: file.write(json.dumps(content).encode()))
    for path in state.parent.glob(f"{state.stem}.*"):
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
