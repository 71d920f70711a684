"""Mixed precision: colours in half precision, everything that poses and surfaces depend on in float32."""

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox
from torch import Tensor

from craym_nerfstudio.fields.sdf_field import SDFFieldConfig
from craym_nerfstudio.layout import MatchedPairs, RayLayout
from craym_nerfstudio.model import CraymModel, CraymModelConfig
from tests.dome import make_dome

PLAIN, PAIRS, AUX = 64, 4, 2


def small_model(c2w: Tensor) -> CraymModel:
    """A model of the dome's cameras whose grid has features that matter; poses are off their truth."""
    torch.manual_seed(0)
    config = CraymModelConfig(
        sdf_field=SDFFieldConfig(num_levels=4, log2_table_size=10, base_resolution=8, growth=1.6, hidden_width=32),
        grid_resolution=16,
        fine_samples=12,
        point_alignment_steps=(0, 1),
        random_background=False,
    )
    metadata = {"has_alpha": True, "background_rgb": [1.0, 1.0, 1.0]}
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


@pytest.fixture(scope="module")
def steps() -> tuple:
    """The same step in full and in mixed precision."""
    c2w = make_dome(4, 16).c2w.float()
    return step(c2w, mixed=False), step(c2w, mixed=True)


def test_only_colours_are_computed_in_half_precision(steps: tuple) -> None:
    (full, _), (mixed, _) = steps
    for name in ("depth", "accumulation", "normals", "matchability", "key_points", "train_c2w", "gradients"):
        assert torch.equal(full[name], mixed[name]), name
        assert mixed[name].dtype == torch.float32
    assert not torch.equal(full["rgb"], mixed["rgb"])
    torch.testing.assert_close(mixed["rgb"], full["rgb"], rtol=0, atol=0.02)


def test_gradients_are_float32_finite_and_close(steps: tuple) -> None:
    (_, full), (_, mixed) = steps
    assert full.keys() == mixed.keys()
    for name, gradient in mixed.items():
        assert gradient.dtype == torch.float32 and gradient.isfinite().all(), name
        similarity = torch.nn.functional.cosine_similarity(gradient.flatten(), full[name].flatten(), dim=0)
        assert similarity > 0.99, name
    poses = "camera_optimizer.motion.residual"
    torch.testing.assert_close(mixed[poses], full[poses], rtol=0, atol=0.02 * float(full[poses].abs().max()))
