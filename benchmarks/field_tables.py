"""Sections of docs/results.md on the shipped method, few views and matchability, and how a script says where it ran."""

import re
import statistics

from benchmarks.results import NOTHING, Figures, Results, finished, grid, grouped, markdown_table, provenance
from benchmarks.suite import METHODS, Cell, cells

SHIPPED = """## As it comes

`craym-lite` with nothing changed: 2500 steps, photos 400 px wide. Medians over seeds: rotation in degrees / \
translation x100 of the poses as given, after stage 0 and after training; PSNR of 8 test views; surface as Chamfer \
distance / F at 0.01 in units of the data (the objects are about 2 wide), on `dtu_scan24` the median distance from the \
reference points inside the masks to the mesh; seconds of training on one core. The seed is that of the pose noise and \
of the training."""
LONG = """### Three times as long

The same with `--max-num-iterations 9000`, which all schedules follow."""
POSE_ERRORS: Figures = (("pose_rotation_deg", 3), ("pose_translation_x100", 2))
_SPARSE = """## Few views

Rotation in degrees / translation x100 / PSNR in dB of views from their side, from `barf` noise. `dtu_scan24` has the \
split of pixelNeRF and SPARF; of three given cameras the centres, by which errors are aligned, hardly fix how all of \
it is turned, which is the large error of the input."""

_DEPTH = """Rendered depths of twelve training views against true ones (`hololens_000`: those of its ToF camera), in \
per cent, where the run sees nothing 100; PSNR of test views; rotation error of the poses as given and after training, \
in degrees, where the true ones are known. `craym-lite` with nothing changed; `plant`, `tools`, `room` and `drums` are \
written by `python -m benchmarks.path_traced`, and nothing was tuned on them beforehand."""
_COHERENT = """Rotation in degrees / translation x100: after stage 0 from `barf`; of a bundle that starts at the true \
poses, with the same keypoints; of the same with residuals dealt out anew within each track, and over all. Robust \
spread of keypoints about the truth, per axis; correlation of a camera's rotation error with that of its four \
neighbours. First with keypoints where SIFT puts them, then where their pixels agree."""


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


def shipped(results: Results, size: str = "shipped") -> str:
    """The method as it comes, or trained for longer, medians over seeds."""
    rows = []
    every = cells("shipped", size)
    for (scene, noise), chosen in grouped(every, lambda c: (c.scene, c.noise), lambda c: c.method).items():
        records = {method: results.of(each) for method, each in chosen.items()}
        poses = [
            _median(records[method], *((f"{name}{suffix}", n) for name, n in POSE_ERRORS))
            for method, suffix in (("craym", "_before"), ("stage0", ""), ("craym", ""))
        ]
        surface = _median(records["craym"], ("surface.masked_median_mm", 2))
        exact = _median(records["craym"], ("surface.chamfer", 4), ("surface.f_score_0.01", 3))
        seeds = len(finished(records["craym"], "psnr"))
        seconds = _median(records["craym"], ("train_s", 0))
        shape = exact if surface == NOTHING else f"{surface} mm"
        rows.append([f"`{scene}` {noise}", *poses, _median(records["craym"], ("psnr", 2)), shape, seconds, str(seeds)])
    head = ["scene, start", "as given", "stage 0", "craym-lite", "views dB", "surface", "training s", "seeds"]
    return markdown_table(head, [row for row in rows if row[-1] != "0"])


def _median(records: list[dict | None], *figures: tuple[str, int]) -> str:
    found = [(finished(records, name), digits) for name, digits in figures]
    return " / ".join(f"{statistics.median(values):.{digits}f}" for values, digits in found if values) or NOTHING


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


def depths(results: Results) -> list[str]:
    """True depths of scenes beside those that are rendered."""
    parts = []
    for content in results.files("depth*.json"):
        rows = []
        for name, row in content["scenes"].items():
            turned = [f"{row[each]:.2f}" for each in ("pose_rotation_deg_before", "pose_rotation_deg") if each in row]
            errors = [f"{row[f'error_{share}_percent']:.2f}" for share in (50, 75, 90)]
            rows.append([f"`{name}`", *errors, f"{row['psnr']:.2f}", " -> ".join(turned) or NOTHING])
        head = ["", "median", "three quarters", "nine tenths", "views dB", "rotation"]
        parts += [ran(content), markdown_table(head, rows)]
    return [_DEPTH, *parts] if parts else []


def coherent_error(results: Results) -> list[str]:
    """What makes keypoints err alike, before and after they were aligned."""
    parts = []
    for content in results.files("coherent_error*.json"):
        rows = []
        for row in content["rows"]:
            errors = [_pose_error(row[name]) for name in ("stage0", "as_is", "within_tracks", "dealt")]
            name = row["name"] if row["is_guise"] else f"`{row['name']}`"
            rows.append([name, f"{row['sigma_px']:.3f}", *errors, f"{row['neighbours_agree']:.2f}"])
        head = ["", "keypoints px", "stage 0", "from the truth", "dealt out within tracks", "dealt out", "neighbours"]
        parts += [ran(content), markdown_table(head, rows)]
    return [_COHERENT, *parts] if parts else []


def _pose_error(row: dict[str, float]) -> str:
    return f"{row['rotation_deg']:.3f} / {row['translation_x100']:.2f}"


def ran(content: dict) -> str:
    """How a script was started, and on what it ran."""
    # Scripts were once started by their paths.
    command = re.sub(r"benchmarks/(\w+)\.py", r"-m benchmarks.\1", content["command"])
    machine = content["machine"]
    names = [str(machine[name]) for name in ("device", "cpu") if machine.get(name)]
    commit = machine["commit"][:7]
    return f"`{command}` at {commit}, {', '.join(names)}, torch {machine['torch']}, {machine['threads']} threads"
