"""What decides where training starts from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass
class StartConfig:
    """Matching and stage 0: where the poses come from that training starts with."""

    matcher: Literal["auto", "aliked-lightglue", "xfeat-lighterglue", "sift", "none"] = "auto"
    """How keypoints are found and matched; auto takes what the images need and this machine runs in reasonable time."""
    matches: Path | None = None
    """Matches to take instead, as `craym match` writes them (matches.npz)."""
    pose_init: Literal["matched-rays", "input"] = "matched-rays"
    """Where pose optimisation starts: matched-ray bundle adjustment (stage 0), or the poses as given."""
    refine_intrinsics: bool = False
    """Let stage 0 also adjust focal length, principal point and radial distortion, shared by all images."""
    prior_sigma: tuple[float, float] | None = None
    """How far the given poses are off, where the data does not say it: degrees, and per cent of the cameras' distance
    to what they look at; by default stage 0 estimates it."""
    fixed_cameras: tuple[str, ...] = ()
    """Names or globs of images whose given poses are exact and must not move, neither in stage 0 nor in training."""
    cache_dir: Path = Path("outputs/cache")
    """Where matches and stage 0 are kept between runs."""

    @property
    def adjusts(self) -> bool:
        """Whether stage 0 is to run."""
        return self.pose_init == "matched-rays" and (self.matcher != "none" or self.matches is not None)
