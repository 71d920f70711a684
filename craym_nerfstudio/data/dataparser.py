"""The dataparser: hands a scene to nerfstudio, in the world frame."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from craym_nerfstudio.data.config import SceneConfig
from craym_nerfstudio.data.scene import Scene, read_scene
from craym_nerfstudio.data.views import host_cameras


@dataclass
class CraymDataParserConfig(SceneConfig, DataParserConfig):
    """Images with rough poses: nerfstudio, Blender or COLMAP data, whichever lies in --data."""

    _target: type = field(default_factory=lambda: CraymDataParser)
    """Target class to instantiate."""
    background_color: Literal["white", "black"] = "white"
    """Colour behind transparent pixels."""


class CraymDataParser(DataParser):
    """Reads a dataset once and serves its splits; training poses may carry noise, test poses never do."""

    config: CraymDataParserConfig
    _scene: Scene | None = None

    @property
    def scene(self) -> Scene:
        """The dataset, read at first use."""
        if self._scene is None:
            self._scene = read_scene(self.config)
        return self._scene

    def _generate_dataparser_outputs(self, split: str = "train", **_: dict | None) -> DataparserOutputs:
        scene, world = self.scene, self.scene.world_from_data
        is_train = split == "train"
        frames = scene.frames.subset(scene.train if is_train else scene.test)
        poses = world.poses(scene.rough_c2w if is_train else frames.c2w)
        metadata: dict[str, Any] = {
            "has_alpha": scene.has_alpha,
            "layout": frames.layout,
            "image_names": frames.names,
            "image_size_px": torch.from_numpy(frames.size_px),
        }
        if is_train:
            metadata["reference"] = scene.reference
        return DataparserOutputs(
            image_filenames=frames.paths,
            cameras=host_cameras(frames, poses),
            alpha_color=torch.full((3,), 1.0 if self.config.background_color == "white" else 0.0),
            scene_box=SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3])),
            # An image without mask is no matter to the host, whose dataset is replaced.
            mask_filenames=cast("list[Path] | None", frames.mask_paths),
            metadata=metadata,
            # The host applies the scale last.
            dataparser_transform=torch.cat([world.rotation, (world.translation / world.scale)[:, None]], dim=1).float(),
            dataparser_scale=float(world.scale),
        )


craym_data = DataParserSpecification(
    config=CraymDataParserConfig(), description="nerfstudio, Blender or COLMAP data, whichever lies in --data"
)
