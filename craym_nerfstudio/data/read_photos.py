"""Reads what has no poses: a folder of photos or a video, placed by their matches and cached as a COLMAP model."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from craym_nerfstudio.console import console
from craym_nerfstudio.data.frames import Frames
from craym_nerfstudio.data.masks import find_masks
from craym_nerfstudio.data.read_colmap import read_colmap
from craym_nerfstudio.matching.find import Matcher
from craym_nerfstudio.photos.files import Photos, image_folder, read_photos
from craym_nerfstudio.photos.georeference import FEWEST, georeference, sigmas
from craym_nerfstudio.photos.place import place_photos
from craym_nerfstudio.photos.positions import Positions, find_positions
from craym_nerfstudio.photos.video import VIDEO_SUFFIXES, video_frames

CACHE = Path("outputs/cache")
"""Where matches are kept, too, unless told otherwise."""


def is_photos(data: Path) -> bool:
    """Whether this is a video, or a folder with photos in it or in its `images/`."""
    if data.is_file():
        return data.suffix.lower() in VIDEO_SUFFIXES
    return image_folder(data) is not None


def read_unposed(data: Path, matcher: Matcher = "auto", cache_dir: Path = CACHE) -> Frames:
    """The photos, or the chosen frames of the video, that could be placed; masks of photos lie in `masks/`.

    Raises:
        InputError: fewer than two photos, unreadable ones, or photos that cannot be placed; a missing package.
    """
    folder = video_frames(data, cache_dir) if data.is_file() else image_folder(data)
    assert folder is not None, "call is_photos first"
    photos = read_photos(folder)
    # A wrong table is refused before the photos are matched.
    positions = None if data.is_file() else find_positions(photos, data)
    masks = None if data.is_file() else find_masks(data, photos.paths)[1]
    model, not_placed = place_photos(photos, masks, matcher, cache_dir)
    frames = replace(read_colmap(data, model, folder), is_placed=True, left_out=not_placed)
    return frames if positions is None else _located(frames, photos, positions)


def _located(frames: Frames, photos: Photos, positions: Positions) -> Frames:
    """In the frame and units of measured positions, where these agree with the cameras."""
    chosen = np.array([photos.names.index(name) for name in frames.names])
    points = positions.points[chosen]
    known = int((~np.isnan(points).any(1)).sum())
    count = f"{known} of {len(frames)} cameras have a position ({positions.source})"
    found = georeference(frames.c2w, points)
    if found is None:
        coarse = "they do not lie as the cameras do, or are too coarse for so small a scene"
        reason = f"too few, {FEWEST} are needed" if known < FEWEST else coarse
        console.print(f"Photos: {count}, not used: {reason}")
        return frames
    console.print(
        f"Photos: {count}, {found.error:.3g} off in each direction, which fixes the scale to {found.scale_error:.2%}; "
        f"coordinates are {positions.frame}",
    )
    sigma = sigmas(positions, found.error, chosen)
    return replace(frames, c2w=found.similarity.poses(frames.c2w), pose_sigma=sigma, measured_centers=points)
