"""What is drawn into the viewer's scene, as numbers in the world; here they get into the viewer's frame."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.rendering.key_rays import matchability
from craym_nerfstudio.sfm.result import StageZero
from craym_nerfstudio.sfm.triangulate import triangulate

if TYPE_CHECKING:
    from craym_nerfstudio.model import CraymModel

SCENE_SCALE = 10.0
"""The host's, from the world to the viewer's scene."""
_GOOD, _MIDDLE, _BAD = np.array([40, 190, 90]), np.array([250, 200, 40]), np.array([230, 50, 40])


@dataclass(frozen=True)
class ViserPose:
    """A camera as viser wants it: OpenCV axes as a quaternion, and a position in the viewer's scene."""

    wxyz: Float[np.ndarray, "4"]
    position: Float[np.ndarray, "3"]

    @classmethod
    def of(cls, c2w: Float[np.ndarray, "3 4"]) -> "ViserPose":
        """From a pose in the world with OpenGL axes."""
        from scipy.spatial.transform import Rotation

        turned = Rotation.from_matrix(c2w[:, :3] * [1.0, -1.0, -1.0])
        return cls(turned.as_quat()[[3, 0, 1, 2]], c2w[:, 3] * SCENE_SCALE)

    def c2w(self) -> Float[np.ndarray, "3 4"]:
        """The inverse of `of`."""
        from scipy.spatial.transform import Rotation

        rotation = Rotation.from_quat(np.asarray(self.wxyz)[[1, 2, 3, 0]]).as_matrix() * [1.0, -1.0, -1.0]
        return np.concatenate([rotation, np.asarray(self.position)[:, None] / SCENE_SCALE], axis=1)


def in_scene(points: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3"]:
    """Points of the world in the viewer's scene."""
    return points * SCENE_SCALE


def traffic_light(badness: Float[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 3"]:
    """Green for 0, yellow for 0.5, red for 1 and more; grey for NaN."""
    share = np.nan_to_num(badness.clip(0.0, 1.0))[:, None]
    low, high = np.minimum(2.0 * share, 1.0), np.maximum(2.0 * share - 1.0, 0.0)
    colors = _GOOD + (_MIDDLE - _GOOD) * low + (_BAD - _MIDDLE) * high
    return np.where(np.isnan(badness)[:, None], 128, colors).astype(np.uint8)


@dataclass(frozen=True)
class MatchedRays:
    """Matched rays of one pair of cameras, and the points that their tracks meet in (world)."""

    bearings: Float[np.ndarray, "n 2 3"]
    points: Float[np.ndarray, "n 3"]


def rays_of_tracks(stage: StageZero, c2w: Float[np.ndarray, "cams 3 4"], first: int, second: int) -> MatchedRays:
    """Rays of stage 0's tracks that both cameras see, with their points under the poses `c2w`."""
    stage = stage.under(c2w)
    in_first, in_second = (np.flatnonzero(stage.ray_image == camera) for camera in (first, second))
    ids, a, b = np.intersect1d(stage.ray_point[in_first], stage.ray_point[in_second], return_indices=True)
    bearings = np.stack([stage.ray_bearing[in_first[a]], stage.ray_bearing[in_second[b]]], axis=1)
    return MatchedRays(bearings, stage.points[ids])


def rays_of_matches(matches: Matches, c2w: Float[np.ndarray, "cams 3 4"], first: int, second: int) -> MatchedRays:
    """Matched rays of two cameras, and the points nearest to each two of them."""
    images = matches.images
    forward = (images == (first, second)).all(1)
    chosen = np.flatnonzero(forward | (images == (second, first)).all(1))
    bearings = matches.bearings[chosen].astype(np.float64)
    bearings[~forward[chosen]] = bearings[~forward[chosen]][:, ::-1]
    if not len(chosen):
        return MatchedRays(bearings, np.zeros((0, 3)))
    track, image = np.repeat(np.arange(len(chosen)), 2), np.tile([first, second], len(chosen))
    _, points, _ = triangulate(torch.from_numpy(c2w), image, bearings.reshape(-1, 3), track)
    return MatchedRays(bearings, points.numpy())


def partners(stage: StageZero | None, matches: Matches | None, camera: int) -> Int[np.ndarray, " others"]:
    """Cameras that share matched rays with one, those with most first."""
    if matches is not None:
        images = matches.images
        others = images[(images == camera).any(1)]
        others = others[others != camera]
    elif stage is not None:
        seen = np.unique(stage.ray_point[stage.ray_image == camera])
        others = stage.ray_image[np.isin(stage.ray_point, seen) & (stage.ray_image != camera)]
    else:
        return np.zeros(0, dtype=np.int64)
    numbers, counts = np.unique(others, return_counts=True)
    return numbers[np.argsort(-counts, kind="stable")]


@torch.no_grad()
def agreement(
    model: "CraymModel", c2w: Float[np.ndarray, "2 3 4"], bearings: Float[np.ndarray, "n 2 3"]
) -> Float[Tensor, " n"]:
    """Matchability w (Eq. 3) of matched rays of two cameras, as the field sees them now."""
    if not len(bearings):
        return torch.zeros(0)
    unit, device = model.world_from_unit.cpu().inverse(), model.device
    poses = torch.from_numpy(c2w)
    towards = torch.einsum("vij,nvj->nvi", poses[:, :, :3], torch.from_numpy(bearings))
    origins = unit.points(poses[:, :, 3]).expand_as(towards)
    rays = [part.reshape(-1, 3).float().to(device) for part in (origins, towards)]
    return matchability(model.ray_features(*rays).unflatten(0, (-1, 2)))


def surface_mesh(
    model: "CraymModel",
) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "m 3"], UInt8[np.ndarray, "n 3"]] | None:
    """The surface as the tracer's cached distances know it, in the world, with colours; None where there is none."""
    from skimage.measure import marching_cubes

    values = model.tracer.grid.values[0, 0].cpu().numpy()
    axis = np.linspace(-1.0, 1.0, len(values))
    reach = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    if not values[reach < 1.0].min() < 0.0 < values[reach < 1.0].max():
        return None
    # The grid is [z, y, x], which also turns the faces round.
    corners, faces, _, _ = marching_cubes(values, 0.0, mask=reach < 1.0)
    vertices = (corners[:, ::-1] * model.tracer.grid.cell - 1.0).astype(np.float32)
    colors = model.tracer.colors(torch.from_numpy(vertices).to(model.device)).cpu().numpy()
    world = model.world_from_unit.cpu().points(torch.from_numpy(vertices).double()).numpy()
    return world, faces[:, ::-1], (255.0 * colors).astype(np.uint8)
