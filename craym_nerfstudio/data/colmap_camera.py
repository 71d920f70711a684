"""Cameras as COLMAP describes them."""

from typing import Any

from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.errors import InputError


def colmap_camera(frames: Frames, number: int) -> Any:
    """One image's lens as a ``pycolmap.Camera``.

    Raises:
        InputError: a lens that no COLMAP model describes.
    """
    import pycolmap

    pinhole, (width, height) = frames.intrinsics_px[number].tolist(), frames.size_px[number].tolist()
    k1, k2, k3, k4, p1, p2 = frames.distortion[number].tolist()
    if frames.camera_types[number] == "FISHEYE":
        name, lens = "OPENCV_FISHEYE", [k1, k2, k3, k4]
    elif k4:
        raise InputError("COLMAP has no lens model with k4", frames.paths[number], "Use transforms.json instead.")
    elif k3:
        name, lens = "FULL_OPENCV", [k1, k2, p1, p2, k3, 0.0, 0.0, 0.0]
    elif any((k1, k2, p1, p2)):
        name, lens = "OPENCV", [k1, k2, p1, p2]
    else:
        name, lens = "PINHOLE", []
    return pycolmap.Camera(model=name, width=width, height=height, params=pinhole + lens)
