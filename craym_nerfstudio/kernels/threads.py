"""Runs kernels that release the GIL on all cores, next to torch's own threads without getting into their way.

After each of its operations torch's OpenMP threads spin for milliseconds, waiting for the next one. Helper threads of
our own would share their cores with them and gain nothing, so tasks run on those very threads where torch's runtime is
GNU's (Linux), and on a plain thread pool elsewhere. numba's threading layers are no choice: they kill forked
data-loader workers (``omp``) or abort when two threads call them at once (``workqueue``).
"""

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch

_LOADED_IN = os.getpid()
"""A child forked from this process has no OpenMP threads, and GNU's runtime would wait for them forever."""

_reserved = 0
"""Threads that kernels run on, within `reserved_threads`; 0 outside of it."""

_Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def thread_count() -> int:
    """Threads that kernels run on."""
    return _reserved or torch.get_num_threads()


@contextmanager
def reserved_threads() -> Iterator[None]:
    """Inside, kernels alone run on all of torch's threads, and the calling thread's operations of torch on one.

    A training step consists of few large pieces, which are kernels or chunked, and of two thousand operations on small
    tensors: to wake a thread for one of those takes longer than the operation. Inside of itself it changes nothing.
    """
    global _reserved
    if _reserved:
        yield
        return
    threads = torch.get_num_threads()
    _reserved = threads
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _reserved = 0
        torch.set_num_threads(threads)


def run_parallel(tasks: Sequence[Callable[[], None]]) -> None:
    """Run tasks on `thread_count` threads, the calling one included; the first error is raised."""
    remaining = iter(tasks)  # next() of a sequence iterator is atomic under the GIL
    errors: list[BaseException] = []

    def drain() -> None:
        try:
            for task in remaining:
                task()
        except BaseException as error:  # an OpenMP thread has nobody to raise it to
            errors.append(error)

    threads = min(thread_count(), len(tasks))
    team = torch_team() if os.getpid() == _LOADED_IN else None
    if threads < 2:
        drain()
    elif team is not None:
        team(_Body(lambda _: drain()), None, threads, 0)
    else:
        futures = [_pool(threads - 1, os.getpid()).submit(drain) for _ in range(threads - 1)]
        drain()
        for future in futures:
            future.result()
    if errors:
        raise errors[0]


def equal_ranges(count: int, parts: int, multiple_of: int = 1) -> list[tuple[int, int]]:
    """Consecutive ranges ``(start, stop)`` of about equal length; all but the last start and end at a multiple."""
    starts = [count * part // parts // multiple_of * multiple_of for part in range(parts)]
    return list(pairwise([*starts, count]))


@lru_cache(maxsize=1)
def torch_team() -> Callable[..., None] | None:
    """``GOMP_parallel`` of the OpenMP runtime that torch itself uses (others may be loaded too), None without one."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        parallel = ctypes.CDLL(str(library)).GOMP_parallel  # found among what the library depends on
    except (OSError, AttributeError):
        return None
    parallel.argtypes, parallel.restype = [_Body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return parallel


@lru_cache(maxsize=4)
def _pool(threads: int, process_id: int) -> ThreadPoolExecutor:
    """Helper threads of one process; a forked child has none of its parent's and gets its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"craym-encoding-{process_id}")
