"""The page of a report: a section per question, a column per run."""

from collections.abc import Callable, Sequence

import numpy as np

from craym_nerfstudio.report import html, plots
from craym_nerfstudio.report.html import Fragment, Page
from craym_nerfstudio.report.runs import RunFolder
from craym_nerfstudio.start.not_adjusted import COLUMNS, not_adjusted

_VIEWS = 3
"""Test views shown."""
_RESULTS = {
    "psnr": ("test PSNR", "{:.2f} dB"),
    "ssim": ("test SSIM", "{:.4f}"),
    "lpips": ("test LPIPS", "{:.4f}"),
    "pose_rotation_deg_before": ("rotation error before", "{:.3f} deg"),
    "pose_rotation_deg": ("rotation error after", "{:.3f} deg"),
    "pose_translation_x100_before": ("translation error before, x100", "{:.3f}"),
    "pose_translation_x100": ("translation error after, x100", "{:.3f}"),
}
_SURFACE = ("chamfer", "accuracy", "completeness", "f_score_0.01", "f_score_0.02", "hausdorff_95", "normal_consistency")
_WORST = 8
"""Cameras listed by name at once; a click shows all."""
_SHOWN_PX = 960
"""Width at which small pictures are shown."""
_BELIEVED = 0.5
"""Belief in a match under which stage 0 counts as having rejected it."""


def build_page(runs: Sequence[RunFolder]) -> Page:
    """The report of one or more runs."""
    title = f"Report of {runs[0].name}" if len(runs) == 1 else f"Report of {len(runs)} runs"
    page = Page(title, "Written by craym report; everything shown lies in this file.")
    for heading, cell in _SECTIONS.items():
        page.add_heading(heading)
        if len(runs) == 1:
            page.add(cell(runs[0]))
        else:
            names = [html.text(run.name, "note") for run in runs]
            cells = [html.joined(name, cell(run)) for name, run in zip(names, runs, strict=True)]
            page.add(html.columns(cells))
    return page


def _summary(run: RunFolder) -> Fragment:
    pipeline, model = run.config.pipeline, run.config.pipeline.model
    start, parser = pipeline.start, pipeline.datamanager.dataparser
    parts = {"KRE": model.enrichment, "MRC": model.coherency}
    parts |= {"L_e": model.epipolar_loss_mult > 0, "L_a": model.point_alignment_loss_mult > 0}
    rows: list[tuple[str, object]] = [
        ("data", run.config.data or pipeline.datamanager.data),
        ("method", run.config.method_name),
        ("steps", "not finished" if run.step is None else run.step + 1),
        ("pose noise", f"{parser.pose_noise}, seed {parser.pose_noise_seed}"),
        ("poses start from", start.pose_init),
        *([("poses end", run.poses)] if run.poses else []),
        ("matcher", "given matches" if start.matches else start.matcher),
        ("parts that are on", ", ".join(name for name, is_on in parts.items() if is_on) or "none"),
        ("background", model.background),
    ]
    for key, (label, form) in _RESULTS.items():
        if key in run.results:
            rows.append((label, form.format(run.results[key])))
    return html.table(rows)


def _cameras(run: RunFolder) -> Fragment:
    record = run.record
    if record is None:
        return html.text(f"The cameras are not known: {run.problem}", "warning")
    figure = html.figure(plots.camera_figure(record.given_c2w, record.refined_c2w, record.reference_c2w), dpi=75)
    if record.reference_c2w is not None:
        return figure
    return html.joined(figure, html.text("No true poses are known: the given cameras are aligned to the refined."))


def _per_camera(run: RunFolder) -> Fragment:
    if run.record is None:
        return html.text(f"The cameras are not known: {run.problem}", "warning")
    columns = plots.per_camera(run.record, run.stage)
    ranked = columns.get("rotation error after [deg]", next(iter(columns.values())))
    order = np.argsort(-ranked)
    rows = [[str(run.record.names[k]), *(f"{values[k]:.3f}" for values in columns.values())] for k in order]
    ordered = "error that is left" if run.record.reference_c2w is not None else "correction"
    caption = f"The {len(rows[:_WORST])} cameras with the largest {ordered}"
    parts = [html.figure(plots.camera_errors(columns)), html.table(rows[:_WORST], ["camera", *columns], caption)]
    if len(rows) > _WORST:
        parts.append(html.folded(f"All {len(rows)} cameras, sorted", html.table(rows, ["camera", *columns])))
    if run.stage is None:
        parts.append(html.text("Epipolar residuals of stage 0 are not recorded for this run.", "note"))
    return html.joined(*parts)


def _compared(run: RunFolder) -> Fragment:
    folder = run.delivered("before_after")
    photos = [] if folder is None else sorted(folder.glob("*_photo.png"))
    if not photos:
        return html.text("No training views were compared; craym export makes them.", "note")
    rows = []
    for photo in photos:
        before, after = (photo.with_name(photo.name.replace("photo", kind)) for kind in ("before", "after"))
        number = int(photo.name.split("_")[0])
        name = f"training view {number}" if run.record is None else str(run.record.names[number])
        captions = ("the scene from the pose as given", "from the refined pose")
        slider = html.compared(before, after, captions, _SHOWN_PX // 2)
        rows.append(html.columns([html.picture(photo, f"photo: {name}", lossy=True, shown_px=_SHOWN_PX // 2), slider]))
    return html.joined(html.text("A right pose shows what the photo shows. Drag the border.", "note"), *rows)


def _rejected(run: RunFolder) -> Fragment:
    stage = run.stage
    if stage is None:
        return html.text("Stage 0 did not run: nothing was judged.", "note")
    doubted = int((stage.match_weight < _BELIEVED).sum())
    count, decision = len(stage.match_weight), stage.decision
    share = 100 * doubted / max(count, 1)
    parts = [
        html.text(f"Poses: {decision.reason}."),
        html.text(f"Matches: stage 0 rejected {doubted} of {count} ({share:.1f} %): their rays miss each other."),
        *(html.text(note, "warning") for note in stage.notes),
    ]
    why = {"kept": "left where it was given", "found": "its photo was recognised in the trained field"}
    others = [
        (name, state, str(rays), "-", why[state])
        for name, state, rays in zip(stage.names, stage.state, stage.num_rays, strict=True)
        if state in why
    ]
    rows = [tuple(row) for row in not_adjusted(stage, {})] + others
    if rows:
        parts.append(html.table(rows, COLUMNS, "Cameras that were not adjusted"))
    else:
        parts.append(html.text("Cameras: every one was adjusted to its rays."))
    return html.joined(*parts)


def _pictures(kind: str, caption: str) -> Callable[[RunFolder], Fragment]:
    def cell(run: RunFolder) -> Fragment:
        numbers = run.view_numbers()
        if not numbers:
            return html.text("No test views were rendered.", "note")
        chosen = sorted({numbers[round(k)] for k in np.linspace(0, len(numbers) - 1, _VIEWS)})
        found = [(number, run.picture(kind, number)) for number in chosen]
        shown_px = _SHOWN_PX if kind == "img" else _SHOWN_PX // 2
        shown = [
            html.picture(path, f"test view {number}{caption}", 1200, lossy=True, shown_px=shown_px)
            for number, path in found
            if path.is_file()
        ]
        return html.joined(*shown) if kind == "img" else html.columns(shown)

    return cell


def _mesh(run: RunFolder) -> Fragment:
    parts = []
    model, picture = run.delivered("mesh_and_cameras.glb"), run.delivered("mesh.png")
    if model is not None:
        caption = (
            "the mesh, the cameras as given (orange) and refined (blue), and matched rays of two of them (green); "
            "drag to turn, scroll to come closer"
        )
        parts.append(html.model(model.read_bytes(), caption))
    if picture is not None:
        parts.append(html.picture(picture, "colours, and lit shape, from four sides and from above", 1500))
    if model is None and picture is None:
        command = f"craym export --load-config {run.folder.resolve()}"
        parts.append(html.text(f"No mesh was exported; this makes one: {command}", "note"))
    if run.surface:
        results = run.surface["results"]
        rows = [(name.replace("_", " "), f"{results[name]:.4f}") for name in _SURFACE if name in results]
        parts.append(html.table(rows, caption=f"Against {run.surface['kind']}"))
        parts.append(html.text(run.surface["clipping"], "note"))
    return html.joined(*parts)


def _curves(run: RunFolder) -> Fragment:
    figure = plots.loss_curves(run.curves)
    if figure is None:
        return html.text("No losses are recorded: train with --vis viewer+tensorboard or tensorboard.", "note")
    return html.figure(figure)


def _timings(run: RunFolder) -> Fragment:
    rows = [(name, f"{seconds:.0f} s") for name, seconds in run.durations_s().items()]
    for tag, label, form in (
        ("Train Iter (time)", "one step, median", "{:.4f} s"),
        ("Train Rays / Sec", "training rays per second, median", "{:.0f}"),
        ("GPU Memory (MB)", "GPU memory, largest", "{:.0f} MB"),
    ):
        if tag in run.curves:
            values = run.curves[tag].values
            figure = float(values.max() if tag.startswith("GPU") else np.median(values))
            rows += [(label, form.format(figure))] if figure else []
    return html.table(rows) if rows else html.text("No times are recorded.", "note")


def _matchability(run: RunFolder) -> Fragment:
    values = None if run.record is None else run.record.matchability
    if values is None:
        return html.text("Not recorded: trained without matches, or before runs recorded it.", "note")
    explained = (
        f"w of {len(values)} random training matches after training (Eq. 3 of the paper): median "
        f"{np.median(values):.3f}, {100 * (values < 0.5).mean():.1f} % below one half. Near 1 the features of both "
        "rays agree; wrong matches and occluded points should lie low."
    )
    return html.joined(html.figure(plots.matchability_histogram(values)), html.text(explained, "note"))


_SECTIONS: dict[str, Callable[[RunFolder], Fragment]] = {
    "Summary": _summary,
    "Views before and after": _compared,
    "Mesh and cameras": _mesh,
    "Cameras before and after": _cameras,
    "Per camera": _per_camera,
    "What was rejected": _rejected,
    "Photo and rendering": _pictures("img", ": photo, rendering"),
    "Differences": _pictures("difference", ": photo less rendering, four times as bright"),
    "Depth": _pictures("depth", ""),
    "Normals": _pictures("normals", ""),
    "Losses": _curves,
    "Times": _timings,
    "Matchability": _matchability,
}
