"""The one console of the package, and its progress bars."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")

# A path that was wrapped could not be copied.
console = Console(soft_wrap=True)


def progress() -> Progress:
    """Bars that count items and tell the time left; gone when done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


def track(items: Sequence[Item], description: str) -> Iterable[Item]:
    """The items one after the other, under a progress bar."""
    with progress() as bars:
        yield from bars.track(items, description=description)
