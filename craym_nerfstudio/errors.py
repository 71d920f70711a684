"""The one error type shown to users for bad input, and how it is shown."""

import sys
from pathlib import Path
from types import TracebackType


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
    """Exception hook that shows input errors without their traceback and hands everything else on."""

    def __init__(self) -> None:
        self.previous = sys.excepthook

    def __call__(self, kind: type[BaseException], value: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(value, InputError):
            print_error(value)
        else:
            self.previous(kind, value, traceback)


def show_input_errors() -> None:
    """From now on an InputError that nobody catches ends the program with its message instead of a traceback."""
    if not isinstance(sys.excepthook, _InputErrorHook):
        sys.excepthook = _InputErrorHook()
