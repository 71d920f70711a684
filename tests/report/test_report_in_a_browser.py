"""The 3-D view of a report, looked at with a real browser that has no network."""

import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from craym_nerfstudio.export.gltf import glb_with_cameras
from craym_nerfstudio.report import html
from tests.browser import PATIENCE_S, PICTURES, SHOWN_RUN, chromium
from tests.data.tiny_data import ring_poses
from tests.export.test_texture import textured_box


@pytest.fixture
def page_path(tmp_path: Path) -> Path:
    """A page with a textured box, cameras around it and rays; or the report of a run."""
    if SHOWN_RUN:
        return Path(SHOWN_RUN).parent / "export" / "report.html"
    refined = ring_poses(8)
    given = refined + np.array([0.0, 0.0, 0.0, 0.3])
    rays = np.stack([refined[:2, :, 3], np.zeros((2, 3))], axis=1)
    page = html.Page("A view")
    page.add(html.model(glb_with_cameras(textured_box(), np.eye(3), given, refined, rays)))
    page.write(tmp_path / "page.html")
    return tmp_path / "page.html"


def test_mesh_both_camera_sets_and_rays_are_seen(page_path: Path, tmp_path: Path) -> None:
    asked: list[str] = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1100, "height": 760})
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_path.resolve().as_uri())
        view = page.locator("model-viewer").first
        view.scroll_into_view_if_needed()
        deadline = time.monotonic() + PATIENCE_S
        while not view.evaluate("view => view.loaded"):
            assert time.monotonic() < deadline, "the model was never loaded"
            time.sleep(0.5)
        image = _settled(view)
        page.screenshot(path=(PICTURES if SHOWN_RUN else tmp_path) / "report.jpg", quality=82)
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked), asked
    red, green, blue = (image[..., k] for k in range(3))
    assert ((red > 200) & (green > 100) & (green < 180) & (blue < 90)).sum() > 100  # given
    assert ((blue > 180) & (red < 80)).sum() > 100  # refined
    assert ((green > 120) & (red < 90) & (blue < 140)).sum() > 50  # rays


def _settled(view) -> np.ndarray:
    """The picture of the view once it no longer changes, RGB."""
    deadline, before = time.monotonic() + PATIENCE_S, None
    while time.monotonic() < deadline:
        time.sleep(1.0)
        now = np.asarray(Image.open(io.BytesIO(view.screenshot())).convert("RGB")).astype(np.int16)
        if before is not None and (np.abs(now - before) > 24).any(-1).mean() < 1e-3 and now.std() > 2.0:
            return now
        before = now
    raise AssertionError("the view never stood still")
