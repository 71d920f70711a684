"""What stands on the terminal is what was said: brackets in names of files, units and messages are no markup."""

import pytest
from rich.table import Table

from craym_nerfstudio.console import console, warn

NAMES = ("scan[bold]/a.png", "scan[/bold]/b[1].png", "test PSNR [dB]")


@pytest.mark.parametrize("name", NAMES)
def test_brackets_are_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.print(name)
    warn(name)
    table = Table(show_header=False)
    table.add_row(name, name)
    console.print(table)
    assert capsys.readouterr().out.count(name) == 4
