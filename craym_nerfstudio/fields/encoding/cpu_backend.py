"""Backend for CPUs: numba kernels on all cores; nothing to compile by hand, machine code cached on disk."""

from collections.abc import Callable
from functools import partial
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from craym_nerfstudio.fields.encoding.fused import Upstream
from craym_nerfstudio.fields.encoding.grid import Grid, GridSpec, active_levels
from craym_nerfstudio.kernels import loader as kernels
from craym_nerfstudio.kernels.threads import equal_ranges, run_parallel, thread_count

MIN_POINTS_PER_TASK = 2048
CACHE_BYTES = 2**22
EMPTY_2, EMPTY_4 = np.empty((0, 0), np.float32), np.empty((0, 0, 0, 0), np.float32)
BlockJacobian = Float[Tensor, "blocks feat 3 points"]


def load_kernels() -> ModuleType:
    """The numba kernels of the hash grid."""
    return kernels.load_kernels("craym_nerfstudio.fields.encoding.cpu_kernels", "forward", "Hash grid")


def _ranges(n: int, parts: int) -> list[tuple[int, int]]:
    """Split n points into at most ``parts`` ranges of whole blocks, ``MIN_POINTS_PER_TASK`` or more of them each."""
    return equal_ranges(n, max(1, min(parts, n // MIN_POINTS_PER_TASK)), load_kernels().BLOCK)


def _over_points(kernel: Callable[..., None], n: int, *arguments: object) -> None:
    """Run a kernel whose first arguments are a range of points on all threads, in more parts than threads."""
    run_parallel([partial(kernel, *bounds, *arguments) for bounds in _ranges(n, 4 * thread_count())])


def _array(tensor: Tensor | None, empty: np.ndarray) -> np.ndarray:
    return empty if tensor is None else tensor.detach().to(torch.float32).contiguous().numpy()


def _span(spec: GridSpec) -> int:
    """Points done on one level before the next: few while all levels fit into a core's cache."""
    return 512 if 4 * spec.n_params <= CACHE_BYTES else 32768


def level_groups(spec: GridSpec, weights: tuple[float, ...], parts: int) -> list[list[int]]:
    """Deal the active levels to ``parts`` threads, largest tables first, each to the thread with the least work."""
    sizes = active_levels(spec, weights)[1][:, 2]
    costs = 1 + sizes * spec.features_per_level / 2**20  # traversal costs the same everywhere, cache misses grow
    groups: list[list[int]] = [[] for _ in range(max(1, min(parts, len(sizes))))]
    loads = [0.0] * len(groups)
    for k in np.argsort(-costs, kind="stable").tolist():
        lightest = loads.index(min(loads))
        groups[lightest].append(k)
        loads[lightest] += costs[k]
    return [sorted(group) for group in groups]


def _gradient_tables(parts: int, grid: Grid) -> Float[Tensor, "parts entries f"]:
    """Gradients by the table, zero on masked levels; the kernel fills the others, which it clears just before."""
    tables = torch.empty(parts, *grid.table.shape)
    for offset, size, weight in zip(grid.spec.offsets[:-1], grid.spec.sizes, grid.weights, strict=True):
        if weight == 0:
            tables[:, offset : offset + size] = 0.0
    return tables


def _parts_per_level(spec: GridSpec, n_points: int, n_levels: int, spare: int) -> int:
    """Parts of the points with a gradient table each, for spare threads: no more than pay for adding the tables."""
    return max(1, min(spare, 8 * n_points * n_levels // spec.n_entries))


class CpuKernels:
    """Forward parallel over points; backward over levels, then over points with a table for each part: no atomics."""

    def forward(
        self, x: Float[Tensor, "n 3"], grid: Grid, jacobian: bool
    ) -> tuple[Float[Tensor, "n feat"], BlockJacobian | None]:
        """See ``fused.Kernels``."""
        native, spec, levels = load_kernels(), grid.spec, active_levels(grid.spec, grid.weights)
        allocate = torch.empty if len(levels[0]) == spec.levels else torch.zeros
        block = native.BLOCK
        features = allocate(len(x), spec.n_features)
        jacobians = allocate(-(-len(x) // block), spec.n_features, 3, block) if jacobian else None
        settings = (*levels, spec.smooth, _span(spec), (0,) * spec.features_per_level)
        given = (_array(x.t(), EMPTY_2), _array(grid.table, EMPTY_2))
        out = (features.numpy(), _array(jacobians, EMPTY_4))
        _over_points(native.forward, len(x), *given, *settings, *out)
        return features, jacobians

    def backward(
        self, x: Float[Tensor, "n 3"], grid: Grid, upstream: Upstream, wants_x: bool, wants_table: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """See ``fused.Kernels``."""
        native, spec, levels = load_kernels(), grid.spec, active_levels(grid.spec, grid.weights)
        groups = level_groups(spec, grid.weights, 2 * thread_count())  # no thread waits long for another
        parts = _ranges(len(x), _parts_per_level(spec, len(x), len(levels[0]), thread_count() // len(groups)))
        grad_tables = _gradient_tables(len(parts), grid) if wants_table else None
        grad_xs = torch.zeros(len(groups), 3, len(x)) if wants_x else None
        pulled = None if upstream.pulled is None else upstream.pulled.t()
        given = [_array(t, EMPTY_2) for t in (upstream.features, upstream.direction, pulled)]
        inputs, tasks = (_array(x.t(), EMPTY_2), _array(grid.table, EMPTY_2)), []
        for g, chosen in enumerate(groups):
            settings = (*(a[chosen] for a in levels), spec.smooth, _span(spec), (0,) * spec.features_per_level)
            by_x = _array(None if grad_xs is None else grad_xs[g], EMPTY_2)
            for i, bounds in enumerate(parts):
                by_table = _array(None if grad_tables is None else grad_tables[i], EMPTY_2)
                tasks.append(partial(native.backward, *bounds, *inputs, *settings, *given, by_table, by_x))
        run_parallel(tasks)
        grad_table = None
        if grad_tables is not None:
            grad_table = grad_tables[0] if len(parts) == 1 else grad_tables.sum(0)
        return None if grad_xs is None else grad_xs.sum(0).t(), grad_table

    def pull(self, jacobian: BlockJacobian, direction: Float[Tensor, "n feat"]) -> Float[Tensor, "n 3"]:
        """See ``fused.Kernels``."""
        pulled = torch.empty(len(direction), 3)
        given = (jacobian.numpy(), _array(direction, EMPTY_2))
        _over_points(load_kernels().pull, len(direction), *given, pulled.numpy())
        return pulled

    def push(self, jacobian: BlockJacobian, tangent: Float[Tensor, "n 3"]) -> Float[Tensor, "n feat"]:
        """See ``fused.Kernels``."""
        pushed = torch.empty(len(tangent), jacobian.shape[1])
        given = (jacobian.numpy(), _array(tangent.t(), EMPTY_2))
        _over_points(load_kernels().push, len(tangent), *given, pushed.numpy())
        return pushed
