"""The hash encoding module and the choice of what computes it."""

from functools import lru_cache
from typing import Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from craym_nerfstudio.console import console, warn
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.fields.encoding.fused import FusedBackend
from craym_nerfstudio.fields.encoding.grid import Grid, GridSpec, LevelWeights, Pullback, weighted_grid
from craym_nerfstudio.kernels.loader import importable, triton_interpreted, triton_lacks

BackendName = Literal["torch", "cpu", "triton", "tcnn"]
BackendChoice = Literal["auto", "torch", "cpu", "triton", "tcnn"]
TABLE_INIT = 1e-4


class Backend(Protocol):
    """What computes the encoding of points [n, 3] in the unit cube."""

    def encode(self, x: Tensor, grid: Grid) -> Tensor:
        """Features [n, feat]."""

    def encode_with_pullback(self, x: Tensor, grid: Grid) -> tuple[Tensor, Pullback]:
        """Features [n, feat] and the map of a gradient by them [n, feat] to the gradient by x [n, 3]."""


def choose_backend(device: torch.device | str, requested: BackendChoice = "auto") -> tuple[BackendName, str]:
    """The backend for points on a device and why; raises ``InputError`` if the requested one cannot run there."""
    kind = torch.device(device).type
    if requested != "auto":
        homes = {"cpu": "cpu", "triton": "cuda", "tcnn": "cuda"}
        modules = {"cpu": "numba", "triton": "triton", "tcnn": "tinycudann"}
        if requested in modules and not importable(modules[requested]):
            raise InputError(
                f"the encoding backend {requested!r} needs the module {modules[requested]}, which is not installed",
                remedy="Install it or use --pipeline.model.sdf-field.encoding auto.",
            )
        if homes.get(requested, kind) != kind and not (requested == "triton" and triton_interpreted()):
            raise InputError(
                f"the encoding backend {requested!r} cannot run on the device {kind!r}",
                remedy="Use --pipeline.model.sdf-field.encoding auto.",
            )
        if requested == "triton" and kind == "cuda" and (lacking := triton_lacks()):
            raise InputError(
                f"the encoding backend 'triton' builds its launcher when it is first used, and lacks {lacking}",
                remedy="Install it or use --pipeline.model.sdf-field.encoding auto.",
            )
        return requested, "as requested"
    if kind == "cuda":
        lacking = triton_lacks()
        if lacking is None:
            return "triton", "fused CUDA kernel: exact derivatives in one pass, masked levels cost nothing"
        if importable("tinycudann"):
            return "tcnn", f"tinycudann is installed, and Triton lacks {lacking}"
        return "torch", f"plain torch operations, twenty times slower: Triton lacks {lacking}"
    if kind == "cpu":
        if importable("numba"):
            return "cpu", "the model is on the CPU" if torch.cuda.is_available() else "no CUDA device"
        return "torch", "numba is not installed: plain torch operations, slow"
    return "torch", f"no fused kernel for the device {kind!r}: plain torch operations, slow"


@lru_cache(maxsize=8)
def _announce(name: BackendName, reason: str) -> None:
    """Say, once per process, what ``auto`` took."""
    kernel = {"cpu": "cpu (numba kernel)", "triton": "triton (CUDA kernel)"}.get(name, name)
    # The plain operations are a fallback that somebody may be able to do without.
    (warn if name == "torch" else console.print)(f"Hash grid: {kernel} - {reason}")


def _load(name: BackendName) -> Backend:
    """Import a backend at its first use, so that importing this package compiles nothing."""
    if name == "cpu":
        from craym_nerfstudio.fields.encoding.cpu_backend import CpuKernels

        return FusedBackend(CpuKernels())
    if name == "triton":
        from craym_nerfstudio.fields.encoding.triton_backend import TritonKernels

        return FusedBackend(TritonKernels())
    if name == "tcnn":
        from craym_nerfstudio.fields.encoding.tcnn_backend import TcnnBackend

        return TcnnBackend()
    from craym_nerfstudio.fields.encoding.torch_backend import TorchBackend

    return TorchBackend()


class HashEncoding(nn.Module):
    """Multi-resolution hash encoding of points in [0, 1]^3 with exact derivatives.

    Points outside are moved to the nearest point of the cube, and derivatives along the axes on which they were moved
    are zero. A point with a NaN coordinate gets NaN features. The backend follows the device of the input at every
    call, and the table has one layout for all, so that checkpoints move between devices and backends. A module turned
    to float64 is always computed by ``torch``.

    ``level_weights`` is the coarse-to-fine mask, one factor per level (a sequence or a CPU tensor); a level of weight
    0 is not traversed in either pass, its features are exactly 0 and its table gets no gradient. None means ones.
    """

    def __init__(self, spec: GridSpec, backend: BackendChoice = "auto") -> None:
        super().__init__()
        self.spec, self.requested = spec, backend
        self.table = nn.Parameter(
            torch.empty(spec.n_entries, spec.features_per_level).uniform_(-TABLE_INIT, TABLE_INIT)
        )

    def backend_for(self, x: Tensor) -> Backend:
        """The backend that will encode points like x."""
        name, reason = choose_backend(x.device, self.requested)
        if self.requested == "auto":
            _announce(name, reason)
        return _load("torch" if self.table.dtype == torch.float64 else name)

    def _inputs(self, x: Float[Tensor, "*b 3"], level_weights: LevelWeights) -> tuple[Float[Tensor, "n 3"], Grid]:
        return x.reshape(-1, 3).to(self.table.dtype), weighted_grid(self.spec, self.table, level_weights)

    def forward(self, x: Float[Tensor, "*b 3"], level_weights: LevelWeights = None) -> Float[Tensor, "*b feat"]:
        """Features of points."""
        features = self.backend_for(x).encode(*self._inputs(x, level_weights))
        return features.view(*x.shape[:-1], self.spec.n_features)

    def encode_with_pullback(
        self, x: Float[Tensor, "*b 3"], level_weights: LevelWeights = None
    ) -> tuple[Float[Tensor, "*b feat"], Pullback]:
        """Features and the map ``g -> J^T g`` of a gradient by features [*b, feat] to the one by x [*b, 3].

        This is what an SDF field wants (its normal is ``J^T`` of the MLP's input gradient), on every backend with one
        traversal of the grid forward and one backward; the result is differentiable by g, x and the table. Call the
        map once at most.
        """
        features, pull = self.backend_for(x).encode_with_pullback(*self._inputs(x, level_weights))

        def pullback(gradient: Float[Tensor, "*b feat"]) -> Float[Tensor, "*b 3"]:
            return pull(gradient.reshape(-1, self.spec.n_features)).view(x.shape)

        return features.view(*x.shape[:-1], self.spec.n_features), pullback
