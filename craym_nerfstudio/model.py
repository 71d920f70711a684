"""The CRAYM model: wires camera optimizer, renderer, key-ray modules and losses to nerfstudio's model contract."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Literal

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.models.base_model import Model, ModelConfig
from torch import Tensor

from craym_nerfstudio.cameras.optimizer import CraymCameraOptimizer, CraymCameraOptimizerConfig
from craym_nerfstudio.evaluation.images import image_metrics, image_panels
from craym_nerfstudio.fields.background import BackgroundField
from craym_nerfstudio.fields.color_field import ColorField
from craym_nerfstudio.fields.sdf_field import SDFField, SDFFieldConfig
from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.layout import Photos, Probes, RayLayout, SurfaceRays
from craym_nerfstudio.objective import losses
from craym_nerfstudio.objective.consistency import COMPARED_RAYS
from craym_nerfstudio.objective.objective import ObjectiveConfig, TrainingStep, training_losses
from craym_nerfstudio.objective.warm_start import learn_distances
from craym_nerfstudio.pictures import draw_picture
from craym_nerfstudio.rendering.config import RenderingConfig
from craym_nerfstudio.rendering.outputs import background_colors, held, key_outputs, ray_outputs, surface_rays
from craym_nerfstudio.rendering.renderer import Rendered, RenderState, SceneRenderer
from craym_nerfstudio.rendering.sections import SectionRoom
from craym_nerfstudio.rendering.sphere_tracing import SphereTracer
from craym_nerfstudio.schedules import Scalar, StepGenerator, ramp
from craym_nerfstudio.start.landmarks import Landmarks

_COLOR_WIDTH = 64
"""Width of the texture net, as the paper's."""
_WARM_VARIANCE = 0.6
"""A density that is 1/400 wide, for a surface that is known before the first step."""
_PROBES = 384
"""Points per step at which landmarks put bounds on the distance, and as many round the carved surface."""


@dataclass
class CraymModelConfig(RenderingConfig, ObjectiveConfig, ModelConfig):
    """Parts of the method, each with a switch, and their sizes. Steps count from the start of training."""

    _target: type = field(default_factory=lambda: CraymModel)
    enable_collider: bool = False
    eval_num_rays_per_chunk: int = 8192
    camera_optimizer: CraymCameraOptimizerConfig = field(default_factory=CraymCameraOptimizerConfig)
    """Refinement of the poses."""
    sdf_field: SDFFieldConfig = field(default_factory=SDFFieldConfig)
    """The signed distance field."""
    color_hidden_layers: int = 3
    """Hidden layers of the texture net."""
    background: Literal["auto", "color", "field"] = "auto"
    """What lies outside the region of interest: one colour, or a field; auto takes the colour for images with alpha."""
    random_background: bool = True
    """While training, put images with alpha on a random colour per ray, which tells empty from white."""


class CraymModel(Model):
    """SDF, colour and poses, optimised together and tied by matched key rays."""

    config: CraymModelConfig
    camera_optimizer: CraymCameraOptimizer
    center: Tensor
    radius: Tensor
    background_rgb: Tensor
    _known_frames: tuple[tuple, tuple[Similarity, Similarity]] | None = None

    def populate_modules(self) -> None:
        """Build the fields; nothing here reads files or the network."""
        config, metadata = self.config, self.kwargs["metadata"]
        self.has_alpha = bool(metadata["has_alpha"])
        self.camera_optimizer = config.camera_optimizer.setup(num_cameras=self.num_train_data, device="cpu")
        use_field = config.background == "field" or (config.background == "auto" and not self.has_alpha)
        field = SDFField(config.sdf_field, int(metadata["image_size_px"].amax(-1).median()))
        self.scene = SceneRenderer(
            field,
            ColorField(field.feature_size, _COLOR_WIDTH, config.color_hidden_layers),
            BackgroundField(config.sdf_field.encoding) if use_field else None,
            grid_resolution=config.grid_resolution,
            fine_samples=config.fine_samples,
        )
        # The region in which the SDF lives: this sphere of the world is the unit frame's unit sphere.
        self.register_buffer("center", torch.zeros(3))
        self.register_buffer("radius", torch.ones(()))
        background = torch.tensor(metadata["background_rgb"], dtype=torch.float32)
        self.register_buffer("background_rgb", background, persistent=False)
        self.step = 0
        self.clock: Tensor | None = None  # the step, on the device, while what hangs on it is recorded there
        self.random, self.section_room = StepGenerator(), SectionRoom()
        self.landmarks: Landmarks | None = None
        self.probes: Probes | None = None
        self.photos: Photos | None = None  # which the consistency loss compares, where rays meet
        self.surface: SurfaceRays | None = None
        self.shown_levels = config.sdf_field.num_levels
        self._tracer = SphereTracer(self.scene)

    @property
    def tracer(self) -> SphereTracer:
        """Finds the surface along rays of the unit frame, as it is at this step."""
        version = (self.step, self.shown_levels)
        if self._tracer.version != version:
            self._tracer.update(self._state(jitter=False), version)
        return self._tracer

    @property
    def level_weights(self) -> Float[Tensor, " levels"]:
        """Weights of the hash grid's levels at the current step, outside of training of those that are shown."""
        weights = self.config.level_weights(self.step, self.config.sdf_field.num_levels)
        if not self.training:
            weights[self.shown_levels :] = 0.0
        return weights

    @property
    def field(self) -> SimpleNamespace:
        """What the host's marching-cubes exporter asks for: the SDF, by its name for it."""
        return SimpleNamespace(forward_geonetwork=lambda points: self.sdf(points)[:, None])

    @property
    def world_from_unit(self) -> Similarity:
        """Where the region, the unit sphere of the fields, lies in the world."""
        upright = torch.eye(3, device=self.center.device, dtype=torch.float64)
        return Similarity(self.radius.double(), upright, self.center.double())

    @property
    def _frames(self) -> tuple[Similarity, Similarity]:
        """`world_from_unit` and its inverse in single precision, as rays need them; kept until the region changes."""
        region = (self.center, self.center._version, self.radius, self.radius._version)
        if self._known_frames is None or any(a is not b for a, b in zip(self._known_frames[0], region, strict=True)):
            with torch.inference_mode(False):
                world = self.world_from_unit
                self._known_frames = (region, (world.single(), world.inverse().single()))
        return self._known_frames[1]

    def set_region(self, world_from_unit: Similarity) -> None:
        """Choose the region; its rotation must be none."""
        self.radius.copy_(world_from_unit.scale)
        self.center.copy_(world_from_unit.translation)

    def learn_landmarks(self, landmarks: Landmarks) -> None:
        """Let stage 0's points teach the field: at once, without rendering, and from now on beside the images."""
        self.landmarks = landmarks
        generator = torch.Generator(device=self.device).manual_seed(self.config.seed)
        with self.full_precision():
            learn_distances(self.scene.field, self.level_weights, lambda n: landmarks.table.draw(n, generator))
        self.scene.variance.data.fill_(_WARM_VARIANCE)

    @torch.no_grad()
    def sdf(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Signed distance at points of the world, in its units; trained inside the region only."""
        world = self.world_from_unit
        return world.lengths(self.scene.field.sdf(world.inverse().points(points), self.level_weights))

    def get_param_groups(self) -> dict[str, list[torch.nn.Parameter]]:
        """Groups ``fields``, ``geometry``, ``variance`` and ``camera_opt``."""
        scene, geometry = self.scene, list(self.scene.field.geometry.parameters())
        apart = set(map(id, (*geometry, scene.variance)))
        fields = [parameter for parameter in scene.parameters() if id(parameter) not in apart]
        groups = {"fields": fields, "geometry": geometry, "variance": [scene.variance]}
        self.camera_optimizer.get_param_groups(param_groups=groups)
        return groups

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Track the step."""
        return [TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], self.update_to_step)]

    def update_to_step(self, step: int) -> None:
        """Everything scheduled follows from this number."""
        self.step = step
        self.camera_optimizer.update_to_step(step)

    def fill_grid(self) -> None:
        """Read the whole SDF into the cache of distances, on the device that the model is on by now."""
        self.scene.refresh_grid(self.level_weights)

    @property
    def _now(self) -> Scalar:
        """What everything is scheduled by."""
        return self.step if self.clock is None else self.clock

    @property
    def phase(self) -> tuple[float, ...]:
        """What the operations of a training step hang on beside its numbers: recorded once, it is good for a phase."""
        cameras, config = self.camera_optimizer, self.config
        levels, switches = int(self.level_weights.count_nonzero()), (config.enrichment, config.coherency)
        by_step = cameras.waiting, config.aligns(self.step), self._compares, cameras.motion.turns, cameras.searches
        return levels, *by_step, *switches, self.section_room.share

    @property
    def _compares(self) -> bool:
        return self.photos is not None and self.config.compares(self.step)

    def generator(self) -> torch.Generator:
        """Source of this step's random numbers, at its start."""
        return self.random.at((self.config.seed << 32) + 2 * self.step + 1, self.device)

    def _state(self, jitter: bool) -> RenderState:
        state = self.config.state(self._now, self.level_weights, known_surface=self.landmarks is not None)
        # In training alone: test views, which need no gradients, are rendered faster by their active sections.
        room = self.section_room.share if self.device.type != "cpu" else None
        return replace(state, generator=self.generator(), room=room) if jitter else state

    def _asked(self, state: RenderState) -> RenderState:
        """A training step's state, with what losses ask for besides colours."""
        if state.generator is not None and self.landmarks is not None:
            carved = 1.0 - ramp(self._now, 0, self.config.landmark_steps)
            self.probes = self.landmarks.draw(_PROBES, state.generator, carved)
            state = replace(state, probes=self.probes.points)
        return replace(state, crossing=COMPARED_RAYS) if state.generator is not None and self._compares else state

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Tensor]:  # type: ignore[override]
        """Render rays; while training, with corrected poses and the key rays of the batch enriched."""
        with self.full_precision():
            return self._render(ray_bundle)

    def full_precision(self) -> AbstractContextManager:
        """Float32 inside, whatever the caller has switched on.

        Half precision has three digits; distances, their derivatives (normals, eikonal loss, pose gradients), poses and
        rendering weights need more, and networks of this size gain nothing by it.
        """
        return torch.autocast(self.device.type, enabled=False)

    def _render(self, ray_bundle: RayBundle) -> dict[str, Tensor]:
        # The data manager says what the rays of a training batch are; elsewhere all are plain.
        layout: RayLayout = ray_bundle.metadata.get("layout") or RayLayout(len(ray_bundle))  # type: ignore[assignment]
        if not self.training:
            return self.host_outputs(self._rendered(ray_bundle, layout)[0])
        train_c2w = self.camera_optimizer.optimised_c2w()
        self.camera_optimizer.apply_to_raybundle(ray_bundle, train_c2w)
        rendered, background, points = self._rendered(ray_bundle, layout)
        outputs = {**self.host_outputs(rendered), **rendered.further, "background": background, "train_c2w": train_c2w}
        self.surface = surface_rays(rendered.crossing, ray_bundle.camera_indices, ray_bundle.directions)
        return outputs | (key_outputs(rendered, points, layout) if layout.groups else {})

    def _rendered(
        self, rays: RayBundle, layout: RayLayout
    ) -> tuple[Rendered, Float[Tensor, "rays 3"], Float[Tensor, "rays 3"]]:
        """Rays of the world rendered in the unit frame, the background behind them, and the points they end at."""
        state = self._asked(self._state(self.training))
        origins, directions = (held(each, state.crossing) for each in self.unit_rays(rays))
        if self.training:  # the cache of distances is kept fresh, slab by slab
            self.scene.refresh_grid(state.level_weights, self._now, self.config.grid_refresh_steps)
        drawn = state.generator if self.has_alpha and self.config.random_background else None
        background = background_colors(self.background_rgb, layout, drawn)
        rendered = self.scene(origins, directions, background, state, layout)
        return rendered, background, torch.addcmul(origins, directions, rendered.depth[:, None])

    def host_outputs(self, rendered: Rendered) -> dict[str, Tensor]:
        """Outputs by the names, units and ranges that the host's viewer and exporters expect."""
        return ray_outputs(rendered, self._frames[0].lengths(rendered.depth), final=not self.training)

    @torch.no_grad()
    def get_outputs_for_camera(self, camera: Cameras, obb_box: OrientedBox | None = None) -> dict[str, Tensor]:
        """A picture for eyes [h, w, ...]: see `pictures`. Exporters ask for the outputs of ray bundles instead."""
        return draw_picture(self, camera, obb_box)

    def volume_picture(self, camera: Cameras) -> dict[str, Tensor]:
        """A picture as evaluation judges it, whatever `draw` says."""
        return super().get_outputs_for_camera(camera)

    def unit_rays(self, rays: RayBundle) -> tuple[Float[Tensor, "rays 3"], Float[Tensor, "rays 3"]]:
        """Origins and unit directions in the unit frame."""
        unit = self._frames[1]
        # Without the turn of `Similarity.points`: a region has none.
        origins = torch.addcmul(unit.translation, unit.scale, rays.origins)
        # Those of a training batch have their length by construction; the host's exporters send others.
        return origins, rays.directions if self.training else torch.nn.functional.normalize(rays.directions, dim=-1)

    def render_rays(self, origins: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]) -> dict[str, Tensor]:
        """Outputs of rays of no camera, given in the world; differentiable in both."""
        rays = RayBundle(origins=origins, directions=directions, pixel_area=torch.zeros_like(origins[:, :1]))
        return self.host_outputs(self._rendered(rays, RayLayout(len(origins)))[0])

    def ray_features(
        self, origins: Float[Tensor, "keys 3"], directions: Float[Tensor, "keys 3"]
    ) -> Float[Tensor, "keys feat"]:
        """Composited features of key rays of the unit frame, without enrichment (Eq. 3)."""
        layout, background = RayLayout(0, groups=len(origins)), self.background_rgb.expand(len(origins), 3)
        rendered = self.scene(origins, directions, background, self._state(jitter=False), layout)
        assert rendered.ray_feature is not None
        return rendered.ray_feature

    def get_metrics_dict(self, outputs: dict[str, Tensor], batch: dict) -> dict[str, Tensor]:
        """Scalars for the training log; none at steps whose metrics the host drops."""
        if self.training and self.step % 10:
            return {}
        with torch.no_grad(), self.full_precision():
            target = self._target(batch, outputs)
            error = (outputs["rgb"] - target).square().mean()
            metrics = {"psnr": -10.0 * torch.log10(error.clamp_min(1e-10)), "inv_s": self.scene.inv_s.detach()}
            if "matchability" in outputs:
                metrics["matchability"] = outputs["matchability"].mean()
            self.camera_optimizer.get_metrics_dict(metrics)
        return metrics

    def _target(self, batch: dict, outputs: dict[str, Tensor]) -> Float[Tensor, "rays 3"]:
        """Colours of the images on the background that was rendered."""
        rgba = batch["image"].to(self.device)
        return torch.lerp(outputs.get("background", self.background_rgb), rgba[:, :3], rgba[:, 3:])

    def get_loss_dict(
        self, outputs: dict[str, Tensor], batch: dict, metrics_dict: dict | None = None
    ) -> dict[str, Tensor]:
        """All losses of the method (Eq. 5 to 7), weighted; a part that is switched off is absent."""
        with self.full_precision():
            target, visible = self._target(batch, outputs), batch["visible"].to(self.device).float()
            if not self.training:
                photometric = losses.photometric_loss(outputs["rgb"], target, visible)
                return {"photometric": self.config.photometric_loss_mult * photometric}
            step = TrainingStep(
                number=self.step,
                now=self._now,
                outputs=outputs,
                target=target,
                visible=visible,
                layout=batch["layout"],
                pairs=batch.get("pairs"),
                epipolar_pairs=batch.get("epipolar_pairs"),
                probes=self.probes,
                photos=self.photos,
                surface=self.surface,
                outline=batch.get("outline"),
                settled=self.camera_optimizer.all_settled,
                unit_from_world=self._frames[1],
                render=self.render_rays,
            )
            result = training_losses(self.config, step)
            self.camera_optimizer.get_loss_dict(result)
        return result

    def get_rgba_image(self, outputs: dict[str, Tensor], output_name: str = "rgb") -> Tensor:
        """Colour with the opacity as alpha, which the host's exporters filter by."""
        return torch.cat([outputs[output_name], outputs["accumulation"]], dim=-1)

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """PSNR, SSIM and, where its weights are on the machine, LPIPS of a rendered test image."""
        image = batch["image"].to(outputs["rgb"].device)
        if image.shape[-1] == 4:
            image = image[..., :3] * image[..., 3:] + self.background_rgb.to(image.device) * (1.0 - image[..., 3:])
        return image_metrics(outputs["rgb"], image, batch.get("mask")), image_panels(outputs, image)
