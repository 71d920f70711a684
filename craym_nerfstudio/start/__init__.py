"""The seam between finding poses and training: where training starts from, and the region it fills."""

from craym_nerfstudio.start.config import StartConfig
from craym_nerfstudio.start.find import Start, find_start

__all__ = ["Start", "StartConfig", "find_start"]
