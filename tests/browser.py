"""A real headless browser to look at pages with; who imports this is skipped where there is none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("looking at pages needs a browser (apt-get install chromium)", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="looking at pages needs playwright (pip install)")

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
]
"""WebGL without a GPU."""
PATIENCE_S = 240
SHOWN_RUN = os.environ.get("CRAYM_SHOWN_RUN")
"""A run's config to look at in place of a tiny one: how the screenshots in docs/images are taken, and figures."""
PICTURES = Path(__file__).parents[1] / "docs/images"


@contextmanager
def chromium() -> Iterator:
    """A browser."""
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()
