"""Files are whole or absent; keys follow the content."""

import errno
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.storage import alone, content_key, file_key, from_cache, read_npz, steady, write_npz


def test_round_trip(tmp_path: Path) -> None:
    write_npz(tmp_path / "deep" / "a.npz", {"x": np.arange(3), "name": np.array("sift")})
    arrays = read_npz(tmp_path / "deep" / "a.npz")
    assert arrays["x"].tolist() == [0, 1, 2] and str(arrays["name"]) == "sift"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.npz"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_names_the_file_and_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "a.npz"
    write_npz(path, {"x": np.array([1])})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(InputError, match=r"Disk full while saving: .*a\.npz\. Free some space"):
        write_npz(path, {"x": np.array([2])})
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]
    assert read_npz(path)["x"].tolist() == [1]


def test_interrupt_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_npz(tmp_path / "a.npz", {"x": np.array([2])})
    assert list(tmp_path.iterdir()) == []


def test_unwritable_place_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        write_npz(tmp_path / "file" / "a.npz", {})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 but not much more", b"\x93NUMPY\x01\x00", b"text"])
def test_damaged_files_are_recognised(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match="Damaged file"):
        read_npz(tmp_path / "a.npz")


def test_truncated_archive_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_npz(path, {"x": np.arange(1000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="Damaged file"):
        read_npz(path)


def test_overwritten_bytes_are_recognised(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_npz(path, {"x": np.arange(1000)})
    whole = path.read_bytes()
    middle = len(whole) // 3
    path.write_bytes(whole[:middle] + b"\xff" * 64 + whole[middle + 64 :])
    with pytest.raises(InputError, match="Damaged file"):
        read_npz(path)


def test_keys_follow_the_content(tmp_path: Path) -> None:
    base = content_key("a", 1, np.arange(4))
    assert base == content_key("a", 1, np.arange(4))
    others = [
        content_key("a", 1, np.arange(5)),
        content_key("a", 1, np.arange(4).reshape(2, 2)),
        content_key("a", 1, np.arange(4).astype(np.float64)),
        content_key("a1", np.arange(4)),
        content_key(1, "a", np.arange(4)),
    ]
    assert len({base, *others}) == 6
    poses = np.array([0.3, -1e-17])
    assert content_key(steady(poses)) == content_key(steady(poses + 1e-16)) != content_key(steady(poses + 1e-8))
    (tmp_path / "x").write_bytes(b"1")
    (tmp_path / "y").write_bytes(b"2")
    assert file_key(tmp_path / "x") != file_key(tmp_path / "y")
    with pytest.raises(InputError, match="Missing image"):
        file_key(tmp_path / "z")


def test_threads_that_write_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Two copies of an image have one place in the cache."""
    together = threading.Barrier(8)

    def write(number: int) -> None:
        together.wait()
        write_npz(tmp_path / "a.npz", {"x": np.full(1000, number)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert len(set(read_npz(tmp_path / "a.npz")["x"].tolist())) == 1
    assert os.listdir(tmp_path) == ["a.npz"]


def test_a_second_run_waits_for_the_first_and_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.npz"
    program = f"""
from pathlib import Path
from craym_nerfstudio.storage import alone
with alone(Path({str(path)!r})):
    print("inside", flush=True)
    input()
"""
    command = [sys.executable, "-c", program]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None and first.stdout.readline() == "inside\n"
    second = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert second.stdout is not None
    assert second.stdout.readline() == f"Another run is computing {path}: waiting for it\n"
    first.send_signal(signal.SIGKILL)  # the lock ends with the process
    assert second.stdout.readline() == "inside\n"
    second.communicate("\n")
    assert second.returncode == 0


def test_a_cache_without_locks_or_rights_is_used_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with alone(tmp_path / "file" / "a.npz"):
        pass


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), ValueError("x"), InputError("x"), AssertionError()])
def test_a_cache_that_is_none_is_computed_again(
    tmp_path: Path, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(_: Path) -> None:
        raise error

    (tmp_path / "a.npz").write_bytes(b"")
    assert from_cache(tmp_path / "a.npz", load) is None
    assert "Not usable, computed again" in capsys.readouterr().out


def test_a_cache_from_a_stranger_runs_nothing(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "pwned",)

    np.savez(tmp_path / "a.npz", x=np.array([Payload()], dtype=object))
    with pytest.raises(InputError, match="Damaged file"):
        read_npz(tmp_path / "a.npz")
    assert not (tmp_path / "pwned").exists()


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    first = file_key(tmp_path / "a")
    assert file_key(tmp_path / "a") == first
    (tmp_path / "a").write_bytes(b"two")
    os.utime(tmp_path / "a", ns=(1, 1))
    assert file_key(tmp_path / "a") != first
