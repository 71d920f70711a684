"""The training photos with their refined cameras, and what of a surface each of them sees."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from craym_nerfstudio.console import track
from craym_nerfstudio.export.refined import RefinedCameras
from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.geometry.lens import pixels_of
from craym_nerfstudio.images import load_image, load_mask
from craym_nerfstudio.rendering.sphere_tracing import SphereTracer

Points = Float[np.ndarray, "n 3"]


@dataclass(frozen=True)
class PhotoView:
    """A photo at its full size with its lens, posed in the unit frame."""

    c2w: Float[np.ndarray, "3 4"]
    intrinsics_px: Float[np.ndarray, "4"]
    distortion: Float[np.ndarray, "6"]
    size_px: Float[np.ndarray, "2"]
    is_fisheye: bool
    path: Path
    mask_path: Path | None = None

    @property
    def center(self) -> Float[np.ndarray, "3"]:
        """Where the camera stands."""
        return self.c2w[:, 3]

    def project(self, points: Points) -> tuple[Float[np.ndarray, "n 2"], Bool[np.ndarray, " n"]]:
        """Pixel positions of points, and which of them lie in the picture; what hides them is not asked."""
        turn = self.c2w[:, :3].astype(points.dtype)
        local = (points - self.center.astype(points.dtype)) @ turn
        return pixels_of(local, self.intrinsics_px, self.distortion, self.size_px, self.is_fisheye)

    def footprint(self, points: Points) -> Float[np.ndarray, " n"]:
        """How much of a surface that is seen head on one pixel covers, as a length."""
        return np.linalg.norm(points - self.center, axis=-1) / self.intrinsics_px[:2].mean()

    def at_size(self, size_px: Float[np.ndarray, "2"]) -> "PhotoView":
        """The same view with its photo resampled."""
        ratio = size_px / self.size_px
        return replace(self, size_px=size_px, intrinsics_px=self.intrinsics_px * np.concatenate([ratio, ratio]))

    def photo(self) -> Float[np.ndarray, "h w 4"]:
        """The picture, in [0, 1], with 0 as alpha where a mask hides it.

        Raises:
            InputError: it cannot be read.
        """
        size = (int(self.size_px[0]), int(self.size_px[1]))
        image = load_image(self.path, size).astype(np.float32) / 255.0
        alpha = image[..., 3:] if image.shape[-1] == 4 else np.ones((*image.shape[:2], 1), dtype=np.float32)
        if self.mask_path is not None:
            alpha = alpha * (load_mask(self.mask_path, size)[..., None] > 0)
        return np.concatenate([image[..., :3], alpha], axis=-1)


def photo_views(cameras: RefinedCameras, unit_from_data: Similarity) -> list[PhotoView]:
    """The training photos of a run."""
    frames = cameras.frames
    c2w = unit_from_data.poses(frames.c2w)
    masks = frames.mask_paths or [None] * len(frames)
    return [
        PhotoView(
            c2w=c2w[k],
            intrinsics_px=frames.intrinsics_px[k],
            distortion=frames.distortion[k],
            size_px=frames.size_px[k],
            is_fisheye=frames.camera_types[k] == "FISHEYE",
            path=frames.paths[k],
            mask_path=masks[k],
        )
        for k in range(len(frames))
    ]


class Visibility:
    """Asks the signed distance field what hides a point."""

    def __init__(self, tracer: SphereTracer, tolerance: float, device: torch.device) -> None:
        """`tolerance`: how far behind the first surface a point still counts as seen, in units of the field."""
        self.tracer, self.tolerance, self.device = tracer, tolerance, device

    def of_view(self, view: PhotoView, points: Points, normals: Points) -> Bool[np.ndarray, " n"]:
        """Which surface points face a camera, lie in its picture and have nothing before them."""
        seen = np.zeros(len(points), dtype=bool)
        offset = points - view.center
        facing = (offset * normals).sum(-1) < 0
        index = np.flatnonzero(facing)
        index = index[view.project(points[index])[1]]
        distance = np.linalg.norm(offset[index], axis=-1)
        towards = torch.from_numpy(offset[index] / distance[:, None]).float().to(self.device)
        start = torch.from_numpy(view.center).float().to(self.device).expand_as(towards)
        first = self.tracer.trace(start, towards).distance.cpu().numpy()
        # What grazes a point is met a little earlier or not at all.
        slope = np.maximum(-(offset[index] * normals[index]).sum(-1) / distance, 0.1)
        seen[index] = distance < first + self.tolerance / slope
        return seen

    def of_views(self, views: list[PhotoView], points: Points, normals: Points) -> Bool[np.ndarray, "views n"]:
        """The same for many cameras."""
        return np.stack([self.of_view(view, points, normals) for view in track(views, "What each camera sees")])

    def by_any(self, views: list[PhotoView], points: Points, normals: Points) -> Bool[np.ndarray, " n"]:
        """Which points some camera sees; a point that was seen is not asked again."""
        seen = np.zeros(len(points), dtype=bool)
        for view in track(views, "What cameras see"):
            rest = np.flatnonzero(~seen)
            seen[rest] = self.of_view(view, points[rest], normals[rest])
        return seen
