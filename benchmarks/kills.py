"""Kills at random moments of the whole job, and what the next run makes of what they leave.

    python -m benchmarks.kills --output benchmarks/results/kills.json [--first 10 --kills 10]

The job is a tiny one (9 views of still_life, 12 steps): matching, stage 0, training with checkpoints, evaluation,
export. Every kill hits a process forked from this one, so that imports are paid once. The next run is what a user
would start: the same command, with the flags that resume where a checkpoint lies. It is good when it ends, when its
matches and stage 0 are byte for byte those of a run that nobody killed, and when a run that could be told to stop left
no traceback.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.scripts import train

import craym_nerfstudio.matching.find as find
import craym_nerfstudio.sfm.second_look as second_look
import craym_nerfstudio.trainer as trainer
from benchmarks.harness import command, keep, machine, method_config
from benchmarks.suite import ROOT
from craym_nerfstudio.cli.main import main as craym
from craym_nerfstudio.console import console
from craym_nerfstudio.storage import alone, file_key

PHASES = ("features", "pairs", "stage0", "compile", "training", "checkpoint", "evaluation", "export")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
STEPS = 12


def write_data(folder: Path) -> None:
    """The 8 training views nearest to the first one, and a test view."""
    for split, count in (("train", 8), ("test", 1)):
        content = json.loads((ROOT / "samples/still_life" / f"transforms_{split}.json").read_text())
        center = np.array([frame["transform_matrix"] for frame in content["frames"]])[:, :3, 3]
        nearest = np.argsort(np.linalg.norm(center - center[0], axis=1))[:count]
        content["frames"] = [content["frames"][k] for k in sorted(nearest.tolist())]
        (folder / split).mkdir(parents=True)
        for frame in content["frames"]:
            shutil.copy((ROOT / "samples/still_life" / frame["file_path"]).with_suffix(".png"), folder / split)
        (folder / f"transforms_{split}.json").write_text(json.dumps(content))


def config_of(data: Path, out: Path, name: str) -> TrainerConfig:
    """`craym-lite` on a thumb nail."""
    config = method_config("craym-lite")
    config.data, config.output_dir, config.timestamp, config.vis = data, out, name, "tensorboard"
    config.max_num_iterations, config.steps_per_save, config.experiment_name = STEPS, 4, "job"
    config.machine.device_type = "cpu"
    config.viewer.quit_on_train_completion, config.logging.profiler = True, "none"
    pipeline = config.pipeline
    pipeline.test_pose_steps, pipeline.start.matcher, pipeline.start.cache_dir = 1, "sift", out / "cache"
    pipeline.datamanager.dataparser.max_image_size_px, pipeline.datamanager.train_num_rays_per_batch = 200, 128
    field, pipeline.model.grid_resolution, pipeline.model.fine_samples = pipeline.model.sdf_field, 16, 8
    field.num_levels, field.log2_table_size, field.hidden_width = 4, 12, 32
    return config


def announce_phases(say: Callable[[str], None]) -> None:
    """Let the parts of the job say when they begin (in this process)."""
    started = False

    def wrap(place: Any, name: str, phase: str) -> None:
        inner = getattr(place, name)

        def outer(*args: Any, **options: Any) -> Any:
            say(phase)
            return inner(*args, **options)

        setattr(place, name, outer)

    def first_step(*args: Any, **options: Any) -> Any:
        nonlocal started
        say("training" if started else "compile")
        started = True
        return step(*args, **options)

    step, trainer.CraymTrainer.train_iteration = trainer.CraymTrainer.train_iteration, first_step  # type: ignore
    wrap(find, "all_features", "features")
    wrap(find, "all_pairs", "pairs")
    wrap(second_look, "adjust_twice", "stage0")
    wrap(trainer.CraymTrainer, "save_checkpoint", "checkpoint")
    wrap(trainer, "report_training", "evaluation")


class Job:
    """One run in a process of its own; `phases` tells when each began."""

    def __init__(self, config: TrainerConfig | None, run: Path, log: Path, kernels: Path | None) -> None:
        self.read, write = os.pipe()
        self.phases: dict[str, float] = {}
        self.pid = os.fork()
        if self.pid:
            os.close(write)
            return
        # A shell lets its background jobs ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1), os.dup2(descriptor, 2)
        status: Any = 1
        try:
            self._work(config, run, kernels, lambda phase: os.write(write, f"{phase} {time.monotonic()}\n".encode()))
            status = 0
        except SystemExit as end:
            status = end.code
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(status if isinstance(status, int) else 1)

    @staticmethod
    def _work(config: TrainerConfig | None, run: Path, kernels: Path | None, say: Callable[[str], Any]) -> None:
        if kernels is not None:
            import numba

            numba.config.CACHE_DIR = str(kernels)  # type: ignore[attr-defined]
        announce_phases(say)
        if config is not None:
            train.main(config)
        say("export")
        craym(["export", "cameras", "--load-config", str(run)])
        say("end")

    def wait_for(self, phase: str | None) -> bool:
        """Whether a phase has begun; None waits for the end of the process."""
        with os.fdopen(os.dup(self.read), "rb", buffering=0) as pipe:
            while line := pipe.readline():
                name, began = line.decode().split()
                self.phases.setdefault(name, float(began))
                if name == phase:
                    return True
        return False

    def end(self) -> int:
        """Exit status, negative for a signal."""
        self.wait_for(None)
        os.close(self.read)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def products(out: Path) -> dict[str, str]:
    """Digests of the matches and stage 0 in a cache."""
    return {path.name: file_key(path) for kind in ("matches", "stage0") for path in out.glob(f"cache/{kind}-*.npz")}


def parameters(run: Path) -> torch.Tensor:
    """Everything that was learned, in one row."""
    path = run / "nerfstudio_models" / f"step-{STEPS - 1:09d}.ckpt"
    state = torch.load(path, map_location="cpu", weights_only=True)["pipeline"]
    return torch.cat([value.flatten().double() for _, value in sorted(state.items())])


def kill_once(
    work: Path, number: int, phase: str, sign: signal.Signals, share: float, seconds: dict[str, float], truth: Path
) -> dict[str, Any]:
    """Kill a run after a share of a phase, run again, and compare with the run that nobody killed."""
    out, data = work / f"kill{number}", work / "data"
    kernels, before = out / "kernels" if phase == "compile" else None, listing(data)
    out.mkdir()
    run, config = out / "job/craym-lite/first", None
    first = Job(config_of(data, out, "first"), run, out / "first.txt", kernels)
    reached = first.wait_for(phase)
    time.sleep(share * seconds[phase])
    killed = time.monotonic()
    os.kill(first.pid, sign)
    status = first.end()
    if first.phases.get("end", killed) < killed:  # too late: the machine is less busy than it was
        shutil.rmtree(out)
        return kill_once(work, number, phase, sign, 0.5 * share, seconds, truth)
    checkpoints = sorted(run.glob("nerfstudio_models/*.ckpt"))
    left = STEPS - 1 - int(checkpoints[-1].stem[5:]) if checkpoints else STEPS
    if left:
        run = out / "job/craym-lite/next"
        config = config_of(data, out, "next")
        config.max_num_iterations = left
        config.load_dir = checkpoints[-1].parent if checkpoints else None
    again = Job(config, run, out / "next.txt", kernels).end()
    log = (out / "first.txt").read_text()
    result = {
        "phase": phase,
        "signal": sign.name,
        "hit": reached and status != 0,
        "status": status,
        "steps_left": left,
        "ended": again == 0 and (run / "export/transforms.json").is_file(),
        "same_matches_and_stage0": products(out) == products(truth),
        "data_untouched": listing(data) == before,
        "quiet": sign == signal.SIGKILL or not ("Traceback" in log or "***" in log),
    }
    if result["ended"]:
        difference = parameters(run) - parameters(truth / "job/craym-lite/truth")
        result["parameters_differ_by"] = float(difference.abs().max())
    if not is_good(result):
        for path in (out / "first.txt", out / "next.txt"):  # for eyes: they name folders of this machine
            console.print(path.read_text()[-2000:])
    shutil.rmtree(out)
    return result


def is_good(row: dict[str, Any]) -> bool:
    """Whether a kill hit a run at work, and the next one made up for it."""
    return all(row[name] for name in ("hit", "ended", "same_matches_and_stage0", "quiet", "data_untouched"))


def measure(numbers: range, phases: tuple[str, ...], seed: int, work: Path) -> Iterator[dict[str, Any]]:
    """The run that nobody kills, then the kills of these numbers, one after the other."""
    write_data(work / "data")
    truth = work / "truth"
    truth.mkdir()
    kernels = truth / "kernels" if "compile" in phases else None
    run = truth / "job/craym-lite/truth"
    job = Job(config_of(work / "data", truth, "truth"), run, truth / "log.txt", kernels)
    if job.end() != 0:
        raise SystemExit((truth / "log.txt").read_text()[-3000:])
    begins = sorted(job.phases.items(), key=lambda item: item[1])
    seconds = {name: later - now for (name, now), (_, later) in pairwise(begins)}
    # The first checkpoint is written between steps: what lies between it and the next phase is training.
    seconds["checkpoint"], seconds["training"] = 0.1, seconds["training"] + seconds["checkpoint"]
    draw = random.Random(seed)
    shares = [draw.random() for _ in range(numbers.stop)]
    for number in numbers:
        turn, place = divmod(number, len(phases))
        sign = SIGNALS[(turn + place) % len(SIGNALS)]
        yield {"number": number, **kill_once(work, number, phases[place], sign, shares[number], seconds, truth)}


def added(path: Path | None, row: dict[str, Any]) -> list[dict[str, Any]]:
    """All kills of a file with one more, or another one of its number."""
    known = json.loads(path.read_text())["kills"] if path is not None and path.exists() else []
    return sorted([*(each for each in known if each["number"] != row["number"]), row], key=lambda each: each["number"])


def listing(folder: Path) -> dict[str, int]:
    """All files, and when they were written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def main() -> None:
    """Measure, write, and fail if one resume was not good."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--first", type=int, default=0, help="number of the first kill: parts of one series")
    parser.add_argument("--phases", nargs="*", default=list(PHASES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=None, help="file that every kill is added to")
    arguments = parser.parse_args()
    numbers, good = range(arguments.first, arguments.first + arguments.kills), 0
    told = {"command": command(), "machine": machine(torch.device("cpu"))}
    with TemporaryDirectory() as work:
        for row in measure(numbers, tuple(arguments.phases), arguments.seed, Path(work)):
            print(row, flush=True)
            good += is_good(row)
            with nullcontext() if arguments.output is None else alone(arguments.output):
                kills = added(arguments.output, row)
                keep(arguments.output, {**told, "good": sum(map(is_good, kills)), "kills": kills})
    print(f"{good} of {arguments.kills} good")
    sys.exit(good < arguments.kills)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
