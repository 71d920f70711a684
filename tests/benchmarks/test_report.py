"""Tables from results: means and spreads, gaps that show, and figures that are never typed."""

import json
import statistics
from pathlib import Path

import pytest

from benchmarks.cell_tables import peers, shipped
from benchmarks.report import draw, page, series, with_results
from benchmarks.results import Results, entries, entry, finished, mean_and_spread
from benchmarks.suite import RESULTS, ROOT, Cell, cells
from benchmarks.tables import basin

FIGURES = {"pose_rotation_deg": 0.1, "pose_translation_x100": 1.0, "psnr": 30.0, "ssim": 0.9}


def store(folder: Path, cell: Cell, **content: object) -> None:
    """A result as the runner records it."""
    record = {**vars(cell), "status": "finished", "commit": 40 * "a", "seconds": 60.0, "peak_memory_mb": 100}
    record["machine"] = {"device": "cpu", "cpu": "abacus"}
    path = folder / cell.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**record, **content}))


def craym(seed: int) -> Cell:
    """A cell of the first table."""
    return Cell("shipped", "lego_400", "barf", "craym", seed)


CRAYM = [craym(seed) for seed in range(3)]


def test_mean_and_spread_are_those_of_a_sample() -> None:
    assert mean_and_spread([1.0, 2.0, 6.0]) == pytest.approx((3.0, 7.0**0.5))
    assert mean_and_spread([4.0]) == (4.0, None)


def test_entries_tell_what_lacks(tmp_path: Path) -> None:
    chosen = CRAYM
    assert entry(Results.read(tmp_path).of(chosen), "psnr") == "not run"
    store(tmp_path, craym(0), status="failed", reason="killed by SIGKILL")
    assert entry(Results.read(tmp_path).of(chosen), "psnr") == "failed"
    for seed, psnr in enumerate((29.0, 30.0, 34.0)):
        store(tmp_path, craym(seed), result={"psnr": psnr})
    records = Results.read(tmp_path).of(chosen)
    assert entry(records, "psnr") == "31.00 ± 2.65"
    assert entry(records[:1], "psnr", 1) == "29.0"
    assert entry([*records[:2], None], "psnr") == "29.50 ± 0.71 (2 of 3)"
    assert entry(records, "surface.chamfer") == "-"
    store(tmp_path, craym(0), result={"surface": {"f_score_0.02": 0.5}})
    records = Results.read(tmp_path).of(chosen[:1])
    assert entry(records, "surface.f_score_0.02") == entry(records, "psnr|surface.f_score_0.02") == "0.50"
    assert entries(records, (("surface.f_score_0.02", 1), ("psnr", 2))) == "0.5"


def test_images_that_lack_are_counted(tmp_path: Path) -> None:
    chosen = [cell for cell in cells("peers") if (cell.scene, cell.method) == ("lego_400", "pycolmap_global")]
    store(tmp_path, chosen[0], result=FIGURES | {"registered": 2, "images": 3})
    assert entries(Results.read(tmp_path).of(chosen), (("psnr", 1), ("ssim", 1))) == "30.0 / 0.9 (2 of 3 images)"


def test_methods_stand_beside_ours_in_the_column_of_their_scene() -> None:
    columns = {label: list(row) for groups, _ in peers() for label, row in groups.items()}
    assert len(set(map(tuple, columns.values()))) == 1 and len(columns) == 6
    assert columns["pycolmap, global, without the poses"][:2] == ["`still_life` barf", "`chair_400` barf"]
    assert all(len(each) == 1 for groups, _ in peers() for row in groups.values() for each in row.values())


def test_page_holds_figures_gaps_failures_and_notes(tmp_path: Path) -> None:
    for seed in range(3):
        store(tmp_path, craym(seed), result=FIGURES | {"pose_rotation_deg": 0.1 * (seed + 1)})
    store(tmp_path, Cell("ablation", "lego_400", "l2g", "kre", 0), status="failed", reason="ValueError: no surface")
    found = page(Results.read(tmp_path), "## Peers\n\nWe lose where it is dark.\n\n## Ways\n\nNone.\n")
    parts = dict(part.split("\n\n", 1) for part in found.split("\n## ")[1:])
    assert "| craym-lite | not run | 0.100 / 1.00 / 30.00 |" in parts["Ablation"]
    assert "- `shipped-lego_400-l2g-kre-seed0`: ValueError: no surface" in parts["Ablation"]
    assert (
        "We lose where it is dark." in parts["Peers"]
        and "![Rotation errors](images/results_peers.png)" in parts["Peers"]
    )
    assert parts["Ways"].strip() == "None." and list(parts)[-1] == "Ways"
    assert found.count("not run") > 10 and "abacus" in found


def test_bars_are_drawn_of_what_is_there(tmp_path: Path) -> None:
    store(tmp_path, craym(0), result=FIGURES | {"pose_rotation_deg_before": 12.0})
    found = series(Results.read(tmp_path))
    assert found == {"poses as given": {"`lego_400` barf": 12.0}, "craym-lite": {"`lego_400` barf": 0.1}}
    draw(found, tmp_path / "images" / "bars.png")
    assert (tmp_path / "images" / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_documents_are_made_of_the_committed_results() -> None:
    results = Results.read(RESULTS)
    readme = with_results((ROOT / "README.md").read_text(), results)
    first = results.of(cell for cell in cells("shipped") if cell.scene == "chair_400")
    assert f"{statistics.median(finished(first, 'psnr')):.2f}" in readme and shipped(results) in page(results, "")
    content = json.loads((RESULTS / "train_step.json").read_text())
    assert f"cpu {content['ms_per_step']['cpu']}" in page(results, "")
    for title in ("Stage 0 at full image size", "Hash grid", "Preflight", "The epipolar loss alone", "Memory"):
        section = page(results, "").split(f"\n## {title}\n")[1].split("\n## ")[0]
        assert section.count("\n|") > 3 and "not run" not in section


def test_basin_shows_what_each_way_comes_to(tmp_path: Path) -> None:
    def run(way: str, seed: int, end: float) -> dict:
        figures = ((7.0 + seed, 80.0), (end, 9.0))
        errors = [{"rotation_deg": rotation, "translation_x100": shift} for rotation, shift in figures]
        return {"noise": "l2g", "seed": seed, "way": way, "errors": errors}

    machine = {"device": "cpu", "cpu": "abacus", "commit": "a", "torch": "2", "threads": 1}
    content = {"command": "python -m benchmarks.basin", "machine": machine}
    runs = [run("SE3", 0, 2.0), run("6D", 0, 3.0), run("SE3", 1, 2.5)]
    (tmp_path / "basin.json").write_text(json.dumps({**content, "scene": "lego", "steps": 800, "runs": runs}))
    table = basin(Results.read(tmp_path))[-1].splitlines()
    assert "| poses as given | 7.00 / 80.0 | 8.00 / 80.0 |" in table
    assert "| SE3 | 2.00 / 9.0 | 2.50 / 9.0 |" in table
    assert "| 6D | 3.00 / 9.0 | - |" in table
