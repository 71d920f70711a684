"""What a training batch consists of: the order of its rays, matches of its key rays, probes, and photos to look up."""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class RayLayout:
    """The order of the rays of a batch: plain rays, of which the last form patches, then groups.

    A group is a key ray with its auxiliary rays behind it; two groups in a row belong to one match.
    """

    plain: int
    """Random rays and patches."""
    patches: int = 0
    patch_side_px: int = 0
    groups: int = 0
    aux: int = 0
    """Auxiliary rays of each key ray."""

    @property
    def group_size(self) -> int:
        """Rays of a group."""
        return 1 + self.aux

    @property
    def grouped(self) -> int:
        """Rays of all groups."""
        return self.groups * self.group_size

    @property
    def patch_rays(self) -> slice:
        """The rays of the patches, row by row."""
        return slice(self.plain - self.patches * self.patch_side_px**2, self.plain)

    @property
    def heads(self) -> slice:
        """The key rays."""
        return slice(self.plain, None, self.group_size)


@dataclass(frozen=True)
class MatchedPairs:
    """A draw of matches: two cameras, two bearings (OpenGL camera frame), a confidence and a focal length each."""

    cameras: Int[Tensor, "pairs 2"]
    bearings: Float[Tensor, "pairs 2 3"]
    confidence: Float[Tensor, " pairs"]
    focal_px: Float[Tensor, " pairs"]

    def joined(self, other: "MatchedPairs") -> "MatchedPairs":
        """These pairs, followed by others."""
        parts = zip(vars(self).values(), vars(other).values(), strict=True)
        return MatchedPairs(*(torch.cat(part) for part in parts))


@dataclass(frozen=True)
class Probes:
    """Points of the unit frame, and the bounds that are known of the signed distance there."""

    points: Float[Tensor, "n 3"]
    least: Float[Tensor, " n"]
    most: Float[Tensor, " n"]
    weights: Float[Tensor, " n"]
    """Trust, 0 to 1."""


@dataclass(frozen=True)
class SurfaceRays:
    """Rays from cameras through pixels of their photos, and where they meet the surface, in the unit frame."""

    image: Int[Tensor, " n"]
    directions: Float[Tensor, "n 3"]
    distance: Float[Tensor, " n"]
    """0 where they meet none."""
    normals: Float[Tensor, "n 3"]


class Photos(Protocol):
    """Grey photos, looked up by image number and bearing (camera frame, OpenGL axes, of any length)."""

    pixel: Float[Tensor, "images 2"]
    """What one pixel of each is at distance 1 before its camera, across and down."""
    neighbours: Int[Tensor, "images k"]
    """Images that see the same from directions that differ a little, best first."""

    def at(
        self, image: Int[Tensor, " n"], bearings: Float[Tensor, "n 3 points"], along: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, "n points"], Float[Tensor, "n points"], Bool[Tensor, " n"]]:
        """Grey values in [0, 1], their derivatives as all bearings of a row move along a vector, and which rows are
        known as a whole; the numbers of others mean nothing, but are finite."""
