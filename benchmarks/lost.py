"""Photos that are too blurred to be matched: what becomes of their cameras, and of the views.

    python -m benchmarks.lost --data-root ../shared/data --output benchmarks/results/lost.json still_life lego_400

A tenth of the training photos is smeared along a line, each in a direction of its own, as by a camera that moves. Two
runs of `craym-lite` from `barf` noise: one trains on these photos from where stage 0 predicts their cameras, one lets
them wait and looks for their cameras in the field.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.harness import Run, command, keep, machine, method_config
from benchmarks.scenes import prepare
from benchmarks.suite import SIZES
from craym_nerfstudio.data.dataparser import CraymDataParserConfig
from craym_nerfstudio.geometry.alignment import align_poses
from craym_nerfstudio.geometry.lie import rotation_angle_deg
from craym_nerfstudio.pipeline import CraymPipeline

_SHARE, _LENGTH = 0.1, 0.1
"""Of photos that are blurred, and of their width over which they are."""


def blurred(source: Path, target: Path) -> None:
    """A copy of a Blender scene with some blurred training photos."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    frames = json.loads((target / "transforms_train.json").read_text())["frames"]
    generator = np.random.default_rng(7)
    for number in sorted(generator.choice(len(frames), round(_SHARE * len(frames)), replace=False)):
        path = target / (frames[number]["file_path"] + ".png")
        _smear(path, float(generator.uniform(0.0, np.pi)))


def _smear(path: Path, angle: float) -> None:
    rgba = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float32) / 255.0
    side = round(_LENGTH * rgba.shape[1]) | 1
    kernel, middle = np.zeros((side, side), dtype=np.float32), side // 2
    end = np.round(middle * np.array([np.cos(angle), np.sin(angle)])).astype(int)
    cv2.line(kernel, (middle - end).tolist(), (middle + end).tolist(), 1.0)
    # Colours are smeared by what is seen of them.
    premultiplied = np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], axis=-1)
    smeared = cv2.filter2D(premultiplied, -1, kernel / kernel.sum(), borderType=cv2.BORDER_CONSTANT)
    smeared[..., :3] /= np.maximum(smeared[..., 3:], 1e-3)
    cv2.imwrite(str(path), np.round(255.0 * smeared.clip(0.0, 1.0)).astype(np.uint8))


def measured(folder: Path, work: Path, seed: int, *, sought: bool) -> dict[str, Any]:
    """Views and poses of one run."""
    config = method_config("craym-lite")
    config.fit_schedules()
    config.pipeline.datamanager.dataparser = CraymDataParserConfig(
        data=folder, max_image_size_px=400, pose_noise="barf", pose_noise_seed=seed
    )
    config.pipeline.datamanager.seed = config.pipeline.model.seed = seed
    config.pipeline.start.cache_dir = work / "cache"
    run = Run(config, torch.device("cuda" if torch.cuda.is_available() else "cpu"), seed)
    pipeline = run.pipeline
    assert isinstance(pipeline, CraymPipeline) and pipeline.relocation is not None
    lost = torch.from_numpy(pipeline.relocation.lost)
    if not sought:
        pipeline.relocation = None
        pipeline.datamanager.train_images().leave_out(torch.zeros_like(lost))
    begun = _errors_deg(pipeline, lost)
    run.advance(config.max_num_iterations)
    pipeline.relocate(final=True)
    views, ended = pipeline.get_average_eval_image_metrics(run.step), _errors_deg(pipeline, lost)
    return {
        "psnr": views["psnr"],
        "lost_start_deg": begun[lost].tolist(),
        "lost_deg": ended[lost].tolist(),
        "others_deg": float(ended[~lost].mean()),
        "train_s": round(run.seconds, 1),
    }


def _errors_deg(pipeline: CraymPipeline, lost: torch.Tensor) -> torch.Tensor:
    """How far cameras are turned, once those that are not lost are aligned."""
    assert pipeline.datamanager.reference is not None
    true = torch.from_numpy(pipeline.datamanager.reference.train_c2w).double()
    c2w = pipeline.refined_c2w().double()
    aligned = align_poses(c2w[~lost], true[~lost]).poses(c2w)
    return rotation_angle_deg(aligned[:, :, :3].mT @ true[:, :, :3])


def main() -> None:
    """Measure all scenes and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="+", help="names of Blender scenes")
    parser.add_argument("--data-root", type=Path, required=True, help="folder that holds them")
    parser.add_argument(
        "--work", type=Path, default=Path("outputs/benchmarks"), help="where scenes and matches are kept"
    )
    parser.add_argument("--seed", type=int, default=0, help="of noise and training")
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    given, rows = parser.parse_args(), {}
    for name in given.scenes:
        folder = given.work / "blurred" / name
        blurred(prepare(name, SIZES["shipped"], given.data_root, given.work).folder, folder)
        for sought in (False, True):
            row = measured(folder, given.work, given.seed, sought=sought)
            rows[f"{name}, {'sought' if sought else 'trained from where they are predicted'}"] = row
            print(name, row, flush=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    keep(given.output, {"command": command(), "machine": machine(device), "seed": given.seed, "runs": rows})


if __name__ == "__main__":
    main()
