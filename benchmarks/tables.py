"""What the tables consist of: one cell per scene, noise, method and seed, the most informative ones first."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.recipes import flags

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

TABLES = ("poses", "views", "surfaces", "ablation", "outliers", "sparse", "speed")
SHARED = {"views": "poses", "surfaces": "poses"}
"""Tables that show other figures of the same cells."""
SCENES = ("lego_400", "still_life", "chair_400", "dtu_scan24", "temple_ring", "spot")
NOISES = ("barf", "l2g", "colmap", "real", "none")
"""Noise protocols; `colmap`, for dtu_scan24 alone, are the poses that COLMAP found for it."""
ANY = "any"
"""Noise of methods that never see the given poses."""
SEEDS = (0, 1, 2)
ABLATION = ("base", "kre", "kre_mrc", "epipolar", "epipolar_alignment", "all")
WRONG = (0.0, 0.2, 0.4, 0.6)
SPARSE_VIEWS = (3, 6, 9)


@dataclass(frozen=True)
class Method:
    """How a cell is filled: by which kind of work, and with what changed in the method's config."""

    kind: str
    label: str
    changes: tuple[tuple[str, Any], ...] = ()

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
    complete: bool = False
    """Every seed, and nerfacto on every scene; else only where it matters most."""


SIZES = {
    "tiny": Size("craym-lite", 40, 10, 0.25, 100, 1, 32),
    "cpu": Size("craym-lite", 1500, 200, 0.5, 200, 5, 160),
    "paper": Size("craym", 20000, 20000, 1.0, 400, 0, 384, complete=True),
}
"""`tiny` only tries the machinery. On a CPU a step of nerfacto takes twenty times as long as one of craym-lite: its 200
steps and the refinement of its test poses are ten minutes of one core.
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
    wrong: float = 0.0
    """Share of matches that are replaced by wrong ones."""

    @property
    def name(self) -> str:
        """Name of its result, unique in its table."""
        views = f"-views{self.views}" if self.views else ""
        wrong = f"-wrong{round(100 * self.wrong)}" if self.table == "outliers" else ""
        return f"{self.size}-{self.scene}-{self.noise}-{self.method}{views}{wrong}-seed{self.seed}"

    @property
    def path(self) -> Path:
        """Its result, relative to the folder of results."""
        return Path(self.table) / f"{self.name}.json"

    @property
    def shows_surface(self) -> bool:
        """Whether its table has figures of the surface."""
        return self.table != "ablation"

    def command(self) -> str:
        """How to repeat it."""
        return f"python -m benchmarks.run {self.table} --size {self.size} --only {shlex.quote(self.name)}"


MANAGER, MODEL = "pipeline.datamanager.", "pipeline.model."


def ablation_method(row: str, stage_zero: bool) -> Method:
    """A row of the paper's ablation, from its recipe; `stage_zero` lets matched rays move the poses first."""
    changes: dict[str, Any] = flags(ROOT / "configs" / "ablation" / f"{row}.args")
    if stage_zero:
        changes[f"{MANAGER}pose_init"] = "matched-rays"
    return Method("craym", ABLATION_LABELS[row], tuple(changes.items()))


ABLATION_LABELS = {
    "base": "base",
    "kre": "+KRE",
    "kre_mrc": "+KRE +MRC",
    "epipolar": "+L_e",
    "epipolar_alignment": "+L_e +L_a",
    "all": "all",
}
_PHOTOMETRIC = flags(ROOT / "configs" / "ablation" / "base.args") | {f"{MANAGER}matcher": "none"}
_FROM_INPUT = ((f"{MANAGER}pose_init", "input"),)
METHODS: dict[str, Method] = {
    "input": Method("input", "poses as given"),
    "pycolmap_incremental": Method("pycolmap", "pycolmap, incremental, without the poses"),
    "pycolmap_global": Method("pycolmap", "pycolmap, global, without the poses"),
    "stage0": Method("stage0", "stage 0 alone"),
    "craym": Method("craym", "craym"),
    "photometric": Method("craym", "photometric only (BARF-style)", tuple(_PHOTOMETRIC.items())),
    "nerfacto": Method("nerfacto", "nerfacto + its camera optimizer"),
    "mrc": Method("craym", "with MRC", _FROM_INPUT),
    "no_mrc": Method("craym", "without MRC", (*_FROM_INPUT, (f"{MODEL}coherency", False))),
    "stage0_mrc": Method("craym", "stage 0, with MRC"),
    **{f"{row}": ablation_method(row, False) for row in ABLATION},
    **{f"{row}+stage0": ablation_method(row, True) for row in ABLATION},
}
POSE_METHODS = tuple(METHODS)[:7]
SPARSE_METHODS = ("input", "stage0", "craym", "photometric", "nerfacto")
OUTLIER_METHODS = ("mrc", "no_mrc", "stage0_mrc")


@dataclass(frozen=True)
class SpeedCase:
    """A measurement of seconds per step, or of the way to a PSNR."""

    method: str
    what: str
    image_share: float = 0.0
    """0 takes the images of the size."""
    views: int = 0
    rays: int = 0
    levels: int = 0


SPEED: dict[str, SpeedCase] = {
    "psnr": SpeedCase("craym", "psnr"),
    "nerfacto_psnr": SpeedCase("nerfacto", "psnr"),
    "step": SpeedCase("craym", "step"),
    "nerfacto_step": SpeedCase("nerfacto", "step"),
    **{f"images{n}": SpeedCase("craym", "step", views=n) for n in (25, 50)},
    **{f"pixels{round(400 * share)}": SpeedCase("craym", "step", image_share=share) for share in (0.25, 1.0)},
    **{f"rays{n}": SpeedCase("craym", "step", rays=n) for n in (160, 320, 1280, 2560)},
    **{f"levels{n}": SpeedCase("craym", "step", levels=n) for n in (2, 4, 6)},
}


def cells(table: str, size: str) -> list[Cell]:
    """All cells of a table, in the order in which they are filled."""
    makers = {"poses": _poses, "ablation": _ablation, "outliers": _outliers, "sparse": _sparse, "speed": _speed}
    return list(makers[SHARED.get(table, table)](size))


def noises(scene: str) -> tuple[str, ...]:
    """The noises that a scene is measured with."""
    return tuple(noise for noise in NOISES if noise != "colmap" or scene == "dtu_scan24")


def scenes(method: str, size: str) -> tuple[str, ...]:
    """Scenes of a row of cells: on a CPU nerfacto is too slow for more than one of them."""
    return SCENES[:1] if method == "nerfacto" and not SIZES[size].complete else SCENES


def seeds(noise: str, method: str, size: str) -> tuple[int, ...]:
    """Seeds of a row of cells: several where they draw the noise; on a CPU only where it matters most, or none."""
    drawn = SEEDS if noise in ("barf", "l2g", "real") else SEEDS[:1]
    if SIZES[size].complete:
        return drawn
    if (noise, method) == ("none", "photometric"):
        return ()
    return drawn if noise == "barf" and method in ("input", "stage0", "craym") else SEEDS[:1]


def _poses(size: str) -> Iterator[Cell]:
    for seed in SEEDS:
        for noise in NOISES:
            for method in POSE_METHODS:
                blind = METHODS[method].kind == "pycolmap"
                once = blind or (method == "nerfacto" and not SIZES[size].complete)
                if seed not in seeds(noise, method, size) or (once and (noise, seed) != (NOISES[0], 0)):
                    continue
                for scene in (each for each in scenes(method, size) if noise in noises(each)):
                    yield Cell("poses", scene, ANY if blind else noise, method, seed, size)


def _ablation(size: str) -> Iterator[Cell]:
    for seed in SEEDS:
        for suffix in ("", "+stage0"):
            for scene in ("lego_400", "chair_400"):
                for row in ABLATION:
                    yield Cell("ablation", scene, "l2g", f"{row}{suffix}", seed, size)


def _outliers(size: str) -> Iterator[Cell]:
    for seed in SEEDS:
        for scene in ("lego_400", "still_life"):
            for method in OUTLIER_METHODS:
                for wrong in WRONG:
                    yield Cell("outliers", scene, "barf", method, seed, size, wrong=wrong)


def _sparse(size: str) -> Iterator[Cell]:
    for seed in SEEDS:
        for method in SPARSE_METHODS:
            for scene in ("lego_400", "dtu_scan24"):
                for views in SPARSE_VIEWS:
                    yield Cell("sparse", scene, "barf", method, seed, size, views=views)


def _speed(size: str) -> Iterator[Cell]:
    for case in SPEED:
        yield Cell("speed", "lego_400", "none", case, 0, size)
