"""Scenes as the cells see them: images at the size of the measurement and a fixed choice of views, written once.

Every method of a table reads the same images. The layout of the data, and with it the meaning of the noise protocols,
stays: Blender scenes keep ``transforms_train.json`` and ``transforms_test.json``, the others ``transforms.json``.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from benchmarks.suite import MISSING, ROOT, NoResult, Size
from craym_nerfstudio.evaluation.references import load_reference
from craym_nerfstudio.evaluation.surfaces import SurfaceReference
from craym_nerfstudio.storage import content_key, file_key

EVAL_INTERVAL = 8
_WITHOUT_SURFACE = ("temple_ring",)
_LEAST_APART_DEG = 15.0
_FEW_VIEWS = {"dtu_scan24": (25, 22, 28, 40, 44, 48, 0, 8, 13)}
"""Numbers of the few images to train on, in the order in which they are taken: the split of pixelNeRF and SPARF."""
_BADLY_LIT = {"dtu_scan24": (3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 36, 37, 38, 39)}
"""Images that this split neither trains on nor tests with."""


@dataclass(frozen=True)
class MaskedPoints:
    """Reference points that lie inside the masks of all images that see them, and the unit of the data."""

    points: Float[np.ndarray, "n 3"]
    unit_mm: float


@dataclass(frozen=True)
class Scene:
    """A scene, ready to be read."""

    name: str
    folder: Path
    source: Path

    def surface(self) -> SurfaceReference | None:
        """The reference surface; None where none is known."""
        return None if self.name in _WITHOUT_SURFACE else load_reference(self.source)

    def masked_points(self) -> MaskedPoints | None:
        """The part of sparse reference points that masks say is the object; None where that is not known."""
        contents = self.source / "transforms.json", self.source / "gt_sparse_points.npz"
        if not all(path.is_file() for path in contents):
            return None
        data = json.loads(contents[0].read_text())
        with np.load(contents[1]) as content:
            points = content["xyz_unit"].astype(float)
        inside = np.ones(len(points), dtype=bool)
        for frame in data["frames"]:
            pose = np.array(frame["transform_matrix"])
            right, up, back = ((points - pose[:3, 3]) @ pose[:3, :3]).T
            mask = np.array(Image.open(self.source / frame["mask_path"]).convert("L")) > 0
            column = (data["cx"] - data["fl_x"] * right / back).astype(int)
            row = (data["cy"] + data["fl_y"] * up / back).astype(int)
            seen = (back < 0) & (column >= 0) & (row >= 0) & (column < mask.shape[1]) & (row < mask.shape[0])
            inside[seen] &= mask[row[seen], column[seen]]
        return MaskedPoints(points[inside], data["scene_scale_mm"])

    def fingerprint(self) -> str:
        """Digest of the images, so that a result tells what it was measured on."""
        images = sorted(p for p in self.folder.rglob("*") if p.suffix in (".png", ".jpg") and "masks" not in p.parts)
        return content_key([file_key(path) for path in images])


def prepare(name: str, size: Size, data_root: Path, work: Path, views: int = 0) -> Scene:
    """The scene of that name at a size, from `work` or, the first time, from its source.

    Raises:
        NoResult: the source is not there.
    """
    source = ROOT / "samples" / name if name == "still_life" else data_root / name
    if not source.is_dir():
        raise NoResult(MISSING, f"{source} is not on this machine")
    chosen = f"-{views}views" if views else ""
    folder = work / "scenes" / f"{name}-{size.image_px}px{chosen}-{size.test_views}tests"
    if not folder.is_dir():
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        write = _write_blender if (source / "transforms_train.json").is_file() else _write_nerfstudio
        write(source, partial, size, views)
        partial.rename(folder)
    return Scene(name, folder, source)


def _write_blender(source: Path, target: Path, size: Size, views: int) -> None:
    contents = [json.loads((source / f"transforms_{split}.json").read_text()) for split in ("train", "test")]
    chosen = _choose(*(content["frames"] for content in contents), size, views)
    for split, content, frames in zip(("train", "test"), contents, chosen, strict=True):
        content["frames"], factors = frames, set()
        for frame in content["frames"]:
            name = frame["file_path"].removeprefix("./").removesuffix(".png") + ".png"
            factors.add(_shrink(source / name, target / name, size))
        _scale_intrinsics(content, *factors)
        (target / f"transforms_{split}.json").write_text(json.dumps(content))


def _write_nerfstudio(source: Path, target: Path, size: Size, views: int) -> None:
    everything = json.loads((source / "transforms.json").read_text())["frames"]
    everything.sort(key=lambda frame: frame["file_path"])
    if views and source.name in _FEW_VIEWS:
        chosen = _published_split(everything, source.name, size, views)
    else:
        test = everything[::EVAL_INTERVAL]
        chosen = _choose([frame for frame in everything if frame not in test], test, size, views)
    train_names, test_names = ([frame["file_path"] for frame in frames] for frames in chosen)
    wanted = {*train_names, *test_names}
    for path in [source / "transforms.json", *source.glob("transforms_colmap.json")]:
        content = json.loads(path.read_text())
        content["frames"] = [frame for frame in content["frames"] if frame["file_path"] in wanted]
        content["train_filenames"], content["test_filenames"] = train_names, test_names
        factors = {_shrink(source / name, target / name, size) for name in sorted(wanted)}
        for mask in {frame["mask_path"] for frame in content["frames"] if "mask_path" in frame}:
            _shrink(source / mask, target / mask, size)
        _scale_intrinsics(content, *factors)
        (target / path.name).write_text(json.dumps(content))


def _published_split(everything: list[dict], name: str, size: Size, views: int) -> tuple[list[dict], list[dict]]:
    """Frames to train on and to test with, as others have split this scene; test views are equally spaced."""
    left_out = {*_FEW_VIEWS[name], *_BADLY_LIT[name]}
    test = [frame for number, frame in enumerate(everything) if number not in left_out]
    chosen = np.unique(np.linspace(0, len(test) - 1, min(size.test_views, len(test))).round().astype(int))
    return [everything[number] for number in _FEW_VIEWS[name][:views]], [test[index] for index in chosen]


def _scale_intrinsics(content: dict, factor: tuple[float, float]) -> None:
    width, height = factor
    for table in (content, *content["frames"]):
        for keys, each in ((("fl_x", "cx"), width), (("fl_y", "cy"), height)):
            table.update({key: table[key] * each for key in keys if key in table})
        table.update({key: round(table[key] * each) for key, each in (("w", width), ("h", height)) if key in table})


def _shrink(source: Path, target: Path, size: Size) -> tuple[float, float]:
    """Write an image no larger than the size; returns the exact factors of width and height."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as image:
        factor = min(1.0, size.image_px / max(image.size))
        small = (round(image.width * factor), round(image.height * factor))
        if small == image.size:
            shutil.copyfile(source, target)
        else:
            # Averages pixel areas, with colours weighted by alpha.
            image.resize(small, Image.Resampling.BOX).save(target, quality=95)
        return small[0] / image.width, small[1] / image.height


def _choose(train: list[dict], test: list[dict], size: Size, views: int) -> tuple[list[dict], list[dict]]:
    """Frames to train on and to test with.

    Few `views` are the first one and its nearest neighbours that are some degrees apart from each other; test views are
    then those from their side: the rest of the object is known to nobody.
    """
    # From the scene to the cameras.
    towards, judged = (np.array([frame["transform_matrix"] for frame in each])[:, :3, 2] for each in (train, test))
    kept, count = list(range(len(train))), size.test_views
    chosen = np.unique(np.linspace(0, len(test) - 1, min(count, len(test))).round().astype(int))
    if views:
        kept = [0]
        for index in np.argsort(-(towards @ towards[0]), kind="stable"):
            if len(kept) < views and (towards[kept] @ towards[index]).max() < np.cos(np.radians(_LEAST_APART_DEG)):
                kept.append(int(index))
        chosen = np.sort(np.argsort(-(judged @ towards[kept].mean(0)), kind="stable")[: min(count, 10)])
    return [train[index] for index in kept], [test[index] for index in chosen]
