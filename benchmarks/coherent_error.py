"""Which property of a scene makes keypoints err alike, which is what limits stage 0.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.coherent_error --output benchmarks/results/coherent_error.json

Stage 0 runs from `barf` noise on one object in several guises (`property_scenes`) and on scenes at hand. Then the
bundle is adjusted again from the true poses, with the keypoints that stage 0 believed: as they are; with their
residuals (against the true poses) dealt out anew over all observations; and within tracks alone. What dealing out takes
away is the error that observations share, what remains is what as many independent ones would leave.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.harness import command, keep, machine
from benchmarks.property_scenes import GUISES, write_guise
from benchmarks.stage0 import Case, errors, load_views
from benchmarks.suite import DATA
from craym_nerfstudio.data.config import SceneConfig
from craym_nerfstudio.data.scene import read_scene
from craym_nerfstudio.geometry.alignment import align_poses
from craym_nerfstudio.geometry.lie import so3_log
from craym_nerfstudio.matching.find import find_matches
from craym_nerfstudio.sfm.adjust import adjust_rays
from craym_nerfstudio.sfm.bundle import adjust_bundle
from craym_nerfstudio.sfm.normal_equations import RayObservations
from craym_nerfstudio.sfm.result import StageZero
from craym_nerfstudio.sfm.triangulate import triangulate

_LOSS_SCALE, _ITERATIONS, _NEIGHBOURS = 1.7, 30, 4
SCENES = ("still_life", "chair_400", "lego_400")


def tangents(bearing: Float[Tensor, "obs 3"]) -> Float[Tensor, "obs 2 3"]:
    """Two unit vectors across each bearing, about right and up in the image."""
    up = torch.tensor([0.0, 1.0, 0.0], dtype=bearing.dtype).expand_as(bearing)
    right = torch.nn.functional.normalize(torch.linalg.cross(up, -bearing, dim=-1), dim=-1)
    return torch.stack([right, torch.linalg.cross(right, bearing, dim=-1)], dim=1)


def towards(
    points: Float[Tensor, "points 3"], seen: RayObservations, c2w: Float[Tensor, "cams 3 4"]
) -> Float[Tensor, "obs 3"]:
    """Unit bearings at which the poses see the points."""
    offset = points[seen.point] - c2w[seen.camera, :, 3]
    return torch.nn.functional.normalize((offset[:, None] @ c2w[seen.camera, :, :3])[:, 0], dim=-1)


def dealt_out(
    residual: Float[Tensor, "obs 2"], track: Int[Tensor, " obs"], within_tracks: bool, seed: int
) -> Float[Tensor, "obs 2"]:
    """The residuals in another order: any, or with each track keeping its own."""
    random = np.random.RandomState(seed).uniform(size=len(track))
    if not within_tracks:
        return residual[torch.from_numpy(np.argsort(random))]
    # Sorted by track both times, so that each place gets one of its own track.
    order, places = np.lexsort((random, track.numpy())), np.argsort(track.numpy(), kind="stable")
    result = torch.empty_like(residual)
    result[torch.from_numpy(places)] = residual[torch.from_numpy(order)]
    return result


def neighbours_agree(c2w: Float[Tensor, "cams 3 4"], true: Float[Tensor, "cams 3 4"]) -> float:
    """Correlation of each camera's rotation error with the mean of its nearest neighbours', over all components."""
    aligned = align_poses(c2w, true).poses(c2w)
    error = so3_log(true[:, :, :3] @ aligned[:, :, :3].transpose(-1, -2)).numpy()
    distance = torch.cdist(true[:, :, 3], true[:, :, 3]).fill_diagonal_(torch.inf)
    near = distance.argsort(dim=1)[:, :_NEIGHBOURS].numpy()
    return float(np.corrcoef(error.ravel(), error[near].mean(1).ravel())[0, 1])


def observed(stage: StageZero, focal_px: Float[np.ndarray, " cams"]) -> RayObservations:
    """The rays that stage 0 believed."""
    sigma = stage.keypoint_sigma_px / focal_px[stage.ray_image]
    values = (stage.ray_image, stage.ray_point, stage.ray_bearing.astype(np.float64), sigma)
    return RayObservations(*map(torch.from_numpy, values))


def from_truth(stage: StageZero, true: Float[Tensor, "cams 3 4"], focal_px: Float[np.ndarray, " cams"]) -> dict:
    """Errors of bundles that start at the true poses, their residuals as they are and dealt out."""
    seen = observed(stage, focal_px)
    point, points, _ = triangulate(true, stage.ray_image, seen.bearing.numpy(), stage.ray_point)
    seen = replace(seen, point=torch.from_numpy(point))

    def adjusted(observations: RayObservations, start: Tensor, held: bool = False) -> tuple[Tensor, Tensor]:
        fixed = torch.full((len(true),), held)
        options = {"prior": None, "loss_scale": _LOSS_SCALE, "max_iterations": _ITERATIONS}
        bundle = adjust_bundle(true, start, observations, fixed=fixed, **options)
        return bundle.c2w, bundle.points

    points = adjusted(seen, points, held=True)[1]
    predicted = towards(points, seen, true)
    across = tangents(predicted)
    residual = (across @ (seen.bearing / (seen.bearing * predicted).sum(-1, keepdim=True))[..., None])[..., 0]
    told = {"sigma_px": 1.4826 * float((residual * torch.from_numpy(focal_px)[seen.camera, None]).abs().median())}
    cases = {"as_is": residual}
    cases |= {
        name: dealt_out(residual, seen.point, within, 0) for name, within in (("within_tracks", True), ("dealt", False))
    }
    for name, each in cases.items():
        bearing = torch.nn.functional.normalize(predicted + (each[:, None] @ across)[:, 0], dim=-1)
        found = adjusted(replace(seen, bearing=bearing), points)[0]
        told[name] = errors(found.numpy(), true)
    return told


def measure(name: str, data_root: Path, work: Path) -> dict:
    """One scene, or the object in one guise."""
    if name in GUISES:
        folder = write_guise(work / "guises" / name.replace(", ", "-").replace(" ", "-"), name)
        scene = read_scene(SceneConfig(folder, eval_interval=0, pose_noise="barf", reference_poses=folder))
        assert scene.reference is not None
        views, true = scene.views, torch.from_numpy(scene.reference.train_c2w)
    else:
        views, true, _ = load_views(Case(name, "barf"), data_root)
        assert true is not None
    stage = adjust_rays(views, find_matches(views, "sift", work / "cache"))
    found = torch.from_numpy(stage.c2w)
    return {
        "name": name,
        "is_guise": name in GUISES,
        "views": len(true),
        "rays": len(stage.ray_point),
        "points": len(stage.points),
        "stage0": errors(stage.c2w, true),
        "neighbours_agree": neighbours_agree(found, true),
        **from_truth(stage, true, np.asarray(views.focal_px, dtype=np.float64)),
    }


def main() -> None:
    """Measure one after the other and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--data-root", type=Path, default=DATA)
    parser.add_argument("--work", type=Path, default=Path("outputs/benchmarks"))
    parser.add_argument("--only", nargs="+", default=[*SCENES, *GUISES], choices=[*SCENES, *GUISES])
    given = parser.parse_args()
    about, rows = {"command": command()}, []
    for name in given.only:
        rows.append(measure(name, given.data_root, given.work))
        row = rows[-1]
        shown = [row["stage0"], *(row[key] for key in ("as_is", "within_tracks", "dealt"))]
        print(name, *(f"{each['rotation_deg']:.4f}" for each in shown), flush=True)
        keep(given.output, {**about, "machine": machine(torch.device("cpu")), "rows": rows})


if __name__ == "__main__":
    main()
