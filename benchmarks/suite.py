"""What the tables consist of: one cell per scene, noise, method and seed, the most informative ones first.

A new table is a function that yields its cells, named in `TABLES`, and a section in `benchmarks.tables`.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DATA = ROOT.parent / "shared" / "data"
SHIPPED = (
    ("still_life", "barf"),
    ("chair_400", "barf"),
    ("dtu_scan24", "colmap"),
    ("lego_400", "barf"),
    ("temple_ring", "l2g"),
    ("spot", "barf"),
    ("spot", "l2g"),
    ("spot", "real"),
    ("still_life", "none"),
)
"""Scenes and starts that the method as it comes is measured with; `colmap` are the poses that COLMAP found."""
PEERS = SHIPPED[:6]
"""Those that others are measured with, each scene once."""
ANY = "any"
"""Noise of methods that never see the given poses."""
SPARSE_SCENES = ("lego_400", "dtu_scan24", "still_life")
ABLATION_SCENES = ("still_life", "lego_400")
SEEDS = (0, 1, 2)
VIEWS = (3, 6, 9)
PAUSED, MISSING = 75, 76
"""Exit status of a cell that goes on the next time, and of one whose scene is not on this machine."""


class NoResult(Exception):
    """A cell ends without one; its arguments are the exit status and the reason."""


@dataclass(frozen=True)
class Method:
    """How a cell is filled: by which kind of work, and with which flags of ``ns-train``."""

    kind: str
    label: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Size:
    """How large the work of a cell is; the method is craym-lite."""

    steps: int
    test_views: int
    """Test views that are judged, equally spaced."""
    mesh_resolution: int
    image_px: int = 10_000
    """Longest side of the images as they are matched."""
    shown_px: int = 400
    """And as they are trained on."""


SIZES = {
    "tiny": Size(40, 1, 32, image_px=100),
    "shipped": Size(2500, 8, 256),
    "long": Size(9000, 8, 256),
}
"""`tiny` only tries the machinery; `shipped` is craym-lite as it comes, `long` with `--max-num-iterations 9000`."""


@dataclass(frozen=True)
class Cell:
    """One measurement."""

    table: str
    scene: str
    noise: str
    method: str
    seed: int = 0
    size: str = "shipped"
    views: int = 0
    """Training views; 0 takes all."""

    @property
    def name(self) -> str:
        """Name of its result, unique in its table."""
        views = f"-views{self.views}" if self.views else ""
        return f"{self.size}-{self.scene}-{self.noise}-{self.method}{views}-seed{self.seed}"

    @property
    def scale(self) -> Size:
        """How large the work is."""
        return SIZES[self.size]

    @property
    def path(self) -> Path:
        """Its result, relative to the folder of results."""
        return Path(self.table) / f"{self.name}.json"


def recipe(name: str) -> tuple[str, ...]:
    """The flags of a recipe in ``configs/``."""
    lines = (ROOT / "configs" / f"{name}.args").read_text().splitlines()
    return tuple(word for line in lines if not line.startswith("#") for word in line.split())


PARTS = {
    "base": "none of the paper's parts",
    "kre": "+KRE",
    "kre_mrc": "+KRE +MRC",
    "epipolar": "+L_e",
    "epipolar_alignment": "+L_e +L_a",
    "all": "all of them",
}
"""The paper's rows, by their recipes, which start from the given poses."""
_NO_KEYS = ("--pipeline.model.enrichment", "False", "--pipeline.model.coherency", "False")
_NO_TIES = ("--pipeline.model.epipolar-loss-mult", "0", "--pipeline.model.point-alignment-loss-mult", "0")
_NO_PHOTOS = ("--pipeline.model.consistency-loss-mult", "0")
WITHOUT = {
    "without_mrc": Method("craym", "without MRC", ("--pipeline.model.coherency", "False")),
    "without_keys": Method("craym", "without KRE and MRC", _NO_KEYS),
    "without_ties": Method("craym", "without L_e and L_a", _NO_TIES),
    "without_parts": Method("craym", "without all four", (*_NO_KEYS, *_NO_TIES)),
    "without_photos": Method("craym", "without photos compared on the surface", _NO_PHOTOS),
    "without_points": Method("craym", "without stage 0's points", ("--pipeline.model.landmark-loss-mult", "0")),
    "held": Method("craym", "poses held as stage 0 found them", ("--pipeline.model.camera-optimizer.mode", "off")),
}
"""The method as it comes, less something."""
_COLOURS_ALONE = (
    *("--pipeline.start.matcher", "none", *_NO_PHOTOS, "--pipeline.model.silhouette-loss-mult", "0"),
    *("--pipeline.model.camera-optimizer.settled-delay-steps", "0"),
)
METHODS = {
    "pycolmap_incremental": Method("pycolmap", "pycolmap, incremental, without the poses"),
    "pycolmap_global": Method("pycolmap", "pycolmap, global, without the poses"),
    "photometric": Method("craym", "colours alone (BARF-style)", (*recipe("ablation/base"), *_COLOURS_ALONE)),
    "stage0": Method("stage0", "stage 0 alone"),
    "craym": Method("craym", "craym-lite"),
    **WITHOUT,
    **{row: Method("craym", label, recipe(f"ablation/{row}")) for row, label in PARTS.items()},
}


def _shipped(size: str) -> Iterator[Cell]:
    for seed, (scene, noise), method in product(SEEDS, SHIPPED, ("craym", "stage0")):
        # COLMAP's poses and exact ones are the same for every seed, which then is that of the training.
        yield Cell("shipped", scene, noise, method, seed, size)


def _peers(size: str) -> Iterator[Cell]:
    for method, (scene, noise) in product(("pycolmap_incremental", "pycolmap_global", "photometric"), PEERS):
        yield Cell("peers", scene, ANY if METHODS[method].kind == "pycolmap" else noise, method, 0, size)


def _ablation(size: str) -> Iterator[Cell]:
    for scene, row in product(ABLATION_SCENES, WITHOUT):
        yield Cell("ablation", scene, "barf", row, 0, size)
    for row in PARTS:
        yield Cell("ablation", ABLATION_SCENES[-1], "l2g", row, 0, size)


def _sparse(size: str) -> Iterator[Cell]:
    for views, scene, method in product(VIEWS, SPARSE_SCENES, ("craym", "stage0")):
        yield Cell("sparse", scene, "barf", method, 0, size, views)


TABLES: dict[str, Callable[[str], Iterator[Cell]]] = {
    "shipped": _shipped,
    "peers": _peers,
    "ablation": _ablation,
    "sparse": _sparse,
}


def cells(table: str, size: str = "shipped") -> list[Cell]:
    """All cells of a table, in the order in which they are filled."""
    return list(TABLES[table](size))


def running_commit() -> str:
    """The commit that runs, marked where code differs from it; CRAYM_COMMIT tells it where there is no repository."""
    if shutil.which("git") is None:
        return os.environ.get("CRAYM_COMMIT", "unknown")
    told = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    if not told:
        return os.environ.get("CRAYM_COMMIT", "unknown")
    code = ["craym_nerfstudio", "benchmarks/*.py"]
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *code], cwd=ROOT, capture_output=True)
    return told + ("-changed" if changed.returncode == 1 else "")
