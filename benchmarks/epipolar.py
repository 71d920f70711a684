"""How far the epipolar loss L_e alone brings poses, without a field, and what it does not see.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.epipolar --output benchmarks/results/epipolar.json

Poses start from noise, without stage 0, and follow L_e (Eq. 5, 6) with the rate, schedule and kernel of craym-lite. In
the end pairs of images are sorted by how wrong their relative rotation is: where the residual of their matches hardly
grows with it, the loss has nothing left to pull with.
"""

import argparse
import json
import os
import tempfile
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import ROOT, Run, command, keep, machine, shorten
from benchmarks.scenes import Scene, prepare
from benchmarks.tables import SIZES, Cell
from benchmarks.train import Place, craym_config
from craym_nerfstudio.data.key_rays import MatchedPairs
from craym_nerfstudio.geometry.lie import rotation_angle_deg
from craym_nerfstudio.objective import losses

BINS_DEG = (0.0, 0.3, 1.0, 3.0, 10.0, 180.0)
_DRAWN = 40_000


def residuals_px(run: Run, drawn: MatchedPairs) -> Tensor:
    """Epipolar residuals of matches under the poses as they are now."""
    c2w = run.pipeline.craym_model.camera_optimizer.optimised_c2w()
    return losses.match_residuals_px(c2w, drawn.cameras, drawn.bearings, drawn.focal_px)


def follow(run: Run, steps: int) -> None:
    """Poses by L_e alone."""
    model, source = run.pipeline.craym_model, run.pipeline.datamanager.key_source
    cameras, config = model.camera_optimizer, model.config
    pairs = run.pipeline.datamanager.config.num_epipolar_pairs
    settings = run.config.optimizers["camera_opt"]
    optimizer = settings["optimizer"].setup([cameras.residual])
    scheduler = settings["scheduler"].setup().get_scheduler(optimizer, settings["optimizer"].lr)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        drawn = source.pairs(pairs, generator)
        residuals = residuals_px(run, drawn)
        scale = losses.annealed_kernel_scale_px(
            step, config.epipolar_anneal_steps, final_px=config.epipolar_scale_px, residuals_px=residuals
        )
        optimizer.zero_grad()
        losses.epipolar_loss(residuals, scale, drawn.confidence).backward()
        optimizer.step()
        scheduler.step()


@torch.no_grad()
def blindness(run: Run) -> list[dict]:
    """Residual of matches against the error of their pair's relative rotation."""
    manager = run.pipeline.datamanager
    drawn = manager.key_source.pairs(_DRAWN, torch.Generator().manual_seed(1))
    residuals = residuals_px(run, drawn)

    def relative(c2w: Tensor) -> Tensor:
        first, second = (c2w[camera, :3, :3] for camera in drawn.cameras.unbind(-1))
        return first.transpose(1, 2) @ second

    truth = relative(torch.from_numpy(manager.reference.train_c2w).double())
    error_deg = rotation_angle_deg(truth.transpose(1, 2) @ relative(run.pipeline.refined_c2w().double()))
    rows = []
    for low, high in pairwise(BINS_DEG):
        inside = (error_deg >= low) & (error_deg < high)
        if inside.any():
            share = round(float(inside.float().mean()), 3)
            rows.append({"from_deg": low, "to_deg": high, "share": share, "px": _median(residuals[inside])})
    return rows


def _median(values: Tensor) -> float:
    return round(float(values.median()), 3)


def measure(scene: Scene, noise: str, steps: int, place: Place) -> dict:
    """From one noise, with as many steps."""
    config = craym_config(Cell("ablation", scene.name, noise, "epipolar"), scene, place)
    shorten(config, steps)
    run = Run(config, place.device, 0)
    before = blindness(run)
    follow(run, steps)
    figures = {name: round(value, 3) for name, value in run.pipeline.pose_metrics().items()}
    return {"noise": noise, "steps": steps, **figures, "pairs_before": before, "pairs": blindness(run)}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--scene", default="lego_400")
    parser.add_argument("--noises", nargs="+", default=["barf", "l2g"])
    parser.add_argument("--steps", type=int, nargs="+", default=[1500, 6000])
    parser.add_argument("--data-root", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "benchmarks", help="scenes, caches")
    args = parser.parse_args()
    device = torch.device("cpu")
    scene = prepare(args.scene, SIZES["cpu"], args.data_root, args.work)
    with tempfile.TemporaryDirectory() as scratch:
        place = Place(args.work, device, float("inf"), Path(scratch) / "none")
        runs = [measure(scene, noise, steps, place) for noise in args.noises for steps in args.steps]
    told = machine(device) | {"omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "")}
    result = {"command": command(), "scene": args.scene, "machine": told, "runs": runs}
    print(json.dumps(result, indent=1))
    keep(args.output, result)


if __name__ == "__main__":
    main()
