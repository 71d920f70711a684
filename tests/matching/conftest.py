"""Many small tensor operations on a busy machine: one thread is fastest."""

from collections.abc import Iterator

import pytest

from craym_nerfstudio.matching.workers import one_torch_thread


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    with one_torch_thread():
        yield
