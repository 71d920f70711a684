"""The first quarter of an hour on a GPU: what it can do, whether we are right on it, and one training to its end.

    python -m benchmarks.first_run prepare --carry gpu_carry --data-root DATA                  # where there is time
    python -m benchmarks.first_run run --carry gpu_carry --output gpu_out --seconds 465        # on the GPU
    python -m benchmarks.first_run run --carry gpu_carry --output gpu_out2 --seconds 230 \
        --parts step,train --rays 4096

`prepare` writes what the GPU's machine must not spend its time on into one folder of at most 60 MiB: lego_400 with ten
test views, its matches, and its stage 0 from `l2g` poses; `--wheels` adds packages that the machine lacks. Carry that
folder beside a checkout and install the wheels there (``pip install --no-index --no-deps --target SITE
gpu_carry/wheels/*.whl``). `run` never matches and never adjusts: a cache miss stops it. Every part writes its JSON at
once, one that fails is recorded and the next goes on. ``--tiny --device cpu`` tries all of it on a CPU.
"""

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn
from unittest import mock

import numpy  # noqa: F401  pycolmap's wheel aborts unless it comes first
import torch

from benchmarks.first_run_parts import PARTS, Session, StopRun, first_config
from benchmarks.harness import command, keep, machine
from benchmarks.scenes import prepare as prepare_scene
from benchmarks.suite import DATA, NoResult, Size
from craym_nerfstudio.console import silence_others
from craym_nerfstudio.errors import InputError

MOST_MIB = 60
KEPT = ("matches-*.npz", "stage0-*.npz", "closer-*.npz")
"""What of the cache is carried; features and unverified pairs are not needed again."""


def prepare(args: argparse.Namespace) -> None:
    """Fill the folder that is carried.

    Raises:
        InputError: it is too large.
    """
    small, cache = args.tiny, args.carry / "cache"
    size = Size(0, 2 if small else 10, 0, image_px=100 if small else 400)
    name = "still_life" if small else "lego_400"
    prepare_scene(name, size, args.data_root, args.carry)
    first_config(args.carry, small).pipeline.setup(device="cpu", test_mode="val")
    wanted = {path for pattern in KEPT for path in cache.glob(pattern)}
    for path in sorted(cache.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        elif path not in wanted:
            path.unlink()
    if args.wheels:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        pip += ["--python-version", "3.12", "--dest", str(args.carry / "wheels"), *args.wheels]
        subprocess.run(pip, check=True)
    size_mib = sum(path.stat().st_size for path in args.carry.rglob("*") if path.is_file()) / 2**20
    print(f"{args.carry}: {size_mib:.1f} MiB")
    if size_mib > MOST_MIB:
        raise InputError(f"{size_mib:.0f} MiB are more than {MOST_MIB}", args.carry, "Carry fewer wheels.")


@contextmanager
def nothing_is_searched() -> Iterator[None]:
    """Inside, matching and stage 0 come from the cache or not at all."""

    def missing(*_: object, **__: object) -> NoReturn:
        raise StopRun("the folder lacks matches or stage 0 of this scene: prepare it again")

    with (
        mock.patch("craym_nerfstudio.matching.find.all_features", missing),
        mock.patch("craym_nerfstudio.sfm.second_look.adjust_twice", missing),
    ):
        yield


def run(args: argparse.Namespace) -> dict:
    """All parts that were asked for, one after the other; what they found.

    Raises:
        InputError: there is no GPU.
    """
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("No CUDA device is there", remedy="`--tiny --device cpu` rehearses all of it on a CPU.")
    args.output.mkdir(parents=True, exist_ok=True)
    path, device = args.output / "first_run.json", torch.device(args.device)
    session = Session(args.carry, args.output, device, args.tiny, args.rays, time.monotonic() + args.seconds)
    session.found |= {"command": command(), "machine": machine(device)}
    session.save = lambda: keep(path, session.found)
    with nothing_is_searched():
        for name in args.parts.split(","):
            start = time.monotonic()
            try:
                session.found[name] = PARTS[name](session)
            except StopRun as error:
                session.found[name] = {"stopped": str(error)}
                session.save()
                raise
            except Exception:
                session.found[name] = {"failed": traceback.format_exc()[-2000:]}
                traceback.print_exc()
            session.found[name]["part_s"] = round(time.monotonic() - start, 1)
            session.save()
            print(f"== {name}: {session.found[name]['part_s']} s, {session.left():.0f} s left", flush=True)
    return session.found


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["prepare", "run"])
    parser.add_argument("--carry", type=Path, required=True, help="folder that travels")
    parser.add_argument("--data-root", type=Path, default=DATA, help="where lego_400 lies (prepare)")
    parser.add_argument("--wheels", nargs="*", default=[], help="packages that the GPU's machine lacks (prepare)")
    parser.add_argument("--output", type=Path, default=Path("first_run"), help="folder for JSON and pictures (run)")
    parser.add_argument("--seconds", type=float, default=465.0, help="until everything must be written (run)")
    parser.add_argument("--parts", default=",".join(PARTS), help="in this order (run)")
    parser.add_argument("--rays", type=int, default=0, help="random rays per step; 0 takes the method's (run)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="still_life, craym-lite and few steps: a rehearsal")
    return parser.parse_args()


def main() -> int:
    """Do what was asked for; exit status."""
    silence_others()
    args = parse()
    try:
        if args.action == "prepare":
            prepare(args)
        else:
            print(json.dumps(run(args), indent=1)[-9000:])
    except (InputError, StopRun, NoResult) as error:
        print(f"Error: {error.args[-1]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
