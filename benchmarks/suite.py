"""What the tables consist of: one cell per scene, noise, method and seed, the most informative ones first.

A new table is a function that yields its cells, named in `TABLES`, and a section in `benchmarks.tables`.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DATA = ROOT.parent / "shared" / "data"
SCENES = ("lego_400", "still_life", "chair_400", "dtu_scan24", "temple_ring", "spot")
SPARSE_SCENES = ("lego_400", "dtu_scan24", "still_life")
NOISES = ("barf", "l2g", "colmap", "real", "none")
"""Noise protocols; `colmap`, for dtu_scan24 alone, are the poses that COLMAP found for it."""
ANY = "any"
"""Noise of methods that never see the given poses."""
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
"""Scenes and starts that the method as it comes is measured with."""
SEEDS = (0, 1, 2)
VIEWS = (3, 6, 9)
_FEW_VIEWS_PX = 400
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

    @property
    def trains(self) -> bool:
        """Whether a field is trained."""
        return self.kind in ("craym", "nerfacto")


@dataclass(frozen=True)
class Size:
    """How large the work is."""

    method: str
    steps: int
    nerfacto_steps: int
    image_share: float
    """Images are shown at this share of their size."""
    least_image_px: int
    """But not below this longest side."""
    test_views: int
    """Test views that are judged, equally spaced; 0 judges all."""
    mesh_resolution: int
    shown_px: int = 10_000
    """Longest side of the images that are trained on; matches are found at the full size."""
    complete: bool = False
    """Every seed, and nerfacto on every scene; else only where it matters most."""


SIZES = {
    "tiny": Size("craym-lite", 40, 10, 0.25, 100, 1, 32),
    "cpu": Size("craym-lite", 1500, 200, 0.5, 200, 5, 160),
    "shipped": Size("craym-lite", 2500, 0, 1.0, 400, 8, 256, shown_px=400),
    "long": Size("craym-lite", 9000, 0, 1.0, 400, 8, 256, shown_px=400),
    "paper": Size("craym", 20000, 20000, 1.0, 400, 0, 384, complete=True),
}
"""`tiny` only tries the machinery. On a CPU a step of nerfacto takes twenty times as long as one of craym-lite: its 200
steps and the refinement of its test poses are ten minutes of one core. `shipped` is craym-lite as it comes: its own
length, photos 400 px wide; `long` is `--max-num-iterations 9000`.
"""


@dataclass(frozen=True)
class Cell:
    """One measurement."""

    table: str
    scene: str
    noise: str
    method: str
    seed: int = 0
    size: str = "cpu"
    views: int = 0
    """Training views; 0 takes all."""

    @property
    def name(self) -> str:
        """Name of its result, unique in its table."""
        views = f"-views{self.views}" if self.views else ""
        return f"{self.size}-{self.scene}-{self.noise}-{self.method}{views}-seed{self.seed}"

    @property
    def scale(self) -> Size:
        """How large the work is; few images keep 400 px on a CPU too."""
        size = SIZES[self.size]
        few = self.views and self.size == "cpu"
        return replace(size, least_image_px=_FEW_VIEWS_PX) if few else size

    @property
    def path(self) -> Path:
        """Its result, relative to the folder of results."""
        return Path(self.table) / f"{self.name}.json"


def recipe(name: str) -> tuple[str, ...]:
    """The flags of a recipe in ``configs/``."""
    lines = (ROOT / "configs" / f"{name}.args").read_text().splitlines()
    return tuple(word for line in lines if not line.startswith("#") for word in line.split())


ABLATION = {
    "base": "base",
    "kre": "+KRE",
    "kre_mrc": "+KRE +MRC",
    "epipolar": "+L_e",
    "epipolar_alignment": "+L_e +L_a",
    "all": "all",
}
"""The paper's rows, by their recipes, which start from the given poses."""
_STAGE_ZERO = ("--pipeline.start.pose-init", "matched-rays")
_PHOTOMETRIC = (*recipe("ablation/base"), "--pipeline.start.matcher", "none")
METHODS = {
    "input": Method("input", "poses as given"),
    "pycolmap_incremental": Method("pycolmap", "pycolmap, incremental, without the poses"),
    "pycolmap_global": Method("pycolmap", "pycolmap, global, without the poses"),
    "stage0": Method("stage0", "stage 0 alone"),
    "craym": Method("craym", "craym"),
    "photometric": Method("craym", "photometric only (BARF-style)", _PHOTOMETRIC),
    "nerfacto": Method("nerfacto", "nerfacto + its camera optimizer"),
    **{row: Method("craym", label, recipe(f"ablation/{row}")) for row, label in ABLATION.items()},
    **{
        f"{row}+stage0": Method("craym", label, (*recipe(f"ablation/{row}"), *_STAGE_ZERO))
        for row, label in ABLATION.items()
    },
}
POSE_METHODS = tuple(METHODS)[:7]


def noises(scene: str) -> tuple[str, ...]:
    """The noises that a scene is measured with."""
    return tuple(noise for noise in NOISES if noise != "colmap" or scene == "dtu_scan24")


def _poses(size: str) -> Iterator[Cell]:
    for seed, noise, method, scene in product(SEEDS, NOISES, POSE_METHODS, SCENES):
        # Several seeds where they draw the noise, and one cell of a method that does not see it.
        blind, first = METHODS[method].kind == "pycolmap", (noise, seed) == (NOISES[0], 0)
        wanted = noise in noises(scene) and (seed == 0 or noise in ("barf", "l2g", "real")) and (first or not blind)
        if not SIZES[size].complete:
            # On a CPU only where it matters most; there nerfacto is too slow for more than one scene.
            wanted &= seed == 0 or (noise == "barf" and method in ("input", "stage0", "craym"))
            wanted &= (noise, method) != ("none", "photometric")
            wanted &= method != "nerfacto" or (first and scene == SCENES[0])
        if wanted:
            yield Cell("poses", scene, ANY if blind else noise, method, seed, size)


def _ablation(size: str) -> Iterator[Cell]:
    for seed, scene, suffix, row in product(SEEDS, ("lego_400", "chair_400"), ("", "+stage0"), ABLATION):
        yield Cell("ablation", scene, "l2g", f"{row}{suffix}", seed, size)


def _sparse(size: str) -> Iterator[Cell]:
    for seed, views, scene, method in product(SEEDS, VIEWS, SPARSE_SCENES, ("craym", "stage0")):
        yield Cell("sparse", scene, "barf", method, seed, size, views)


def _shipped(size: str) -> Iterator[Cell]:
    for seed, (scene, noise), method in product(SEEDS, SHIPPED, ("craym", "stage0")):
        # COLMAP's poses and exact ones are the same for every seed, which then is that of the training.
        yield Cell("shipped", scene, noise, method, seed, size)


TABLES: dict[str, Callable[[str], Iterator[Cell]]] = {
    "poses": _poses,
    "ablation": _ablation,
    "sparse": _sparse,
    "shipped": _shipped,
}


def cells(table: str, size: str) -> list[Cell]:
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
