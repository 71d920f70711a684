"""Poses from matches alone: pycolmap's global mapper (rotation averaging, global positioning, bundle adjustment).

The mapper sees virtual pinhole cameras whose keypoints are made from bearings, so that any lens is served and its
focal length stays as it is.
"""

from collections.abc import Iterator
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
from craym_nerfstudio.stops import at_once, load_pycolmap

_MIN_FORWARD = 0.1
"""Cosine to the optical axis under which a ray has no place in a pinhole image."""

_VIRTUAL_SIZE_PX = 4000
"""Side of the virtual images; keypoints are centred in it."""


@dataclass(frozen=True)
class Component:
    """Cameras solved together, in a frame and scale of their own."""

    cameras: Int[np.ndarray, " some"]
    c2w: Float[np.ndarray, "some 3 4"]


def solve_globally(graph: RayGraph, keep: MatchMask, seed: int) -> list[Component]:
    """Every connected set of at least three cameras that the mapper can solve, largest first; [] when none."""
    pycolmap = load_pycolmap()

    if not keep.any():
        return []
    database = pycolmap.Database.open(":memory:")
    manager = pycolmap.ReconstructionManager()
    with quiet("ERROR"):
        _write_cameras(pycolmap, database, graph)
        local = _write_keypoints(database, graph)
        if _write_pairs(pycolmap, database, graph, keep, local) == 0:
            return []
        pycolmap.GlobalPipeline(_options(pycolmap, seed), database, manager).run()
    components = [_component(manager.get(k)) for k in range(manager.size())]
    return sorted((c for c in components if len(c.cameras) >= 3), key=lambda c: (-len(c.cameras), c.cameras[0]))


@contextmanager
def quiet(above: Literal["ERROR", "FATAL"]) -> Iterator[None]:
    """pycolmap's mappers log every stage, and see no signal; only what is as bad as this passes, and SIGTERM."""
    pycolmap = load_pycolmap()

    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(getattr(pycolmap.logging.Level, above))
    try:
        with at_once():
            yield
    finally:
        pycolmap.logging.minloglevel = level


def _options(pycolmap: Any, seed: int) -> Any:
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
    pycolmap = load_pycolmap()

    options = pycolmap.GlobalPipelineOptions()
    options.decompose_relative_pose = False
    options.min_num_matches = 1
    options.random_seed = options.mapper.random_seed = seed
    options.num_threads = options.mapper.num_threads = 1
    options.mapper.rotation_averaging.random_seed = seed
    options.mapper.global_positioning.random_seed = seed
    return options


def _write_cameras(pycolmap: Any, database: Any, graph: RayGraph) -> None:
    """One virtual pinhole camera and trivial rig per focal length, one image and frame per view; ids count from 1."""
    center = _VIRTUAL_SIZE_PX / 2
    sensors = {}
    for number, focal in enumerate(sorted(set(graph.focal_px.tolist())), start=1):
        camera = pycolmap.Camera(
            model="PINHOLE", width=_VIRTUAL_SIZE_PX, height=_VIRTUAL_SIZE_PX, params=[focal, focal, center, center]
        )
        camera.camera_id, camera.has_prior_focal_length = number, True
        database.write_camera(camera, True)
        sensors[focal] = pycolmap.sensor_t(pycolmap.SensorType.CAMERA, number)
        rig = pycolmap.Rig()
        rig.rig_id = number
        rig.add_ref_sensor(sensors[focal])
        database.write_rig(rig, True)
    for image in range(graph.num_images):
        sensor = sensors[float(graph.focal_px[image])]
        database.write_image(pycolmap.Image(name=f"{image:06d}", camera_id=sensor.id, image_id=image + 1), True)
        frame = pycolmap.Frame()
        frame.frame_id, frame.rig_id = image + 1, sensor.id
        frame.add_data_id(pycolmap.data_t(sensor, image + 1))
        database.write_frame(frame, True)


def _write_keypoints(database: Any, graph: RayGraph) -> Int[np.ndarray, " nodes"]:
    """Virtual keypoints of every image; returns each node's number within its image, -1 where it has no place."""
    local = np.full(len(graph.image), -1)
    forward = -graph.bearing[:, 2]
    for image in range(graph.num_images):
        nodes = np.nonzero((graph.image == image) & (forward > _MIN_FORWARD))[0]
        local[nodes] = np.arange(len(nodes))
        keypoints = plane_from_bearings(graph.bearing[nodes]) * graph.focal_px[image] + _VIRTUAL_SIZE_PX / 2
        database.write_keypoints(image + 1, keypoints.astype(np.float32).reshape(-1, 2))
    return local


def _write_pairs(
    pycolmap: Any, database: Any, graph: RayGraph, keep: MatchMask, local: Int[np.ndarray, " nodes"]
) -> int:
    """Matches and calibrated two-view geometry of every pair that has some; returns how many pairs."""
    ends, pair_of_match = local[graph.ends], graph.matches.pair_of_match
    usable = np.nonzero(keep & (ends >= 0).all(-1))[0]
    usable = usable[np.argsort(pair_of_match[usable], kind="stable")]
    numbers, starts = np.unique(pair_of_match[usable], return_index=True)
    for number, chosen in zip(numbers, np.split(usable, starts[1:]), strict=True):
        first, second = (int(v) + 1 for v in graph.matches.pairs[number])
        indices = ends[chosen].astype(np.uint32)
        motion = flip_motion_axes(graph.pair_motion[number])
        geometry = pycolmap.TwoViewGeometry()
        geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
        geometry.cam2_from_cam1 = pycolmap.Rigid3d(pycolmap.Rotation3d(motion[:, :3]), motion[:, 3])
        geometry.E = pycolmap.essential_matrix_from_pose(geometry.cam2_from_cam1)
        geometry.inlier_matches = indices
        database.write_matches(first, second, indices)
        database.write_two_view_geometry(first, second, geometry)
    return len(numbers)


def _component(reconstruction: Any) -> Component:
    """Registered cameras of a reconstruction in OpenGL axes."""
    numbers = sorted(reconstruction.reg_image_ids())
    w2c = np.stack([reconstruction.image(n).cam_from_world().matrix() for n in numbers])
    c2w = flip_pose_axes(inverse(torch.from_numpy(w2c)).numpy())
    return Component(np.asarray(numbers) - 1, c2w)
