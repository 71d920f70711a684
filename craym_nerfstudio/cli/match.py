"""The command `craym match`; what it needs is imported when it runs."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from rich.table import Table

if TYPE_CHECKING:
    from craym_nerfstudio.matching.find import Matcher
    from craym_nerfstudio.matching.matches import Matches
    from craym_nerfstudio.matching.views import Views


@dataclass
class ImagesCommand:
    """What commands that match images are told."""

    data: Path
    """Folder with transforms.json, transforms_train.json or sparse/0, or a path to a transforms JSON file."""
    output: Path
    """Folder to write to; also keeps what an interrupted run has finished."""
    matcher: Literal["auto", "aliked-lightglue", "xfeat-lighterglue", "sift"] = "auto"
    """How keypoints are found and matched; auto takes what the images need and this machine runs in reasonable time."""


@dataclass
class MatchCommand(ImagesCommand):
    """Match the images of a dataset and show what was found: matches.npz, summary.json, pictures of matched pairs."""

    matchers: str = ""
    """Several of them, separated by commas, side by side: each writes to a folder of its own."""
    prior_angle_deg: float = 60.0
    """Largest disagreement with the rough relative rotations, in degrees; 180 accepts every pair."""
    neighbours: int = 20
    """Images that each image is compared with, the most promising by the rough poses."""
    pictures: int = 3
    """Pairs drawn of the best, of the middle and of the worst each."""

    def main(self) -> None:
        """Match, write, report."""
        from craym_nerfstudio.console import console
        from craym_nerfstudio.data.config import SceneConfig
        from craym_nerfstudio.data.scene import read_scene

        names = self._names()
        views = read_scene(SceneConfig(data=self.data, eval_interval=0)).views
        folders = {name: self.output / name if self.matchers else self.output for name in names}
        summaries = {name: self._run(views, name, folder) for name, folder in folders.items()}
        console.print(_table(summaries))
        places = ", ".join(map(str, folders.values()))
        console.print(f"Written to {places}: matches.npz, summary.json, overview.png and pictures of pairs")

    def _names(self) -> list["Matcher"]:
        """Matchers to run.

        Raises:
            InputError: one of `matchers` does not exist.
        """
        from craym_nerfstudio.errors import InputError
        from craym_nerfstudio.matching.find import Matcher

        names = [name.strip() for name in self.matchers.split(",")] if self.matchers else [self.matcher]
        for name in names:
            if name not in get_args(Matcher):
                raise InputError(f"No matcher {name}", None, f"Choose among {', '.join(get_args(Matcher))}.")
        return names  # type: ignore[return-value]

    def _run(self, views: "Views", matcher: "Matcher", folder: Path) -> dict[str, Any]:
        """Match with one of them and write what it found; its summary."""
        from craym_nerfstudio.matching.find import find_matches
        from craym_nerfstudio.matching.pictures import draw_overview, draw_pair, pair_ranking, save_picture
        from craym_nerfstudio.storage import file_key, write_json

        prior = None if self.prior_angle_deg >= 180 else self.prior_angle_deg
        start = time.process_time()
        matches = find_matches(views, matcher, self.output / "cache", prior, self.neighbours)
        seconds = time.process_time() - start
        replace(matches, file_keys=[file_key(path) for path in views.paths]).save(folder / "matches.npz")
        save_picture(draw_overview(views, matches), folder / "overview.png")
        ranking = pair_ranking(matches)
        for label, pair in _examples(len(ranking), self.pictures):
            save_picture(draw_pair(views, matches, int(ranking[pair])), folder / f"{label}.png")
        summary = {**summarise(matches), "cpu_seconds": round(seconds, 1)}
        write_json(folder / "summary.json", summary)
        return summary


def _examples(pairs: int, each: int) -> list[tuple[str, int]]:
    """Labels and ranks of the pairs to draw."""
    middle = max(0, (pairs - each) // 2)
    groups = {"best": range(each), "middle": range(middle, middle + each), "worst": range(pairs - each, pairs)}
    return [
        (f"{label}_{number + 1}", rank)
        for label, ranks in groups.items()
        for number, rank in enumerate(rank for rank in ranks if 0 <= rank < pairs)
    ]


def summarise(matches: "Matches") -> dict[str, Any]:
    """Counts that tell how well the images hold together."""
    import numpy as np

    from craym_nerfstudio.matching.tracks import build_tracks
    from craym_nerfstudio.sfm.ray_graph import connected

    images = len(matches.names)
    sizes = np.sort(np.bincount(connected(matches.pairs, images)))[::-1]
    counts, tracks = matches.pair_counts, build_tracks(matches)
    keypoints = matches.images.astype(np.int64) << 32 | matches.keypoint_ids
    per_image = np.bincount(matches.images.ravel(), minlength=images)
    return {
        "detector": matches.detector,
        "images": images,
        "pairs": len(matches.pairs),
        "matches": len(matches),
        "matches_per_pair_median": float(np.median(counts)) if len(counts) else 0.0,
        "matched_keypoints_per_image": len(np.unique(keypoints)) / images,
        "tracks": len(tracks),
        "track_length_mean": float(tracks.lengths.mean()) if len(tracks) else 0.0,
        "confidence_mean": float(matches.confidence.mean()) if len(matches) else 0.0,
        "connected_groups": sizes.tolist(),
        "images_without_matches": [matches.names[number] for number in np.flatnonzero(per_image == 0)],
        "matches_of_image": {name: int(count) for name, count in zip(matches.names, per_image, strict=True)},
    }


def _table(summaries: Mapping[Any, dict[str, Any]]) -> Table:
    """A column for each matcher."""
    from craym_nerfstudio.matching.matches import groups_in_words

    table = Table("", *summaries, title="Matches")
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "detector": lambda s: s["detector"],
        "images": lambda s: s["images"],
        "matched keypoints per image": lambda s: f"{s['matched_keypoints_per_image']:.0f}",
        "verified pairs": lambda s: s["pairs"],
        "matches": lambda s: f"{s['matches']} (median {s['matches_per_pair_median']:.0f} per pair)",
        "tracks": lambda s: f"{s['tracks']} (mean length {s['track_length_mean']:.1f})",
        "images that matches connect": lambda s: groups_in_words(s["connected_groups"]),
        "images without matches": lambda s: ", ".join(s["images_without_matches"]) or "none",
        "CPU seconds (cached work costs none)": lambda s: f"{s['cpu_seconds']:.0f}",
    }
    for name, value in rows.items():
        table.add_row(name, *(str(value(summary)) for summary in summaries.values()))
    return table
