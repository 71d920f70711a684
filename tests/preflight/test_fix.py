"""The corrected copy: every mistake that is found is mended there, and the original stays as it is."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from craym_nerfstudio.cli.preflight import load_scene
from craym_nerfstudio.data.scene import Scene
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.preflight.check import check_observed
from craym_nerfstudio.preflight.fix import check_folder, write_fixed
from craym_nerfstudio.preflight.hypotheses import OPENCV, inverted, turned_axes
from craym_nerfstudio.preflight.mend import read_usable
from craym_nerfstudio.preflight.observe import Observed
from tests.preflight.planted import poses, scene, with_turned_files
from tests.sfm.synthetic import FOCAL_PX, SIZE_PX


@pytest.fixture(scope="module")
def observed() -> Observed:
    return scene()[1]


def write(folder: Path, change: Callable[[dict], None] | None = None) -> Path:
    """Files of the planted scene with true poses, changed."""
    (folder / "images").mkdir(parents=True)
    frames = []
    for number, pose in enumerate(poses().numpy()):
        Image.new("L", (SIZE_PX, SIZE_PX), 60 + number).save(folder / f"images/{number:03d}.png")
        frames.append({"file_path": f"images/{number:03d}.png", "transform_matrix": [*pose.tolist(), [0, 0, 0, 1]]})
    content = {"fl_x": FOCAL_PX, "fl_y": FOCAL_PX, "cx": SIZE_PX / 2, "cy": SIZE_PX / 2, "frames": frames}
    if change is not None:
        change(content)
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def of_matrices(repair: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        matrices = np.array([frame["transform_matrix"] for frame in content["frames"]])[:, :3]
        for frame, matrix in zip(content["frames"], repair(matrices), strict=True):
            frame["transform_matrix"] = [*matrix.tolist(), [0, 0, 0, 1]]

    return change


def exchanged(c2w: np.ndarray) -> np.ndarray:
    return c2w[[1, 0, *range(2, len(c2w) - 2), len(c2w) - 1, len(c2w) - 2]]


def scaled(content: dict) -> None:
    for frame in content["frames"]:
        frame["transform_matrix"] = (np.diag([0.137] * 3 + [1.0]) @ np.array(frame["transform_matrix"])).tolist()


def scattered_focal(content: dict) -> None:
    for number, frame in enumerate(content["frames"]):
        frame["fl_x"] = frame["fl_y"] = FOCAL_PX * (1 + 0.004 * number)


def renamed(content: dict) -> None:
    for frame in content["frames"]:
        frame["file_path"] = frame["file_path"].replace("/", "\\").replace(".png", ".PNG")
        frame["colmap_im_id"] = 7


MISTAKES: dict[str, tuple[Callable[[dict], None], list[str]]] = {
    "OpenCV axes": (of_matrices(lambda c2w: turned_axes(c2w, OPENCV)), ["opencv-axes"]),
    "w2c with OpenCV axes": (of_matrices(lambda c2w: inverted(turned_axes(c2w, OPENCV))), ["w2c-opencv-axes"]),
    "order": (of_matrices(exchanged), ["out-of-order"]),
    "focal length": (lambda content: content.update(fl_x=2 * FOCAL_PX, fl_y=2 * FOCAL_PX), ["wrong-focal-length"]),
    "focal lengths of single images": (scattered_focal, ["wrong-focal-lengths"]),
    "principal point": (lambda content: content.update(cx=0.7 * SIZE_PX), ["wrong-intrinsics"]),
    "scale in rotations": (scaled, []),
    "names": (renamed, []),
}


def test_the_copy_of_what_cannot_be_read(tmp_path: Path) -> None:
    """Two poses lost, one image named twice, the principal point of images twice as large: the rest is usable."""

    def change(content: dict) -> None:
        for frame in content["frames"][:2]:
            frame["transform_matrix"][0][3] = math.nan
        content["frames"].append(content["frames"][-1])
        content.update(cx=SIZE_PX, cy=SIZE_PX)

    path = write(tmp_path / "given", change) / "transforms.json"
    before = path.read_bytes()

    def read(file: Path) -> Scene:
        return load_scene(file, 1000)

    with pytest.raises(InputError):
        read(path)
    usable = read_usable(path, read)
    assert usable is not None
    found, left_out = usable
    assert len(found.views.names) == len(poses()) - 2 and found.original.source == path
    assert [words.split(" (")[0] for words in left_out] == [
        "left out: 2 without a pose",
        "left out: 1 listed before",
        "principal point: the middle",
    ]
    assert found.original.intrinsics_px[0].tolist() == [FOCAL_PX, FOCAL_PX, SIZE_PX / 2, SIZE_PX / 2]
    assert path.read_bytes() == before


@pytest.mark.parametrize("is_readable", [True, False])
def test_the_copy_keeps_the_split_and_what_is_said_of_poses(
    is_readable: bool, tmp_path: Path, observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a file that could not be read, given by a relative path; what else it says of its frames stays too."""

    def change(content: dict) -> None:
        for number, frame in enumerate(content["frames"]):
            frame |= {"colmap_im_id": 30 + number, "pose_sigma_deg": 1.5}
        listed = [frame["file_path"] for frame in content["frames"]]
        content |= {"train_filenames": listed[:-3], "test_filenames": listed[-3:], "pose_sigma": 0.25}
        if not is_readable:
            content["frames"][1]["transform_matrix"][0][3] = math.nan

    write(tmp_path / "given", change)
    monkeypatch.chdir(tmp_path)
    path = Path("given/transforms.json")

    def read(file: Path) -> Scene:
        return load_scene(file, 1000)

    found = (read(path), []) if is_readable else read_usable(path, read)
    assert found is not None
    checked = check_observed(scene()[0], observed)
    lost = 0 if is_readable else 1
    if lost:
        kept = np.delete(np.arange(len(poses())), 1)
        repaired = replace(checked.diagnosis.repaired, c2w=checked.diagnosis.repaired.c2w[kept])
        checked = replace(checked, diagnosis=replace(checked.diagnosis, repaired=repaired))
    write_fixed(found[0], checked, Path("fixed/transforms.json"))
    copy = json.loads(Path("fixed/transforms.json").read_text())
    assert [frame["colmap_im_id"] for frame in copy["frames"]][-1] == 30 + len(poses()) - 1
    assert all(frame["pose_sigma_deg"] == 1.5 and frame["pose_sigma"] == 0.25 for frame in copy["frames"])
    again = load_scene(Path("fixed"), 1000).original
    assert again.train is not None and again.test is not None
    assert again.test.tolist() == [len(again) - 3, len(again) - 2, len(again) - 1]
    assert len(again.train) == len(poses()) - 3 - lost


def test_what_stays_unreadable_is_not_mended(tmp_path: Path) -> None:
    path = write(tmp_path / "given", lambda content: content.pop("fl_x")) / "transforms.json"
    path.write_text(path.read_text().replace('"fl_y"', '"fly"'))
    assert read_usable(path, lambda file: load_scene(file, 1000)) is None


def judged(folder: Path, observed: Observed) -> tuple[Scene, object]:
    found = load_scene(folder, 1000)
    return found, check_observed(found.views, observed)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_copy_is_good(mistake: str, tmp_path: Path, observed: Observed) -> None:
    change, kinds = MISTAKES[mistake]
    original = write(tmp_path / "given", change)
    before = (original / "transforms.json").read_bytes()
    found, checked = judged(original, observed)
    assert checked.verdict.grade == ("repairable" if kinds else "good")
    path = check_folder(tmp_path / "fixed")
    assert write_fixed(found, checked, path) == kinds
    mended, again = judged(path.parent, observed)
    assert (again.verdict.grade, again.diagnosis.findings) == ("good", [])
    assert all(each.is_file() for each in mended.original.paths)
    assert (original / "transforms.json").read_bytes() == before
    if mistake == "names":
        assert json.loads(path.read_text())["frames"][0]["colmap_im_id"] == 7


@pytest.mark.parametrize(("turns", "only"), [(1, None), (3, None), (2, [2, 5])])
def test_files_that_lie_on_their_side(turns: int, only: list[int] | None, tmp_path: Path, observed: Observed) -> None:
    """Turned by EXIF alone, say: poses and intrinsics of the copy are those of the files as they lie."""
    turned = with_turned_files(scene()[0], observed, turns, only)
    found, checked = judged(write(tmp_path / "given"), turned)
    assert [finding.kind for finding in checked.diagnosis.findings] == ["rotated-images"]
    write_fixed(found, checked, check_folder(tmp_path / "fixed"))
    _, again = judged(tmp_path / "fixed", turned)
    assert again.verdict.grade == "good"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="never written over"):
        check_folder(write(tmp_path))


def test_the_hopeless_is_not_mended(tmp_path: Path, observed: Observed) -> None:
    random = Rotation.random(len(poses()), random_state=5).as_matrix()
    found = load_scene(write(tmp_path / "given"), 1000)
    c2w = np.concatenate([random, np.random.RandomState(5).standard_normal((len(random), 3, 1))], axis=-1)
    checked = check_observed(replace(found.views, c2w=c2w), observed)
    with pytest.raises(InputError, match="nothing to mend"):
        write_fixed(found, checked, tmp_path / "fixed" / "transforms.json")
