"""The region that training will take by default, from what preflight knows."""

from dataclasses import replace

import numpy as np

from craym_nerfstudio.data.config import Orientation
from craym_nerfstudio.data.scene import Scene
from craym_nerfstudio.data.world import find_world
from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.images import alpha_use
from craym_nerfstudio.preflight.check import Checked
from craym_nerfstudio.start.region import RegionFigures, asked_region, figures_in_data, find_region


def region_of(scene: Scene, checked: Checked) -> RegionFigures | None:
    """Figures of the region under the repaired poses; None where nothing can be made of the input."""
    stage, repaired = checked.stage, checked.diagnosis.repaired
    if checked.verdict.grade == "hopeless" or stage is None:
        return None
    frames = scene.frames.subset(scene.train)
    _, is_isolated = alpha_use(frames.paths)
    orientation: Orientation = "none" if frames.layout == "blender" else "auto"
    world = find_world(frames, repaired.c2w, is_isolated, orientation, auto_scale=True)
    moved = stage.moved(world)
    default = find_region(moved, scene.has_alpha) or Similarity.of()
    region = asked_region(scene.asked_region, default, world)
    views = replace(repaired, c2w=np.asarray(moved.c2w))
    return figures_in_data(region, world, moved.points, views)
