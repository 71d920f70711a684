"""Loads modules of numba kernels at first use; nothing to compile by hand, machine code is cached on disk."""

import importlib.util
import os
import stat
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from craym_nerfstudio.console import console


@lru_cache(maxsize=8)
def importable(module: str) -> bool:
    """Whether an optional package, such as numba, is on this machine."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # a finder that refuses it
        return False


@lru_cache(maxsize=8)
def load_kernels(name: str, entry: str, purpose: str) -> ModuleType:
    """Import a module of kernels, saying so when they are about to be compiled for the first time.

    Args:
        entry: one of its kernels that is kept on disk.
        purpose: what the message calls them.
    """
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
