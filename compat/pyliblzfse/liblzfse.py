"""Stands in for pyliblzfse, which viser imports and uses for Record3D captures alone."""

from typing import NoReturn


def decompress(data: bytes) -> NoReturn:
    """Say how to get the real one."""
    raise RuntimeError("LZFSE needs a C compiler: pip uninstall pyliblzfse && pip install --no-binary :all: pyliblzfse")
