"""Multi-resolution hash encoding with analytic derivatives behind one interface; backends load at first use."""

from craym_nerfstudio.fields.encoding.grid import GridSpec, LevelWeights, Pullback, ScheduledWeights
from craym_nerfstudio.fields.encoding.interface import BackendChoice, HashEncoding, choose_backend

__all__ = [
    "BackendChoice",
    "GridSpec",
    "HashEncoding",
    "LevelWeights",
    "Pullback",
    "ScheduledWeights",
    "choose_backend",
]
