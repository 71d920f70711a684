"""What decides how a dataset is read; light to import."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from craym_nerfstudio.cameras import PoseNoise

Orientation = Literal["auto", "up", "none"]
MissingImages = Literal["skip", "error"]


@dataclass(frozen=True)
class AskedRegion:
    """What the user says of the sphere that is trained, in units of the data; None where nothing."""

    center: tuple[float, float, float] | None = None
    radius: float | None = None
    scale: float = 1.0


@dataclass
class SceneConfig:
    """Images with rough poses: nerfstudio, Blender or COLMAP data, whichever lies in --data."""

    data: Path = Path()
    """Folder with transforms.json, transforms_train.json or sparse/0, or a path to a transforms JSON file."""
    downscale_factor: float | None = None
    """Divide image width and height by this; by default just enough that they keep to max-image-size-px."""
    max_image_size_px: int = 1600
    """Longest image side when downscale-factor is not given."""
    eval_interval: int = 8
    """Every n-th image is a test image where the data names none; 0 trains on all images, whatever the data names."""
    orientation: Orientation = "auto"
    """Turn the cameras' mean up direction to +z: always (up), never (none), or where it is far off (auto)."""
    auto_scale: bool = True
    """Centre and scale the poses so that what the cameras look at lies in the unit sphere."""
    region_center: tuple[float, float, float] | None = None
    """Centre of the sphere that is trained, in the frame of the data; by default what the cameras look at."""
    region_radius: float | None = None
    """Its radius in units of the data."""
    region_scale: float = 1.0
    """Factor on that radius, the default one too."""
    missing_images: MissingImages = "skip"
    """Listed images without a file are left out where they are few (skip), or an error; many always are one."""
    pose_noise: PoseNoise = "none"
    """Perturb the training poses, to measure how well they are recovered."""
    pose_noise_seed: int = 0
    """Seed of the perturbation."""
    reference_poses: Path | None = None
    """True poses of the same images (matched by file name), for metrics alone."""
