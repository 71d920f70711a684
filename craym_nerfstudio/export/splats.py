"""Flat Gaussians placed on the surface and fitted to the photos: splats in seconds, on a CPU."""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float

from craym_nerfstudio.export.mesh import appearance
from craym_nerfstudio.export.placing import place_points
from craym_nerfstudio.export.seen_surface import SeenSurface
from craym_nerfstudio.export.splat_fit import fit
from craym_nerfstudio.export.splat_pictures import Picture
from craym_nerfstudio.export.splat_view import Gaussians
from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.model import CraymModel

PIXELS_PER_SPLAT = 0.7
"""Distance of neighbours, in pixels of the picture that sees them best."""
MOST_BYTES = 15_000_000
"""Of the file: what a web viewer loads at once."""
_WIDTH = 0.35
"""Standard deviation of a splat in distances of neighbours, at the start."""
_THICKNESS = 0.1
"""Its standard deviation across the surface, as a share of that along it."""
_OPACITY = 0.9
_INSET = 0.8
"""How far inside the surface splats start, in distances of neighbours."""
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
    pixel = np.median([picture.shrink for picture in pictures]) * surface.footprint
    placed = place_points(surface, PIXELS_PER_SPLAT * pixel, MOST_BYTES // bytes_per_splat(degree), seed=0)
    points, normals, rgb = _on_surface(model, placed.points)
    # Directions of harmonics are those of the data; its lengths and origin would cost single precision its digits.
    turned = Similarity.of(rotation=data_from_unit.rotation.numpy())
    start = flat_splats(turned.points(points), turned.directions(normals), rgb, placed.spacing, degree)
    pictures = [replace(each, view=replace(each.view, c2w=turned.poses(each.view.c2w))) for each in pictures]
    fitted = fit(start, pictures, float(np.median(placed.spacing)))
    axes = start.axes.double().numpy()
    return Splats(
        means=(data_from_unit @ turned.inverse()).points(fitted.means.double().numpy()),
        normals=axes[..., 2],
        sigmas=data_from_unit.lengths(fitted.log_sigmas.double().exp().numpy()),
        quaternions=quaternions(axes),
        opacities=fitted.logits.double().sigmoid().numpy(),
        harmonics=fitted.harmonics.numpy(),
    )


def flat_splats(
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    rgb: Float[np.ndarray, "n 3"],
    spacing: Float[np.ndarray, " n"],
    degree: int,
) -> Gaussians:
    """Gaussians to start from: flat, a little inside a surface, of one colour from everywhere.

    Args:
        spacing: distance of neighbours around each.
        degree: of the harmonics that they get room for.
    """
    # Splats are blurs, and a renderer widens them by half a pixel: so far inside, outlines end where the surface does.
    means = points - (_INSET * spacing)[:, None] * normals
    sigmas = (_WIDTH * spacing)[:, None] * [1.0, 1.0, _THICKNESS]
    harmonics = np.zeros((len(points), (degree + 1) ** 2, 3))
    harmonics[:, 0] = (rgb - 0.5) / _CONSTANT_HARMONIC
    logits = np.full(len(points), np.log(_OPACITY / (1.0 - _OPACITY)))
    parts = means, _axes(normals), np.log(sigmas), logits, harmonics
    return Gaussians(*(torch.from_numpy(part).float() for part in parts))


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
