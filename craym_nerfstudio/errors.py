"""The one error type shown to users for bad input, and how it is shown."""

import errno
import sys
from pathlib import Path
from types import TracebackType

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OTHER_VERSION = "Train again, or install the craym_nerfstudio that trained it (runs of before 0.7 do not load)."
"""Remedy for a run of another version."""
_LESS_MEMORY = (
    "In training lower --pipeline.datamanager.train-num-rays-per-batch, in evaluation and the viewer "
    "--pipeline.model.eval-num-rays-per-chunk and --viewer.num-rays-per-chunk."
)


class InputError(ValueError):
    """What a user gave cannot be used; the message names the problem, the file and the remedy."""

    def __init__(self, problem: str, path: Path | str | None = None, remedy: str = "") -> None:
        self.problem, self.path, self.remedy = problem, path, remedy
        place = f": {path}" if path is not None else ""
        super().__init__(f"{problem}{place}. {remedy}".strip())

    def __reduce__(self) -> tuple:
        return type(self), (self.problem, self.path, self.remedy)


def disk_full(error: BaseException) -> InputError | None:
    """An error of whoever else writes (the host, numba, tensorboard) as ours, if it says that the disk is full."""
    if not isinstance(error, OSError) or error.errno not in DISK_FULL:
        return None
    remedy = "Free some space and start the same command again; what was finished before is kept."
    return InputError("Disk full while writing", error.filename, remedy)


def print_error(error: InputError) -> None:
    """One line on stderr, however long: a path that was wrapped could not be copied."""
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, soft_wrap=True).print(Text.assemble(("Error: ", "bold red"), str(error)))


class _InputErrorHook:
    """Exception hook that shows input errors, full disks and a full GPU without a traceback, and hands the rest on."""

    def __init__(self) -> None:
        self.previous = sys.excepthook

    def __call__(self, kind: type[BaseException], value: BaseException, traceback: TracebackType | None) -> None:
        # torch's own kind of error, without importing torch here.
        if kind.__name__ == "OutOfMemoryError":
            error: InputError | None = InputError(str(value).split(". ")[0], remedy=_LESS_MEMORY)
        else:
            error = value if isinstance(value, InputError) else disk_full(value)
        if error is not None:
            print_error(error)
        else:
            self.previous(kind, value, traceback)


def show_input_errors() -> None:
    """From now on an InputError, a full disk or a full GPU that nobody catches ends the program with one line."""
    if not isinstance(sys.excepthook, _InputErrorHook):
        sys.excepthook = _InputErrorHook()
