"""The findings for the terminal, for programs, and as one HTML page with pictures."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from craym_nerfstudio.console import console
from craym_nerfstudio.matching.matches import groups_in_words
from craym_nerfstudio.matching.pictures import draw_pair, pair_ranking
from craym_nerfstudio.preflight.check import Checked
from craym_nerfstudio.preflight.figures import camera_figure, residual_figure
from craym_nerfstudio.report import html
from craym_nerfstudio.report.html import Page
from craym_nerfstudio.start.region import RegionFigures

_COLORS = {"good": "green", "repairable": "yellow", "hopeless": "red"}
_MOST_LISTED = 12


def figures(checked: Checked, region: RegionFigures | None = None) -> dict[str, str]:
    """The figures of the summary, named and written out."""
    sizes = np.sort(np.bincount(checked.component))[::-1]
    groups = groups_in_words(sizes.tolist())
    given, remaining = checked.diagnosis.given, checked.diagnosis.remaining
    rows = {
        "images": str(len(checked.views.names)),
        "matches": f"{len(checked.matches)} in {len(checked.matches.pairs)} of {checked.tried} pairs "
        f"({checked.matches.detector})",
        "images that matches connect": groups,
        "epipolar distance as given": _px(checked.given_px),
        "... after repair and stage 0": _px(checked.adjusted_px),
        "relative rotations": f"{given.rotation_deg:.1f} degrees off those in the images as given",
    }
    if checked.diagnosis.findings:
        rows["relative rotations"] += f", {remaining.rotation_deg:.1f} repaired"
    if checked.stage is not None:
        rows["cameras after stage 0"] = checked.stage.counts_in_words
    if region is not None:
        rows["region that is trained"] = region.in_words
    return rows


def _px(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    return f"{np.median(known):.2f} px (worst camera {known.max():.2f})" if len(known) else "unknown"


def print_summary(checked: Checked, page_path: Path, region: RegionFigures | None = None) -> None:
    """The verdict, the findings with their remedies, the figures and the suspicious cameras on the terminal."""
    verdict = checked.verdict
    table = Table(title="Preflight", show_header=False)
    for name, value in figures(checked, region).items():
        table.add_row(name, value)
    console.print(table)
    for each in checked.suspicious[:_MOST_LISTED]:
        console.print(Text.assemble((each.name, "yellow"), f": {'; '.join(each.reasons)}"))
    if len(checked.suspicious) > _MOST_LISTED:
        console.print(f"... and {len(checked.suspicious) - _MOST_LISTED} more suspicious cameras, see the report")
    for finding in checked.diagnosis.findings:
        console.print(Text.assemble((finding.kind, "bold"), f": {finding.problem}.\n  -> {finding.remedy}"))
    grade = (verdict.grade, f"bold {_COLORS[verdict.grade]}")
    console.print(Text.assemble(grade, f": {verdict.reason}. {verdict.advice}"))
    console.print(f"Report: {page_path}")


def summary(checked: Checked, region: RegionFigures | None = None) -> dict[str, Any]:
    """Everything in figures, for JSON."""
    names = checked.views.names
    stage = checked.stage
    cameras = {
        name: {
            "epipolar_given_px": _number(checked.given_px[k]),
            "epipolar_adjusted_px": _number(checked.adjusted_px[k]),
            "moved_deg": _number(checked.moved_deg[k]),
            "group": int(checked.component[k]),
            "state": None if stage is None else stage.state[k],
        }
        for k, name in enumerate(names)
    }
    return {
        "grade": checked.verdict.grade,
        "exit_status": checked.verdict.exit_status,
        "reason": checked.verdict.reason,
        "advice": checked.verdict.advice,
        "findings": [vars(finding) for finding in checked.diagnosis.findings],
        "matches": len(checked.matches),
        "pairs": len(checked.matches.pairs),
        "groups": sorted(np.bincount(checked.component).tolist(), reverse=True),
        "disagreement_given_deg": vars(checked.diagnosis.given),
        "disagreement_repaired_deg": vars(checked.diagnosis.remaining),
        "epipolar_given_px": _number(_median(checked.given_px)),
        "epipolar_adjusted_px": _number(_median(checked.adjusted_px)),
        "region": None if region is None else _region_numbers(region),
        "suspicious": {each.name: list(each.reasons) for each in checked.suspicious},
        "cameras": cameras,
    }


def _region_numbers(region: RegionFigures) -> dict[str, Any]:
    shares = {"points_inside": _number(region.points), "rays_inside": _number(region.rays)}
    return {"center": region.center.tolist(), "radius": region.radius, **shares}


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _number(value: Any) -> float | None:
    """JSON knows no NaN."""
    return float(value) if np.isfinite(value) else None


def page(checked: Checked, pictures: int, region: RegionFigures | None = None) -> Page:
    """The report as a page that needs no other file; `pictures` of the best and of the worst pairs each."""
    views, verdict = checked.views, checked.verdict
    result = Page("Preflight: poses against images", f"{len(views.names)} images in {views.paths[0].parent}")
    result.add_heading(f"Verdict: {verdict.grade}")
    kind = "" if verdict.grade == "good" else "warning"
    result.add(html.text(f"{_sentence(verdict.reason)} {verdict.advice}", kind))
    for finding in checked.diagnosis.findings:
        result.add_heading(f"{finding.kind}", 3)
        result.add(html.text(_sentence(finding.problem), "warning"))
        result.add(html.text(f"What to change: {finding.remedy}"))
        if "pose_of" in finding.details:
            rows = list(dict(finding.details["pose_of"]).items())  # type: ignore[call-overload]
            result.add(html.table(rows, ("image", "needs the pose given to")))
    result.add_heading("Figures")
    result.add(html.table(list(figures(checked, region).items())))
    for note in [checked.stage.decision.reason, *checked.stage.notes] if checked.stage is not None else []:
        result.add(html.text(f"Stage 0: {note}", "note"))
    _add_cameras(result, checked, region)
    _add_pairs(result, checked, pictures)
    return result


def _sentence(content: str) -> str:
    return f"{content[:1].upper()}{content[1:]}."


def _add_cameras(result: Page, checked: Checked, region: RegionFigures | None) -> None:
    names, stage = checked.views.names, checked.stage
    result.add_heading("Cameras")
    if stage is not None:
        red = [each.camera for each in checked.suspicious]
        caption = "Dots: positions; lines: viewing directions; red: suspicious. Aligned to each other."
        sphere = None
        if region is not None:
            caption += " Circle: the region that is trained; --region-center and --region-radius change it."
            sphere = (region.center, region.radius)
        plot = camera_figure(checked.views.c2w, stage.c2w, red, names, sphere)
        result.add(html.figure(plot, caption, dpi=80))
    if np.isfinite(checked.given_px).any():
        result.add(html.figure(residual_figure(checked.given_px, checked.adjusted_px, names), dpi=80))
    result.add_heading("Suspicious cameras", 3)
    if checked.suspicious:
        reasons = [(each.name, "; ".join(each.reasons)) for each in checked.suspicious]
        result.add(html.table(reasons, ("image", "why")))
    else:
        result.add(html.text("None."))
    result.add_heading("All cameras", 3)
    rows = []
    for k, name in enumerate(names):
        figures_of_camera = (checked.given_px[k], checked.adjusted_px[k], checked.moved_deg[k])
        shown = ["-" if not np.isfinite(value) else f"{value:.2f}" for value in figures_of_camera]
        state = "-" if stage is None else stage.state[k]
        rows.append((name, *shown, str(checked.component[k]), state))
    header = ("image", "given, px", "adjusted, px", "turned, degrees", "group", "stage 0")
    result.add(html.table(rows, header, "Median epipolar distances; how far stage 0 turned each camera."))


def _add_pairs(result: Page, checked: Checked, pictures: int) -> None:
    ranking = pair_ranking(checked.matches)
    result.add_heading("Matched pairs")
    if not len(ranking):
        result.add(html.text("None."))
        return
    count = min(pictures, len(ranking))
    for label, chosen in (("Best", ranking[:count]), ("Worst", ranking[max(count, len(ranking) - count) :])):
        for pair in chosen:
            drawn = np.asarray(draw_pair(checked.views, checked.matches, int(pair)))
            result.add(html.picture(drawn, f"{label} of the verified pairs", max_side_px=1300, lossy=True))
