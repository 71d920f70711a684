"""Which sections are evaluated."""

import pytest
import torch
from torch import Tensor

from craym_nerfstudio.layout import RayLayout
from craym_nerfstudio.rendering.sections import SectionRoom, Sections, active_sections, roomy_sections

LAYOUT = RayLayout(4, groups=2, aux=1)


def drawn(seed: int = 0) -> Tensor:
    """Active sections of 4 plain rays and 2 key rays with an auxiliary each, which share them."""
    active = torch.rand(8, 6, generator=torch.Generator().manual_seed(seed)) < 0.5
    active[5], active[7] = active[4], active[6]
    return active


def counted(sections: Sections) -> list[int]:
    """Numbers of the sections that count."""
    assert sections.counts is not None
    return sections.index[sections.counts > 0].tolist()


@pytest.mark.parametrize("share", [1.0, 0.75, 0.6])
def test_room_for_all_active_sections_changes_nothing(share: float) -> None:
    active = drawn()
    compact, roomy = active_sections(active, LAYOUT), roomy_sections(active, LAYOUT, share)
    assert counted(roomy) == compact.index.tolist()
    assert compact.plain <= roomy.plain == -(-24 * share // 1)
    assert len(roomy.index) == roomy.plain + 24
    filling = roomy.index[: roomy.plain][roomy.counts[: roomy.plain] == 0]
    assert len(filling.unique()) == len(filling)
    assert float(roomy.active_share) == pytest.approx(compact.plain / 24)
    values = torch.rand(len(roomy.index), 3) * roomy.counts[:, None]
    expected = compact.spread(values[roomy.counts > 0], active.shape)
    torch.testing.assert_close(roomy.spread(values, active.shape), expected)


def test_sections_without_room_are_missed_evenly() -> None:
    active = torch.ones(8, 6, dtype=torch.bool)
    roomy = roomy_sections(active, LAYOUT, 0.5)
    assert counted(roomy)[:12] == list(range(1, 24, 2))
    assert float(roomy.active_share) == 1.0


def test_nothing_active_is_nothing_counted() -> None:
    roomy = roomy_sections(torch.zeros(8, 6, dtype=torch.bool), LAYOUT, 0.5)
    assert not roomy.counts.any()
    assert not roomy.spread(roomy.counts[:, None], torch.Size((8, 6))).any()


def test_spreading_is_the_inverse_of_picking() -> None:
    active = torch.tensor([[True, False, True], [False, False, True]])
    values = torch.arange(6.0).view(3, 2).requires_grad_()
    sections = active_sections(active, RayLayout(2))
    dense = sections.spread(values, active.shape)
    assert torch.equal(dense.view(-1, 2)[sections.index], values)
    assert dense[~active].abs().sum() == 0
    (gradient,) = torch.autograd.grad(dense.sum(), values)
    assert torch.equal(gradient, torch.ones_like(values))


def test_room_follows_what_is_active_in_steps() -> None:
    room, shares = SectionRoom(), []
    for active_share in (0.95, 0.50, 0.52, 0.60, 0.62, 0.55, 0.45, 0.40, 0.10):
        room.follow(active_share)
        shares.append(room.share)
    assert shares == [1.0, 0.625, 0.625, 0.625, 0.75, 0.75, 0.5625, 0.5625, 0.125]
