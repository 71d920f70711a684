"""The whole check of one dataset: diagnosis, verified matches, stage 0 on the repaired poses, verdict."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from craym_nerfstudio.console import console
from craym_nerfstudio.geometry.alignment import pose_errors
from craym_nerfstudio.geometry.epipolar import essential, sampson_distance
from craym_nerfstudio.matching.alignment import aligned
from craym_nerfstudio.matching.choose import GraphQuality, second_choice
from craym_nerfstudio.matching.find import Matcher
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.verify import verify
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.matching.workers import one_torch_thread
from craym_nerfstudio.preflight.diagnose import Diagnosis, diagnose, with_suspected_lens, with_wrong_focals
from craym_nerfstudio.preflight.lens import putative_under
from craym_nerfstudio.preflight.observe import Observed, first_detector, observe
from craym_nerfstudio.preflight.verdict import Suspicion, Verdict, judge, suspicions
from craym_nerfstudio.sfm.adjust import adjust_rays, are_in_one_place
from craym_nerfstudio.sfm.ray_graph import connected
from craym_nerfstudio.sfm.result import StageZero

_PRIOR_DEG = 60.0


@dataclass
class Checked:
    """Everything that the report shows."""

    views: Views
    """As given."""
    diagnosis: Diagnosis
    matches: Matches
    tried: int
    """Pairs of images that were compared."""
    stage: StageZero | None
    """Of the repaired poses; None without matches."""
    component: Int[np.ndarray, " cams"]
    """Connected groups of the match graph."""
    given_px: Float[np.ndarray, " cams"]
    """Median epipolar distance of each camera's matches under the poses as given; NaN without matches."""
    adjusted_px: Float[np.ndarray, " cams"]
    """The same after repair and stage 0."""
    moved_deg: Float[np.ndarray, " cams"]
    """Rotation of stage 0 from the repaired poses, after alignment."""
    suspicious: list[Suspicion]
    verdict: Verdict


def check(views: Views, matcher: Matcher, cache_dir: Path) -> Checked:
    """Match the images, find what is wrong with the poses, repair it and adjust the poses to the matches.

    Raises:
        InputError: images that cannot be read, a missing package, or a cache that cannot be written.
    """
    observed = observe(views, first_detector(views, matcher), cache_dir)
    checked = check_observed(views, observed)
    lack = GraphQuality.of(checked.matches).lack() if matcher == "auto" and observed.detector == "sift" else None
    if lack is None:
        return checked
    # As training will: its matcher decides what training can make of these poses.
    keypoints = float(np.mean([len(each) for each in observed.keypoints]))
    second, reason = second_choice(len(views.names), observed.tried, keypoints)
    if second is None:
        return checked
    console.print(f"Matching: auto takes {second.name}: sift's graph is thin ({lack}), and {reason}")
    return check_observed(views, observe(views, second, cache_dir))


def check_observed(views: Views, observed: Observed) -> Checked:
    """The same from putative matches."""
    with one_torch_thread():
        diagnosis = diagnose(views, observed)
        matches = _verified(diagnosis, observed)
        is_solvable = len(matches) > 0 and not are_in_one_place(diagnosis.repaired.c2w)
        stage = adjust_rays(diagnosis.repaired, matches) if is_solvable else None
        if stage is not None and stage.suspected is not None:
            diagnosis = with_suspected_lens(diagnosis, stage.suspected, stage.suspected_of)
        if stage is not None and stage.focal_factors is not None:
            diagnosis = with_wrong_focals(diagnosis, stage.focal_factors)
    count, repaired = len(views.names), diagnosis.repaired
    nan = np.full(count, np.nan)
    given_px = camera_epipolar_px(views, matches)
    adjusted_px = nan if stage is None else camera_epipolar_px(repaired, matches, stage.c2w)
    moved = nan
    if stage is not None:
        change = pose_errors(torch.from_numpy(stage.c2w), torch.from_numpy(repaired.c2w), robust=True)
        moved = change.rotation_deg.numpy()
    component = connected(matches.pairs.astype(np.int64), count)
    before_px = camera_epipolar_px(repaired, matches)
    keypoints = np.array([len(each) for each in observed.keypoints])
    suspicious = suspicions(views.names, stage, component, before_px, adjusted_px, moved, keypoints)
    verdict = judge(views, diagnosis, len(matches), stage, before_px, adjusted_px, suspicious)
    return Checked(
        views, diagnosis, matches, observed.tried, stage, component, given_px, adjusted_px, moved, suspicious, verdict
    )


def _verified(diagnosis: Diagnosis, observed: Observed) -> Matches:
    """Matches under the repaired poses and lens; under the lens alone where the poses reject them all."""
    views, putative = diagnosis.repaired, observed.putative
    bearings = [np.asarray(views.bearings(k, xy), dtype=np.float64) for k, xy in enumerate(observed.keypoints)]
    if diagnosis.findings:
        putative = putative_under(observed, views, bearings)
    for prior_deg in (_PRIOR_DEG, None):
        matches, _ = verify(putative, views, observed.keypoints, bearings, observed.detector, prior_deg, observed.tried)
        if len(matches):
            break
    if len(matches) and observed.patch is not None:
        # As training will: a detector's own places hide focal lengths that are off by a per cent.
        matches, _ = aligned(matches, views, observed.patch)
    return matches


def camera_epipolar_px(
    views: Views, matches: Matches, c2w: Float[np.ndarray, "cams 3 4"] | None = None
) -> Float[np.ndarray, " cams"]:
    """Median Sampson distance in px of each camera's matches, with the poses and the lens of `views`, or other poses.

    The bearings in `matches` may be those of a repaired lens: they are not used.
    """
    images, result = matches.images, np.full(len(views.names), np.nan)
    if not len(matches):
        return result
    rays = np.empty((len(matches), 2, 3))
    keypoints = matches.keypoints.reshape(-1, 2)
    for image, mine in enumerate(_ends_by_image(images, len(views.names))):
        if len(mine):
            rays.reshape(-1, 3)[mine] = views.bearings(image, keypoints[mine])
    poses = torch.from_numpy(np.ascontiguousarray(views.c2w if c2w is None else c2w, dtype=np.float64))
    matrices = essential(poses[matches.pairs[:, 0]], poses[matches.pairs[:, 1]])[matches.pair_of_match]
    first, second = torch.from_numpy(rays).unbind(1)
    distance = sampson_distance(matrices, first, second).numpy() * np.asarray(views.focal_px)[images].mean(-1)
    # Without a baseline there are no epipolar lines to be off.
    has_lines = (matrices.abs().amax((1, 2)) > 0).numpy()
    for image, mine in enumerate(_ends_by_image(images, len(views.names))):
        lines = distance[mine // 2][has_lines[mine // 2]]
        if len(lines):
            result[image] = np.median(lines)
    return result


def _ends_by_image(images: Int[np.ndarray, "matches 2"], count: int) -> list[Int[np.ndarray, " some"]]:
    """Ends of matches by the image that they lie in: numbers 2 m and 2 m + 1 are the ends of match m."""
    order = np.argsort(images.ravel(), kind="stable")
    return np.split(order, np.searchsorted(images.ravel()[order], np.arange(1, count)))
