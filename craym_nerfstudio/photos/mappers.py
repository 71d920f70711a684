"""pycolmap's mappers on the matches of photos: seeded, on one thread, silent."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int

from craym_nerfstudio.geometry.lie import inverse
from craym_nerfstudio.geometry.pinhole import bearings_from_plane
from craym_nerfstudio.photos.motions import Motions
from craym_nerfstudio.photos.pair_matches import PairMatches
from craym_nerfstudio.sfm.global_solve import MappedPair, make_database, quiet, repeatable_options
from craym_nerfstudio.sfm.reconstruction import make_reconstruction

_MODEL = "SIMPLE_RADIAL"
_TOLERANCE = 1e-8
"""Relative fall of the cost at which bundle adjustment ends; steps beyond move cameras by thousandths of a degree."""
_LOSS_SCALE = 0.5
"""Residual over the median one beyond which the Cauchy loss flattens. A wider one lets outlines, which wander over the
surface, shorten the focal length by per cents."""


@dataclass(frozen=True)
class PhotoCamera:
    """A camera in pixels of the matched images."""

    size_px: tuple[int, int]
    parameters: tuple[float, float, float, float]
    """Focal length, principal point (x, y), radial distortion: COLMAP's SIMPLE_RADIAL."""
    is_known: bool = False
    """The focal length is EXIF's; otherwise it is a guess or an estimate."""

    @classmethod
    def of(cls, size_px: tuple[int, int], focal_px: float, is_known: bool = False) -> "PhotoCamera":
        """A lens without distortion, before the middle of the image."""
        return cls(size_px, (focal_px, size_px[0] / 2, size_px[1] / 2, 0.0), is_known)

    @property
    def focal_px(self) -> float:
        """Focal length."""
        return self.parameters[0]

    def of_pycolmap(self) -> Any:
        """The same as a ``pycolmap.Camera``."""
        import pycolmap

        width, height = self.size_px
        camera = pycolmap.Camera(model=_MODEL, width=width, height=height, params=list(self.parameters))
        camera.has_prior_focal_length = self.is_known
        return camera

    def bearings(self, keypoints: Float32[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 3"]:
        """Unit OpenGL directions of pixels, distortion removed."""
        plane = np.asarray(self.of_pycolmap().cam_from_img(keypoints.astype(np.float64))).reshape(-1, 2)
        return bearings_from_plane(plane)


@dataclass(frozen=True)
class Problem:
    """Photos with keypoints and matches, and what is assumed of their cameras."""

    names: Sequence[str]
    cameras: Sequence[PhotoCamera]
    camera_of: Int[np.ndarray, " photos"]
    keypoints: Sequence[Float32[np.ndarray, "n 2"]]
    matches: PairMatches

    @property
    def focal_px(self) -> Float[np.ndarray, " photos"]:
        """Focal length of every photo."""
        return np.array([camera.focal_px for camera in self.cameras])[self.camera_of]

    def bearings(self) -> list[Float[np.ndarray, "n 3"]]:
        """Unit OpenGL directions of all keypoints, photo by photo."""
        return [self.cameras[c].bearings(k) for c, k in zip(self.camera_of, self.keypoints, strict=True)]


def map_globally(problem: Problem, motions: Motions, seed: int, quick: bool = False) -> list[Any]:
    """Reconstructions of all connected sets that the global mapper can solve, the largest first.

    A `quick` one ends after the first bundle adjustment: enough for a focal length.
    """
    import pycolmap

    options = repeatable_options(seed)
    options.mapper.retriangulation.random_seed = seed
    options.mapper.bundle_adjustment.ceres.solver_options.num_threads = 1
    # A guessed focal length wants its correction before distortion could stand in for it.
    options.mapper.bundle_adjustment.refine_extra_params = False
    if quick:
        options.mapper.ba_num_iterations = 1
        options.mapper.skip_retriangulation = True
    return _mapped(pycolmap.GlobalPipeline, options, problem, motions)


def map_incrementally(problem: Problem, motions: Motions, seed: int) -> list[Any]:
    """The same by the incremental mapper."""
    import pycolmap

    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = options.mapper.random_seed = seed
    options.num_threads = options.mapper.num_threads = 1
    options.extract_colors = False
    options.min_model_size = 3
    options.ba_refine_extra_params = options.mapper.abs_pose_refine_extra_params = False
    return _mapped(pycolmap.IncrementalPipeline, options, problem, motions)


def posed_pair(problem: Problem, motions: Motions) -> Any:
    """The reconstruction of two photos: their relative motion, without points."""
    c2w = np.stack([np.eye(3, 4), inverse(torch.from_numpy(motions.motion[0])).numpy()])
    cameras = [problem.cameras[number].of_pycolmap() for number in problem.camera_of]
    return make_reconstruction(problem.names, c2w, cameras)


def loss_scale(reconstruction: Any) -> float:
    """Residual in px at which the loss of bundle adjustment flattens."""
    reconstruction.update_point_3d_errors()
    errors = [point.error for point in reconstruction.points3D.values()]
    return max(_LOSS_SCALE * float(np.median(errors)), 1e-6) if errors else 1.0


def adjust_bundle(reconstruction: Any, scale_px: float, distortion: bool = False, center: bool = False) -> float:
    """Bundle adjustment of poses, points and focal lengths (in place); returns the mean loss that is left.

    Radial distortion and principal points are adjusted where asked for. The loss, Cauchy's, has no unit.
    """
    import pycolmap

    options = pycolmap.BundleAdjustmentOptions()
    options.refine_extra_params = distortion
    options.refine_principal_point = center
    options.print_summary = False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = scale_px
    options.ceres.solver_options.num_threads = 1
    options.ceres.solver_options.function_tolerance = _TOLERANCE
    config = pycolmap.BundleAdjustmentConfig()
    for number in reconstruction.reg_image_ids():
        config.add_image(number)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    with quiet("FATAL"):
        # Not `pycolmap.bundle_adjustment`: that one logs whatever the level.
        summary: Any = pycolmap.create_default_bundle_adjuster(options, config, reconstruction).solve()
    reconstruction.update_point_3d_errors()
    return 2.0 * summary.ceres_summary.final_cost / scale_px**2 / max(1, reconstruction.compute_num_observations())


def _mapped(pipeline: Callable[..., Any], options: Any, problem: Problem, motions: Motions) -> list[Any]:
    """What one of pycolmap's pipelines makes of the pairs that agree with each other, the largest first."""
    import pycolmap

    manager = pycolmap.ReconstructionManager()
    cameras = [camera.of_pycolmap() for camera in problem.cameras]
    pairs = _agreeing_pairs(problem.matches, motions)
    with quiet("FATAL"):
        database = make_database(cameras, problem.camera_of, problem.names, problem.keypoints, pairs)
        if database is not None:
            pipeline(options, database, manager).run()
    models = [manager.get(number) for number in range(manager.size())]
    return sorted(models, key=lambda model: (-model.num_reg_images(), min(model.reg_image_ids(), default=0)))


def _agreeing_pairs(matches: PairMatches, motions: Motions) -> Iterator[MappedPair]:
    starts = np.searchsorted(matches.pair_of_match, np.arange(len(matches.pairs) + 1))
    for number in np.flatnonzero(motions.agrees).tolist():
        rows = slice(starts[number], starts[number + 1])
        yield matches.pairs[number], motions.motion[number], matches.keypoint_ids[rows][motions.explained[rows]]
