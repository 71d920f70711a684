"""The refined cameras of a data set, in the data's frame and units, with what stage 0 found."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from craym_nerfstudio.cameras.selection import is_called
from craym_nerfstudio.data.calibration import calibrated_lens
from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.data.scene import Scene
from craym_nerfstudio.export.run import Run, stage_zero
from craym_nerfstudio.sfm.result import Intrinsics, StageZero


@dataclass(frozen=True)
class RefinedCameras:
    """Training images with the (refined) intrinsics of their original size; poses in the data's frame, OpenGL axes."""

    frames: Frames
    """``c2w`` holds the refined poses."""
    given_c2w: Float[np.ndarray, "cams 3 4"]
    fixed: Bool[np.ndarray, " cams"]
    test: Frames
    """The test images."""
    stage: StageZero | None = None
    """Under the refined poses, in the data's frame; None where it did not run."""
    size_px: Int[np.ndarray, "cams 2"] | None = None
    """Width and height that its keypoints refer to."""


def cameras_of_run(run: Run, refine_test: bool = False) -> RefinedCameras:
    """The cameras of a trained run, aligned to the data's frame as a whole; fixed ones exactly as they were given.

    Training moves no test images: `refine_test` takes them where `CraymPipeline.placed_test_c2w` has them, and refines
    them against the field.
    """
    pipeline = run.pipeline
    fixed = pipeline.craym_model.camera_optimizer.fixed.cpu().numpy()
    data_from_model, stage = pipeline.data_from_model(), stage_zero(run.folder)
    refined = pipeline.refined_c2w().double().numpy()
    if stage is not None:
        stage = stage.under(refined).moved(data_from_model)
    manager, own_test = pipeline.datamanager, ~np.isin(run.scene.test, run.scene.train)
    test_focal = tuple(focal for focal, own in zip(manager.test_focal, own_test, strict=False) if own)
    found = (manager.intrinsics, replace(manager.intrinsics, own_focal=test_focal))
    cameras = _refined(run.scene, data_from_model.poses(refined), fixed, stage, *found)
    if not refine_test or not len(cameras.test):
        return cameras
    c2w = data_from_model.poses(pipeline.refined_test_c2w().double().numpy()[own_test])
    held = [is_called(name, pipeline.config.start.fixed_cameras) for name in cameras.test.names]
    c2w[held] = cameras.test.c2w[held]
    return replace(cameras, test=replace(cameras.test, c2w=c2w))


def cameras_of_stage_zero(scene: Scene, stage: StageZero, fixed: Bool[np.ndarray, " cams"]) -> RefinedCameras:
    """The cameras as stage 0, run in the data's frame, leaves them."""
    found = stage.intrinsics or Intrinsics()
    return _refined(scene, stage.c2w.copy(), fixed, stage, found, replace(found, own_focal=()))


def _refined(
    scene: Scene,
    c2w: Float[np.ndarray, "cams 3 4"],
    fixed: Bool[np.ndarray, " cams"],
    stage: StageZero | None,
    intrinsics: Intrinsics,
    of_test: Intrinsics,
) -> RefinedCameras:
    c2w[fixed] = scene.rough_c2w[fixed]
    train = _calibrated(scene.original.subset(scene.train), intrinsics)
    test = _calibrated(scene.original.subset(scene.test[~np.isin(scene.test, scene.train)]), of_test)
    size_px = scene.frames.size_px[scene.train]
    # How far the given poses were off says nothing of these.
    train, test = (replace(frames, pose_sigma_deg=None, pose_sigma=None) for frames in (train, test))
    return RefinedCameras(replace(train, c2w=c2w), scene.rough_c2w, fixed, test, stage, size_px)


def _calibrated(frames: Frames, intrinsics: Intrinsics) -> Frames:
    """Frames with the intrinsics that stage 0 found."""
    if intrinsics == Intrinsics() or len(frames) == 0:
        return frames
    own = intrinsics.own_focal or [1.0] * len(frames)
    rows = zip(frames.intrinsics_px, frames.distortion, frames.size_px, own, strict=True)
    lenses = [calibrated_lens(pinhole, lens, size, intrinsics, factor) for pinhole, lens, size, factor in rows]
    pinhole, distortion = (np.stack(part) for part in zip(*lenses, strict=True))
    return replace(frames, intrinsics_px=pinhole, distortion=distortion)


def rays_of_best_pair(stage: StageZero, most: int = 40) -> Float[np.ndarray, "n 2 3"]:
    """Where the matched rays of the two cameras with most of them start and end, two rows for each point; for pictures.

    Args:
        most: points, at most.
    """
    from scipy.sparse import coo_array

    rays = (np.ones(len(stage.ray_image), dtype=np.int64), (stage.ray_image, stage.ray_point))
    sees = coo_array(rays, shape=(len(stage.names), len(stage.points))).tocsr() > 0
    shared = np.triu((sees.astype(np.int64) @ sees.T.astype(np.int64)).toarray(), 1)
    first, second = np.unravel_index(shared.argmax(), shared.shape)
    common = np.flatnonzero(sees[[first, second]].toarray().all(0))
    chosen = common[np.linspace(0, len(common) - 1, min(most, len(common))).astype(np.int64)]
    ends = np.repeat(stage.points[chosen], 2, axis=0)
    return np.stack([np.tile(stage.c2w[[first, second], :, 3], (len(chosen), 1)), ends], axis=1)
