"""The training cameras as matching and the pose start see them, without nerfstudio's types."""

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

from craym_nerfstudio.matching.views import Views


def views_from_outputs(outputs: DataparserOutputs) -> Views:
    """Views of a split in the world frame; keypoints refer to images at the cameras' size.

    Bearings come from nerfstudio's own ray generator, so that key rays go through the same camera model as all others.
    """
    cameras = outputs.cameras
    at_origin = _at_origin(cameras)

    def bearings(image: int, keypoints_px: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 3"]:
        xy = torch.from_numpy(np.asarray(keypoints_px, dtype=np.float32).reshape(-1, 2))
        # The host wants (y, x).
        rays = at_origin.generate_rays(camera_indices=torch.full((len(xy), 1), image), coords=xy.flip(-1))
        # The host's fisheye model divides by the angle, which is zero at the principal point.
        directions = torch.where(rays.directions.isnan(), torch.tensor([0.0, 0.0, -1.0]), rays.directions).double()
        return (directions / directions.norm(dim=-1, keepdim=True)).numpy()

    return Views(
        names=list(outputs.metadata["image_names"]),
        paths=list(outputs.image_filenames),
        mask_paths=None if outputs.mask_filenames is None else list(outputs.mask_filenames),
        c2w=outputs.metadata["c2w"],
        focal_px=torch.cat([cameras.fx, cameras.fy], dim=-1).double().mean(-1).cpu().numpy(),
        size_px=torch.cat([cameras.width, cameras.height], dim=-1).cpu().numpy(),
        bearings=bearings,
    )


def _at_origin(cameras: Cameras) -> Cameras:
    identity = torch.eye(4)[:3].repeat(len(cameras.camera_to_worlds), 1, 1)
    return Cameras(
        camera_to_worlds=identity,
        fx=cameras.fx.cpu(),
        fy=cameras.fy.cpu(),
        cx=cameras.cx.cpu(),
        cy=cameras.cy.cpu(),
        width=cameras.width.cpu(),
        height=cameras.height.cpu(),
        distortion_params=None if cameras.distortion_params is None else cameras.distortion_params.cpu(),
        camera_type=cameras.camera_type.cpu(),
    )
