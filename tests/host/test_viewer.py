"""The live viewer and ns-viewer, looked at with a real headless browser."""

import io
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.browser import PATIENCE_S, PICTURES, SHOWN_RUN, chromium
from tests.host.conftest import TrainedRun
from tests.host.tiny_run import TINY_FLAGS, TRAIN, command, start

SIZE_PX = {"width": 760, "height": 440}
SCENE = (slice(60, 440), slice(0, 440))
"""Rows and columns of the picture that the title and the panel leave free."""
QUIET_S = 3.0
FRUSTA_S = 20.0
FIRST_S, SHARP_S = (0.3, 2.0) if SHOWN_RUN else (PATIENCE_S, PATIENCE_S)
"""From a camera's move to a picture, and to one of 512 px: figures only where a run is alone on its machine."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def servers(trained: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[int, Path]]]:
    """Port and log of a training that keeps its viewer open, and of a viewer of the trained run."""
    root = tmp_path_factory.mktemp("viewer")
    ports = {name: free_port() for name in ("ns-train", "ns-viewer")}
    frusta = ["--viewer.camera-frustum-scale", "1.0", "--viewer.websocket-port"]
    flags = ["--data", str(trained.data.folder), "--output-dir", str(root), "--vis", "viewer", *TINY_FLAGS]
    live = command(*flags, "--max-num-iterations", "100", *frusta, str(ports["ns-train"]))
    shown = SHOWN_RUN or str(trained.config_path)
    viewer = [sys.executable, "-m", "nerfstudio.scripts.viewer.run_viewer", "--load-config", shown]
    if SHOWN_RUN:  # alone on the machine, for its figures
        live = [sys.executable, "-c", "import time; time.sleep(1e6)"]
    lines = {"ns-train": live, "ns-viewer": [*viewer, *frusta, str(ports["ns-viewer"])]}
    logs = {name: root / f"{name}.txt" for name in lines}
    processes = [start(line, logs[name]) for name, line in lines.items()]
    yield {name: (ports[name], logs[name]) for name in lines}
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with chromium() as browser:
        yield browser


def wait_for_server(port: int, log: Path) -> None:
    """Until it answers; a training with a viewer goes on before a browser comes."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def picture(page) -> np.ndarray:
    """The scene's part of the page, RGB."""
    shot = Image.open(io.BytesIO(page.screenshot(scale="css"))).convert("RGB")
    return np.asarray(shot).astype(np.int16)[SCENE]


def saturation(image: np.ndarray) -> np.ndarray:
    return image.max(-1) - image.min(-1)


def inked(image: np.ndarray) -> np.ndarray:
    """What is not the white background."""
    return image.min(-1) < 200


def settled_picture(page) -> np.ndarray:
    """The picture once it shows something and no longer changes: the viewer renders coarsely first."""
    deadline = time.monotonic() + PATIENCE_S
    before = picture(page)
    while time.monotonic() < deadline:
        time.sleep(1.5)
        now = picture(page)
        if inked(now).mean() > 0.005 and (np.abs(now - before) > 24).any(-1).mean() < 1e-3:
            return now
        before = now
    raise AssertionError("the viewer never showed a steady picture")


def step_back(page, turns: int) -> None:
    page.mouse.move(200, 240)
    for _ in range(turns):
        page.mouse.wheel(0, 300)
        time.sleep(0.1)


def without_and_with_train_cameras(page) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Settled pictures while the host's frusta are hidden and after they are shown again, and where these differ.

    A busy page may show them long after its button says so.
    """
    page.get_by_role("button", name="Hide Train Cams").click()
    page.get_by_role("button", name="Show Train Cams").wait_for()
    without = settled_picture(page)
    page.get_by_role("button", name="Show Train Cams").click()
    page.get_by_role("button", name="Hide Train Cams").wait_for()
    deadline = time.monotonic() + FRUSTA_S
    while True:
        shown = settled_picture(page)
        changed = np.abs(shown - without).max(-1) > 40
        if changed.sum() > 30 or time.monotonic() > deadline:
            return without, shown, changed


@pytest.mark.parametrize("name", ["ns-train", "ns-viewer"])
def test_the_viewer_shows_scene_and_cameras(name: str, servers, browser, tmp_path: Path) -> None:
    port, log = servers[name]
    wait_for_server(port, log)
    page = browser.new_page(viewport=SIZE_PX)
    # A slow renderer makes the client lower its resolution to a fifth: cameras must not vanish below a pixel.
    page.add_init_script("Object.defineProperty(window, 'devicePixelRatio', {get: () => 3})")
    page.goto(f"http://127.0.0.1:{port}", wait_until="domcontentloaded")
    page.get_by_text("Resolution:").wait_for(timeout=1000 * PATIENCE_S)
    if name == "ns-train":
        page.get_by_text("Stage 0").first.wait_for(state="attached", timeout=1000 * PATIENCE_S)
    # A page that is still busy may drop turns of the wheel: step back until all cameras stand round the object.
    places = 0
    for turns in (7, 3, 3, 3):
        step_back(page, turns)
        without_cameras, with_cameras, changed = without_and_with_train_cameras(page)
        _, places = ndimage.label(ndimage.binary_dilation(changed, iterations=3))
        if places >= TRAIN // 3:
            break
    page.screenshot(path=tmp_path / f"{name}.png")
    page.close()
    assert "Traceback" not in log.read_text()
    # The object: in one place in the middle, on the white background of its data.
    shown = inked(without_cameras)
    shown[300:, :90] = False  # the little axes in the corner
    rows, columns = np.nonzero(shown)
    assert 0.005 < shown.mean() < 0.5
    assert abs(rows.mean() - 190) < 60 and abs(columns.mean() - 220) < 60
    # The cameras: what disappears when they are hidden, in many places, with the thumbnails' colours.
    assert places >= TRAIN // 3, f"{places} frusta"
    assert changed.sum() > 300 and (saturation(with_cameras)[changed] > 30).sum() > 10


class Traffic:
    """When the page told that its camera moved, and when pictures came."""

    def __init__(self, page) -> None:
        self.moves: list[float] = []
        self.pictures: list[float] = []
        self.sharp: list[float] = []
        page.on("websocket", self._listen)

    def wait_until_quiet(self, page, since: float) -> None:
        """Until the camera has moved since then, its last place is drawn sharply, and nothing has come for a while."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            page.wait_for_timeout(200)
            if not self.moves or not self.sharp or self.moves[-1] < since:
                continue
            quiet_s = time.monotonic() - max(self.pictures[-1], self.moves[-1])
            if self.sharp[-1] > self.moves[-1] and quiet_s > QUIET_S:
                return
        raise AssertionError("no sharp picture of the camera's last place")

    def _listen(self, socket) -> None:
        socket.on("framesent", self._sent)
        socket.on("framereceived", self._received)

    def _sent(self, payload: bytes | str) -> None:
        if b"ViewerCameraMessage" in _bytes(payload):
            self.moves.append(time.monotonic())

    def _received(self, payload: bytes | str) -> None:
        if b"BackgroundImageMessage" in _bytes(payload):
            self.pictures.append(time.monotonic())
        if b"512x" in _bytes(payload):
            self.sharp.append(time.monotonic())


def _bytes(payload: bytes | str) -> bytes:
    return payload if isinstance(payload, bytes) else payload.encode()


def test_a_finished_run_opens_at_the_scene_and_follows_a_drag(servers, browser, tmp_path: Path) -> None:
    port, log = servers["ns-viewer"]
    wait_for_server(port, log)
    page = browser.new_page(viewport={"width": 1100, "height": 760})
    traffic, opened = Traffic(page), time.monotonic()
    page.goto(f"http://127.0.0.1:{port}", wait_until="domcontentloaded")
    page.get_by_text("Resolution: 512x").wait_for(timeout=1000 * PATIENCE_S)
    values = [box.input_value() for box in page.get_by_role("textbox").all()]
    assert any(value.startswith("finished, step") for value in values), values
    assert "Step: 0" not in page.content()
    page.get_by_role("button", name="Mesh of the current surface").click()
    traffic.wait_until_quiet(page, opened)
    started = time.monotonic()
    page.mouse.move(350, 400)
    page.mouse.down()
    page.mouse.move(390, 400)
    page.mouse.up()
    traffic.wait_until_quiet(page, started)
    moves = [moved for moved in traffic.moves if moved > started]
    first_s = min(came for came in traffic.pictures if came > moves[0]) - moves[0]
    sharp_s = min(came for came in traffic.sharp if came > moves[-1]) - moves[-1]
    image = np.asarray(Image.open(io.BytesIO(page.screenshot(scale="css"))).convert("RGB")).astype(np.int16)
    scene = image[60:760, 0:780]
    folder = PICTURES if SHOWN_RUN else tmp_path
    page.screenshot(path=folder / "viewer_panel.jpg", quality=80)
    page.close()
    assert "Traceback" not in log.read_text()
    assert first_s < FIRST_S and sharp_s < SHARP_S, f"first picture after {first_s:.2f} s, sharp after {sharp_s:.2f} s"
    # Both sets of cameras: grey lines of the given ones, green to red ones of the refined.
    assert inked(scene).mean() > 0.02
    assert (saturation(scene) > 60).sum() > 300
    grey = (np.abs(scene - 120).max(-1) < 12) & (saturation(scene) < 8)
    assert grey.sum() > 100
