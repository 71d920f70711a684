"""Matching, training and export, killed at random moments: the next run goes on, and nothing of the data changed."""

import json
import os
import subprocess
import sys
from pathlib import Path


def test_three_kills_are_made_up_for(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    arguments = ["--kills", "3", "--phases", "pairs", "checkpoint", "export", "--output", str(tmp_path / "kills.json")]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.kills", *arguments], capture_output=True, text=True, env=environment
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    result = json.loads((tmp_path / "kills.json").read_text())
    assert [row["signal"] for row in result["kills"]] == ["SIGKILL", "SIGTERM", "SIGINT"]
    assert result["good"] == 3 and [row["number"] for row in result["kills"]] == [0, 1, 2]
