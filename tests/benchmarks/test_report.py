"""Tables from results: means and spreads, gaps that show, and a page that is never typed."""

import json
from pathlib import Path

import pytest

from benchmarks.report import Results, entry, generate, losses, mean_and_spread, staged, with_results
from benchmarks.report_tables import scene_cells
from benchmarks.tables import ROOT, Cell

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
    return Cell("poses", "lego_400", "barf", "craym", seed)


def test_mean_and_spread_are_those_of_a_sample() -> None:
    assert mean_and_spread([1.0, 2.0, 6.0]) == pytest.approx((3.0, 7.0**0.5))
    assert mean_and_spread([4.0]) == (4.0, None)


def test_entries_tell_what_lacks(tmp_path: Path) -> None:
    chosen = scene_cells("cpu", "lego_400", "barf", "craym")
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
    assert entry(Results.read(tmp_path).of(chosen[:1]), "surface.f_score_0.02") == "0.50"


def test_methods_that_ignore_the_poses_count_for_every_noise() -> None:
    found = [scene_cells("cpu", "lego_400", noise, "pycolmap_global") for noise in ("barf", "real")]
    assert found[0] == found[1] and len(found[0]) == 1


def test_losses_are_told_and_ties_are_not(tmp_path: Path) -> None:
    for seed in range(3):
        store(tmp_path, craym(seed), result=FIGURES | {"pose_rotation_deg": 0.1 + 0.01 * seed})
        stage = Cell("poses", "lego_400", "barf", "stage0", seed)
        store(tmp_path, stage, result={"pose_rotation_deg": 0.05})
        store(tmp_path, Cell("poses", "lego_400", "barf", "photometric", seed), result={"pose_rotation_deg": 0.105})
    results = Results.read(tmp_path)
    methods = [(m, scene_cells("cpu", "lego_400", "barf", m)) for m in ("craym", "stage0", "photometric", "nerfacto")]
    assert losses(results, [("lego", methods)], "pose_rotation_deg", -1) == "- lego: stage 0 alone 0.050, craym 0.110"


def test_page_holds_figures_gaps_failures_and_notes(tmp_path: Path) -> None:
    for seed in range(3):
        store(tmp_path, craym(seed), result=FIGURES | {"pose_rotation_deg": 0.1 * (seed + 1)})
    store(tmp_path, Cell("ablation", "lego_400", "l2g", "kre", 0), status="failed", reason="ValueError: no surface")
    (tmp_path / "notes.md").write_text("We lose where it is dark.\n")
    page = generate(tmp_path, tmp_path / "notes.md")
    assert "0.200 ± 0.100 / 1.00 ± 0.00" in page
    assert "We lose where it is dark." in page
    assert "- `cpu-lego_400-l2g-kre-seed0`: ValueError: no surface" in page
    assert page.count("not run") > 10 and "abacus" in page
    assert "![poses_barf_cpu](images/results_poses_barf_cpu.png)" in page


def test_the_page_of_the_repository_is_the_generated_one(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("needs the repository")
    root = staged(tmp_path)
    fresh = generate(root / "benchmarks" / "results", root / "benchmarks" / "notes.md")
    page = (root / "docs" / "results.md").read_text()
    readme = (ROOT / "README.md").read_text()
    assert with_results(readme, Results.read(root / "benchmarks" / "results")) == readme
    assert page == fresh, "git add benchmarks/results && python -m benchmarks.report --staged, then add docs"
