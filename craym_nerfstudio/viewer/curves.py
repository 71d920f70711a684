"""How loss and poses went: kept while training, read from the log of a finished run, and drawn."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nerfstudio.viewer.viewer_elements import ViewerElement
from viser import ViserServer

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LOGGED = {
    "Loss": "Train Loss",
    "Poses moved (deg)": "Train Metrics Dict/camera_opt_rotation_mean",
    "Pose error (deg)": "Train Metrics Dict/pose_rotation_deg",
}
"""Curves, and what the host's log calls them."""
_POINTS = 400
"""Shown of a curve at most."""


class Curve(ViewerElement[None]):
    """A plot in the panel."""

    def __init__(self, name: str) -> None:
        super().__init__(name, visible=False)
        self.steps: list[int] = []
        self.values: list[float] = []

    def _create_gui_handle(self, viser_server: ViserServer) -> None:
        # The host types its handles as inputs and buttons; a plot is neither.
        self.gui_handle: Any = viser_server.gui.add_plotly(self.figure(), aspect=1.8, visible=bool(self.steps))

    def install(self, viser_server: ViserServer) -> None:
        """Draw it into the container that the host is filling."""
        self._create_gui_handle(viser_server)

    def add(self, step: int, value: float) -> None:
        """One more value; of a long curve every second is kept."""
        self.steps.append(step)
        self.values.append(value)
        if len(self.steps) > _POINTS:
            self.steps, self.values = self.steps[::2], self.values[::2]

    def show(self) -> None:
        """Draw what is known by now."""
        if self.gui_handle is not None and self.steps:
            self.gui_handle.figure, self.gui_handle.visible = self.figure(), True

    def figure(self) -> "Figure":
        """Its picture."""
        import plotly.graph_objects as go

        figure = go.Figure(go.Scatter(x=self.steps, y=self.values, mode="lines"))
        axis = {"type": "log"} if self.values and min(self.values) > 0.0 else {}
        margin = {"l": 40, "r": 10, "t": 30, "b": 30}
        return figure.update_layout(title=self.name, margin=margin, yaxis=axis, template="plotly_dark")


def read_log(folder: Path) -> Mapping[str, list[tuple[int, float]]]:
    """The curves of a finished run as (step, value), from its tensorboard log; empty without one."""
    if not any(folder.glob("events.out.tfevents.*")):
        return {}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(folder), size_guidance={"scalars": _POINTS})
    log.Reload()
    known = set(log.Tags()["scalars"])
    return {name: [(e.step, e.value) for e in log.Scalars(tag)] for name, tag in LOGGED.items() if tag in known}
