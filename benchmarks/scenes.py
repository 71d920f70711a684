"""Scenes as the cells see them: images at the size of the measurement and a fixed choice of views, written once.

Every method of a table reads the same images. The layout of the data, and with it the meaning of the noise protocols,
stays: Blender scenes keep ``transforms_train.json`` and ``transforms_test.json``, the others ``transforms.json``.
"""

import gzip
import json
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.tables import ROOT, Size
from craym_nerfstudio.evaluation.references import load_reference
from craym_nerfstudio.evaluation.surfaces import SurfaceReference
from craym_nerfstudio.storage import content_key, file_key, write_atomically

EVAL_INTERVAL = 8
_DTU_SPARSE = (25, 22, 28, 40, 44, 48, 0, 8, 13)
"""Training views of PixelNeRF's protocol, of which the first 3, 6 or 9 are taken."""
WITHOUT_SURFACE = ("temple_ring",)
_LEAST_APART_DEG = 15.0
_SCALED = ("fl_x", "fl_y", "cx", "cy")


class SceneMissing(Exception):
    """The data of a scene is not on this machine."""


@dataclass(frozen=True)
class Scene:
    """A scene, ready to be read."""

    name: str
    folder: Path
    work: Path

    def data(self, noise: str) -> Path:
        """What `--data` is told."""
        return self.folder / "transforms_colmap.json" if noise == "colmap" else self.folder

    @property
    def truth(self) -> Path:
        """True poses, for metrics alone."""
        return self.folder

    def surface(self) -> SurfaceReference | None:
        """The reference surface, read once for all sizes; None where none is known."""
        path = self.work / "references" / f"{self.name}.pkl.gz"
        if not path.exists():
            source = Path((self.folder / "source.txt").read_text())
            reference = None if self.name in WITHOUT_SURFACE else load_reference(source)
            content = gzip.compress(pickle.dumps(reference))
            write_atomically(path, lambda file: file.write(content))
        return pickle.loads(gzip.decompress(path.read_bytes()))


def prepare(name: str, size: Size, data_root: Path, work: Path, views: int = 0, image_share: float = 0.0) -> Scene:
    """The scene of that name at a size, from `work` or, the first time, from its source.

    Raises:
        SceneMissing: neither is there.
    """
    share = image_share or size.image_share
    chosen = f"-{views}views" if views else ""
    tested = f"-{size.test_views}tests" if size.test_views else ""
    folder = work / "scenes" / f"{name}-{round(100 * share)}-{size.least_image_px}px{chosen}{tested}"
    if (folder / "source.txt").is_file():
        return Scene(name, folder, work)
    source = ROOT / "samples" / name if name == "still_life" else data_root / name
    if not source.is_dir():
        raise SceneMissing(f"{source} is not on this machine")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write(source, partial, share, size, views)
    (partial / "source.txt").write_text(str(source))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return Scene(name, folder, work)


def fingerprint(scene: Scene) -> str:
    """Digest of the images, so that a result tells what it was measured on."""
    images = sorted(p for p in scene.folder.rglob("*") if p.suffix in (".png", ".jpg") and "masks" not in p.parts)
    return content_key([file_key(path) for path in images])


def _write(source: Path, target: Path, share: float, size: Size, views: int) -> None:
    if (source / "transforms_train.json").is_file():
        _write_blender(source, target, share, size, views)
    else:
        _write_nerfstudio(source, target, share, size, views)


def _write_blender(source: Path, target: Path, share: float, size: Size, views: int) -> None:
    contents = {s: json.loads((source / f"transforms_{s}.json").read_text()) for s in ("train", "test")}
    train, test = (_directions(contents[split]["frames"]) for split in ("train", "test"))
    kept = np.arange(len(train))
    if views:
        kept = _neighbours(train, views)
        # Test views from where the few training views look: the rest of the object is known to nobody.
        near = np.sort(np.argsort(-(test @ train[kept].mean(0)), kind="stable")[: size.test_views or 10])
    else:
        near = _spread(len(test), size.test_views)
    for split, indices in (("train", kept), ("test", near)):
        content = contents[split]
        content["frames"] = [content["frames"][index] for index in indices]
        factors = set()
        for frame in content["frames"]:
            name = frame["file_path"].removeprefix("./")
            factors.add(_shrink(_with_suffix(source / name), target / f"{name}.png", share, size.least_image_px))
        _scale_intrinsics(content, *factors)
        (target / f"transforms_{split}.json").write_text(json.dumps(content))


def _write_nerfstudio(source: Path, target: Path, share: float, size: Size, views: int) -> None:
    names = sorted(frame["file_path"] for frame in json.loads((source / "transforms.json").read_text())["frames"])
    everything = np.arange(len(names))
    test = everything[everything % EVAL_INTERVAL == 0]
    train = np.setdiff1d(everything, test)
    if views:
        train = np.array(_DTU_SPARSE[:views]) if source.name.startswith("dtu") else _spread(len(names), views)
        test = np.setdiff1d(test, train)
    test = test[_spread(len(test), size.test_views)]
    for path in [source / "transforms.json", *source.glob("transforms_colmap.json")]:
        content, wanted = json.loads(path.read_text()), {names[k] for k in (*train, *test)}
        content["frames"] = [frame for frame in content["frames"] if frame["file_path"] in wanted]
        content["train_filenames"], content["test_filenames"] = ([names[k] for k in part] for part in (train, test))
        factors = {_shrink(source / name, target / name, share, size.least_image_px) for name in sorted(wanted)}
        for frame in content["frames"]:
            if "mask_path" in frame:
                _shrink(source / frame["mask_path"], target / frame["mask_path"], share, size.least_image_px)
        _scale_intrinsics(content, *factors)
        (target / path.name).write_text(json.dumps(content))


def _scale_intrinsics(content: dict, factor: tuple[float, float]) -> None:
    for table in (content, *content["frames"]):
        for key in _SCALED:
            if key in table:
                table[key] *= factor[0] if key.endswith("x") else factor[1]
        for key, each in (("w", factor[0]), ("h", factor[1])):
            if key in table:
                table[key] = round(table[key] * each)


def _shrink(source: Path, target: Path, share: float, least_px: int) -> tuple[float, float]:
    """Write an image at a share of its size; returns the exact factors of width and height."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as image:
        factor = min(1.0, max(share, least_px / max(image.size)))
        size = (round(image.width * factor), round(image.height * factor))
        if size == image.size:
            shutil.copyfile(source, target)
        else:
            # Averages pixel areas, with colours weighted by alpha.
            image.resize(size, Image.Resampling.BOX).save(target, quality=95)
        return size[0] / image.width, size[1] / image.height


def _with_suffix(path: Path) -> Path:
    return path if path.suffix == ".png" else path.with_name(path.name + ".png")


def _spread(count: int, wanted: int) -> np.ndarray:
    if not wanted or wanted >= count:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, wanted).round().astype(int))


def _directions(frames: list[dict]) -> np.ndarray:
    """Viewing directions, from the scene to the cameras."""
    return np.array([np.array(frame["transform_matrix"])[:3, 2] for frame in frames])


def _neighbours(directions: np.ndarray, count: int) -> np.ndarray:
    """Views around the first one, the nearest that are some degrees apart from each other: few, but overlapping."""
    kept = [0]
    for index in np.argsort(-(directions @ directions[0]), kind="stable"):
        if len(kept) < count and (directions[kept] @ directions[index]).max() < np.cos(np.radians(_LEAST_APART_DEG)):
            kept.append(int(index))
    return np.array(kept)
