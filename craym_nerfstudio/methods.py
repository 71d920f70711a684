"""What the methods `craym` (full size), `craym-lite` and `craym-cpu` (2 cores, no GPU) consist of."""

from copy import deepcopy
from dataclasses import dataclass, field

import torch
from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig, OptimizerConfig
from nerfstudio.engine.schedulers import Scheduler, SchedulerConfig
from nerfstudio.plugins.types import MethodSpecification
from torch.optim import Optimizer, lr_scheduler

from craym_nerfstudio.cameras.optimizer import CraymCameraOptimizerConfig
from craym_nerfstudio.data.datamanager import CraymDataManagerConfig
from craym_nerfstudio.data.dataparser import CraymDataParserConfig
from craym_nerfstudio.fields.sdf_field import SDFFieldConfig
from craym_nerfstudio.model import CraymModelConfig
from craym_nerfstudio.pipeline import CraymPipelineConfig
from craym_nerfstudio.trainer import CraymTrainerConfig


@dataclass
class AdamWConfig(OptimizerConfig):
    """AdamW with the paper's momenta."""

    _target: type = torch.optim.AdamW
    lr: float = 1e-2
    eps: float = 1e-15
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-6
    """Decoupled weight decay."""
    fused: bool = True
    """One pass over the parameters instead of a dozen: a hash table is large, and its update bound by memory."""


@dataclass
class FusedAdamConfig(AdamOptimizerConfig):
    """The host's Adam, in one launch on a CUDA device."""

    fused: bool = True
    """One pass over the parameters."""


@dataclass
class WarmupDecaySchedulerConfig(SchedulerConfig):
    """Linear warm-up, then exponential decay to a fraction of the base rate."""

    _target: type = field(default_factory=lambda: WarmupDecayScheduler)
    warmup_steps: int = 500
    """Steps from rate zero to the base rate."""
    final_ratio: float = 0.1
    """Rate at `max_steps`, relative to the base rate."""
    max_steps: int = 20000
    """Step at which the decay ends."""


class WarmupDecayScheduler(Scheduler):
    """See `WarmupDecaySchedulerConfig`."""

    config: WarmupDecaySchedulerConfig

    def get_scheduler(self, optimizer: Optimizer, lr_init: float) -> lr_scheduler.LRScheduler:
        """The torch scheduler."""
        config = self.config

        def factor(step: int) -> float:
            if step < config.warmup_steps:
                return (step + 1) / config.warmup_steps
            progress = (step - config.warmup_steps) / max(config.max_steps - config.warmup_steps, 1)
            return config.final_ratio ** min(progress, 1.0)

        return lr_scheduler.LambdaLR(optimizer, lr_lambda=factor)


def _optimizers(steps: int, warmup: int, pose_rate: float) -> dict:
    """Rates of the paper: AdamW 0.01 for the field, 0.001 for the variance; no weight decay pulls on the poses.

    The geometry net alone has a tenth: steps of 0.01 move the whole surface by more than stage 0's points are off.
    """
    decay = WarmupDecaySchedulerConfig(warmup_steps=warmup, final_ratio=0.1, max_steps=steps)
    return {
        "fields": {"optimizer": AdamWConfig(lr=1e-2), "scheduler": decay},
        "geometry": {"optimizer": AdamWConfig(lr=1e-3), "scheduler": deepcopy(decay)},
        "variance": {"optimizer": FusedAdamConfig(lr=1e-3), "scheduler": deepcopy(decay)},
        "camera_opt": {
            "optimizer": FusedAdamConfig(lr=pose_rate, eps=1e-15, weight_decay=0.0),
            "scheduler": WarmupDecaySchedulerConfig(warmup_steps=warmup, final_ratio=0.01, max_steps=steps),
        },
    }


def _trainer(
    name: str, pipeline: CraymPipelineConfig, steps: int, warmup: int, steps_per_save: int, pose_rate: float
) -> CraymTrainerConfig:
    """What both methods share: the trainer, the device, and how rarely the host evaluates."""
    return CraymTrainerConfig(
        method_name=name,
        steps_per_eval_batch=1_000_000,
        steps_per_eval_image=2000,
        steps_per_eval_all_images=1_000_000,
        steps_per_save=steps_per_save,
        max_num_iterations=steps,
        machine=MachineConfig(device_type="cuda" if torch.cuda.is_available() else "cpu"),
        # Networks of 64 units gain nothing by half precision, and its gradient scaler waits for the device.
        mixed_precision=False,
        pipeline=pipeline,
        optimizers=_optimizers(steps, warmup, pose_rate),
        # The host's default is every interface; --viewer.websocket-host 0.0.0.0 brings that back.
        viewer=ViewerConfig(num_rays_per_chunk=8192, websocket_host="127.0.0.1"),
        vis="viewer+tensorboard",
    )


_lite = CraymPipelineConfig(
    datamanager=CraymDataManagerConfig(
        dataparser=CraymDataParserConfig(max_image_size_px=400),
        train_num_rays_per_batch=2048,
        num_patches=1,
        num_key_pairs=12,
        num_aux_rays=4,
    ),
    model=CraymModelConfig(
        eval_num_rays_per_chunk=4096,
        camera_optimizer=CraymCameraOptimizerConfig(settled_delay_steps=1000),
        sdf_field=SDFFieldConfig(num_levels=8, log2_table_size=17, base_resolution=16, hidden_layers=1),
        color_hidden_layers=2,
        point_alignment_steps=(1000, 1500),
        steps_per_level=100,
        epipolar_anneal_steps=1000,
        epipolar_loss_mult=0.3,
        cosine_anneal_steps=500,
        surface_interval_steps=1500,
        silhouette_steps=(360, 1200),
        landmark_steps=1500,
        consistency_steps=(150, 450),
        grid_resolution=64,
        grid_refresh_steps=32,
        fine_samples=16,
    ),
    test_pose_rays=256,
)


def _without_gpu(name: str, pipeline: CraymPipelineConfig, steps: int, steps_per_save: int) -> CraymTrainerConfig:
    """A training of some length; the schedules of `_lite`, which are stated for 3000 steps, at that length."""
    config = _trainer(name, deepcopy(pipeline), 3000, warmup=50, steps_per_save=steps_per_save, pose_rate=3e-3)
    config.max_num_iterations = steps
    config.fit_schedules()
    return config


def _thorough() -> CraymPipelineConfig:
    """`craym-lite`, for larger photos."""
    pipeline = deepcopy(_lite)
    pipeline.datamanager.dataparser = CraymDataParserConfig(max_image_size_px=800)
    pipeline.model.sdf_field.num_levels, pipeline.model.sdf_field.log2_table_size = 10, 19
    return pipeline


craym = MethodSpecification(
    config=_trainer("craym", CraymPipelineConfig(), steps=20000, warmup=500, steps_per_save=5000, pose_rate=5e-4),
    description="CRAYM: poses, SDF and colour optimised together, tied by matched key rays.",
)
craym_lite = MethodSpecification(
    config=_without_gpu("craym-lite", _lite, steps=2500, steps_per_save=250),
    description="CRAYM in 5 minutes without a GPU: 2 cores, under 4 GiB of memory, photos of 400 px.",
)
craym_cpu = MethodSpecification(
    config=_without_gpu("craym-cpu", _thorough(), steps=10_000, steps_per_save=500),
    description="CRAYM without a GPU, for 20 minutes: photos of 800 px, finer surface and views.",
)
