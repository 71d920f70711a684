"""Matched-ray bundle adjustment from rough poses: errors before and after, one JSON file per run.

    export OMP_WAIT_POLICY=PASSIVE
    python -m benchmarks.stage0 --data-root ../shared/data
    python -m benchmarks.stage0 --only 'still_life-barf*'

Rough poses of several kinds over three seeds, spoilt matches, and 25, 50 and 100 views; a run whose result exists is
not repeated. Translations are in units of the data, x100: of the w2c translation vectors (as in the papers) and of the
camera centres. Matching starts from an empty cache; ``cpu_s`` are the seconds of all threads.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import command, machine
from benchmarks.suite import DATA, RESULTS, ROOT, SEEDS
from craym_nerfstudio.data.config import SceneConfig
from craym_nerfstudio.data.scene import read_scene
from craym_nerfstudio.geometry.alignment import align_poses, pose_errors
from craym_nerfstudio.geometry.lie import so3_exp
from craym_nerfstudio.geometry.rays import focus_point
from craym_nerfstudio.matching.find import find_matches
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.sfm.result import StageZero
from craym_nerfstudio.sfm.second_look import adjust_twice
from craym_nerfstudio.storage import write_json

UNKNOWN_TRUTH = ("hololens_000", "fox")


@dataclass(frozen=True)
class Case:
    """One start: which scene, what noise (protocols, `ten` degrees and percent, `colmap` file), which images."""

    scene: str
    noise: str
    every: int = 1
    seed: int = 0
    wrong: float = 0.0
    """Share of the matches that is spoilt."""
    matcher: str = "auto"
    downscale: float = 1.0
    """Of the images."""

    @property
    def name(self) -> str:
        """File name of the result."""
        every = f"-every{self.every}" if self.every > 1 else ""
        wrong = f"-wrong{round(100 * self.wrong)}" if self.wrong else ""
        matcher = f"-{self.matcher}" if self.matcher != "auto" else ""
        return f"{self.scene}-{self.noise}{every}{wrong}{matcher}-seed{self.seed}"


_ROUGH = {"lego_400": ("barf", "l2g"), "chair_400": ("barf", "l2g"), "still_life": ("barf",), "temple_ring": ("ten",)}
CASES = [
    *(Case(scene, noise, seed=seed) for scene, noises in _ROUGH.items() for noise in noises for seed in SEEDS),
    *(Case("lego_400", "barf", every=5, seed=seed) for seed in SEEDS),
    Case("dtu_scan24", "colmap"),
    *(Case(scene, "network") for scene in ("still_life", "lego_400", "chair_400")),
    Case("dtu_scan24", "network", downscale=2.0),
    *(Case(scene, "none") for scene in (*UNKNOWN_TRUTH, "lego_400", "dtu_scan24", "temple_ring", "still_life")),
    *(Case("still_life", "barf", seed=seed, wrong=wrong) for wrong in (0.2, 0.4, 0.6) for seed in SEEDS),
    *(Case("lego_400", "barf", every, matcher="sift") for every in (4, 2, 1)),
]


def load_views(case: Case, data_root: Path) -> tuple[Views, torch.Tensor | None, np.ndarray | None]:
    """Views with rough poses, true poses where they are known, and true focal lengths where the noise changed them."""
    folder = ROOT / "samples" / case.scene if case.scene == "still_life" else data_root / case.scene
    truth = folder / "transforms.json"
    config = SceneConfig(
        folder / "transforms_colmap.json" if case.noise == "colmap" else folder,
        eval_interval=0,
        downscale_factor=case.downscale,
        pose_noise="none" if case.noise in ("ten", "colmap") else case.noise,  # type: ignore[arg-type]
        pose_noise_seed=case.seed,
        reference_poses=truth if truth.is_file() and case.scene not in UNKNOWN_TRUTH else None,
    )
    scene = read_scene(config)
    views, reference = scene.views, scene.reference
    if case.noise == "ten":
        views = replace(views, c2w=ten_degrees(views.c2w, case.seed))
    chosen = np.arange(0, len(views.names), case.every)
    if reference is None:
        return every_nth(views, chosen), None, None
    focal_px = None if reference.train_focal_px is None else reference.train_focal_px[chosen]
    return every_nth(views, chosen), torch.from_numpy(reference.train_c2w[chosen]), focal_px


def every_nth(views: Views, chosen: np.ndarray) -> Views:
    """Only the chosen images."""
    names, paths = ([each[k] for k in chosen] for each in (views.names, views.paths))
    masks = None if views.mask_paths is None else [views.mask_paths[k] for k in chosen]
    numbers = (each[chosen] for each in (views.c2w, views.focal_px, views.size_px))
    return Views(names, paths, masks, *numbers, lambda image, px: views.bearings(int(chosen[image]), px))


def ten_degrees(c2w: np.ndarray, seed: int) -> np.ndarray:
    """Poses turned by 10 degrees and shifted by 10 % of the camera's distance, both in random directions."""
    random = np.random.RandomState(seed)
    axes, shifts = random.standard_normal((2, len(c2w), 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    shifts /= np.linalg.norm(shifts, axis=1, keepdims=True)
    poses = torch.from_numpy(c2w)
    distance = (poses[:, :, 3] - focus_point(poses[:, :, 3], -poses[:, :, 2])).norm(dim=1).numpy()
    turned = c2w[:, :, :3] @ so3_exp(torch.from_numpy(np.radians(10) * axes)).numpy()
    return np.concatenate([turned, c2w[:, :, 3:] + 0.1 * (distance[:, None] * shifts)[..., None]], axis=-1)


def with_wrong_matches(matches: Matches, fraction: float, seed: int) -> Matches:
    """Matches of which a fraction ends at some other matched keypoint of the second image."""
    random = np.random.RandomState(seed)
    images, ids = matches.images[:, 1], matches.keypoint_ids.copy()
    keypoints, bearings = matches.keypoints.copy(), matches.bearings.copy()
    for match in np.nonzero(random.uniform(size=len(ids)) < fraction)[0]:
        other = random.choice(np.nonzero(images == images[match])[0])
        ids[match, 1] = matches.keypoint_ids[other, 1]
        keypoints[match, 1], bearings[match, 1] = matches.keypoints[other, 1], matches.bearings[other, 1]
    return replace(matches, keypoint_ids=ids, keypoints=keypoints, bearings=bearings)


def errors(c2w: np.ndarray, true: torch.Tensor | None) -> dict[str, float]:
    """Errors against true poses after alignment; empty where those are not known."""
    if true is None:
        return {}
    poses = torch.from_numpy(np.asarray(c2w, dtype=np.float64))
    found = pose_errors(poses, true)
    centers = align_poses(poses, true).poses(poses)[:, :, 3]
    return {
        "rotation_deg": found.rotation_deg_mean,
        "rotation_deg_median": float(found.rotation_deg.quantile(0.5)),
        "rotation_deg_max": float(found.rotation_deg.max()),
        "translation_x100": found.translation_x100_mean,
        "center_x100": 100 * float((centers - true[:, :, 3]).norm(dim=1).mean()),
    }


def focal_errors(views: Views, stage: StageZero, true_px: np.ndarray | None) -> dict[str, float]:
    """Mean relative errors of focal lengths before and after, and of their mean; empty where none were changed."""
    if true_px is None:
        return {}
    lens = stage.intrinsics
    factor = 1.0 if lens is None else lens.focal_factor * np.array(lens.own_focal or 1.0)
    before, after = views.focal_px / true_px - 1, views.focal_px * factor / true_px - 1
    values = np.array([np.abs(before).mean(), before.mean(), np.abs(after).mean()])
    names = ("before_percent", "before_of_mean_percent", "after_percent")
    return dict(zip(names, (100 * values).tolist(), strict=True))


def measure(case: Case, data_root: Path) -> dict:
    """Match and adjust one start."""
    views, true, true_focal_px = load_views(case, data_root)
    clock = time.process_time()
    with tempfile.TemporaryDirectory() as empty:
        matches = find_matches(views, case.matcher, Path(empty))  # type: ignore[arg-type]
    cpu_s = {"matching": time.process_time() - clock}
    if case.wrong:
        matches = with_wrong_matches(matches, case.wrong, case.seed)
    clock = time.process_time()
    matches, stage = adjust_twice(views, matches)
    cpu_s["adjustment"] = time.process_time() - clock
    change = errors(stage.c2w, torch.from_numpy(views.c2w))
    return {
        **vars(case),
        "cameras": stage.counts,
        "matches": len(matches),
        "points": len(stage.points),
        "before": errors(views.c2w, true),
        "after": errors(stage.c2w, true),
        "focal": focal_errors(views, stage, true_focal_px),
        "moved": {"deg_median": change["rotation_deg_median"], "deg_max": change["rotation_deg_max"]},
        "epipolar_px": stage.median_epipolar_px,
        "decision": stage.decision.reason,
        "cpu_s": cpu_s,
        "command": command(),
        "machine": machine(torch.device("cpu")),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="runs whose name matches")
    parser.add_argument("--data-root", type=Path, default=DATA)
    parser.add_argument("--output", type=Path, default=RESULTS / "stage0")
    args = parser.parse_args()
    for case in CASES:
        path = args.output / f"{case.name}.json"
        if fnmatch(case.name, args.only) and not path.exists():
            result = measure(case, args.data_root)
            write_json(path, result)
            shown = {name: result[name] for name in ("before", "after", "focal", "moved", "cameras", "cpu_s")}
            print(f"{case.name}: {json.dumps(shown)}", flush=True)


if __name__ == "__main__":
    main()
