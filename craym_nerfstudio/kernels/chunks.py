"""Work on many points in chunks that stay in a core's cache, on all cores.

A layer of a small network is little arithmetic on much data: done for all points at once, its every operation waits for
memory. Sums over points are taken per range and added in order, so that results do not depend on timing.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from craym_nerfstudio.kernels.threads import equal_ranges, run_parallel, thread_count

CHUNK = 2048
"""Points done at a time on a CPU."""


def over_ranges(points: Tensor, work: Callable[[int, slice], None]) -> None:
    """Call ``work(number, range)`` for ranges that make up all points: one per thread on a CPU, else a single one."""
    n = len(points)
    count = max(1, min(thread_count(), 4 * n // CHUNK)) if points.device.type == "cpu" else 1
    # Gradients are a thread's own affair: helpers would record what the calling thread does not.
    run_parallel([partial(torch.no_grad()(work), k, slice(*ends)) for k, ends in enumerate(equal_ranges(n, count))])


def summed_over_ranges(
    points: Tensor, shapes: list[Tensor], work: Callable[[slice, list[Tensor]], None]
) -> list[Tensor]:
    """Sums of what ``work(range, sums)`` adds to its own zeros, which are shaped like `shapes`."""
    sums: dict[int, list[Tensor]] = {}

    def add_up(number: int, part: slice) -> None:
        sums[number] = [torch.zeros_like(shape) for shape in shapes]
        work(part, sums[number])

    over_ranges(points, add_up)
    return [sum(parts[1:], parts[0]) for parts in zip(*(sums[k] for k in sorted(sums)), strict=True)]


def chunks(part: slice, device: torch.device) -> list[slice]:
    """Pieces of a range to be done one after the other."""
    size = max(CHUNK if device.type == "cpu" else part.stop - part.start, 1)
    return [slice(k, min(k + size, part.stop)) for k in range(part.start, part.stop, size)]
