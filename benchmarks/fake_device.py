"""A device that is not there: tensors with a shape and a device but no numbers, and what work on them would cost.

Neither a GPU nor its driver is needed. For `cuda` the autograd engine asks the driver nevertheless; a backward pass
therefore runs on `lazy`, a device like any other that is not the CPU.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from craym_nerfstudio.cameras import motions
from craym_nerfstudio.data import image_store
from craym_nerfstudio.fields import color_field
from craym_nerfstudio.fields.encoding import interface, triton_backend
from craym_nerfstudio.geometry import lie
from craym_nerfstudio.layout import MatchedPairs
from craym_nerfstudio.model import CraymModel
from craym_nerfstudio.objective import consistency, losses, objective
from craym_nerfstudio.rendering import key_rays, renderer, sampling, sections, triton_kernels
from craym_nerfstudio.start import landmarks

_NOTHING_LAUNCHED = {"empty", "empty_strided", "new_empty", "new_empty_strided", "empty_like", "set_", "_unsafe_view"}
"""Operations that only hand out memory; views are told by their schema."""
_CACHES = (
    lie._series,
    lie._generators,
    lie._identity,
    landmarks._kinds,
    motions._forward,
    color_field._harmonics,
    objective._shares,
    losses._windows,
    losses._stability,
    consistency._columns,
    consistency._square,
    sections._order,
    sections._filling,
    renderer._sharing,
    key_rays._scales,
    image_store._offsets,
    sampling._nodes,
    sampling._numbers,
    triton_backend._weights,
    triton_backend._places,
)
"""What is kept per device between steps: a fake device must not find, or leave, anything there."""
Place = tuple[str, str]
"""What was done, and in which of our files ("autograd": in none)."""


class Watch(TorchDispatchMode):
    """Counts launched operations and what makes the host wait; answers for tensors without numbers."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.phase = device, "step"
        self.waits: Counter[Place] = Counter()
        self.copies: Counter[str] = Counter()
        """By phase, from the host or to it, waited for or not: a recording can hold none."""
        self.launches: Counter[tuple[str, str, str]] = Counter()
        """By phase, operation and file."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), func._schema.name.split("::")[1]
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        asked = kwargs.get("device")
        if asked is not None and torch.device(asked).type == self.device.type:
            kwargs["device"] = self.device
            if "generator" in kwargs:
                kwargs["generator"] = None
        given = any(tensor.device.type == self.device.type for tensor in tensors)
        if not given and kwargs.get("device") != self.device and not any(isinstance(t, FakeTensor) for t in tensors):
            with unset_fake_temporarily():  # what stays on the CPU keeps its numbers
                return func(*args, **kwargs)
        views = any(result.alias_info and not result.alias_info.is_write for result in func._schema.returns)
        if func.namespace != "prim" and not views and name not in _NOTHING_LAUNCHED:
            self.count(name)
        return self._answer(func, name, args, kwargs, given, {tensor.device.type for tensor in tensors})

    def _answer(self, func: Any, name: str, args: Any, kwargs: dict, given: bool, ends: set[str]) -> Any:
        """The result, invented where it hangs on numbers."""
        if given and name == "nonzero":
            self._wait(name)
            return torch.empty((max(args[0].numel() // 2, 1), args[0].dim()), dtype=torch.long, device=self.device)
        if given and name in ("cumprod", "prod") and torch.is_grad_enabled():
            self._wait("whether a factor is 0")  # their derivatives ask, of tensors that have numbers
        if given and name == "_local_scalar_dense":
            self._wait("item")
            return args[0].dtype == torch.bool
        if given and name in ("index", "index_put_") and any(i is not None and i.dtype == torch.bool for i in args[1]):
            self._wait("boolean index")
            return args[0] if name == "index_put_" else args[0].new_empty(args[0].shape)
        if kwargs.get("device") is not None:
            ends = ends | {torch.device(kwargs["device"]).type}
        if name in ("_to_copy", "copy_") and len(ends) > 1:
            self.copies[self.phase] += 1
            if not _returns_at_once(func, args, kwargs):
                self._wait("copy between devices")
        return func(*args, **kwargs)

    def forget(self) -> None:
        """Start to count anew."""
        self.waits.clear()
        self.copies.clear()
        self.launches.clear()

    def count(self, name: str) -> None:
        """Note a launch."""
        self.launches[self.phase, name, _place()] += 1

    def _wait(self, kind: str) -> None:
        self.waits[kind, _place()] += 1

    def total(self, phase: str = "") -> int:
        """Launches of a phase, or of all."""
        return sum(count for (of, _, _), count in self.launches.items() if phase in ("", of))


def _returns_at_once(func: Any, args: Any, kwargs: dict) -> bool:
    """Whether a copy is from the host, and asked not to be waited for."""
    given = args[1] if func._schema.name == "aten::copy_" else args[0]
    asked = kwargs.get("non_blocking", args[2] if func._schema.name == "aten::copy_" and len(args) > 2 else False)
    return bool(asked) and given.device.type == "cpu"


def _place() -> str:
    """The innermost of our files that is running; in a backward pass autograd, or the operation's own backward."""
    frame = sys._getframe(1)
    while frame is not None:
        if "/craym_nerfstudio/" in frame.f_code.co_filename:
            return frame.f_code.co_filename.split("/craym_nerfstudio/")[-1]
        frame = frame.f_back  # type: ignore[assignment]
    return "autograd"


class _HostGenerator(torch.Generator):
    """A generator of the CPU, whatever device is asked for: one of `cuda` asks the driver."""

    def __new__(cls, device: object = "cpu") -> torch.Generator:
        return super().__new__(cls, "cpu")


def _no_kernels(watch: Watch) -> SimpleNamespace:
    """The Triton kernels of the hash grid, replaced by nothing that is counted."""
    names = ("forward", "backward", "pull", "push")
    return SimpleNamespace(BLOCK=256, **{name: _launcher(watch, f"triton {name}") for name in names})


def _launcher(watch: Watch, name: str) -> Any:
    """In place of a Triton kernel."""
    return type("Nothing", (), {"__getitem__": lambda self, grid: lambda *args, **kwargs: watch.count(name)})()


@contextlib.contextmanager
def pretended(watch: Watch) -> Iterator[None]:
    """Inside, the watch's device seems to be there, with a Triton that has a compiler."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(triton_backend, "kernels", _no_kernels(watch)))
        stack.enter_context(mock.patch.object(triton_kernels, "place", _launcher(watch, "triton place")))
        stack.enter_context(mock.patch.object(sampling, "triton_runs", lambda _: True))
        for module in (triton_backend, sampling):
            stack.enter_context(mock.patch.object(module, "on_device", lambda _: contextlib.nullcontext()))
        stack.enter_context(mock.patch.object(interface, "choose_backend", lambda *_: ("triton", "pretended")))
        stack.enter_context(mock.patch.object(torch, "Generator", _HostGenerator))
        if watch.device.type != "cuda":  # no autocast there
            stack.enter_context(mock.patch.object(CraymModel, "full_precision", lambda _: contextlib.nullcontext()))
        for cache in _CACHES:
            cache.cache_clear()
            stack.callback(cache.cache_clear)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield


def moved(value: Any, device: torch.device) -> Any:
    """A tensor, pairs of matches, or what holds tensors in a dict, on the fake device; anything else as it is."""
    if isinstance(value, MatchedPairs):
        return MatchedPairs(*(moved(each, device) for each in vars(value).values()))
    if isinstance(value, dict):
        return {name: moved(each, device) for name, each in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)


def move_module(module: torch.nn.Module, device: torch.device) -> None:
    """Put a module's parameters and buffers on the fake device, in place."""
    for each in module.modules():
        for name, value in each._parameters.items():
            each._parameters[name] = None if value is None else torch.nn.Parameter(moved(value, device))
        each._buffers.update({name: moved(value, device) for name, value in each._buffers.items()})
