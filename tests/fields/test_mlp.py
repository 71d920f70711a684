"""The distance network: its written-out gradient against autograd, its initial sphere."""

import pytest
import torch

from craym_nerfstudio.fields.mlp import DistanceMLP
from craym_nerfstudio.kernels import chunks


def network(hidden_layers: int = 2) -> DistanceMLP:
    """A small network in float64."""
    torch.manual_seed(0)
    return DistanceMLP(7, 12, hidden_layers, 4).double()


def inputs(count: int = 20) -> torch.Tensor:
    """Random inputs."""
    return torch.randn((count, 7), generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()


def plain(mlp: DistanceMLP, x: torch.Tensor) -> torch.Tensor:
    """The network as torch would have it."""
    for layer in mlp.hidden:
        x = torch.nn.functional.softplus(layer(x), 100.0)
    return mlp.output(x)


def test_written_out_gradient_equals_autograd() -> None:
    for layers in (1, 2, 3):
        mlp, x = network(layers), inputs()
        outputs, gradient = mlp.with_gradient(x)
        torch.testing.assert_close(outputs, mlp(x), rtol=0, atol=0)
        torch.testing.assert_close(outputs, plain(mlp, x), rtol=0, atol=1e-9)
        # torch's softplus turns linear where its slope is within 2e-9 of 1.
        torch.testing.assert_close(gradient, torch.autograd.grad(plain(mlp, x)[:, 0].sum(), x)[0], rtol=0, atol=1e-8)


def test_scaled_features_are_scaled_inputs() -> None:
    """Value, gradient and what a loss on both asks of the weights, as if all inputs but the first three were scaled."""
    ours, theirs, x = DistanceMLP(7, 12, 2, 4, feature_scale=0.3).double(), network(), inputs()
    theirs.load_state_dict(ours.state_dict() | {"input_scale": theirs.input_scale})
    scale = torch.tensor([1.0, 1.0, 1.0, 0.3, 0.3, 0.3, 0.3], dtype=torch.float64)
    outputs, gradient = ours.with_gradient(x)
    expected = theirs.with_gradient(x * scale)
    torch.testing.assert_close(outputs, expected[0])
    torch.testing.assert_close(gradient, expected[1] * scale)
    torch.testing.assert_close(ours(x), expected[0])
    weights = (each.layers[0].weight for each in (ours, theirs))
    pairs = ((outputs, gradient), (expected[0], expected[1] * scale))
    first, second = (
        torch.autograd.grad(value.square().sum() + slope.square().sum(), weight)[0]
        for weight, (value, slope) in zip(weights, pairs, strict=True)
    )
    torch.testing.assert_close(first, second)


def test_second_derivatives_equal_double_backward() -> None:
    """The eikonal loss differentiates the gradient by the weights and by the inputs."""
    mlp, x = network(), inputs()
    _, gradient = mlp.with_gradient(x)
    (automatic,) = torch.autograd.grad(plain(mlp, x)[:, 0].sum(), x, create_graph=True)
    # The last layer's bias has no part in the gradient.
    wanted = [x, *(parameter for name, parameter in mlp.named_parameters() if name != "output.bias")]
    ours = torch.autograd.grad(gradient.square().sum(), wanted)
    theirs = torch.autograd.grad(automatic.square().sum(), wanted)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("layers", "threads"), [(1, 1), (2, 2)])
def test_all_derivatives_at_once_on_many_points(monkeypatch: pytest.MonkeyPatch, layers: int, threads: int) -> None:
    """A loss on outputs and gradient together, in several chunks on one and on two threads."""
    monkeypatch.setattr(chunks, "CHUNK", 7)
    mlp, x, before = network(layers), inputs(50), torch.get_num_threads()

    def loss(outputs: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        return (outputs * torch.arange(4)).square().sum() + (gradient.norm(dim=-1) - 1.0).square().sum()

    value = plain(mlp, x)
    (automatic,) = torch.autograd.grad(value[:, 0].sum(), x, create_graph=True)
    wanted = [x, *mlp.parameters()]
    theirs = torch.autograd.grad(loss(value, automatic), wanted)
    torch.set_num_threads(threads)
    try:
        ours = torch.autograd.grad(loss(*mlp.with_gradient(x)), wanted)
    finally:
        torch.set_num_threads(before)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_gradient_passes_gradcheck() -> None:
    mlp, x = network(1), inputs(2)
    assert torch.autograd.gradcheck(lambda value: mlp.with_gradient(value)[1], [x * 0.05], eps=1e-7, atol=1e-4)


def test_initial_network_is_roughly_a_sphere() -> None:
    """Negative inside, positive outside, rising about as fast as a distance does."""
    torch.manual_seed(0)
    mlp = DistanceMLP(19, 64, 2, 16)
    mlp.initialise_sphere(0.5)
    directions = torch.nn.functional.normalize(torch.randn(200, 3), dim=-1)
    noise = torch.randn(200, 16) * 1e-4
    inner, outer = (mlp(torch.cat([directions * radius, noise], dim=-1))[:, 0] for radius in (0.2, 0.9))
    assert (inner < 0).float().mean() > 0.95
    assert (outer > 0).float().mean() > 0.9
    assert 0.5 < ((outer - inner) / 0.7).mean() < 1.5
