"""Cameras that the global solution leaves out: registered against its points, or predicted from their neighbours."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from craym_nerfstudio.geometry.alignment import mean_rotation
from craym_nerfstudio.geometry.axes import flip_pose_axes
from craym_nerfstudio.geometry.lie import compose, inverse, rotation_angle_deg
from craym_nerfstudio.geometry.pinhole import plane_from_bearings
from craym_nerfstudio.sfm.gauge import frame_of
from craym_nerfstudio.sfm.global_solve import Component
from craym_nerfstudio.sfm.ray_graph import CameraMask, MatchMask, Poses, RayGraph
from craym_nerfstudio.sfm.structure import Structure
from craym_nerfstudio.stops import load_pycolmap

MIN_RAYS = 12
"""Fewer rays to known points do not make a pose."""

_MAX_TURN_DEG = 60.0
"""A camera registered late that turns further from its predicted pose has met a look-alike."""

_RESECTION_PX = 4.0
_NEIGHBOURS = 6


def stitch(components: list[Component], rough: Poses, fixed: CameraMask) -> tuple[Poses, CameraMask]:
    """Every component in the rough poses' frame, by a similarity of its own; rough poses and False elsewhere.

    A camera that two components claim stays with the larger one.
    """
    c2w, solved = rough.clone(), np.zeros(len(rough), dtype=bool)
    for component in components:
        own = torch.from_numpy(component.c2w)
        aligned = frame_of(own, rough[component.cameras], fixed[component.cameras]).poses(own)
        fresh = ~solved[component.cameras]
        c2w[component.cameras[fresh]] = aligned[torch.from_numpy(fresh)]
        solved[component.cameras] = True
    return c2w, solved


def resect(
    graph: RayGraph, structure: Structure, c2w: Poses, solved: CameraMask, keep: MatchMask, seed: int
) -> tuple[Poses, CameraMask]:
    """Poses of further cameras from their matches to known points; the camera with most of them first.

    `c2w` holds a guess for every camera not `solved`; a pose that turns by more than 60 degrees from it is not
    believed. Returns new poses and the cameras solved, the old ones included.
    """
    pycolmap = load_pycolmap()

    c2w, solved = c2w.clone(), solved.copy()
    seen = _points_per_match(graph, structure, keep)
    counts = np.bincount(graph.image[seen[:, 0]], minlength=graph.num_images)
    for image in np.argsort(-counts, kind="stable"):
        mine = seen[graph.image[seen[:, 0]] == image]
        if solved[image] or len(mine) < MIN_RAYS:
            continue
        pose = _absolute_pose(pycolmap, graph, mine, structure.points, seed)
        if pose is None or float(rotation_angle_deg(pose[:, :3].T @ c2w[image, :, :3])) > _MAX_TURN_DEG:
            continue
        c2w[image], solved[image] = pose, True
    return c2w, solved


def _points_per_match(graph: RayGraph, structure: Structure, keep: MatchMask) -> Int[np.ndarray, "found 2"]:
    """Unique (node, point) for nodes without a point that match a node with one."""
    point_of_node = np.full(len(graph.image), -1)
    point_of_node[structure.node] = structure.point
    both = np.concatenate([graph.ends[keep], graph.ends[keep][:, ::-1]])
    useful = (point_of_node[both[:, 0]] < 0) & (point_of_node[both[:, 1]] >= 0)
    pairs = np.stack([both[useful, 0], point_of_node[both[useful, 1]]], axis=1)
    return np.unique(pairs, axis=0)


def _absolute_pose(
    pycolmap: Any, graph: RayGraph, seen: Int[np.ndarray, "found 2"], points: Tensor, seed: int
) -> Float[Tensor, "3 4"] | None:
    """Pose c2w of one camera from (node, point) candidates, None when too few agree."""
    bearing = graph.bearing[seen[:, 0]]
    front = -bearing[:, 2] > 0.1
    if front.sum() < MIN_RAYS:
        return None
    focal = float(graph.focal_px[graph.image[seen[0, 0]]])
    plane = focal * plane_from_bearings(bearing[front])
    camera = pycolmap.Camera(model="PINHOLE", width=1, height=1, params=[focal, focal, 0.0, 0.0])
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = _RESECTION_PX
    options.ransac.random_seed = seed
    world = points[torch.from_numpy(seen[front, 1])].numpy()
    found = pycolmap.estimate_and_refine_absolute_pose(plane, world, camera, options)
    if found is None or found["num_inliers"] < MIN_RAYS:
        return None
    w2c = torch.from_numpy(np.asarray(found["cam_from_world"].matrix(), dtype=np.float64))
    return torch.from_numpy(flip_pose_axes(inverse(w2c).numpy()))


def predict(c2w: Poses, rough: Poses, solved: CameraMask) -> Poses:
    """Poses with those not `solved` predicted: nearby solved cameras carry the rough relative pose along.

    Each of the nearest solved cameras proposes ``c2w_k @ inverse(rough_k) @ rough``; proposals are averaged, nearer
    ones counting more.
    """
    c2w, missing = c2w.clone(), np.nonzero(~solved)[0]
    known = torch.from_numpy(np.nonzero(solved)[0])
    if len(known) == 0:
        return c2w
    extent = (rough[:, :, 3] - rough[:, :, 3].mean(0)).norm(dim=-1).mean().clamp_min(1e-12)
    for image in missing.tolist():
        apart = (rough[known, :, 3] - rough[image, :, 3]).norm(dim=-1) / extent
        turned = torch.deg2rad(rotation_angle_deg(rough[known, :, :3].transpose(1, 2) @ rough[image, :, :3]))
        near = (apart + turned).argsort()[:_NEIGHBOURS]
        chosen = known[near]
        proposals = compose(c2w[chosen], compose(inverse(rough[chosen]), rough[image].expand(len(chosen), 3, 4)))
        weight = 1 / (0.1 + (apart + turned)[near])
        weight = weight / weight.sum()
        center = (weight[:, None] * proposals[:, :, 3]).sum(0)
        rotation = mean_rotation(proposals[:, :, :3] * weight[:, None, None] * len(chosen))
        c2w[image] = torch.cat([rotation, center[:, None]], dim=-1)
    return c2w
