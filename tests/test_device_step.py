"""A training step on tensors of a device that is not there: nothing on the wrong device, no new wait for the device.

The tensors are fake: they have a shape and a device but no numbers, so neither a GPU nor its driver is needed. For
`cuda` the autograd engine asks the driver nevertheless; the backward pass therefore runs on `lazy`, a device like any
other that is not the CPU.
"""

import contextlib
import traceback
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from craym_nerfstudio.fields.encoding import interface
from craym_nerfstudio.geometry import lie
from craym_nerfstudio.layout import MatchedPairs
from craym_nerfstudio.model import CraymModel
from craym_nerfstudio.objective import losses
from tests.dome import make_dome
from tests.test_full_precision import batch_of_rays, small_model

triton_backend = pytest.importorskip("craym_nerfstudio.fields.encoding.triton_backend")
WAITS = {
    ("nonzero", "rendering/renderer.py"): 2,  # active sections, of plain and of key rays
    # Twice per set of levels; and the weights of levels, without waiting.
    ("copy between devices", "fields/encoding/triton_backend.py"): 3,
    ("copy between devices", "geometry/lie.py"): 1,  # once per process
}
"""Where a step may wait for the device, and how often; take out what is gone, add nothing."""


class HostGenerator(torch.Generator):
    """A generator of the CPU, whatever device is asked for: one of `cuda` asks the driver."""

    def __new__(cls, device: object = "cpu") -> torch.Generator:
        return super().__new__(cls, "cpu")


class Watch(TorchDispatchMode):
    """Records what makes the host wait, answers for tensors without numbers, and counts launched operations."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.waits = device, Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
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
        if given and name == "nonzero":
            self._wait(name)
            return torch.empty((max(args[0].numel() // 2, 1), args[0].dim()), dtype=torch.long, device=self.device)
        if given and name == "_local_scalar_dense":
            self._wait("item")
            return args[0].dtype == torch.bool
        if given and name in ("index", "index_put_") and any(i is not None and i.dtype == torch.bool for i in args[1]):
            self._wait("boolean index")
            return args[0] if name == "index_put_" else args[0].new_empty(args[0].shape)
        ends = {tensor.device.type for tensor in tensors} | ({torch.device(asked).type} if asked is not None else set())
        if name in ("_to_copy", "copy_") and len(ends) > 1:
            self._wait("copy between devices")
        return func(*args, **kwargs)

    def _wait(self, kind: str) -> None:
        files = [frame.filename for frame in traceback.extract_stack() if "/craym_nerfstudio/" in frame.filename]
        self.waits[kind, files[-1].split("/craym_nerfstudio/")[-1] if files else "autograd"] += 1


def fake_step(device: torch.device, backward: bool, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """One step of the small model with its Triton kernels replaced by nothing."""
    c2w = make_dome(4, 16).c2w.float()
    model, (rays, batch) = small_model(c2w), batch_of_rays(c2w)
    nothing = type("Nothing", (), {"__getitem__": lambda self, grid: lambda *args, **kwargs: None})()
    names = ("forward", "backward", "pull", "push")
    monkeypatch.setattr(triton_backend, "kernels", SimpleNamespace(BLOCK=256, **dict.fromkeys(names, nothing)))
    monkeypatch.setattr(triton_backend, "_on", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(interface, "choose_backend", lambda *_: ("triton", "a test"))
    monkeypatch.setattr(torch, "Generator", HostGenerator)
    if device.type != "cuda":  # no autocast there
        monkeypatch.setattr(CraymModel, "full_precision", lambda _: contextlib.nullcontext())
    caches = (lie._series, triton_backend._levels, triton_backend._places)
    for cache in caches:
        cache.cache_clear()

    def move(value):
        if not isinstance(value, torch.Tensor):
            return value
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)

    watch = Watch(device)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            for module in model.modules():
                for name, value in module._parameters.items():
                    module._parameters[name] = None if value is None else torch.nn.Parameter(move(value))
                module._buffers.update({name: move(value) for name, value in module._buffers.items()})
            layout = rays.metadata.pop("layout")
            rays = rays._apply_fn_to_fields(move)
            rays.metadata["layout"] = layout
            batch = {name: move(value) for name, value in batch.items()}
            for name in ("pairs", "epipolar_pairs"):
                batch[name] = MatchedPairs(*(move(value) for value in vars(batch[name]).values()))
            with watch, torch.autocast("cuda", enabled=device.type == "cuda"):
                outputs = model(rays)
                losses = model.get_loss_dict(outputs, batch, model.get_metrics_dict(outputs, batch))
                loss = sum(losses.values())
                if backward:
                    loss.backward()
                    without = [name for name, value in model.named_parameters() if value.grad is None]
                    assert without == ["device_indicator_param"]
                model._refresh_grid(3)
        assert all(value.device.type == device.type for value in tree_leaves(losses))
    finally:
        for cache in caches:
            cache.cache_clear()
    return watch


@pytest.mark.parametrize(("kind", "backward"), [("cuda", False), ("lazy", True)])
def test_a_step_stays_on_its_device_and_rarely_waits(
    kind: str, backward: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = fake_step(torch.device(kind, 0), backward, monkeypatch)
    assert watch.waits <= Counter(WAITS), watch.waits - Counter(WAITS)


def test_a_number_read_from_the_device_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    eikonal = losses.eikonal_loss
    monkeypatch.setattr(losses, "eikonal_loss", lambda gradients: eikonal(gradients) * float(gradients.sum()))
    watch = fake_step(torch.device("cuda", 0), False, monkeypatch)
    assert ("item", "objective/objective.py") in watch.waits - Counter(WAITS)


def test_a_tensor_on_the_wrong_device_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    eikonal = losses.eikonal_loss
    monkeypatch.setattr(losses, "eikonal_loss", lambda gradients: eikonal(gradients + torch.ones(len(gradients), 3)))
    with pytest.raises(RuntimeError, match="device"):
        fake_step(torch.device("cuda", 0), False, monkeypatch)
