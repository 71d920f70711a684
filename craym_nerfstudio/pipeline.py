"""The pipeline: data, then where to start, then the model; and how test views and poses are judged."""

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from torch import Tensor, distributed

from craym_nerfstudio.cameras.photometric import with_poses
from craym_nerfstudio.console import console, silence_others, track
from craym_nerfstudio.data.datamanager import CraymDataManager, CraymDataManagerConfig, FinalCameras
from craym_nerfstudio.errors import OTHER_VERSION, InputError, show_input_errors
from craym_nerfstudio.fields.encoding import choose_backend
from craym_nerfstudio.geometry.alignment import Similarity, align_poses, pose_errors
from craym_nerfstudio.handover import hand_over, own_threads
from craym_nerfstudio.judging import TestViews, write_picture
from craym_nerfstudio.model import CraymModel, CraymModelConfig
from craym_nerfstudio.recording import StepRecorder, TakenStep
from craym_nerfstudio.relocation import Relocation
from craym_nerfstudio.sfm.result import Intrinsics, StageZero
from craym_nerfstudio.start.config import StartConfig
from craym_nerfstudio.start.find import Start, find_start
from craym_nerfstudio.viewer.panel import Panel


@dataclass
class CraymPipelineConfig(VanillaPipelineConfig):
    """Data, model, and how test views are judged."""

    _target: type = field(default_factory=lambda: CraymPipeline)
    datamanager: CraymDataManagerConfig = field(default_factory=CraymDataManagerConfig)
    """Data."""
    start: StartConfig = field(default_factory=StartConfig)
    """Matching and stage 0: where training starts from."""
    model: CraymModelConfig = field(default_factory=CraymModelConfig)
    """Model."""
    exposure: Literal["auto", "as-is"] = "auto"
    """Whether photos that differ in exposure, by the colours of matched key rays, are trained as if taken alike."""
    cuda_graph: bool = True
    """Record training steps as CUDA graphs where a GPU and Triton are there, which is faster; off for a profiler."""
    test_pose_steps: int = 100
    """Steps of test-time pose refinement per test view; 0 leaves the aligned pose."""
    test_pose_rays: int = 512
    """Random rays per step of test-time pose refinement."""


class CraymPipeline(VanillaPipeline):
    """nerfstudio's pipeline, aware that the poses it was given are not the poses it ends with."""

    config: CraymPipelineConfig
    datamanager: CraymDataManager
    intrinsics: Tensor
    """Corrections of the given intrinsics, as `Intrinsics.values` lists them; part of checkpoints."""
    log_gain: Tensor
    """Of each training image per channel: what tells its exposure from the mean; part of checkpoints."""
    test_c2w: Tensor
    """Test poses in the frame of the start, as they were given or found with the others; part of checkpoints."""
    test_focal: Tensor
    """Factors on the focal lengths of the test images, if they have their own; part of checkpoints."""
    fate: Tensor
    """Of each training camera: what became of it if it was lost (`relocation.Fate`); part of checkpoints."""

    def __init__(
        self,
        config: CraymPipelineConfig,
        device: str,
        test_mode: Literal["test", "val", "inference"] = "val",
        *args: Any,
        start: Start | None = None,
        **kwargs: Any,
    ) -> None:
        """Build data and model; about to train, find where to start, or take `start` instead."""
        show_input_errors()
        silence_others()
        super().__init__(config, device, test_mode, *args, **kwargs)
        began = time.perf_counter()
        if start is None and test_mode == "val":
            start = self._find_start()
        self.start, self.start_seconds = start, time.perf_counter() - began
        self.register_buffer("log_gain", torch.zeros(len(self.datamanager.train_dataset), 3, device=self.device))
        log_gain = hand_over(start, self.datamanager, self.craym_model, ask_exposure=config.exposure == "auto")
        if log_gain is not None:
            self.log_gain.copy_(log_gain)
        self.register_buffer("test_c2w", self.datamanager.eval_dataset.cameras.camera_to_worlds.clone())
        self.register_buffer("test_focal", torch.tensor(self.datamanager.test_focal, dtype=torch.float64))
        self.register_buffer("intrinsics", torch.tensor(self.datamanager.intrinsics.values(), dtype=torch.float64))
        self.register_buffer("fate", torch.zeros(len(self.log_gain), dtype=torch.uint8, device=self.device))
        self.relocation = Relocation.of(self.craym_model, self.datamanager, start)
        self.panel = Panel(self)

    def _find_start(self) -> Start:
        """Where to start; of several processes the first looks for it, and the others read what it has cached."""
        manager, together = self.datamanager, self.world_size > 1
        if together and manager.local_rank > 0:
            distributed.barrier()
        posed = manager.posed_views(with_tests=self.config.start.adjusts)
        start = find_start(posed, self.config.start, bool(manager.train_dataset.metadata["has_alpha"]))
        start = start.of_training(manager.views(), posed, manager.test_names)
        if together and manager.local_rank == 0:
            distributed.barrier()
        start, region_in_words = start.within(
            manager.scene.asked_region, manager.scene.world_from_data, manager.views()
        )
        if manager.local_rank == 0:
            console.print(f"Region: {region_in_words}")
        return start

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Those of data and model, and the search for lost cameras."""
        callbacks = super().get_training_callbacks(training_callback_attributes)
        return [*callbacks, TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], self._relocate)]

    def _relocate(self, step: int) -> None:
        """In the middle of training the field is good enough to look for lost cameras."""
        if self.relocation is not None and step >= self.relocation.first_step:
            self.relocate(final=False)

    def relocate(self, *, final: bool) -> None:
        """Look for the cameras that are lost, if that was not done yet; in the `final` search, once more."""
        if self.relocation is None or (self.relocation.searched and not final):
            return
        with self.own_threads():
            self.relocation.search(final=final)
        self.fate.copy_(torch.from_numpy(self.relocation.fate))
        if self.world_size > 1:
            distributed.broadcast(self.fate, 0)
        self._know_fate()

    def _know_fate(self) -> None:
        assert self.relocation is not None and self.start is not None and self.stage_zero is not None
        self.relocation.take(self.fate.cpu().numpy().astype(int))
        self.start = replace(self.start, stage_zero=self.stage_zero.with_found(self.relocation.found))

    @property
    def craym_model(self) -> CraymModel:
        """The model without the wrapper of distributed training."""
        model = self.model
        assert isinstance(model, CraymModel)
        return model

    def own_threads(self) -> AbstractContextManager:
        """How a training step shares the cores of a CPU: with the hash grid's kernels, they get all threads."""
        return own_threads(self.craym_model)

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        """Load a checkpoint; outside of training the data set then carries the refined poses.

        The host's exporters and viewers render from the data set's cameras, some with and some without the camera
        optimizer's correction: with the refined poses in both places they all agree.
        """
        # Focal lengths of single images make it longer.
        self.intrinsics = loaded_state["intrinsics"].to(self.intrinsics)
        if len(loaded_state.get("test_c2w", self.test_c2w)) != len(self.test_c2w):  # test images are gone, or new
            loaded_state |= {"test_c2w": self.test_c2w, "test_focal": self.test_focal}
        self.test_focal = loaded_state.get("test_focal", self.test_focal).to(self.test_focal)
        super().load_pipeline(loaded_state, step)
        if self.relocation is not None and self.fate.any():
            self._know_fate()
        found, manager = Intrinsics.from_values(self.intrinsics.tolist()), self.datamanager
        test_focal = tuple(self.test_focal.tolist())
        if self.test_mode == "val":
            manager.calibrate(found, test_focal)
            return manager.place_tests(self.test_c2w)
        optimizer = self.craym_model.camera_optimizer
        self.input_c2w = optimizer.input_c2w.detach().cpu().clone()
        manager.settle(FinalCameras(self.refined_c2w(), self.placed_test_c2w().float(), found, test_focal))
        optimizer.input_c2w.copy_(self.refined_c2w())

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool | None = None) -> None:  # type: ignore[override]
        """Load the whole state or none of it: the host goes on without what a checkpoint of another version lacks.

        Raises:
            InputError: the state lacks something, has something else, or something of another shape.
        """
        try:
            super().load_state_dict(state_dict, strict=True)
        except RuntimeError as error:
            problem = "The checkpoint is of another version of this package, or of other settings"
            raise InputError(problem, remedy=OTHER_VERSION) from error

    def refined_c2w(self) -> Float[Tensor, "cams 3 4"]:
        """Refined training poses in the world, on the CPU."""
        return self.craym_model.camera_optimizer.optimised_c2w().detach().cpu()

    def given_c2w(self) -> Float[Tensor, "cams 3 4"]:
        """Training poses as they were given, in the world, on the CPU."""
        if hasattr(self, "input_c2w"):
            return self.input_c2w
        return self.craym_model.camera_optimizer.input_c2w.detach().cpu()

    def reference_to_model(self) -> Similarity:
        """Similarity from the frame of the true poses (of the given ones where no truth is known) to the model's."""
        reference = self.datamanager.reference
        if reference is None:
            return self.craym_model.camera_optimizer.drift_undone().inverse()
        # Cameras that are still lost must not turn the test views.
        return align_poses(torch.from_numpy(reference.train_c2w).double(), self.refined_c2w().double(), robust=True)

    def placed_test_c2w(self) -> Float[Tensor, "test 3 4"]:
        """Test poses in the world, not refined: the true ones, aligned, or where none are known those of the start."""
        reference = self.datamanager.reference
        if reference is None or reference.test_c2w is None:
            return self.craym_model.camera_optimizer.drift_undone().inverse().poses(self.test_c2w.double().cpu())
        return self.reference_to_model().poses(torch.from_numpy(reference.test_c2w).double())

    def pose_metrics(self) -> dict[str, float]:
        """Mean pose errors before and after, in degrees and hundredths of the reference's unit; empty without truth."""
        reference = self.datamanager.reference
        if reference is None:
            return {}
        metrics = {}
        for suffix, poses in (("", self.refined_c2w()), ("_before", self.given_c2w())):
            errors = pose_errors(poses, torch.from_numpy(reference.train_c2w))
            metrics[f"pose_rotation_deg{suffix}"] = errors.rotation_deg_mean
            metrics[f"pose_translation_x100{suffix}"] = errors.translation_x100_mean
        return metrics

    @property
    def stage_zero(self) -> StageZero | None:
        """What stage 0 found; None where it has not run in this process."""
        return None if self.start is None else self.start.stage_zero

    def data_from_model(self) -> Similarity:
        """The map from the frame of the refined cameras to that of the data's files, in their units."""
        return self.datamanager.scene.world_from_data.inverse() @ self.craym_model.camera_optimizer.drift_undone()

    def stage_zero_metrics(self) -> dict[str, float]:
        """Median epipolar residuals of the matches before and after stage 0, in pixels; empty without it."""
        names, stage = ("stage0_epipolar_px_before", "stage0_epipolar_px_after"), self.stage_zero
        return {} if stage is None else dict(zip(names, stage.median_epipolar_px, strict=True))

    def get_train_loss_dict(self, step: int) -> tuple[Any, dict, dict]:
        """The host's training step, with pose errors in the log now and then, and the viewer told."""
        taken = self.compute(step) if self._recorder is None else self._recorder.take(step)
        loss_dict, metrics_dict = taken.losses, self.model.get_metrics_dict(taken.outputs, taken.batch)
        if step % 100 == 0:
            figures = self.pose_metrics() | self.stage_zero_metrics()
            metrics_dict |= {name: torch.tensor(value) for name, value in figures.items()}
        if step % 10 == 0:
            self._follow(step, taken)
        return taken.outputs, loss_dict, metrics_dict

    def _follow(self, step: int, taken: TakenStep) -> None:
        """Show the viewer how training goes, and plan the next steps on a GPU by it, in one wait for that."""
        loss, share = sum(loss.detach() for loss in taken.losses.values()), taken.outputs.get("active_share")
        told = torch.as_tensor(loss) if share is None else torch.stack([torch.as_tensor(loss), share])
        told_loss, *told_share = told.reshape(-1).tolist()
        self.panel.follow(step, told_loss)
        for active_share in told_share:
            self.craym_model.section_room.follow(active_share)

    def compute(self, step: int) -> TakenStep:
        """Draw the rays of a training step, render them, and compare."""
        rays, batch = self.datamanager.next_train(step)
        outputs = self._model(rays)  # by way of the wrapper of distributed training
        return TakenStep(outputs, batch, self.model.get_loss_dict(outputs, batch))

    def generators(self, step: int) -> list[torch.Generator]:
        """All sources of random numbers of a training step, at its start."""
        return [self.datamanager.generator(step), self.craym_model.generator()]

    def renew_generators(self) -> None:
        """Go on with others."""
        self.datamanager.random.renew()
        self.craym_model.random.renew()

    @cached_property
    def _recorder(self) -> StepRecorder | None:
        """Who replays steps; None where they are taken plainly."""
        model = self.craym_model
        backend, _ = choose_backend(model.device, model.config.sdf_field.encoding)
        possible = self.config.cuda_graph and model.device.type == "cuda" and self.world_size == 1
        return StepRecorder(model, self) if possible and backend == "triton" else None

    def get_eval_loss_dict(self, step: int) -> tuple[Any, dict, dict]:
        """Loss on random rays of test images, mapped into the model's frame."""
        self.eval()
        rays, batch = self.datamanager.next_eval(step)
        similarity = self.craym_model.camera_optimizer.drift_undone().inverse()
        rays.origins, rays.directions = similarity.points(rays.origins), similarity.directions(rays.directions)
        with torch.no_grad():
            outputs = self.model(rays)
        metrics = self.model.get_metrics_dict(outputs, batch)
        loss_dict = self.model.get_loss_dict(outputs, batch, metrics)
        self.train()
        return outputs, loss_dict, metrics

    def get_eval_image_metrics_and_images(self, step: int) -> tuple[dict, dict]:
        """Metrics of one test view, its pose aligned but not refined."""
        self.eval()
        camera, batch = self.datamanager.next_eval_image(step)
        camera = with_poses(camera, self.placed_test_c2w()[[int(batch["image_idx"])]])
        metrics, images = self._views.judged(camera, batch)
        self.train()
        return {**metrics, "num_rays": int(camera.height) * int(camera.width)}, images

    def get_average_eval_image_metrics(
        self, step: int | None = None, output_path: Path | None = None, get_std: bool = False
    ) -> dict[str, float]:
        """Mean metrics of all test views after alignment and test-time pose refinement, and the pose errors."""
        self.eval()
        if output_path is not None:
            output_path.mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, float]] = []
        for index, view in enumerate(self._test_views()):
            metrics, images = self._views.judged(*view)
            rows.append(metrics)
            if output_path is not None:
                for name, image in images.items():
                    write_picture(output_path / f"eval_{name}_{index:04d}.png", image)
        results = {name: statistics.fmean(row[name] for row in rows) for name in rows[0]} if rows else {}
        if get_std and rows:
            results |= {f"{name}_std": statistics.pstdev(row[name] for row in rows) for name in rows[0]}
        self.train()
        return {**results, **self.pose_metrics()}

    @property
    def _views(self) -> TestViews:
        return TestViews(self.craym_model, self.log_gain, self.config.test_pose_steps, self.config.test_pose_rays)

    def _test_views(self) -> Iterator[tuple[Cameras, dict]]:
        """All test views with their images, their poses aligned and refined, as many together as a chunk has rays."""
        poses, views = self.placed_test_c2w(), []
        loader, rays = self.datamanager.fixed_indices_eval_dataloader, self.config.test_pose_rays
        together = max(1, self.craym_model.config.eval_num_rays_per_chunk // max(rays, 1))
        for index, (camera, batch) in enumerate(track(loader, description="Test views")):
            views.append((with_poses(camera, poses[[index]]).to(self.device), batch))
            if len(views) == together or index + 1 == len(loader):
                yield from self._views.refined(views, self.datamanager.eval_cameras[index + 1 - len(views) : index + 1])
                views = []

    def refined_test_c2w(self) -> Float[Tensor, "test 3 4"]:
        """Poses of the test images in the world, aligned and then refined against the field, on the CPU."""
        self.eval()
        poses = [camera.camera_to_worlds.reshape(3, 4).cpu() for camera, _ in self._test_views()]
        return torch.stack(poses) if poses else torch.zeros(0, 3, 4)
