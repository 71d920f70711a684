"""Depth of trained runs against the depth images that their data names (`depth_file_path`), true or of a ToF camera.

    python -m samples.make_facade DATA/facade
    ns-train craym-lite --data DATA/facade --vis tensorboard
    python -m benchmarks.depth --output benchmarks/results/depth.json facade=RUN hololens_000=RUN

Both are depths along the optical axis of the training cameras, in the data's units; where the run sees nothing the
error is 100 %. Depth is rendered as evaluation renders: the mean depth of the density.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.harness import command, keep, machine

_FIGURES = ("psnr", "pose_rotation_deg_before", "pose_rotation_deg")
"""Of the run itself, beside the depths."""
_NOTHING = 1e2
"""World units: what the model says of rays that meet nothing is beyond."""


def measure(folder: Path, views: int) -> dict[str, Any]:
    """The row of one run."""
    from craym_nerfstudio.export.run import load_run

    pipeline = load_run(folder).pipeline
    manager = pipeline.datamanager
    scene, cameras, known = manager.scene, manager.train_dataset.cameras, manager.reference is not None
    data = Path(pipeline.config.datamanager.data)
    source = data if data.is_file() else data / "transforms.json"
    content = json.loads(source.read_text())
    files = {frame["file_path"]: frame["depth_file_path"] for frame in content["frames"]}
    # Rough poses leave open how large everything is: where the true ones are known, depths are measured in their units.
    data_from_model = pipeline.reference_to_model().inverse() if known else pipeline.data_from_model()
    names = scene.views.names
    errors = []
    for k in np.linspace(0, len(names) - 1, min(views, len(names))).round().astype(int):
        with torch.no_grad():
            picture = pipeline.craym_model.volume_picture(cameras[int(k) : int(k) + 1])
        rays = cameras.generate_rays(int(k))
        cosine = -(rays.directions @ cameras.camera_to_worlds[k, :, 2]).cpu()
        depth = picture["depth"][..., 0].cpu()
        along = np.asarray(data_from_model.lengths((depth * cosine).double()))
        truth = _resampled(source.parent / files[names[k]], along.shape) * content.get("depth_unit_scale_factor", 1e-3)
        error = np.abs(along - truth) / np.maximum(truth, 1e-9)
        errors.append(np.where(depth > _NOTHING, 1.0, error)[truth > 0])
    every = 100.0 * np.concatenate(errors)
    row = {f"error_{q}_percent": round(float(np.percentile(every, q)), 2) for q in (50, 75, 90)}
    judged = json.loads((folder / "metrics.json").read_text())["results"]
    figures = {name: round(judged[name], 4) for name in _FIGURES if name in judged}
    return {"views": len(errors), **row, **figures}


def _resampled(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The depth image at the nearest pixels: depths on both sides of an edge have no mean."""
    stored = np.asarray(Image.open(path), dtype=np.float64)
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(shape, stored.shape, strict=True))
    return stored[rows][:, columns]


def main() -> None:
    """Parse the command line and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=FOLDER", help="the scene's name, and the folder of a run")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--views", type=int, default=12, help="training views that are judged")
    arguments = parser.parse_args()
    pairs = [run.partition("=")[::2] for run in arguments.runs]
    rows = {name: measure(Path(folder), arguments.views) for name, folder in pairs}
    for name, row in rows.items():
        print(name, row)
    keep(arguments.output, {"command": command(), "machine": machine(torch.device("cpu")), "scenes": rows})


if __name__ == "__main__":
    main()
