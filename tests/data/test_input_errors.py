"""Every input that cannot be used gives one error that names the file and the remedy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from craym_nerfstudio.data.dataparser import CraymDataParserConfig
from craym_nerfstudio.data.scene import detect_and_read
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.images import load_image, load_mask
from tests.data.tiny_data import (
    edit_json,
    frame_entries,
    ring_poses,
    save_image,
    write_blender,
    write_colmap,
    write_json,
    write_nerfstudio,
)


def rejected(action: Callable[[], Any], *parts: str) -> InputError:
    """The error of an action, which must mention the parts and hold a problem, a place and a remedy."""
    with pytest.raises(InputError) as caught:
        action()
    for part in parts:
        assert part in str(caught.value)
    assert caught.value.problem and caught.value.remedy
    return caught.value


def parse(data: Path, **options: Any) -> Any:
    return CraymDataParserConfig(data=data, **options).setup().get_dataparser_outputs("train")


def with_pose(folder: Path, change: Callable[[np.ndarray], Any]) -> Path:
    """A dataset whose third pose was changed in place, or replaced by what `change` returns."""
    entries = frame_entries(ring_poses(8))
    matrix = np.array(entries[2]["transform_matrix"])
    changed = change(matrix)
    entries[2]["transform_matrix"] = changed if isinstance(changed, list) else matrix.tolist()
    return write_nerfstudio(folder, frames=entries)


def with_frame(folder: Path, **values: Any) -> Path:
    """A dataset whose third frame has more or other keys."""
    entries = frame_entries(ring_poses(8))
    entries[2].update(values)
    return write_nerfstudio(folder, frames=entries)


def test_nothing_found(tmp_path: Path) -> None:
    rejected(lambda: parse(tmp_path), "No dataset found", str(tmp_path), "transforms.json", "sparse/0")
    rejected(lambda: parse(tmp_path / "gone"), "No such file or folder", "gone")
    picture = tmp_path / "a.png"
    save_image(picture)
    rejected(lambda: parse(picture), "No dataset found", "a.png")


@pytest.mark.parametrize("write", [write_nerfstudio, write_blender, write_colmap])
def test_missing_image(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    folder = write(tmp_path)
    gone = detect_and_read(folder).paths[:2]
    for path in gone:
        path.unlink()
    error = rejected(lambda: parse(folder), "Missing image", "1 more")
    assert error.path == gone[0]


def test_unreadable_image(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path)
    broken = folder / "images/003.png"
    broken.write_bytes(b"these are not the pixels you are looking for")
    assert rejected(lambda: parse(folder), "Unreadable image").path == broken


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_image(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    save_image(path, (64, 64))
    path.write_bytes(path.read_bytes()[:-600])
    assert rejected(lambda: load_image(path), "Unreadable image").path == path
    assert rejected(lambda: load_mask(path), "Unreadable image").path == path


def test_huge_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(tmp_path / "a.png", (64, 64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    rejected(lambda: load_image(tmp_path / "a.png"), "Image larger than", "a.png")


def test_floating_point_image(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(tmp_path / "a.tif")
    rejected(lambda: load_image(tmp_path / "a.tif"), "Floating-point image", "a.tif")


def test_image_of_another_size_than_declared(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path)
    save_image(folder / "images/005.png", (10, 6))
    rejected(lambda: parse(folder), "Image of 10 x 6 px", "says 8 x 6", "005.png")
    colmap = write_colmap(tmp_path / "colmap")
    save_image(colmap / "images/view_1.png", (10, 6))
    rejected(lambda: parse(colmap), "Image of 10 x 6 px", "view_1.png")


def test_images_of_different_sizes_under_one_set_of_intrinsics(tmp_path: Path) -> None:
    folder = write_blender(tmp_path)
    save_image(folder / "train/r_3.png", (10, 6), channels=4)
    rejected(lambda: parse(folder), "Image of 10 x 6 px while r_0.png has 8 x 6", "r_3.png")


def test_image_turned_by_exif_only(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((8, 6, 3), dtype=np.uint8)).save(folder / "images/001.png", exif=exif)
    rejected(lambda: parse(folder), "001.png", "EXIF orientation")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pose_that_is_not_finite(tmp_path: Path, value: float) -> None:
    def change(matrix: np.ndarray) -> None:
        matrix[1, 3] = value

    rejected(lambda: parse(with_pose(tmp_path, change)), "NaN or infinite value", "images/002.png", "transforms.json")


@pytest.mark.parametrize(
    ("linear", "message"),
    [
        (np.zeros((3, 3)), "Singular rotation"),
        (np.diag([1.0, 1.0, 0.0]), "Singular rotation"),
        (np.diag([1.0, 1.0, 1.05]), "not orthonormal"),
        (2.5 * np.eye(3), "uniform scale of 2.5"),
        (np.diag([1.0, 1.0, -1.0]), "Mirrored"),
    ],
)
def test_pose_without_a_rotation(tmp_path: Path, linear: np.ndarray, message: str) -> None:
    def change(matrix: np.ndarray) -> None:
        matrix[:3, :3] = linear

    rejected(lambda: parse(with_pose(tmp_path, change)), message, "images/002.png", "transforms.json")


def test_pose_with_a_wrong_last_row(tmp_path: Path) -> None:
    rejected(lambda: parse(with_pose(tmp_path, lambda matrix: matrix.T.tolist())), "Last row", "images/002.png")


@pytest.mark.parametrize("matrix", [[[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], [[1.0, 0], [0]], "eye", [["1"] * 4] * 4, None])
def test_matrix_of_a_wrong_shape_or_type(tmp_path: Path, matrix: Any) -> None:
    folder = with_frame(tmp_path, transform_matrix=matrix)
    rejected(lambda: parse(folder), '"transform_matrix" must be a 4x4', "images/002.png", "transforms.json")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fl_x": "10"}, '"fl_x" must be a finite number'),
        ({"fl_x": True}, '"fl_x" must be a finite number'),
        ({"fl_y": 0}, '"fl_y" must be a number above zero'),
        ({"camera_model": "EQUIRECTANGULAR"}, "The images are panoramas"),
        ({"k5": 0.1}, 'coefficient "k5"'),
        ({"camera_model": "FULL_OPENCV", "k4": 0.1}, 'coefficient "k4"'),
        ({"w": 8.5}, '"w" must be a whole number of pixels'),
        ({"k1": [0.1]}, '"k1" must be a finite number'),
        ({"distortion_params": [0.1, 0.2]}, '"distortion_params" must be a list of 6'),
        ({"camera_model": "FOV"}, '"camera_model" must be one of'),
        ({"file_path": 3}, '"file_path" must be a file name'),
        ({"file_path": 300 * "x"}, '"file_path" must be a file name'),
        ({"camera_model": ["OPENCV"]}, '"camera_model" must be one of'),
        ({"fl_x": 1.25, "fl_y": 1.25}, "Focal length 1.25 px of images/002.png (8 x 6 px) is that of no lens"),
        ({"mask_path": "masks/2.png"}, "Missing mask"),
        ({"mask_file_path": "masks/2.png"}, "Missing mask"),
        ({"file_path": "images/001.png"}, 'Duplicate file name "images/001.png"'),
        ({"K1": 0.1}, 'Unknown key "K1"'),
        ({"file_paths": "a"}, None),
    ],
)
def test_wrong_values_in_a_frame(tmp_path: Path, values: dict[str, Any], message: str | None) -> None:
    folder = with_frame(tmp_path, **values)
    if message is None:  # resembles a key that is there: a note of the user's
        assert len(parse(folder).image_filenames) == 7
    else:
        rejected(lambda: parse(folder), message, "transforms.json")


def test_misspelt_and_harmless_keys(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path)
    content = json.loads((folder / "transforms.json").read_text())
    write_json(folder / "transforms.json", {**content, "scene_scale_mm": 3, "note": "x", "transforms_version": 2})
    assert len(parse(folder).image_filenames) == 7
    content["fl_X"] = content.pop("fl_x")
    write_json(folder / "transforms.json", content)
    rejected(lambda: parse(folder), 'Unknown key "fl_X"', 'did you mean "fl_x"', "transforms.json")


def test_missing_intrinsics(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path)
    content = json.loads((folder / "transforms.json").read_text())
    del content["fl_x"], content["fl_y"]
    write_json(folder / "transforms.json", content)
    rejected(lambda: parse(folder), "No focal length", "camera_angle_x", "transforms.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"frames": [\n{"file_path": }]}', "line 2"),
        ("[1, 2]", "holds no object"),
        ("{}", '"frames" is not a list'),
        ('{"frames": [3]}', '"frames" is not a list'),
        ('{"frames": []}', "zero images"),
        ('{"frames": [{"transform_matrix": 1}]}', 'No "file_path"'),
        ('{"frames": [{"file_path": "a.png"}]}', 'No "transform_matrix"'),
    ],
)
def test_broken_json(tmp_path: Path, text: str, message: str) -> None:
    save_image(tmp_path / "a.png")
    (tmp_path / "transforms.json").write_text(text)
    rejected(lambda: parse(tmp_path), message, "transforms.json")


def test_binary_json(tmp_path: Path) -> None:
    (tmp_path / "transforms.json").write_bytes(b"\xff\xfe\x00")
    rejected(lambda: parse(tmp_path), "Unreadable text file", "transforms.json")


def test_one_camera_is_too_few_and_two_are_enough(tmp_path: Path) -> None:
    rejected(lambda: parse(write_nerfstudio(tmp_path / "one", 1)), "1 training image", "at least 2", "transforms.json")
    assert len(parse(write_nerfstudio(tmp_path / "two", 2)).image_filenames) == 2


def test_split_of_unknown_files(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path, test_filenames=["images/099.png"])
    rejected(lambda: parse(folder), "images/099.png", "no frame", "transforms.json")
    edit_json(folder / "transforms.json", test_filenames="images/001.png")
    rejected(lambda: parse(folder), '"test_filenames" is not a list', "transforms.json")


def test_reference_poses_of_other_images(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path / "a")
    truth = write_json(tmp_path / "truth.json", {"frames": frame_entries(ring_poses(8), "other/x_{}.png")})
    rejected(
        lambda: parse(folder, reference_poses=truth), "lack 7 of 7", "images/001.png", "other/x_0.png", "truth.json"
    )
    some = frame_entries(ring_poses(8))[:5]
    write_json(truth, {"frames": some})
    rejected(lambda: parse(folder, reference_poses=truth), "lack 3 of 7", "images/005.png", "truth.json")
    rejected(lambda: parse(folder, reference_poses=tmp_path), "No reference poses found")


def test_bare_names_that_several_references_share_are_not_matched(tmp_path: Path) -> None:
    folder = write_nerfstudio(tmp_path / "a", 3)
    entries = frame_entries(ring_poses(3), "left/{:03d}.png") + frame_entries(ring_poses(3), "right/{:03d}.png")
    truth = write_json(tmp_path / "truth.json", {"frames": entries})
    rejected(lambda: parse(folder, reference_poses=truth), "lack 3 of 3")


def test_mask_problems(tmp_path: Path) -> None:
    entries = frame_entries(ring_poses(8))
    for number, entry in enumerate(entries):
        entry["mask_path"] = f"masks/{number}.png"
        save_image(tmp_path / f"masks/{number}.png")
    folder = write_nerfstudio(tmp_path, frames=entries)
    save_image(tmp_path / "masks/4.png", (6, 6))
    rejected(lambda: parse(folder), "Mask of 6 x 6 px for an image of 8 x 6", "4.png")
    (tmp_path / "masks/4.png").unlink()
    rejected(lambda: parse(folder), "Missing mask", "4.png")


@pytest.mark.parametrize("option", ["max_image_size_px", "eval_interval"])
def test_numbers_that_mean_nothing(option: str, tmp_path: Path) -> None:
    rejected(lambda: parse(write_nerfstudio(tmp_path), **{option: -3}), option.replace("_", "-"), "is -3")


def test_downscale_factor_below_one(tmp_path: Path) -> None:
    rejected(lambda: parse(write_nerfstudio(tmp_path), downscale_factor=0.5), "downscale-factor is 0.5")


def test_colmap_problems(tmp_path: Path) -> None:
    rejected(lambda: parse(write_colmap(tmp_path / "a", model="FOV")), "FOV", "sparse/0")
    folder = write_colmap(tmp_path / "b")
    images = folder / "sparse/0/images.bin"
    images.write_bytes(images.read_bytes()[:40])
    rejected(lambda: parse(folder), "Unreadable COLMAP model", "sparse/0")


def test_pixel_formats(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    for name, image, channels in [
        ("grey", Image.fromarray(grey), 3),
        ("sixteen", Image.fromarray(grey.astype(np.uint16) * 257), 3),
        ("palette", Image.fromarray(np.stack([grey] * 3, -1)).quantize(256), 3),
        ("alpha", Image.merge("LA", [Image.fromarray(grey)] * 2), 4),
    ]:
        image.save(tmp_path / f"{name}.png")
        loaded = load_image(tmp_path / f"{name}.png")
        assert loaded.shape == (3, 4, channels) and loaded.dtype == np.uint8
        assert np.array_equal(loaded[..., 0], grey)


def test_shrinking_averages_areas_and_ignores_hidden_colours(tmp_path: Path) -> None:
    pixels = np.zeros((2, 4, 4), dtype=np.uint8)
    pixels[:, :2] = [200, 100, 50, 255]
    pixels[:, 0] = [7, 7, 7, 0]
    pixels[:, 2:] = [[[10, 10, 10, 255], [30, 30, 30, 255]]]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    small = load_image(tmp_path / "a.png", (2, 1)).astype(int)
    assert np.abs(small[0, 0] - [200, 100, 50, 128]).max() <= 1
    assert small[0, 1].tolist() == [20, 20, 20, 255]
    Image.fromarray(pixels[..., 3]).save(tmp_path / "m.png")
    assert load_mask(tmp_path / "m.png").tolist() == [[0, 255, 255, 255]] * 2
    assert load_mask(tmp_path / "m.png", (1, 1)).tolist() == [[255]]
