"""Verified matches of all image pairs, from the cache where it has them."""

from pathlib import Path

import numpy as np
from jaxtyping import Int32

from craym_nerfstudio.console import console
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.matching.choose import GraphQuality, Matcher, first_choice, make_detector, second_choice
from craym_nerfstudio.matching.compute import all_features, all_pairs, from_cache, one_torch_thread
from craym_nerfstudio.matching.detectors import Detector
from craym_nerfstudio.matching.images import picture_key
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.pairs import candidate_pairs
from craym_nerfstudio.matching.verify import VerifyReport, verify
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.storage import content_key

_VERSION = 1
_PROBES = np.array([[0.1, 0.1], [0.9, 0.1], [0.5, 0.5], [0.1, 0.9], [0.9, 0.9]])
"""Positions, in sizes of the image, whose bearings stand for the whole lens model in a cache key."""


def find_matches(
    views: Views, matcher: Matcher, cache_dir: Path, prior_angle_deg: float | None = 60.0, neighbours: int = 20
) -> Matches:
    """Verified matches between the images of `views`; a second call with the same content reads them from the cache.

    `prior_angle_deg` bounds how far a pair may rotate from what the rough poses say; None ignores them. Finished
    features and pairs are kept in `cache_dir` when the run is interrupted.

    Raises:
        InputError: fewer than two images, an unreadable one, no matches at all, or a cache that cannot be written.
    """
    _check(views)
    with one_torch_thread():
        pairs = candidate_pairs(views, neighbours)
    pictures = [picture_key(views, index) for index in range(len(views.names))]
    detector = chosen_detector(matcher, len(views.names), len(pairs))
    matches, report = _matched(views, detector, pairs, pictures, cache_dir, prior_angle_deg)
    lack = GraphQuality.of(matches).lack() if matcher == "auto" and detector.name == "sift" else None
    if lack is not None:
        features = all_features(views, detector, pictures, cache_dir)
        keypoints = float(np.mean([len(each.keypoints) for each in features]))
        second, reason = second_choice(len(views.names), len(pairs), keypoints)
        name = "sift" if second is None else second.name
        console.print(f"Matching: auto takes {name}: sift's graph is thin ({lack}), and {reason}")
        if second is not None:
            matches, report = _matched(views, second, pairs, pictures, cache_dir, prior_angle_deg)
    if report is not None:
        _require_matches(report, views)
    return matches


def _matched(
    views: Views,
    detector: Detector,
    pairs: Int32[np.ndarray, "pairs 2"],
    pictures: list[str],
    cache_dir: Path,
    prior_angle_deg: float | None,
) -> tuple[Matches, VerifyReport | None]:
    """Verified matches of one detector, and what verification said unless they were cached."""
    rough = np.asarray(views.c2w, dtype=np.float64)
    lens = [views.bearings(index, _PROBES * views.size_px[index]) for index in range(len(views.names))]
    pairs_key = content_key(_VERSION, detector.settings, pictures, np.stack(lens), views.focal_px, pairs)
    needed = (detector.least_inliers, detector.least_share)
    path = cache_dir / f"matches-{content_key(pairs_key, views.names, rough, prior_angle_deg, *needed)}.npz"
    cached = from_cache(path, Matches.load)
    if cached is not None:
        console.print(f"Matching: {len(cached)} matches in {len(cached.pairs)} pairs (cached in {path})")
        return cached, None
    features = all_features(views, detector, pictures, cache_dir)
    bearings = [np.asarray(views.bearings(k, f.keypoints), dtype=np.float64) for k, f in enumerate(features)]
    putative = all_pairs(views, detector, features, bearings, pairs, cache_dir / f"pairs-{pairs_key}")
    keypoints = [f.keypoints for f in features]
    with one_torch_thread():
        matches, report = verify(
            putative, views, keypoints, bearings, detector.name, prior_angle_deg, len(pairs), *needed
        )
    _say(report)
    if len(matches):
        matches.save(path)
    return matches, report


def _check(views: Views) -> None:
    if len(views.names) < 2:
        place = views.paths[0] if views.paths else None
        raise InputError(
            "Matching needs at least two images", place, "Add images, or set --pipeline.start.matcher none."
        )
    for name, pose, path in zip(views.names, np.asarray(views.c2w), views.paths, strict=True):
        if not np.isfinite(pose).all():
            raise InputError(f"Pose of {name} is not finite", path, "Correct it, or remove the image from the data.")


def chosen_detector(matcher: Matcher, images: int, pairs: int) -> Detector:
    """Detector that `matcher` stands for at first; says what `auto` takes, SIFT where the better cannot be made.

    Raises:
        InputError: the detector asked for by name needs a package that is not installed.
    """
    if matcher != "auto":
        return make_detector(matcher, images)
    name, reason = first_choice()
    try:
        detector = make_detector(name, images)
    except InputError as error:
        name, reason, detector = "sift", error.problem, make_detector("sift", images)
    console.print(f"Matching: auto takes {name} ({reason}; {images} images, {pairs} pairs)")
    return detector


def _say(report: VerifyReport) -> None:
    limit = "ignored" if np.isnan(report.prior_limit_deg) else f"limit {report.prior_limit_deg:.0f}"
    console.print(
        f"Matching: {report.candidates} candidate pairs, {report.verified} with two-view geometry, "
        f"{report.after_prior} near the rough poses (median {report.prior_disagreement_deg:.1f} degrees, {limit}), "
        f"{report.after_cycles} in agreement with each other; {report.matches} matches"
    )


def _require_matches(report: VerifyReport, views: Views) -> None:
    if report.matches:
        return
    if report.verified and not report.after_prior:
        problem = f"All {report.verified} matched pairs contradict the given poses"
        remedy = "Check the camera axes and that images and poses belong together (craym preflight names the mistake)."
    else:
        problem = f"No matches between the {len(views.names)} images ({report.candidates} pairs tried)"
        remedy = "Check focal length and masks, add overlapping images, or set --pipeline.start.matcher none."
    raise InputError(problem, views.paths[0].parent, remedy)
