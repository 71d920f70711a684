"""Flat Gaussians placed on the surface and fitted to the photos: splats in seconds, on a CPU."""

from dataclasses import astuple, dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from craym_nerfstudio.export.mesh import appearance
from craym_nerfstudio.export.placing import place_points
from craym_nerfstudio.export.seen_surface import SeenSurface
from craym_nerfstudio.export.splat_fit import fit
from craym_nerfstudio.export.splat_pictures import Picture
from craym_nerfstudio.export.splat_view import Gaussians
from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.model import CraymModel

MOST_BYTES = 15_000_000
"""Of the file: what a web viewer loads at once."""


@dataclass(frozen=True)
class Layer:
    """How splats that follow a surface start; lengths but the first are in distances of neighbours."""

    spacing_px: float
    """Distance of neighbours, in pixels of the picture that sees them best."""
    inset: float
    """How far inside the surface they lie."""
    sigma: float
    """Standard deviation along the surface."""
    opacity: float


# Splats are blurs, and a renderer widens them by half a pixel: so far inside, outlines end where the surface does.
SURFACE = Layer(spacing_px=0.7, inset=0.8, sigma=0.35, opacity=0.9)
LINING = Layer(spacing_px=1.4, inset=1.2, sigma=0.5, opacity=0.95)
"""Seen through the gaps of the surface from nearer than the photos are, where what lies behind would show."""
_THICKNESS = 0.1
"""Standard deviation across the surface, as a share of that along it."""
_LEAST_DEPTH = 0.7
"""Of the lining below the surface, as a share of its inset: what is thinner has none."""
_CONSTANT_HARMONIC = 0.28209479
_CHUNK = 1 << 14


@dataclass(frozen=True)
class Splats:
    """Gaussians as 3D Gaussian Splatting defines them: colour = 0.5 + sum of harmonics, at least 0."""

    means: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    sigmas: Float[np.ndarray, "n 3"]
    """Standard deviations along the axes, the last of which is the normal."""
    quaternions: Float[np.ndarray, "n 4"]
    """Of the axes, w first."""
    opacities: Float[np.ndarray, " n"]
    harmonics: Float[np.ndarray, "n basis 3"]

    @property
    def degree(self) -> int:
        """Of the harmonics."""
        return round(self.harmonics.shape[1] ** 0.5) - 1


def bytes_per_splat(degree: int) -> int:
    """In the file."""
    return 4 * (14 + 3 * (degree + 1) ** 2)


def make_splats(
    model: CraymModel, surface: SeenSurface, pictures: list[Picture], data_from_unit: Similarity, degree: int
) -> Splats:
    """Splats of the surface that cameras see, in the frame of the data.

    Args:
        surface, pictures: in the unit frame; pictures are what the splats are to look like.
        degree: of the spherical harmonics, 0 to 3.
    """
    pixel = float(np.median([picture.shrink for picture in pictures]))
    most = MOST_BYTES // bytes_per_splat(degree)
    layers = [_placed(model, surface, layer, pixel, most, degree) for layer in (SURFACE, LINING)]
    # Directions of harmonics are those of the data; its lengths and origin would cost single precision its digits.
    turned = Similarity.of(rotation=data_from_unit.rotation.numpy())
    means, axes, *rest = (torch.cat(parts) for parts in zip(*map(astuple, layers), strict=True))
    start = Gaussians(turned.points(means), turned.rotation.to(axes) @ axes, *rest)
    pictures = [replace(each, view=replace(each.view, c2w=turned.poses(each.view.c2w))) for each in pictures]
    fitted = fit(start, pictures)
    final_axes = start.axes.double().numpy()
    return Splats(
        means=(data_from_unit @ turned.inverse()).points(fitted.means.double().numpy()),
        normals=final_axes[..., 2],
        sigmas=data_from_unit.lengths(fitted.log_sigmas.double().exp().numpy()),
        quaternions=quaternions(final_axes),
        opacities=fitted.logits.double().sigmoid().numpy(),
        harmonics=fitted.harmonics.numpy(),
    )


def _placed(model: CraymModel, surface: SeenSurface, layer: Layer, pixel: float, most: int, degree: int) -> Gaussians:
    """A layer in the unit frame, its part of the `most` splats at most; `pixel` of pictures in pixels of photos."""
    shares = {each.spacing_px: each.spacing_px**-2 for each in (SURFACE, LINING)}
    share = shares[layer.spacing_px] / sum(shares.values())
    placed = place_points(surface, layer.spacing_px * pixel * surface.footprint, int(share * most), seed=0)
    points, normals, rgb = _on_surface(model, placed.points)
    splats = flat_splats(points, normals, rgb, placed.spacing, layer, degree)
    if layer is SURFACE:
        return splats
    deep = _depth(model, splats.means) > _LEAST_DEPTH * layer.inset * torch.from_numpy(placed.spacing)
    return Gaussians(*(part[deep] for part in astuple(splats)))


def flat_splats(
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    rgb: Float[np.ndarray, "n 3"],
    spacing: Float[np.ndarray, " n"],
    layer: Layer,
    degree: int,
) -> Gaussians:
    """Gaussians to start from: flat, a little inside a surface, of one colour from everywhere.

    Args:
        spacing: distance of neighbours around each.
        degree: of the harmonics that they get room for.
    """
    means = points - (layer.inset * spacing)[:, None] * normals
    sigmas = (layer.sigma * spacing)[:, None] * [1.0, 1.0, _THICKNESS]
    harmonics = np.zeros((len(points), (degree + 1) ** 2, 3))
    harmonics[:, 0] = (rgb - 0.5) / _CONSTANT_HARMONIC
    logits = np.full(len(points), np.log(layer.opacity / (1.0 - layer.opacity)))
    parts = means, _axes(normals), np.log(sigmas), logits, harmonics
    return Gaussians(*(torch.from_numpy(part).float() for part in parts))


@torch.no_grad()
def _depth(model: CraymModel, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """How far points of the unit frame lie below the surface."""
    parts = points.to(model.device).split(_CHUNK)
    return -torch.cat([model.scene.field.sdf(part, model.level_weights) for part in parts]).cpu()


@torch.no_grad()
def _on_surface(
    model: CraymModel, points: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Points moved onto the zero level, their outward normals and colours."""
    field, kept = model.scene.field, []
    for part in torch.from_numpy(points).float().to(model.device).split(_CHUNK):
        surface = field.surface(part, *field.encode(part, model.level_weights))
        kept.append(part - F.normalize(surface.gradient, dim=-1) * surface.sdf[:, None])
    moved = torch.cat(kept).cpu().double().numpy()
    return moved, *appearance(model, moved)


def _axes(normals: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Right-handed frames (columns) whose third axis is the normal."""
    helper = np.where(np.abs(normals[:, :1]) < 0.7, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    first = np.cross(helper, normals)
    first /= np.linalg.norm(first, axis=-1, keepdims=True)
    return np.stack([first, np.cross(normals, first), normals], axis=-1)


def quaternions(rotations: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 4"]:
    """Of rotation matrices, w first."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(rotations).as_quat()[:, [3, 0, 1, 2]]
