"""How test views are judged: at poses refined against the field, and at the exposure of their photos."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor
from torchvision.utils import save_image

from craym_nerfstudio.cameras.photometric import frozen, refine_cameras, with_poses
from craym_nerfstudio.evaluation.exposure import as_rendered, fitted_gain
from craym_nerfstudio.model import CraymModel
from craym_nerfstudio.storage import write_atomically


@dataclass(frozen=True)
class TestViews:
    """Test views of a model."""

    model: CraymModel
    log_gain: Float[Tensor, "images 3"]
    """Of the training images; all 0 where exposures do not differ."""
    steps: int
    """Of the refinement of poses; 0 leaves them."""
    rays: int
    """Per step and view."""

    def judged(self, camera: Cameras, batch: dict) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Metrics and pictures of a test view, at the exposure of its photo where exposures differ."""
        outputs = self.model.volume_picture(camera)
        if self.log_gain.any():
            gain = fitted_gain(outputs["rgb"], batch["image"].to(self.model.device), batch.get("mask"))
            outputs["rgb"] = outputs["rgb"] * gain
        return self.model.get_image_metrics_and_images(outputs, batch)

    def _photo(self, camera: Cameras, batch: dict) -> Float[Tensor, "h w 3"]:
        """The photo of a test view at the exposure that the model was trained at."""
        image = batch["image"].to(self.model.device)
        if not self.log_gain.any():
            return image
        return as_rendered(lambda small: self.model.volume_picture(small)["rgb"], camera, image, batch.get("mask"))

    def refined(self, views: list[tuple[Cameras, dict]], given: Cameras) -> list[tuple[Cameras, dict]]:
        """Test views at their refined poses, all of them refined together; `given` are their cameras in the files."""
        if not self.steps:
            return views
        start = torch.cat([camera.camera_to_worlds for camera, _ in views])
        with torch.enable_grad(), frozen(self.model):
            poses = refine_cameras(
                lambda rays: self.model(rays)["rgb"],
                with_poses(given, start),
                [self._photo(camera, batch) for camera, batch in views],
                [batch.get("mask") for _, batch in views],
                self.steps,
                self.rays,
            )
        return [(with_poses(camera, pose[None]), batch) for (camera, batch), pose in zip(views, poses, strict=True)]


def write_picture(path: Path, image: Float[Tensor, "h w c"]) -> None:
    """Write a picture with values in [0, 1] as PNG, atomically.

    Raises:
        InputError: the disk is full.
    """
    write_atomically(path, lambda file: save_image(image.permute(2, 0, 1).cpu(), file, format="png"))
