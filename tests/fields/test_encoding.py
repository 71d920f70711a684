"""The hash encoding: hand-computed values, derivatives against finite differences, fused kernels against torch.

With TRITON_INTERPRET=1 in the environment the Triton kernels join the comparison on CPU tensors; see
test_encoding_triton.py.
"""

import copy
import math
import os

import pytest
import torch
from torch import Tensor

from craym_nerfstudio.fields.encoding import GridSpec, HashEncoding
from craym_nerfstudio.fields.encoding.grid import Grid
from craym_nerfstudio.fields.encoding.torch_backend import TorchBackend

FUSED = ["cpu"] + (["triton"] if os.environ.get("TRITON_INTERPRET") == "1" else [])
INTERPOLATIONS = ("linear", "smoothstep")
MASK = [1.0, 1.0, 0.4, 0.0, 0.7, 0.0]


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Make the points of every test the same in every run."""
    torch.manual_seed(0)


def small_spec(interpolation: str = "linear", features: int = 2) -> GridSpec:
    """Two dense and four hashed levels."""
    return GridSpec(6, features, 9, 4, 1.7, interpolation)  # type: ignore[arg-type]


def encoding_of(spec: GridSpec, backend: str, seed: int = 0) -> HashEncoding:
    """An encoding with features of order 1."""
    encoding = HashEncoding(spec, backend)  # type: ignore[arg-type]
    with torch.no_grad():
        encoding.table.copy_(torch.randn(encoding.table.shape, generator=torch.Generator().manual_seed(seed)))
    return encoding


def points_inside_cells(spec: GridSpec, n: int) -> Tensor:
    """Random float64 points at least 2 % of a cell away from every cell's face, where derivatives exist."""
    x = torch.rand(40 * n, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    fractions = torch.stack([(x * scale + 0.5) % 1 for scale in spec.scales], -1)
    return x[((fractions > 0.02) & (fractions < 0.98)).all(-1).all(-1)][:n]


def random_like(tensor: Tensor, seed: int) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed)).to(tensor)


def jacobian(encoding: HashEncoding, x: Tensor, mask: list[float] | None = None) -> Tensor:
    """Derivative of the features of points [n, 3] by the points, [n, features, 3]: unit vectors pulled back."""
    features = encoding.spec.n_features
    _, pullback = encoding.encode_with_pullback(x[:, None].expand(-1, features, -1), mask)
    return pullback(torch.eye(features, dtype=x.dtype).expand(len(x), -1, -1))


def test_sizes_of_levels() -> None:
    spec = GridSpec(levels=3, log2_table_size=9, base_resolution=4, growth=2.0)
    assert spec.scales == (3.0, 7.0, 15.0)
    assert spec.resolutions == (4, 8, 16)
    assert spec.sizes == (64, 512, 512)
    assert spec.dense == (True, True, False)
    assert spec.offsets == (0, 64, 576, 1088)
    assert (spec.n_features, spec.n_entries, spec.n_params) == (6, 1088, 2176)


@pytest.mark.parametrize(
    "wrong",
    [{"levels": 0}, {"features_per_level": 3}, {"growth": 0.5}, {"log2_table_size": 30}, {"interpolation": "cubic"}],
)
def test_impossible_sizes_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError):
        GridSpec(**wrong)


@pytest.mark.parametrize("backend", ["torch", *FUSED])
def test_hand_computed_value_and_jacobian(backend: str) -> None:
    encoding = encoding_of(GridSpec(1, 2, 3, 2, 1.0), backend)  # 2^3 vertices, x fastest
    with torch.no_grad():
        value = torch.arange(8.0)  # of vertex (i, j, k): i + 2 j + 4 k
        encoding.table.copy_(torch.stack([value, -value], -1))
    # position = x * 1 + 0.5: the point lies at (0.75, 0.625, 0.875) in the first cell
    x, expected = torch.tensor([[0.25, 0.125, 0.375]]), 0.75 + 2 * 0.625 + 4 * 0.875
    torch.testing.assert_close(encoding(x), torch.tensor([[expected, -expected]]))
    torch.testing.assert_close(jacobian(encoding, x), torch.tensor([[[1.0, 2.0, 4.0], [-1.0, -2.0, -4.0]]]))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_derivatives_equal_finite_differences(interpolation: str) -> None:
    spec = GridSpec(3, 2, 6, 3, 1.7, interpolation)  # type: ignore[arg-type]
    encoding = encoding_of(spec, "torch").double()
    x = points_inside_cells(spec, 3).requires_grad_()
    weights = (1.0, 0.5, 1.0)

    def outputs(x: Tensor, table: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        features, pullback = TorchBackend().encode_with_pullback(x, Grid(spec, table, weights))
        return features, pullback(direction)

    table = encoding.table.detach().clone().requires_grad_()
    direction = random_like(encoding(x), 2).requires_grad_()
    assert torch.autograd.gradcheck(outputs, (x, table, direction))
    step = 1e-6
    for axis in range(3):
        shift = step * torch.eye(3, dtype=torch.float64)[axis]
        difference = (encoding(x + shift, weights) - encoding(x - shift, weights)) / (2 * step)
        torch.testing.assert_close(jacobian(encoding, x, weights)[..., axis], difference, rtol=1e-6, atol=1e-6)


def gradients(encoding: HashEncoding, x: Tensor, mask: list[float] | None, way: str) -> list[Tensor]:
    """Outputs, and gradients by x and the table of a loss on them, for one of the two ways to encode."""
    x = x.clone().requires_grad_()
    encoding.zero_grad()
    if way == "features":
        features = encoding(x, mask)
        outputs, loss = [features], (features * random_like(features, 4)).sum()
    else:
        features, pullback = encoding.encode_with_pullback(x, mask)
        direction = (features * random_like(features, 3)).cos()  # depends on the features, as an MLP's gradient does
        outputs = [features, pullback(direction)]
        loss = (features * random_like(features, 4)).sum() + (outputs[1].norm(dim=-1) - 1).square().sum()
    loss.backward()
    assert x.grad is not None and encoding.table.grad is not None
    return [t.detach().double() for t in (*outputs, x.grad, encoding.table.grad)]


@pytest.mark.parametrize("way", ["features", "pullback"])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("backend", FUSED)
def test_fused_equals_torch(backend: str, interpolation: str, way: str) -> None:
    spec = small_spec(interpolation)
    fused, reference = encoding_of(spec, backend), encoding_of(spec, "torch").double()
    x = points_inside_cells(spec, 150)
    mask = None if way == "features" else MASK
    results = gradients(fused, x.float(), mask, way)
    expected = gradients(reference, x, mask, way)
    for result, value in zip(results, expected, strict=True):
        torch.testing.assert_close(result, value, rtol=0, atol=2e-5 * float(value.abs().max()))


@pytest.mark.parametrize("backend", FUSED)
def test_four_features_per_level(backend: str) -> None:
    spec = GridSpec(3, 4, 7, 4, 1.7)
    x = points_inside_cells(spec, 40)
    results = gradients(encoding_of(spec, backend), x.float(), None, "pullback")
    expected = gradients(encoding_of(spec, "torch").double(), x, None, "pullback")
    for result, value in zip(results, expected, strict=True):
        torch.testing.assert_close(result, value, rtol=0, atol=2e-5 * float(value.abs().max()))


@pytest.mark.parametrize("backend", ["torch", *FUSED])
def test_masked_levels_are_zero_and_untouched(backend: str) -> None:
    spec = small_spec()
    encoding = encoding_of(spec, backend)
    with torch.no_grad():
        for level in (3, 5):
            encoding.table[spec.offsets[level] : spec.offsets[level + 1]] = math.nan  # reading them would show
    x = torch.rand(50, 3, requires_grad=True)
    features, slopes = encoding(x, torch.tensor(MASK)), jacobian(encoding, x, MASK)
    (features.sum() + slopes.square().sum()).backward()
    assert x.grad is not None and encoding.table.grad is not None
    for level in range(spec.levels):
        columns = slice(2 * level, 2 * level + 2)
        rows = slice(spec.offsets[level], spec.offsets[level + 1])
        masked = MASK[level] == 0
        for values in (features[:, columns], slopes[:, columns], encoding.table.grad[rows]):
            assert bool((values == 0).all()) == masked
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("backend", ["torch", *FUSED])
def test_everything_masked_gives_zeros(backend: str) -> None:
    encoding = encoding_of(small_spec(), backend)
    x = torch.rand(5, 3, requires_grad=True)
    features, pullback = encoding.encode_with_pullback(x, [0.0] * 6)
    assert not features.any() and features.shape == (5, 12)
    assert not pullback(torch.ones(5, 12)).any()


@pytest.mark.parametrize("backend", ["torch", *FUSED])
def test_points_outside_are_moved_to_the_cube(backend: str) -> None:
    encoding = encoding_of(small_spec("smoothstep"), backend)
    x = torch.tensor([[-3.0, 0.4, 0.6], [0.3, 1.7, 0.2], [0.1, 0.2, math.inf], [-1e30, 1e30, 0.5]], requires_grad=True)
    features, slopes = encoding(x), jacobian(encoding, x)
    torch.testing.assert_close(features, encoding(x.detach().clamp(0, 1)), rtol=1e-4, atol=1e-4)
    moved = (x < 0) | (x > 1)
    assert not slopes.transpose(1, 2)[moved].any() and slopes.transpose(1, 2)[~moved].any()
    (features.square().sum() + slopes.square().sum()).backward()
    assert x.grad is not None and not x.grad[moved].any() and x.grad[~moved].all()


@pytest.mark.parametrize("backend", ["torch", *FUSED])
def test_faces_of_the_cube_and_nan(backend: str) -> None:
    encoding = encoding_of(small_spec(), backend)
    faces = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    torch.testing.assert_close(encoding(faces), encoding_of(small_spec(), "torch")(faces), rtol=1e-4, atol=1e-4)
    x = torch.tensor([[math.nan, 0.5, 0.5], [0.5, 0.5, 0.5]], requires_grad=True)
    features, slopes = encoding(x), jacobian(encoding, x)
    assert features[0].isnan().all() and features[1].isfinite().all() and slopes[1].isfinite().all()
    (features[1].sum() + slopes[1].sum()).backward()


@pytest.mark.parametrize("backend", ["torch", *FUSED])
@pytest.mark.parametrize("shape", [(), (4, 3), (2, 0)])
def test_batch_shapes(backend: str, shape: tuple[int, ...]) -> None:
    encoding = encoding_of(small_spec(), backend)
    x = torch.rand(*shape, 3, requires_grad=True)
    assert encoding(x).shape == (*shape, 12)
    features, pullback = encoding.encode_with_pullback(x)
    pulled = pullback(torch.ones(*shape, 12))
    assert features.shape == (*shape, 12) and pulled.shape == (*shape, 3)
    (features.sum() + pulled.sum()).backward()
    assert x.grad is not None and x.grad.shape == x.shape and encoding.table.grad is not None


@pytest.mark.parametrize("backend", ["torch", *FUSED])
def test_pullback_without_gradients(backend: str) -> None:
    encoding = encoding_of(small_spec(), backend)
    x = torch.rand(20, 3, requires_grad=True)
    with torch.no_grad():
        features, pullback = encoding.encode_with_pullback(x)
        direction = random_like(features, 1)
        pulled = pullback(direction)
    assert not features.requires_grad and not pulled.requires_grad
    (expected,) = torch.autograd.grad(encoding(x), x, direction)
    torch.testing.assert_close(pulled, expected, rtol=1e-4, atol=1e-3)


def test_a_fused_pullback_is_used_once() -> None:
    _, pullback = encoding_of(small_spec(), "cpu").encode_with_pullback(torch.rand(4, 3))
    pullback(torch.ones(4, 12))
    with pytest.raises(RuntimeError, match="once"):
        pullback(torch.ones(4, 12))


def test_cpu_is_bitwise_deterministic() -> None:
    spec = small_spec()
    x = torch.rand(20_000, 3)  # several ranges of points, several threads
    first = gradients(encoding_of(spec, "cpu"), x, None, "pullback")
    second = gradients(encoding_of(spec, "cpu"), x, None, "pullback")
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_more_threads_than_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, x = GridSpec(2, 2, 8, 4, 1.7), torch.rand(20_000, 3)
    expected = gradients(encoding_of(spec, "torch").double(), x.double(), None, "features")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    results = gradients(encoding_of(spec, "cpu"), x, None, "features")
    for i in (0, 2):  # float32 and float64 points may lie in different cells: the gradient by x differs there
        torch.testing.assert_close(results[i], expected[i], rtol=0, atol=1e-4 * float(expected[i].abs().max()))


def test_checkpoints_move_between_backends() -> None:
    cpu, reference = encoding_of(small_spec(), "cpu", seed=7), HashEncoding(small_spec(), "torch")
    reference.load_state_dict(copy.deepcopy(cpu.state_dict()))
    x = torch.rand(30, 3)
    torch.testing.assert_close(cpu(x), reference(x), rtol=1e-4, atol=1e-4)


def test_wrong_number_of_level_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="6 levels"):
        encoding_of(small_spec(), "torch")(torch.rand(2, 3), [1.0, 0.0])
