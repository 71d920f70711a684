"""Checks of poses and image files that every layout goes through."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from craym_nerfstudio.console import warn
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.images import ImageHeader, read_header

_EXACT, _ROUNDED = 1e-3, 2e-2
"""Deviations of a rotation's singular values that many and that two decimals explain; more is refused."""


def checked_poses(
    matrices: Sequence[Float[np.ndarray, "rows 4"]], wheres: Sequence[str], source: Path
) -> Float[np.ndarray, "cams 3 4"]:
    """Camera-to-world matrices as float64 with exactly orthonormal rotations; the text of each names its image.

    Rotations are repaired when they deviate as rounded decimals do, or when all carry one scale; either is said.

    Raises:
        InputError: NaN or infinite values, a wrong last row, a singular, scaled, mirrored or sheared rotation.
    """
    known = [k for k, matrix in enumerate(matrices) if np.isfinite(matrix).all() and matrix[:3, :3].any()]
    if len(known) < len(matrices):
        lost = [k for k in range(len(matrices)) if k not in set(known)]
        kind = "Singular rotation (all zeros)" if np.isfinite(matrices[lost[0]]).all() else "NaN or infinite value"
        raise InputError(
            f"{kind} in the pose of {', '.join(wheres[k] for k in lost[:20])}{', ...' if len(lost) > 20 else ''} "
            f"({len(lost)} of {len(matrices)} images have no pose)",
            source,
            "Tracking was lost there, or no pose was written: remove these images from the list.",
        )
    scales = np.linalg.svd(np.stack([matrix[:3, :3] for matrix in matrices]), compute_uv=False)
    scale = float(np.median(scales))
    if abs(scale - 1) <= _ROUNDED or scales.max() - scales.min() > _EXACT * scale:
        scale = 1.0
    else:
        warn(f"All rotations in {source} carry one scale, {scale:.6g}, which is divided out.")
    coarse = int((np.abs(scales / scale - 1).max(-1) > _EXACT).sum())
    poses = np.stack([_checked_pose(m, scale, where, source) for m, where in zip(matrices, wheres, strict=True)])
    if coarse:
        warn(f"{coarse} of {len(poses)} rotations in {source} are coarsely rounded and were repaired.")
    return poses


def _checked_pose(
    matrix: Float[np.ndarray, "rows 4"], common_scale: float, where: str, source: Path
) -> Float[np.ndarray, "3 4"]:
    def fail(problem: str, remedy: str) -> InputError:
        return InputError(f"{problem} in the pose of {where}", source, remedy)

    if len(matrix) == 4 and not np.allclose(matrix[3], [0, 0, 0, 1], atol=1e-6):
        raise fail(
            f"Last row is {matrix[3].tolist()} instead of [0, 0, 0, 1]", "Poses are camera-to-world, translation last."
        )
    linear = matrix[:3, :3] / common_scale
    scales = np.linalg.svd(linear, compute_uv=False)
    if scales[2] < 1e-6 * scales[0]:
        raise fail("Singular rotation", "Give that image a valid pose or remove it.")
    scale = float(scales.mean())
    if scales[0] - scales[2] > 2 * _ROUNDED * scale:
        raise fail(
            f"Rotation is not orthonormal (its columns deviate by {scales[0] / scales[2] - 1:.2g})",
            "The upper left 3x3 block must be a rotation: no shear, no different scales of the axes.",
        )
    if abs(scale - 1) > _ROUNDED:
        raise fail(
            f"Rotation carries a uniform scale of {scale:.4g}", f"Divide its upper left 3x3 block by {scale:.6g}."
        )
    if np.linalg.det(linear) < 0:
        raise fail("Mirrored (left-handed) rotation", "Flip one camera axis; axes are x right, y up, z backward.")
    left, _, right = np.linalg.svd(linear)
    return np.concatenate([left @ right, matrix[:3, 3:]], axis=1)


def checked_sizes(
    declared: list[tuple[int, int]], headers: list[ImageHeader], paths: list[Path], source: Path
) -> list[tuple[int, int]]:
    """Sizes in pixels of image files, which have the shape of those declared beside their intrinsics.

    Raises:
        InputError: an image of another shape.
    """
    scaled = []
    for size, header, path in zip(declared, headers, paths, strict=True):
        if not _same_shape(size, header.size_px):
            problem = "Image of {} x {} px where {} says {} x {}".format(*header.size_px, source, *size)
            if header.is_turned_by_exif and size == header.size_px[::-1]:
                remedy = "The file is turned by its EXIF orientation only: save it with the pixels turned."
            else:
                remedy = "Give the images the shape that their intrinsics (fl_x, cx, w, h...) refer to."
            raise InputError(problem, path, remedy)
        if size != header.size_px:
            scaled.append((size, header.size_px, path))
    if scaled:
        size, found, path = scaled[0]
        warn(
            f"{len(scaled)} of {len(paths)} images have another size than {source} says ({path.name}: "
            f"{found[0]} x {found[1]} px, not {size[0]} x {size[1]}): their intrinsics are scaled to it."
        )
    return [header.size_px for header in headers]


def _same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Equal aspect ratios, but for sides of the smaller that were rounded to whole pixels."""
    (width, height), (large_width, large_height) = sorted((one, other))
    off_px = (width - large_width * height / large_height, height - large_height * width / large_width)
    return max(map(abs, off_px)) <= 1


def check_masks(mask_paths: Sequence[Path | None], size_px: Sequence[tuple[int, int]]) -> None:
    """Masks can be opened and have the shape of their images."""
    for path, size in zip(mask_paths, size_px, strict=True):
        if path is not None and not _same_shape(size, found := read_header(path).size_px):
            problem = "Mask of {} x {} px for an image of {} x {}".format(*found, *size)
            raise InputError(problem, path, "Give the mask the shape of its image.")
