"""Images that end without a camera of their own rays: predicted, or not placed at all; one table, with reasons."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from rich.table import Column, Table

from craym_nerfstudio.console import console
from craym_nerfstudio.sfm.absolute_pose import MIN_RAYS
from craym_nerfstudio.sfm.result import StageZero

_SHOWN = 30
COLUMNS = ("image", "state", "rays", "sigma (deg)", "why")


class NotAdjusted(NamedTuple):
    """A row of the table; numbers are text, "-" where there are none."""

    image: str
    state: str
    rays: str
    sigma_deg: str
    why: str


def not_adjusted(stage: StageZero | None, left_out: Mapping[str, str]) -> list[NotAdjusted]:
    """Images with predicted cameras, then those that are `left_out` of the data, with the reason for each."""
    rows = []
    for number, name in enumerate([] if stage is None else stage.names):
        assert stage is not None
        if stage.state[number] == "predicted":
            rays, sigma = int(stage.num_rays[number]), float(stage.rotation_sigma_deg[number])
            shown = f"{sigma:.3f}" if np.isfinite(sigma) else "-"
            rows.append(NotAdjusted(name, "predicted", str(rays), shown, _why(stage, number)))
    return rows + [NotAdjusted(name, "not placed", "-", "-", why) for name, why in left_out.items()]


def _why(stage: StageZero, number: int) -> str:
    rays = int(stage.num_rays[number])
    if rays >= MIN_RAYS:
        return "its rays contradict those of the others: placed by its neighbours"
    if np.isnan(stage.epipolar_after_px[number]):
        return "no match with another image can be believed: placed by its neighbours"
    return f"fewer than {MIN_RAYS} rays meet those of others: placed by its neighbours"


def show_not_adjusted(stage: StageZero | None, left_out: Mapping[str, str]) -> None:
    """Print the table; nothing where every image has its camera."""
    rows = not_adjusted(stage, left_out)
    if not rows:
        return
    placed = 0 if stage is None else len(stage.names) - sum(row.state == "predicted" for row in rows)
    title = f"{len(rows)} images without a camera of their own" + (f", beside {placed} with one" if placed else "")
    table = Table(Column(COLUMNS[0], overflow="fold"), *COLUMNS[1:], title=title)
    for row in rows[:_SHOWN]:
        table.add_row(*row)
    if len(rows) > _SHOWN:
        table.add_row(f"and {len(rows) - _SHOWN} more", "", "", "", "")
    console.print(table)
