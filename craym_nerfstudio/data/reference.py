"""True poses of the images, read for metrics alone and kept apart from everything that training sees."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from craym_nerfstudio.data import read_colmap, read_transforms
from craym_nerfstudio.data.colmap_model import find_model
from craym_nerfstudio.data.files import match_key
from craym_nerfstudio.errors import InputError


@dataclass(frozen=True)
class ReferencePoses:
    """True camera-to-world poses, OpenGL axes, in a world of their own (a similarity away from the input's)."""

    train_c2w: Float[np.ndarray, "train 3 4"]
    test_c2w: Float[np.ndarray, "test 3 4"] | None
    """None where the test images have no known true pose."""
    source: str
    """Where they come from, for reports."""
    train_focal_px: Float[np.ndarray, " train"] | None = None
    """True focal lengths of the training images at the size they are trained at, where noise was added to them."""


def read_reference(path: Path, train_names: list[str], test_names: list[str]) -> ReferencePoses:
    """Reference poses of named images from a JSON file or a data folder of any layout.

    Images are matched by relative path, or by bare file name where that is unique; suffixes do not count.

    Raises:
        InputError: the file cannot be read, or lacks a training image.
    """
    names, c2w = _read_any(path)
    train, test = _places(train_names, names), _places(test_names, names)
    missing = [name for name, place in zip(train_names, train, strict=True) if place is None]
    if missing:
        raise InputError(
            f"The reference poses lack {len(missing)} of {len(train_names)} training images ({_some(missing)}); "
            f"they name {_some(names)}",
            path,
            "Give the true poses of the same images under the same file names.",
        )
    of_train, of_test = (None if None in part else c2w[np.array(part, np.int64)] for part in (train, test))
    assert of_train is not None
    return ReferencePoses(of_train, of_test, str(path))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _places(wanted: list[str], names: list[str]) -> list[int | None]:
    """Where images stand among `names`, by relative path first, then by bare file name; None for those that do not."""
    keys = [match_key(name) for name in names]
    by_path = {key: index for index, key in enumerate(keys)}
    by_name: dict[str, int | None] = {}
    for index, key in enumerate(keys):
        base = key.rsplit("/", 1)[-1]
        by_name[base] = None if base in by_name else index
    sought = [match_key(name) for name in wanted]
    return [by_path[key] if key in by_path else by_name.get(key.rsplit("/", 1)[-1]) for key in sought]


def _read_any(path: Path) -> tuple[list[str], Float[np.ndarray, "cams 3 4"]]:
    if path.is_file():
        return read_transforms.read_poses(path)
    for name in ("transforms.json", read_transforms.BLENDER_TRAIN):
        if (path / name).is_file():
            names, c2w = read_transforms.read_poses(path / name)
            if name == read_transforms.BLENDER_TRAIN and (path / read_transforms.BLENDER_TEST).is_file():
                more_names, more_c2w = read_transforms.read_poses(path / read_transforms.BLENDER_TEST)
                names, c2w = names + more_names, np.concatenate([c2w, more_c2w])
            return names, c2w
    model = find_model(path) if path.is_dir() else None
    if model is not None:
        return read_colmap.read_poses(model)
    raise InputError(
        "No reference poses found", path, "Give a transforms JSON file, or a folder with one or with a COLMAP model."
    )
