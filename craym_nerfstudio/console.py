"""The one console of the package, its progress bars, and what may not write on it."""

import shlex
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")

# A path that was wrapped could not be copied; brackets in names of files and of units are no markup.
console = Console(soft_wrap=True, markup=False)


def warn(text: str) -> None:
    """One yellow line."""
    console.print(text, style="yellow", highlight=False)


def progress() -> Progress:
    """Bars that count items and tell the time left; gone when done; none in a file, where they are blank lines."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    is_shown = console.is_terminal or console.is_jupyter
    return Progress(*columns, console=console, transient=True, disable=not is_shown)


def typed(path: Path | str) -> str:
    """A path as it is typed in a shell: commands that are suggested run as they stand."""
    return shlex.quote(str(path))


def track(items: Sequence[Item], description: str) -> Iterable[Item]:
    """The items one after the other, under a progress bar."""
    with progress() as bars:
        yield from bars.track(items, description=description)


def silence_others() -> None:
    """From now on warnings of the host and of torch about themselves stay out of the terminal: they bury ours."""
    warnings.filterwarnings("ignore", module=r"(nerfstudio|torch|torchvision|torchmetrics|pytorch_msssim)(\.|$)")
    # Raised in C++, and laid at the door of whoever called.
    warnings.filterwarnings("ignore", message="Using a non-tuple sequence for multidimensional indexing")
    warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True to a scalar")
