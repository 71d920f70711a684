"""Drawing tools for printed surfaces: canvases in scene units, Pillow's built-in font, barcodes, leaves, flowers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from samples.textures import Colours, Values, hashed

PX_PER_UNIT = 400
"""Texels per unit: about six per pixel of a 200 px image."""

Texture = Float[np.ndarray, "h w 3"]


class Canvas:
    """An image of ``width`` x ``height`` scene units to draw on; measures in units, the origin at the upper left."""

    def __init__(self, width: float, height: float, background: str) -> None:
        self.width, self.height = width, height
        self.image = Image.new("RGB", (self._px(width), self._px(height)), background)
        self.draw = ImageDraw.Draw(self.image)

    @staticmethod
    def _px(length: float) -> int:
        return round(length * PX_PER_UNIT)

    def _corners(self, values: Sequence[float]) -> list[float]:
        return [value * PX_PER_UNIT for value in values]

    def rectangle(self, left: float, top: float, right: float, bottom: float, fill: str) -> None:
        """Filled rectangle."""
        self.draw.rectangle(self._corners((left, top, right, bottom)), fill=fill)

    def disc(self, x: float, y: float, radius: float, fill: str) -> None:
        """Filled disc."""
        self.draw.ellipse(self._corners((x - radius, y - radius, x + radius, y + radius)), fill=fill)

    def polygon(self, corners: Sequence[tuple[float, float]], fill: str) -> None:
        """Filled polygon."""
        self.draw.polygon([(x * PX_PER_UNIT, y * PX_PER_UNIT) for x, y in corners], fill=fill)

    def line(self, corners: Sequence[tuple[float, float]], width: float, fill: str) -> None:
        """Polyline of the given width."""
        points = [(x * PX_PER_UNIT, y * PX_PER_UNIT) for x, y in corners]
        self.draw.line(points, fill=fill, width=max(1, self._px(width)), joint="curve")

    def text(
        self, x: float, y: float, words: str, size: float, fill: str, anchor: str = "mm", bold: float = 0.0
    ) -> None:
        """Lettering at (x, y); ``size`` is the font's height, ``bold`` a stroke width, ``anchor`` as in Pillow."""
        font = ImageFont.load_default(size * PX_PER_UNIT)
        place = (x * PX_PER_UNIT, y * PX_PER_UNIT)
        self.draw.text(place, words, font=font, fill=fill, anchor=anchor, stroke_width=self._px(bold), stroke_fill=fill)

    def turned_text(self, x: float, y: float, words: str, size: float, fill: str, bold: float = 0.0) -> None:
        """Lettering that reads from bottom to top, centred at (x, y)."""
        self.image = self.image.rotate(-90, expand=True)
        self.draw = ImageDraw.Draw(self.image)
        self.text(self.height - y, x, words, size, fill, bold=bold)
        self.image = self.image.rotate(90, expand=True)
        self.draw = ImageDraw.Draw(self.image)

    def barcode(self, left: float, top: float, width: float, height: float, random: np.random.Generator) -> None:
        """Black bars of random widths on a pale label."""
        self.rectangle(left, top, left + width, top + height, "#e9e2cf")
        x = left + 0.012
        while x < left + width - 0.02:
            bar = random.choice([0.006, 0.010, 0.016])
            self.rectangle(x, top + 0.012, x + bar, top + height - 0.012, "#1d1a1c")
            x += bar + random.choice([0.007, 0.011, 0.018])

    def leaf(self, x: float, y: float, length: float, angle: float, fill: str, vein: str) -> None:
        """Pointed leaf that starts at (x, y) and grows along ``angle`` (radians, clockwise from +x)."""
        along = np.linspace(0.0, 1.0, 12)
        belly = 0.28 * np.sin(np.pi * along) ** 0.8
        outline = np.concatenate([np.stack([along, belly], -1), np.stack([along, -belly], -1)[::-1]]) * length
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        self.polygon([(x + dx, y + dy) for dx, dy in outline @ turn], fill)
        tip = 0.85 * length * np.array([np.cos(angle), np.sin(angle)])
        self.line([(x, y), (x + tip[0], y + tip[1])], 0.006, vein)

    def flower(self, x: float, y: float, radius: float, petals: int, turn: float, fill: str, heart: str) -> None:
        """Ring of round petals around a heart."""
        for angle in turn + 2.0 * np.pi * np.arange(petals) / petals:
            self.disc(x + 0.62 * radius * np.cos(angle), y + 0.62 * radius * np.sin(angle), 0.42 * radius, fill)
        self.disc(x, y, 0.34 * radius, heart)

    def texture(self, grain: float = 0.05, seed: int = 0) -> Texture:
        """The drawing as colours in [0, 1], with the fine grain of printing (relative brightness)."""
        pixels = np.asarray(self.image, dtype=np.float64) / 255.0
        rows, columns = np.indices(pixels.shape[:2])
        total = np.zeros(rows.shape)
        for size in (5, 11, 23):
            lattice = np.stack([rows // size, columns // size, np.full_like(rows, size)], axis=-1).reshape(-1, 3)
            total += hashed(lattice, seed).reshape(rows.shape) - 0.5
        return np.clip(pixels * (1.0 + grain * total)[..., None], 0.0, 1.0)


def look_up(texture: Texture, u: Values, v: Values) -> Colours:
    """Bilinear colours at ``u`` (0 left, 1 right) and ``v`` (0 top, 1 bottom); the rim continues outwards."""
    height, width = texture.shape[:2]
    x = np.clip(u * width - 0.5, 0.0, width - 1.0)
    y = np.clip(v * height - 0.5, 0.0, height - 1.0)
    left, top = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    share_x, share_y = (x - left)[:, None], (y - top)[:, None]
    upper = texture[top, left] * (1.0 - share_x) + texture[top, left + 1] * share_x
    lower = texture[top + 1, left] * (1.0 - share_x) + texture[top + 1, left + 1] * share_x
    return upper * (1.0 - share_y) + lower * share_y
