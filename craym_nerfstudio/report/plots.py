"""The figures of a report."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from craym_nerfstudio.data.reference import ReferencePoses
from craym_nerfstudio.geometry.alignment import align_poses, pose_errors
from craym_nerfstudio.report.record import RunRecord
from craym_nerfstudio.report.runs import Curve
from craym_nerfstudio.sfm.result import StageZero
from craym_nerfstudio.storage import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BEFORE, _AFTER = "tab:orange", "tab:blue"
_SMOOTHED_OVER = 50
"""Parts of a curve that are averaged each."""


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
    """Plot of the given and the refined cameras along two axes of their frame, the true ones in grey where known.

    Not "from above": data need not have z for up, and what cameras take for up is no help for photos of the ground.
    """
    from matplotlib.figure import Figure

    given, refined = (torch.from_numpy(poses).double() for poses in (given_c2w, refined_c2w))
    truth = None if reference_c2w is None else torch.from_numpy(reference_c2w).double()
    target = refined if truth is None else truth
    figure = Figure(figsize=(11, 10), layout="constrained")
    shown = [align_poses(poses, target).poses(poses)[..., 3] for poses in (given, refined)]
    everything = torch.cat([*shown, target[..., 3]])
    for column, (label, poses) in enumerate((("given", given), ("refined", refined))):
        aligned = align_poses(poses, target).poses(poses)
        for row, axes in enumerate(([0, 1], [0, 2])):
            plot = figure.add_subplot(2, 2, 1 + column + 2 * row)
            if truth is not None:
                _draw(plot, truth.numpy(), axes, "0.6", "true")
                both = np.stack([truth[:, axes, 3].numpy(), aligned[:, axes, 3].numpy()])
                plot.plot(*both.transpose(2, 0, 1), color="tab:red", linewidth=0.6)
            _draw(plot, aligned.numpy(), axes, "tab:blue" if column else "tab:orange", label)
            plot.set_title(label)
            plot.set_xlabel("xyz"[axes[0]])
            plot.set_ylabel("xyz"[axes[1]], rotation=0)
            _frame(plot, everything[:, axes].numpy())
            plot.legend(loc="upper right")
    return figure


def _frame(plot: "Axes", points: Float[np.ndarray, "n 2"]) -> None:
    """Equal units, and the same piece of the plane whichever cameras are drawn."""
    low, high = points.min(0), points.max(0)
    margin = 0.15 * float((high - low).max() or 1.0)
    plot.set_aspect("equal")
    plot.set_xlim(low[0] - margin, high[0] + margin)
    plot.set_ylim(low[1] - margin, high[1] + margin)


def _draw(plot: "Axes", poses: np.ndarray, axes: list[int], color: str, label: str) -> None:
    """Camera centres as dots with a short line in the viewing direction."""
    center, forward = poses[:, axes, 3], -poses[:, axes, 2]
    tip = center + 0.08 * float(np.ptp(poses[:, :, 3], axis=0).max() or 1.0) * forward
    plot.scatter(*center.T, s=8, color=color, label=label)
    plot.plot(*np.stack([center, tip]).transpose(2, 0, 1), color=color, linewidth=0.8)


def per_camera(record: RunRecord, stage: StageZero | None = None) -> dict[str, Float[np.ndarray, " cams"]]:
    """Figures of every training camera, by what they are.

    With true poses the errors before and after, otherwise how far each camera was moved; both after an alignment of
    all cameras. Epipolar residuals of stage 0 where they are known.
    """
    given, refined = torch.from_numpy(record.given_c2w), torch.from_numpy(record.refined_c2w)
    result = {}
    if record.reference_c2w is not None:
        truth = torch.from_numpy(record.reference_c2w)
        before, after = pose_errors(given, truth), pose_errors(refined, truth)
        result["rotation error before [deg]"] = before.rotation_deg.numpy()
        result["rotation error after [deg]"] = after.rotation_deg.numpy()
        result["translation error before [x100]"] = before.translation_x100.numpy()
        result["translation error after [x100]"] = after.translation_x100.numpy()
    else:
        change = pose_errors(refined, given, robust=True)
        moved = (change.similarity.poses(refined) - given)[..., 3].norm(dim=-1)
        result["turned by [deg]"] = change.rotation_deg.numpy()
        result["moved by [x100, field units]"] = 100 * moved.numpy()
    if stage is not None:
        result["epipolar residual given [px]"] = stage.epipolar_before_px
        result["epipolar residual stage 0 [px]"] = stage.epipolar_after_px
    return result


def camera_errors(columns: dict[str, Float[np.ndarray, " cams"]]) -> "Figure":
    """One plot per quantity: cameras in order of their names, before and after on one logarithmic axis."""
    from matplotlib.figure import Figure

    names = list(columns)
    # Corrections stand alone, everything else comes as before and after.
    alone = [[name] for name in names if name.startswith(("turned", "moved"))]
    paired = names[len(alone) :]
    groups = alone + [paired[start : start + 2] for start in range(0, len(paired), 2)]
    figure = Figure(figsize=(7, 2.2 * len(groups)), layout="constrained")
    for number, group in enumerate(groups):
        plot = figure.add_subplot(len(groups), 1, number + 1)
        for color, name in zip((_BEFORE, _AFTER) if len(group) == 2 else (_AFTER,), group, strict=True):
            values = columns[name]
            plot.scatter(np.arange(len(values)), np.maximum(values, 1e-6), s=9, color=color, label=name)
        plot.set_yscale("log")
        plot.grid(alpha=0.3)
        plot.legend(fontsize=8)
    plot.set_xlabel("training camera")
    return figure


def loss_curves(curves: dict[str, Curve]) -> "Figure | None":
    """All losses, and below them PSNR, and pose errors where they were logged; None without any curve."""
    from matplotlib.figure import Figure

    losses = {tag.rsplit("/", 1)[-1]: curve for tag, curve in curves.items() if tag.startswith("Train Loss Dict/")}
    if not losses:
        return None
    psnr = {"train": curves.get("Train Metrics Dict/psnr"), "test, aligned": curves.get("Eval Images Metrics/psnr")}
    poses = {name: curves.get(f"Train Metrics Dict/pose_{name}") for name in ("rotation_deg", "translation_x100")}
    groups: list[tuple[str, dict[str, Curve]]] = [("weighted losses", losses)]
    for title, group in (("PSNR [dB]", psnr), ("pose errors", poses)):
        known = {name: curve for name, curve in group.items() if curve is not None}
        groups += [(title, known)] if known else []
    figure = Figure(figsize=(7, 2.6 * len(groups)), layout="constrained")
    for number, (title, shown) in enumerate(groups):
        plot = figure.add_subplot(len(groups), 1, number + 1)
        for name, curve in shown.items():
            _smooth_line(plot, curve, name)
        if not title.startswith("PSNR"):
            plot.set_yscale("log")
        plot.set_ylabel(title)
        plot.grid(alpha=0.3)
        plot.legend(fontsize=7, ncols=2)
    plot.set_xlabel("step")
    return figure


def _smooth_line(plot: "Axes", curve: Curve, name: str) -> None:
    parts = np.array_split(np.arange(len(curve.steps)), min(_SMOOTHED_OVER, len(curve.steps)))
    means = [(curve.steps[part].mean(), curve.values[part].mean()) for part in parts]
    positive = [(step, value) for step, value in means if value > 0]
    plot.plot(*np.array(positive).reshape(-1, 2).T, label=name, linewidth=1.2, marker="." if len(means) < 8 else "")


def matchability_histogram(values: Float[np.ndarray, " matches"]) -> "Figure":
    """How many matches have which matchability w."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.4), layout="constrained")
    plot = figure.add_subplot()
    plot.hist(values, bins=np.linspace(0, 1, 41).tolist(), color=_AFTER)
    plot.set_xlabel("matchability w")
    plot.set_ylabel("matches")
    return figure
