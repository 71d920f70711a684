"""Images as the host and the trainer want them: resized to the cameras' size, 8-bit in memory."""

import numpy as np
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset

from craym_nerfstudio.console import track, warn
from craym_nerfstudio.data.image_store import ImageStore
from craym_nerfstudio.images import load_image, load_mask


def _size_px(outputs: DataparserOutputs, index: int) -> tuple[int, int]:
    cameras = outputs.cameras
    return int(cameras.width[index]), int(cameras.height[index])


class CraymDataset(InputDataset):
    """nerfstudio's dataset, with images and masks resized to the size their camera has."""

    def get_numpy_image(self, image_idx: int) -> np.ndarray:
        """Image as uint8 [h, w, 3 or 4] at its camera's size."""
        outputs = self._dataparser_outputs
        return load_image(outputs.image_filenames[image_idx], _size_px(outputs, image_idx))

    def get_data(self, image_idx: int, image_type: str = "float32") -> dict:
        """Image (composited on the background colour by the host) and mask of one view."""
        image = self.get_image_uint8(image_idx) if image_type == "uint8" else self.get_image_float32(image_idx)
        data = {"image_idx": image_idx, "image": image}
        masks = self._dataparser_outputs.mask_filenames
        if masks is not None:
            mask = load_mask(masks[image_idx], _size_px(self._dataparser_outputs, image_idx))
            data["mask"] = torch.from_numpy(mask)[..., None] > 0
        return data


def load_image_store(outputs: DataparserOutputs) -> ImageStore:
    """All images (and masks) of a split, decoded one by one into 8-bit memory: 4 bytes a pixel, and no second copy."""
    paths, masks = outputs.image_filenames, outputs.mask_filenames
    sizes = [_size_px(outputs, index) for index in range(len(paths))]
    shown = track(list(zip(paths, sizes, strict=True)), description="Loading images")
    images = (torch.from_numpy(load_image(path, size)) for path, size in shown)
    if masks is None:
        return ImageStore(images, sizes)
    hidden = (torch.from_numpy(load_mask(path, size)) for path, size in zip(masks, sizes, strict=True))
    store = ImageStore(images, sizes, hidden)
    _remark_hidden_images(store, outputs)
    return store


def _remark_hidden_images(store: ImageStore, outputs: DataparserOutputs) -> None:
    """Say which images are masked whole: they count for nothing."""
    assert store.mask is not None
    parts = store.mask.split(store.size_px.prod(-1).tolist())
    hidden = [path for path, part in zip(outputs.image_filenames, parts, strict=True) if not part.any()]
    if hidden:
        warn(f"{len(hidden)} of {len(parts)} images are masked whole and not used: {hidden[0]}.")
