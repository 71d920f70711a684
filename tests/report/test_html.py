"""Pages need nothing beside them, and say what they were given and nothing else."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.report import html


class Balance(HTMLParser):
    """Fails when tags do not nest; collects what the page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def embedded(page: str) -> list[Image.Image]:
    """The images of a page."""
    found = re.findall(r'src="data:image/\w+;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(each))) for each in found]


def test_page_is_well_formed_and_refers_to_itself_alone(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    page = html.Page("a < b & c", "under <i>test</i>")
    page.add_heading("One")
    page.add(html.text("1 < 2", "warning"))
    page.add(html.table([("psnr", "28.1", "<b>")], header=("name", "value", "note")))
    page.add(html.table([("images", "16"), ("matches", "20366 in 118 pairs")]))
    page.add(html.columns([html.picture(np.zeros((4, 6, 3))), html.joined(html.text("x"), html.text("y"))]))
    plot = Figure(figsize=(2, 1))
    plot.add_subplot().plot([0, 1])
    page.add(html.figure(plot, "curve"))
    page.write(tmp_path / "deep" / "page.html")
    text = (tmp_path / "deep" / "page.html").read_text()
    reader = Balance()
    reader.feed(text)
    assert reader.open == []
    assert all(each.startswith(("data:image/", "#section-")) for each in reader.references)
    assert "<script" not in text and "1 &lt; 2" in text and "&lt;b&gt;" in text and "<i>" not in text
    assert 'class="number">28.1' in text and text.count('class="number"') == 1
    assert [image.size for image in embedded(text)] == [(6, 4), (200, 100)]


def test_pictures_keep_their_values() -> None:
    values = np.linspace(0, 1, 2 * 3 * 3).reshape(2, 3, 3)
    (image,) = embedded(html.picture(values))
    np.testing.assert_array_equal(np.asarray(image), np.round(values * 255).astype(np.uint8))
    (grey,) = embedded(html.picture(np.array([[0.0, 2.0], [np.nan, -1.0]])))
    np.testing.assert_array_equal(np.asarray(grey), [[0, 255], [0, 0]])


def test_photos_are_shrunk_and_transparency_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (300, 150), (255, 0, 0, 0)).save(tmp_path / "photo.png")
    (image,) = embedded(html.picture(tmp_path / "photo.png", max_side_px=100, lossy=True))
    assert image.format == "JPEG" and image.size == (100, 50)
    assert np.asarray(image).min() > 250


def test_broken_picture_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(InputError, match=r"broken\.png"):
        html.picture(tmp_path / "broken.png")


def test_models_bring_their_viewer_along(tmp_path: Path) -> None:
    """Once, as a script within the page; pages without models carry no script."""
    page = html.Page("models")
    page.add(html.joined(html.model(b"glTF one", "a < b"), html.model(b"glTF two")))
    text = page.html()
    assert text.count("<script") == text.count("</script>") == 1
    assert base64.b64encode(b"glTF two").decode() in text and "a &lt; b" in text
    body = text.split("<body>")[1]
    assert "http" not in body and "<script" not in body


def test_two_pictures_under_a_slider(tmp_path: Path) -> None:
    for name, color in (("before", "red"), ("after", "blue")):
        Image.new("RGB", (30, 20), color).save(tmp_path / f"{name}.png")
    fragment = html.compared(tmp_path / "before.png", tmp_path / "after.png", ("as given", "refined"), 300)
    below, above = embedded(fragment)
    assert below.getpixel((5, 5))[2] > 200 and above.getpixel((5, 5))[0] > 200  # type: ignore[index]
    assert fragment.count('width="300"') == 2 and "as given" in fragment
