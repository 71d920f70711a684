"""Tables of what `benchmarks.run` fills: the method as it comes, beside others, less its parts, from few views."""

import statistics

from benchmarks.results import NOTHING, Figures, Groups, Results, finished, grid, grouped, markdown_table
from benchmarks.suite import ABLATION_SCENES, METHODS, PARTS, PEERS, WITHOUT, Cell, cells

SHIPPED = """`craym-lite` with nothing changed: 2500 steps, photos 400 px wide. Medians over seeds: rotation in \
degrees / translation x100 of the poses as given, after stage 0 and after training; PSNR of 8 test views; surface as \
Chamfer distance / F at 0.01 in units of the data (the objects are about 2 wide), on `dtu_scan24` the median distance \
from the reference points inside the masks to the mesh; seconds of training on one core. The seed is that of the pose \
noise and of the training."""
LONG = """The same with `--max-num-iterations 9000`, which all schedules follow."""
POSE_ERRORS: Figures = (("pose_rotation_deg", 3), ("pose_translation_x100", 2))
SPARSE = """Rotation in degrees / translation x100 / PSNR in dB of views from their side, from `barf` noise, \
seed 0. `dtu_scan24` has the split of pixelNeRF and SPARF; of three given cameras the centres, by which errors are \
aligned, hardly fix how all of it is turned, which is the large error of the input."""
PEERS_TEXT = """The same scenes and starts, seed 0: rotation in degrees / translation x100 / PSNR in dB of test views. \
pycolmap runs its own SIFT and exhaustive matching with the true intrinsics held, from the same images, and never sees \
the given poses; its errors are those of the images it registered. Colours alone: the same training without matches, \
silhouettes and stage 0."""
ABLATION = """`craym-lite` less one of its parts, from `barf`; then the paper's parts one after the other, from the \
given poses without stage 0, from `l2g`, as the paper does it; seed 0. Rotation in degrees / translation x100 / PSNR \
in dB / F at 0.01."""
GIVEN = "poses as given"
_GIVEN_ERRORS: Figures = tuple((f"{name}_before", digits) for name, digits in POSE_ERRORS)
_POSES_AND_VIEWS: Figures = (*POSE_ERRORS, ("psnr", 2))
_QUALITY: Figures = (*_POSES_AND_VIEWS, ("surface.f_score_0.01", 3))


def peers() -> list[tuple[Groups, Figures]]:
    """Rows of methods, columns of scenes and starts: what the table and the plot are made of."""
    column = {scene: f"`{scene}` {noise}" for scene, noise in PEERS}

    def rows(chosen: list[Cell], label: str = "") -> Groups:
        return grouped(chosen, lambda cell: label or METHODS[cell.method].label, lambda cell: column[cell.scene])

    ours = [cell for cell in cells("shipped") if cell.seed == 0 and (cell.scene, cell.noise) in PEERS]
    craym, stage = ([cell for cell in ours if cell.method == method] for method in ("craym", "stage0"))
    given, others = (rows(craym, GIVEN), _GIVEN_ERRORS), (rows(cells("peers")), _POSES_AND_VIEWS)
    return [given, others, (rows(stage), POSE_ERRORS), (rows(craym), _POSES_AND_VIEWS)]


def ablation(results: Results) -> list[str]:
    """The method less its parts, and the paper's parts from the given poses."""
    chosen = cells("ablation")

    def rows(group: list[Cell], label: str = "") -> Groups:
        return grouped(group, lambda cell: label or METHODS[cell.method].label, lambda cell: f"`{cell.scene}`")

    shown = [c for c in cells("shipped") if (c.noise, c.method, c.seed) == ("barf", "craym", 0)]
    whole = [cell for cell in shown if cell.scene in ABLATION_SCENES]
    base = [cell for cell in chosen if cell.method == "base"]
    less, parts = ([cell for cell in chosen if cell.method in group] for group in (WITHOUT, PARTS))
    return [
        grid(results, (rows([*whole, *less]), _QUALITY)),
        grid(results, (rows(base, GIVEN), _GIVEN_ERRORS), (rows(parts), _QUALITY)),
    ]


def sparse(results: Results) -> str:
    """Few views."""
    parts = []
    for scene, chosen in grouped(cells("sparse"), lambda c: c.scene, lambda c: c.method).items():
        label = f"`{scene}`, {GIVEN}"
        parts.append((grouped(chosen["craym"], lambda _, text=label: text, _views), _GIVEN_ERRORS))
        for method in ("stage0", "craym"):
            label = f"`{scene}`, {METHODS[method].label}"
            rows = grouped(chosen[method], lambda _, text=label: text, _views)
            parts.append((rows, _POSES_AND_VIEWS if method == "craym" else POSE_ERRORS))
    return grid(results, *parts)


def shipped(results: Results, size: str = "shipped") -> str:
    """The method as it comes, or trained for longer, medians over seeds."""
    rows = []
    every = cells("shipped", size)
    for (scene, noise), chosen in grouped(every, lambda c: (c.scene, c.noise), lambda c: c.method).items():
        records = {method: results.of(each) for method, each in chosen.items()}
        poses = [
            _median(records[method], *((f"{name}{suffix}", n) for name, n in POSE_ERRORS))
            for method, suffix in (("craym", "_before"), ("stage0", ""), ("craym", ""))
        ]
        surface = _median(records["craym"], ("surface.masked_median_mm", 2))
        exact = _median(records["craym"], ("surface.chamfer", 4), ("surface.f_score_0.01", 3))
        seeds = len(finished(records["craym"], "psnr"))
        seconds = _median(records["craym"], ("train_s", 0))
        shape = exact if surface == NOTHING else f"{surface} mm"
        rows.append([f"`{scene}` {noise}", *poses, _median(records["craym"], ("psnr", 2)), shape, seconds, str(seeds)])
    head = ["scene, start", "as given", "stage 0", "craym-lite", "views dB", "surface", "training s", "seeds"]
    return markdown_table(head, [row for row in rows if row[-1] != "0"])


def _median(records: list[dict | None], *figures: tuple[str, int]) -> str:
    found = [(finished(records, name), digits) for name, digits in figures]
    return " / ".join(f"{statistics.median(values):.{digits}f}" for values, digits in found if values) or NOTHING


def _views(cell: Cell) -> str:
    return f"{cell.views} views"
