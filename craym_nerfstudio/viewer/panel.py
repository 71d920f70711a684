"""The panel of this method in nerfstudio's viewer, and the layers of the scene that its switches show."""

from collections.abc import Callable
from contextlib import nullcontext
from threading import get_ident
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from nerfstudio.viewer.viewer import Viewer
from nerfstudio.viewer.viewer_elements import (
    ViewerButton,
    ViewerCheckbox,
    ViewerControl,
    ViewerDropdown,
    ViewerElement,
    ViewerSlider,
    ViewerText,
)
from viser import ClientHandle

from craym_nerfstudio.geometry.alignment import pose_errors
from craym_nerfstudio.geometry.lie import compose, inverse, rotation_angle_deg
from craym_nerfstudio.sfm.result import STAGE_ZERO_NAME, StageZero
from craym_nerfstudio.viewer.curves import LOGGED, Curve, read_log
from craym_nerfstudio.viewer.layers import (
    MatchedRays,
    agreement,
    in_scene,
    partners,
    rays_of_matches,
    rays_of_tracks,
    surface_mesh,
    traffic_light,
)
from craym_nerfstudio.viewer.scene import SceneLayers

if TYPE_CHECKING:
    from craym_nerfstudio.pipeline import CraymPipeline

_FRUSTUM = 0.045
"""Size of a camera as a share of its distance to the scene."""
_MOST_RAYS = 40
"""Matched rays shown of a pair."""
_ELEVATION_DEG = 30.0
"""Of the training camera that the viewer opens at, if there is one."""
_STEP_BACK = 1.3
"""Distance of the first view from the scene, relative to that camera's: its frustum would fill the view."""
_GIVEN_GREY = 120
_POINT = 0.006
"""Size of a track point in the world."""


class Panel(ViewerControl):
    """Elements and layers; a pipeline owns it whether or not a viewer is there."""

    _scene: SceneLayers | None = None

    def __init__(self, pipeline: "CraymPipeline") -> None:
        self._pipeline, self._owner = pipeline, 0
        model, names = pipeline.craym_model, list(pipeline.datamanager.train_dataset.metadata["image_names"])
        self._names: list[str] = names
        self._stage: StageZero | None = pipeline.stage_zero
        config, levels = model.config, model.config.sdf_field.num_levels
        self.run = ViewerText("Run", "", disabled=True)
        self.stage_text = ViewerText("Stage 0", "", disabled=True)
        self.poses = ViewerText("Poses", "", disabled=True, hint="Mean over the training cameras.")
        self.color = ViewerDropdown("Colour", "moved", ["moved", "uncertainty"], cb_hook=lambda _: self._draw_cameras())
        self.first = ViewerDropdown("Camera", names[0], names, cb_hook=lambda _: self._choose_partner())
        self.second = ViewerDropdown("Partner", names[-1], names, cb_hook=lambda _: self._draw_rays())
        self.rays_text = ViewerText("Matched rays", "", disabled=True, hint="Red: 0, green: 1 of matchability (Eq. 3).")
        self.given = ViewerCheckbox("As given", True, cb_hook=self._switch("given"))
        self.refined = ViewerCheckbox("As refined", True, cb_hook=self._switch("refined"))
        self.moves = ViewerCheckbox("Lines between", True, cb_hook=self._switch("moves"))
        self.rays = ViewerCheckbox("Rays and track points", True, cb_hook=self._switch("rays", "tracks"))
        self.points = ViewerCheckbox("Points of stage 0", True, cb_hook=self._switch("points"))
        self.mesh = ViewerCheckbox("Mesh", True, cb_hook=self._switch("mesh"))
        self.mesh_button = ViewerButton("Mesh of the current surface", lambda _: self._draw_mesh())
        self.volume = ViewerCheckbox(
            "Volume rendering", config.draw == "volume", cb_hook=self._set_draw, hint="The reference, ten times slower"
        )
        self.levels = ViewerSlider(
            "Levels", levels, 1, levels, 1, cb_hook=self._set_levels, hint="Of the hash grid, for what is drawn."
        )
        self.enrichment = ViewerCheckbox("KRE", config.enrichment, cb_hook=self._set("enrichment"), hint="In training.")
        self.coherency = ViewerCheckbox("MRC", config.coherency, cb_hook=self._set("coherency"), hint="In training.")
        self.curves = {name: Curve(name) for name in LOGGED}

    def _folders(self) -> dict[str, list[ViewerElement]]:
        return {
            "CRAYM": [self.run, self.stage_text, self.poses],
            "Cameras": [self.given, self.refined, self.moves, self.color],
            "Matches": [self.first, self.second, self.rays, self.rays_text],
            "Surface": [self.points, self.mesh, self.mesh_button],
            "Drawing and training": [self.volume, self.levels, self.enrichment, self.coherency],
            "Curves": list(self.curves.values()),
        }

    def _setup(self, viewer: Viewer) -> None:
        """The host's hook: its viewer is there now."""
        super()._setup(viewer)
        # First of all: whoever is there early would be moved after the first look around.
        viewer.viser_server.on_client_connect(self._welcome)
        self._scene = SceneLayers(viewer.viser_server.scene)
        for label, elements in self._folders().items():
            with viewer.viser_server.gui.add_folder(label):
                for element in elements:
                    if not isinstance(element, ViewerText | Curve):
                        element.cb_hook = self._guarded(element.cb_hook, viewer)
                    element.install(viewer.viser_server)
        viewer.hide_images.on_click(lambda _: self._show_cameras(False))
        viewer.show_images.on_click(lambda _: self._show_cameras(True))
        if not self._training:
            self._recall(viewer)
        self._choose_partner()
        self.refresh()

    def _show_cameras(self, visible: bool) -> None:
        """The host's button for training cameras means these too."""
        for box in (self.given, self.refined, self.moves):
            box.value = visible

    def _guarded(self, hook: Callable, viewer: Viewer) -> Callable[[ViewerElement], None]:
        """A hook that runs between training steps, and draws anew."""
        lock = nullcontext() if viewer.train_lock is None else viewer.train_lock

        def call(element: ViewerElement) -> None:
            if self._owner == get_ident():
                return  # a value that another hook sets; the lock is taken
            with lock:
                self._owner = get_ident()
                try:
                    hook(element)
                finally:
                    self._owner = 0
            viewer._trigger_rerender()

        return call

    @property
    def _training(self) -> bool:
        return self._pipeline.test_mode == "val"

    def _recall(self, viewer: Viewer) -> None:
        """What a finished run has left in its folder; nothing can be paused."""
        viewer.pause_train.visible = viewer.resume_train.visible = False
        folder = viewer.log_filename.parent
        if (folder / STAGE_ZERO_NAME).is_file():
            self._stage = StageZero.load(folder / STAGE_ZERO_NAME)
        for name, values in read_log(folder).items():
            for step, value in values:
                self.curves[name].add(step, value)
            self.curves[name].show()

    def _welcome(self, client: ClientHandle) -> None:
        """Let a new visitor stand behind a training camera, looking at the scene."""
        model = self._pipeline.craym_model
        center, positions = model.center.cpu().numpy(), self._pipeline.refined_c2w()[:, :, 3].numpy()
        offset = positions - center
        elevation = np.degrees(np.arcsin(offset[:, 2] / np.linalg.norm(offset, axis=-1)))
        stand = center + _STEP_BACK * offset[np.abs(elevation - _ELEVATION_DEG).argmin()]
        cameras = self._pipeline.datamanager.train_dataset.cameras
        client.camera.up_direction = (0.0, 0.0, 1.0)
        client.camera.position, client.camera.look_at = in_scene(stand), in_scene(center)
        client.camera.fov = float(2.0 * torch.atan(0.5 * cameras.height[0] / cameras.fy[0]))
        self.viewer.update_step(model.step)

    def follow(self, step: int, loss: float) -> None:
        """Told by the pipeline at training steps; what the figures and layers show is renewed now and then."""
        if step % 10 == 0:
            self.curves["Loss"].add(step, loss)
        if step % 100 == 0:
            metrics = self._pipeline.pose_metrics()
            self.curves["Poses moved (deg)"].add(step, self._moved_deg().mean())
            if metrics:
                self.curves["Pose error (deg)"].add(step, metrics["pose_rotation_deg"])
            if self._scene is not None and self.viewer.viser_server.get_clients():
                self.refresh()

    def refresh(self) -> None:
        """Draw all layers and texts from the run as it is now; the mesh waits for its button."""
        if self._scene is None:
            return
        step, state = self._pipeline.craym_model.step, "training" if self._training else "finished"
        self.run.value, self.stage_text.value, self.poses.value = f"{state}, step {step}", self._told(), self._moved()
        for curve in self.curves.values():
            curve.show()
        self._draw_cameras()
        self._draw_rays()
        self._draw_points()

    def _told(self) -> str:
        stage = self._stage
        if stage is None:
            return "not run"
        before, after = stage.median_epipolar_px
        adjusted = stage.state.count("adjusted")
        return f"residual {before:.2f} -> {after:.2f} px, {adjusted} of {len(stage.state)} cameras adjusted"

    def _moved(self) -> str:
        metrics = self._pipeline.pose_metrics()
        if metrics:
            return f"{metrics['pose_rotation_deg_before']:.2f} -> {metrics['pose_rotation_deg']:.3f} deg"
        change = pose_errors(self._pipeline.refined_c2w(), self._pipeline.given_c2w())
        return f"moved by {change.rotation_deg_mean:.3f} deg"

    def _given_c2w(self) -> torch.Tensor:
        """Given poses [cams, 3, 4] in the frame of the refined ones: what exports undo, applied the other way."""
        undone = self._pipeline.craym_model.camera_optimizer.drift_undone()
        return undone.inverse().poses(self._pipeline.given_c2w().double())

    def _moved_deg(self) -> np.ndarray:
        motion = compose(inverse(self._given_c2w()), self._pipeline.refined_c2w().double())
        return rotation_angle_deg(motion[..., :3]).numpy()

    def _badness(self) -> np.ndarray:
        """How far each camera moved, or how uncertain it is, relative to the worst but a few."""
        if self.color.value == "uncertainty":
            values = np.full(len(self._names), np.nan) if self._stage is None else self._stage.rotation_sigma_deg
        else:
            values = self._moved_deg()
        return _relative(values)

    def _draw_cameras(self) -> None:
        layers = self._scene
        if layers is None:
            return
        chosen = self.viewer._pick_drawn_image_idxs(len(self._names))
        cameras = self._pipeline.datamanager.train_dataset.cameras[torch.tensor(chosen)]
        given = self._given_c2w().numpy()[chosen]
        refined, colors = self._pipeline.refined_c2w().double().numpy()[chosen], traffic_light(self._badness()[chosen])
        center = self._pipeline.craym_model.center.cpu().numpy()
        size = _FRUSTUM * float(np.linalg.norm(refined[:, :, 3] - center, axis=-1).mean())
        layers.cameras("given", cameras, given, np.full_like(colors, _GIVEN_GREY), size)
        layers.cameras("refined", cameras, refined, colors, size)
        layers.lines("moves", np.stack([given[:, :, 3], refined[:, :, 3]], axis=1), colors, 2.0)

    def _choose_partner(self) -> None:
        others = partners(self._stage, self._matches, self._names.index(self.first.value))
        names = [self._names[number] for number in others] or self._names
        self.second.set_options(names)
        self.second.value = names[0]
        self._draw_rays()

    @property
    def _matches(self) -> Any:
        return None if self._pipeline.start is None else self._pipeline.start.matches

    def _pair(self) -> tuple[MatchedRays, np.ndarray]:
        """Matched rays of the chosen pair, and the poses of its cameras."""
        refined = self._pipeline.refined_c2w().double().numpy()
        pair = [self._names.index(choice.value) for choice in (self.first, self.second)]
        if self._matches is not None:
            rays = rays_of_matches(self._matches, refined, *pair)
        elif self._stage is not None:
            rays = rays_of_tracks(self._stage, refined, *pair)
        else:
            rays = MatchedRays(np.zeros((0, 2, 3)), np.zeros((0, 3)))
        every = max(1, len(rays.points) // _MOST_RAYS)
        return MatchedRays(rays.bearings[::every], rays.points[::every]), refined[pair]

    def _draw_rays(self) -> None:
        if self._scene is None:
            return
        rays, c2w = self._pair()
        w = agreement(self._pipeline.craym_model, c2w, rays.bearings).cpu().numpy()
        self.rays_text.value = f"{len(w)}, mean matchability {w.mean():.2f}" if len(w) else "none"
        colors, starts = traffic_light(1.0 - w), np.repeat(c2w[:, :, 3], len(w), axis=0)
        ends = np.stack([starts, np.concatenate([rays.points] * 2)], axis=1)
        self._scene.lines("rays", ends, np.concatenate([colors] * 2), 1.5)
        self._scene.points("tracks", rays.points, colors, _POINT)

    def _draw_points(self) -> None:
        if self._stage is None or self._scene is None:
            return
        stage = self._stage.under(self._pipeline.refined_c2w().double().numpy())
        colors = traffic_light(_relative(stage.point_sigma))
        self._scene.points("points", stage.points, colors, 0.4 * _POINT)

    def _draw_mesh(self) -> None:
        mesh = surface_mesh(self._pipeline.craym_model)
        if self._scene is not None and mesh is not None:
            self._scene.mesh("mesh", *mesh)

    def _switch(self, *layers: str) -> Callable[[ViewerCheckbox], None]:
        def switch(element: ViewerCheckbox) -> None:
            if self._scene is not None:
                for layer in layers:
                    self._scene.show(layer, element.value)

        return switch

    def _set(self, name: str) -> Callable[[ViewerCheckbox], None]:
        return lambda element: setattr(self._pipeline.craym_model.config, name, element.value)

    def _set_draw(self, element: ViewerCheckbox) -> None:
        self._pipeline.craym_model.config.draw = "volume" if element.value else "surface"

    def _set_levels(self, element: ViewerSlider) -> None:
        self._pipeline.craym_model.shown_levels = int(element.value)


def _relative(values: np.ndarray) -> np.ndarray:
    """Values in shares of the worst but a few."""
    finite = values[np.isfinite(values)]
    return values / max(float(np.quantile(finite, 0.95)), 1e-6) if len(finite) else values
