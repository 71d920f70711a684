"""Pages of text, tables, pictures and models as one HTML file that needs nothing beside it, and no network."""

import base64
import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NewType

import numpy as np
from jaxtyping import Shaped

from craym_nerfstudio.images import load_image
from craym_nerfstudio.storage import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

_MODEL_VIEWER = Path(__file__).parent / "model_viewer" / "model-viewer.min.js"
"""Of npm's @google/model-viewer 4.4.0 (Apache-2.0; it holds three.js, MIT, and Lit, BSD-3-Clause), as distributed."""

Fragment = NewType("Fragment", str)
"""A piece of valid HTML; plain strings are text and get escaped."""

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1d2329; background: #fff; margin: 1.5rem auto; max-width: 1500px;
       padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.2rem; border-bottom: 1px solid #d5dae0; margin: 2rem 0 .7rem }
h3 { font-size: 1rem; margin: 1rem 0 .4rem } p { margin: .4rem 0; max-width: 75em }
nav { margin: .6rem 0; font-size: .9rem } nav a { margin-right: .9em; color: #2a5db0 }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .4rem 0 }
td, th { padding: .18rem .7rem .18rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #eceff2 }
th { font-weight: 600; color: #4c5763 } td.number { text-align: right }
caption, figcaption, .note { color: #5c6773; font-size: .85rem; text-align: left }
.warning { background: #fff4d6; border-left: 4px solid #d99a00; padding: .3rem .7rem }
figure { margin: .4rem 0 } img { max-width: 100%; height: auto; image-rendering: auto }
.compared { position: relative; display: inline-block; --cut: 50% } .compared img { display: block }
.compared .over { position: absolute; top: 0; left: 0; clip-path: inset(0 calc(100% - var(--cut)) 0 0) }
.compared input { width: 100%; margin: .2rem 0 0 } model-viewer { width: 100%; height: 640px; background: #f4f6f8 }
summary { cursor: pointer; color: #2a5db0 }
.columns { display: grid; gap: 1.2rem; align-items: start } .columns > div { min-width: 0; overflow-x: auto }
"""


def text(content: str, kind: str = "") -> Fragment:
    """A paragraph; `kind` is ``""``, ``"note"`` (small and grey) or ``"warning"`` (set off)."""
    return Fragment(f'<p class="{escape(kind)}">{escape(content)}</p>' if kind else f"<p>{escape(content)}</p>")


def table(rows: Sequence[Sequence[object]], header: Sequence[str] = (), caption: str = "") -> Fragment:
    """A table; under a header numbers are set flush right, but for the first of a row."""
    lines = [f"<caption>{escape(caption)}</caption>"] if caption else []
    if header:
        lines.append("<tr>" + "".join(f"<th>{escape(name)}</th>" for name in header) + "</tr>")
    for row in rows:
        cells = (_cell(value, may_be_number=bool(header) and place > 0) for place, value in enumerate(row))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return Fragment("<table>" + "\n".join(lines) + "</table>")


def _cell(value: object, may_be_number: bool) -> str:
    shown = str(value)
    kind = ' class="number"' if may_be_number and re.fullmatch(r"[-+]?\d[\d.,e+\-]*( [%\w]+)?", shown) else ""
    return f"<td{kind}>{escape(shown)}</td>"


def picture(
    source: Shaped[np.ndarray, "h w *channels"] | Path,
    caption: str = "",
    max_side_px: int = 1200,
    lossy: bool = False,
    shown_px: int = 0,
) -> Fragment:
    """An image, embedded: an array (uint8, or floats in [0, 1]; grey, RGB or RGBA) or an image file.

    Args:
        max_side_px: larger images are shrunk to this.
        lossy: as JPEG on white, for photos; PNG otherwise.
        shown_px: width at which the page shows smaller images.

    Raises:
        InputError: the file is no readable image.
    """
    source_url, width_px = _data_url(source, max_side_px, lossy)
    return _embedded(source_url, caption, max(width_px, shown_px))


def compared(before: Path, after: Path, captions: tuple[str, str], shown_px: int) -> Fragment:
    """Two images of one size, one over the other: a slider moves the border between them.

    Raises:
        InputError: a file is no readable image.
    """
    below, above = (_data_url(path, 1200, lossy=True)[0] for path in (after, before))
    images = "".join(
        f'<img{kind} src="{url}" width="{shown_px}" alt="{escape(caption, quote=True)}">'
        for kind, url, caption in (("", below, captions[1]), (' class="over"', above, captions[0]))
    )
    moved = "this.parentNode.style.setProperty('--cut', this.value + '%')"
    slider = f'<input type="range" value="50" aria-label="border" oninput="{moved}">'
    caption = f"<figcaption>left: {escape(captions[0])}; right: {escape(captions[1])}</figcaption>"
    return Fragment(f'<figure><div class="compared">{images}{slider}</div>{caption}</figure>')


def model(glb: bytes, caption: str = "") -> Fragment:
    """A GLB file in a view that one can turn; the page carries the viewer along."""
    encoded = base64.b64encode(glb).decode()
    orbit = 'camera-orbit="30deg 65deg 45%" min-camera-orbit="auto auto 5%"'
    options = f'camera-controls interaction-prompt="none" shadow-intensity="0" {orbit}'
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    source = f"data:model/gltf-binary;base64,{encoded}"
    return Fragment(f'<figure><model-viewer src="{source}" {options}></model-viewer>{below}</figure>')


def folded(title: str, content: Fragment) -> Fragment:
    """Content that a click on its title opens."""
    return Fragment(f"<details><summary>{escape(title)}</summary>{content}</details>")


def _data_url(source: Shaped[np.ndarray, "h w *channels"] | Path, max_side_px: int, lossy: bool) -> tuple[str, int]:
    """An image as the address of itself, and its width."""
    image = _from_array(load_image(source) if isinstance(source, Path) else source)
    image.thumbnail((max_side_px, max_side_px))
    buffer = io.BytesIO()
    if lossy:
        _on_white(image).save(buffer, "JPEG", quality=88)
    else:
        image.save(buffer, "PNG", optimize=True)
    return _url(buffer.getvalue(), "jpeg" if lossy else "png"), image.width


def _url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def figure(plot: "Figure", caption: str = "", dpi: int = 100) -> Fragment:
    """A matplotlib figure, embedded as PNG."""
    buffer = io.BytesIO()
    plot.savefig(buffer, format="png", dpi=dpi)
    return _embedded(_url(buffer.getvalue(), "png"), caption, round(float(plot.get_figwidth()) * dpi))


def columns(cells: Sequence[Fragment]) -> Fragment:
    """Fragments side by side in columns of one width."""
    inner = "\n".join(f"<div>{cell}</div>" for cell in cells)
    return Fragment(f'<div class="columns" style="grid-template-columns: repeat({len(cells)}, 1fr)">{inner}</div>')


def joined(*parts: Fragment) -> Fragment:
    """Fragments one below the other."""
    return Fragment("\n".join(parts))


class Page:
    """A page under construction: what is added appears below what is there."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self._parts: list[str] = []
        self._sections: list[str] = []

    def add(self, fragment: Fragment) -> None:
        """Append HTML made by the functions of this module."""
        self._parts.append(fragment)

    def add_heading(self, title: str, level: int = 2) -> None:
        """Append a heading; those of level 2 are listed at the top of the page."""
        anchor = ""
        if level == 2:
            anchor = f' id="section-{len(self._sections)}"'
            self._sections.append(title)
        self._parts.append(f"<h{level}{anchor}>{escape(title)}</h{level}>")

    def html(self) -> str:
        """The whole page."""
        links = "".join(f'<a href="#section-{n}">{escape(title)}</a>' for n, title in enumerate(self._sections))
        note = f'<p class="note">{escape(self.subtitle)}</p>' if self.subtitle else ""
        head = f'<meta charset="utf-8"><title>{escape(self.title)}</title><style>{_STYLE}</style>'
        if any("<model-viewer " in part for part in self._parts):
            head += f'<script type="module">{_MODEL_VIEWER.read_text(encoding="utf-8")}</script>'
        body = f"<h1>{escape(self.title)}</h1>{note}<nav>{links}</nav>\n" + "\n".join(self._parts)
        return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'

    def write(self, path: Path) -> None:
        """Write the page.

        Raises:
            InputError: the file cannot be written.
        """
        write_text(path, self.html())


def _from_array(values: np.ndarray) -> "Image":
    from PIL import Image

    if values.dtype != np.uint8:
        values = np.round(np.nan_to_num(values.astype(np.float64)).clip(0.0, 1.0) * 255).astype(np.uint8)
    return Image.fromarray(values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values)


def _on_white(image: "Image") -> "Image":
    from PIL import Image

    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _embedded(url: str, caption: str, width_px: int) -> Fragment:
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    image = f'<img src="{url}" width="{width_px}" alt="{escape(caption, quote=True)}">'
    return Fragment(f"<figure>{image}{below}</figure>")
