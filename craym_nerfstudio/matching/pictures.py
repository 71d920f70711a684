"""Pictures of matches for eyes: pairs side by side, and the whole match graph."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw

from craym_nerfstudio.matching.images import load_picture
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.storage import write_atomically

_PANEL_PX = 640
_MOST_LINES = 120
_MARGIN_PX = 24
_BLUES = np.array([[250.0, 250.0, 250.0], [158.0, 202.0, 225.0], [8.0, 48.0, 107.0]])
"""White at 0 to dark blue at 1."""
_TRAFFIC_LIGHT = np.array([[210.0, 30.0, 30.0], [235.0, 190.0, 30.0], [30.0, 160.0, 60.0]])
"""Red at 0 over yellow to green at 1."""


def pair_ranking(matches: Matches) -> Int[np.ndarray, " pairs"]:
    """Numbers of the pairs from best to worst, by the sum of their matches' confidence."""
    total = np.bincount(matches.pair_of_match, weights=matches.confidence, minlength=len(matches.pairs))
    return np.argsort(-total, kind="stable")


def draw_pair(views: Views, matches: Matches, pair: int) -> Image.Image:
    """Two images side by side; lines join matched keypoints, from red (confidence 0) over yellow to green (1).

    Raises:
        InputError: an image cannot be read.
    """
    images = matches.pairs[pair]
    chosen = np.flatnonzero(matches.pair_of_match == pair)
    # Evenly spread over the ranks of confidence, the most confident drawn last and thus on top.
    ranked = chosen[np.argsort(matches.confidence[chosen], kind="stable")]
    drawn = ranked[np.unique(np.linspace(0, len(ranked) - 1, min(_MOST_LINES, len(ranked))).astype(int))]
    panels = [load_picture(views, int(image)).rgb for image in images]
    scales = [_PANEL_PX / max(panel.shape[:2]) for panel in panels]
    shown = [
        Image.fromarray(panel).resize((round(panel.shape[1] * scale), round(panel.shape[0] * scale)))
        for panel, scale in zip(panels, scales, strict=True)
    ]
    canvas = Image.new("RGB", (shown[0].width + shown[1].width, _MARGIN_PX + max(s.height for s in shown)), "white")
    canvas.paste(shown[0], (0, _MARGIN_PX))
    canvas.paste(shown[1], (shown[0].width, _MARGIN_PX))
    pen = ImageDraw.Draw(canvas)
    offsets = np.array([[0, _MARGIN_PX], [shown[0].width, _MARGIN_PX]])
    for match, color in zip(drawn, _between(_TRAFFIC_LIGHT, matches.confidence[drawn]), strict=True):
        ends = [tuple(matches.keypoints[match, side] * scales[side] + offsets[side]) for side in (0, 1)]
        pen.line(ends, fill=tuple(color), width=1)
        for x, y in ends:
            pen.ellipse((x - 2, y - 2, x + 2, y + 2), outline=tuple(color))
    names = " - ".join(matches.names[image] for image in images)
    mean = matches.confidence[chosen].mean()
    pen.text((6, 6), f"{names}: {len(chosen)} matches, mean confidence {mean:.2f}", fill="black")
    return canvas


def draw_overview(views: Views, matches: Matches) -> Image.Image:
    """Left: number of matches of every pair of images. Right: the cameras and the pairs that hold them together."""
    counts = np.zeros((len(matches.names),) * 2)
    counts[matches.pairs[:, 0], matches.pairs[:, 1]] = matches.pair_counts
    counts += counts.T
    canvas = Image.new("RGB", (2 * _PANEL_PX + 3 * _MARGIN_PX, _PANEL_PX + 2 * _MARGIN_PX), "white")
    shade = np.log1p(counts) / np.log1p(max(counts.max(), 1.0))
    heat = Image.fromarray(_between(_BLUES, shade)).resize((_PANEL_PX, _PANEL_PX), Image.Resampling.NEAREST)
    canvas.paste(heat, (_MARGIN_PX, _MARGIN_PX))
    graph = _draw_graph(np.asarray(views.c2w)[:, :, 3], matches.pairs, shade)
    canvas.paste(graph, (2 * _MARGIN_PX + _PANEL_PX, _MARGIN_PX))
    pen = ImageDraw.Draw(canvas)
    most = int(counts.max())
    pen.text((_MARGIN_PX, 6), f"matches of image against image, up to {most} (logarithmic)", fill="black")
    label = f"{len(matches.pairs)} pairs between the rough camera positions; grey: matched with no other"
    pen.text((2 * _MARGIN_PX + _PANEL_PX, 6), label, fill="black")
    return canvas


def _draw_graph(
    centers: Float[np.ndarray, "cams 3"], pairs: Int[np.ndarray, "pairs 2"], shade: Float[np.ndarray, "cams cams"]
) -> Image.Image:
    """Cameras in the plane of their largest spread, drawn twice as large and shrunk for smooth lines."""
    side = 2 * _PANEL_PX
    axes = np.linalg.svd(centers - centers.mean(0), full_matrices=False)[2][:2]
    flat = (centers - centers.mean(0)) @ axes.T
    flat = flat * (0.45 * side / max(np.abs(flat).max(), 1e-9)) + side / 2
    panel = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(panel)
    weight = shade[pairs[:, 0], pairs[:, 1]]
    # Strong pairs on top of weak ones.
    for number in np.argsort(weight, kind="stable"):
        i, j = pairs[number]
        color = tuple(_between(_BLUES, weight[number]))
        pen.line([tuple(flat[i]), tuple(flat[j])], fill=color, width=2)
    alone = ~np.isin(np.arange(len(centers)), pairs)
    for (x, y), lonely in zip(flat, alone, strict=True):
        pen.ellipse((x - 7, y - 7, x + 7, y + 7), fill=(150, 150, 150) if lonely else (200, 60, 30))
    return panel.resize((_PANEL_PX, _PANEL_PX), Image.Resampling.LANCZOS)


def _between(stops: Float[np.ndarray, "stops 3"], value: Float[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n 3"]:
    """Colours at values from 0 to 1 on a scale of evenly spread stops."""
    position = np.clip(value, 0, 1) * (len(stops) - 1)
    channels = [np.interp(position, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def save_picture(image: Image.Image, path: Path) -> None:
    """Write a picture as PNG.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    write_atomically(path, lambda file: image.save(file, format="PNG"))
