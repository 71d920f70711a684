"""How a run is stopped: Ctrl-C and SIGTERM end it alike, quietly, between two steps, with one line on how to go on."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from craym_nerfstudio.console import warn
from craym_nerfstudio.errors import InputError

_FIRST_AGAIN: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""A second stop ends at once."""

_deferring = False
_pending: KeyboardInterrupt | None = None


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def heed_stops() -> None:
    """From now on SIGTERM is an interrupt as Ctrl-C is, and both wait where a step is `whole`."""
    for number in _FIRST_AGAIN:
        # A shell lets its background jobs ignore Ctrl-C.
        if signal.getsignal(number) == signal.SIG_IGN:
            continue
        # A thread other than the main one may not; whoever runs us in one has its own ways to stop.
        with suppress(ValueError):
            signal.signal(number, _handle)


def _handle(number: int, _: FrameType | None) -> None:
    global _pending
    stop = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
    signal.signal(number, _FIRST_AGAIN[number])
    if not _deferring:
        raise stop
    _pending = stop


@contextmanager
def whole() -> Iterator[None]:
    """A stop that comes inside is raised at the end: half an update of the parameters is no state to go on from."""
    global _deferring, _pending
    _deferring = True
    try:
        yield
    finally:
        _deferring = False
        stop, _pending = _pending, None
    if stop is not None:
        raise stop


@contextmanager
def at_once() -> Iterator[None]:
    """SIGTERM ends the process without delay: foreign code of minutes would not let Python see the signal."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _set_sigterm(signal.SIG_DFL)
        yield
    finally:
        _set_sigterm(handler)


def _set_sigterm(handler: Any) -> None:
    with suppress(ValueError, TypeError):  # not the main thread; a handler that is not Python's
        signal.signal(signal.SIGTERM, handler)


def ended_by(stop: KeyboardInterrupt, line: str = "") -> SystemExit:
    """What to raise after a stop: says `line`, and ends with the exit status that shells know (130, 143)."""
    name, status = ("Terminated", 143) if isinstance(stop, Terminated) else ("Interrupted", 130)
    warn(f"{name}. {line}".strip())
    return SystemExit(status)


def load_trimesh() -> Any:
    """The module ``trimesh``; a stop while it is imported, which it would take for a missing package, waits."""
    is_interrupted = threading.current_thread() is threading.main_thread()
    with whole() if is_interrupted and "trimesh" not in sys.modules else nullcontext():
        import trimesh
    return trimesh


def load_pycolmap(needed_for: Path | None = None) -> Any:
    """The module ``pycolmap``; what it does at import, a C++ stack trace on SIGTERM, is undone, and unseen until then.

    Raises:
        InputError: it is not installed.
    """
    # Its wheel aborts unless numpy was imported before it.
    import numpy  # noqa: F401

    handler = signal.getsignal(signal.SIGTERM)
    try:
        with _held_back(signal.SIGTERM), _silent_stderr():
            import pycolmap

            _set_sigterm(handler)
    except ImportError as error:
        if needed_for is None:
            raise
        raise InputError("This needs pycolmap", needed_for, "Run: pip install pycolmap") from error
    return pycolmap


@contextmanager
def _held_back(number: int) -> Iterator[None]:
    """A signal that comes inside is delivered to this thread at the end, unless another thread takes it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows, which has no such signals to wait for
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Nothing is written to the file of stderr inside, by C++ neither.

    Threads that numpy, torch or numba have started by now cannot be told to leave a signal alone: the one that takes it
    runs pycolmap's crash handler, which writes its trace and ends the process by that signal.
    """
    try:
        kept = os.dup(2)
    except OSError:  # closed, so that nothing can be seen of it
        yield
        return
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
