"""The command `craym`: everything around training that nerfstudio has no command for."""

import sys
import traceback
from typing import Annotated

import tyro
from tyro.conf import subcommand

from craym_nerfstudio.cli.adjust import AdjustCommand
from craym_nerfstudio.cli.demo import DemoCommand
from craym_nerfstudio.cli.eval_mesh import EvalMeshCommand
from craym_nerfstudio.cli.export import ExportCommand
from craym_nerfstudio.cli.match import MatchCommand
from craym_nerfstudio.cli.preflight import PreflightCommand
from craym_nerfstudio.cli.report import ReportCommand
from craym_nerfstudio.console import silence_others
from craym_nerfstudio.errors import InputError, disk_full, print_error
from craym_nerfstudio.stops import ended_by, heed_stops

_CRASHED = 70
"""Exit status of an error of craym's own, as sysexits.h has it."""

# The modules of the commands import little until their command runs.
Command = (
    Annotated[AdjustCommand, subcommand("adjust")]
    | Annotated[PreflightCommand, subcommand("preflight")]
    | Annotated[MatchCommand, subcommand("match")]
    | Annotated[ExportCommand, subcommand("export")]
    | Annotated[DemoCommand, subcommand("demo")]
    | Annotated[EvalMeshCommand, subcommand("eval-mesh")]
    | Annotated[ReportCommand, subcommand("report")]
)


def main(arguments: list[str] | None = None) -> None:
    """Run one subcommand.

    Input errors and a full disk end it with one line and status 2, stops with 130 or 143, a crash with 70.
    """
    silence_others()
    heed_stops()
    try:
        command = tyro.cli(Command, prog="craym", description=__doc__, args=arguments)  # type: ignore[arg-type]
        command.main()
    except KeyboardInterrupt as stop:
        raise ended_by(stop, "What was finished is kept; the same command goes on from there.") from None
    except Exception as error:
        known = error if isinstance(error, InputError) else disk_full(error)
        if known is not None:
            print_error(known)
            sys.exit(2)
        # Python's own status of a crash, 1, is what preflight calls repairable.
        traceback.print_exc()
        sys.exit(_CRASHED)
