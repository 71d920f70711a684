"""The data manager: random rays, patches and matched key rays of one step in one batch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.utils.dataloaders import FixedIndicesEvalDataloader, RandIndicesEvalDataloader
from torch import Tensor

from craym_nerfstudio.cameras.optimizer import fixed_camera_mask
from craym_nerfstudio.data.calibration import calibrated_cameras
from craym_nerfstudio.data.dataparser import CraymDataParserConfig, ReferencePoses
from craym_nerfstudio.data.dataset import CraymDataset, load_image_store
from craym_nerfstudio.data.image_store import ImageStore
from craym_nerfstudio.data.key_rays import KeyRaySource, MatchedPairs
from craym_nerfstudio.data.views import views_from_outputs
from craym_nerfstudio.errors import show_input_errors
from craym_nerfstudio.sfm.result import Intrinsics
from craym_nerfstudio.start.find import PoseStart, pose_start


@dataclass
class CraymDataManagerConfig(VanillaDataManagerConfig):
    """What a training step is made of, and where the poses come from."""

    _target: type = field(default_factory=lambda: CraymDataManager)
    dataparser: AnnotatedDataParserUnion = field(default_factory=CraymDataParserConfig)
    """How the data is read; the default detects what lies in --data."""
    train_num_rays_per_batch: int = 1024
    """Random rays per step."""
    num_patches: int = 4
    """Square patches per step, for the SSIM loss."""
    patch_side_px: int = 8
    """Side of a patch."""
    num_key_pairs: int = 32
    """Matched pairs of key rays rendered per step."""
    num_aux_rays: int = 8
    """Auxiliary rays around each key ray."""
    num_epipolar_pairs: int = 2048
    """Matches per step that enter the epipolar loss without being rendered."""
    matcher: Literal["auto", "aliked-lightglue", "sift", "none"] = "auto"
    """How keypoints are found and matched; auto takes the better one that this machine runs in reasonable time."""
    pose_init: Literal["matched-rays", "input"] = "matched-rays"
    """Where pose optimisation starts: matched-ray bundle adjustment, or the poses as given."""
    refine_intrinsics: bool = False
    """Let stage 0 also adjust focal length, principal point and radial distortion, shared by all images."""
    pose_noise: Literal["none", "barf", "l2g", "l2g-low", "real"] = "none"
    """Perturb the training poses, to measure how well they are recovered."""
    pose_noise_seed: int = 0
    """Seed of the perturbation."""
    reference_poses: Path | None = None
    """True poses of the same images (matched by file name), for metrics alone."""
    cache_dir: Path = Path("outputs/cache")
    """Where matches and stage 0 are kept between runs."""
    fixed_cameras: tuple[str, ...] = ()
    """Images whose poses are exact; set by the pipeline from the camera optimizer's flag of this name."""
    seed: int = 0
    """Seed of the rays drawn at each step."""


@dataclass
class TrainBatch:
    """Names of the entries of a training batch, for the model."""

    pairs: MatchedPairs
    epipolar: MatchedPairs


class CraymDataManager(VanillaDataManager[CraymDataset]):
    """Emits matched key-ray bundles while training; plain rays, as the host's exporters expect, otherwise."""

    config: CraymDataManagerConfig
    start: PoseStart | None = None
    intrinsics: Intrinsics = Intrinsics()
    """Corrections of the given intrinsics that are in use."""

    def __init__(self, config: CraymDataManagerConfig, *args: Any, **kwargs: Any) -> None:
        show_input_errors()
        parser = config.dataparser
        if isinstance(parser, CraymDataParserConfig):
            parser.pose_noise, parser.pose_noise_seed = config.pose_noise, config.pose_noise_seed
            parser.reference_poses = config.reference_poses
        super().__init__(config, *args, **kwargs)

    def create_train_dataset(self) -> CraymDataset:
        """The training images; what is known of their true poses is taken out before anything else sees it."""
        outputs = self.train_dataparser_outputs
        self.reference: ReferencePoses | None = outputs.metadata.pop("reference", None)
        dataset = CraymDataset(outputs)
        assert outputs.alpha_color is not None
        dataset.metadata["background_rgb"] = outputs.alpha_color.tolist()
        return dataset

    def create_eval_dataset(self) -> CraymDataset:
        """The test images."""
        outputs = self.dataparser.get_dataparser_outputs(split=self.test_split)
        outputs.metadata.pop("reference", None)
        return CraymDataset(outputs)

    def setup_train(self) -> None:
        """Load the images as 8-bit and, when about to train, find matches and the poses to start from."""
        outputs = self.train_dataparser_outputs
        self.train_pixel_sampler = self._get_pixel_sampler(self.train_dataset, self.config.train_num_rays_per_batch)
        self.train_cameras = self.train_dataset.cameras.to(self.device)
        self.images: ImageStore | None = None
        self.key_source: KeyRaySource | None = None
        if self.test_mode != "val":
            return
        self.images = load_image_store(outputs).to(self.device)
        views = views_from_outputs(outputs)
        fixed = fixed_camera_mask(self.config.fixed_cameras, views.names).nonzero()[:, 0].tolist()
        self.start = pose_start(views, self.config, outputs.metadata["has_alpha"], fixed)
        if self.start.intrinsics is not None:
            self.calibrate(self.start.intrinsics)
        if self.start.matches is not None:
            source = KeyRaySource(self.start.matches, views.focal_px, views.size_px)
            self.key_source = source.to(self.device)

    def calibrate(self, intrinsics: Intrinsics) -> None:
        """Correct the intrinsics of all cameras, training and test."""
        self.intrinsics = intrinsics
        for dataset in (self.train_dataset, self.eval_dataset):
            dataset.cameras = calibrated_cameras(dataset.cameras, intrinsics)
        self.train_cameras = self.train_dataset.cameras.to(self.device)
        self.setup_eval()

    def setup_eval(self) -> None:
        """Loaders of whole test images; the host's caching loader is not needed."""
        cameras = self.eval_dataset.cameras
        self.eval_cameras = cameras.to(self.device)
        self.eval_images: ImageStore | None = None
        options: dict[str, Any] = {"device": self.device, "num_workers": 0}
        self.fixed_indices_eval_dataloader = FixedIndicesEvalDataloader(input_dataset=self.eval_dataset, **options)
        self.eval_dataloader = RandIndicesEvalDataloader(input_dataset=self.eval_dataset, **options)

    def _generator(self, step: int) -> torch.Generator:
        # A function of the step alone: a resumed run draws what an uninterrupted one would have drawn.
        return torch.Generator(device=self.device).manual_seed((self.config.seed << 32) + step * 2654435761 % (1 << 32))

    def next_train(self, step: int) -> tuple[RayBundle, dict]:
        """Rays of one step: random ones, patches, then key rays with their auxiliaries; RGBA of all of them."""
        self.train_count += 1
        if self.images is None:
            self.images = load_image_store(self.train_dataparser_outputs).to(self.device)
        # The host's exporters ask for step 0 again and again and want other rays each time.
        generator = self._generator(step if self.training else self.train_count)
        assert self.train_pixel_sampler is not None
        if not self.training:
            image, xy = self.images.random_pixels(self.train_pixel_sampler.num_rays_per_batch, generator)
            return self._rays(self.train_cameras, image, xy), self._batch(self.images, image, xy)
        return self._training_batch(generator)

    def _training_batch(self, generator: torch.Generator) -> tuple[RayBundle, dict]:
        assert self.images is not None
        config = self.config
        parts = [self.images.random_pixels(config.train_num_rays_per_batch, generator)]
        if config.num_patches:
            parts.append(self.images.random_patches(config.num_patches, config.patch_side_px, generator))
        extra: dict[str, Any] = {"patches": config.num_patches, "patch_side": config.patch_side_px}
        plain = sum(part[0].shape[0] for part in parts)
        if self.key_source is not None:
            keys = self.key_source.key_pixels(config.num_key_pairs, config.num_aux_rays, generator)
            parts.append((keys.image, keys.xy))
            extra["matches"] = TrainBatch(keys.pairs, self.key_source.pairs(config.num_epipolar_pairs, generator))
        image = torch.cat([part[0] for part in parts])
        xy = torch.cat([part[1] for part in parts])
        rays = self._rays(self.train_cameras, image, xy)
        if self.key_source is not None:
            # Kept on the CPU: the model reads the layout of the batch from it, and must not wait for CUDA to do so.
            group = torch.arange(image.shape[0] - plain) // (1 + config.num_aux_rays)
            rays.metadata["key_group"] = torch.cat([torch.full((plain,), -1), group])[:, None]
        return rays, {**self._batch(self.images, image, xy), **extra, "plain": plain}

    def next_eval(self, step: int) -> tuple[RayBundle, dict]:
        """Random rays of the test images."""
        self.eval_count += 1
        if self.eval_images is None:
            self.eval_images = load_image_store(self.eval_dataset._dataparser_outputs).to(self.device)
        image, xy = self.eval_images.random_pixels(self.config.eval_num_rays_per_batch, self._generator(step))
        return self._rays(self.eval_cameras, image, xy), self._batch(self.eval_images, image, xy)

    @staticmethod
    def _rays(cameras: Any, image: Tensor, xy: Tensor) -> RayBundle:
        rays = cameras.generate_rays(camera_indices=image[:, None], coords=xy.flip(-1))
        rays.metadata = dict(rays.metadata)
        return rays

    @staticmethod
    def _batch(images: ImageStore, image: Tensor, xy: Tensor) -> dict[str, Tensor]:
        indices = torch.cat([image[:, None], xy.flip(-1).floor().long()], dim=-1)
        return {"image": images.colors(image, xy), "visible": images.visible(image, xy), "indices": indices}

    def get_eval_rays_per_batch(self) -> int:
        """Random rays drawn by `next_eval`."""
        return self.config.eval_num_rays_per_batch
