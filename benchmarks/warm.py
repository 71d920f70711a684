"""Writes what cells need before they train: the scene at its size, its reference surface, matches and stage 0.

    python -m benchmarks.warm --work carry/work --only '*lego_400-l2g-craym-seed0,*lego_400-barf-craym-seed0'

A machine that is given the folder by `benchmarks/gpu.sh` needs neither the scene's source nor what matching and stage 0
import. Features and putative pairs are left out: they are large, and the verified matches are enough.
"""

import argparse
import time
from pathlib import Path

import numpy  # noqa: F401  pycolmap's wheel aborts unless it comes first
import torch

from benchmarks.run import matches
from benchmarks.scenes import prepare
from benchmarks.tables import METHODS, ROOT, SIZES, TABLES, cells
from benchmarks.train import Place, craym_config

CARRIED = ("matches-*.npz", "stage0-*.npz")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--size", choices=list(SIZES), default="paper")
    parser.add_argument("--only", required=True)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=["poses", "ablation"])
    parser.add_argument("--data-root", type=Path, default=ROOT.parent / "shared" / "data")
    args = parser.parse_args()
    work = args.work.resolve()
    place = Place(work, torch.device("cpu"), time.monotonic(), work / "none.ckpt")
    chosen = [cell for table in args.tables for cell in cells(table, args.size) if matches(cell, args.only)]
    for cell in chosen:
        scene = prepare(cell.scene, SIZES[cell.size], args.data_root, work, cell.views)
        if METHODS[cell.method].kind == "craym":
            scene.surface()
            craym_config(cell, scene, place).pipeline.datamanager.setup(device="cpu", test_mode="val")
        print(f"ready: {cell.table} {cell.name}", flush=True)
    kept = {path for pattern in CARRIED for path in place.cache.glob(pattern)}
    for path in sorted(place.cache.rglob("*"), reverse=True):
        if path not in kept:
            path.rmdir() if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main()
