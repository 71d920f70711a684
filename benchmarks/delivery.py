"""What `craym export` has written of trained runs, judged from the test cameras by other renderers than its own.

    python -m benchmarks.delivery --output benchmarks/results/delivery.json still_life=RUN chair_400=RUN

Each run must have been exported to its folder `export`. The field is rendered as a volume, the reference, and by
sphere tracing; `mesh.ply` and `mesh.glb` by the rasteriser of `benchmarks.raster`, without light; `splats.ply` by the
reference compositor of the tests. Test cameras are aligned and refined against the field, as in evaluation.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import command, keep, machine
from benchmarks.raster import Painted, Pinhole, draw

Picture = np.ndarray
POSE_STEPS = 100
"""Of test-time refinement."""


def measure(folder: Path, views: int) -> dict[str, Any]:
    """The row of one run."""
    import trimesh

    from craym_nerfstudio.export.run import load_run
    from craym_nerfstudio.pictures import draw_picture

    run = load_run(folder)
    pipeline, model = run.pipeline, run.pipeline.craym_model
    background = model.background_rgb.cpu().numpy().astype(np.float64)
    loaded = [(camera, batch["image"]) for camera, batch in pipeline.datamanager.fixed_indices_eval_dataloader]
    chosen = np.unique(np.linspace(0, len(loaded) - 1, min(views, len(loaded))).round().astype(int)).tolist()
    photos = [_on(loaded[k][1].numpy(), background) for k in chosen]
    cameras = _refined(pipeline, chosen, [loaded[k] for k in chosen])
    data = pipeline.data_from_model().poses(cameras.camera_to_worlds.cpu().double()).numpy()
    ways: dict[str, Callable[[int], Picture]] = {
        "volume": lambda k: model.volume_picture(cameras[k : k + 1])["rgb"].cpu().numpy(),
        "traced": lambda k: draw_picture(model, cameras[k : k + 1].to(model.device))["rgb"].cpu().numpy(),
    }
    exported = folder / "export"
    for name in ("mesh.ply", "mesh.glb"):
        mesh = Painted.read(exported / name)
        ways[name] = lambda k, mesh=mesh: draw(mesh, _pinhole(cameras, data, k), background)[0]
    splats = _Splats(exported / "splats.ply")
    ways["splats.ply"] = lambda k: splats.drawn(_pinhole(cameras, data, k), background)
    row: dict[str, Any] = {"views": len(photos), "size_px": [int(cameras.width[0]), int(cameras.height[0])]}
    with torch.no_grad():
        for name, way in ways.items():
            way(0)  # compiles
            spent = time.process_time()
            errors = [np.square(way(k).clip(0.0, 1.0) - photo).mean() for k, photo in enumerate(photos)]
            row[f"{name}_cpu_s"] = round((time.process_time() - spent) / len(photos), 3)
            row[f"{name}_psnr"] = round(float(np.mean(-10.0 * np.log10(errors))), 2)
    shape = trimesh.load(exported / "mesh.ply", process=False)
    row |= {"faces": len(shape.faces), "pieces": shape.body_count, "watertight": bool(shape.is_watertight)}
    row["consistent_winding"] = bool(shape.is_winding_consistent)
    return row | {f"{name}_mb": round((exported / name).stat().st_size / 1e6, 1) for name in ("mesh.glb", "splats.ply")}


def _refined(pipeline: Any, chosen: list[int], loaded: list[tuple[Any, torch.Tensor]]) -> Any:
    """Test cameras of the world, as evaluation refines them."""
    from craym_nerfstudio.cameras.photometric import frozen, refine_cameras, with_poses

    rays = pipeline.config.test_pose_rays
    start = pipeline.placed_test_c2w()[chosen].float().to(pipeline.device)
    cameras, images = (
        with_poses(pipeline.datamanager.eval_cameras[torch.tensor(chosen)], start),
        [image for _, image in loaded],
    )
    with frozen(pipeline.craym_model):
        poses = refine_cameras(
            lambda bundle: pipeline.model(bundle)["rgb"], cameras, images, [None] * len(images), POSE_STEPS, rays
        )
    return with_poses(cameras, poses.detach())


def _on(photo: Picture, background: np.ndarray) -> Picture:
    return photo if photo.shape[-1] == 3 else photo[..., :3] * photo[..., 3:] + background * (1.0 - photo[..., 3:])


def _pinhole(cameras: Any, c2w: np.ndarray, k: int) -> Pinhole:
    focal, center = ((float(getattr(cameras, a)[k]), float(getattr(cameras, b)[k])) for a, b in _LENS)
    return Pinhole(c2w[k], focal, center, (int(cameras.width[k]), int(cameras.height[k])))


_LENS = (("fx", "fy"), ("cx", "cy"))


class _Splats:
    """A file of Gaussians as 3D Gaussian Splatting writes it."""

    def __init__(self, path: Path) -> None:
        from plyfile import PlyData

        rows = PlyData.read(str(path))["vertex"].data

        def columns(*names: str) -> np.ndarray:
            return np.stack([rows[name] for name in names], axis=-1).astype(np.float64)

        rest = sum(name.startswith("f_rest_") for name in rows.dtype.names)
        dc = columns("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
        higher = columns(*(f"f_rest_{k}" for k in range(rest))).reshape(len(rows), 3, -1) if rest else dc[:, :, :0]
        self.gaussians = (
            columns("x", "y", "z"),
            np.exp(columns("scale_0", "scale_1", "scale_2")),
            columns("rot_0", "rot_1", "rot_2", "rot_3"),
            1.0 / (1.0 + np.exp(-columns("opacity")[:, 0])),
            np.concatenate([dc, higher.transpose(0, 2, 1)], axis=1) if rest else dc,
        )

    def drawn(self, camera: Pinhole, background: np.ndarray) -> Picture:
        from tests.export.splat_compositor import composite

        place = (camera.c2w, camera.focal_px, camera.center_px, camera.size_px)
        return composite(*self.gaussians, *place, background)


def main() -> None:
    """Measure all runs and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="NAME=FOLDER of exported runs")
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--views", type=int, default=10, help="test views that are drawn, at most")
    given = parser.parse_args()
    rows = {}
    for each in given.runs:
        name, _, folder = each.partition("=")
        rows[name] = measure(Path(folder), given.views)
        print(name, rows[name], flush=True)
    keep(given.output, {"command": command(), "machine": machine(torch.device("cpu")), "runs": rows})


if __name__ == "__main__":
    main()
