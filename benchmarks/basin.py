"""How far photometric losses and silhouettes alone find poses back, per parametrisation of the poses.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.basin --output benchmarks/results/basin.json

``lego_400`` at 100 px, every 4th view, no matches, ``craym-lite`` from the noise protocol of a name. Rows are errors of
the poses after a similarity alignment, in degrees and x100, along the training.
"""

import argparse
import json
from itertools import product
from pathlib import Path

import torch
import tyro
from PIL import Image

from benchmarks.harness import Run, command, keep, machine, method_config
from benchmarks.suite import DATA
from craym_nerfstudio.data.dataparser import CraymDataParserConfig
from craym_nerfstudio.geometry.alignment import pose_errors

EVERY = 250
"""Steps between two looks at the poses."""
_COLOURS = ("--pipeline.model.silhouette-loss-mult", "0")
_SIX = ("--pipeline.model.camera-optimizer.mode", "6D")
WAYS = {"SE3": (), "SE3-colours-alone": _COLOURS, "6D": _SIX, "6D-colours-alone": (*_SIX, *_COLOURS)}
"""Flags of ``craym-lite``."""


def reduced(source: Path, target: Path, side_px: int, every: int) -> Path:
    """A Blender scene with every n-th training view at another size, and one test view; written once."""
    if not target.is_dir():
        partial = target.with_name(target.name + ".partial")
        for split, step in (("train", every), ("test", 100)):
            content = json.loads((source / f"transforms_{split}.json").read_text())
            content["frames"] = content["frames"][::step]
            for frame in content["frames"]:
                name = frame["file_path"].removeprefix("./").removesuffix(".png") + ".png"
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                with Image.open(source / name) as image:
                    image.resize((side_px, side_px), Image.Resampling.BOX).save(partial / name)
            (partial / f"transforms_{split}.json").write_text(json.dumps(content))
        partial.rename(target)
    return target


def trained(scene: Path, noise: str, seed: int, steps: int, flags: tuple[str, ...], device: torch.device) -> dict:
    """Errors of the poses along a training, and its seconds."""
    config = method_config("craym-lite")
    config.max_num_iterations = steps
    config.fit_schedules()
    pipeline = config.pipeline
    pipeline.datamanager.dataparser = CraymDataParserConfig(data=scene, pose_noise=noise, pose_noise_seed=seed)
    pipeline.datamanager.seed = pipeline.model.seed = seed
    pipeline.start.matcher = "none"
    method = tyro.conf.FlagConversionOff[tyro.extras.subcommand_type_from_defaults({"craym-lite": config})]
    run = Run(tyro.cli(tyro.conf.SuppressFixed[method], args=["craym-lite", *flags]), device, seed)
    true = torch.from_numpy(run.pipeline.datamanager.reference.train_c2w)
    rows = []
    while True:
        errors = pose_errors(run.pipeline.refined_c2w(), true)
        row = {"step": run.step, "rotation_deg": round(errors.rotation_deg_mean, 3)}
        row["rotation_deg_median"] = round(float(errors.rotation_deg.median()), 3)
        rows.append(row | {"translation_x100": round(errors.translation_x100_mean, 2)})
        print(json.dumps(rows[-1]), flush=True)
        if run.step >= steps:
            return {"train_s": round(run.seconds, 1), "errors": rows}
        run.advance(min(EVERY, steps - run.step))


def main() -> None:
    """Train with every set of flags and seed, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--data", type=Path, default=DATA / "lego_400")
    parser.add_argument("--work", type=Path, default=Path("outputs/basin"))
    parser.add_argument("--noises", nargs="+", default=["l2g"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--side-px", type=int, default=100)
    parser.add_argument("--every", type=int, default=4, help="of the training views, every n-th")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    given = parser.parse_args()
    name = f"{given.data.name}-{given.side_px}px-{given.every}"
    given.work.mkdir(parents=True, exist_ok=True)
    scene = reduced(given.data, given.work / name, given.side_px, given.every)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    about, results = {"command": command(), "machine": machine(device)}, []
    for noise, seed, way in product(given.noises, given.seeds, given.ways):
        print(json.dumps({"noise": noise, "seed": seed, "way": way}), flush=True)
        result = trained(scene, noise, seed, given.steps, WAYS[way], device)
        results.append({"noise": noise, "seed": seed, "way": way, **result})
        keep(given.output, {**about, "scene": name, "steps": given.steps, "runs": results})


if __name__ == "__main__":
    main()
