"""The sections of docs/results.md that come from cells."""

from collections.abc import Callable

from benchmarks.report import (
    Results,
    entry,
    failures,
    finished,
    losses,
    markdown_table,
    provenance,
    value,
)
from benchmarks.tables import (
    ABLATION,
    METHODS,
    NOISES,
    POSE_METHODS,
    SCENES,
    SPARSE_METHODS,
    SPEED,
    WRONG,
    Cell,
    cells,
    noises,
)

PSNR_TARGETS = (22, 24, 26, 28, 30)


def joined(*figures: str) -> str:
    """Figures of one place in a table; said once where all are missing for the same reason."""
    return figures[0] if len(set(figures)) == 1 else " / ".join(figures)


def scene_cells(size: str, scene: str, noise: str, method: str) -> list[Cell]:
    """Cells of all seeds; methods that never see the given poses have one for every noise."""
    return [
        cell
        for cell in cells("poses", size)
        if (cell.scene, cell.method) == (scene, method) and cell.noise in (noise, "any")
    ]


def grid(results: Results, size: str, noise: str, names: tuple[str, ...], digits: tuple[int, ...]) -> str:
    """Figures of the cells from one noise: a row per method, a column per scene."""
    scenes = [scene for scene in SCENES if noise in noises(scene)]
    rows = []
    for method in POSE_METHODS:
        if names[0].startswith("pose") or METHODS[method].trains:
            row = []
            for scene in scenes:
                records = results.of(scene_cells(size, scene, noise, method))
                found = [entry(records, name, digit) for name, digit in zip(names, digits, strict=True)]
                row.append(found[0] if len(set(found)) == 1 else " / ".join(found) + _registered(records))
            rows.append([METHODS[method].label, *row])
    return markdown_table(["", *(f"`{scene}`" for scene in scenes)], rows)


def _registered(records: list[dict | None]) -> str:
    counts = finished(records, "registered"), finished(records, "images")
    return f" ({counts[0][0]:.0f} of {counts[1][0]} images)" if counts[0] and counts[0] != counts[1] else ""


def _by_noise(
    results: Results, title: str, what: str, names: tuple[str, ...], digits: tuple[int, ...], sign: int
) -> str:
    parts = [f"## {title}", what]
    for size in results.sizes("poses"):
        parts.append(provenance(results, "poses", size))
        for noise in NOISES:
            parts += [f"### Noise `{noise}`, size `{size}`", grid(results, size, noise, names, digits)]
        groups = (
            (f"`{scene}`, `{noise}`", [(method, scene_cells(size, scene, noise, method)) for method in POSE_METHODS])
            for noise in NOISES
            for scene in SCENES
            if noise in noises(scene)
        )
        lost = losses(results, groups, names[0], sign)
        if lost:
            parts += [f"Where another method is better than craym ({names[0]}, size `{size}`):", lost]
    return "\n\n".join(parts)


def poses(results: Results) -> str:
    """Pose errors."""
    what = (
        "Mean rotation / translation error. pycolmap runs its own SIFT and exhaustive matching with the true "
        "intrinsics held, from the same images, and never sees the given poses; its errors are those of the images "
        "it registered. nerfacto runs its torch implementation with the SO3xR3 camera optimizer."
    )
    names = ("pose_rotation_deg", "pose_translation_x100")
    text = _by_noise(results, "Poses", what, names, (3, 2), -1)
    return "\n\n".join(part for part in (text, failures(results, "poses")) if part)


def views(results: Results) -> str:
    """Novel views of the same cells."""
    return _by_noise(results, "Novel views", "PSNR in dB / SSIM of test views.", ("psnr", "ssim"), (2, 3), 1)


def surfaces(results: Results) -> str:
    """Surfaces of the same cells."""
    what = (
        "Chamfer distance / F at 0.02, in units of the data, aligned by the cameras alone; only craym and its "
        "variant have a surface. `dtu_scan24` has sparse points: its figure is the one-way distance (completeness)."
    )
    parts = ["## Surfaces", what]
    for size in results.sizes("poses"):
        for noise in NOISES:
            rows = []
            for method in POSE_METHODS:
                if METHODS[method].kind == "craym":
                    rows.append([METHODS[method].label, *_surface_row(results, size, noise, method)])
            head = ["", *(f"`{scene}`" for scene in _with_surface(noise))]
            parts += [f"### Noise `{noise}`, size `{size}`", markdown_table(head, rows)]
    return "\n\n".join(parts)


def _with_surface(noise: str) -> list[str]:
    return [scene for scene in SCENES if scene != "temple_ring" and noise in noises(scene)]


def _surface_row(results: Results, size: str, noise: str, method: str) -> list[str]:
    row = []
    for scene in _with_surface(noise):
        records = results.of(scene_cells(size, scene, noise, method))
        if scene.startswith("dtu"):
            row.append(entry(records, "surface.completeness", 4))
        else:
            row.append(joined(entry(records, "surface.chamfer", 4), entry(records, "surface.f_score_0.02", 3)))
    return row


def ablation(results: Results) -> str:
    """The paper's rows."""
    what = (
        "Rotation in degrees / translation x100 / PSNR in dB from `l2g` noise, without and with stage 0; the rows are "
        "the paper's."
    )
    columns = [(scene, suffix) for scene in ("lego_400", "chair_400") for suffix in ("", "+stage0")]
    parts = ["## Ablation", what]
    for size in results.sizes("ablation"):
        everything, rows = cells("ablation", size), []
        for row in ABLATION:
            line, given = [], []
            for scene, suffix in columns:
                records = results.of([c for c in everything if (c.scene, c.method) == (scene, f"{row}{suffix}")])
                line.append(joined(*_pose_errors(records), entry(records, "psnr", 2)))
                given.append(joined(*_pose_errors(records, "_before")))
            rows += [["poses as given", *given]] * (not rows) + [[METHODS[row].label, *line]]
        head = ["", *(f"`{scene}`{', stage 0' * bool(suffix)}" for scene, suffix in columns)]
        parts += [provenance(results, "ablation", size), markdown_table(head, rows)]
    return "\n\n".join(part for part in (*parts, failures(results, "ablation")) if part)


def _pose_errors(records: list[dict | None], when: str = "") -> list[str]:
    return [entry(records, f"pose_rotation_deg{when}", 3), entry(records, f"pose_translation_x100{when}", 2)]


def outliers(results: Results) -> str:
    """Planted wrong matches."""
    what = (
        "A share of the matches is replaced by wrong ones before training, which starts from `barf` noise. Rotation "
        "in degrees / AUC of the matchability w for right against wrong matches (0.5: it tells nothing)."
    )
    parts = ["## Wrong matches and the matchability w", what]
    for size in results.sizes("outliers"):
        everything, rows = cells("outliers", size), []
        for scene, method in dict.fromkeys((c.scene, c.method) for c in everything):
            line = []
            for share in WRONG:
                chosen = [c for c in everything if (c.scene, c.method, c.wrong) == (scene, method, share)]
                records = results.of(chosen)
                rotation = entry(records, "pose_rotation_deg", 3)
                # Without wrong matches there is nothing to tell from right ones.
                line.append(joined(rotation, entry(records, "matchability.auc", 3)) if share else rotation)
            rows.append([f"`{scene}`, {METHODS[method].label}", *line])
        head = ["", *(f"{round(100 * share)} %" for share in WRONG)]
        parts += [provenance(results, "outliers", size), markdown_table(head, rows)]
    return "\n\n".join(part for part in (*parts, failures(results, "outliers")) if part)


def sparse(results: Results) -> str:
    """Few views."""
    what = (
        "`barf` noise. `lego_400`: the first training view and its nearest neighbours at least 15 degrees apart, test "
        "views from their side; `dtu_scan24`: the first 3, 6, 9 views of PixelNeRF's protocol. Rotation in degrees / "
        "PSNR in dB."
    )
    parts = ["## Few views", what]
    for size in results.sizes("sparse"):
        everything, rows = cells("sparse", size), []
        columns = list(dict.fromkeys((c.scene, c.views) for c in everything))
        for method in SPARSE_METHODS:
            line = []
            for column in columns:
                records = results.of([c for c in everything if (c.scene, c.views) == column and c.method == method])
                line.append(joined(entry(records, "pose_rotation_deg", 2), entry(records, "psnr", 2)))
            rows.append([METHODS[method].label, *line])
        head = ["", *(f"`{scene}`, {count} views" for scene, count in columns)]
        parts += [provenance(results, "sparse", size), markdown_table(head, rows)]
    return "\n\n".join(part for part in (*parts, failures(results, "sparse")) if part)


def speed(results: Results) -> str:
    """Seconds per step, memory, and the way to a PSNR."""
    parts = ["## Speed", "`lego_400` from exact poses. A step is taken with all levels and all losses on."]
    for size in results.sizes("speed"):
        everything, steps, ways = cells("speed", size), [], []
        for cell in everything:
            records = results.of([cell])
            memory = records[0]["peak_memory_mb"] if records[0] is not None else ""
            if SPEED[cell.method].what == "psnr":
                ways.append([f"`{cell.method}`", *_times_to(records)])
            else:
                steps.append([f"`{cell.method}`", entry(records, "ms_per_step", 1), str(memory or "not run")])
        head = ["", *(f"seconds to {target} dB" for target in PSNR_TARGETS)]
        parts += [provenance(results, "speed", size), markdown_table(["", "ms per step", "peak MiB"], steps)]
        parts.append(markdown_table(head, ways))
    return "\n\n".join(part for part in (*parts, failures(results, "speed")) if part)


def _times_to(records: list[dict | None]) -> list[str]:
    record = records[0]
    if record is None or record["status"] != "finished":
        return [entry(records, "curve")] * len(PSNR_TARGETS)
    curve = value(record, "curve")
    assert isinstance(curve, list)
    reached = [[p["train_s"] for p in curve if p["psnr"] >= target] for target in PSNR_TARGETS]
    return [f"{times[0]:.0f}" if times else f"not in {curve[-1]['train_s']:.0f}" for times in reached]


SECTIONS: list[Callable[[Results], str]] = [poses, views, surfaces, ablation, outliers, sparse, speed]
