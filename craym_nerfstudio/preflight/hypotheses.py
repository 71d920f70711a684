"""What may be wrong with given poses as a whole, and how well each guess explains the motions that images show.

The relative motions of pairs are measured without the poses. A guess repairs the poses; the motions it then predicts
are compared with the measured ones. What only moves the world as a whole changes no motion, and is no mistake.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from craym_nerfstudio.geometry.axes import flip_pose_axes
from craym_nerfstudio.geometry.epipolar import relative_pose
from craym_nerfstudio.geometry.lie import inverse, rotation_angle_deg
from craym_nerfstudio.preflight.lens import Motions

Poses = Float[np.ndarray, "cams 3 4"]

OPENCV = flip_pose_axes(np.eye(3, 4))[:, :3]
_TRANSLATION_WEIGHT = 0.3
"""Directions of translation are several times less certain than rotations."""
_LONGEST_SHIFT = 3


@dataclass(frozen=True)
class Disagreement:
    """Medians over pairs between predicted and measured motions."""

    rotation_deg: float
    translation_deg: float

    @property
    def total_deg(self) -> float:
        """One figure to compare guesses by."""
        return self.rotation_deg + _TRANSLATION_WEIGHT * self.translation_deg


@dataclass(frozen=True)
class Guess:
    """One mistake: its short name, what to tell the user, and the repair."""

    kind: str
    problem: str
    remedy: str
    repair: Callable[[Poses], Poses]


def pair_disagreement(
    c2w: Poses, images: Int[np.ndarray, "pairs 2"], measured: Motions
) -> tuple[Float[np.ndarray, " pairs"], Float[np.ndarray, " pairs"]]:
    """Angles in degrees between predicted and measured rotations, and translation directions.

    NaN where nothing was measured, and for directions where the poses have no baseline: they predict none.
    """
    poses = torch.from_numpy(np.ascontiguousarray(c2w, dtype=np.float64))
    predicted = relative_pose(poses[images[:, 0]], poses[images[:, 1]])
    known = np.isfinite(measured.rotation).all((1, 2))
    rotation = np.where(known[:, None, None], measured.rotation, np.eye(3))
    turn = rotation_angle_deg(predicted[..., :3] @ torch.from_numpy(rotation).transpose(-1, -2)).numpy()
    direction = torch.nn.functional.normalize(predicted[..., 3], dim=-1).numpy()
    cosine = (direction * measured.translation).sum(-1).clip(-1, 1)
    known_direction = np.linalg.norm(direction, axis=-1) > 0.5
    return np.where(known, turn, np.nan), np.where(known_direction, np.degrees(np.arccos(cosine)), np.nan)


def disagreement(c2w: Poses, images: Int[np.ndarray, "pairs 2"], measured: Motions) -> Disagreement:
    """Medians over all pairs; 180 degrees without any, and by rotation alone where no pair has a baseline."""
    turn, direction = pair_disagreement(c2w, images, measured)
    if not np.isfinite(turn).any():
        return Disagreement(180.0, 180.0)
    shift_deg = float(np.nanmedian(direction)) if np.isfinite(direction).any() else 0.0
    return Disagreement(float(np.nanmedian(turn)), shift_deg)


def turned_axes(c2w: Poses, axes: Float[np.ndarray, "3 3"]) -> Poses:
    """Poses whose camera axes are replaced by their combinations in the columns of `axes`."""
    return np.concatenate([c2w[:, :, :3] @ axes, c2w[:, :, 3:]], axis=-1)


def inverted(c2w: Poses) -> Poses:
    """World-to-camera from camera-to-world, or back."""
    return inverse(torch.from_numpy(np.ascontiguousarray(c2w, dtype=np.float64))).numpy()


def quarter_turn(count: int) -> Float[np.ndarray, "3 3"]:
    """Counter-clockwise turn about the viewing axis (z backward) by `count` times 90 degrees."""
    cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][count % 4]
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], dtype=np.float64)


def pose_guesses(names: list[str]) -> list[Guess]:
    """Guesses on conventions and on the order of the poses, the most usual first."""
    return [*_inverse_guesses(), *_axis_guesses(), *_order_guesses(names)]


def _inverse_guesses() -> list[Guess]:
    both = "Invert every matrix, then multiply its second and third column by -1."
    return [
        Guess(
            "w2c",
            "The matrices are world-to-camera (w2c, extrinsics) where camera-to-world is expected",
            "Invert every 4x4 matrix: the last column must be the camera's position.",
            inverted,
        ),
        Guess(
            "w2c-opencv-axes",
            "The matrices are world-to-camera (w2c) with OpenCV camera axes, as COLMAP writes them",
            both,
            lambda c2w: turned_axes(inverted(c2w), OPENCV),
        ),
    ]


def _axis_guesses() -> list[Guess]:
    guesses = [
        Guess(
            "opencv-axes",
            "The poses use OpenCV camera axes (y down, z forward) where OpenGL axes (y up, z backward) are expected",
            "Multiply the second and third column of every matrix's rotation by -1.",
            lambda c2w: turned_axes(c2w, OPENCV),
        )
    ]
    guesses += [rotated_images_guess(turns) for turns in (1, 2, 3)]
    known = [OPENCV, *(quarter_turn(turns) for turns in range(4))]
    # The rotations that exchange and flip axes.
    for axes in np.round(Rotation.create_group("O").as_matrix()):
        if any(np.allclose(axes, other) for other in known):
            continue
        columns = ", ".join(_column(axes[:, k]) for k in range(3))
        guesses.append(
            Guess(
                "other-axes",
                "The camera axes of the poses are others than OpenGL's (x right, y up, z backward)",
                f"Replace the first three columns of every matrix by: {columns}.",
                lambda c2w, axes=axes: turned_axes(c2w, axes),
            )
        )
    return guesses


def _column(combination: Float[np.ndarray, " 3"]) -> str:
    number = int(np.abs(combination).argmax())
    return f"{'-' if combination[number] < 0 else ''}column {number + 1}"


def rotated_images_guess(turns: int) -> Guess:
    """All image files are turned clockwise by `turns` times 90 degrees against their poses."""
    return Guess(
        "rotated-images",
        f"The image files are rotated by {90 * turns} degrees clockwise against their poses",
        f"Rotate the images by {90 * turns} degrees counter-clockwise (and their intrinsics, where these describe the "
        "rotated files).",
        # The camera that made the file was turned the other way than its picture.
        lambda c2w: turned_axes(c2w, quarter_turn(turns)),
    )


def _order_guesses(names: list[str]) -> list[Guess]:
    count = len(names)
    guesses = []
    for shift in (s for step in range(1, _LONGEST_SHIFT + 1) for s in (step, -step)):
        word = "later" if shift > 0 else "earlier"
        guesses.append(
            _order_guess(
                (np.arange(count) + shift) % count,
                f"Images and poses are shifted: every image's pose stands with the image {abs(shift)} {word}",
            )
        )
    guesses.append(_order_guess(np.arange(count)[::-1], "Images and poses run in opposite orders"))
    lexicographic = np.array(sorted(range(count), key=lambda k: names[k]))
    natural = np.array(sorted(range(count), key=lambda k: _natural_key(names[k])))
    for one, other in ((lexicographic, natural), (natural, lexicographic)):
        source = np.empty(count, dtype=int)
        source[one] = other
        if (source != np.arange(count)).any():
            text = "Poses were numbered in another order than images: 1, 10, 2 (as text) against 1, 2, 10 (as numbers)"
            guesses.append(_order_guess(source, text))
    return guesses


def _order_guess(source: Int[np.ndarray, " cams"], problem: str) -> Guess:
    remedy = "Give every image its own pose: the report lists which pose each image seems to need."
    return Guess("out-of-order", problem, remedy, lambda c2w: c2w[source])


def _natural_key(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]
