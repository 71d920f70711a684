"""The printed matter of the still life, all invented here: a tea box, a book, a mug, a painted peg."""

from __future__ import annotations

import numpy as np

from samples.prints import Canvas, Texture

BOX_SIZE = (0.56, 0.32, 0.92)
BOOK_SIZE = (0.76, 0.56, 0.13)
MUG_WRAP = (1.32, 0.40)
PEG_WRAP = (1.10, 0.62)

RECIPE = (
    "Warm the pot, then",
    "one spoon of leaves",
    "for each thirsty guest.",
    "Pour water just off",
    "the boil & wait 4 min.",
    "Lemon? Never. Honey:",
    "if you must, a little.",
    "Keep dry, away from",
    "cheese and thunder.",
)


def box_front() -> Texture:
    """Front of the tea box: mountains under a sun, the name in large letters."""
    width, _, height = BOX_SIZE
    page = Canvas(width, height, "#17635f")
    random = np.random.default_rng(5)
    page.rectangle(0.0, 0.0, width, 0.10, "#d9a441")
    page.text(0.5 * width, 0.052, "HILLSIDE & SONS", 0.052, "#3b1f2b", bold=0.002)
    page.text(0.04, 0.19, "Wild", 0.20, "#f1dfb4", anchor="lm", bold=0.006)
    page.text(width - 0.04, 0.345, "Mint", 0.20, "#f08a4b", anchor="rm", bold=0.006)
    page.disc(0.49, 0.165, 0.055, "#b5322e")
    page.text(0.49, 0.165, "N.7", 0.052, "#f1dfb4", bold=0.002)
    for index in range(4):
        x, y = 0.07 + 0.035 * index, 0.36 + 0.03 * random.random()
        page.leaf(x, y, 0.07 + 0.03 * random.random(), random.uniform(-1.9, -1.0), "#8dbb5a", "#2d4a26")
    page.rectangle(0.0, 0.46, width, 0.80, "#7fb3b5")
    page.disc(0.40, 0.55, 0.055, "#f3c64e")
    for base, low, fill in ((0.62, 0.50, "#49717f"), (0.69, 0.55, "#2f4f63"), (0.76, 0.63, "#38623f")):
        x, ridge = 0.0, []
        while x < width + 0.08:
            ridge.append((x, random.uniform(low, base)))
            x += random.uniform(0.04, 0.10)
        page.polygon([(0.0, 0.80), *ridge, (width, 0.80)], fill)
    for _ in range(26):
        x, y, tall = random.uniform(0.0, width), random.uniform(0.70, 0.80), random.uniform(0.03, 0.06)
        page.polygon(
            [(x - 0.3 * tall, y), (x, y - tall), (x + 0.3 * tall, y)], random.choice(["#16331f", "#5d8c3a", "#20462b"])
        )
    page.rectangle(0.0, 0.80, width, height, "#3b1f2b")
    page.text(0.035, 0.86, "loose leaf", 0.062, "#f1dfb4", anchor="lm")
    page.text(width - 0.03, 0.86, "250 g", 0.075, "#d9a441", anchor="rm", bold=0.002)
    return page.texture(seed=1)


def box_back() -> Texture:
    """Back of the tea box: how to brew, a table, a barcode."""
    width, _, height = BOX_SIZE
    page = Canvas(width, height, "#d9a441")
    random = np.random.default_rng(6)
    page.rectangle(0.03, 0.03, width - 0.03, 0.15, "#7a2436")
    page.text(0.5 * width, 0.09, "HOW TO BREW", 0.068, "#f6e7c1", bold=0.002)
    for row, words in enumerate(RECIPE):
        page.text(0.04, 0.195 + 0.043 * row, words, 0.045, "#38212a", anchor="lm", bold=0.001)
    for row, (name, amount) in enumerate((("Calm", "31%"), ("Wit", "8.5"), ("Rain", "2 dl"), ("Ginger", "trace"))):
        top = 0.585 + 0.043 * row
        page.rectangle(0.03, top, width - 0.03, top + 0.039, "#eec97a" if row % 2 else "#c2802f")
        page.text(0.05, top + 0.020, name, 0.040, "#2b1a20", anchor="lm")
        page.text(width - 0.05, top + 0.020, amount, 0.040, "#7a2436", anchor="rm", bold=0.001)
    page.barcode(0.04, 0.775, 0.28, 0.12, random)
    page.flower(0.44, 0.835, 0.07, 7, 0.3, "#17635f", "#f6e7c1")
    return page.texture(seed=2)


def box_side(left: bool) -> Texture:
    """A narrow side of the tea box: a climbing branch and the name (left), or advertising in blocks (right)."""
    _, width, height = BOX_SIZE
    random = np.random.default_rng(7 + left)
    page = Canvas(width, height, "#3d7a55" if left else "#a83a2c")
    if left:
        stem = [(0.20 + 0.03 * np.sin(9.0 * y), y) for y in np.linspace(0.03, 0.89, 30)]
        page.line(stem, 0.010, "#1c3b28")
        for index, (x, y) in enumerate(stem[1:-1]):
            angle = (-0.5 if index % 2 else np.pi + 0.5) + random.normal(0.0, 0.35)
            fill = random.choice(["#a6cf6a", "#d7e08a", "#e0954a", "#79b05b"])
            page.leaf(x, y, random.uniform(0.05, 0.10), angle, fill, "#1c3b28")
        page.turned_text(0.055, 0.5 * height, "Wild Mint  since Tuesday", 0.075, "#f1dfb4", bold=0.002)
        return page.texture(seed=3)
    y = 0.02
    blocks = (
        ("DRINK", "#f2c14e"),
        ("ME", "#8ecae6"),
        ("slowly", "#f7b267"),
        ("& then", "#b8d8ba"),
        ("AGAIN", "#f2c14e"),
        ("zzz", "#cdb4db"),
    )
    for words, fill in blocks:
        tall = random.uniform(0.10, 0.15)
        page.rectangle(0.02, y, width - 0.02, y + tall - 0.02, fill)
        page.text(random.uniform(0.14, 0.18), y + 0.5 * tall - 0.01, words, 0.085, "#3a1420", bold=0.003)
        y += tall
    page.barcode(0.03, y, width - 0.06, height - y - 0.03, random)
    return page.texture(seed=4)


def box_top() -> Texture:
    """Lid of the tea box."""
    width, depth, _ = BOX_SIZE
    page = Canvas(width, depth, "#7a2436")
    page.rectangle(0.0, 0.5 * depth - 0.006, width, 0.5 * depth + 0.006, "#2b0f18")
    page.text(0.17, 0.085, "OPEN", 0.095, "#f2c14e", bold=0.003)
    page.polygon([(0.36, 0.04), (0.36, 0.13), (0.47, 0.085)], "#8ecae6")
    page.text(0.36, 0.235, "best by 5/31", 0.070, "#e8c9a0", bold=0.001)
    page.flower(0.09, 0.235, 0.06, 5, 0.7, "#6fae8f", "#f2c14e")
    return page.texture(seed=5)


def book_cover() -> Texture:
    """Front cover of the book; pebbles of many sizes under the title."""
    width, depth, _ = BOOK_SIZE
    page = Canvas(width, depth, "#274b7a")
    random = np.random.default_rng(9)
    for _ in range(150):
        x, y, radius = random.uniform(0.0, width), random.uniform(0.16, depth), random.uniform(0.012, 0.045)
        stone = random.choice(["#c9b79c", "#8a9ba8", "#b5651d", "#5c7f71", "#e0a96d", "#40566b", "#a44a3f"])
        page.disc(x, y, radius, "#152a47")
        page.disc(x - 0.15 * radius, y - 0.15 * radius, 0.8 * radius, stone)
        page.line([(x - 0.5 * radius, y), (x + 0.3 * radius, y - 0.3 * radius)], 0.006, "#f0e2c0")
    page.rectangle(0.0, 0.0, width, 0.17, "#e2b04a")
    page.text(0.03, 0.06, "PEBBLES", 0.105, "#1d2f4f", anchor="lm", bold=0.004)
    page.text(0.03, 0.135, "a field guide", 0.055, "#8a2f2a", anchor="lm")
    page.text(width - 0.03, 0.135, "Ida Morrow", 0.055, "#1d2f4f", anchor="rm")
    return page.texture(seed=6)


def book_spine() -> Texture:
    """Back of the binding, with the title."""
    width, _, thick = BOOK_SIZE
    page = Canvas(width, thick, "#a44a3f")
    page.rectangle(0.05, 0.0, 0.07, thick, "#e2b04a")
    page.rectangle(0.10, 0.0, 0.13, thick, "#1d2f4f")
    page.text(0.33, 0.5 * thick, "PEBBLES", 0.085, "#f4dfae", bold=0.003)
    page.text(0.62, 0.5 * thick, "Morrow", 0.060, "#e2b04a", bold=0.001)
    return page.texture(seed=7)


def book_pages(width: float) -> Texture:
    """Cut edges of the pages between two boards."""
    thick = BOOK_SIZE[2]
    page = Canvas(width, thick, "#c9b48a")
    random = np.random.default_rng(int(100 * width))
    for _ in range(60):
        x, y, length = random.uniform(-0.1, width), random.uniform(0.0, thick), random.uniform(0.05, 0.3)
        page.rectangle(x, y, x + length, y + 0.005, random.choice(["#8f7a55", "#e3d3ab", "#a58f66", "#6f5d40"]))
    for _ in range(7):
        x = random.uniform(0.0, width)
        page.rectangle(
            x, 0.02, x + random.uniform(0.02, 0.06), thick - 0.02, random.choice(["#b5322e", "#2f6690", "#3a7d44"])
        )
    page.rectangle(0.0, 0.0, width, 0.018, "#274b7a")
    page.rectangle(0.0, thick - 0.018, width, thick, "#274b7a")
    return page.texture(grain=0.12, seed=8)


def mug_wrap() -> Texture:
    """Around the mug: a harbour with boats, a lighthouse, fish, and a greeting."""
    width, height = MUG_WRAP
    page = Canvas(width, height, "#e8b765")
    random = np.random.default_rng(11)
    page.rectangle(0.0, 0.21, width, height, "#1f5673")
    for _ in range(120):
        x, y, reach = random.uniform(0.0, width), random.uniform(0.22, height), random.uniform(0.02, 0.06)
        fill = random.choice(["#4f98b0", "#123a52", "#89c2c9", "#2f7f8f"])
        page.line([(x, y), (x + 0.5 * reach, y - 0.012), (x + reach, y)], 0.008, fill)
    page.text(0.02, 0.065, "good", 0.12, "#8c2f39", anchor="lm", bold=0.004)
    page.text(0.33, 0.105, "morning", 0.11, "#24423f", anchor="lm", bold=0.004)
    for x, tall, sail in (
        (0.12, 0.13, "#b23a48"),
        (0.30, 0.10, "#f4d58d"),
        (0.71, 0.12, "#31572c"),
        (1.12, 0.15, "#e36414"),
    ):
        page.polygon([(x - 0.06, 0.225), (x + 0.07, 0.225), (x + 0.045, 0.265), (x - 0.04, 0.265)], "#4a2c2a")
        page.polygon([(x, 0.22), (x, 0.225 - 0.8 * tall), (x + 0.05, 0.22)], sail)
        page.polygon([(x - 0.01, 0.22), (x - 0.01, 0.235 - 0.6 * tall), (x - 0.045, 0.22)], "#f1e3c6")
    page.disc(1.24, 0.09, 0.05, "#d1495b")
    for _ in range(34):
        x, y, reach = random.uniform(0.0, width), random.uniform(0.01, 0.17), random.uniform(0.03, 0.05)
        page.line(
            [(x, y), (x + 0.5 * reach, y + 0.015), (x + reach, y)],
            0.008,
            random.choice(["#b07a3a", "#fbe3a8", "#c9614a"]),
        )
    page.polygon([(0.88, 0.22), (0.895, 0.05), (0.945, 0.05), (0.96, 0.22)], "#b23a48")
    for y in (0.085, 0.145):
        page.rectangle(0.888, y, 0.952, y + 0.03, "#f1e3c6")
    page.polygon([(0.885, 0.05), (0.92, 0.01), (0.955, 0.05)], "#24423f")
    for x, y, size, fill in (
        (0.22, 0.33, 0.07, "#f79d5c"),
        (0.55, 0.31, 0.05, "#f4d58d"),
        (0.82, 0.35, 0.08, "#d1495b"),
        (1.05, 0.32, 0.05, "#a7c957"),
    ):
        page.leaf(x, y, size, 0.15, fill, "#123a52")
        page.polygon([(x + 0.02, y), (x - 0.025, y - 0.03), (x - 0.025, y + 0.025)], fill)
    page.rectangle(0.0, height - 0.015, width, height, "#8c2f39")
    return page.texture(seed=9)


def peg_wrap() -> Texture:
    """Around the painted peg: bands of flowers, zigzag and dots, every one different."""
    width, height = PEG_WRAP
    page = Canvas(width, height, "#8b1e3f")
    random = np.random.default_rng(13)
    inks = ["#f2c14e", "#f78154", "#5fad56", "#4d9de0", "#f3d9b1", "#e15554", "#9ad1d4"]
    for index in range(84):
        x, y = 0.08 * (index % 14) + random.uniform(0.0, 0.07), 0.105 * (index // 14) + random.uniform(0.0, 0.09)
        radius = random.uniform(0.022, 0.048)
        page.leaf(
            x, y, 1.9 * radius, random.uniform(0.0, 6.3), random.choice(["#2f5d3a", "#5fad56", "#1f3d2b"]), "#f2c14e"
        )
        page.flower(x, y, radius, int(random.integers(4, 8)), random.random(), random.choice(inks), random.choice(inks))
    for y, fill in ((0.19, "#1d2b53"), (0.43, "#24423f")):
        page.rectangle(0.0, y, width, y + 0.075, fill)
        x, low = 0.0, y + 0.065
        while x < width:
            step = random.uniform(0.03, 0.075)
            page.polygon([(x, low), (x + 0.5 * step, y + 0.01), (x + step, low)], random.choice(inks))
            x += step
    return page.texture(seed=10)
