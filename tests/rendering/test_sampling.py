"""Sample placement: bounds by hand, inverted distributions, the cached grid, sections of an analytic sphere."""

import math
import os

import pytest
import torch
from torch import Tensor

from craym_nerfstudio.rendering import sampling
from craym_nerfstudio.rendering.sampling import (
    DistanceGrid,
    Placing,
    RaySamples,
    sample_pdf,
    sample_rays,
    sphere_bounds,
    stratified,
)

RADIUS = 0.5


def sphere(points: Tensor) -> Tensor:
    """Signed distance of a sphere about the origin."""
    return points.norm(dim=-1) - RADIUS


def filled_grid(resolution: int = 48) -> DistanceGrid:
    """A cache of the sphere."""
    grid = DistanceGrid(resolution)
    grid.refresh(sphere)
    return grid


def parallel_rays(offsets: list[float]) -> tuple[Tensor, Tensor]:
    """Rays along +z from z = -3, at these x."""
    origins = torch.tensor([[x, 0.0, -3.0] for x in offsets])
    return origins, torch.tensor([[0.0, 0.0, 1.0]]).expand_as(origins)


def sampled(origins: Tensor, directions: Tensor, **options) -> RaySamples:
    """Sections of rays through the sphere."""
    settings = {"coarse": 64, "fine": 32, "inv_s": torch.tensor(40.0), "interval": 0.1, "keep_below": 1e-3} | options
    return sample_rays(filled_grid(), origins, directions, Placing(**settings))


@pytest.mark.parametrize(
    ("origin", "enter", "leave", "meets"),
    [
        ((0.0, 0.0, -3.0), 2.0, 4.0, True),
        ((0.6, 0.0, -3.0), 2.2, 3.8, True),
        ((1.5, 0.0, -3.0), None, None, False),
        ((0.0, 0.0, 0.0), 0.02, 1.0, True),
        ((0.0, 0.0, 3.0), None, None, False),
    ],
    ids=["through the centre", "beside it", "past the sphere", "from within", "away from it"],
)
def test_sphere_bounds_hand_values(origin: tuple, enter: float | None, leave: float | None, meets: bool) -> None:
    near, far, hit = sphere_bounds(torch.tensor([origin]), torch.tensor([[0.0, 0.0, 1.0]]))
    assert bool(hit) is meets
    assert far > near > 0
    if meets:
        assert near.item() == pytest.approx(enter, abs=1e-5)
        assert far.item() == pytest.approx(leave, abs=1e-5)


def test_stratified_has_one_number_per_bin() -> None:
    torch.testing.assert_close(stratified(4, 1, None, "cpu"), torch.tensor([[0.125, 0.375, 0.625, 0.875]]))
    jitter = torch.tensor([[0.0], [0.9]])
    torch.testing.assert_close(
        stratified(2, 2, jitter, "cpu"), torch.tensor([[0.0, 0.5], [0.45, 0.95]]), rtol=0, atol=1e-6
    )


def test_sample_pdf_hand_values() -> None:
    """A quarter of the mass lies in the first of two unit bins."""
    edges, weights = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[1.0, 3.0]])
    found = sample_pdf(edges, weights, torch.tensor([[0.125, 0.25, 0.625, 1.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.5, 1.0, 1.5, 2.0]]))


def test_sample_pdf_invert_the_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand((5, 16), generator=generator, dtype=torch.float64) + 0.01
    edges = torch.linspace(1, 3, 17, dtype=torch.float64).expand(5, -1)
    quantiles = torch.linspace(0.01, 0.99, 50, dtype=torch.float64).expand(5, -1)
    found = sample_pdf(edges, weights, quantiles)
    density = weights / weights.sum(-1, keepdim=True)
    share_of_bins = ((found[..., None] - edges[:, None, :-1]) / (2 / 16)).clamp(0, 1)
    torch.testing.assert_close((share_of_bins * density[:, None]).sum(-1), quantiles, rtol=0, atol=1e-9)


def test_grid_is_exact_on_linear_functions_and_x_runs_fastest() -> None:
    slope = torch.tensor([1.0, -2.0, 0.5])
    grid = DistanceGrid(7)
    grid.refresh(lambda points: points @ slope + 0.25)
    points = torch.rand((4, 5, 3), generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(grid.lookup(points), points @ slope + 0.25, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        grid.points[[0, 1, 7]],
        torch.tensor([[-1.0, -1.0, -1.0], [-2 / 3, -1.0, -1.0], [-1.0, -2 / 3, -1.0]]),
    )


def test_grid_refreshed_in_slabs_equals_one_refresh() -> None:
    slabs, whole = DistanceGrid(9), filled_grid(9)
    for part in range(4):
        slabs.refresh(sphere, part, 4)
    assert torch.equal(slabs.values, whole.values)


def test_grid_beyond_its_cube_repeats_the_border() -> None:
    grid = filled_grid(9)
    outside, border = torch.tensor([[[3.0, 0.0, 0.0]]]), torch.tensor([[[1.0, 0.0, 0.0]]])
    torch.testing.assert_close(grid.lookup(outside), grid.lookup(border))


@pytest.mark.parametrize("offset", [0.0, 0.3, 0.45])
def test_sections_gather_at_the_surface(offset: float) -> None:
    """Half of the sections lie within two cells of the hit, and the hit itself is in an active section."""
    samples = sampled(*parallel_rays([offset]))
    hit = 3.0 - math.sqrt(RADIUS**2 - offset**2)
    distance = (samples.middles[0] - hit).abs()
    assert (distance < 4 / 47).float().mean() >= 0.5
    assert samples.active[0, distance.argmin()]
    assert distance.min() < 0.02
    assert (samples.middles.diff() > 0).all()
    assert (samples.steps > 0).all()


def test_rays_that_meet_no_surface_are_not_evaluated() -> None:
    """Past the unit sphere nothing is active; far from the surface inside of it nothing either."""
    samples = sampled(*parallel_rays([2.0, 0.97, 0.0]))
    assert samples.active.any(-1).tolist() == [False, False, True]


def test_sections_deep_behind_the_surface_are_hidden() -> None:
    samples = sampled(*parallel_rays([0.0]), inv_s=torch.tensor(90.0), interval=0.06)
    assert not samples.active[0, samples.middles[0] > 3.2].any()


def test_an_edge_behind_the_closest_place_of_the_cache_is_met() -> None:
    """A ray that passes the cached sphere at 0.01 finds sections on both sides of the place where it is closest."""
    samples = sampled(*parallel_rays([RADIUS + 0.01]), inv_s=torch.tensor(200.0), interval=0.03)
    sides = samples.middles[0][samples.active[0]] - 3.0
    before, behind = int((sides < 0).sum()), int((sides > 0).sum())
    assert min(before, behind) > 0.3 * (before + behind)


@pytest.mark.parametrize("interval", [0.2, 0.05])
def test_sections_keep_to_the_interval(interval: float) -> None:
    """However sharp the density, sections cover the interval before the first surface, and hardly more."""
    samples = sampled(*parallel_rays([0.0]), inv_s=torch.tensor(1e4), interval=interval)
    before = (2.5 - samples.middles[0])[samples.active[0] & (samples.middles[0] < 2.5)]
    assert 0.3 * interval < before.max() < 2.0 * interval


def test_a_soft_density_is_sampled_beyond_the_interval() -> None:
    """Where light is absorbed 0.3 before the surface, sections must lie there."""
    samples = sampled(*parallel_rays([0.0]), inv_s=torch.tensor(10.0), interval=0.05)
    assert samples.middles[0][samples.active[0]].min() < 2.2


def test_jitter_moves_sections_and_is_deterministic() -> None:
    rays = parallel_rays([0.1, 0.1])
    jitter = torch.tensor([[0.1], [0.9]])
    first, again = sampled(*rays, jitter=jitter), sampled(*rays, jitter=jitter)
    assert torch.equal(first.middles, again.middles)
    assert (first.middles[1] >= first.middles[0]).all()
    assert (first.middles[1] > first.middles[0]).any()


IN_INTERPRETER = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.mark.parametrize("inv_s", [20.0, 400.0])
@pytest.mark.parametrize("interval", [0.5, 0.08])
@pytest.mark.parametrize(
    "kernel",
    [
        "numba",
        pytest.param("triton", marks=pytest.mark.skipif(not IN_INTERPRETER, reason="for Triton's interpreter")),
    ],
)
def test_kernel_places_sections_as_tensor_operations_do(
    monkeypatch: pytest.MonkeyPatch, kernel: str, inv_s: float, interval: float
) -> None:
    generator = torch.Generator().manual_seed(3)
    origins = torch.nn.functional.normalize(torch.randn((300, 3), generator=generator), dim=-1) * 2.0
    aims = 0.7 * torch.randn((300, 3), generator=generator)
    rays = (origins, torch.nn.functional.normalize(aims - origins, dim=-1))
    jitter = torch.rand((300, 1), generator=generator)
    settings = (filled_grid(), *rays, Placing(64, 24, torch.tensor(inv_s), interval, 1e-3, jitter))
    place = sampling._place_by_kernel
    if kernel == "triton":
        # The interpreter takes as long for a small program as for a large one; two programs, one of them not full.
        monkeypatch.setattr("craym_nerfstudio.rendering.triton_kernels.BLOCK", 256)
        place = sampling._place_by_triton
    ours, theirs = place(*settings), sampling._place(*settings)
    meets = sphere_bounds(*rays)[2]
    assert 0.3 < meets.float().mean() < 1.0
    assert (ours.active == theirs.active).float().mean() > 0.999
    assert not ours.active[~meets].any()
    torch.testing.assert_close(ours.middles[meets], theirs.middles[meets], rtol=0, atol=4e-4)
    torch.testing.assert_close(ours.steps[meets], theirs.steps[meets], rtol=0, atol=2e-4)
