"""Which images are matched, and how large."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from craym_nerfstudio.data.config import SceneConfig
from craym_nerfstudio.data.scene import read_scene
from tests.data.tiny_data import (
    SIZE_PX,
    frame_entries,
    ring_poses,
    save_image,
    write_blender,
    write_json,
    write_nerfstudio,
)

LISTED = {
    name: [f"images/{k:03d}.png" for k in numbers] for name, numbers in (("train", (5, 1, 2)), ("test", (6, 1, 6)))
}


@pytest.mark.parametrize(
    ("write", "options", "posed", "tests"),
    [
        (write_nerfstudio, {}, [0, 1, 2, 3, 4, 5, 6, 7], [0]),
        (write_nerfstudio, {"eval_interval": 0}, [0, 1, 2, 3, 4, 5, 6, 7], []),
        # Noise is for training poses alone, and Blender's test poses are exact.
        (write_nerfstudio, {"pose_noise": "real"}, [1, 2, 3, 4, 5, 6, 7], []),
        (write_blender, {}, [0, 1, 2, 3, 4], []),
        # One image is listed twice, one for both: it is no test image to those who see it anyway.
        (
            partial(write_nerfstudio, train_filenames=LISTED["train"], test_filenames=LISTED["test"]),
            {},
            [1, 2, 5, 6],
            [6],
        ),
    ],
)
def test_images_whose_poses_are_to_be_found(
    tmp_path: Path, write: Any, options: dict[str, Any], posed: list[int], tests: list[int]
) -> None:
    scene = read_scene(SceneConfig(write(tmp_path), downscale_factor=2.0, **options))
    found = scene.posed_views()
    assert found.names == [scene.original.names[number] for number in posed]
    assert found.is_test.tolist() == [number in tests for number in posed]
    assert scene.posed_views(with_tests=False).names == scene.views.names
    # Images are matched as large as they are, however small they are trained at.
    assert (found.size_px == SIZE_PX).all() and (scene.frames.size_px < SIZE_PX).all()
    given = scene.original.c2w[posed]
    given[np.isin(posed, scene.train)] = scene.rough_c2w
    np.testing.assert_array_equal(found.c2w, given)


def test_large_images_are_shrunk_for_matching(tmp_path: Path) -> None:
    for number in range(3):
        save_image(tmp_path / f"images/{number:03d}.png", (2100, 1400), seed=number)
    frames = frame_entries(ring_poses(3))
    write_json(tmp_path / "transforms.json", {"camera_angle_x": 0.8, "frames": frames})
    small, large = (
        read_scene(SceneConfig(tmp_path, max_image_size_px=px)).posed_views().size_px[0].tolist() for px in (400, 1600)
    )
    assert (small, large) == ([800, 533], [1600, 1067])
