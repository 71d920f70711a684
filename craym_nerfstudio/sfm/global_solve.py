"""Poses from matches alone: pycolmap's global mapper (rotation averaging, global positioning, bundle adjustment).

The mapper sees virtual pinhole cameras whose keypoints are made from bearings, so that any lens is served and its
focal length stays as it is.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from craym_nerfstudio.geometry.axes import flip_motion_axes, flip_pose_axes
from craym_nerfstudio.geometry.lie import inverse
from craym_nerfstudio.geometry.pinhole import plane_from_bearings
from craym_nerfstudio.sfm.ray_graph import MatchMask, RayGraph

_MIN_FORWARD = 0.1
"""Cosine to the optical axis under which a ray has no place in a pinhole image."""

_VIRTUAL_SIZE_PX = 4000
"""Side of the virtual images; keypoints are centred in it."""


MappedPair = tuple[Int[np.ndarray, "2"], Float[np.ndarray, "3 4"], Int[np.ndarray, "matches 2"]]
"""Two images, their motion ``x_j = R x_i + t`` in OpenGL camera frames, and the keypoints that match under it."""


@dataclass(frozen=True)
class Component:
    """Cameras solved together, in a frame and scale of their own."""

    cameras: Int[np.ndarray, " some"]
    c2w: Float[np.ndarray, "some 3 4"]


def solve_globally(graph: RayGraph, keep: MatchMask, seed: int) -> list[Component]:
    """Every connected set of at least three cameras that the mapper can solve, largest first; [] when none."""
    import pycolmap

    manager = pycolmap.ReconstructionManager()
    with quiet("ERROR"):
        database = _database(graph, keep)
        if database is None:
            return []
        pycolmap.GlobalPipeline(_options(seed), database, manager).run()
    components = [Component(*poses_of(manager.get(k))) for k in range(manager.size())]
    return sorted((c for c in components if len(c.cameras) >= 3), key=lambda c: (-len(c.cameras), c.cameras[0]))


@contextmanager
def quiet(above: Literal["ERROR", "FATAL"]) -> Iterator[None]:
    """pycolmap's mappers log every stage; only what is as bad as this passes."""
    import pycolmap

    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(getattr(pycolmap.logging.Level, above))
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level


def _options(seed: int) -> Any:
    """One round of the mapper's bundle adjustment is enough: ours follows."""
    options = repeatable_options(seed)
    options.mapper.ba_num_iterations = 1
    options.mapper.skip_retriangulation = True
    adjustment = options.mapper.bundle_adjustment
    adjustment.refine_focal_length = False
    adjustment.refine_extra_params = False
    adjustment.print_summary = False
    return options


def repeatable_options(seed: int) -> Any:
    """Of pycolmap's global mapper, for relative poses that are given: seeded and single-threaded."""
    import pycolmap

    options = pycolmap.GlobalPipelineOptions()
    options.decompose_relative_pose = False
    options.min_num_matches = 1
    options.random_seed = options.mapper.random_seed = seed
    options.num_threads = options.mapper.num_threads = 1
    options.mapper.rotation_averaging.random_seed = seed
    options.mapper.global_positioning.random_seed = seed
    return options


def _database(graph: RayGraph, keep: MatchMask) -> Any:
    """What the mapper reads, one virtual camera per focal length; None without any pair."""
    import pycolmap

    side = _VIRTUAL_SIZE_PX
    focal_px, camera_of = np.unique(graph.focal_px, return_inverse=True)
    cameras = [
        pycolmap.Camera(model="PINHOLE", width=side, height=side, params=[focal, focal, side / 2, side / 2])
        for focal in focal_px.tolist()
    ]
    for camera in cameras:
        camera.has_prior_focal_length = True
    names = [f"{image:06d}" for image in range(graph.num_images)]
    keypoints, local = _keypoints(graph)
    return make_database(cameras, camera_of, names, keypoints, _pairs(graph, keep, local))


def _keypoints(graph: RayGraph) -> tuple[list[Float[np.ndarray, "n 2"]], Int[np.ndarray, " nodes"]]:
    """Virtual keypoints of every image; each node's number within its image, -1 where it has no place."""
    local, keypoints = np.full(len(graph.image), -1), []
    forward = -graph.bearing[:, 2]
    for image in range(graph.num_images):
        nodes = np.nonzero((graph.image == image) & (forward > _MIN_FORWARD))[0]
        local[nodes] = np.arange(len(nodes))
        keypoints.append(plane_from_bearings(graph.bearing[nodes]) * graph.focal_px[image] + _VIRTUAL_SIZE_PX / 2)
    return keypoints, local


def _pairs(graph: RayGraph, keep: MatchMask, local: Int[np.ndarray, " nodes"]) -> Iterator[MappedPair]:
    """Every pair that has matches to keep."""
    ends, pair_of_match = local[graph.ends], graph.matches.pair_of_match
    usable = np.nonzero(keep & (ends >= 0).all(-1))[0]
    usable = usable[np.argsort(pair_of_match[usable], kind="stable")]
    numbers, starts = np.unique(pair_of_match[usable], return_index=True)
    for number, chosen in zip(numbers, np.split(usable, starts)[1:], strict=True):
        yield graph.matches.pairs[number], graph.pair_motion[number], ends[chosen]


def make_database(
    cameras: Sequence[Any],
    camera_of: Int[np.ndarray, " images"],
    names: Sequence[str],
    keypoints: Sequence[Float[np.ndarray, "n 2"]],
    pairs: Iterable[MappedPair],
) -> Any:
    """A database in memory, as pycolmap's mappers read it; ids count from 1. None without any pair.

    Every camera is a rig of its own, and every image a frame.
    """
    import pycolmap

    database, sensors = pycolmap.Database.open(":memory:"), []
    for number, camera in enumerate(cameras, start=1):
        camera.camera_id = number
        database.write_camera(camera, True)
        sensors.append(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, number))
        rig = pycolmap.Rig()
        rig.rig_id = number
        rig.add_ref_sensor(sensors[-1])
        database.write_rig(rig, True)
    for number, (name, camera, found) in enumerate(zip(names, camera_of.tolist(), keypoints, strict=True), start=1):
        database.write_image(pycolmap.Image(name=name, camera_id=camera + 1, image_id=number), True)
        frame = pycolmap.Frame()
        frame.frame_id, frame.rig_id = number, camera + 1
        frame.add_data_id(pycolmap.data_t(sensors[camera], number))
        database.write_frame(frame, True)
        database.write_keypoints(number, found.astype(np.float32).reshape(-1, 2))
    has_pairs = False
    for images, motion, matches in pairs:
        first, second = (int(image) + 1 for image in images)
        flipped, has_pairs = flip_motion_axes(motion), True
        geometry = pycolmap.TwoViewGeometry()
        geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
        geometry.cam2_from_cam1 = pycolmap.Rigid3d(pycolmap.Rotation3d(flipped[:, :3]), flipped[:, 3])
        geometry.E = pycolmap.essential_matrix_from_pose(geometry.cam2_from_cam1)
        geometry.inlier_matches = matches.astype(np.uint32)
        database.write_matches(first, second, geometry.inlier_matches)
        database.write_two_view_geometry(first, second, geometry)
    return database if has_pairs else None


def poses_of(reconstruction: Any) -> tuple[Int[np.ndarray, " some"], Float[np.ndarray, "some 3 4"]]:
    """Image numbers, ascending, and OpenGL camera-to-world poses of what a reconstruction placed."""
    ids = sorted(reconstruction.reg_image_ids())
    w2c = np.stack([reconstruction.image(number).cam_from_world().matrix() for number in ids])
    return np.asarray(ids) - 1, flip_pose_axes(inverse(torch.from_numpy(w2c)).numpy())
