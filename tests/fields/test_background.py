"""The field outside the region."""

import torch

from craym_nerfstudio.fields.background import BackgroundField
from craym_nerfstudio.rendering.renderer import _light


def test_light_is_what_sections_let_through_and_none_is_lost() -> None:
    """Against products of what the sections before let through (NeRF, Eq. 3); the last section is opaque."""
    torch.manual_seed(0)
    field = BackgroundField("torch", log2_table_size=8, samples=4)
    torch.nn.init.normal_(field.encoding.table)
    found: dict[str, torch.Tensor] = {}
    field.density.register_forward_hook(lambda _m, _i, out: found.update(raw=out))
    field.color.register_forward_hook(lambda _m, _i, out: found.update(color=out))
    towards = torch.nn.functional.normalize(torch.randn(5, 3), dim=-1)
    rgb = _light(field(torch.zeros(5, 3), towards, torch.ones(5), None))
    density = torch.nn.functional.softplus(found["raw"][:, 0] - 1.0).view(5, 4)
    colors = found["color"].view(5, 4, 3)
    for ray in range(5):
        light, expected = 1.0, torch.zeros(3)
        for section in range(4):
            alpha = 1.0 if section == 3 else float(1.0 - torch.exp(-density[ray, section] * 2.0))
            expected = expected + light * alpha * colors[ray, section]
            light *= 1.0 - alpha
        torch.testing.assert_close(rgb[ray], expected, rtol=1e-4, atol=1e-5)
    field.color[2].weight.data.zero_()
    same = _light(field(torch.zeros(5, 3), towards, torch.ones(5), None))
    torch.testing.assert_close(same, field.color[2].bias.sigmoid().expand(5, 3))
