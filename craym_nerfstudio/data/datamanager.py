"""The data manager: random rays, patches and matched key rays of one step in one batch."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.utils.dataloaders import FixedIndicesEvalDataloader, RandIndicesEvalDataloader
from torch import Tensor

from craym_nerfstudio.cameras.rays import PinholeRays
from craym_nerfstudio.data.calibration import calibrated_cameras
from craym_nerfstudio.data.dataparser import CraymDataParser, CraymDataParserConfig
from craym_nerfstudio.data.dataset import CraymDataset, load_image_store
from craym_nerfstudio.data.image_store import ImageStore
from craym_nerfstudio.data.key_rays import KeyRaySource
from craym_nerfstudio.data.outlines import Outlines
from craym_nerfstudio.data.reference import ReferencePoses
from craym_nerfstudio.data.scene import Scene
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.layout import RayLayout
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.schedules import StepGenerator
from craym_nerfstudio.sfm.result import Intrinsics


@dataclass(frozen=True)
class FinalCameras:
    """Cameras as training has left them, in the world."""

    train_c2w: Float[Tensor, "cams 3 4"]
    test_c2w: Float[Tensor, "test 3 4"]
    """Mapped into the frame of the refined ones."""
    intrinsics: Intrinsics
    test_focal: tuple[float, ...] = ()
    """Factors on the focal lengths of the test images, where they have their own."""


@dataclass
class CraymDataManagerConfig(VanillaDataManagerConfig):
    """What a training step is made of."""

    _target: type = field(default_factory=lambda: CraymDataManager)
    dataparser: AnnotatedDataParserUnion = field(default_factory=CraymDataParserConfig)
    """How the data is read; the default detects what lies in --data."""
    train_num_rays_per_batch: int = 4096
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
    seed: int = 0
    """Seed of the rays drawn at each step."""
    final: Annotated[FinalCameras | None, tyro.conf.Suppress] = None
    """Told by a pipeline that was loaded: `ns-render dataset` builds data managers of its own from its config."""


class CraymDataManager(VanillaDataManager[CraymDataset]):
    """Emits matched key-ray bundles while training; plain rays, as the host's exporters expect, otherwise."""

    config: CraymDataManagerConfig
    intrinsics: Intrinsics = Intrinsics()
    """Corrections of the given intrinsics that are in use."""
    test_focal: tuple[float, ...] = ()
    """Those of the test images' own focal lengths."""
    images: ImageStore | None = None
    key_source: KeyRaySource | None = None
    """Where key rays come from; None while there are no matches."""
    outlines: Outlines | None = None
    """What silhouettes are compared with; None where they are not."""

    def create_train_dataset(self) -> CraymDataset:
        """The training images; what is known of their true poses is taken out before anything else sees it."""
        outputs = self.train_dataparser_outputs
        self.reference: ReferencePoses | None = outputs.metadata.pop("reference", None)
        dataset = CraymDataset(outputs)
        assert outputs.alpha_color is not None
        dataset.metadata["background_rgb"] = outputs.alpha_color.tolist()
        if self.config.final is not None:
            _settle(dataset, self.config.final.train_c2w, self.config.final.intrinsics)
        return dataset

    def create_eval_dataset(self) -> CraymDataset:
        """The test images."""
        outputs = self.dataparser.get_dataparser_outputs(split=self.test_split)
        outputs.metadata.pop("reference", None)
        dataset, final = CraymDataset(outputs), self.config.final
        if final is not None:
            _settle(dataset, final.test_c2w, replace(final.intrinsics, own_focal=final.test_focal))
        return dataset

    def settle(self, final: FinalCameras) -> None:
        """Generate rays from cameras as training has left them, here and in data managers built from this config."""
        self.calibrate(final.intrinsics, final.test_focal)
        _settle(self.train_dataset, final.train_c2w)
        _settle(self.eval_dataset, final.test_c2w)
        self.config.final = final
        self.take_cameras()
        self.setup_eval()

    def setup_train(self) -> None:
        """The sampler that the host's exporters look for; images are loaded when they are first drawn from."""
        self.train_pixel_sampler = self._get_pixel_sampler(self.train_dataset, self.config.train_num_rays_per_batch)
        self.take_cameras()

    def take_cameras(self) -> None:
        """Generate rays from the data set's cameras as they are now."""
        cameras = self.train_dataset.cameras
        self.train_cameras = cameras.to(self.device)
        self.pinhole_rays = PinholeRays(self.train_cameras) if PinholeRays.fit(cameras) else None

    @property
    def scene(self) -> Scene:
        """The dataset that was read.

        Raises:
            InputError: a dataparser of somebody else read it, which does not tell what training needs.
        """
        if not isinstance(self.dataparser, CraymDataParser):
            raise InputError("The data was read by another dataparser", remedy="Use craym-data, which is the default.")
        return self.dataparser.scene

    def views(self) -> Views:
        """The training images as matching sees them, in the world."""
        scene = self.scene
        return scene.views.moved(scene.world_from_data)

    def posed_views(self, with_tests: bool = True) -> Views:
        """All images whose poses are to be found, in the world: see `Scene.posed_views`."""
        scene = self.scene
        return scene.posed_views(with_tests).moved(scene.world_from_data)

    @property
    def test_names(self) -> list[str]:
        """Names of the test images, as views have them; none where their poses are exact."""
        scene = self.scene
        may_move = scene.tests_are_rough or bool(np.isin(scene.test, scene.train).all())
        return [scene.frames.names[number] for number in scene.test if may_move]

    def place_tests(self, c2w: Float[Tensor, "test 3 4"]) -> None:
        """Take these poses for those that the test images were given."""
        _settle(self.eval_dataset, c2w.clone())
        self.setup_eval()

    def draw_matches(self, matches: Matches) -> None:
        """From now on training batches carry key rays of these matches."""
        views = self.views()
        self.key_source = KeyRaySource(matches, views.focal_px, views.size_px).to(self.device)

    def calibrate(self, intrinsics: Intrinsics, test_focal: tuple[float, ...] = ()) -> None:
        """Correct the given intrinsics of all cameras, training and test, unless these are in use; poses stay."""
        if (intrinsics, test_focal) == (self.intrinsics, self.test_focal):
            return
        self.intrinsics, self.test_focal = intrinsics, test_focal
        of_test = replace(intrinsics, own_focal=test_focal)
        for dataset, found in ((self.train_dataset, intrinsics), (self.eval_dataset, of_test)):
            poses, given = dataset.cameras.camera_to_worlds, dataset._dataparser_outputs.cameras
            dataset.cameras = calibrated_cameras(given, found)
            dataset.cameras.camera_to_worlds = poses
        self.take_cameras()
        self.setup_eval()

    def setup_eval(self) -> None:
        """Loaders of whole test images; the host's caching loader is not needed."""
        cameras = self.eval_dataset.cameras
        self.eval_cameras = cameras.to(self.device)
        self.eval_images: ImageStore | None = None
        options: dict[str, Any] = {"device": self.device, "num_workers": 0}
        self.fixed_indices_eval_dataloader = FixedIndicesEvalDataloader(input_dataset=self.eval_dataset, **options)
        self.eval_dataloader = RandIndicesEvalDataloader(input_dataset=self.eval_dataset, **options)

    @cached_property
    def random(self) -> StepGenerator:
        return StepGenerator()

    def generator(self, step: int) -> torch.Generator:
        """Source of a step's random numbers, at its start.

        A function of the step alone: a resumed run draws what an uninterrupted one would have drawn. Processes of a
        distributed run differ, or each would draw the others' rays again.
        """
        number = (step * self.world_size + self.local_rank) * 2654435761 % (1 << 32)
        return self.random.at((self.config.seed << 32) + number, torch.device(self.device))

    def train_images(self) -> ImageStore:
        """All training images, loaded when they are first asked for."""
        if self.images is None:
            self.images = load_image_store(self.train_dataparser_outputs).to(self.device)
        return self.images

    def next_train(self, step: int) -> tuple[RayBundle, dict]:
        """Rays of one step: random ones, patches, then key rays with their auxiliaries; RGBA of all of them."""
        self.train_count += 1
        images = self.train_images()
        # The host's exporters ask for step 0 again and again and want other rays each time.
        generator = self.generator(step if self.training else self.train_count)
        assert self.train_pixel_sampler is not None
        if not self.training:
            image, xy = images.random_pixels(self.train_pixel_sampler.num_rays_per_batch, generator)
            return self._rays(self.train_cameras, image, xy), self._batch(images, image, xy)
        return self._training_batch(images, step, generator)

    def _training_batch(self, images: ImageStore, step: int, generator: torch.Generator) -> tuple[RayBundle, dict]:
        config, source = self.config, self.key_source
        count = config.train_num_rays_per_batch
        if images.pixels.device.type == "cpu":
            parts = [images.next_pixels((step * self.world_size + self.local_rank) * count, count)]
        else:  # where each pixel is seen dozens of times, and operations are what a step waits for
            parts = [images.random_pixels(count, generator)]
        if config.num_patches:
            parts.append(images.random_patches(config.num_patches, config.patch_side_px, generator))
        plain, groups = sum(len(part[0]) for part in parts), 0
        known: dict[str, Any] = {}
        if source is not None:
            key_image, key_xy, pairs = source.key_pixels(config.num_key_pairs, config.num_aux_rays, generator)
            parts.append((key_image, key_xy))
            groups = 2 * config.num_key_pairs
            known = {"pairs": pairs, "epipolar_pairs": source.pairs(config.num_epipolar_pairs, generator)}
        image, xy = (torch.cat(part) for part in zip(*parts, strict=True))
        if self.outlines is not None:
            known["outline"] = self.outlines.at(image, xy)
        pinhole = self.pinhole_rays
        rays = self._rays(self.train_cameras, image, xy) if pinhole is None else pinhole(image, xy)
        layout = RayLayout(plain, config.num_patches, config.patch_side_px, groups, config.num_aux_rays)
        # The model is handed rays alone by the host.
        rays.metadata["layout"] = layout  # type: ignore[assignment]
        return rays, {**self._batch(images, image, xy), **known, "layout": layout}

    def next_eval(self, step: int) -> tuple[RayBundle, dict]:
        """Random rays of the test images."""
        self.eval_count += 1
        if self.eval_images is None:
            self.eval_images = load_image_store(self.eval_dataset._dataparser_outputs).to(self.device)
        image, xy = self.eval_images.random_pixels(self.config.eval_num_rays_per_batch, self.generator(step))
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


def _settle(dataset: CraymDataset, c2w: Float[Tensor, "cams 3 4"], intrinsics: Intrinsics | None = None) -> None:
    """Give the cameras of a data set their final poses, and corrected intrinsics unless it has them already."""
    if intrinsics is not None and intrinsics != Intrinsics():
        dataset.cameras = calibrated_cameras(dataset.cameras, intrinsics)
    dataset.cameras.camera_to_worlds = c2w.to(dataset.cameras.camera_to_worlds)
