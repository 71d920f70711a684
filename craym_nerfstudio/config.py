"""The registered methods `craym` and `craym_lite`, built when they are first asked for.

Light to import: one plugin that fails to import breaks every ns-train command of its user, and building the methods
imports the host's trainer, with torchvision and torch's compiler behind it (seconds).
"""

from importlib import import_module
from typing import Any

_METHODS = ("craym", "craym_lite")


def __getattr__(name: str) -> Any:
    if name in _METHODS:
        return getattr(import_module("craym_nerfstudio.methods"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
