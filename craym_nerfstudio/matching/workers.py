"""Work on many images or pairs, on all cores."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def workers(parallel: bool) -> Iterator[Callable[[Callable[[Item], Result], Sequence[Item]], Iterator[Result]]]:
    """An ordered map, over threads of one core each if `parallel`."""
    if not parallel:
        yield map
        return
    workers = max(1, os.cpu_count() or 1)
    with one_torch_thread():
        pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
        try:
            yield pool.map
        finally:
            # Without this an error or Ctrl-C would wait for everything that is still queued.
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """For many small tensor operations: spread over all cores they would mostly wait, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
