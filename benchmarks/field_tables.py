"""Sections of docs/results.md on matchability, depth and keypoints, and how a script says where it ran."""

import re

from benchmarks.results import NOTHING, Results, markdown_table

_DEPTH = """Rendered depths of twelve training views against true ones (`hololens_000`: those of its ToF camera), in \
per cent, where the run sees nothing 100; PSNR of test views; rotation error of the poses as given and after training, \
in degrees, where the true ones are known. `craym-lite` with nothing changed; `plant`, `tools`, `room` and `drums` are \
written by `python -m benchmarks.path_traced`, and nothing was tuned on them beforehand."""
_COHERENT = """Rotation in degrees / translation x100: after stage 0 from `barf`; of a bundle that starts at the true \
poses, with the same keypoints; of the same with residuals dealt out anew within each track, and over all. Robust \
spread of keypoints about the truth, per axis; correlation of a camera's rotation error with that of its four \
neighbours. First with keypoints where SIFT puts them, then where their pixels agree."""


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
