"""The one error type shown to users for bad input."""

from pathlib import Path


class InputError(ValueError):
    """What a user gave cannot be used; the message names the problem, the file and the remedy."""

    def __init__(self, problem: str, path: Path | str | None = None, remedy: str = "") -> None:
        self.problem, self.path, self.remedy = problem, path, remedy
        place = f": {path}" if path is not None else ""
        super().__init__(f"{problem}{place}. {remedy}".strip())

    def __reduce__(self) -> tuple:
        return type(self), (self.problem, self.path, self.remedy)
