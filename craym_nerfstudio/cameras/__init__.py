"""What happens to camera poses during and after training: the optimizer nerfstudio asks for, and its motions."""

from typing import Literal

PoseNoise = Literal["none", "barf", "l2g", "l2g-low", "real", "network"]
"""Protocols of pose noise, see `noise`."""

MotionName = Literal["off", "SO3xR3", "SE3", "6D"]
"""Parametrisations of the poses, see `motions`."""
