"""One step of a small model: full precision throughout, and a render function for losses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox
from torch import Tensor

from craym_nerfstudio.fields.sdf_field import SDFFieldConfig
from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.layout import MatchedPairs, RayLayout
from craym_nerfstudio.model import CraymModel, CraymModelConfig
from tests.dome import make_dome

PLAIN, PAIRS, AUX = 64, 4, 2


def small_model(c2w: Tensor) -> CraymModel:
    """A model of the dome's cameras whose grid has features that matter; poses are off their truth."""
    torch.manual_seed(0)
    config = CraymModelConfig(
        sdf_field=SDFFieldConfig(num_levels=4, log2_table_size=10, base_resolution=8, hidden_width=32),
        grid_resolution=16,
        fine_samples=12,
        point_alignment_steps=(0, 1),
        random_background=False,
    )
    metadata = {"has_alpha": True, "background_rgb": [1.0, 1.0, 1.0], "image_size_px": torch.tensor([[32, 24]])}
    box = SceneBox(aabb=torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]))
    model: CraymModel = config.setup(scene_box=box, num_train_data=len(c2w), metadata=metadata, device="cpu")
    model.camera_optimizer.set_poses(c2w)
    torch.nn.init.normal_(model.scene.field.encoding.table, std=0.01)
    torch.nn.init.normal_(model.scene.field.geometry.hidden[0].weight[:, 3:], std=0.1)
    torch.nn.init.normal_(model.camera_optimizer.motion.residual, std=0.01)
    model.update_to_step(2000)
    model.fill_grid()
    return model.train()


def batch_of_rays(c2w: Tensor) -> tuple[RayBundle, dict]:
    """Random rays towards the middle, then key rays with their auxiliaries, and colours for all of them."""
    generator = torch.Generator().manual_seed(1)
    count = PLAIN + 2 * PAIRS * (1 + AUX)
    camera = torch.randint(len(c2w), (count,), generator=generator)
    target = 0.5 * torch.randn((count, 3), generator=generator)
    origins = c2w[camera, :, 3]
    directions = torch.nn.functional.normalize(target - origins, dim=-1)
    layout = RayLayout(PLAIN, groups=2 * PAIRS, aux=AUX)
    rays = RayBundle(origins, directions, torch.ones(count, 1), camera[:, None])
    rays.metadata["layout"] = layout
    local = (c2w[camera, :, :3].transpose(-1, -2) @ directions[..., None])[..., 0]
    heads = torch.arange(count)[layout.heads].view(PAIRS, 2)
    pairs = MatchedPairs(camera[heads], local[heads], torch.ones(PAIRS), torch.full((PAIRS,), 100.0))
    image = torch.cat([torch.rand((count, 3), generator=generator), torch.ones(count, 1)], dim=-1)
    batch = {"image": image, "visible": torch.ones(count), "layout": layout}
    return rays, {**batch, "pairs": pairs, "epipolar_pairs": pairs}


def step(c2w: Tensor, mixed: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Outputs and gradients of one step, as the host's trainer takes it."""
    model = small_model(c2w)
    rays, batch = batch_of_rays(c2w)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        outputs = model(rays)
        metrics = model.get_metrics_dict(outputs, batch)
        loss = sum(model.get_loss_dict(outputs, batch, metrics).values())
    assert isinstance(loss, Tensor) and loss.dtype == torch.float32
    loss.backward()
    return outputs, {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def test_autocast_of_the_caller_changes_nothing() -> None:
    """Distances, poses and colours are float32 whatever is switched on around a step, and so are their gradients."""
    c2w = make_dome(4, 16).c2w.float()
    (outputs, gradients), (mixed, mixed_gradients) = step(c2w, mixed=False), step(c2w, mixed=True)
    for name, value in outputs.items():
        assert torch.equal(value, mixed[name]) and mixed[name].dtype == torch.float32, name
    assert gradients.keys() == mixed_gradients.keys()
    for name, gradient in gradients.items():
        assert gradient.isfinite().all() and torch.equal(gradient, mixed_gradients[name]), name


@pytest.mark.parametrize("grouped", [True, False])
def test_sections_that_are_not_active_change_nothing(monkeypatch: pytest.MonkeyPatch, grouped: bool) -> None:
    """A GPU evaluates as many as it has room for, in shapes that hang on no number: the same losses and gradients."""
    c2w = make_dome(4, 16).c2w.float()
    state, found = CraymModel._state, []
    for room in (None, 1.0, 0.9):
        monkeypatch.setattr(CraymModel, "_state", lambda self, jitter, r=room: replace(state(self, jitter), room=r))
        model, (rays, batch) = small_model(c2w), batch_of_rays(c2w)
        if not grouped:
            batch = {"image": batch["image"][:PLAIN], "visible": batch["visible"][:PLAIN], "layout": RayLayout(PLAIN)}
            rays = rays[:PLAIN]
            rays.metadata = {"layout": batch["layout"]}
        outputs = model(rays)
        terms = model.get_loss_dict(outputs, batch)
        sum(terms.values()).backward()
        grown = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        found.append((len(outputs["gradients"]), {**outputs, **terms, **grown}))
    (few, compact), (many, whole), (between, roomy) = found
    assert few < 0.9 * many and few < between < many
    for name in compact.keys() - {"gradients"}:
        scale = float(compact[name].detach().abs().max())
        for other in (whole, roomy):
            torch.testing.assert_close(other[name], compact[name], rtol=0, atol=5e-5 * max(scale, 1e-3), msg=name)


def test_a_loss_may_render_further_rays() -> None:
    """As the rays of the batch are rendered, in the frame of the world, and differentiable by where they start."""
    c2w = make_dome(4, 16).c2w.float()
    model = small_model(c2w)
    model.set_region(Similarity.of(0.8, translation=np.array([0.1, 0.0, 0.0])))
    model.fill_grid()
    rays, _ = batch_of_rays(c2w)
    origins, directions = rays.origins.clone().requires_grad_(), rays.directions
    further = model.eval().render_rays(origins, directions)
    free = RayBundle(rays.origins, directions, torch.ones(len(origins), 1))
    torch.testing.assert_close(further["rgb"], model(free)["rgb"])
    torch.testing.assert_close(further["depth"], model(free)["depth"])
    further["rgb"].sum().backward()
    assert origins.grad is not None and origins.grad.abs().sum() > 0
