"""The sections of docs/results.md that come from benchmarks with a script of their own."""

import json
import statistics
from collections.abc import Callable

from benchmarks.report import NOTHING, Results, markdown_table


def _files(results: Results, pattern: str) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(results.folder.glob(pattern))]


def _missing(title: str, command: str) -> str:
    return f"## {title}\n\nnot run: `{command}`"


def stage_zero(results: Results) -> str:
    """Matched-ray bundle adjustment alone, at full image size: medians over seeds."""
    title, runs = "Stage 0 at full image size", _files(results, "stage0/*.json")
    if not runs:
        return _missing(title, "python -m benchmarks.stage0 --table")
    groups: dict[tuple, list[dict]] = {}
    for run in runs:
        groups.setdefault((run["scene"], run["noise"], run["every"], run["wrong"], run["matcher"]), []).append(run)
    rows = []
    for (scene, noise, every, wrong, matcher), members in sorted(groups.items()):
        extra = [f"every {every}"] * (every > 1) + [f"{round(100 * wrong)} % wrong"] * (wrong > 0)
        row = [f"`{scene}`", noise, ", ".join([*extra, matcher])]
        for key in ("rotation_deg", "translation_x100", "center_x100"):
            found = [(m["before"][key], m["after"][key]) for m in members if m["after"]]
            before, after = zip(*found, strict=True) if found else ((), ())
            row.append(f"{statistics.median(before):.2f} -> {statistics.median(after):.3f}" if found else "unknown")
        moved = statistics.median(m["moved"]["deg_median"] for m in members)
        cpu = statistics.median(sum(m["cpu_s"].values()) for m in members)
        rows.append([*row, f"{moved:.2f}", f"{cpu:.0f}", str(len(members))])
    head = ["scene", "start", "", "rotation deg", "translation x100", "centre x100", "moved deg", "CPU s", "runs"]
    picture = "![Error against planted wrong matches, CPU seconds against views](images/stage0.png)"
    return f"## {title}\n\nMedians over seeds, given -> adjusted.\n\n{markdown_table(head, rows)}\n\n{picture}"


def encoding(content: dict) -> list[str]:
    """The hash grid beside nerfstudio's."""
    names = list(dict.fromkeys(name for row in content["rows"] for name in row if name.endswith("_ms")))
    head = ["levels, table, points", "work", *(name.removesuffix("_ms").replace("_", " ") for name in names)]
    rows = [
        [
            f"{row['levels']}, 2^{row['log2_table_size']}, {row['points']}",
            f"`{row['work']}`",
            *(f"{row[name]:.2f}" if row.get(name) is not None else "-" for name in names),
        ]
        for row in content["rows"]
    ]
    return [f"`{content['command']}`, {_machine(content['machine'])}", markdown_table(head, rows)]


def train_step(content: dict) -> list[str]:
    """Whole training steps."""
    times = ", ".join(f"{name.replace('_', ' ')} {ms}" for name, ms in content["ms_per_step"].items())
    split = ", ".join(f"{name} {ms}" for name, ms in content.get("parts_ms", {}).items())
    parts = [
        f"`{content['command']}`, {_machine(content['machine'])}",
        f"`{content['method']}` on `{content['data']}`, {content['rays_per_step']} rays per step. Milliseconds per "
        f"step: {times}. Parts: {split}. Peak memory {content['peak_memory_mb']} MiB.",
    ]
    for kind, rows in content.get("scaling", {}).items():
        table = [[str(row[kind]), f"{1000 * row['seconds']:.1f}"] for row in rows]
        parts.append(markdown_table([kind, "ms per step"], table))
        parts.append(f"![Milliseconds per step against {kind}](images/scaling_{kind}.png)")
    curves = content.get("psnr_over_time", {})
    if curves:
        at = max((list(curve) for curve in curves.values()), key=len)
        rows = [[name, *(_reached(curve.get(t)) for t in at)] for name, curve in curves.items()]
        parts.append(markdown_table(["training time", *at], rows))
    return parts


def _reached(point: dict | None) -> str:
    """A contestant's PSNR, and how far it had come."""
    return f"{point['psnr']:.2f} dB, step {point['step']} of {point['schedule']}" if point else NOTHING


def equality(content: dict) -> list[str]:
    """What each implementation of the hash grid trains to."""
    seeds = list(next(iter(content["runs"].values())))
    rows = []
    for backend, of_seed in content["runs"].items():
        members = [*(of_seed[seed] for seed in seeds), content["means"][backend]]
        rows.append([f"`{backend}`", *(f"{m['pose_rotation_deg']:.3f} / {m['psnr']:.2f}" for m in members)])
    start = f"`{content['method']}` on `{content['data']}` from `{content['noise']}` noise"
    return [
        f"`{content['command']}`, {_machine(content['machine'])}. {start}, {content['steps']} steps.",
        markdown_table(["", *(f"seed {seed}" for seed in seeds), "mean"], rows),
    ]


def epipolar(content: dict) -> list[str]:
    """Poses by L_e alone, and residuals against the errors of relative rotations."""
    parts = [f"`{content['command']}`, `{content['scene']}`, {_machine(content['machine'])}"]
    rows = [
        [r["noise"], str(r["steps"])]
        + [f"{r[f'pose_{k}_before']:.2f} -> {r[f'pose_{k}']:.2f}" for k in ("rotation_deg", "translation_x100")]
        for r in content["runs"]
    ]
    parts.append(markdown_table(["noise", "steps", "rotation deg", "translation x100"], rows))
    last = content["runs"][-1]
    bins = {(b["from_deg"], b["to_deg"]): {} for b in (*last["pairs_before"], *last["pairs"])}
    for when in ("pairs_before", "pairs"):
        for b in last[when]:
            bins[b["from_deg"], b["to_deg"]][when] = f"{b['px']:.2f} px ({100 * b['share']:.0f} %)"
    table = [
        [f"{low:g} to {high:g} deg", *(found.get(when, NOTHING) for when in ("pairs_before", "pairs"))]
        for (low, high), found in sorted(bins.items())
    ]
    parts.append(
        f"Median residual of matches whose relative rotation is off by as much, and their share (`{last['noise']}`, "
        f"{last['steps']} steps):"
    )
    parts.append(markdown_table(["relative rotation off by", "under the given poses", "in the end"], table))
    return parts


def memory(content: dict) -> list[str]:
    """Peak memory of setting up and training."""
    cases = {name: case for name, case in content.items() if isinstance(case, dict) and "views" in case}
    keys = list(dict.fromkeys(key for case in cases.values() for key in case))
    rows = [[name, *(str(case.get(key, "-")) for key in keys)] for name, case in cases.items()]
    return [f"`{content['command']}`", markdown_table(["", *(key.replace("_", " ") for key in keys)], rows)]


def preflight(content: dict) -> list[str]:
    """Planted mistakes and what `craym preflight` says of them."""
    runs = content["runs"]
    rows = [[r["mistake"], ", ".join(r["found"]) or "nothing", r["grade"], f"{r['seconds']:.0f}"] for r in runs]
    right = sum(bool(r["right"]) for r in runs)
    return [
        f"`{content['command']}`: {right} of {len(runs)} named exactly.",
        markdown_table(["planted", "found", "grade", "seconds"], rows),
    ]


def _machine(content: dict) -> str:
    names = [str(content[name]) for name in ("device", "cpu") if content.get(name)]
    return f"{', '.join(names)}, torch {content['torch']}, {content['threads']} threads"


def _section(
    title: str, pattern: str, command: str, shown: Callable[[dict], list[str]], intro: str = ""
) -> Callable[[Results], str]:
    """A section that shows one file of a benchmark after the other, or how to make one."""

    def section(results: Results) -> str:
        files = _files(results, pattern)
        if not files:
            return _missing(title, command)
        parts = [part for content in files for part in shown(content)]
        return "\n\n".join([f"## {title}", *([intro] if intro else []), *parts])

    return section


OTHERS: list[Callable[[Results], str]] = [
    stage_zero,
    _section(
        "Hash grid",
        "encoding*.json",
        "python benchmarks/encoding.py --output benchmarks/results/encoding.json",
        encoding,
        "Milliseconds; `second_order` includes an eikonal-like loss, `_poses` gradients by points.",
    ),
    _section(
        "Training step",
        "train_step*.json",
        "python benchmarks/train_step.py --output benchmarks/results/train_step.json",
        train_step,
    ),
    _section(
        "Quality on each implementation of the hash grid",
        "equality*.json",
        "python benchmarks/equality.py --output benchmarks/results/equality.json",
        equality,
        "Rotation in degrees / PSNR in dB after as many steps from the same seeds.",
    ),
    _section(
        "The epipolar loss alone",
        "epipolar*.json",
        "python -m benchmarks.epipolar --output benchmarks/results/epipolar.json",
        epipolar,
        "Poses by L_e alone, without stage 0, field or colours.",
    ),
    _section(
        "Memory", "memory*.json", "python benchmarks/memory.py --output benchmarks/results/memory.json", memory
    ),
    _section(
        "Preflight",
        "preflight*.json",
        "python -m benchmarks.preflight",
        preflight,
        "Mistakes planted into a dataset, and what was found.",
    ),
]
