"""Verdict and page: grades, exit statuses, and a page that needs nothing beside it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from craym_nerfstudio.matching.verify import NO_PAIRS
from craym_nerfstudio.preflight.check import Checked, check_observed
from craym_nerfstudio.preflight.hypotheses import OPENCV, turned_axes
from craym_nerfstudio.preflight.report import page, print_summary, summary
from tests.preflight.planted import CAMERAS, scene
from tests.sfm.synthetic import SIZE_PX


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Checked:
    folder = tmp_path_factory.mktemp("images")
    views, observed = scene()
    paths = [folder / name for name in views.names]
    for path in paths:
        Image.new("RGB", (SIZE_PX, SIZE_PX), "gray").save(path)
    return check_observed(replace(views, paths=paths), observed)


def test_true_poses_are_good(good: Checked) -> None:
    assert good.verdict.grade == "good" and good.verdict.exit_status == 0
    assert good.suspicious == []
    assert np.nanmax(good.given_px) < 1.0 and np.nanmax(good.adjusted_px) < 1.0


def test_a_mistake_is_repairable() -> None:
    views, observed = scene()
    checked = check_observed(replace(views, c2w=turned_axes(views.c2w, OPENCV)), observed)
    assert (checked.verdict.grade, checked.verdict.exit_status) == ("repairable", 1)
    assert np.nanmedian(checked.given_px) > 10 and np.nanmedian(checked.adjusted_px) < 1.0
    assert summary(checked)["findings"][0]["kind"] == "opencv-axes"


def test_one_wrong_camera_is_suspicious() -> None:
    views, observed = scene()
    c2w = views.c2w.copy()
    c2w[4, :, :3] = c2w[4, :, :3] @ Rotation.from_euler("y", 6, degrees=True).as_matrix()
    checked = check_observed(replace(views, c2w=c2w), observed)
    assert checked.verdict.exit_status == 1
    assert [each.camera for each in checked.suspicious] == [4]


def test_an_image_without_keypoints_is_named() -> None:
    views, observed = scene()
    putative = observed.putative
    kept = (putative.pairs != 3).all(1)[putative.pair_of_match]
    few = replace(
        putative,
        pair_of_match=putative.pair_of_match[kept],
        keypoint_ids=putative.keypoint_ids[kept],
        score=putative.score[kept],
        strict=putative.strict[kept],
    )
    keypoints = [each[:0] if k == 3 else each for k, each in enumerate(observed.keypoints)]
    checked = check_observed(views, replace(observed, putative=few, keypoints=keypoints))
    assert [(each.camera, each.reasons) for each in checked.suspicious] == [
        (3, ("nothing to match in it: is it masked whole, or empty?",))
    ]


def test_garbage_is_hopeless() -> None:
    views, observed = scene()
    random = np.random.RandomState(5)
    rotation = Rotation.random(CAMERAS, random_state=random).as_matrix()
    c2w = np.concatenate([rotation, random.standard_normal((CAMERAS, 3, 1))], axis=-1)
    checked = check_observed(replace(views, c2w=c2w), observed)
    assert (checked.verdict.grade, checked.verdict.exit_status) == ("hopeless", 3)


@pytest.mark.parametrize("place", [0.0, 5e6])
def test_cameras_in_one_place_are_hopeless(place: float) -> None:
    views, observed = scene()
    for rotations in (views.c2w[:, :, :3], np.tile(np.eye(3), (CAMERAS, 1, 1))):
        c2w = np.concatenate([rotations, np.full((CAMERAS, 3, 1), place)], axis=-1)
        checked = check_observed(replace(views, c2w=c2w), observed)
        assert checked.verdict.grade == "hopeless" and "in one place" in checked.verdict.reason
        assert np.isnan(checked.given_px).all()
        print_summary(checked, Path("report.html"))
        json.dumps(summary(checked), allow_nan=False)


def test_a_few_cameras_with_the_pose_of_another_are_not_good() -> None:
    views, observed = scene()
    c2w = views.c2w.copy()
    c2w[-4:] = c2w[-5]
    assert check_observed(replace(views, c2w=c2w), observed).verdict.grade != "good"


def test_no_matches_are_hopeless() -> None:
    views, observed = scene()
    checked = check_observed(views, replace(observed, putative=NO_PAIRS))
    assert checked.verdict.exit_status == 3
    assert "unknown" in page(checked, 1).html()


def test_page_is_whole_in_itself(good: Checked, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page(good, 2).write(tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    sources = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', html)
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    # Cameras, residuals, two best and two worst pairs.
    assert sum(source.startswith("data:image/") for source in sources) == 6
    assert "<script" not in html and "url(" not in html
    for word in ("Verdict: good", "Best of the verified pairs", "Worst of the verified pairs", *good.views.names):
        assert word in html
    print_summary(good, tmp_path / "report.html")
    assert "all in one group" in capsys.readouterr().out


def test_summary_is_strict_json(good: Checked) -> None:
    text = json.dumps(summary(good))
    content = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert content["exit_status"] == 0
    assert len(content["cameras"]) == CAMERAS
