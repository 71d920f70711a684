"""A disk that takes no more, as the kernel tells it: writers in C++ notice as those in Python do."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def bytes_a_file(limit: int) -> Iterator[None]:
    """No file may grow beyond `limit` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
