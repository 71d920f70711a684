"""Images with poses as the host sees them (`Cameras`) and as matching does (`Views`)."""

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType

from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.matching.views import PosePriors, Views


def host_cameras(frames: Frames, c2w: Float[np.ndarray, "cams 3 4"]) -> Cameras:
    """Cameras of the images at other poses; the host computes in single precision."""
    intrinsics = torch.from_numpy(frames.intrinsics_px).float()
    size = torch.from_numpy(frames.size_px)
    return Cameras(
        camera_to_worlds=torch.from_numpy(c2w).float(),
        fx=intrinsics[:, 0:1],
        fy=intrinsics[:, 1:2],
        cx=intrinsics[:, 2:3],
        cy=intrinsics[:, 3:4],
        width=size[:, 0:1],
        height=size[:, 1:2],
        distortion_params=torch.from_numpy(frames.distortion).float(),
        camera_type=torch.tensor([[CameraType[kind].value] for kind in frames.camera_types]),
        metadata={},
    )


def views_of(frames: Frames, c2w: Float[np.ndarray, "cams 3 4"]) -> Views:
    """Views of images at other poses, in the frame of these; keypoints refer to images at the frames' size.

    Bearings come from nerfstudio's own ray generator, so that key rays go through the same camera model as all others.
    """
    at_origin = host_cameras(frames, np.tile(np.eye(3, 4), (len(frames), 1, 1)))

    def bearings(image: int, keypoints_px: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 3"]:
        xy = torch.from_numpy(np.asarray(keypoints_px, dtype=np.float32).reshape(-1, 2))
        # The host wants (y, x).
        rays = at_origin.generate_rays(camera_indices=torch.full((len(xy), 1), image), coords=xy.flip(-1))
        # The host's fisheye model divides by the angle, which is zero at the principal point.
        directions = torch.where(rays.directions.isnan(), torch.tensor([0.0, 0.0, -1.0]), rays.directions).double()
        return (directions / directions.norm(dim=-1, keepdim=True)).numpy()

    return Views(
        names=frames.names,
        paths=frames.paths,
        mask_paths=frames.mask_paths,
        c2w=c2w,
        focal_px=frames.intrinsics_px[:, :2].mean(-1),
        size_px=frames.size_px,
        bearings=bearings,
        is_perspective="FISHEYE" not in frames.camera_types,
        priors=_priors(frames),
        is_placed=frames.is_placed,
        left_out=frames.left_out,
    )


def _priors(frames: Frames) -> PosePriors | None:
    if frames.pose_sigma_deg is None and frames.pose_sigma is None:
        return None
    unknown = np.full(len(frames), np.nan)
    rotation, translation = (unknown if each is None else each for each in (frames.pose_sigma_deg, frames.pose_sigma))
    return PosePriors(rotation, translation, frames.measured_centers)
