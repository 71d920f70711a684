"""The command `craym`: everything around training that nerfstudio has no command for."""

import functools
import importlib
import importlib.util
import operator
import sys
from typing import Annotated, Any

import tyro

from craym_nerfstudio.errors import InputError, print_error

_COMMANDS = {
    "match": "cli_match:MatchCommand",
    "export-mesh": "cli_export:ExportMeshCommand",
    "export-cameras": "cli_export:ExportCamerasCommand",
}
"""Name of each subcommand and where its dataclass lives; those modules import little until their command runs."""


def _commands() -> Any:
    chosen = []
    for name, place in _COMMANDS.items():
        module, kind = place.split(":")
        if importlib.util.find_spec(f"craym_nerfstudio.{module}") is None:
            continue
        found = getattr(importlib.import_module(f"craym_nerfstudio.{module}"), kind)
        chosen.append(Annotated[found, tyro.conf.subcommand(name=name)])
    return functools.reduce(operator.or_, chosen)


def main(arguments: list[str] | None = None) -> None:
    """Run one subcommand; input errors end it with one line and exit status 2."""
    command = tyro.cli(_commands(), prog="craym", description=__doc__, args=arguments)
    try:
        command.main()
    except InputError as error:
        print_error(error)
        sys.exit(2)
