"""What mixed precision may touch: the colour nets alone.

Half precision has three digits. Distances, their derivatives by position (normals, eikonal loss, pose gradients),
poses, epipolar residuals and rendering weights need more; colours are 8-bit to begin with.
"""

from contextlib import AbstractContextManager

import torch


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The reduced precision that the caller has switched on by ``torch.autocast``; None if it has not."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


def full_precision(device: torch.device) -> AbstractContextManager:
    """Float32 inside, whatever the caller has switched on."""
    return torch.autocast(device.type, enabled=False)


def reduced_precision(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    """``torch.autocast`` to a type, or float32 for None."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
