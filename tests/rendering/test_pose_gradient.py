"""A camera that is off by 2 degrees must learn which way to turn, although the cache that places samples is off too."""

import math

import pytest
import torch
from torch import Tensor, nn

from craym_nerfstudio.fields.sdf_field import SurfacePoint
from craym_nerfstudio.geometry.lie import compose, se3_exp
from craym_nerfstudio.rendering.renderer import RenderState, SceneRenderer
from tests.dome import look_at

PUSH_DEG, SIDE = 2.0, 20
CENTER, RADII = torch.tensor([0.1, -0.05, 0.0]), torch.tensor([0.6, 0.45, 0.35])
TRUE = look_at(torch.tensor([[2.0, 1.5, 1.0]]), torch.zeros(3))[0]


def ellipsoid(points: Tensor) -> Tensor:
    """Distance to an ellipsoid, exact to first order near it."""
    scaled = (points - CENTER) / RADII
    return scaled.norm(dim=-1) * (scaled.norm(dim=-1) - 1) / (scaled / RADII).norm(dim=-1).clamp_min(1e-6)


class EllipsoidField(nn.Module):
    """The ellipsoid in place of a learned field; its feature is the point itself."""

    def encode(self, points: Tensor, level_weights: Tensor):
        """Nothing to encode."""
        return points[:, :2] * 0, lambda gradient: torch.zeros_like(points)

    def surface(self, points: Tensor, features: Tensor, pullback) -> SurfacePoint:
        """Distance, and its derivative without a graph: the normal is not what turns the camera."""
        with torch.enable_grad():
            at = points.detach().requires_grad_()
            (slope,) = torch.autograd.grad(ellipsoid(at).sum(), at)
        return SurfacePoint(ellipsoid(points), slope, points)


class StripedColor(nn.Module):
    """A smooth texture of space."""

    def forward(self, feature: Tensor, harmonics: Tensor, normal: Tensor) -> Tensor:
        """Colours in [0, 1], half a period across the object's radius."""
        waves = torch.tensor([[5.0, 1.0, 0.0], [0.0, 5.0, 2.0], [-1.0, 2.0, 5.0]])
        return 0.5 + 0.5 * torch.sin(feature @ waves.T)


def renderer(cached, variance: float = 0.4) -> SceneRenderer:
    """The ellipsoid, with samples placed by the cache of another distance."""
    scene = SceneRenderer(
        EllipsoidField(),  # type: ignore[arg-type]
        StripedColor(),  # type: ignore[arg-type]
        None,
        grid_resolution=64,
        fine_samples=24,
    )
    nn.init.constant_(scene.variance, variance)
    scene.grid.refresh(cached)
    return scene


def image(scene: SceneRenderer, c2w: Tensor, interval: float = 0.1) -> Tensor:
    """A small image [rays, 3] on white, 30 degrees wide."""
    axis = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    local = torch.stack([x, -y, torch.full_like(x, -1 / math.tan(math.radians(15)))], dim=-1).view(-1, 3)
    directions = nn.functional.normalize(local @ c2w[:, :3].T, dim=-1)
    state = RenderState(torch.ones(4), interval=interval)
    return scene(c2w[:, 3].expand_as(directions), directions, torch.ones_like(directions), state).rgb


def moved_with(motion: Tensor):
    """The ellipsoid where a camera with the wrong pose believes it: its distance to points in the true world."""
    wrong = compose(TRUE, motion)

    def distance(points: Tensor) -> Tensor:
        in_camera = (points - wrong[:, 3]) @ wrong[:, :3]
        return ellipsoid(in_camera @ TRUE[:, :3].T + TRUE[:, 3])

    return distance


@pytest.mark.parametrize("axis", [(1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.7, 0.7, 0.0), (-0.5, 0.6, 0.6)])
@pytest.mark.parametrize("cache", ["true", "wrong"])
@pytest.mark.parametrize(("variance", "interval"), [(0.4, 0.1), (0.55, 0.08)], ids=["early", "late"])
def test_gradient_turns_the_camera_back(axis: tuple, cache: str, variance: float, interval: float) -> None:
    push = torch.cat([torch.zeros(3), nn.functional.normalize(torch.tensor(axis), dim=0) * math.radians(PUSH_DEG)])
    scene = renderer(ellipsoid if cache == "true" else moved_with(se3_exp(push)), variance)
    with torch.no_grad():
        target = image(renderer(ellipsoid, variance), TRUE, interval)
    rotation = push[3:].clone().requires_grad_()
    pose = compose(TRUE, se3_exp(torch.cat([torch.zeros(3), rotation])))
    loss = (image(scene, pose, interval) - target).square().mean()
    (gradient,) = torch.autograd.grad(loss, rotation)
    towards_truth = nn.functional.cosine_similarity(-gradient, -push[3:], dim=0)
    assert towards_truth > 0.7
    step = rotation.detach() - 0.5 * push.norm() * gradient / gradient.norm()
    assert step.norm() < 0.8 * push.norm()
