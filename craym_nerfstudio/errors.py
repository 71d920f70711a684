"""The one error type shown to users for bad input, and how it is shown."""

import sys
from pathlib import Path
from types import TracebackType

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


def print_error(error: InputError) -> None:
    """One line on stderr, however long: a path that was wrapped could not be copied."""
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, soft_wrap=True).print(Text.assemble(("Error: ", "bold red"), str(error)))


class _InputErrorHook:
    """Exception hook that shows input errors, and a GPU's lack of memory, without their traceback."""

    def __init__(self) -> None:
        self.previous = sys.excepthook

    def __call__(self, kind: type[BaseException], value: BaseException, traceback: TracebackType | None) -> None:
        # torch's own kind of error, without importing torch here.
        if kind.__name__ == "OutOfMemoryError":
            print_error(InputError(str(value).split(". ")[0], remedy=_LESS_MEMORY))
        elif isinstance(value, InputError):
            print_error(value)
        else:
            self.previous(kind, value, traceback)


def show_input_errors() -> None:
    """From now on an InputError that nobody catches, or a full GPU, ends the program with one line, no traceback."""
    if not isinstance(sys.excepthook, _InputErrorHook):
        sys.excepthook = _InputErrorHook()
