"""Photos compared on a plane whose pattern is known: nothing is lost at the truth, and all ways lead there."""

import pytest
import torch
from torch import Tensor

from craym_nerfstudio.layout import SurfaceRays
from craym_nerfstudio.objective.consistency import consistency_loss, correlation, patch_bearings, plane_motion
from tests.dome import look_at

CENTERS = torch.tensor(
    [[0.0, -1.0, 3.0], [0.6, -0.8, 3.0], [-0.6, -0.9, 2.8], [0.3, 0.5, 3.2], [-0.4, 0.6, 2.9]], dtype=torch.float64
)
C2W = look_at(CENTERS, torch.zeros(3, dtype=torch.float64))
PIXEL = 0.01


class PatternedPlane:
    """Photos of the plane z = 0 from `C2W`, each value computed where its bearing meets the plane.

    `lost` are images that show something else; `unknown` ones are masked.
    """

    def __init__(self, lost: tuple[int, ...] = (), unknown: tuple[int, ...] = ()) -> None:
        self.lost, self.unknown = lost, unknown
        self.pixel = torch.full((5, 2), PIXEL, dtype=torch.float64)
        self.neighbours = torch.tensor([[n for n in range(5) if n != k] * 2 for k in range(5)])

    def at(self, image: Tensor, bearings: Tensor) -> tuple[Tensor, Tensor]:
        """A pattern of waves of 5 to 10 pixels."""
        pose = C2W[image][:, None]
        towards = (pose[..., :3] @ bearings[..., None])[..., 0]
        center = pose[..., 3]
        place = center - towards * (center[..., 2:] / towards[..., 2:])
        other = torch.isin(image, torch.tensor(self.lost))[:, None]
        x, y = place[..., 0] + 5.0 * other, torch.where(other, -1.7, 1.0) * place[..., 1]
        grey = 0.5 + 0.2 * torch.sin(30.0 * x + 11.0 * y) + 0.2 * torch.cos(23.0 * y - 9.0 * x)
        known = ~torch.isin(image, torch.tensor(self.unknown))[:, None].expand_as(grey)
        return grey, known & (bearings[..., 2] < 0)


def rays(count: int = 24, seed: int = 0) -> SurfaceRays:
    """Rays that meet the plane near its middle, with their true distances and normals."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.rand((count, 3), generator=generator, dtype=torch.float64) - 0.5
    place[:, 2] = 0.0
    image = torch.randint(5, (count,), generator=generator)
    offset = place - CENTERS[image]
    distance = offset.norm(dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(count, 3)
    return SurfaceRays(image, CENTERS[image], offset / distance[:, None], distance, up)


def moved(of: SurfaceRays, further: float) -> SurfaceRays:
    """Rays that meet the surface a little later."""
    return SurfaceRays(of.image, of.origins, of.directions, of.distance + further, of.normals)


def rays_of(*images: int) -> SurfaceRays:
    """Rays of some images alone."""
    of = rays(60)
    keep = torch.isin(of.image, torch.tensor(images))
    return SurfaceRays(*(value[keep] for value in vars(of).values()))


def test_nothing_is_lost_on_the_true_surface_and_much_beside_it() -> None:
    assert float(consistency_loss(PatternedPlane(), rays(), C2W)) < 1e-5
    assert float(consistency_loss(PatternedPlane(), moved(rays(), 0.1), C2W)) > 0.1


@pytest.mark.parametrize("further", [-0.02, -0.01, 0.01, 0.02])
def test_the_surface_is_pulled_to_the_true_one_from_both_sides(further: float) -> None:
    wrong = moved(rays(200), further)
    wrong.distance.requires_grad_()
    consistency_loss(PatternedPlane(), wrong, C2W).backward()
    assert wrong.distance.grad is not None
    pulled = wrong.distance.grad.sign() == torch.sign(torch.tensor(further))
    assert pulled.double().mean() > 0.9


def test_gradients_to_surface_and_normals() -> None:
    wrong = moved(rays(6), 0.008)

    def loss(distance: Tensor, normals: Tensor) -> Tensor:
        own = SurfaceRays(wrong.image, wrong.origins, wrong.directions, distance, normals)
        return consistency_loss(PatternedPlane(), own, C2W)

    tilted = torch.nn.functional.normalize(wrong.normals + torch.tensor([0.05, -0.03, 0.0]), dim=-1)
    inputs = [value.double().clone().requires_grad_() for value in (wrong.distance, tilted)]
    assert torch.autograd.gradcheck(loss, inputs, atol=1e-6)


def test_neighbours_that_see_something_else_do_not_count() -> None:
    """Of four the two that agree best are kept; a masked one is not looked at."""
    assert float(consistency_loss(PatternedPlane(lost=(3,), unknown=(4,)), rays_of(0, 1, 2), C2W)) < 1e-5


def test_what_cannot_be_compared_counts_for_nothing() -> None:
    off = moved(rays(), 0.1)
    empty = SurfaceRays(off.image, off.origins, off.directions, torch.zeros_like(off.distance), off.normals)
    assert float(consistency_loss(PatternedPlane(), empty, C2W)) == 0.0
    assert float(consistency_loss(PatternedPlane(unknown=(0, 1, 2, 3, 4)), off, C2W)) == 0.0
    from_behind = SurfaceRays(off.image, off.origins, off.directions, off.distance, -off.normals)
    assert float(consistency_loss(PatternedPlane(), from_behind, C2W)) == 0.0
    none = SurfaceRays(*(value[:0] for value in vars(off).values()))
    assert float(consistency_loss(PatternedPlane(), none, C2W)) == 0.0


def test_a_plane_takes_directions_to_where_the_other_camera_sees_it() -> None:
    generator = torch.Generator().manual_seed(1)
    origin, point, other, towards = torch.randn((4, 7, 3), generator=generator, dtype=torch.float64)
    normal = torch.nn.functional.normalize(torch.randn((7, 3), generator=generator, dtype=torch.float64), dim=-1)
    reach = ((point - origin) * normal).sum(-1) / (towards * normal).sum(-1)
    met = origin + reach[:, None] * towards
    found = (plane_motion(origin, point, normal, other[:, None])[:, 0] @ towards[..., None])[..., 0]
    scale = -(towards * normal).sum(-1, keepdim=True)
    torch.testing.assert_close(found, scale * (met - other))


def test_patches_lie_about_their_bearings() -> None:
    bearing = torch.tensor([[0.2, -0.1, -0.5]], dtype=torch.float64)
    patch = patch_bearings(bearing, torch.tensor([[0.01, 0.02]], dtype=torch.float64))
    torch.testing.assert_close(patch[0, 12], torch.tensor([0.4, -0.2, -1.0], dtype=torch.float64))
    # Row by row from above: the first lies two pixels to the left and two up.
    torch.testing.assert_close(patch[0, 0], torch.tensor([0.38, -0.16, -1.0], dtype=torch.float64))


def test_correlation_knows_no_exposure() -> None:
    values = torch.rand((3, 25), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ones = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(correlation(values, 0.6 * values + 0.2), ones, rtol=0, atol=1e-5)
    torch.testing.assert_close(correlation(values, 1.0 - values), -ones, rtol=0, atol=1e-5)
    assert correlation(values, torch.full_like(values, 0.4)).abs().max() < 1e-6
