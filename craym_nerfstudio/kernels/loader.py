"""Loads modules of numba kernels at first use, and tells whether Triton can run; nothing to compile by hand."""

import contextlib
import importlib.util
import os
import shutil
import stat
import sysconfig
import tempfile
import threading
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import torch

from craym_nerfstudio.console import console

_LOADING = threading.Lock()
"""Training and the viewer may ask for the same kernels at the same time; who comes second must find them loaded."""


@lru_cache(maxsize=8)
def importable(module: str) -> bool:
    """Whether an optional package, such as numba, is on this machine."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # a finder that refuses it
        return False


def triton_lacks() -> str | None:
    """What Triton misses to build its launcher at the first launch, with the remedy; None when nothing."""
    if not importable("triton"):
        return "itself (pip install triton)"
    if not (os.environ.get("CC") or any(shutil.which(name) for name in ("cc", "gcc", "clang"))):
        return "a C compiler (on Debian: apt-get install gcc)"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "Python's headers (on Debian: apt-get install python3-dev)"
    return None


def triton_interpreted() -> bool:
    """Whether Triton runs its kernels on the CPU, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@lru_cache(maxsize=8)
def triton_runs(device: torch.device) -> bool:
    """Whether Triton kernels can be launched on a device."""
    return triton_interpreted() if device.type == "cpu" else device.type == "cuda" and triton_lacks() is None


def on_device(device: torch.device) -> contextlib.AbstractContextManager:
    """Make a tensor's GPU the current one, which is where Triton launches."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def load_kernels(name: str, entry: str, purpose: str) -> ModuleType:
    """Import a module of kernels, saying so when they are about to be compiled for the first time.

    Args:
        entry: one of its kernels that is kept on disk.
        purpose: what the message calls them.
    """
    with _LOADING:
        return _loaded(name, entry, purpose)


@lru_cache(maxsize=8)
def _loaded(name: str, entry: str, purpose: str) -> ModuleType:
    try:
        module = importlib.import_module(name)
    except RuntimeError:  # numba finds neither the package nor the home directory writable
        import numba

        numba.config.CACHE_DIR = str(fallback_cache())  # type: ignore[attr-defined]
        module = importlib.import_module(name)
    source, cache = Path(str(module.__file__)), Path(getattr(module, entry).stats.cache_path)
    newest = max((each.stat().st_mtime for each in cache.glob(f"{source.stem}.*.nbi")), default=0.0)
    if newest < source.stat().st_mtime:
        console.print(f"{purpose}: compiling the CPU kernels, once (some seconds); kept in {cache}")
    return module


def fallback_cache() -> Path:
    """Where machine code is kept when neither the package nor the home directory can be written.

    The same folder for every run of this user; a new one where that name is taken by somebody else, whose machine code
    must not run here.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    path = Path(tempfile.gettempdir()) / f"craym_numba_{user}"
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_uid == user and not status.st_mode & 0o022:
        return path
    return Path(tempfile.mkdtemp(prefix="craym_numba_"))
