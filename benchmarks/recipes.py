"""The recipes of ``configs/`` applied to a config in this process."""

import dataclasses
import typing
from pathlib import Path
from typing import Any


def flags(path: Path) -> dict[str, str]:
    """The flags of a recipe by the config entries that they set."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    pairs = [line.split(maxsplit=1) for line in lines]
    return {name.removeprefix("--").replace("-", "_"): value for name, value in pairs}


def change(config: Any, changes: dict[str, Any]) -> None:
    """Set entries by their dotted names; text becomes what the entry's type says.

    Raises:
        ValueError: a name is no entry of the config.
    """
    for name, value in changes.items():
        *path, last = name.split(".")
        place = config
        for part in path:
            place = getattr(place, part)
        fields = {field.name: field for field in dataclasses.fields(place)}
        if last not in fields:
            raise ValueError(f"{name} is no entry of the config")
        if isinstance(value, str):
            kind = typing.get_type_hints(type(place))[last]
            value = value == "True" if kind is bool else kind(value) if kind in (int, float) else value
        setattr(place, last, value)
