"""Rays of pinhole cameras without a question to the device; the host's generator asks it a dozen times per batch."""

import torch
from jaxtyping import Float, Int
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor


class PinholeRays:
    """What rays of undistorted perspective cameras need of them, one row per camera."""

    def __init__(self, cameras: Cameras) -> None:
        parts = (cameras.fx, cameras.fy, cameras.cx, cameras.cy, cameras.camera_to_worlds.flatten(1))
        self.rows: Float[Tensor, "cams 16"] = torch.cat(parts, dim=-1)

    @staticmethod
    def fit(cameras: Cameras) -> bool:
        """Whether all cameras are of that kind."""
        plain = bool((cameras.camera_type == CameraType.PERSPECTIVE.value).all())
        return plain and (cameras.distortion_params is None or not bool(cameras.distortion_params.any()))

    def __call__(self, image: Int[Tensor, " n"], xy: Float[Tensor, "n 2"]) -> RayBundle:
        """As the host's generator, bit for bit, but for the pixels' areas, which nothing here reads."""
        focal, center, pose = self.rows.index_select(0, image).split([2, 2, 12], dim=-1)
        pose = pose.view(-1, 3, 4)
        x, y = ((xy - center) / focal).unbind(-1)
        local = torch.stack([x, -y, torch.full_like(x, -1.0)], dim=-1)
        directions = (local[:, None] * pose[..., :3]).sum(-1)
        norm = directions.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        metadata = {"directions_norm": norm}
        return RayBundle(pose[..., 3], directions / norm, torch.ones_like(norm), image[:, None], metadata=metadata)
