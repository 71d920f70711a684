"""What a finished run tells its user: a table, a JSON file and pictures."""

from pathlib import Path

from rich.table import Table

from craym_nerfstudio.console import console
from craym_nerfstudio.pipeline import CraymPipeline
from craym_nerfstudio.report.pictures import draw_cameras
from craym_nerfstudio.report.record import RECORD_NAME, record_run
from craym_nerfstudio.storage import write_json

_LABELS = {
    "psnr": "test PSNR [dB]",
    "ssim": "test SSIM",
    "lpips": "test LPIPS",
    "pose_rotation_deg_before": "rotation error before [deg]",
    "pose_rotation_deg": "rotation error after [deg]",
    "pose_translation_x100_before": "translation error before [x100]",
    "pose_translation_x100": "translation error after [x100]",
}


def report_training(pipeline: CraymPipeline, run_dir: Path, step: int) -> None:
    """Evaluate a finished run, print its figures and leave ``metrics.json``, pictures and a record in its folder."""
    if pipeline.datamanager.local_rank != 0:
        return
    results: dict[str, float] = {}
    if len(pipeline.datamanager.eval_dataset):
        results = pipeline.get_average_eval_image_metrics(step, run_dir / "test_views")
    else:
        results = pipeline.pose_metrics()
    write_json(run_dir / "metrics.json", {"step": step, "results": results})
    record_run(pipeline).save(run_dir / RECORD_NAME)
    given, refined = pipeline.given_c2w().numpy(), pipeline.refined_c2w().numpy()
    draw_cameras(given, refined, pipeline.datamanager.reference, run_dir / "cameras.png")
    table = Table(title="CRAYM run", show_header=False)
    for name, label in _LABELS.items():
        if name in results:
            table.add_row(label, f"{results[name]:.3f}")
    if "pose_rotation_deg" not in results:
        table.add_row("pose errors", "unknown: no true poses given (craym-data --reference-poses)")
    table.add_row("run", str(run_dir))
    table.add_row("pictures", "test_views/, cameras.png")
    console.print(table)
