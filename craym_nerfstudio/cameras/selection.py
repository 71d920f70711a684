"""Which cameras are meant by names and globs: one mask, made here."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePath

import numpy as np
from jaxtyping import Bool

from craym_nerfstudio.errors import InputError


def select_cameras(patterns: Sequence[str], names: Sequence[str]) -> Bool[np.ndarray, " cams"]:
    """The images that names or globs mean, compared with the whole name and with its last part.

    Raises:
        InputError: a pattern fits no image.
    """
    chosen = np.zeros(len(names), dtype=bool)
    for pattern in patterns:
        hits = np.array([is_called(name, [pattern]) for name in names], dtype=bool)
        if not hits.any():
            known = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise InputError(
                f"Fixed camera '{pattern}' is not among the {len(names)} images",
                remedy=f"Their names are: {known}",
            )
        chosen |= hits
    return chosen


def is_called(name: str, patterns: Sequence[str]) -> bool:
    """Whether an image name, or its last part, equals one of the patterns or is matched by it as a glob."""
    parts = (name, PurePath(name).name)
    return any(part == pattern or fnmatchcase(part, pattern) for pattern in patterns for part in parts)
