"""Photos in, a COLMAP model in the cache out: features, pairs, matches, mappers; and what could not be placed."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from craym_nerfstudio.console import console, track
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.images import load_image
from craym_nerfstudio.matching.compute import all_features
from craym_nerfstudio.matching.detectors import Detector
from craym_nerfstudio.matching.find import Matcher, chosen_detector
from craym_nerfstudio.matching.images import picture_keys
from craym_nerfstudio.matching.verify import MIN_INLIERS, threshold_px
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.photos.files import Photos, listed
from craym_nerfstudio.photos.look_alikes import pairs_without_poses, planned_pairs
from craym_nerfstudio.photos.mappers import PhotoCamera, Problem
from craym_nerfstudio.photos.pair_matches import PairMatches, match_pairs
from craym_nerfstudio.photos.solve import Solution, solve
from craym_nerfstudio.photos.upright import stand_upright
from craym_nerfstudio.sfm.reconstruction import write_model
from craym_nerfstudio.stops import load_pycolmap
from craym_nerfstudio.storage import alone, content_key, from_cache, write_folder, write_json

_VERSION = 2
_REPORT_NAME = "photos.json"
_LEAST_PLACED = 0.2
"""Share of the photos under which what was placed is chance, or not what was meant."""
_LEAST_CONSISTENT = 0.85
_FEW_PARTNERS = 10
"""Less than this share of the matches between placed photos in agreement with the poses is a sign of look-alike sides.
Photos with many partners outvote them (100 of a chair: 15 % contradict, the poses are right); with few partners the
whole may be folded (20 of a Lego model: 20 %)."""


def place_photos(
    photos: Photos, mask_paths: list[Path | None] | None, matcher: Matcher, cache_dir: Path
) -> tuple[Path, dict[str, str]]:
    """Folder of a COLMAP model (binary) of the photos, in the pixels of their files; found once for the same photos.

    The world's +z is up as the cameras stand on average; its unit is the median distance of a camera from their middle
    and says nothing of metres. Beside it the photos that could not be placed, and why.

    Raises:
        InputError: photos that show nothing in common, or too few of them to be placed; a missing package; an
            unreadable image; a cache that cannot be written.
    """
    views = _views(photos, mask_paths)
    detector = chosen_detector(matcher, len(photos.names), planned_pairs(len(photos.names)))
    pictures = picture_keys(views)
    key = content_key(_VERSION, detector.settings, photos.names, pictures, photos.lenses)
    folder = cache_dir / f"photos-{key}"
    with alone(folder):
        report = from_cache(folder / _REPORT_NAME, _found_before)
        if report is None:
            for path in track(photos.paths, "Checking photos"):
                # A file that breaks off would else be found after minutes.
                load_image(path)
            problem = _matched(photos, views, detector, pictures, cache_dir, key)
            with console.status(f"Photos: placing {len(photos.names)} photos"):
                solution = solve(problem, threshold_px(views))
            solution = _checked(photos, problem.matches, solution)
            write_folder(folder, lambda place: _write(place, photos, problem, solution))
            report = json.loads((folder / _REPORT_NAME).read_text())
    for line in report["lines"]:
        console.print(line)
    console.print(f"Photos: model in {folder}")
    return folder / "sparse" / "0", report["missing"]


def _found_before(path: Path) -> dict[str, Any]:
    """The report on photos that were placed before, if the model beside it can still be read."""
    model = path.parent / "sparse" / "0"
    try:
        load_pycolmap().Reconstruction().read_binary(str(model))
    except (RuntimeError, IndexError) as error:
        raise InputError("Damaged COLMAP model", model) from error
    return json.loads(path.read_text())


def _views(photos: Photos, mask_paths: list[Path | None] | None) -> Views:
    """The photos as matching sees them, but for poses and lens, which nothing here asks for."""

    def bearings(image: int, keypoints: np.ndarray) -> np.ndarray:
        raise NotImplementedError("photos have no known lens")

    count, size = len(photos.names), photos.size_px
    ratio = size[:, 0] / np.array([lens.size_px[0] for lens in photos.lenses])
    focal = np.array([lens.focal_px for lens in photos.lenses]) * ratio
    return Views(photos.names, photos.paths, mask_paths, np.tile(np.eye(3, 4), (count, 1, 1)), focal, size, bearings)


def _matched(
    photos: Photos, views: Views, detector: Detector, pictures: list[str], cache_dir: Path, key: str
) -> Problem:
    features = all_features(views, detector, pictures, cache_dir)
    pairs = pairs_without_poses(features)
    matches = match_pairs(detector, features, pairs, threshold_px(views), cache_dir / f"photo-pairs-{key}")
    every = len(photos.names) * (len(photos.names) - 1) // 2
    if len(pairs) < every:
        console.print(f"Photos: {len(pairs)} of {every} pairs are tried: neighbours in file order, and look-alikes")
    console.print(f"Photos: {len(matches.pairs)} of {len(pairs)} pairs match, {len(matches.keypoint_ids)} matches")
    kinds: dict[tuple, int] = {}
    cameras: list[PhotoCamera] = []
    camera_of = []
    for lens, focal_px, size in zip(photos.lenses, views.focal_px.tolist(), views.size_px.tolist(), strict=True):
        kind = (lens.size_px, lens.kind)
        if kind not in kinds:
            kinds[kind] = len(cameras)
            cameras.append(PhotoCamera.of((size[0], size[1]), focal_px, lens.is_known))
        camera_of.append(kinds[kind])
    return Problem(photos.names, cameras, np.array(camera_of), [each.keypoints for each in features], matches)


def _checked(photos: Photos, matches: PairMatches, solution: Solution | None) -> Solution:
    count = len(photos.names)
    if len(matches.pairs) == 0:
        raise InputError(
            f"No two of the {count} photos show the same thing", photos.folder,
            "Take photos that overlap: each should show more than half of what the one before shows.",
        )  # fmt: skip
    placed = 0 if solution is None else len(solution.placed)
    if solution is None or placed < max(min(3, count), _LEAST_PLACED * count):
        raise InputError(
            f"Only {placed} of {count} photos could be placed ({len(matches.pairs)} pairs match)", photos.folder,
            "Add photos between those that are there, a few degrees apart, of a textured scene that stands still.",
        )  # fmt: skip
    partners = np.median(np.bincount(matches.pairs.ravel(), minlength=count))
    if solution.consistent < _LEAST_CONSISTENT and partners < _FEW_PARTNERS:
        raise InputError(
            f"{1 - solution.consistent:.0%} of the matches between the {placed} photos contradict each other",
            photos.folder,
            "Sides that look alike were probably taken for each other: add photos between distant ones, or give poses.",
        )
    return solution


def _write(folder: Path, photos: Photos, problem: Problem, solution: Solution) -> None:
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    reconstruction = solution.reconstruction
    stand_upright(reconstruction, [lens.orientation for lens in photos.lenses])
    _to_file_pixels(reconstruction, photos)
    write_model(reconstruction, model)
    missing = missing_photos(len(photos.names), problem.matches, solution)
    content = {
        "placed": len(solution.placed),
        "photos": len(photos.names),
        "explained": round(solution.explained, 4),
        "missing": {photos.names[photo]: reason for photo, reason in missing.items()},
        "lines": _lines(photos, reconstruction, solution, missing),
    }
    write_json(folder / _REPORT_NAME, content)


def _to_file_pixels(reconstruction: Any, photos: Photos) -> None:
    """Cameras and keypoints from the size that was matched to that of the files (in place)."""
    ratio = {}
    for number in reconstruction.images:
        image = reconstruction.images[number]
        width = photos.lenses[number - 1].size_px[0]
        ratio[image.camera_id] = (photos.lenses[number - 1].size_px, width / image.camera.width)
    for image in reconstruction.images.values():
        for point in image.points2D:
            point.xy = point.xy * ratio[image.camera_id][1]
    for number, ((width, height), _) in ratio.items():
        reconstruction.cameras[number].rescale(width, height)


def missing_photos(count: int, matches: PairMatches, solution: Solution) -> dict[int, str]:
    """Photos that could not be placed, and why."""
    placed = set(solution.placed.tolist())
    elsewhere = {int(photo) for part in solution.others for photo in part} - placed
    partners = np.bincount(matches.pairs.ravel(), minlength=count)
    reasons = {}
    for photo in range(count):
        if photo in elsewhere:
            reasons[photo] = "belongs to a part without connection to the rest"
        elif photo not in placed and partners[photo] == 0:
            reasons[photo] = f"fewer than {MIN_INLIERS} matches with any other photo"
        elif photo not in placed:
            reasons[photo] = "its matches contradict those of the others"
    return reasons


def _lines(photos: Photos, reconstruction: Any, solution: Solution, missing: dict[int, str]) -> list[str]:
    """What was found, in words."""
    focal = ", ".join(f"{camera.mean_focal_length():.0f} px" for camera in reconstruction.cameras.values())
    lines = [
        f"Photos: {len(solution.placed)} of {len(photos.names)} placed, focal length {focal}, "
        f"{solution.explained:.0%} of all matches explained; the unit of length is arbitrary"
    ]
    if solution.consistent < _LEAST_CONSISTENT:
        share = f"{1 - solution.consistent:.0%}"
        lines.append(f"Photos: {share} of the matches contradict the others and were left out: sides that look alike")
    for reason in dict.fromkeys(missing.values()):
        names = [photos.names[photo] for photo, why in missing.items() if why == reason]
        lines.append(f"Photos: not placed: {listed(names)} ({reason})")
    if solution.others:
        sizes = ", ".join(str(len(part)) for part in solution.others)
        lines.append(
            f"Photos: they fall into parts of {len(solution.placed)} (used), {sizes} without connection: "
            "photos between these parts would join them"
        )
    return lines
