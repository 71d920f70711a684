"""What stands on the terminal is what was said: brackets in names of files, units and messages are no markup."""

import warnings

import pytest
from rich.table import Table

import craym_nerfstudio
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


@pytest.mark.parametrize("name", ["read_data", "load_run"])
def test_a_script_that_imports_us_sees_no_warnings_of_others(name: str) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        getattr(craym_nerfstudio, name)
        warnings.warn_explicit("deprecated", FutureWarning, "_script.py", 1, module="torch.jit._script")
        warnings.warn_explicit("of the script", UserWarning, "script.py", 1, module="__main__")
    assert [str(each.message) for each in seen] == ["of the script"]
