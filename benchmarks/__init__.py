"""Measurements; every file's docstring has its command, and `benchmarks.report` writes docs/results.md from figures."""

from craym_nerfstudio.console import silence_others

silence_others()
