"""What a run tells its user before it trains, and when it has finished: tables, a JSON file and pictures."""

from pathlib import Path

from rich.table import Table

from craym_nerfstudio.console import console, typed
from craym_nerfstudio.export.pictures import before_and_after
from craym_nerfstudio.fields.encoding import choose_backend
from craym_nerfstudio.pipeline import CraymPipeline
from craym_nerfstudio.report.plots import draw_cameras
from craym_nerfstudio.report.record import METRICS_NAME, RECORD_NAME, record_run
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

_LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
_LOCAL_VIEWER = "on this machine alone; --viewer.websocket-host 0.0.0.0 lets others in"


def announce_training(pipeline: CraymPipeline, start_step: int, steps: int, viewer_host: str | None) -> None:
    """Print what was found before the first step: images, matches, poses, and what runs where.

    Args:
        viewer_host: address on which the viewer listens; None without a viewer.
    """
    manager, start = pipeline.datamanager, pipeline.start
    table = Table(title="About to train", show_header=False)
    sizes = manager.train_dataset.metadata["image_size_px"]
    images = f"{len(manager.train_dataset)} to train on, {len(manager.eval_dataset)} to test"
    table.add_row("images", f"{images}; up to {int(sizes[:, 0].max())} x {int(sizes[:, 1].max())} px")
    if start is not None and start.matches is not None:
        pairs = len(start.matches.pairs)
        table.add_row("matches", f"{len(start.matches)} in {pairs} pairs of images ({start.matches.detector})")
    table.add_row("poses", _start_of_poses(pipeline))
    backend, reason = choose_backend(pipeline.device, pipeline.craym_model.config.sdf_field.encoding)
    table.add_row("runs on", f"{pipeline.device}, hash grid by {backend} ({reason})")
    table.add_row("finding poses", f"took {pipeline.start_seconds:.0f} s")
    table.add_row("training", f"steps {start_step} to {start_step + steps}; the table below tells the time left")
    if viewer_host is not None:
        table.add_row("viewer", _LOCAL_VIEWER if viewer_host in _LOCAL_HOSTS else f"listens on {viewer_host}")
    console.print(table)


def _start_of_poses(pipeline: CraymPipeline) -> str:
    stage = pipeline.stage_zero
    if stage is None:
        return "as given; stage 0 has not run"
    before, after = stage.median_epipolar_px
    text = f"cameras {stage.counts_in_words}; epipolar distance {before:.2f} -> {after:.2f} px"
    metrics = pipeline.pose_metrics()
    if metrics:
        text += f"; rotation error {metrics['pose_rotation_deg_before']:.2f} -> {metrics['pose_rotation_deg']:.3f} deg"
    if pipeline.craym_model.camera_optimizer.is_held:
        text += "; training holds them"
    return text


def report_training(pipeline: CraymPipeline, run_dir: Path, step: int) -> None:
    """Evaluate a finished run, print its figures and leave ``metrics.json``, pictures and a record in its folder."""
    if pipeline.datamanager.local_rank != 0:
        return
    results: dict[str, float] = {}
    if len(pipeline.datamanager.eval_dataset):
        results = pipeline.get_average_eval_image_metrics(step, run_dir / "test_views")
    else:
        results = pipeline.pose_metrics()
    poses = pipeline.craym_model.camera_optimizer.in_words
    write_json(run_dir / METRICS_NAME, {"step": step, "poses": poses, "results": results})
    record_run(pipeline).save(run_dir / RECORD_NAME)
    before_and_after(pipeline, run_dir / "before_after")
    given, refined = pipeline.given_c2w().numpy(), pipeline.refined_c2w().numpy()
    draw_cameras(given, refined, pipeline.datamanager.reference, run_dir / "cameras.png")
    table = Table(title="Finished", show_header=False)
    for name, label in _LABELS.items():
        if name in results:
            table.add_row(label, f"{results[name]:.3f}")
    if "pose_rotation_deg" not in results:
        table.add_row("pose errors", "unknown: no true poses given (craym-data --reference-poses)")
    table.add_row("poses", poses)
    console.print(table)
    # Not in the table, which cuts a long path to the width of the terminal.
    console.print(f"{run_dir}: figures in {METRICS_NAME}; pictures in test_views/, before_after/ and cameras.png")
    console.print("What to do next:")
    for command in _next_steps(run_dir):
        console.print(f"  {command}")


def _next_steps(run_dir: Path) -> list[str]:
    """Commands that go on from a finished run."""
    run, config = typed(run_dir), typed(run_dir / "config.yml")
    return [
        f"craym report {run}    # one page: views and cameras before and after, errors, losses",
        f"craym export --load-config {run}    # textured mesh, splats, refined data set, report",
        f"ns-viewer --load-config {config} --viewer.websocket-host 127.0.0.1",
    ]
