"""Pictures of camera poses before and after."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from craym_nerfstudio.data.reference import ReferencePoses
from craym_nerfstudio.geometry.alignment import align_poses
from craym_nerfstudio.storage import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_cameras(
    given_c2w: Float[np.ndarray, "cams 3 4"],
    refined_c2w: Float[np.ndarray, "cams 3 4"],
    reference: ReferencePoses | None,
    path: Path,
) -> None:
    """Write the plot of `camera_figure`."""
    figure = camera_figure(given_c2w, refined_c2w, None if reference is None else reference.train_c2w)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=80))


def camera_figure(
    given_c2w: Float[np.ndarray, "cams 3 4"],
    refined_c2w: Float[np.ndarray, "cams 3 4"],
    reference_c2w: Float[np.ndarray, "cams 3 4"] | None,
) -> "Figure":
    """Plot of the given and the refined cameras from above and from the side, the true ones in grey where known."""
    from matplotlib.figure import Figure

    given, refined = (torch.from_numpy(poses).double() for poses in (given_c2w, refined_c2w))
    truth = None if reference_c2w is None else torch.from_numpy(reference_c2w).double()
    target = refined if truth is None else truth
    figure = Figure(figsize=(11, 10), layout="constrained")
    for column, (label, poses) in enumerate((("given", given), ("refined", refined))):
        aligned = align_poses(poses, target).poses(poses)
        for row, (axes, view) in enumerate((([0, 1], "from above"), ([0, 2], "from the side"))):
            plot = figure.add_subplot(2, 2, 1 + column + 2 * row)
            if truth is not None:
                _draw(plot, truth.numpy(), axes, "0.6", "true")
                both = np.stack([truth[:, axes, 3].numpy(), aligned[:, axes, 3].numpy()])
                plot.plot(*both.transpose(2, 0, 1), color="tab:red", linewidth=0.6)
            _draw(plot, aligned.numpy(), axes, "tab:blue" if column else "tab:orange", label)
            plot.set_title(f"{label}, {view}")
            plot.set_aspect("equal")
            plot.legend(loc="upper right")
    return figure


def _draw(plot, poses: np.ndarray, axes: list[int], color: str, label: str) -> None:
    """Camera centres as dots with a short line in the viewing direction."""
    center, forward = poses[:, axes, 3], -poses[:, axes, 2]
    tip = center + 0.08 * float(np.ptp(poses[:, :, 3], axis=0).max() or 1.0) * forward
    plot.scatter(*center.T, s=8, color=color, label=label)
    plot.plot(*np.stack([center, tip]).transpose(2, 0, 1), color=color, linewidth=0.8)
