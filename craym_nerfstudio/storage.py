"""Files that are whole or absent: written atomically, and found by keys made of what they were computed from."""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from filelock import FileLock, Timeout

from craym_nerfstudio.console import console, warn
from craym_nerfstudio.errors import DISK_FULL, InputError

Loaded = TypeVar("Loaded")


def content_key(*parts: Any) -> str:
    """Hex digest of arrays, bytes, and anything with a stable `repr`; equal exactly when the parts are equal."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            part = np.ascontiguousarray(part).tobytes()
        data = part if isinstance(part, bytes) else repr(part).encode()
        # The length keeps ("ab", "c") apart from ("a", "bc").
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()[:24]


def steady(values: np.ndarray) -> np.ndarray:
    """Numbers of about 1 without their last digits, in which processors and libraries differ: for `content_key`."""
    return np.round(np.asarray(values, dtype=np.float64), 9) + 0.0  # -0.0 becomes 0.0


def file_key(path: Path) -> str:
    """Hex digest of a file's bytes, which are read once by a process as long as they stay.

    Raises:
        InputError: the file is missing or cannot be read.
    """
    try:
        status = path.stat()
        return _digest(path.absolute(), status.st_size, status.st_mtime_ns)
    except FileNotFoundError as error:
        raise InputError("Missing image", path, "Put the file there, or remove it from the list of images.") from error
    except OSError as error:
        raise InputError(f"Unreadable file ({error.strerror})", path, "Check its type and permissions.") from error


@functools.lru_cache(maxsize=100_000)
def _digest(path: Path, *_state: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:24]


def write_atomically(path: Path, write: Callable[[BinaryIO], object], beside: Path | None = None) -> None:
    """Let `write` fill a file so that `path` holds either its old content or the whole new one, whatever happens.

    It is filled in the folder `beside` (on the same disk), where others would trip over a half one in its own.

    Raises:
        InputError: the disk is full or the folder cannot be written; no partial file stays behind.
    """
    # Distinct among processes that share a cache, and among threads that find two copies of an image.
    temporary = (beside or path.parent) / f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = "Disk full" if error.errno in DISK_FULL else f"Cannot write ({error.strerror or error})"
        remedy = "Free some space or choose another folder; what was finished before is kept."
        raise InputError(f"{reason} while saving", path, remedy) from error
    finally:
        # Also reached on Ctrl-C; after the replacement there is nothing left to remove.
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a folder that appears as a whole.

    Raises:
        InputError: it cannot be written; nothing partial stays behind.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    except OSError as error:
        remedy = "Free some space, or start in a folder that can be written."
        raise InputError(f"Cannot write ({error.strerror or error})", folder, remedy) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write text (UTF-8) atomically.

    Raises:
        InputError: as `write_atomically`.
    """
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: Any) -> None:
    """Write an object as JSON, atomically.

    Raises:
        InputError: as `write_atomically`.
    """
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays atomically.

    Raises:
        InputError: as `write_atomically`.
    """
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Inside, no other run that asks the same computes what `path` will hold; says so where this one has to wait.

    The lock ends with the process that holds it, however that ends.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with contextlib.suppress(OSError, NotImplementedError):  # not writable, or no locks there: both may compute
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            console.print(f"Another run is computing {path}: waiting for it")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def from_cache(path: Path, load: Callable[[Path], Loaded]) -> Loaded | None:
    """What a cache file holds; None, with a warning if it is damaged, when it has to be computed."""
    if not path.exists():
        return None
    try:
        return load(path)
    except (InputError, TypeError, KeyError, ValueError, AssertionError) as error:
        reason = str(error) if isinstance(error, InputError) else f"{path} is no file of this kind"
        warn(f"Not usable, computed again: {reason}")
        return None


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Arrays written by `write_npz`.

    Raises:
        InputError: the file is missing, truncated or of another format.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        problem = "Missing file" if isinstance(error, FileNotFoundError) else "Damaged file"
        raise InputError(problem, path, "Delete it if it is there, and compute it again.") from error
