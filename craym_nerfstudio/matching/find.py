"""Verified matches of all image pairs, from the cache where it has them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from craym_nerfstudio.console import console
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.matching.alignment import aligned
from craym_nerfstudio.matching.choose import (
    MANY_VIEWS,
    TEXTURED,
    GraphQuality,
    Matcher,
    first_choice,
    lack_of_images,
    make_detector,
    second_choice,
)
from craym_nerfstudio.matching.coarse_poses import coarse_poses
from craym_nerfstudio.matching.compute import all_features, all_pairs
from craym_nerfstudio.matching.detectors import MOST_TURNED_DEG, Detector
from craym_nerfstudio.matching.images import picture_keys
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.pairs import candidate_pairs, turned_at_most
from craym_nerfstudio.matching.verify import VerifyReport, verify
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.matching.workers import one_torch_thread
from craym_nerfstudio.storage import alone, content_key, from_cache, steady

_VERSION, _MATCHES_VERSION = 1, 6
_NEAR_DEG, _NEAR_NEIGHBOURS = 10.0, 12
"""Largest rotation of a pair beyond what a coarse volume says, whose poses are right to one degree or two; and partners
of an image: rough poses have to try more."""
_PROBES = np.array([[0.1, 0.1], [0.9, 0.1], [0.5, 0.5], [0.1, 0.9], [0.9, 0.9]])
"""Positions, in sizes of the image, whose bearings stand for the whole lens model in a cache key."""


def find_matches(
    views: Views, matcher: Matcher, cache_dir: Path, prior_angle_deg: float | None = 60.0, neighbours: int = 20
) -> Matches:
    """Verified matches between the images of `views`; a second call with the same content reads them from the cache.

    `prior_angle_deg` bounds how far a pair may rotate from what the rough poses say; None ignores them. `auto` turns to
    other means where SIFT's graph is thin: a learned matcher and, where masks isolate an object without texture or in
    many views, a coarse volume, whose poses the matches then carry. Finished features and pairs are kept in `cache_dir`
    when the run is interrupted.

    Raises:
        InputError: fewer than two images, an unreadable one, no matches at all, or a cache that cannot be written.
    """
    _check(views)
    with one_torch_thread():
        pairs = candidate_pairs(views, neighbours)
    every = len(views.names) * (len(views.names) - 1) // 2
    if len(pairs) < every:
        console.print(f"Matching: {len(pairs)} of {every} pairs are tried: the {neighbours} likeliest of each image")
    pictures = picture_keys(views)
    detector = chosen_detector(matcher, len(views.names), len(pairs))
    matches, report = _matched(views, detector, pairs, pictures, cache_dir, prior_angle_deg)
    if matcher != "auto" or detector.name != "sift":
        return _required(matches, report, views)
    features = all_features(views, detector, pictures, cache_dir)
    keypoints = float(np.mean([len(each.keypoints) for each in features]))
    quality = GraphQuality.of(matches)
    lack = quality.lack() or lack_of_images(len(views.names), keypoints, quality.matches)
    if lack is None:
        return _required(matches, report, views)
    near, also = views, ""
    may_tell = keypoints < TEXTURED or len(views.names) >= MANY_VIEWS
    coarse = coarse_poses(views, pictures, cache_dir) if may_tell else None
    if coarse is not None:
        near, prior_angle_deg = replace(views, c2w=coarse.c2w), min(prior_angle_deg or 180.0, _NEAR_DEG)
        also = ", verified by a coarse volume of the masked images"
    tried = len(turned_at_most(pairs, near.c2w, MOST_TURNED_DEG))
    second, reason = second_choice(len(views.names), tried, keypoints)
    if coarse is not None and coarse.explain:
        second, reason = detector, "the volume explains the images"
    elif coarse is not None and second is None:
        second = detector
    name = "sift" if second is None else second.name
    console.print(f"Matching: auto takes {name}{also}: sift's graph is thin ({lack}), and {reason}")
    if second is not None:
        if coarse is not None and second is not detector:
            with one_torch_thread():
                pairs = candidate_pairs(near, min(neighbours, _NEAR_NEIGHBOURS))
        matches, report = _matched(near, second, pairs, pictures, cache_dir, prior_angle_deg)
    matches = _required(matches, report, views)
    return matches if coarse is None else replace(matches, guess_c2w=coarse.c2w)


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
    if prior_angle_deg is not None and not detector.knows_turned:
        pairs = turned_at_most(pairs, rough, MOST_TURNED_DEG)
    lens = [views.bearings(index, _PROBES * views.size_px[index]) for index in range(len(views.names))]
    pairs_key = content_key(_VERSION, detector.settings, pictures, steady(np.stack(lens)), views.focal_px, pairs)
    needed = (detector.least_inliers, detector.least_share)
    key = content_key(pairs_key, _MATCHES_VERSION, views.names, steady(rough), prior_angle_deg, *needed)
    path = cache_dir / f"matches-{key}.npz"
    folder = cache_dir / f"pairs-{pairs_key}"
    with alone(folder):
        cached = from_cache(path, Matches.load)
        if cached is not None:
            console.print(f"Matching: {len(cached)} matches in {len(cached.pairs)} pairs (cached in {path})")
            return cached, None
        features = all_features(views, detector, pictures, cache_dir)
        keypoints = [f.keypoints for f in features]
        bearings = [np.asarray(views.bearings(k, each), dtype=np.float64) for k, each in enumerate(keypoints)]
        putative = all_pairs(views, detector, features, bearings, pairs, folder)
        with one_torch_thread():
            matches, report = verify(
                putative, views, keypoints, bearings, detector.name, prior_angle_deg, len(pairs), *needed
            )
        _say(report)
        if len(matches):
            matches, share = aligned(matches, views, detector.patch)
            console.print(f"Matching: {share:.0%} of the keypoints moved to where their pixels agree")
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


def _required(matches: Matches, report: VerifyReport | None, views: Views) -> Matches:
    """The matches; an error that says why there are none. Without a report they were cached."""
    if report is None or report.matches:
        return matches
    if report.verified and not report.after_prior:
        problem = f"All {report.verified} matched pairs contradict the given poses"
        remedy = "Check the camera axes and that images and poses belong together (craym preflight names the mistake)."
    else:
        problem = f"No matches between the {len(views.names)} images ({report.candidates} pairs tried)"
        remedy = "Check focal length and masks, add overlapping images, or set --pipeline.start.matcher none."
    raise InputError(problem, views.paths[0].parent, remedy)
