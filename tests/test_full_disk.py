"""A disk that fills at any byte of any writer: one error that names file and remedy, the old file whole, no litter."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import craym_nerfstudio
from craym_nerfstudio.errors import InputError, disk_full
from craym_nerfstudio.export.cameras import write_points
from craym_nerfstudio.export.mesh import SurfaceMesh, write_mesh
from craym_nerfstudio.judging import write_picture
from craym_nerfstudio.matching.pictures import save_picture
from craym_nerfstudio.report.html import Page
from craym_nerfstudio.report.plots import draw_cameras
from craym_nerfstudio.report.record import RunRecord
from craym_nerfstudio.sfm.reconstruction import write_model
from craym_nerfstudio.stops import load_pycolmap
from craym_nerfstudio.storage import write_folder, write_json, write_npz, write_text
from tests.full_disk import bytes_a_file

POSES = np.tile(np.eye(3, 4), (3, 1, 1))
TRIANGLE = SurfaceMesh(np.eye(3), np.array([[0, 1, 2]]), np.eye(3), np.full((3, 3), 0.5))
GREY = torch.linspace(0, 1, 3000).reshape(50, 20, 3)

WRITERS: dict[str, Callable[[Path], object]] = {
    "a.npz": lambda path: write_npz(path, {"x": np.random.RandomState(0).rand(400)}),
    "a.json": lambda path: write_json(path, {"numbers": list(range(400))}),
    "config.yml": lambda path: write_text(path, "a: 1\n" * 400),
    "record.npz": lambda path: RunRecord(np.array(["a", "b", "c"]), POSES, POSES).save(path),
    "picture.png": lambda path: save_picture(Image.effect_noise((40, 40), 50), path),
    "view.png": lambda path: write_picture(path, GREY),
    "cameras.png": lambda path: draw_cameras(POSES, POSES, None, path),
    "report.html": lambda path: Page("title").write(path),
    "points.ply": lambda path: write_points(np.eye(3), np.zeros((3, 3), np.uint8), path),
    "mesh.ply": lambda path: write_mesh(TRIANGLE, path),
    "mesh.obj": lambda path: write_mesh(TRIANGLE, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_keeps_the_old_file_whole(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    before = path.read_bytes()
    for limit in (0, len(before) // 2, len(before) - 1):
        with bytes_a_file(limit), pytest.raises(InputError, match=rf"^Disk full .*{re.escape(name)}\. Free some space"):
            WRITERS[name](path)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == [name]


def test_a_model_that_pycolmap_cut_off_is_not_kept(tmp_path: Path) -> None:
    pycolmap = load_pycolmap()
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(model="PINHOLE", width=10, height=10, params=[9, 9, 5, 5], camera_id=1)
    model.add_camera_with_trivial_rig(camera)
    for number in range(1, 50):
        image = pycolmap.Image(name=f"{number:05d}.png", camera_id=1, image_id=number)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d())
    folder = tmp_path / "photos"
    write_folder(folder, lambda place: write_model(model, place))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with bytes_a_file(500), pytest.raises(InputError, match=r"Cannot write .*photos\. Free some space"):
        write_folder(folder, lambda place: write_model(model, place))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert os.listdir(tmp_path) == ["photos"]


def test_nobody_writes_past_the_storage() -> None:
    """Files are written by `storage`; who writes copies that go, folders, into its files or nowhere is named."""
    package = Path(craym_nerfstudio.__file__).parent
    allowed = {"storage.py", "sfm/reconstruction.py", "data/colmap_model.py", "photos/video.py", "export/pictures.py"}
    allowed |= {"preflight/mend.py", "stops.py"}
    writers = set()
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            mode = [each.value for each in node.args if isinstance(each, ast.Constant)]
            opens = name == "open" and any(str(value)[:1] in "wax" for value in mode if value)
            ours = isinstance(node.func, ast.Attribute) and name == "write_text"
            if opens or ours or name in ("write_bytes", "write_binary", "imwrite", "tofile", "savetxt"):
                writers.add(file.relative_to(package).as_posix())
    assert writers <= allowed, writers - allowed


def test_a_full_disk_met_by_others_ends_with_one_line(tmp_path: Path) -> None:
    program = """
from craym_nerfstudio.errors import show_input_errors
from tests.full_disk import bytes_a_file
show_input_errors()
with bytes_a_file(100), open("events.bin", "wb", buffering=0) as file:
    for _ in range(3):
        if file.write(bytes(60)) < 60:
            file.write(b"rest")
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: Disk full while writing. Free some space")
    assert "Traceback" not in ended.stderr
    assert disk_full(OSError(5, "Input/output error")) is None and disk_full(ValueError()) is None
