"""Camera models with the intrinsics that stage 0 found: the lens that sends corrected rays to the same pixels."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.lens import distorted
from craym_nerfstudio.sfm.result import Intrinsics

_GRID = 25


def calibrated_lens(
    pinhole_px: Float[np.ndarray, "4"],
    distortion: Float[np.ndarray, "6"],
    size_px: Float[np.ndarray, "2"],
    intrinsics: Intrinsics,
    own_focal: float = 1.0,
) -> tuple[Float[np.ndarray, "4"], Float[np.ndarray, "6"]]:
    """Corrected (fx, fy, cx, cy) and distortion (k1, k2, k3, k4, p1, p2) of a perspective camera.

    `own_focal` is its entry in ``intrinsics.own_focal``.

    Fitted over the image, because the corrections apply to undistorted rays while lenses are described the other way.
    """
    from scipy.optimize import least_squares

    fx, fy, cx, cy = pinhole_px
    corners = (np.array([[0.0, 0.0], size_px]) - [cx, cy]) / [fx, fy]
    sides = [np.linspace(1.2 * low, 1.2 * high, _GRID) for low, high in corners.T]
    given = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2)
    pixels = distorted(given, distortion) * [fx, fy] + [cx, cy]
    inside = ((pixels >= 0) & (pixels <= size_px)).all(-1)
    given, pixels = given[inside], pixels[inside]
    q = given / own_focal - np.asarray(intrinsics.center)
    squared = (q**2).sum(-1, keepdims=True)
    rays = q * (1 + intrinsics.k1 * squared + intrinsics.k2 * squared**2) / intrinsics.focal_factor

    def lens(fit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scale, x, y, k1, k2 = fit
        focal = np.array([fx, fy]) * scale
        return np.concatenate([focal, [cx + fx * x, cy + fy * y]]), np.concatenate([[k1, k2], distortion[2:]])

    def error(fit: np.ndarray) -> np.ndarray:
        pinhole, coefficients = lens(fit)
        return (distorted(rays, coefficients) * pinhole[:2] + pinhole[2:] - pixels).ravel()

    start = [own_focal * intrinsics.focal_factor, *intrinsics.center, *distortion[:2]]
    return lens(least_squares(error, start, x_scale=[0.1, 0.01, 0.01, 0.1, 0.1]).x)


def calibrated_cameras(cameras: Cameras, intrinsics: Intrinsics) -> Cameras:
    """The cameras with corrected intrinsics, poses unchanged; focal factors of their own belong to these cameras.

    Raises:
        InputError: a camera is not perspective.
    """
    if (cameras.camera_type != CameraType.PERSPECTIVE.value).any():
        remedy = "Drop --pipeline.start.refine-intrinsics."
        raise InputError("Intrinsics can be refined for perspective cameras only", None, remedy)
    columns = (cameras.fx, cameras.fy, cameras.cx, cameras.cy, cameras.width, cameras.height)
    given = torch.cat([column.double().cpu() for column in columns], dim=-1).numpy()
    lenses = np.zeros((len(given), 6))
    if cameras.distortion_params is not None:
        lenses = cameras.distortion_params.double().cpu().numpy()
    own = np.array(intrinsics.own_focal or [1.0] * len(given))
    rows = np.concatenate([given, lenses, own[:, None]], axis=-1)
    distinct, which = np.unique(rows, axis=0, return_inverse=True)
    fitted = [calibrated_lens(row[:4], row[6:12], row[4:6], intrinsics, float(row[12])) for row in distinct]
    pinhole = torch.from_numpy(np.stack([lens[0] for lens in fitted])[which.reshape(-1)]).to(cameras.fx)
    fx, fy, cx, cy = pinhole.split(1, dim=-1)
    distortion = torch.from_numpy(np.stack([lens[1] for lens in fitted])[which.reshape(-1)]).to(cameras.fx)
    return replace(cameras, fx=fx, fy=fy, cx=cx, cy=cy, distortion_params=distortion)
