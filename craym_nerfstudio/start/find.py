"""Where training starts from: matches, and the poses that matched-ray bundle adjustment (stage 0) makes of them."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from craym_nerfstudio.cameras.selection import select_cameras
from craym_nerfstudio.console import console, warn
from craym_nerfstudio.data.config import AskedRegion
from craym_nerfstudio.data.world import find_target
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.alignment import Similarity
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.views import PosePriors, Views
from craym_nerfstudio.sfm.result import Intrinsics, StageZero
from craym_nerfstudio.sfm.shared_intrinsics import correct_bearings
from craym_nerfstudio.start.config import StartConfig
from craym_nerfstudio.start.not_adjusted import show_not_adjusted
from craym_nerfstudio.start.region import asked_region, figures_in_data, find_region
from craym_nerfstudio.storage import alone, content_key, file_key, from_cache, steady

_VERSION = 7
_MIN_CONFIDENCE = 0.02
"""Matches that stage 0 believes less than this are not drawn any more."""


@dataclass(frozen=True)
class Start:
    """What is known before the field is trained, in the world frame."""

    c2w: Float[np.ndarray, "cams 3 4"]
    fixed: Bool[np.ndarray, " cams"]
    """Cameras whose poses are exact."""
    matches: Matches | None = None
    world_from_unit: Similarity | None = None
    """Where the region lies; None for the world's unit sphere."""
    stage_zero: StageZero | None = None
    intrinsics: Intrinsics | None = None
    """Corrections to the given intrinsics, which the matches' bearings already carry."""
    test_c2w: Float[np.ndarray, "test 3 4"] | None = None
    """Poses of the test images, where they were found with the others'."""
    test_focal: tuple[float, ...] = ()
    """Factors on their focal lengths, as `Intrinsics.own_focal`."""

    def within(self, asked: AskedRegion, world_from_data: Similarity, views: Views) -> tuple["Start", str]:
        """The same in the region that the user asks for, and the region's figures in the frame of the data."""
        region = asked_region(asked, self.world_from_unit or Similarity.of(), world_from_data)
        points = None if self.stage_zero is None else self.stage_zero.points
        figures = figures_in_data(region, world_from_data, points, views)
        if asked != AskedRegion() and figures.rays == 0:
            remedy = "Give region-center and region-radius in the frame and units of the data, or neither."
            raise InputError(f"No camera sees the region: {figures.in_words}", None, remedy)
        return replace(self, world_from_unit=region), figures.in_words

    def of_training(self, views: Views, posed: Views, test_names: Sequence[str]) -> "Start":
        """What concerns the training images alone, keypoints at the size of their `views`, and where test images are.

        Args:
            posed: all images that this start tells of.
            test_names: images to judge by, in their order; none where their poses are exact.
        """
        is_train, stage = np.isin(posed.names, views.names), self.stage_zero
        test_c2w, test_focal = self.test_c2w, self.test_focal
        if stage is not None and test_names and set(test_names) <= set(posed.names):
            places = [posed.names.index(name) for name in test_names]
            own = () if self.intrinsics is None else self.intrinsics.own_focal
            test_c2w, test_focal = self.c2w[places], tuple(own[k] for k in places if own)
            if not is_train.all():
                states = Counter(stage.state[k] for k in np.flatnonzero(~is_train))
                told = ", ".join(f"{count} {state}" for state, count in states.items())
                console.print(f"Test images: {told} with the others; what follows sees none of them")
        if stage is not None:
            stage, ratio = stage.of_cameras(is_train), views.size_px / posed.size_px[is_train]
            stage = replace(stage, ray_keypoint_px=stage.ray_keypoint_px * ratio[stage.ray_image])
        return replace(
            self,
            c2w=self.c2w[is_train],
            fixed=self.fixed[is_train],
            matches=None if self.matches is None else self.matches.between(views.names, views.size_px),
            stage_zero=stage,
            intrinsics=self.intrinsics and self.intrinsics.of_cameras(is_train),
            test_c2w=test_c2w,
            test_focal=test_focal,
        )


def find_start(views: Views, config: StartConfig, has_alpha: bool) -> Start:
    """Find matches and, with ``pose_init = "matched-rays"``, adjust the poses to them; both are cached.

    Raises:
        InputError: a fixed camera is none of the images, or they cannot be matched; the message says how to train
            without matches.
    """
    fixed = select_cameras(config.fixed_cameras, views.names)
    if config.matcher == "none" and config.matches is None:
        show_not_adjusted(None, views.left_out)
        return Start(views.c2w, fixed)
    matches = found_matches(views, config)
    if config.pose_init == "input":
        show_not_adjusted(None, views.left_out)
        return Start(views.c2w, fixed, matches)
    views = with_prior_sigma(views, config.prior_sigma)
    matches, stage = adjusted(views, matches, config.cache_dir, fixed, config.refine_intrinsics)
    report_stage_zero(stage, views.left_out)
    if stage.intrinsics is not None:
        bearings = correct_bearings(torch.from_numpy(matches.bearings), stage.intrinsics, matches.images)
        matches = replace(matches, bearings=bearings.numpy())
    trusted = replace(matches, confidence=(matches.confidence * stage.match_weight).astype(np.float32))
    trusted = trusted.subset(trusted.confidence > _MIN_CONFIDENCE)
    matches = trusted if len(trusted.confidence) else matches
    return Start(stage.c2w, fixed, matches, find_region(stage, has_alpha), stage, stage.intrinsics)


def found_matches(views: Views, config: StartConfig) -> Matches:
    """Matches from the file that was given, or found by the chosen matcher.

    Raises:
        InputError: the images cannot be matched, or the file cannot be read or is of other images.
    """
    if config.matches is None:
        from craym_nerfstudio.matching.find import find_matches

        assert config.matcher != "none"
        return find_matches(views, config.matcher, config.cache_dir)
    matches = Matches.load(config.matches)
    try:
        matches = matches.between(views.names, views.size_px)
    except ValueError as reason:
        remedy = "Match the images of this data again (craym match)."
        raise InputError(f"The matches are of other images: {reason}", config.matches, remedy) from reason
    known = zip(views.names, views.paths, matches.file_keys, strict=bool(matches.file_keys))
    if others := [name for name, path, key in known if file_key(path) != key]:
        count = f"{len(others)} of {len(views.names)} images are other files than were matched, such as {others[0]}"
        warn(f"{count}: if they show something else, match them again (craym match).")
    # Intrinsics may have been corrected since.
    bearings = np.empty_like(matches.bearings)
    for image in range(len(views.names)):
        of_image = matches.images == image
        bearings[of_image] = views.bearings(image, matches.keypoints[of_image])
    return replace(matches, bearings=bearings)


def with_prior_sigma(views: Views, sigma: tuple[float, float] | None) -> Views:
    """Views of whose poses these errors are said, where the data says nothing of them.

    Raises:
        InputError: an error that is not above zero.
    """
    if sigma is None:
        return views
    if not all(math.isfinite(value) and value > 0 for value in sigma):
        remedy = "Give degrees and per cent, such as 1.5 2; exact poses are for --pipeline.start.fixed-cameras."
        raise InputError(f"prior-sigma is {sigma[0]:g} {sigma[1]:g}", None, remedy)
    length = 0.01 * sigma[1] * find_target(views.c2w).distance
    said = views.priors or PosePriors(*np.full((2, len(views.names)), np.nan))
    rotation, translation = (
        np.where(np.isnan(each), value, each)
        for each, value in ((said.rotation_sigma_deg, sigma[0]), (said.translation_sigma, length))
    )
    return replace(views, priors=PosePriors(rotation, translation, said.centers))


def adjusted(
    views: Views, matches: Matches, cache_dir: Path, fixed: Bool[np.ndarray, " cams"], refine_intrinsics: bool
) -> tuple[Matches, StageZero]:
    """Stage 0 of these matches with those it rests on, from the cache where it has them."""
    said = () if views.priors is None else tuple(steady(v) for v in vars(views.priors).values() if v is not None)
    matched = (matches.keypoints, matches.bearings, matches.pairs, matches.guess_c2w)
    key = content_key(
        _VERSION,
        *(steady(views.c2w), *said, views.focal_px, *matched, fixed, refine_intrinsics, views.is_placed),
        () if views.is_test is None else views.is_test,
    )
    path, closer_path = (cache_dir / f"{name}-{key}.npz" for name in ("stage0", "closer"))
    with alone(path):
        stage = from_cache(path, StageZero.load)
        closer = from_cache(closer_path, Matches.load) if stage is not None and stage.looked_again else matches
        if stage is not None and closer is not None:
            console.print(f"Stage 0: cached ({path})")
            return closer, stage
        from craym_nerfstudio.sfm.second_look import adjust_twice

        closer, stage = adjust_twice(views, matches, fixed=fixed, refine_intrinsics=refine_intrinsics)
        if stage.looked_again:
            closer.save(closer_path)
        stage.save(path)
    return closer, stage


def report_stage_zero(stage: StageZero, left_out: Mapping[str, str]) -> None:
    """Print what stage 0 decided and found, and which images end without a camera of their own."""
    before, after = stage.median_epipolar_px
    console.print(
        f"Stage 0: cameras {stage.counts_in_words}; "
        f"epipolar residual {before:.2f} -> {after:.2f} px; {len(stage.points)} points; {stage.decision.reason}"
    )
    if stage.intrinsics is not None:
        console.print(f"Stage 0: {stage.intrinsics.in_words}")
    for note in stage.notes:
        warn(f"Stage 0: {note}")
    show_not_adjusted(stage, left_out)
