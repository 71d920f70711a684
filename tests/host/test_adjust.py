"""`craym adjust` on tiny data: the frame of the files, what is written, and what cannot be done."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from craym_nerfstudio.cli.main import main
from craym_nerfstudio.data.scene import detect_and_read
from craym_nerfstudio.geometry.alignment import pose_errors
from tests.host.tiny_run import MATCHES_NAME, TRAIN, TinyData

SAMPLE = Path(__file__).parents[2] / "samples" / "still_life"


def adjust(data: TinyData, output: Path, *flags: str) -> dict:
    """The summary of an adjustment of noisy poses to exact matches."""
    matches = ("--matches", str(data.folder / MATCHES_NAME), "--cache-dir", str(output / "cache"))
    main(["adjust", "--data", str(data.folder), "--output", str(output), *matches, "--pose-noise", "l2g-low", *flags])
    return json.loads((output / "summary.json").read_text())


def test_exact_matches_give_exact_poses_in_the_frame_of_the_data(
    tiny_data: TinyData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = adjust(tiny_data, tmp_path)
    assert summary["pose_rotation_deg_before"] > 1 and summary["pose_rotation_deg"] < 0.02
    assert summary["points"] > 50 and summary["mean_reprojection_px"] < 0.05
    shown = capsys.readouterr().out
    assert summary["not_adjusted"] == []
    assert "rotation error" in shown and f"ns-train splatfacto --data {tmp_path}" in shown
    written = detect_and_read(tmp_path)
    train = written.subset(written.train)
    assert len(train) == TRAIN and len(written.subset(written.test)) == 3
    order = [next(n for n, path in enumerate(train.paths) if path.name == f"r_{k}.png") for k in range(TRAIN)]
    poses, truth = torch.from_numpy(train.c2w[order]), torch.from_numpy(tiny_data.cameras.train_c2w)
    errors = pose_errors(poses, truth)
    assert errors.rotation_deg_mean == pytest.approx(summary["pose_rotation_deg"], abs=1e-4)
    # The noise averages out: the frame of noisy poses is nearly that of the true ones.
    assert float(errors.similarity.scale) == pytest.approx(1.0, abs=0.1)
    assert (tmp_path / "cameras.png").stat().st_size > 10_000
    for name in ("cameras.csv", "sparse_pc.ply", "colmap/sparse/0/points3D.bin"):
        assert (tmp_path / name).is_file()


def test_fixed_cameras_keep_their_poses_to_the_last_digit(tiny_data: TinyData, tmp_path: Path) -> None:
    adjust(tiny_data, tmp_path, "--fixed-cameras", "r_3.png", "r_7.png")
    content = json.loads((tmp_path / "transforms.json").read_text())
    poses = {Path(frame["file_path"]).name: np.array(frame["transform_matrix"]) for frame in content["frames"][:TRAIN]}
    rows = (tmp_path / "cameras.csv").read_text().splitlines()[1:]
    fixed = {row.split(",")[0]: row.split(",") for row in rows if ",fixed," in row}
    assert set(fixed) == {"train/r_3.png", "train/r_7.png"}
    for name, row in fixed.items():
        assert float(row[2]) == float(row[3]) == 0.0
        np.testing.assert_allclose(poses[Path(name).name][:3, 3], [float(value) for value in row[-6:-3]], atol=1e-9)


def test_without_matches_there_is_nothing_to_adjust(
    tiny_data: TinyData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["adjust", "--data", str(tiny_data.folder), "--output", str(tmp_path), "--matcher", "none"])
    assert stopped.value.code == 2
    assert "nothing is adjusted" in capsys.readouterr().err


def test_exact_poses_are_not_bent_to_fit_a_wrong_lens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten neighbours of the bundled sample, their principal point a fifth of the image off: the poses stay."""
    sample = json.loads((SAMPLE / "transforms_train.json").read_text())
    matrices = np.array([frame["transform_matrix"] for frame in sample["frames"]])
    nearest = np.argsort(np.linalg.norm(matrices[:, :3, 3] - matrices[0, :3, 3], axis=-1))[:10]
    content = {
        "camera_angle_x": sample["camera_angle_x"],
        "cx": 140.0,
        "frames": [
            {
                "file_path": f"{(SAMPLE / sample['frames'][k]['file_path']).resolve()}.png",
                "transform_matrix": matrices[k].tolist(),
            }
            for k in nearest
        ],
    }
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    output = tmp_path / "adjusted"
    flags = ("--matcher", "sift", "--cache-dir", str(tmp_path / "cache"))
    main(["adjust", "--data", str(tmp_path), "--output", str(output), *flags])
    given, written = detect_and_read(tmp_path), detect_and_read(output)
    np.testing.assert_allclose(written.c2w, given.c2w, atol=1e-9)
    assert "correct them, or let --refine-intrinsics do it" in capsys.readouterr().out


def test_options_of_the_trained_region_are_not_offered(capsys: pytest.CaptureFixture[str]) -> None:
    """They would do nothing; `craym adjust` has the other options of the data."""
    for flags in (["--help"], ["--data", ".", "--output", "out", "--region-scale", "2"]):
        with pytest.raises(SystemExit) as stopped:
            main(["adjust", *flags])
        assert bool(stopped.value.code) is ("--region-scale" in flags)
        shown = "".join(capsys.readouterr())
        assert ("region" in shown) is ("--region-scale" in flags)
        assert ("--pose-noise" in shown) is ("--help" in flags)
