"""GPS and surveyed positions of photos: how they are read, and the frame and scale that they give."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from PIL import ExifTags, Image

from craym_nerfstudio.data.read_photos import _located, read_unposed
from craym_nerfstudio.data.scene import detect_and_read
from craym_nerfstudio.data.views import views_of
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.geometry.alignment import Similarity, pose_errors
from craym_nerfstudio.photos.files import read_photos
from craym_nerfstudio.photos.georeference import georeference
from craym_nerfstudio.photos.positions import Positions, find_positions
from craym_nerfstudio.storage import file_key
from tests.data.tiny_data import write_nerfstudio
from tests.matching.corner_scene import poses, render
from tests.sfm.synthetic import ring

UTM = np.array([512345.678, 5412345.123, 210.5])
TURNED = Similarity.of(25.0, np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), UTM)
"""A quarter turn about z, in units of 4 cm."""


def photos_in(folder: Path, places: list[dict[int, object] | None]) -> Path:
    folder.mkdir()
    for number, place in enumerate(places):
        image = Image.fromarray(np.random.RandomState(number).randint(0, 256, (6, 8, 3)).astype(np.uint8))
        exif = Image.Exif()
        if place is not None:
            exif.get_ifd(ExifTags.IFD.GPSInfo).update(place)
        image.save(folder / f"{number}.jpg", exif=exif)
    return folder


def found(folder: Path) -> Positions | None:
    return find_positions(read_photos(folder), folder)


def written(tmp_path: Path, table: str) -> Positions | None:
    folder = photos_in(tmp_path / "data", [None] * 3)
    (folder / "positions.csv").write_text(table, encoding="utf-8")
    return found(folder)


def test_exif_is_read_in_degrees_minutes_and_seconds(tmp_path: Path) -> None:
    """A thousandth of a degree on the equator is 110.574 m north and 111.319 m east."""
    gps = ExifTags.GPS

    def place(north: float, side: str, east: float, altitude: float, below: bytes) -> dict[int, object]:
        return {
            gps.GPSLatitudeRef: side, gps.GPSLatitude: (0.0, 0.0, 3600 * north),
            gps.GPSLongitudeRef: "E", gps.GPSLongitude: (10.0, 60 * east, 0.0),
            gps.GPSAltitudeRef: below, gps.GPSAltitude: altitude, gps.GPSHPositioningError: 4.0,
        }  # fmt: skip

    places = [place(0.001, "N", 0, 0, b"\0"), place(0.001, "S", 0.001, 0, b"\0"), place(0.0, "N", 0, 5.0, b"\1"), None]
    positions = found(photos_in(tmp_path / "a", places))
    assert positions is not None and positions.source == "EXIF" and "longitude 10.000000" in positions.frame
    expected = [[0, 110.574, 0], [111.319, -110.574, 0], [0, 0, -5.0]]
    np.testing.assert_allclose(positions.points[:3], expected, atol=2e-3)
    assert np.isnan(positions.points[3]).all() and positions.accuracy[0] == 4.0
    assert found(photos_in(tmp_path / "b", [None, None])) is None
    no_fix = place(0.0, "N", 0, 0, b"\0") | {gps.GPSLongitude: (0.0, 0.0, 0.0)}
    assert found(photos_in(tmp_path / "c", [no_fix, no_fix])) is None


def test_a_table_comes_before_exif_and_keeps_its_coordinates(tmp_path: Path) -> None:
    table = "\ufeffName;X;Y;Z;Accuracy\n0.jpg;512345.6781;5412345.1234;210.5;0.02\n2;512346;5412346;211;\n"
    positions = written(tmp_path, table)
    assert positions is not None and positions.source == "positions.csv"
    np.testing.assert_array_equal(positions.points[0], [512345.6781, 5412345.1234, 210.5])
    assert np.isnan(positions.points[1]).all() and positions.points[2, 2] == 211
    assert positions.accuracy[0] == 0.02 and np.isnan(positions.accuracy[1:]).all()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,lat,lon\n0.jpg,1,2\n", "columns file, lat, lon.*name,latitude,longitude,altitude"),
        ("name,x,y,z\n0.jpg,1,2\n", 'no z, in line 2'),
        ("name,x,y,z\n0.jpg,1,two,3\n", '"two" is no y, in line 2'),
        ("name,x,y,z\nother.jpg,1,2,3\n", "none of the photos.*other.jpg, not 0.jpg"),
        ("name,x,y,z,accuracy\n0.jpg,1,2,3,0\n", "Accuracy 0 in line 2"),
        ("", "columns none"),
        ("name,latitude,longitude,altitude\n0,47,8,400\n1,151.2,-33.9,64\n", "151.2 in line 3.*longitude exchanged"),
        ("name,x,y,z\n0.jpg,1,2,3\n1.jpg,1,2,3\n0,4,5,6\n0,4,5,6\n1,4,5,6\n1.JPG,4,5,6\n1.jpg,7,8,9\n",
         "2 rows fit 1.jpg, such as lines 3 and 8.*Keep one"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_named(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        written(tmp_path, table)


def test_rows_without_a_fix_and_without_a_photo_are_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    head = "name,latitude,longitude,altitude\n"
    rows = head + "0.jpg,0,0,0\n1.jpg,0.001,10,5\n1.dng,0.001,10,5\nother.jpg,1,2,3\n"
    positions = written(tmp_path, rows)
    assert positions is not None and "latitude 0.001000, longitude 10.0" in positions.frame
    assert np.isnan(positions.points[[0, 2]]).all() and np.allclose(positions.points[1], 0, atol=1e-6)
    said = capsys.readouterr().out
    assert "2 of 4 rows in positions.csv fit no photo, such as 1.dng" in said
    assert "1 of 2 photos in positions.csv are at 0, 0 (no fix) and have none, such as 0.jpg" in said
    (tmp_path / "data/positions.csv").write_text(head + "0.jpg,0,0,0\n")
    assert found(tmp_path / "data") is None


def test_photos_of_one_name_in_several_folders(tmp_path: Path) -> None:
    """Bare names are refused; folders tell, those of another machine before them or not."""
    for number, folder in enumerate(("100MEDIA", "101MEDIA")):
        photos_in(tmp_path / folder, [None])
        Image.new("RGB", (8, 6), (200 * number, 0, 0)).save(tmp_path / folder / "0.jpg")
    table = tmp_path / "positions.csv"
    table.write_text("name,x,y,z\n0.jpg,1,2,3\n")
    with pytest.raises(InputError, match=r"0\.jpg in line 2 fits 2 photos \(100MEDIA/0\.jpg, 101MEDIA/0\.jpg\)"):
        found(tmp_path)
    table.write_text("name,x,y,z\nC:\\flight\\101MEDIA\\0.JPG,4,5,6\n100MEDIA/0.jpg,1,2,3\n")
    positions = found(tmp_path)
    assert positions is not None and positions.points.tolist() == [[1, 2, 3], [4, 5, 6]]


OLDER_PRIORS = "CREATE TABLE pose_priors (image_id INTEGER, position BLOB, coordinate_system INTEGER)"


def database_in(folder: Path, names: list[str], system: pycolmap.PosePriorCoordinateSystem) -> Path:
    """A database of three photos as COLMAP writes it; the last one has no position, the first one's is precise."""
    with pycolmap.Database.open(folder / "database.db") as database:
        camera = database.write_camera(pycolmap.Camera.create(1, pycolmap.CameraModelId.PINHOLE, 10.0, 8, 6))
        for number, name in enumerate(names):
            image = pycolmap.Image(name=name, camera_id=camera)
            image.image_id = database.write_image(image)
            if number < 2:
                prior = pycolmap.PosePrior(position=[0.001 * number, 10.0, 5.0], coordinate_system=system)
                prior.corr_data_id = image.data_id
                if number == 0:
                    prior.position_covariance = 4.0 * np.eye(3)
                database.write_pose_prior(prior)
    return folder / "database.db"


@pytest.mark.parametrize("prefix", ["", "images/"])
def test_pose_priors_of_a_colmap_database_are_positions(tmp_path: Path, prefix: str) -> None:
    folder = photos_in(tmp_path / "data", [None] * 3)
    names = [f"{prefix}{number}.jpg" for number in range(3)]
    before = file_key(database_in(folder, names, pycolmap.PosePriorCoordinateSystem.WGS84))
    positions = found(folder)
    assert positions is not None and positions.source == "database.db" and "latitude 0.000500" in positions.frame
    np.testing.assert_allclose(positions.points[:2], [[0, -55.287, 0], [0, 55.287, 0]], atol=2e-3)
    assert np.isnan(positions.points[2]).all()
    assert positions.accuracy[0] == 2.0 and np.isnan(positions.accuracy[1:]).all()
    assert file_key(folder / "database.db") == before


def test_pose_priors_may_be_metric_and_a_table_comes_first(tmp_path: Path) -> None:
    folder = photos_in(tmp_path / "data", [None] * 3)
    database_in(folder, ["0.jpg", "1.jpg", "2.jpg"], pycolmap.PosePriorCoordinateSystem.CARTESIAN)
    positions = found(folder)
    assert positions is not None
    np.testing.assert_array_equal(positions.points[1], [0.001, 10.0, 5.0])
    (folder / "positions.csv").write_text("name,x,y,z\n0.jpg,1,2,3\n")
    positions = found(folder)
    assert positions is not None and positions.source == "positions.csv"


def test_older_databases_and_those_without_positions(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = photos_in(tmp_path / "data", [None] * 3)
    database = sqlite3.connect(folder / "database.db")
    database.execute("CREATE TABLE images (image_id INTEGER, name TEXT)")
    database.commit()
    assert found(folder) is None and "ignored" not in capsys.readouterr().out
    database.execute(OLDER_PRIORS)
    database.execute("INSERT INTO images VALUES (7, '1.jpg')")
    database.execute("INSERT INTO pose_priors VALUES (7, ?, 1)", (np.array([1.0, 2.0, 3.0]).tobytes(),))
    database.commit()
    database.close()
    positions = found(folder)
    assert positions is not None
    np.testing.assert_array_equal(positions.points[1], [1.0, 2.0, 3.0])
    (folder / "database.db").write_text("no database")
    with pytest.raises(InputError, match="Unreadable COLMAP database"):
        found(folder)


def test_large_coordinates_keep_their_precision() -> None:
    c2w = ring(12).numpy()
    reference = georeference(c2w, TURNED.points(c2w[:, :, 3]))
    assert reference is not None and reference.error < 1e-6
    np.testing.assert_allclose(reference.similarity.poses(c2w), TURNED.poses(c2w), rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_frame_and_scale_lie_within_the_noise_of_positions(seed: int) -> None:
    """2 % of the distance of 100 m; two positions are far off, and two are missing."""
    random, c2w = np.random.RandomState(seed), ring(50).numpy()
    measured = TURNED.points(c2w[:, :, 3]) + random.normal(0, 2.0, (50, 3))
    measured[[3, 20]] += 60.0
    measured[[7, 30]] = np.nan
    reference = georeference(c2w, measured)
    assert reference is not None and reference.error == pytest.approx(2.0, rel=0.3)
    scale = float(reference.similarity.scale) / 25.0
    assert abs(scale - 1) < 4 * reference.scale_error < 0.03
    middle = reference.similarity.points(np.zeros(3)) - UTM
    assert np.linalg.norm(middle) < 4 * 2.0 / 50**0.5 * 3**0.5


def test_cameras_on_a_line_do_not_roll_about_it() -> None:
    """A flight due west: positions alone leave open whether it looks down or sideways."""
    c2w = np.tile(np.eye(3, 4), (12, 1, 1))
    c2w[:, 0, 3] = np.arange(12)
    measured = TURNED.points(c2w[:, :, 3]) + np.random.RandomState(0).normal(0, 0.5, (12, 3))
    reference = georeference(c2w, measured)
    assert reference is not None
    np.testing.assert_allclose(reference.similarity.rotation.numpy(), TURNED.rotation.numpy(), atol=0.01)


def test_positions_coarser_than_the_scene_say_nothing() -> None:
    c2w = ring(30).numpy()
    around = np.random.RandomState(0).normal(0, 5.0, (30, 3))
    assert georeference(c2w, c2w[:, :, 3] + around) is None
    few = np.where(np.arange(30)[:, None] < 3, c2w[:, :, 3], np.nan)
    assert georeference(c2w, few) is None


@pytest.mark.parametrize(("count", "reason"), [(3, "too few, 4 are needed"), (12, "they do not lie as the cameras do")])
def test_positions_that_are_not_used_are_said_with_the_reason(
    tmp_path: Path, count: int, reason: str, capsys: pytest.CaptureFixture
) -> None:
    data = photos_in(tmp_path / "data", [None] * 12)
    spots = np.random.RandomState(0).normal(0, 5.0, (count, 3))
    rows = [f"{k},{x},{y},{z}" for k, (x, y, z) in enumerate(spots)]
    (data / "positions.csv").write_text("\n".join(["name,x,y,z", *rows]))
    photos = read_photos(data)
    folder = write_nerfstudio(tmp_path / "posed", 12)
    frames = replace(detect_and_read(folder), names=photos.names)
    positions = find_positions(photos, data)
    assert positions is not None
    assert np.array_equal(_located(frames, photos, positions).c2w, frames.c2w)
    assert f"{count} of 12 cameras have a position (positions.csv), not used: {reason}" in capsys.readouterr().out


def test_a_wrong_table_is_refused_before_photos_are_matched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = photos_in(tmp_path / "data", [None] * 3)
    (data / "positions.csv").write_text("name,latitude,longitude,altitude\n0,151.2,-33.9,10\n")
    monkeypatch.setattr("craym_nerfstudio.data.read_photos.place_photos", lambda *_: pytest.fail("matched"))
    with pytest.raises(InputError, match="exchanged"):
        read_unposed(data, "sift", tmp_path / "cache")


def test_photos_with_a_table_are_placed_in_its_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    true = TURNED.poses(poses(7))
    (tmp_path / "data").mkdir()
    rows = ["name,x,y,z,accuracy"]
    for number, pose in enumerate(poses(7)):
        Image.fromarray(render(pose)).save(tmp_path / f"data/{number}.png")
        rows.append(f"{number}.png," + ",".join(f"{value:.3f}" for value in true[number, :, 3]) + ",0.05")
    (tmp_path / "data/positions.csv").write_text("\n".join(rows))
    frames = detect_and_read(tmp_path / "data")
    said = " ".join(capsys.readouterr().out.split())
    assert "7 of 7 cameras have a position (positions.csv)" in said and "positions.csv ignored" not in said
    reach = np.linalg.norm(np.ptp(true[:, :, 3], axis=0))
    assert np.abs(frames.c2w[:, :, 3] - true[:, :, 3]).max() < 0.05 * reach
    assert pose_errors(torch.from_numpy(frames.c2w), torch.from_numpy(true)).rotation_deg_mean < 1.0
    priors = views_of(frames, frames.c2w).priors
    assert priors is not None and priors.centers is not None and (priors.translation_sigma >= 0.05).all()
    np.testing.assert_allclose(priors.centers, true[:, :, 3], atol=1e-3)
