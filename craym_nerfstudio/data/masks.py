"""Which mask belongs to which image: the ones that the data names, else those that lie where others put them."""

import os
from collections.abc import Sequence
from pathlib import Path

from craym_nerfstudio.console import warn
from craym_nerfstudio.data.files import find_files, images_in
from craym_nerfstudio.data.validate import check_masks
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.images import has_image_name

_FOLDERS = ("masks", "mask")


def named_masks(
    root: Path, names: Sequence[str | None], sizes: Sequence[tuple[int, int]], source: Path
) -> list[Path | None]:
    """Files of the masks that the data names; None for images without one, which are usable whole.

    Raises:
        InputError: a mask is missing or has another shape than its image.
    """
    given = [name for name in names if name is not None]
    files = dict(zip(given, find_files(root, given), strict=True))
    for name, path in files.items():
        if path is None:
            remedy = "Put the file there, or take its name out of the data."
            raise InputError(f"Missing mask, listed in {source}", root / name, remedy)
    masks = [None if name is None else files[name] for name in names]
    check_masks(masks, sizes)
    return masks


def masks_beside(root: Path, images: Sequence[Path], sizes: Sequence[tuple[int, int]]) -> list[Path | None] | None:
    """Masks in `masks/` under the names of their images, None where no image has one; what is used is said.

    A mask is called as its image, with its suffix replaced or one more added (as COLMAP wants it), and lies in the
    same folder below `masks/` as the image below the data, or below its folder of images.

    Raises:
        InputError: a mask has another shape than its image.
    """
    folder, masks = find_masks(root, images)
    if masks is not None:
        warn(f"{len(masks) - masks.count(None)} of {len(images)} images have a mask in {folder}, which is used.")
        check_masks(masks, sizes)
        return masks
    if folder is not None:
        warn(
            f"{folder} has no mask under the name of an image, such as {images[0].name}.png: "
            f"its {sum(map(has_image_name, folder.rglob('*')))} masks for {len(images)} images are not used."
        )
    beside = [path for place in sorted({path.parent for path in images}) for path in images_in(place)]
    unused = [path for path in beside if "mask" in path.stem.lower() and path not in set(images)]
    if unused:
        warn(
            f"{len(unused)} masks beside the images, such as {unused[0]}, are not used: save them in masks/ under the "
            "names of their images; what is 0 there is unknown (instant-ngp's dynamic_mask_* must be inverted)."
        )
    return None


def find_masks(root: Path, images: Sequence[Path]) -> tuple[Path | None, list[Path | None] | None]:
    """The folder of masks of some images and the mask of each; None for all where no image has one."""
    folders = [root / name for name in _FOLDERS if (root / name).is_dir()]
    for folder in folders:
        masks = _masks_in(folder, [Path(os.path.relpath(image, root)) for image in images])
        if any(mask is not None for mask in masks):
            return folder, masks
    return (folders[0] if folders else None), None


def _masks_in(folder: Path, images: Sequence[Path]) -> list[Path | None]:
    """The mask in a folder of each image, whose path is relative to the data."""
    masks: list[Path | None] = [None] * len(images)
    for is_below_images in (False, True):
        for added in (".png", ""):
            names = [f"{Path(*image.parts[is_below_images:])}{added}" for image in images]
            asked = [k for k, name in enumerate(names) if masks[k] is None and (folder / name).parent.is_dir()]
            found = find_files(folder, [names[k] for k in asked])
            masks = [dict(zip(asked, found, strict=True)).get(k, mask) for k, mask in enumerate(masks)]
    return masks
