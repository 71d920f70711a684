"""Cameras chosen by names and globs."""

import pytest

from craym_nerfstudio.cameras.selection import select_cameras
from craym_nerfstudio.errors import InputError

NAMES = [f"images/frame_{index}.png" for index in range(5)]


@pytest.mark.parametrize("pattern", ["images/frame_3.png", "frame_3.png", "*_3.png", "images/*3*"])
def test_whole_name_last_part_or_glob(pattern: str) -> None:
    assert select_cameras([pattern], NAMES).tolist() == [False, False, False, True, False]


def test_patterns_add_up_and_none_means_none() -> None:
    assert select_cameras(["*_0.png", "frame_4.png"], NAMES).tolist() == [True, False, False, False, True]
    assert select_cameras([], NAMES).tolist() == [False] * 5


def test_an_unknown_camera_is_an_error() -> None:
    with pytest.raises(InputError, match=r"'frame_9\.png' is not among the 5 images.*images/frame_0"):
        select_cameras(["frame_0.png", "frame_9.png"], NAMES)
