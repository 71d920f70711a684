"""Files are whole or absent; keys follow the content."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.storage import content_key, file_key, read_npz, write_npz


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
    (tmp_path / "x").write_bytes(b"1")
    (tmp_path / "y").write_bytes(b"2")
    assert file_key(tmp_path / "x") != file_key(tmp_path / "y")
    with pytest.raises(InputError, match="Missing image"):
        file_key(tmp_path / "z")
