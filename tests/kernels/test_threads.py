"""Kernels on torch's own threads and on a pool: every task once, errors reach the caller."""

import threading

import pytest
import torch

from craym_nerfstudio.kernels import threads


@pytest.fixture(params=["torch's threads", "pool"], autouse=True)
def two_threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Both ways to run, on two threads whatever the machine has."""
    if request.param == "pool":
        monkeypatch.setattr(threads, "torch_team", lambda: None)
    elif threads.torch_team() is None:
        pytest.skip("torch uses another OpenMP runtime here")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_every_task_runs_once() -> None:
    done: list[int] = []
    threads.run_parallel([lambda number=number: done.append(number) for number in range(100)])
    assert sorted(done) == list(range(100))


def test_ranges_cover_everything_in_whole_blocks() -> None:
    assert threads.equal_ranges(10, 3) == [(0, 3), (3, 6), (6, 10)]
    assert threads.equal_ranges(100, 3, multiple_of=16) == [(0, 32), (32, 64), (64, 100)]
    assert threads.equal_ranges(0, 1) == [(0, 0)]


def test_tasks_share_two_threads() -> None:
    """Both tasks wait for each other: on one thread this would never end."""
    barrier = threading.Barrier(2, timeout=20)
    seen: list[int] = []

    def task() -> None:
        barrier.wait()
        seen.append(threading.get_ident())

    threads.run_parallel([task, task])
    assert len(set(seen)) == 2


def test_an_error_reaches_the_caller_and_the_next_call_works() -> None:
    def fail() -> None:
        raise ValueError("broken task")

    with pytest.raises(ValueError, match="broken task"):
        threads.run_parallel([fail, lambda: None])
    done: list[int] = []
    threads.run_parallel([lambda: done.append(1)] * 4)
    assert done == [1] * 4


def test_kernels_keep_all_threads_while_torch_has_one() -> None:
    with threads.reserved_threads():
        assert (threads.thread_count(), torch.get_num_threads()) == (2, 1)
        barrier = threading.Barrier(2, timeout=10)
        threads.run_parallel([barrier.wait, barrier.wait])
    assert (threads.thread_count(), torch.get_num_threads()) == (2, 2)
    with pytest.raises(ValueError), threads.reserved_threads():
        raise ValueError
    assert (threads.thread_count(), torch.get_num_threads()) == (2, 2)


def test_reserving_threads_twice_changes_nothing() -> None:
    before = torch.get_num_threads()
    with threads.reserved_threads():
        outer = (threads.thread_count(), torch.get_num_threads())
        with threads.reserved_threads():
            assert (threads.thread_count(), torch.get_num_threads()) == outer
        assert (threads.thread_count(), torch.get_num_threads()) == outer
    assert torch.get_num_threads() == before
