"""The viewer's panel on a tiny run, without a browser: what is drawn lies where rays and exports say."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from craym_nerfstudio.export.refined import cameras_of_run
from craym_nerfstudio.export.run import Run, load_run
from craym_nerfstudio.viewer.layers import ViserPose, in_scene, surface_mesh
from craym_nerfstudio.viewer.scene import SceneLayers
from tests.host.conftest import TrainedRun


class Recorder:
    """In place of viser's scene: keeps what is added to it, by name."""

    def __init__(self) -> None:
        self.nodes: dict[str, SimpleNamespace] = {}

    def __getattr__(self, method: str):
        def add(name: str, *values, **options) -> SimpleNamespace:
            node = SimpleNamespace(method=method, values=values, visible=True, remove=lambda: self.nodes.pop(name))
            for key, value in options.items():
                setattr(node, key, value)
            self.nodes[name] = node
            return node

        return add


@pytest.fixture(scope="module")
def run(trained: TrainedRun) -> Run:
    return load_run(trained.config_path)


@pytest.fixture
def drawn(run: Run) -> dict[str, SimpleNamespace]:
    """The scene of the panel of that run."""
    panel, recorder = run.pipeline.panel, Recorder()
    panel._scene = SceneLayers(recorder)  # type: ignore[arg-type]
    panel.viewer = SimpleNamespace(_pick_drawn_image_idxs=lambda total: list(range(total)))  # type: ignore[assignment]
    panel.refresh()
    panel._draw_mesh()
    panel._scene = None
    return recorder.nodes


def test_frusta_rays_and_exports_agree(run: Run, drawn: dict[str, SimpleNamespace]) -> None:
    pipeline, exported = run.pipeline, cameras_of_run(run)
    shown = {
        layer: np.stack(
            [
                ViserPose(drawn[name].wxyz, drawn[name].position).c2w()
                for name in sorted(drawn)
                if name.startswith(f"/craym/{layer}/")
            ]
        )
        for layer in ("given", "refined")
    }
    data_from_model = pipeline.data_from_model()
    np.testing.assert_allclose(data_from_model.poses(shown["refined"]), exported.frames.c2w, atol=1e-5)
    np.testing.assert_allclose(data_from_model.poses(shown["given"]), exported.given_c2w, atol=1e-5)
    cameras = pipeline.datamanager.train_cameras
    middle = torch.tensor([[float(cameras.cy[3]), float(cameras.cx[3])]])
    ray = cameras.generate_rays(camera_indices=torch.tensor([[3]]), coords=middle)
    np.testing.assert_allclose(ray.origins[0], shown["refined"][3][:, 3], atol=1e-5)
    np.testing.assert_allclose(ray.directions[0], -shown["refined"][3][:, 2], atol=1e-5)
    line = drawn["/craym/moves/00003"].values[0]
    ends = np.stack([shown[layer][3][:, 3] for layer in ("given", "refined")])
    np.testing.assert_allclose(line, in_scene(ends), atol=1e-4)


def test_the_mesh_is_the_surface(run: Run, drawn: dict[str, SimpleNamespace]) -> None:
    assert drawn["/craym/mesh/mesh"].method == "add_mesh_trimesh"
    found = surface_mesh(run.pipeline.craym_model)
    assert found is not None
    vertices, faces, _ = found
    model = run.pipeline.craym_model
    assert model.sdf(torch.from_numpy(vertices).float()).abs().max() < 0.02
    corners = vertices[faces]
    outward = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    slope = model.tracer.scene.field.surface(
        *(lambda p: (p, *model.scene.field.encode(p, model.level_weights)))(
            model.world_from_unit.inverse().points(torch.from_numpy(corners.mean(1)).float())
        )
    ).gradient
    assert ((torch.from_numpy(outward).float() * slope.detach()).sum(-1) > 0).float().mean() > 0.95


def test_a_finished_run_says_so(run: Run, drawn: dict[str, SimpleNamespace]) -> None:
    panel = run.pipeline.panel
    assert panel.run.value.startswith("finished, step 59")
    assert "->" in panel.poses.value or "moved" in panel.poses.value


def test_switches_reach_the_model(run: Run) -> None:
    panel, model = run.pipeline.panel, run.pipeline.craym_model
    before = model.tracer.grid.values.clone()
    panel.levels.value = 1
    panel._set_levels(panel.levels)
    assert model.level_weights.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert (model.tracer.grid.values - before).abs().max() > 1e-4, "another field, another cache"
    panel.levels.value = 4
    panel._set_levels(panel.levels)
    panel.volume.value = True
    panel._set_draw(panel.volume)
    assert model.config.draw == "volume"
    panel.volume.value = False
    panel._set_draw(panel.volume)
    panel.coherency.value = False
    panel.coherency.cb_hook(panel.coherency)
    assert model.config.coherency is False


def test_curves_of_a_finished_run_come_from_its_log(trained: TrainedRun, tmp_path: Path) -> None:
    from craym_nerfstudio.viewer.curves import read_log

    log = read_log(trained.folder)
    assert len(log["Loss"]) > 1 and all(np.isfinite(value) for _, value in log["Loss"])
    assert read_log(tmp_path) == {}
