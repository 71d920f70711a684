"""The signed distance field: masked hash features, key-ray enrichment, geometry net (paper Eq. 1, 9, 10)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from craym_nerfstudio.fields.encoding import BackendChoice, GridSpec, HashEncoding, LevelWeights, Pullback
from craym_nerfstudio.fields.mlp import DistanceMLP

_EACH = 2
"""Features of a level of the hash grid that the geometry net sees, and as many that go to the colour directly. With one
set for both, gradients by way of normals, the larger the finer a level, drown what the images' colours tell of it."""
_SHAPE_SCALE = 0.3
"""By what the geometry net's features are scaled. Adam moves all of the table at one rate; shape needs smaller steps,
or a surface that is known at the start is lost in the first fifty."""
SPHERE_RADIUS = 0.5
"""Of the initial surface: halfway out in the unit sphere, which the field fills."""


@dataclass
class SDFFieldConfig:
    """Sizes of the signed distance field."""

    encoding: BackendChoice = "auto"
    """Which implementation of the hash grid runs; auto takes the fastest that this machine can run."""
    num_levels: int = 16
    """Levels of the hash grid."""
    log2_table_size: int = 19
    """Largest number of entries per level, as a power of two."""
    base_resolution: int = 32
    """Resolution of the coarsest level over the field's cube."""
    cells_per_pixel: float = 1.25
    """Resolution of the finest level, per pixel of the images' longer side. An object that fills its images has then
    about one cell per pixel; finer cells are met too seldom to learn anything but noise."""
    hidden_width: int = 64
    """Width of the geometry net."""
    hidden_layers: int = 2
    """Hidden layers of the geometry net."""
    feature_size: int = 15
    """Length of the geometric feature f''."""


@dataclass
class SurfacePoint:
    """What the geometry net says of points."""

    sdf: Float[Tensor, " n"]
    gradient: Float[Tensor, "n 3"]
    feature: Float[Tensor, "n feat"]
    """What the colour is made from: f'', then the grid's own features for it."""


class SDFField(nn.Module):
    """Signed distance, its gradient and a geometric feature at points of the unit frame."""

    def __init__(self, config: SDFFieldConfig, image_px: int) -> None:
        """`image_px` is the longer side of the images that the field is to tell."""
        super().__init__()
        finest = max(config.cells_per_pixel * image_px, config.base_resolution)
        spec = GridSpec(
            levels=config.num_levels,
            features_per_level=2 * _EACH,
            log2_table_size=config.log2_table_size,
            base_resolution=config.base_resolution,
            growth=(finest / config.base_resolution) ** (1.0 / max(config.num_levels - 1, 1)),
            interpolation="smoothstep",  # makes the gradient for poses continuous
        )
        self.encoding = HashEncoding(spec, backend=config.encoding)
        # A checkpoint without it was trained with other levels, which its tables do not always show.
        self.register_buffer("finest_resolution", torch.tensor(float(finest)))
        each = config.num_levels * _EACH
        self.feature_size = config.feature_size + each
        sizes = 3 + each, config.hidden_width, config.hidden_layers, 1 + config.feature_size
        self.geometry = DistanceMLP(*sizes, feature_scale=_SHAPE_SCALE)
        self.geometry.initialise_sphere(SPHERE_RADIUS)

    def encode(
        self, points: Float[Tensor, "n 3"], level_weights: LevelWeights
    ) -> tuple[Float[Tensor, "n feat"], Pullback]:
        """Masked grid features f = M(V(p)) (Eq. 1), and the map of a gradient by them to the gradient by the points."""
        features, pullback = self.encoding.encode_with_pullback(points * 0.5 + 0.5, level_weights)
        return features, lambda gradient: 0.5 * pullback(gradient)

    def surface(
        self, points: Float[Tensor, "n 3"], features: Float[Tensor, "n feat"], pullback: Pullback
    ) -> SurfacePoint:
        """Geometry net ``[SDF | f''] = Phi_g(p, f')`` (Eq. 10) with the exact gradient of the SDF.

        Args:
            features: the (enriched) features f'.
            pullback: maps a gradient with respect to f' to one with respect to the points.
        """
        of_shape, of_color = shape_and_color(features)
        outputs, slope = self.geometry.with_gradient(torch.cat([points, of_shape], dim=-1))
        # Splitting, unlike slicing, is undone by one concatenation in the backward pass.
        distance, feature = outputs.split([1, outputs.shape[1] - 1], dim=-1)
        by_point, by_shape = slope.split([3, of_shape.shape[1]], dim=-1)
        by_level = F.pad(by_shape.unflatten(-1, (-1, _EACH)), (0, _EACH))
        gradient = by_point + pullback(by_level.flatten(1))
        return SurfacePoint(distance[:, 0], gradient, torch.cat([feature, of_color], dim=-1))

    def outputs(self, points: Float[Tensor, "n 3"], level_weights: LevelWeights) -> Float[Tensor, "n 1+feat"]:
        """Signed distance, then what the colour is made from, without enrichment and gradient."""
        of_shape, of_color = shape_and_color(self.encoding(points * 0.5 + 0.5, level_weights))
        return torch.cat([self.geometry(torch.cat([points, of_shape], dim=-1)), of_color], dim=-1)

    def sdf(self, points: Float[Tensor, "n 3"], level_weights: LevelWeights) -> Float[Tensor, " n"]:
        """Signed distance alone, for caches and meshing."""
        return self.outputs(points, level_weights)[:, 0]


def shape_and_color(features: Float[Tensor, "n feat"]) -> tuple[Float[Tensor, "n half"], Float[Tensor, "n half"]]:
    """What each net sees of the levels' features."""
    by_net = features.unflatten(-1, (-1, 2, _EACH)).movedim(2, 1).flatten(1)
    shape, color = by_net.split(by_net.shape[1] // 2, dim=-1)
    return shape, color
