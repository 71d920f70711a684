"""The one table of images that end without a camera of their own rays."""

import numpy as np
import pytest

from craym_nerfstudio.sfm.adjust import adjust_rays
from craym_nerfstudio.sfm.result import StageZero
from craym_nerfstudio.start.find import report_stage_zero
from craym_nerfstudio.start.not_adjusted import not_adjusted, show_not_adjusted
from tests.sfm.synthetic import disturbed, make_scene, ring

LEFT_OUT = {"blurred.jpg": "fewer than 15 matches with any other photo", "gone.jpg": "its file is missing"}


@pytest.fixture(scope="module")
def stage() -> StageZero:
    """Of ten cameras the fourth matches nothing."""
    true = ring(10)
    others = tuple(number for number in range(10) if number != 3)
    made = make_scene(true, disturbed(true, 3.0, 0.1), noise_px=0.3, cut=((3,), others))
    return adjust_rays(made.views, made.matches)


def test_predicted_and_unplaced_images_are_named_with_the_reason(stage: StageZero) -> None:
    rows = not_adjusted(stage, LEFT_OUT)
    assert [tuple(row)[:4] for row in rows] == [
        ("003.png", "predicted", "0", "-"),
        ("blurred.jpg", "not placed", "-", "-"),
        ("gone.jpg", "not placed", "-", "-"),
    ]
    assert "no match with another image" in rows[0].why and rows[2].why == "its file is missing"
    assert not any("predicted" in note for note in stage.notes)


def test_the_reason_counts_rays(stage: StageZero) -> None:
    rays = stage.num_rays.copy()
    after = stage.epipolar_after_px.copy()
    rays[3], after[3] = 5, 0.3
    few = StageZero(**{**vars(stage), "num_rays": rays, "epipolar_after_px": after})
    assert "fewer than 12 rays" in not_adjusted(few, {})[0].why
    rays[3] = 40
    assert "contradict" in not_adjusted(few, {})[0].why


def test_table_is_printed_where_there_is_something_to_say(stage: StageZero, capsys: pytest.CaptureFixture) -> None:
    report_stage_zero(stage, LEFT_OUT)
    said = " ".join(capsys.readouterr().out.split())
    assert "3 images without a camera of their own, beside 9 with one" in said and "blurred.jpg" in said
    show_not_adjusted(None, {})
    assert capsys.readouterr().out == ""
    show_not_adjusted(None, {f"[{number}].jpg": "no pose" for number in range(100)})
    said = capsys.readouterr().out
    assert "[29].jpg" in said and "[30].jpg" not in said and "and 70 more" in said
    show_not_adjusted(None, {150 * "Q": "a name longer than the terminal is wide"})
    assert capsys.readouterr().out.count("Q") == 150


def test_a_whole_data_set_says_nothing(capsys: pytest.CaptureFixture) -> None:
    true = ring(10)
    made = make_scene(true, disturbed(true, 3.0, 0.1), noise_px=0.3)
    whole = adjust_rays(made.views, made.matches)
    report_stage_zero(whole, {})
    assert not_adjusted(whole, {}) == [] and "without a camera" not in capsys.readouterr().out
    assert np.isfinite(whole.rotation_sigma_deg).all()
