"""Figures of the report: the cameras before and after, and what every camera's matches are off."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from craym_nerfstudio.geometry.alignment import align_poses

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_LABELS = 80
_FLOOR_PX = 0.05
_SHOWN_UP_TO_PX = 10.0
"""The axis reaches at least this far, so that small distances look small."""


def camera_figure(
    given: Float[np.ndarray, "cams 3 4"],
    adjusted: Float[np.ndarray, "cams 3 4"],
    suspicious: Collection[int],
    names: list[str],
    sphere: tuple[Float[np.ndarray, "3"], float] | None = None,
) -> "Figure":
    """Given and adjusted cameras in two planes; suspicious ones red and, where they are few, named.

    A `sphere` (centre, radius), in the frame of the adjusted ones, is drawn around these.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    source, target = (torch.from_numpy(np.ascontiguousarray(p, dtype=np.float64)) for p in (given, adjusted))
    aligned = align_poses(source, target, robust=True).poses(source).numpy()
    center = np.median(adjusted[:, :, 3], axis=0)
    axes = np.linalg.svd(adjusted[:, :, 3] - center)[2]
    figure = Figure(figsize=(12, 10), layout="constrained")
    red = sorted(suspicious)
    for column, (label, poses) in enumerate((("as given", aligned), ("after repair and stage 0", adjusted))):
        for row, (across, up, plane) in enumerate(((0, 1, "their main plane"), (0, 2, "across it"))):
            before = figure.axes[row] if column else None
            plot = figure.add_subplot(2, 2, 1 + column + 2 * row, sharex=before, sharey=before)
            flat = np.stack([axes[across], axes[up]])
            _draw(plot, (poses[:, :, 3] - center) @ flat.T, -poses[:, :, 2] @ flat.T, red, names)
            if sphere is not None and column == 1:
                place = flat @ (sphere[0] - center)
                plot.add_patch(Circle((place[0], place[1]), sphere[1], fill=False, color="tab:green"))
            plot.set_title(f"{label}, {plane}")
    return figure


def _draw(plot: Any, xy: np.ndarray, forward: np.ndarray, red: list[int], names: list[str]) -> None:
    """Positions as dots with a short line in the viewing direction."""
    length = 0.07 * float(np.ptp(xy, axis=0).max() or 1.0)
    tip = xy + length * forward
    for chosen, color in ((np.setdiff1d(np.arange(len(xy)), red), "tab:blue"), (np.array(red, int), "tab:red")):
        plot.plot(*np.stack([xy[chosen], tip[chosen]]).transpose(2, 0, 1), color=color, linewidth=1.0)
        plot.scatter(*xy[chosen].T, s=14, color=color)
    for k in red if len(red) <= 12 else []:
        plot.annotate(names[k], xy[k], fontsize=8, color="tab:red", xytext=(4, 4), textcoords="offset points")
    plot.set_aspect("equal", adjustable="box")
    plot.grid(alpha=0.3)


def residual_figure(
    given_px: Float[np.ndarray, " cams"], adjusted_px: Float[np.ndarray, " cams"], names: list[str]
) -> "Figure":
    """Median epipolar distance of every camera on a logarithmic scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    plot = figure.add_subplot()
    at = np.arange(len(names))
    for values, color, size, label in (
        (given_px, "tab:orange", 30, "as given"),
        (adjusted_px, "tab:blue", 8, "after repair and stage 0"),
    ):
        plot.scatter(at, np.maximum(values, _FLOOR_PX), s=size, color=color, label=label)
    plot.set_yscale("log")
    highest = np.nanmax(np.concatenate([given_px, adjusted_px, [_SHOWN_UP_TO_PX]]))
    plot.set_ylim(0.8 * _FLOOR_PX, 2 * highest)
    plot.yaxis.set_major_formatter("{x:g}")
    plot.set_ylabel("median epipolar distance, px")
    plot.set_xlim(-0.7, len(names) - 0.3)
    shown = at[:: max(1, -(-len(at) // _MOST_LABELS))]
    plot.set_xticks(shown, [names[k].rsplit("/", 1)[-1] for k in shown], rotation=90, fontsize=7)
    plot.grid(alpha=0.3, axis="y")
    plot.legend(loc="upper right")
    return figure
