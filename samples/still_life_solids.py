"""The still life: on a terrazzo board a tea box, a leaning ring, a ball, a painted peg, a book, a mug with a crayon."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from samples import artwork
from samples.primitives import Points, board, capsule, mug, round_cone, rounded_box, sphere, torus
from samples.prints import Texture, look_up
from samples.scene import Scene, Solid, enlarged, rotation_about
from samples.textures import Colours, Palette, cells, colour, fractal_noise, hashed, mix, noise, palette, voronoi

ENLARGEMENT = 1.16
"""The things were laid out in units of their own; by this factor they fill a camera's frame."""
BOARD_TOP = -0.36
BOX_TURN_DEG = 16.0
UP = (0.0, 0.0, 1.0)

MUG_RADIUS = 0.21
MUG_HEIGHT = artwork.MUG_WRAP[1]
MUG_WALL = 0.036
PEG_RADII = (0.165, 0.085)
PEG_HEIGHT = 0.36
CRAYON_HALF_LENGTH = 0.27

STONES = palette("#93402f", "#2f5a75", "#c98a35", "#3f6b42", "#262a3b", "#6d4a70", "#b8562f", "#4b3428")
BALL_COLOURS = palette("#d1495b", "#edae49", "#00798c", "#30638e", "#66a182", "#7d4f9e", "#e07a3f", "#2e294e")
RING_COLOURS = palette("#e4572e", "#17bebb", "#ffc914", "#2e282a", "#76b041", "#8e5aa8", "#f2a6a0", "#1f4e79")


def still_life() -> Scene:
    """The bundled scene, world z up, inside the ball of radius 1.26 around the origin."""
    turn = rotation_about(UP, BOX_TURN_DEG)
    box_centre = np.array([-0.40, 0.24, BOARD_TOP + 0.5 * artwork.BOX_SIZE[2]])
    book_top = BOARD_TOP + artwork.BOOK_SIZE[2]
    solids = (
        Solid("board", _board_shape, _terrazzo, centre=(0.0, 0.0, BOARD_TOP - 0.045)),
        Solid("tea box", _box_shape, _box_texture(), tuple(box_centre), turn),
        _leaning_ring(box_centre, turn),
        Solid(
            "book",
            _book_shape,
            _book_texture(),
            (0.37, 0.25, book_top - 0.5 * artwork.BOOK_SIZE[2]),
            rotation_about(UP, -24.0),
        ),
        Solid("mug", _mug_shape, _mug_texture(), (0.39, 0.29, book_top), rotation_about(UP, -38.0)),
        _crayon(np.array([0.39, 0.29, book_top])),
        Solid("ball", _ball_shape, _ball_texture, (0.13, -0.30, BOARD_TOP + 0.20), rotation_about((1, 2, 3), 70.0)),
        Solid("peg", _peg_shape, _peg_texture(), (0.60, -0.36, BOARD_TOP + PEG_RADII[0]), rotation_about(UP, 30.0)),
    )
    return Scene(tuple(enlarged(solid, ENLARGEMENT) for solid in solids), bound_radius=1.26)


def _leaning_ring(box_centre: Points, turn: Points) -> Solid:
    """A ring that stands on the board and leans against the front (-y side) of the box, touching both."""
    major, minor, lean = 0.21, 0.075, np.deg2rad(24.0)
    beside = np.array([-0.03, -0.5 * artwork.BOX_SIZE[1] - major * np.sin(lean) - minor, 0.0])
    centre = box_centre + turn @ beside
    centre[2] = BOARD_TOP + major * np.cos(lean) + minor
    # The ring's axis starts along z: tipped by 90 degrees it stands, by less it leans back towards the box (+y).
    rotation = turn @ rotation_about((1, 0, 0), 90.0 - np.rad2deg(lean)) @ rotation_about(UP, 40.0)
    return Solid("ring", lambda points: torus(points, major, minor), _ring_texture, tuple(centre), rotation)


def _crayon(mug_base: Points) -> Solid:
    """A thick crayon that stands in the mug, its foot in one corner, its shaft on the opposite rim."""
    radius, inner = 0.034, MUG_RADIUS - MUG_WALL
    foot = np.array([-(inner - radius), MUG_WALL + radius])
    rim = np.array([MUG_RADIUS - 0.5 * MUG_WALL, MUG_HEIGHT - 0.5 * MUG_WALL])
    # In the plane of the lean, the axis passes the rim's centre line at the sum of the two radii.
    reach = np.linalg.norm(rim - foot)
    angle = np.arctan2(*(rim - foot)[::-1]) + np.arcsin((radius + 0.5 * MUG_WALL) / reach)
    heading = rotation_about(UP, 205.0)
    axis = heading @ np.array([np.cos(angle), 0.0, np.sin(angle)])
    centre = mug_base + heading @ np.array([foot[0], 0.0, foot[1]]) + CRAYON_HALF_LENGTH * axis
    tilt = heading @ rotation_about((0, 1, 0), 90.0 - np.rad2deg(angle))
    return Solid(
        "crayon", lambda points: capsule(points, CRAYON_HALF_LENGTH, radius), _crayon_texture, tuple(centre), tilt
    )


def _board_shape(points: Points) -> Points:
    return board(points, (0.82, 0.68, 0.045), corner_radius=0.24, edge_radius=0.022)


def _box_shape(points: Points) -> Points:
    return rounded_box(points, tuple(0.5 * size for size in artwork.BOX_SIZE), 0.015)


def _book_shape(points: Points) -> Points:
    return rounded_box(points, tuple(0.5 * size for size in artwork.BOOK_SIZE), 0.02)


def _mug_shape(points: Points) -> Points:
    return mug(points, MUG_RADIUS, MUG_HEIGHT, MUG_WALL, handle=(0.115, 0.055))


def _ball_shape(points: Points) -> Points:
    return sphere(points, 0.20)


def _peg_shape(points: Points) -> Points:
    return round_cone(points, *PEG_RADII, PEG_HEIGHT)


def _terrazzo(points: Points) -> Colours:
    """Stone chips of three sizes in speckled cement."""
    base = mix(colour("#d6c6a4"), colour("#b8a688"), fractal_noise(points, 0.35, seed=20))
    base *= (0.88 + 0.24 * noise(points, 0.012, seed=24))[:, None]
    for size, cover, seed in ((0.15, 0.40, 23), (0.05, 0.60, 21), (0.085, 0.55, 22)):
        waves = np.stack([noise(points, 0.4 * size, seed + 31 * axis) for axis in range(3)], axis=-1) - 0.5
        nearest, second, owner = voronoi(points + 0.35 * size * waves, size, seed)
        chip = (hashed(owner, seed + 1) < cover) & (second - nearest > 0.16 * size)
        stone = STONES[(hashed(owner, seed + 2) * len(STONES)).astype(int)]
        stone = stone * (0.72 + 0.45 * fractal_noise(points, 0.25 * size, seed + 3, octaves=2))[:, None]
        base[chip] = stone[chip]
    return base


def _six_sides(
    size: tuple[float, float, float], sides: dict[str, Texture], other: Palette
) -> Callable[[Points], Colours]:
    """Texture of a box from pictures of its sides ("-y" is the front); sides without one get the colour ``other``.

    Seen from outside with z up, the pictures read from left to right; on top, the front is below.
    """
    half = 0.5 * np.asarray(size)

    def texture(points: Points) -> Colours:
        x, y, z = (points / size + 0.5).T
        views = {"-y": (x, 1 - z), "+y": (1 - x, 1 - z), "+x": (y, 1 - z), "-x": (1 - y, 1 - z), "+z": (x, 1 - y)}
        depth = np.abs(points) - half
        axis = depth.argmax(axis=-1)
        positive = points[np.arange(len(points)), axis] > 0.0
        colours = np.broadcast_to(other, points.shape).copy()
        for side, picture in sides.items():
            chosen = (axis == "xyz".index(side[1])) & (positive == (side[0] == "+"))
            u, v = views[side]
            colours[chosen] = look_up(picture, u[chosen], v[chosen])
        return colours

    return texture


def _box_texture() -> Callable[[Points], Colours]:
    sides = {
        "-y": artwork.box_front(),
        "+y": artwork.box_back(),
        "-x": artwork.box_side(left=True),
        "+x": artwork.box_side(left=False),
        "+z": artwork.box_top(),
    }
    return _six_sides(artwork.BOX_SIZE, sides, colour("#7a2436"))


def _book_texture() -> Callable[[Points], Colours]:
    width, depth, _ = artwork.BOOK_SIZE
    sides = {
        "+z": artwork.book_cover(),
        "-y": artwork.book_pages(width),
        "+y": artwork.book_spine(),
        "-x": artwork.book_pages(depth),
        "+x": artwork.book_pages(depth + 0.01),
    }
    return _six_sides(artwork.BOOK_SIZE, sides, colour("#274b7a"))


def _around(points: Points, picture: Texture, bottom: float, top: float) -> Colours:
    """A picture wrapped once around the z axis, reading from left to right from outside, between two heights."""
    turn = np.arctan2(points[:, 1], points[:, 0]) / (2.0 * np.pi) + 0.5
    return look_up(picture, turn, (top - points[:, 2]) / (top - bottom))


def _mug_texture() -> Callable[[Points], Colours]:
    picture = artwork.mug_wrap()
    glaze = palette("#d9c08f", "#6b4a3a", "#b5563e", "#3f6f73")
    bars = palette("#8c2f39", "#e8b765", "#24423f", "#d1495b", "#4f98b0")

    def texture(points: Points) -> Colours:
        radial = np.hypot(points[:, 0], points[:, 1])
        colours = _around(points, picture, 0.0, MUG_HEIGHT)
        inside = radial < MUG_RADIUS - 0.35 * MUG_WALL
        colours[inside] = cells(points[inside], 0.06, glaze, seed=40)
        handle = radial > MUG_RADIUS + 0.008
        lean = np.arctan2(points[:, 2] - 0.5 * MUG_HEIGHT, points[:, 0] - MUG_RADIUS)
        colours[handle] = _stripes(lean[handle] / np.pi + 0.5, 11, bars, seed=41)
        return colours

    return texture


def _stripes(along: Points, count: int, colours: Palette, seed: int) -> Colours:
    """Stripes of random widths, about ``count`` per unit of ``along``; neighbours always differ in colour."""
    random = np.random.default_rng(seed)
    widths = random.uniform(0.35, 1.65, 4 * count)
    edges = np.cumsum(widths) / count
    order = np.cumsum(random.integers(1, len(colours), 4 * count + 1)) % len(colours)
    return colours[order[np.searchsorted(edges, along)]]


def _ring_texture(points: Points) -> Colours:
    """Stripes of random widths that wind around the tube, sprinkled with flecks."""
    turn = np.arctan2(points[:, 1], points[:, 0]) / (2.0 * np.pi) + 0.5
    radial = np.hypot(points[:, 0], points[:, 1]) - 0.21
    twist = np.arctan2(points[:, 2], radial) / (2.0 * np.pi) + 0.5
    colours = _stripes(turn + 0.12 * np.abs(2.0 * twist - 1.0), 24, RING_COLOURS, seed=50)
    nearest, _, owner = voronoi(points, 0.055, seed=51)
    fleck = (nearest < 0.016) & (hashed(owner, 52) < 0.75)
    colours[fleck] = RING_COLOURS[(hashed(owner[fleck], 53) * len(RING_COLOURS)).astype(int)]
    return colours * (0.88 + 0.2 * noise(points, 0.03, seed=54))[:, None]


def _ball_texture(points: Points) -> Colours:
    """Irregular leather patches with dark seams, dots on some of them."""
    waves = np.stack([noise(points, 0.08, 60 + axis) for axis in range(3)], axis=-1) - 0.5
    nearest, second, owner = voronoi(points + 0.05 * waves, 0.15, seed=61)
    colours = BALL_COLOURS[(hashed(owner, 62) * len(BALL_COLOURS)).astype(int)]
    dot, _, dot_owner = voronoi(points, 0.05, seed=63)
    dotted = (dot < 0.017) & (hashed(owner, 64) < 0.7)
    colours[dotted] = BALL_COLOURS[(hashed(dot_owner[dotted], 65) * len(BALL_COLOURS)).astype(int)]
    colours[second - nearest < 0.010] = colour("#1d1a26")
    return colours * (0.85 + 0.25 * fractal_noise(points, 0.05, seed=66))[:, None]


def _peg_texture() -> Callable[[Points], Colours]:
    picture = artwork.peg_wrap()
    return lambda points: _around(points, picture, -PEG_RADII[0], PEG_HEIGHT + PEG_RADII[1])


def _crayon_texture(points: Points) -> Colours:
    """Paper sleeve in bands of random widths, a worn waxy tip."""
    along = (points[:, 2] + CRAYON_HALF_LENGTH + 0.05) / (2.0 * CRAYON_HALF_LENGTH + 0.1)
    bands = palette("#d1495b", "#f2c14e", "#2b2d42", "#76b041", "#e07a3f")
    colours = _stripes(along, 13, bands, seed=70)
    return colours * (0.8 + 0.3 * noise(points, 0.02, seed=71))[:, None]
