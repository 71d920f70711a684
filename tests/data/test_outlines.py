"""Outlines: signed distances by hand, at any size and shape of images."""

import numpy as np
import pytest
import torch

from craym_nerfstudio.data.image_store import ImageStore
from craym_nerfstudio.data.outlines import Outlines


def square(width: int, height: int, columns: slice, rows: slice) -> torch.Tensor:
    """An image that is opaque in a rectangle."""
    image = torch.full((height, width, 4), 200, dtype=torch.uint8)
    image[..., 3] = 0
    image[rows, columns, 3] = 255
    return image


def test_distances_are_signed_and_in_parts_of_the_longer_side() -> None:
    """Two images of unlike size and shape, each with a rectangle: left of it, in its middle, on its border."""
    images = [square(128, 64, slice(64, 96), slice(0, 64)), square(40, 80, slice(10, 30), slice(20, 60))]
    outlines = Outlines(ImageStore(images, [(128, 64), (40, 80)]))
    image = torch.tensor([0, 0, 1, 1])
    xy = torch.tensor([[32.0, 30.0], [80.0, 32.0], [20.0, 5.0], [20.0, 40.0]])
    expected = torch.tensor([32 / 128, -16 / 128, 15 / 80, -10 / 80])
    torch.testing.assert_close(outlines.at(image, xy), expected, rtol=0, atol=0.008)
    beside = outlines.at(torch.zeros(2, dtype=torch.long), torch.tensor([[63.5, 32.0], [64.5, 32.0]]))
    assert float(beside[0]) > 0 > float(beside[1])


@pytest.mark.parametrize("alpha", [0, 255])
def test_images_without_an_outline_say_nothing(alpha: int) -> None:
    image = torch.full((30, 30, 4), alpha, dtype=torch.uint8)
    outlines = Outlines(ImageStore([image], [(30, 30)]))
    assert not outlines.at(torch.zeros(9, dtype=torch.long), 30 * torch.rand(9, 2)).any()


def test_positions_on_the_border_are_in_the_image() -> None:
    outlines = Outlines(ImageStore([square(20, 20, slice(0, 10), slice(0, 20))], [(20, 20)]))
    corners = outlines.at(torch.zeros(2, dtype=torch.long), torch.tensor([[0.0, 0.0], [20.0, 20.0]]))
    assert float(corners[0]) == pytest.approx(-0.5, abs=0.01) and float(corners[1]) == pytest.approx(0.5, abs=0.01)


def test_middle_and_size_of_what_is_opaque() -> None:
    """A rectangle 32 x 64 px on the right of an image 128 x 64, and nothing in another."""
    empty = square(16, 16, slice(0, 0), slice(0, 0))
    outlines = Outlines(ImageStore([square(128, 64, slice(64, 96), slice(0, 64)), empty], [(128, 64), (16, 16)]))
    np.testing.assert_allclose(outlines.middle_px, [[80.0, 32.0], [8.0, 8.0]])
    np.testing.assert_allclose(outlines.radius_px, [np.sqrt(32 * 64 / np.pi), 0.0])
    assert outlines.whole.tolist() == [False, False]
    inner = Outlines(ImageStore([square(64, 64, slice(8, 40), slice(8, 40))], [(64, 64)]))
    assert inner.whole.tolist() == [True]
