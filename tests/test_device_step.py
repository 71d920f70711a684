"""A training step on tensors of a device that is not there: nothing on the wrong device, no new wait for the device.

See `benchmarks.fake_device`, which also counts what is launched.
"""

from collections import Counter

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from torch.utils._pytree import tree_leaves

from craym_nerfstudio.cameras.photometric import refine_cameras
from craym_nerfstudio.objective import losses
from tests.dome import make_dome
from tests.test_full_precision import batch_of_rays, small_model

pytest.importorskip("craym_nerfstudio.fields.encoding.triton_backend")
from benchmarks.device_step import full_size_step
from benchmarks.fake_device import Watch, move_module, moved, pretended

FIRST_WAITS = {
    ("copy between devices", "fields/encoding/triton_backend.py"): 2,  # once per set of levels
    # Constants, once per process.
    ("copy between devices", "geometry/lie.py"): 2,
    ("copy between devices", "cameras/motions.py"): 1,
    ("copy between devices", "fields/color_field.py"): 1,
    ("copy between devices", "objective/objective.py"): 1,
    ("copy between devices", "rendering/renderer.py"): 2,
    ("copy between devices", "rendering/sections.py"): 1,
    ("copy between devices", "rendering/sampling.py"): 2,
    ("copy between devices", "rendering/key_rays.py"): 1,
}
WAITS: dict[tuple[str, str], int] = {}
"""Where every step may wait for the device, and how often: nowhere."""
MOST_LAUNCHES = 768
"""Of a step, optimizers included; may only fall."""
MOST_COMPARING = 128
"""What the consistency loss adds to them; may only fall."""
CUDA = torch.device("cuda", 0)


def fake_step(device: torch.device, backward: bool) -> Watch:
    """The first step of the small model."""
    c2w = make_dome(4, 16).c2w.float()
    model, (rays, batch) = small_model(c2w), batch_of_rays(c2w)
    watch = Watch(device)
    with pretended(watch):
        move_module(model, device)
        layout = rays.metadata.pop("layout")
        rays = rays._apply_fn_to_fields(lambda value: moved(value, device))
        rays.metadata["layout"] = layout
        batch = moved(batch, device)
        with watch, torch.autocast("cuda", enabled=device.type == "cuda"):
            outputs = model(rays)
            terms = model.get_loss_dict(outputs, batch, model.get_metrics_dict(outputs, batch))
            if backward:
                sum(terms.values()).backward()
                without = [name for name, value in model.named_parameters() if value.grad is None]
                assert without == ["device_indicator_param"]
    assert all(value.device.type == device.type for value in tree_leaves(terms))
    return watch


@pytest.mark.parametrize(("kind", "backward"), [("cuda", False), ("lazy", True)])
def test_a_step_stays_on_its_device_and_rarely_waits(kind: str, backward: bool) -> None:
    watch = fake_step(torch.device(kind, 0), backward)
    assert watch.waits <= Counter(WAITS | FIRST_WAITS), watch.waits - Counter(WAITS | FIRST_WAITS)


@pytest.mark.parametrize("number", [2005, 12505])
def test_a_full_size_step_launches_little(number: int) -> None:
    watch = full_size_step(number)
    assert watch.waits <= Counter(WAITS), watch.waits - Counter(WAITS)
    assert watch.total() <= MOST_LAUNCHES, watch.launches.most_common(40)
    assert watch.total("optimizers") <= 8  # one per group, and their counters


def test_a_step_that_compares_photos_launches_more_and_waits_for_nothing() -> None:
    watch = full_size_step(12505, compares=True)
    assert not watch.waits
    assert watch.total() <= MOST_LAUNCHES + MOST_COMPARING


@pytest.mark.parametrize("number", [2005, 12505])
@pytest.mark.parametrize("alpha", [True, False])
def test_a_step_can_be_recorded(number: int, alpha: bool) -> None:
    """Nothing comes from the host or goes there between the drawing of rays and the gradients."""
    watch = full_size_step(number, alpha, compares=True, recorded=True)
    assert not watch.waits
    assert not watch.copies


def refinement_waits(steps: int) -> int:
    """Waits of refining two test poses together."""
    c2w = make_dome(4, 16).c2w.float()
    model, device = small_model(c2w).eval().requires_grad_(False), torch.device("lazy", 0)
    cameras = Cameras(c2w[:2], 30.0, 30.0, 8.0, 8.0, 16, 16)
    images = [torch.zeros(16, 16, 3)] * 2
    watch = Watch(device)
    with pretended(watch):
        move_module(model, device)
        cameras = cameras._apply_fn_to_fields(lambda value: moved(value, device))
        with watch:
            found = refine_cameras(lambda rays: model(rays)["rgb"], cameras, images, [None, None], steps, 8)
    assert found.shape == (2, 3, 4)
    # Rendering asks for the active sections; the optimizer of a CUDA device, which is fused, asks nothing.
    rendering = watch.waits["nonzero", "rendering/sections.py"]
    assert rendering <= 2 * steps
    return watch.waits.total() - rendering


def test_refining_test_poses_waits_before_its_first_step_alone() -> None:
    assert refinement_waits(1) == refinement_waits(3)


def test_a_number_read_from_the_device_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    norm = losses._safe_norm
    monkeypatch.setattr(losses, "_safe_norm", lambda vectors: norm(vectors) * float(vectors.sum()))
    watch = fake_step(CUDA, False)
    assert ("item", "objective/losses.py") in watch.waits - Counter(WAITS | FIRST_WAITS)


def test_a_tensor_on_the_wrong_device_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    norm = losses._safe_norm
    monkeypatch.setattr(losses, "_safe_norm", lambda vectors: norm(vectors + torch.ones(len(vectors), 3)))
    with pytest.raises(RuntimeError, match="device"):
        fake_step(CUDA, False)
