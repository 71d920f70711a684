"""The plots of docs/results.md, from the same results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import Results, finished, mean_and_spread, value
from benchmarks.report_tables import scene_cells
from benchmarks.tables import ABLATION, ABLATION_LABELS, METHODS, POSE_METHODS, SCENES, WRONG, cells

Draw = Callable[[Results, Any], bool]


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw whatever there are figures for; returns the files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, drawing in PLOTS.items():
        figure, axes = pyplot.subplots(figsize=(9.5, 3.8), layout="constrained")
        if drawing(results, axes):
            written.append(folder / f"results_{name}.png")
            # No version of the library in the file: the same figures give the same file.
            figure.savefig(written[-1], dpi=110, metadata={"Software": None})
        pyplot.close(figure)
    return written


def available(results: Results) -> list[str]:
    """Names of the plots that the results suffice for."""
    from unittest.mock import MagicMock

    return [name for name, drawing in PLOTS.items() if drawing(results, MagicMock())]


def _bars(axes: Any, names: list[str], series: dict[str, list[list[float]]]) -> bool:
    """Groups of bars: mean with spread of each list; False where all are empty."""
    series = {label: groups for label, groups in series.items() if any(groups)}
    width = 0.8 / max(len(series), 1)
    for number, (label, groups) in enumerate(series.items()):
        places = [k for k, values in enumerate(groups) if values]
        figures = [mean_and_spread(groups[k]) for k in places]
        offset = (number - 0.5 * (len(series) - 1)) * width
        spreads = [spread or 0.0 for _, spread in figures]
        axes.bar([k + offset for k in places], [mean for mean, _ in figures], width, yerr=spreads, label=label)
    axes.set_xticks(range(len(names)), names)
    if series:
        axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return bool(series)


def _poses(name: str, label: str, log: bool, size: str, noise: str) -> Draw:
    def drawing(results: Results, axes: Any) -> bool:
        series = {}
        for method in POSE_METHODS:
            groups = [finished(results.of(scene_cells(size, scene, noise, method)), name) for scene in SCENES]
            series[METHODS[method].label] = groups
        axes.set_ylabel(label)
        axes.set_title(f"noise {noise}, size {size}")
        if log:
            axes.set_yscale("log")
        return _bars(axes, list(SCENES), series)

    return drawing


def _ablation(name: str, label: str, log: bool) -> Draw:
    def drawing(results: Results, axes: Any) -> bool:
        size = results.sizes("ablation")[-1]
        everything, series = cells("ablation", size), {}
        for scene in ("lego_400", "chair_400"):
            for suffix in ("", "+stage0"):
                rows = [[c for c in everything if (c.scene, c.method) == (scene, row + suffix)] for row in ABLATION]
                series[f"{scene}{suffix}"] = [finished(results.of(row), name) for row in rows]
        axes.set_ylabel(label)
        axes.set_title(f"ablation from l2g noise, size {size}")
        if log:
            axes.set_yscale("log")
        return _bars(axes, [ABLATION_LABELS[row] for row in ABLATION], series)

    return drawing


def _matchability(results: Results, axes: Any) -> bool:
    everything, series = cells("outliers", results.sizes("outliers")[-1]), {}
    for scene, method in dict.fromkeys((c.scene, c.method) for c in everything):
        chosen = [[c for c in everything if (c.scene, c.method, c.wrong) == (scene, method, s)] for s in WRONG[1:]]
        groups = [finished(results.of(each), "matchability.auc") for each in chosen]
        series[f"{scene}, {METHODS[method].label}"] = groups
    axes.axhline(0.5, color="0.6", linestyle="--")
    axes.set(ylabel="AUC of w, right against wrong matches", ylim=(0, 1), xlabel="planted wrong matches")
    return _bars(axes, [f"{round(100 * share)} %" for share in WRONG[1:]], series)


def _psnr_over_time(results: Results, axes: Any) -> bool:
    drawn = False
    for cell in cells("speed", results.sizes("speed")[-1]):
        record = results.of([cell])[0]
        curve = value(record, "curve") if record is not None else None
        if isinstance(curve, list):
            axes.plot([p["train_s"] for p in curve], [p["psnr"] for p in curve], marker=".", label=cell.method)
            drawn = True
    axes.set(xlabel="seconds of training", ylabel="test PSNR, dB")
    if drawn:
        axes.legend(frameon=False)
    return drawn


PLOTS: dict[str, Draw] = {
    **{
        f"{kind}_{noise}_{size}": _poses(name, label, log, size, noise)
        for size in ("cpu", "paper")
        for noise in ("barf", "l2g")
        for kind, name, label, log in (
            ("poses", "pose_rotation_deg", "rotation error, degrees", True),
            ("views", "psnr", "PSNR, dB", False),
        )
    },
    "ablation_poses": _ablation("pose_translation_x100", "translation error x100", True),
    "ablation_views": _ablation("psnr", "PSNR, dB", False),
    "matchability": _matchability,
    "psnr_over_time": _psnr_over_time,
}
