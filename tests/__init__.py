"""Tests; a package of its own, or a stray `tests` among the installed ones would be taken for it."""
