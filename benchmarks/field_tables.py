"""Sections of docs/results.md on few views and on matchability, and how a script says where it ran."""

import re

from benchmarks.results import Figures, Results, grid, grouped, markdown_table, provenance
from benchmarks.suite import METHODS, Cell, cells

POSE_ERRORS: Figures = (("pose_rotation_deg", 3), ("pose_translation_x100", 2))
_SPARSE = """## Few views

Rotation in degrees / translation x100 / PSNR in dB of views from their side, from `barf` noise. `dtu_scan24` has the \
split of pixelNeRF and SPARF; of three given cameras the centres, by which errors are aligned, hardly fix how all of \
it is turned, which is the large error of the input."""


def sparse(results: Results, size: str) -> str:
    """Few views."""
    parts = []
    for scene, chosen in grouped(cells("sparse", size), lambda c: c.scene, lambda c: c.method).items():
        before = tuple((f"{name}_before", digits) for name, digits in POSE_ERRORS)
        label = f"`{scene}`, {METHODS['input'].label}"
        parts.append((grouped(chosen["craym"], lambda _, text=label: text, _views), before))
        for method in ("stage0", "craym"):
            label = f"`{scene}`, {METHODS[method].label}"
            rows = grouped(chosen[method], lambda _, text=label: text, _views)
            parts.append((rows, (*POSE_ERRORS, ("psnr", 2)) if method == "craym" else POSE_ERRORS))
    return "\n\n".join([_SPARSE, provenance(results, "sparse", size), grid(results, *parts)])


def _views(cell: Cell) -> str:
    return f"{cell.views} views"


def coherency(results: Results) -> list[str]:
    """Matchability of right and of planted wrong matches."""
    parts = []
    for content in results.files("coherency.json"):
        rows = []
        for run in content["runs"]:
            for look in run["looks"]:
                medians = f"{look['right_median']:.2f} / {look['wrong_median']:.2f}"
                shares = f"{100 * look['right_share_above_half']:.0f} / {100 * look['wrong_share_above_half']:.0f} %"
                bars = ("-".join(map(str, look[f"{kind}_histogram"])) for kind in ("right", "wrong"))
                shown = [f"`{run['scene']}`", f"{look['step']} of {run['steps']}", f"{look['auc']:.3f}"]
                rows.append([*shown, medians, shares, *bars])
        head = ["", "step", "AUC", "median, right / wrong", "above 0.5", "right, by tenths of w", "wrong"]
        share = f"{100 * content['runs'][0]['wrong_share']:.0f} % of the matches are wrong, in training too."
        parts += [ran(content), share, markdown_table(head, rows)]
    return parts


def ran(content: dict) -> str:
    """How a script was started, and on what it ran."""
    # Scripts were once started by their paths.
    command = re.sub(r"benchmarks/(\w+)\.py", r"-m benchmarks.\1", content["command"])
    machine = content["machine"]
    names = [str(machine[name]) for name in ("device", "cpu") if machine.get(name)]
    commit = machine["commit"][:7]
    return f"`{command}` at {commit}, {', '.join(names)}, torch {machine['torch']}, {machine['threads']} threads"
