"""Which pose belongs to which image: found by comparing the given rotations with those that the images show."""

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from craym_nerfstudio.geometry.alignment import mean_rotation
from craym_nerfstudio.matching.rotation_averaging import average_rotations, chained_rotations
from craym_nerfstudio.preflight.hypotheses import Poses, pair_disagreement
from craym_nerfstudio.preflight.lens import Motions

MOST_IMAGES = 400
"""Beyond this the search, cubic in the images for each anchor, takes minutes."""
_CUT_DEG = 30.0
"""Rotations further apart than this are simply wrong: how far does not count."""
_ROUNDS = 4
_ALIKE_DEG = 12.0
"""Poses whose rotations are this near may have been mistaken for each other: their translations decide."""
_CUT_DIRECTION_DEG = 60.0
_SWEEPS = 3


def measured_rotations(
    cams: int, images: Int[np.ndarray, "pairs 2"], measured: Motions
) -> tuple[Float[np.ndarray, "cams 3 3"], Int[np.ndarray, " some"]]:
    """Camera-to-world rotations from relative ones alone, and the images of the largest group they hold for.

    The world is that of some first camera.
    """
    from craym_nerfstudio.sfm.ray_graph import connected

    known = np.isfinite(measured.rotation).all((1, 2))
    pairs = torch.from_numpy(images[known])
    relative = torch.from_numpy(measured.rotation[known])
    start = torch.eye(3, dtype=torch.float64).expand(cams, 3, 3)
    support = torch.from_numpy(np.round(100 * measured.explained[known]).astype(np.int64))
    chained = chained_rotations(start, pairs, relative, support)
    w2c = average_rotations(chained, pairs, relative, prior_sigma_deg=90.0)
    group = connected(images[known], cams)
    largest = np.flatnonzero(group == np.bincount(group).argmax())
    return w2c.transpose(-1, -2).numpy(), largest


def find_order(
    given: Float[np.ndarray, "cams 3 4"], images: Int[np.ndarray, "pairs 2"], measured: Motions
) -> Int[np.ndarray, " cams"] | None:
    """For every image the number of the image whose given pose it needs; None for too large or too loose sets.

    Tries every pose for one image, which fixes the frame, and assigns the others to minimise the angles.
    """
    cams = len(given)
    shown, group = measured_rotations(cams, images, measured)
    if cams > MOST_IMAGES or len(group) < max(4, cams // 2):
        return None
    rotations = given[:, :, :3]
    degree = np.bincount(images.ravel(), minlength=cams)
    anchor = int(group[degree[group].argmax()])
    trials = [_assigned(rotations, rotations[pose] @ shown[anchor].T @ shown[group]) for pose in range(cams)]
    best = min(trials, key=lambda trial: trial[1])[0]
    for _ in range(_ROUNDS):
        frame = _robust_mean(rotations[best] @ shown[group].transpose(0, 2, 1))
        best, _ = _assigned(rotations, frame @ shown[group])
    return refine_order(given, _completed(best, group, cams), images, measured)


def find_exchanged(
    given: Float[np.ndarray, "cams 3 4"],
    images: Int[np.ndarray, "pairs 2"],
    measured: Motions,
    doubtful: Int[np.ndarray, " some"],
) -> Int[np.ndarray, " cams"]:
    """As `find_order`, but only the doubtful images may exchange their poses; the others fix the frame."""
    shown, group = measured_rotations(len(given), images, measured)
    sure, moved = np.setdiff1d(group, doubtful), np.intersect1d(group, doubtful)
    source = np.arange(len(given))
    if len(sure) and len(moved) > 1:
        frame = _robust_mean(given[sure][:, :, :3] @ shown[sure].transpose(0, 2, 1))
        source[moved] = moved[_assigned(given[moved][:, :, :3], frame @ shown[moved])[0]]
    return source


def refine_order(
    given: Poses, source: Int[np.ndarray, " cams"], images: Int[np.ndarray, "pairs 2"], measured: Motions
) -> Int[np.ndarray, " cams"]:
    """Exchange alike poses between images wherever the motions of these images' pairs fit better."""
    source = source.copy()
    trace = np.einsum("iab,jab->ij", given[:, :, :3], given[:, :, :3])
    alike = (trace - 1) / 2 > np.cos(np.radians(_ALIKE_DEG))
    of_image = [np.flatnonzero((images == image).any(1)) for image in range(len(given))]
    for _ in range(_SWEEPS):
        before = source.copy()
        for i in range(len(given)):
            for j in range(i + 1, len(given)):
                if not alike[source[i], source[j]]:
                    continue
                swapped = source.copy()
                swapped[[i, j]] = source[[j, i]]
                rows = np.union1d(of_image[i], of_image[j])
                part = Motions(measured.rotation[rows], measured.translation[rows], measured.explained[rows])
                if _misfit(given[swapped], images[rows], part) < _misfit(given[source], images[rows], part):
                    source = swapped
        if (source == before).all():
            break
    return source


def _misfit(c2w: Poses, images: Int[np.ndarray, "pairs 2"], measured: Motions) -> float:
    turn, direction = pair_disagreement(c2w, images, measured)
    # Two cameras in one place must not be a way to fit any direction.
    cut = (turn / _CUT_DEG).clip(max=1) + np.nan_to_num(direction / _CUT_DIRECTION_DEG, nan=1.0).clip(max=1)
    return float(np.nansum(cut))


def _robust_mean(rotations: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "3 3"]:
    """Mean of those near the one that most others are near to."""
    trace = np.einsum("iab,jab->ij", rotations, rotations)
    near = (trace - 1) / 2 > np.cos(np.radians(_CUT_DEG))
    return mean_rotation(torch.from_numpy(rotations[near[near.sum(1).argmax()]])).numpy()


def _assigned(
    rotations: Float[np.ndarray, "cams 3 3"], shown: Float[np.ndarray, "some 3 3"]
) -> tuple[Int[np.ndarray, " some"], float]:
    """The pose of each shown image, in the same frame, that makes the sum of (cut) angles least; and that sum."""
    trace = np.einsum("iab,jab->ij", shown, rotations)
    angle = np.degrees(np.arccos(((trace - 1) / 2).clip(-1, 1))).clip(max=_CUT_DEG)
    row, column = linear_sum_assignment(angle)
    return column, float(angle[row, column].sum())


def _completed(
    source: Int[np.ndarray, " some"], group: Int[np.ndarray, " some"], cams: int
) -> Int[np.ndarray, " cams"]:
    """Images outside of the group take their own poses where these are free, then what is left."""
    complete = np.full(cams, -1)
    complete[group] = source
    free = sorted(set(range(cams)) - set(source.tolist()))
    for image in np.flatnonzero(complete < 0).tolist():
        complete[image] = image if image in free else free[0]
        free.remove(int(complete[image]))
    return complete
