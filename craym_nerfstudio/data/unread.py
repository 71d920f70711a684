"""What other programs write and nothing here reads: named, with its way to what is read, instead of ignored."""

from pathlib import Path

from craym_nerfstudio.console import warn
from craym_nerfstudio.data.colmap_model import find_model, refuse_incomplete_models
from craym_nerfstudio.data.files import read_text
from craym_nerfstudio.data.read_pose_text import POSE_FOLDERS
from craym_nerfstudio.data.transforms_json import load_json
from craym_nerfstudio.errors import InputError
from craym_nerfstudio.images import said_of_unread
from craym_nerfstudio.photos.files import DATABASE_NAME, POSITIONS_NAME, folders_of_images, image_folder, listed
from craym_nerfstudio.photos.video import VIDEO_SUFFIXES

_AS_TEXT = "write the poses of its cameras as a trajectory, as docs/options.md has it"
_CAPTURES = {
    "keyframes/*": ("capture of Polycam", "ns-process-data polycam --data CAPTURE.zip --output-dir FOLDER"),
    "metadata.json": ("capture of Record3D", "ns-process-data record3d --data FOLDER --output-dir FOLDER"),
    "meta_data.json": (
        "dataset of sdfstudio",
        'write a transforms.json with "fl_x"... of its intrinsics and each camtoworld with the second and third column '
        "negated",
    ),
    "odometry.csv": (
        "recording of Stray Scanner",
        "ffmpeg -i rgb.mp4 -start_number 0 images/%06d.jpg (after mkdir images), and it is read with its odometry.csv",
    ),
    "mav0/*": ("recording of a EuRoC robot, whose poses are those of the inertial unit", _AS_TEXT),
    "cam0/data.csv": ("recording of a EuRoC robot, whose poses are those of the inertial unit", _AS_TEXT),
    "*.csv": (
        "table of cameras, as RealityCapture writes it",
        "ns-process-data realitycapture --data IMAGES --csv FILE.csv --output-dir FOLDER",
    ),
    "*.xml": ("project of Metashape", "ns-process-data metashape --data IMAGES --xml FILE.xml --output-dir FOLDER"),
    "reconstruction.json": ("reconstruction of OpenSfM", "opensfm export_colmap FOLDER"),
    "sfm_data.*": ("scene of openMVG", "openMVG_main_openMVG2Colmap -i sfm_data.bin -o FOLDER/sparse/0"),
    "*.sfm": ("scene of Meshroom", "aliceVision_exportColmap --input FILE.sfm --output FOLDER/sparse/0"),
    "cams/*_cam.txt": (
        "dataset of MVSNet",
        "write the inverse of each extrinsic matrix into poses/NAME.txt, each intrinsic one into intrinsics/NAME.txt",
    ),
    "*.nvm": ("model of VisualSFM", _AS_TEXT),
    "bundle*.out": ("model of Bundler", _AS_TEXT),
}
"""Files by which what others write is known, and how it becomes what is read here."""
_HEADLINES = {"*.csv": "#name"}
"""With which such a file begins."""
_POSE_FOLDERS = (*POSE_FOLDERS, "extrinsic", "extrinsics", "cameras", "cams")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
_POSE_SUFFIXES = (".json", ".txt", ".csv", ".npz", ".npy", ".pkl", ".pt", ".mat", ".log", ".yaml", ".yml", ".h5")
"""Of files in which poses may be."""


def refuse_captures(data: Path) -> None:
    """Refuse an archive, and what is known to be another program's, with its converter.

    Raises:
        InputError: it is one of these.
    """
    if data.is_file() and data.suffix.lower() in _ARCHIVES:
        raise InputError("This is an archive", data, "Unpack it, and give the folder.")
    for pattern, (capture, remedy) in _CAPTURES.items():
        if data.is_dir() and any(_begins(path, _HEADLINES.get(pattern, "")) for path in data.glob(pattern)):
            raise InputError(f"This is a {capture}, which is not read", data, f"Convert it: {remedy}.{_alone(data)}")


def refuse_unread_poses(data: Path) -> None:
    """Before photos are placed by their matches, refuse poses that lie beside them, and name files that may hold some.

    Raises:
        InputError: a JSON file has poses and another name than transforms.json; a part of a COLMAP model is missing.
    """
    if data.is_file():
        return
    refuse_incomplete_models(data)
    for path in sorted(data.glob("*.json")):
        if _has_frames(path):
            remedy = f"Give that file: --data {path}.{_alone(data)}"
            raise InputError(f"Poses in {path.name}, where transforms.json is looked for", data, remedy)
    beside = sorted(data.iterdir()) if image_folder(data) != data else []
    others = [path.name for path in beside if path.suffix.lower() in _POSE_SUFFIXES and not path.name.startswith(".")]
    others = [name for name in others if name not in (POSITIONS_NAME, DATABASE_NAME)]
    others += [f"{name}/" for name in _POSE_FOLDERS if (data / name).is_dir()]
    if folder := _folder_with_model(data):
        others.append(f"the COLMAP model in {folder.relative_to(data)}/")
    if others:
        warn(f"Not read: {listed(others)}. Photos are placed by matches; docs/options.md says which poses are read.")


def what_is_there(data: Path) -> str:
    """What lies in a folder without a dataset that might be meant, as a sentence; nothing where it has nothing."""
    if not data.is_dir():
        return ""
    if model := _folder_with_model(data):
        return f" There is a COLMAP model: --data {model}."
    if folders := folders_of_images(data):
        names = listed([folder.name for folder in folders])
        return f" There are images in {names}: give one of these, or put those that belong together into images/."
    if unread := said_of_unread(path for pattern in ("*", "*/*") for path in sorted(data.glob(pattern))):
        return f" {unread}."
    videos = [path for path in sorted(data.iterdir()) if path.suffix.lower() in VIDEO_SUFFIXES]
    return f" There is a video: --data {videos[0]}." if videos else ""


def _folder_with_model(data: Path) -> Path | None:
    """The first folder one or two levels down whose COLMAP model would be read if it were given."""
    folders = (path for pattern in ("*", "*/*") for path in sorted(data.glob(pattern)) if path.is_dir())
    return next((path for path in folders if find_model(path) is not None), None)


def _begins(path: Path, headline: str) -> bool:
    try:
        return not headline or read_text(path).lower().startswith(headline)
    except InputError:
        return False


def _has_frames(path: Path) -> bool:
    try:
        frames = load_json(path).get("frames")
    except InputError:
        return False
    return isinstance(frames, list) and any("transform_matrix" in frame for frame in frames if isinstance(frame, dict))


def _alone(data: Path) -> str:
    """How the photos there are placed without what lies beside them."""
    images = image_folder(data)
    if images is None:
        return ""
    way = "move that away" if images == data else f"--data {images}"
    return f" Or place the photos by their matches: {way}."
