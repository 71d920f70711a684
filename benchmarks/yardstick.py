"""nerfacto from the poses that a run of ours has refined: what views the same photos give to a field without a surface.

    python -m benchmarks.yardstick --steps 5000 --output benchmarks/results/yardstick.json dtu_scan24=RUN

It is the host's, with its torch implementation; the poses stay as they are. Its test views are judged as ours, each
test pose refined against the field.
"""

import argparse
import statistics
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Run, command, keep, machine, nerfacto_config
from craym_nerfstudio.cameras.photometric import refine_cameras, with_poses
from craym_nerfstudio.data.reference import ReferencePoses
from craym_nerfstudio.evaluation.images import image_metrics
from craym_nerfstudio.geometry.alignment import align_poses
from craym_nerfstudio.pipeline import CraymPipeline

TEST_POSE_STEPS, TEST_POSE_RAYS = 100, 256


def judged_views(run: Run, refined: Tensor, reference: ReferencePoses) -> dict[str, float]:
    """Mean figures of the test views, from the reference's poses moved to the refined ones, each refined in turn."""
    model = run.pipeline.model
    similarity = align_poses(torch.from_numpy(reference.train_c2w), refined)
    model.requires_grad_(False)
    dataset, rows = run.pipeline.datamanager.eval_dataset, []
    for index in range(len(dataset)):
        data, true = dataset[index], torch.from_numpy(reference.test_c2w[index])
        camera = with_poses(dataset.cameras[index : index + 1].to(run.device), similarity.poses(true)[None])
        image, mask = data["image"].to(run.device), data.get("mask")
        pixels = ([image], [mask], TEST_POSE_STEPS, TEST_POSE_RAYS)
        camera = with_poses(camera, refine_cameras(lambda rays: model(rays)["rgb"], camera, *pixels))
        rows.append(image_metrics(model.get_outputs_for_camera(camera)["rgb"], image, mask))
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}


def measured(pipeline: CraymPipeline, rays: int, steps: int) -> dict[str, Any]:
    """Figures of our test views and of nerfacto's.

    Raises:
        ValueError: the run knows no reference poses, by which test views are placed.
    """
    manager = pipeline.datamanager
    if manager.reference is None:
        raise ValueError("the run has no reference poses")
    ours = pipeline.get_average_eval_image_metrics(0)
    parser = deepcopy(manager.config.dataparser)
    parser.data = manager.config.data or parser.data
    background = "white" if pipeline.craym_model.has_alpha else "last_sample"
    config = nerfacto_config(parser, rays, steps, background)
    config.pipeline.model.camera_optimizer.mode = "off"
    run = Run(config, torch.device(pipeline.device))
    refined = pipeline.refined_c2w().detach()
    _move(run, refined)
    run.advance(steps)
    run.pipeline.eval()
    theirs = judged_views(run, refined.double().cpu(), manager.reference)
    both = (("ours", ours), ("nerfacto", theirs))
    figures = {f"{name}_{figure}": values[figure] for name, values in both for figure in ("psnr", "ssim")}
    return figures | {"steps": steps, "rays": rays, "train_s": round(run.seconds, 1)}


def _move(run: Run, c2w: Tensor) -> None:
    """Put nerfacto's cameras at poses of our world, which is its own: both are the parser's."""
    manager = run.pipeline.datamanager
    for cameras in (manager.train_dataset.cameras, manager.train_ray_generator.cameras):
        cameras.camera_to_worlds = c2w.to(cameras.camera_to_worlds)


def main() -> None:
    """Measure all runs and write JSON."""
    from craym_nerfstudio.export.run import load_run

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="NAME=FOLDER of runs")
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--rays", type=int, default=4096, help="per step of nerfacto, whose own number this is")
    parser.add_argument("--steps", type=int, default=5000, help="of nerfacto")
    given, rows = parser.parse_args(), {}
    for each in given.runs:
        name, _, folder = each.partition("=")
        rows[name] = measured(load_run(Path(folder)).pipeline, given.rays, given.steps)
        print(name, rows[name], flush=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    keep(given.output, {"command": command(), "machine": machine(device), "runs": rows})


if __name__ == "__main__":
    main()
