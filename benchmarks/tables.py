"""The sections of docs/results.md: those of cells, then those of benchmarks that have a script of their own."""

import statistics
from collections.abc import Callable

from benchmarks.cell_tables import ABLATION, LONG, PEERS_TEXT, SHIPPED, SPARSE, ablation, peers, shipped, sparse
from benchmarks.field_tables import coherency, coherent_error, depths, ran
from benchmarks.gpu_tables import device_step, first_run
from benchmarks.results import NOTHING, Results, grid, markdown_table, provenance


def of_cells(results: Results) -> dict[str, str]:
    """Sections of what `benchmarks.run` fills, by title."""
    return {
        "As it comes": "\n\n".join([SHIPPED, provenance(results, "shipped"), shipped(results)]),
        "Three times as long": "\n\n".join([LONG, provenance(results, "shipped", "long"), shipped(results, "long")]),
        "Peers": "\n\n".join([PEERS_TEXT, provenance(results, "peers"), grid(results, *peers())]),
        "Ablation": "\n\n".join([ABLATION, provenance(results, "ablation"), *ablation(results)]),
        "Few views": "\n\n".join([SPARSE, provenance(results, "sparse"), sparse(results)]),
    }


def stage_zero(results: Results) -> list[str]:
    """Matched-ray bundle adjustment alone, at full image size: medians over seeds."""
    groups: dict[tuple, list[dict]] = {}
    for run in results.files("stage0/*.json"):
        groups.setdefault((run["scene"], run["noise"], run["every"], run["wrong"], run["matcher"]), []).append(run)
    rows = []
    for (scene, noise, every, wrong, matcher), members in sorted(groups.items()):
        extra = [f"every {every}"] * (every > 1) + [f"{round(100 * wrong)} % wrong"] * (wrong > 0)
        if focal := members[0].get("focal"):
            extra.append("focal length {before_percent:.1f} -> {after_percent:.2f} % off".format(**focal))
        row = [f"`{scene}`", noise, ", ".join([*extra, matcher])]
        for key in ("rotation_deg", "translation_x100", "center_x100"):
            found = [[m[when][key] for m in members if m[when]] for when in ("before", "after")]
            row.append("{:.2f} -> {:.3f}".format(*map(statistics.median, found)) if all(found) else "unknown")
        moved = statistics.median(m["moved"]["deg_median"] for m in members)
        cpu = statistics.median(sum(m["cpu_s"].values()) for m in members)
        rows.append([*row, f"{moved:.2f}", f"{cpu:.0f}", str(len(members))])
    head = ["scene", "start", "", "rotation deg", "translation x100", "centre x100", "moved deg", "CPU s", "runs"]
    return ["Medians over seeds, given -> adjusted.", markdown_table(head, rows)] if rows else []


def matchers(results: Results) -> list[str]:
    """Matchers side by side, each followed by stage 0."""
    groups: dict[tuple, list[dict]] = {}
    for row in (row for content in results.files("matchers.json") for row in content):
        groups.setdefault(tuple(row[key] for key in ("scene", "every", "noise", "matcher")), []).append(row)
    names = ("rotation_deg", "translation_x100", "worst_camera_deg", "components", "pairs_verified")
    rows = []
    for (scene, every, noise, matcher), members in sorted(groups.items()):
        values = [[member[name] for member in members if member[name] is not None] for name in names]
        values.append([member["cpu_s"] for member in members if not member["cached"]])
        shown = [f"{statistics.median(known):.3g}" if known else NOTHING for known in values]
        detector = f"{matcher} ({members[0]['detector']})" if matcher == "auto" else matcher
        rows.append([f"`{scene}`", f"every {every}" * (every > 1), noise, detector, *shown, str(len(members))])
    head = ["scene", "", "start", "matcher", "deg", "x100", "worst deg", "pieces", "pairs", "CPU s", "runs"]
    text = "Stage 0 after each matcher, medians over seeds; CPU seconds of matching and stage 0 from an empty cache."
    return [text, markdown_table(head, rows)] if rows else []


def photos(results: Results) -> list[str]:
    """Images without poses: what is placed, and stage 0 after it."""
    rows = []
    for name, run in ((name, run) for content in results.files("photos.json") for name, run in content.items()):
        errors = ("{rotation_deg:.3f} / {translation_x100:.2f} / {focal_error_percent:+.2f}",) * 2
        told = [run.get("refused", NOTHING), NOTHING]
        if "placed" in run:
            whens = ("placed", "adjusted")
            found = [
                {k.removeprefix(f"{when}_"): v for k, v in run.items() if k.startswith(f"{when}_")} for when in whens
            ]
            told = [text.format(**values) for text, values in zip(errors, found, strict=True)]
        cpu = sum(run.get(f"{part}_cpu_s", 0) for part in ("place", "match", "adjust"))
        frame = "{frame_shift:.3f} / {frame_rotation_deg:.2f} / {frame_scale_error_percent:+.2f}, positions off by "
        whole = (frame + "{positions_off:.3f}").format(**run) if "frame_shift" in run else NOTHING
        rows.append([f"`{name}`", f"{run.get('placed', 0)} of {run['images']}", *told, whole, f"{cpu:.0f}"])
    text = (
        "Rotation in degrees / translation x100 / focal length in percent, off the reference; of positions that were "
        "given, the frame as a whole: shift in units of the data / turn in degrees / scale in percent; CPU seconds."
    )
    head = ["scene", "placed", "as placed", "after stage 0", "frame", "CPU s"]
    return [text, markdown_table(head, rows)] if rows else []


def encoding(results: Results) -> list[str]:
    """The hash grid beside nerfstudio's."""
    parts = ["Milliseconds; `second_order` includes an eikonal-like loss, `_poses` gradients by points."]
    for content in results.files("encoding*.json"):
        names = list(dict.fromkeys(name for row in content["rows"] for name in row if name.endswith("_ms")))
        head = ["levels, table, points", "work", *(name.removesuffix("_ms").replace("_", " ") for name in names)]
        rows = []
        for row in content["rows"]:
            case = f"{row['levels']}, 2^{row['log2_table_size']}, {row['points']}"
            times = [f"{row[name]:.2f}" if row.get(name) is not None else NOTHING for name in names]
            rows.append([case, f"`{row['work']}`", *times])
        parts += [ran(content), markdown_table(head, rows)]
    return parts if parts[1:] else []


def train_step(results: Results) -> list[str]:
    """Whole training steps."""
    parts = []
    for content in results.files("train_step*.json"):
        times = ", ".join(f"{name.replace('_', ' ')} {ms}" for name, ms in content["ms_per_step"].items())
        parts += [
            ran(content),
            f"`{content['method']}` on `{content['data']}`, {content['rays_per_step']} rays per step. Milliseconds per "
            f"step: {times}. Peak memory {content['peak_memory_mb']} MiB.",
        ]
    return parts


def preflight(results: Results) -> list[str]:
    """Planted mistakes and what `craym preflight` says of them."""
    parts = []
    for content in results.files("preflight*.json"):
        runs = content["runs"]
        rows = [[r["mistake"], ", ".join(r["found"]) or "nothing", r["grade"], f"{r['seconds']:.0f}"] for r in runs]
        right = f"{sum(r['right'] for r in runs)} of {len(runs)} named exactly."
        parts += [f"`{content['command']}`: {right}", markdown_table(["planted", "found", "grade", "seconds"], rows)]
    return ["Mistakes planted into a dataset, and what was found.", *parts] if parts else []


def large(results: Results) -> list[str]:
    """Time and memory of each step on much data."""
    parts = []
    for content in results.files("large.json"):
        cases = content["cases"]
        names = list(dict.fromkeys(step for case in cases.values() for step in case["steps"]))
        rows = []
        for name, case in cases.items():
            found = [case["steps"].get(step) for step in names]
            shown = [_spent(each) if each else NOTHING for each in found]
            rows.append([name, f"{case['width_px']} px, {case['files_mb']} MB", *shown])
        text = (
            "CPU seconds, all threads together (seconds of the clock, beside other work) / peak memory of "
            "the process in MiB. Images are used at 1600 px."
        )
        parts += [ran(content), text, markdown_table(["", "each / all", *names], rows)]
    return parts


def _spent(step: dict[str, float]) -> str:
    clock = f" ({step['wall_s']:.1f})" if "wall_s" in step else ""
    return f"{step['cpu_s']:.1f}{clock} / {step['peak_mb']}"


def kills(results: Results) -> list[str]:
    """What became of the next run after kills."""
    parts = []
    for content in results.files("kills.json"):
        phases: dict[str, list[dict]] = {}
        for row in content["kills"]:
            phases.setdefault(row["phase"], []).append(row)
        rows = [
            [phase, ", ".join(row["signal"] for row in hits), ", ".join(str(row["steps_left"]) for row in hits)]
            for phase, hits in phases.items()
        ]
        count = len(content["kills"])
        same = sum(row["same_matches_and_stage0"] for row in content["kills"])
        told = (
            f"{content['good']} of {count} next runs were good; matches and stage 0 the same byte for byte in {same}."
        )
        head = ["killed in", "by", "steps left to the next run, of 12"]
        parts += [ran(content), told, markdown_table(head, rows)]
    return parts


def delivery(results: Results) -> list[str]:
    """What an export looks like from the test cameras."""
    ways = {
        "volume": "field",
        "traced": "traced",
        "mesh.ply": "vertex colours",
        "mesh.glb": "GLB",
        "splats.ply": "splats",
    }
    parts = []
    for content in results.files("delivery.json"):
        rows = []
        for name, run in content["runs"].items():
            shown = [f"{run[f'{way}_psnr']:.2f}" if f"{way}_psnr" in run else NOTHING for way in ways]
            faster = f"{run['volume_cpu_s'] / run['traced_cpu_s']:.1f} x" if "traced_cpu_s" in run else NOTHING
            shape = f"{run['faces']}, {run['pieces']}, {'yes' if run['watertight'] else 'no'}"
            winding = "yes" if run["consistent_winding"] else "no"
            sizes = " / ".join(f"{run[f'{file}_mb']:.1f}" for file in ("mesh.glb", "splats.ply") if f"{file}_mb" in run)
            rows.append([f"`{name}`", *shown, faster, shape, winding, sizes or NOTHING])
        head = ["run", *ways.values(), "traced is faster", "faces, pieces, watertight", "winding", "GLB / splats MB"]
        text = "PSNR in dB of test views, drawn by other renderers than the export's own; the field as a volume."
        parts += [ran(content), text, markdown_table(head, rows)]
    return parts


def yardstick(results: Results) -> list[str]:
    """Our test views beside those of a field without a surface."""
    parts = []
    for content in results.files("yardstick*.json"):
        rows = []
        for name, run in content["runs"].items():
            views = [f"{run[f'{whose}_psnr']:.2f} dB, {run[f'{whose}_ssim']:.3f}" for whose in ("ours", "nerfacto")]
            rows.append([f"`{name}`", *views, f"{run['steps']} of {run['rays']} rays, {run['train_s']:.0f} s"])
        parts += [ran(content), markdown_table(["run", "ours", "nerfacto", "its steps"], rows)]
    return parts


def lost(results: Results) -> list[str]:
    """Cameras of photos that could not be matched."""
    parts = []
    for content in results.files("lost*.json"):
        rows = []
        for name, run in content["runs"].items():
            each = (run["lost_start_deg"], run["lost_deg"])
            turned = [f"{statistics.median(values):.1f} / {max(values):.1f}" for values in each]
            rows.append([name, *turned, f"{run['others_deg']:.4f}", f"{run['psnr']:.2f}", f"{run['train_s']:.0f}"])
        text = "A tenth of the photos is blurred over a tenth of its width; stage 0 only predicted the lost cameras."
        head = ["run", "lost cameras after stage 0, median / largest deg", "trained", "other cameras deg", "dB", "s"]
        parts += [ran(content), text, markdown_table(head, rows)]
    return parts


def earlier(section: dict) -> str:
    """Last figures of a benchmark whose script is gone; the text says at which commit it is to be found."""
    tables = [markdown_table(table["head"], table["rows"]) for table in section["tables"]]
    return "\n\n".join([section["text"], *tables])


def basin(results: Results) -> list[str]:
    """How far pictures alone bring poses."""
    parts = []
    for content in results.files("basin*.json"):
        runs = content["runs"]
        given = {(run["noise"], run["seed"]): _error(run["errors"][0]) for run in runs}
        found = {(run["way"], run["noise"], run["seed"]): _error(run["errors"][-1]) for run in runs}
        ways = dict.fromkeys(run["way"] for run in runs)
        rows = [[way, *(found.get((way, *each), NOTHING) for each in given)] for way in ways]
        text = f"`{content['scene']}`, no matches, {content['steps']} steps: rotation in degrees / translation x100."
        head = ["", *(f"`{noise}`, seed {seed}" for noise, seed in given)]
        parts += [ran(content), text, markdown_table(head, [["poses as given", *given.values()], *rows])]
    return parts


def _error(row: dict[str, float]) -> str:
    return f"{row['rotation_deg']:.2f} / {row['translation_x100']:.1f}"


SCRIPTS: dict[str, tuple[str, Callable[[Results], list[str]]]] = {
    "Stage 0 at full image size": ("benchmarks.stage0", stage_zero),
    "Matchers": ("benchmarks.matchers", matchers),
    "Photos alone": ("benchmarks.photos --data-root DATA", photos),
    "Hash grid": ("benchmarks.encoding --output benchmarks/results/encoding.json", encoding),
    "Training step": ("benchmarks.train_step --output benchmarks/results/train_step.json", train_step),
    "Step on a GPU": ("benchmarks.device_step --output benchmarks/results/device_step-after.json", device_step),
    "On a GPU": ("benchmarks.first_run run --carry FOLDER", first_run),
    "Basin": ("benchmarks.basin --output benchmarks/results/basin.json", basin),
    "Lost cameras": (
        "benchmarks.lost --data-root DATA --output benchmarks/results/lost.json still_life lego_400",
        lost,
    ),
    "Matchability": ("benchmarks.coherency --output benchmarks/results/coherency.json", coherency),
    "Errors that keypoints share": (
        "benchmarks.coherent_error --output benchmarks/results/coherent_error.json",
        coherent_error,
    ),
    "Depth": ("benchmarks.depth --output benchmarks/results/depth.json NAME=RUN", depths),
    "Much data": ("benchmarks.large --scratch FOLDER", large),
    "Yardstick for views": ("benchmarks.yardstick --output benchmarks/results/yardstick.json NAME=RUN", yardstick),
    "Delivery": ("benchmarks.delivery --output benchmarks/results/delivery.json NAME=RUN", delivery),
    "Kills": ("benchmarks.kills --output benchmarks/results/kills.json", kills),
    "Preflight": ("benchmarks.preflight --data DATA", preflight),
}


def sections(results: Results) -> dict[str, str]:
    """All of them, by title."""
    parts = of_cells(results)
    for title, (command, section) in SCRIPTS.items():
        parts[title] = "\n\n".join(section(results) or [f"not run: `python -m {command}`"])
    return parts | {part["title"]: earlier(part) for content in results.files("earlier.json") for part in content}
