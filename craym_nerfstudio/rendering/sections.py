"""Which sections of rays are evaluated: the active ones, or on a GPU a fixed number, so that shapes hang on none."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from craym_nerfstudio.layout import RayLayout

_MARGIN = 1.2
"""Room for sections, relative to those that were active last."""
_FULL = 0.97
"""Part of the room that may be taken before there is more of it."""
_STEPS, _LEAST_GAIN = 16, 2
"""Room is a multiple of this part of all sections; it shrinks by so many of them at once: each change records anew."""


class SectionRoom:
    """For how many sections of plain rays a step on a GPU has room: by how many were active lately."""

    def __init__(self) -> None:
        self.share = 1.0
        """Of all sections of plain rays."""

    def follow(self, active_share: float) -> None:
        """Learn which share of the sections was active at a step."""
        fitting = min(1.0, math.ceil(_STEPS * _MARGIN * active_share) / _STEPS)
        if active_share > _FULL * self.share or fitting <= self.share - _LEAST_GAIN / _STEPS:
            self.share = fitting


@dataclass(frozen=True)
class Sections:
    """The sections that are evaluated, by their flat numbers among all sections of all rays."""

    index: Int[Tensor, " n"]
    """Those of plain rays, then section by section each key ray with its auxiliaries: the second part can be viewed as
    ``[points, 1 + aux]``, which is what enrichment attends over."""
    plain: int
    """How many of them belong to plain rays."""
    counts: Float[Tensor, " n"] | None = None
    """1 for sections that are active, 0 for others; None where all are."""
    place: Int[Tensor, " n"] | None = None
    """Where their values go, if not to their numbers: one beyond the last is nowhere."""
    active_share: Float[Tensor, ""] | None = None
    """Of plain rays' sections; None where nothing is planned by it."""

    def spread(self, values: Float[Tensor, "n feat"], shape: torch.Size) -> Float[Tensor, "rays samples feat"]:
        """Values over all sections, zero elsewhere, differentiably."""
        count, feat = shape.numel(), values.shape[1]
        if self.place is None:
            return values.new_zeros((count, feat)).index_copy(0, self.index, values).view(*shape, feat)
        return values.new_zeros((count + 1, feat)).index_copy(0, self.place, values)[:count].view(*shape, feat)


def active_sections(active: Bool[Tensor, "rays samples"], layout: RayLayout) -> Sections:
    """The active sections; asks the device how many there are."""
    plain, samples = layout.plain, active.shape[1]
    first = active[:plain].flatten().nonzero()[:, 0]
    if not layout.groups:
        return Sections(first, first.shape[0])
    group, section = active[layout.heads].nonzero(as_tuple=True)
    member = torch.arange(layout.group_size, device=active.device)
    second = (plain + group[:, None] * layout.group_size + member) * samples + section[:, None]
    return Sections(torch.cat([first, second.flatten()]), first.shape[0])


def roomy_sections(active: Bool[Tensor, "rays samples"], layout: RayLayout, share: float) -> Sections:
    """As many sections of plain rays as there is room for, and all of grouped ones, however many are active.

    Where more are active than that, those that are left out lie evenly among them.
    """
    plain, everything = layout.plain * active.shape[1], active.numel()
    room, order, flat = math.ceil(share * plain), _order(layout, active.shape[1], active.device), active.flatten()
    if room >= plain:
        counts = flat.index_select(0, order).float()
        return Sections(order, plain, counts, active_share=counts[:plain].mean())
    upto = flat[:plain].cumsum(0)
    found, others, filling = upto[-1:], order[plain:], _filling(room, everything, active.device)
    # The how manieth of the active ones each takes: the next, or where there are too many, one further on.
    wanted = torch.maximum(filling[0], filling[0] * found // room)
    counted = wanted <= found
    taken = torch.where(counted, torch.searchsorted(upto, wanted), filling)
    index, place = torch.cat([taken, others.expand(2, -1)], dim=1)
    counts = torch.cat([counted, flat.index_select(0, others)]).float()
    return Sections(index, room, counts, place, found[0] / plain)


@lru_cache(maxsize=4)
def _order(layout: RayLayout, samples: int, device: torch.device) -> Int[Tensor, " n"]:
    """Numbers of all sections in the order of `Sections.index`."""
    numbers = torch.arange((layout.plain + layout.grouped) * samples)
    first, second = numbers.split([layout.plain * samples, layout.grouped * samples])
    return torch.cat([first, second.view(layout.groups, layout.group_size, samples).mT.flatten()]).to(device)


@lru_cache(maxsize=4)
def _filling(room: int, nowhere: int, device: torch.device) -> Int[Tensor, "2 room"]:
    """Numbers from 1 on, and nowhere: which sections room is filled with that is left over, and where their values go.

    Were it one section again and again, all would add their gradients, which are 0, in one place after the other.
    """
    numbers = torch.arange(1, room + 1)
    return torch.stack([numbers, torch.full_like(numbers, nowhere)]).to(device)
