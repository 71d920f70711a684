"""A mesh that is a little off returns to where the photos agree."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from craym_nerfstudio.export.photo_consistency import agreeing_surface
from craym_nerfstudio.export.unwrap import texels_of, unwrap
from tests.export.ball_scene import RADIUS, ball_surface, ball_views


def test_a_bulge_goes_back_to_where_photos_agree(tmp_path: Path) -> None:
    views = ball_views(tmp_path, np.ones((24, 3)))
    exact = ball_surface(views)
    bulge = 0.008 * np.exp(-np.square((exact.vertices - [0.0, 0.0, RADIUS]) / 0.25).sum(-1))
    surface = replace(exact, vertices=exact.vertices + bulge[:, None] * exact.normals)
    layout = unwrap(surface.vertices, surface.faces, float(surface.footprint[0]) / 2.0, 1024)
    # Five times the contrast that the ball has.
    found = agreeing_surface(surface, layout, texels_of(layout), views, np.full((24, 3), 5.0))
    off = np.linalg.norm(found.vertices, axis=-1) - RADIUS
    raised = bulge > 0.004
    assert np.abs(off[raised]).mean() < 0.4 * bulge[raised].mean()
    assert np.abs(off[bulge < 1e-4]).mean() < 0.001
    np.testing.assert_array_equal(found.faces, surface.faces)
    faint = agreeing_surface(surface, layout, texels_of(layout), views, np.ones((24, 3)))
    assert np.linalg.norm(faint.vertices - surface.vertices, axis=-1).max() < 0.001, "a tenth of a pixel"
