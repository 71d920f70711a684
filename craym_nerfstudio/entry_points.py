"""What nerfstudio finds of this package: the methods `craym`, `craym_lite`, `craym_cpu`, and `craym_data`.

Light to import: one plugin that fails to import breaks every ns-train command of its user, and building the methods
imports the host's trainer, with torchvision and torch's compiler behind it (seconds). They are built when first asked
for.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "craym": "craym_nerfstudio.methods",
    "craym_lite": "craym_nerfstudio.methods",
    "craym_cpu": "craym_nerfstudio.methods",
    "craym_data": "craym_nerfstudio.data.dataparser",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
