"""Headlines of tables of poses: which column holds which part of position and quaternion, and which the time or name.

A quaternion whose parts change places is still of length one: nothing but the headline tells their order.
"""

import re
from collections.abc import Sequence

_PARTS = {
    **{axis: re.compile(rf"(t|p|pos|position|trans|translation)?[._]?{axis}$") for axis in "xyz"},
    **{f"q{axis}": re.compile(rf"(q|quat|quaternion|r|rot|rotation|orientation)[._]?{axis}$") for axis in "xyzw"},
}
POSITION_FIRST, QUATERNION_FIRST = tuple(_PARTS), ("qw", "qx", "qy", "qz", "x", "y", "z")
_LIKE_QUATERNION = re.compile(r"q[._]?\d$|r[wxyz]$|(q|.*quat|.*rot|.*orient).*[wxyz]$")
_LABELS = (
    re.compile(r"(image|file|frame|photo)?[._]?(name|path|file)$|image$|photo$"),
    re.compile(r"(frame|index|idx|seq)([._]?(id|index|idx|number|no))?s?$"),
    re.compile(r"(t|time|timestamp|time[._]stamp|stamp|sec|second)s?([._]?(s|ms|us|ns|sec|nsec|nanosec|unix))?s?$"),
)
"""By which rows belong to images, the surest first: the number of a frame counts before the time when it was taken."""
_UNITS = re.compile(r"\s*(\[[^\]]*\]|\([^)]*\))")


def words_of(line: str, width: int) -> list[str]:
    """Names of columns in small letters and without units; blanks in them are dropped where commas divide them."""
    text = _UNITS.sub("", line.lower()).strip("#%/ \t")
    by_commas = [re.sub(r"\s|\"", "", word) for word in text.split(",")]
    return by_commas if len(by_commas) == width else text.replace(",", " ").split()


def names_quaternion(words: Sequence[str]) -> bool:
    """Whether some words, as those of a comment, seem to be names of a quaternion's parts."""
    return sum(bool(_LIKE_QUATERNION.match(word)) for word in words) >= len("xyzw")


def columns_of(words: Sequence[str]) -> dict[str, int] | None:
    """The column of each part, in the order of TUM's form; None unless all are named."""
    columns = {part: next((k for k, word in enumerate(words) if name.match(word)), -1) for part, name in _PARTS.items()}
    return columns if min(columns.values()) >= 0 else None


def stand_together(words: Sequence[str], columns: dict[str, int], order: Sequence[str], at_end: bool) -> bool:
    """Whether the parts stand in this order with nothing between them, and nothing behind them if so wanted."""
    if not order:
        return False
    first = columns[order[0]]
    end = first + len(order)
    return [columns[part] for part in order] == list(range(first, end)) and (end == len(words) or not at_end)


def label_column(words: Sequence[str], columns: dict[str, int]) -> int | None:
    """The column of names, numbers or times: one that is called so, else the only one left; None where that fails."""
    others = [k for k in range(len(words)) if k not in columns.values()]
    called = [k for label in _LABELS for k in others if label.match(words[k])]
    return called[0] if called else others[0] if len(others) == 1 else None
