"""Photos compared on a plane whose pattern is known: nothing is lost at the truth, and all ways lead there."""

import pytest
import torch
from torch import Tensor

from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.layout import SurfaceRays
from craym_nerfstudio.objective.consistency import (
    compared_images,
    consistency_loss,
    correlation,
    patch_axes,
    plane_motion,
)
from tests.dome import look_at

CENTERS = torch.tensor(
    [[0.0, -1.0, 3.0], [0.6, -0.8, 3.0], [-0.6, -0.9, 2.8], [0.3, 0.5, 3.2], [-0.4, 0.6, 2.9]], dtype=torch.float64
)
C2W = look_at(CENTERS, torch.zeros(3, dtype=torch.float64))
PIXEL = 0.01
SAME = Similarity.of()


class PatternedPlane:
    """Photos of the plane z = 0 from `C2W`, each value computed where its bearing meets the plane.

    `lost` are images that show something else; `unknown` ones are masked.
    """

    def __init__(self, lost: tuple[int, ...] = (), unknown: tuple[int, ...] = ()) -> None:
        self.lost, self.unknown = lost, unknown
        self.pixel = torch.full((5, 2), PIXEL, dtype=torch.float64)
        self.neighbours = torch.tensor([[n for n in range(5) if n != k] * 2 for k in range(5)])

    def at(self, image: Tensor, bearings: Tensor, along: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A pattern of waves of 5 to 10 pixels."""
        bearings = bearings.mT
        grey, slope = torch.func.jvp(
            lambda towards: self._pattern(image, towards), (bearings,), (along[:, None].expand_as(bearings),)
        )
        known = ~torch.isin(image, torch.tensor(self.unknown))
        return grey.nan_to_num(), slope.nan_to_num(), known & (bearings[..., 2] < 0).all(-1)

    def _pattern(self, image: Tensor, bearings: Tensor) -> Tensor:
        pose = C2W[image][:, None]
        towards = (pose[..., :3] @ bearings[..., None])[..., 0]
        center = pose[..., 3]
        place = center - towards * (center[..., 2:] / towards[..., 2:])
        other = torch.isin(image, torch.tensor(self.lost))[:, None]
        x, y = place[..., 0] + 5.0 * other, torch.where(other, -1.7, 1.0) * place[..., 1]
        return 0.5 + 0.2 * torch.sin(30.0 * x + 11.0 * y) + 0.2 * torch.cos(23.0 * y - 9.0 * x)


def rays(count: int = 24, seed: int = 0) -> SurfaceRays:
    """Rays that meet the plane near its middle, with their true distances and normals."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.rand((count, 3), generator=generator, dtype=torch.float64) - 0.5
    place[:, 2] = 0.0
    image = torch.randint(5, (count,), generator=generator)
    offset = place - CENTERS[image]
    distance = offset.norm(dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(count, 3)
    return SurfaceRays(image, offset / distance[:, None], distance, up)


def moved(of: SurfaceRays, further: float) -> SurfaceRays:
    """Rays that meet the surface a little later."""
    return SurfaceRays(of.image, of.directions, of.distance + further, of.normals)


def rays_of(*images: int) -> SurfaceRays:
    """Rays of some images alone."""
    of = rays(60)
    keep = torch.isin(of.image, torch.tensor(images))
    return SurfaceRays(*(value[keep] for value in vars(of).values()))


def test_nothing_is_lost_on_the_true_surface_and_much_beside_it() -> None:
    assert float(consistency_loss(PatternedPlane(), rays(), C2W, SAME)) < 1e-5
    assert float(consistency_loss(PatternedPlane(), moved(rays(), 0.1), C2W, SAME)) > 0.1


@pytest.mark.parametrize("further", [-0.02, -0.01, 0.01, 0.02])
def test_the_surface_is_pulled_to_the_true_one_from_both_sides(further: float) -> None:
    wrong = moved(rays(200), further)
    wrong.distance.requires_grad_()
    consistency_loss(PatternedPlane(), wrong, C2W, SAME).backward()
    assert wrong.distance.grad is not None
    pulled = wrong.distance.grad.sign() == torch.sign(torch.tensor(further))
    assert pulled.double().mean() > 0.9


def test_gradients_to_surface_and_normals() -> None:
    wrong = moved(rays(6), 0.008)

    def loss(distance: Tensor, normals: Tensor) -> Tensor:
        own = SurfaceRays(wrong.image, wrong.directions, distance, normals)
        return consistency_loss(PatternedPlane(), own, C2W, SAME)

    tilted = torch.nn.functional.normalize(wrong.normals + torch.tensor([0.05, -0.03, 0.0]), dim=-1)
    inputs = [value.double().clone().requires_grad_() for value in (wrong.distance, tilted)]
    assert torch.autograd.gradcheck(loss, inputs, atol=1e-6)


def test_neighbours_that_see_something_else_do_not_count() -> None:
    """Of four the two that agree best are kept; a masked one is not looked at."""
    assert float(consistency_loss(PatternedPlane(lost=(3,), unknown=(4,)), rays_of(0, 1, 2), C2W, SAME)) < 1e-5


def test_what_cannot_be_compared_counts_for_nothing() -> None:
    off = moved(rays(), 0.1)
    empty = SurfaceRays(off.image, off.directions, torch.zeros_like(off.distance), off.normals)
    assert float(consistency_loss(PatternedPlane(), empty, C2W, SAME)) == 0.0
    assert float(consistency_loss(PatternedPlane(unknown=(0, 1, 2, 3, 4)), off, C2W, SAME)) == 0.0
    from_behind = SurfaceRays(off.image, off.directions, off.distance, -off.normals)
    assert float(consistency_loss(PatternedPlane(), from_behind, C2W, SAME)) == 0.0
    none = SurfaceRays(*(value[:0] for value in vars(off).values()))
    assert float(consistency_loss(PatternedPlane(), none, C2W, SAME)) == 0.0


def test_the_loss_is_the_same_in_a_world_of_another_scale() -> None:
    wrong, world = moved(rays(), 0.01), Similarity.of(3.0, None, [1.0, -2.0, 0.5])
    loss = consistency_loss(PatternedPlane(), wrong, C2W, SAME)
    other = consistency_loss(PatternedPlane(), wrong, world.poses(C2W), world.inverse())
    torch.testing.assert_close(other, loss)


def test_each_image_comes_first_and_every_other_neighbour_follows() -> None:
    neighbours = torch.arange(10, 34).view(3, 8)
    found = compared_images(torch.tensor([2, 0, 1]), neighbours)
    assert found.tolist() == [[2, 26, 28, 30, 32], [0, 11, 13, 15, 17], [1, 18, 20, 22, 24]]


def test_a_plane_takes_directions_to_where_the_other_camera_sees_it() -> None:
    generator = torch.Generator().manual_seed(1)
    origin, point, other, towards = torch.randn((4, 7, 3), generator=generator, dtype=torch.float64)
    normal = torch.nn.functional.normalize(torch.randn((7, 3), generator=generator, dtype=torch.float64), dim=-1)
    reach = ((point - origin) * normal).sum(-1, keepdim=True)
    slope = (towards * normal).sum(-1, keepdim=True)
    met = origin + reach / slope * towards
    axes = -torch.eye(3, dtype=torch.float64).expand(7, 3, 3)
    motion = plane_motion(axes, -normal[:, None], reach, (origin - other)[:, None, :, None])
    torch.testing.assert_close((motion[:, 0] @ towards[..., None])[..., 0], -slope * (met - other))


def test_patches_lie_about_their_directions() -> None:
    turn = look_at(CENTERS[1:2], torch.zeros(3, dtype=torch.float64))[..., :3]
    bearing = torch.tensor([[0.2, -0.1, -0.5]], dtype=torch.float64)
    axes = patch_axes((turn @ bearing[..., None])[..., 0], turn, torch.tensor([[0.01, 0.02]], dtype=torch.float64))
    # The middle, and two pixels to the left and two up, at distance 1 before the camera.
    places = torch.tensor([[0.0, 0.0, -1.0], [-2.0, 2.0, -1.0]], dtype=torch.float64)
    found = (turn.mT @ -axes @ places.mT)[0].mT
    expected = torch.tensor([[0.4, -0.2, -1.0], [0.38, -0.16, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(found / -found[:, 2:], expected)
    assert (found[:, 2] < 0).all()


def test_correlation_knows_no_exposure() -> None:
    values = torch.rand((3, 25), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    views = torch.stack([values, 0.6 * values + 0.2, 1.0 - values, torch.full_like(values, 0.4)], dim=1)
    found, contrast, _ = correlation(views)
    expected = torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64).expand(3, 3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(contrast[:, 0], 25 * values.var(-1, correction=0))


def test_correlation_rises_as_by_autograd() -> None:
    views = torch.rand((3, 4, 9), generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    found, _, rise = correlation(views)
    (gradient,) = torch.autograd.grad(found.sum(), views)
    torch.testing.assert_close(rise, gradient[:, 1:])
