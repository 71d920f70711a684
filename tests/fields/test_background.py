"""The field outside the region."""

import pytest
import torch

from craym_nerfstudio.fields.background import BackgroundField, _Cut
from craym_nerfstudio.rendering.renderer import _light


def test_light_is_what_sections_let_through_and_none_is_lost() -> None:
    """Against products of what the sections before let through (NeRF, Eq. 3); the last section is opaque."""
    torch.manual_seed(0)
    field = BackgroundField("torch", log2_table_size=8, samples=4)
    torch.nn.init.normal_(field.encoding.table)
    found: dict[str, torch.Tensor] = {}
    field.density.register_forward_hook(lambda _m, _i, out: found.update(raw=out))
    field.colors.register_forward_hook(lambda _m, _i, out: found.update(color=out))
    towards = torch.nn.functional.normalize(torch.randn(5, 3), dim=-1)
    rgb = _light(field(torch.zeros(5, 3), towards, torch.ones(5), None))
    density = torch.nn.functional.softplus(found["raw"][:, 0] - 1.0).view(5, 4)
    colors = (0.5 + 0.6 * found["color"]).clamp(0.0, 1.0).view(5, 4, 3)
    for ray in range(5):
        light, expected = 1.0, torch.zeros(3)
        for section in range(4):
            alpha = 1.0 if section == 3 else float(1.0 - torch.exp(-density[ray, section] * 2.0))
            expected = expected + light * alpha * colors[ray, section]
            light *= 1.0 - alpha
        torch.testing.assert_close(rgb[ray], expected, rtol=1e-4, atol=1e-5)
    field.colors[2].weight.data.zero_()
    same = _light(field(torch.zeros(5, 3), towards, torch.ones(5), None))
    bias = field.colors[2].bias
    torch.testing.assert_close(same, (0.5 + 0.6 * bias / (1.0 + bias.abs())).clamp(0.0, 1.0).expand(5, 3))


def test_numbers_beyond_black_and_white_have_the_gradient_that_leads_back() -> None:
    values = torch.tensor([-0.05, -0.05, 0.3, 0.3, 1.02, 1.02], requires_grad=True)
    shown = _Cut.apply(values)
    assert shown.tolist() == pytest.approx([0.0, 0.0, 0.3, 0.3, 1.0, 1.0])
    # Descent goes against the gradient: one of each pair would go up, the other down.
    shown.backward(torch.tensor([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0]))
    assert values.grad is not None and values.grad.tolist() == [-1.0, 0.0, -1.0, 1.0, 0.0, 1.0]


def test_dark_surroundings_do_not_hide_what_little_is_lit() -> None:
    """Black but for a patch of 0.15 overhead, a twentieth of all directions: a sigmoid ends at 1e-13 everywhere."""
    torch.manual_seed(0)
    field = BackgroundField("auto", log2_table_size=12, samples=8)
    adam = torch.optim.Adam(field.parameters(), lr=0.01, eps=1e-15)
    for _ in range(300):
        towards = torch.nn.functional.normalize(torch.randn(512, 3), dim=-1)
        lit = torch.where(towards[:, 2:] > 0.9, 0.15, 0.0)
        seen = _light(field(0.1 * torch.randn(512, 3), towards, torch.ones(512), torch.rand(512, 1)))
        adam.zero_grad()
        (10.0 * (seen - lit).square().mean()).backward()
        adam.step()
    towards = torch.nn.functional.normalize(torch.randn(4000, 3), dim=-1)
    with torch.no_grad():
        seen = _light(field(torch.zeros(4000, 3), towards, torch.ones(4000), None)).mean(-1)
    assert seen.min() >= 0.0
    assert seen[towards[:, 2] < 0.8].mean() < 0.01 and abs(seen[towards[:, 2] > 0.93].mean() - 0.15) < 0.04
