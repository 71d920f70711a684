"""The image store: bilinear colours by hand, masks, patches, draws that follow from the generator alone."""

import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from craym_nerfstudio.data.image_store import ImageStore


def generator(seed: int = 0) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)


def gradient_image(width: int, height: int, channels: int = 3) -> Tensor:
    """Red counts columns, green counts rows, blue and alpha are full."""
    image = torch.full((height, width, channels), 255, dtype=torch.uint8)
    image[..., 0] = torch.arange(width, dtype=torch.uint8)[None]
    image[..., 1] = torch.arange(height, dtype=torch.uint8)[:, None]
    return image


def store_of(images: list[Tensor], masks: list[Tensor] | None = None) -> ImageStore:
    """A store of whole images."""
    return ImageStore(images, [(image.shape[1], image.shape[0]) for image in images], masks)


def look_up(store: ImageStore, image: int, *xy: tuple[float, float]) -> Tensor:
    """Colours at positions of one image, in steps of 1/255."""
    return store.colors(torch.full((len(xy),), image), torch.tensor(xy)) * 255


def test_colours_are_exact_at_pixel_centres_and_linear_between() -> None:
    store = store_of([gradient_image(5, 3), gradient_image(4, 6)])
    found = look_up(store, 1, (0.5, 0.5), (2.5, 4.5), (2.0, 4.75), (3.5, 5.5))
    expected = torch.tensor([[0.0, 0.0], [2.0, 4.0], [1.5, 4.25], [3.0, 5.0]])
    torch.testing.assert_close(found[:, :2], expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(found[:, 2:], torch.full((4, 2), 255.0))


def test_positions_beyond_the_last_pixel_centre_repeat_the_border() -> None:
    store = store_of([gradient_image(5, 3), gradient_image(4, 6)])
    found = look_up(store, 0, (0.0, 0.0), (5.0, 3.0), (-2.0, 9.0))
    torch.testing.assert_close(found[:, :2], torch.tensor([[0.0, 0.0], [4.0, 2.0], [0.0, 2.0]]))


def test_colours_are_weighted_by_opacity() -> None:
    """Halfway between an opaque red pixel and a transparent one whose colour channels hold green."""
    pixels = torch.tensor([[[255, 0, 0, 255], [0, 255, 0, 0]]], dtype=torch.uint8)
    found = look_up(store_of([pixels]), 0, (1.0, 0.5), (1.5, 0.5))
    torch.testing.assert_close(found[0], torch.tensor([255.0, 0.0, 0.0, 127.5]))
    assert found[1, 3] == 0
    assert found.isfinite().all()


def test_random_pixels_are_centres_of_every_image_and_pixel() -> None:
    sizes = [(5, 3), (2, 7)]
    store = store_of([gradient_image(*size) for size in sizes])
    image, xy = store.random_pixels(4000, generator())
    assert torch.equal(xy % 1, torch.full_like(xy, 0.5))
    for number, (width, height) in enumerate(sizes):
        drawn = {tuple(position) for position in xy[image == number].tolist()}
        assert drawn == {(x + 0.5, y + 0.5) for x in range(width) for y in range(height)}
    assert 0.45 < (image == 0).float().mean() < 0.55


def test_a_walk_visits_every_pixel_before_it_visits_one_again() -> None:
    store = store_of([gradient_image(5, 3), gradient_image(2, 7)])
    parts = [store.next_pixels(first, 10) for first in (40, 50, 60)]
    image, xy = (torch.cat(part)[: 5 * 3 + 2 * 7] for part in zip(*parts, strict=True))
    visited = {(number, *position) for number, position in zip(image.tolist(), xy.tolist(), strict=True)}
    sizes = enumerate([(5, 3), (2, 7)])
    assert visited == {(k, x + 0.5, y + 0.5) for k, size in sizes for x in range(size[0]) for y in range(size[1])}


def test_a_part_of_a_walk_is_spread_over_images_and_pixels() -> None:
    store = store_of([gradient_image(40, 30) for _ in range(8)])
    image, xy = store.next_pixels(12345, 400)
    assert image.bincount(minlength=8).sub(50).abs().max() <= 2
    assert (xy[:, 1] < 15).float().mean() == pytest.approx(0.5, abs=0.05)
    assert (xy[:, 0] < 20).float().mean() == pytest.approx(0.5, abs=0.1)


def test_a_part_of_a_walk_meets_every_column() -> None:
    """Steps of 108 pixels through rows of 48 would meet four of them."""
    store = store_of([gradient_image(48, 48) for _ in range(12)])
    _, xy = store.next_pixels(0, 256)
    assert len(xy[:, 0].unique()) > 40


def test_a_walk_goes_round_masked_pixels() -> None:
    mask = torch.zeros((8, 8), dtype=torch.uint8)
    mask[2:5, :4] = 255
    store = store_of([gradient_image(8, 8)], [mask])
    image, xy = store.next_pixels(0, 12)
    assert store.visible(image, xy).all()
    assert len(xy.unique(dim=0)) == 12


def test_of_pixels_far_from_an_object_few_are_drawn() -> None:
    """An opaque square of 10 px in the middle of 100: 8 px round it are near, and of the rest one in ten is drawn."""
    picture = torch.zeros((100, 100, 4), dtype=torch.uint8)
    picture[45:55, 45:55] = 255
    store = store_of([picture])
    assert len(store.next_pixels(0, 100 * 100)[1].unique(dim=0)) == 100 * 100
    store.draw_near_objects()
    near = 26 * 26
    far = sum(
        number % 10 == 0 and not (37 <= number % 100 < 63 and 37 <= number // 100 < 63) for number in range(100 * 100)
    )
    _, xy = store.next_pixels(0, near + far)
    assert len(xy.unique(dim=0)) == near + far
    assert int(((xy - 50).abs().amax(-1) < 13).sum()) == near


def test_a_picture_without_transparent_pixels_is_drawn_whole() -> None:
    store = store_of([torch.full((10, 10, 4), 255, dtype=torch.uint8)])
    store.draw_near_objects()
    assert len(store.next_pixels(0, 100)[1].unique(dim=0)) == 100


def test_masked_pixels_are_never_drawn() -> None:
    mask = torch.zeros((8, 8), dtype=torch.uint8)
    mask[:, :4] = 255
    store = store_of([gradient_image(8, 8)], [mask])
    image, xy = store.random_pixels(100, generator())
    assert (xy[:, 0] < 4).all()
    assert store.visible(image, xy).all()
    assert store.visible(torch.zeros(2, dtype=torch.long), torch.tensor([[3.9, 0.0], [4.1, 7.9]])).tolist() == [1, 0]


def test_patches_are_squares_inside_their_image() -> None:
    store = store_of([gradient_image(12, 9), gradient_image(20, 6)])
    image, xy = store.random_patches(50, 4, generator())
    patch, owner = xy.view(50, 4, 4, 2), image.view(50, 16)
    assert (owner == owner[:, :1]).all()
    assert torch.equal(patch[:, :, 1:, 0] - patch[:, :, :-1, 0], torch.ones(50, 4, 3))
    assert torch.equal(patch[:, 1:, :, 1] - patch[:, :-1, :, 1], torch.ones(50, 3, 4))
    assert (xy >= 0.5).all()
    assert (xy <= store.size_px[image] - 0.5).all()
    corners = patch[owner[:, 0] == 1, 0, 0]
    assert corners.amin(0).tolist() == [0.5, 0.5]
    assert corners[:, 1].max() == 2.5


def test_patches_larger_than_an_image_repeat_its_border() -> None:
    store = store_of([gradient_image(3, 3)])
    image, xy = store.random_patches(2, 5, generator())
    assert xy.max() == 2.5
    assert store.colors(image, xy).isfinite().all()


def test_draws_follow_from_the_generator_alone() -> None:
    store = store_of([gradient_image(30, 20)])
    for draw in (store.random_pixels, lambda n, g: store.random_patches(n, 4, g)):
        first, again, other = (draw(20, generator(seed))[1] for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def test_memory_is_four_bytes_a_pixel() -> None:
    mask = torch.zeros((3, 5), dtype=torch.uint8)
    assert store_of([gradient_image(5, 3)]).bytes == 60
    assert store_of([gradient_image(5, 3)], [mask]).bytes == 75


def test_images_are_copied_as_they_are_decoded() -> None:
    """A store never holds more than one decoded image beside its own 8-bit buffer."""
    alive: list[weakref.ref] = []

    def decoded() -> Iterator[Tensor]:
        for size in sizes:
            assert sum(reference() is not None for reference in alive) <= 1
            image = gradient_image(*size)
            alive.append(weakref.ref(image))
            yield image

    sizes = [(5, 3), (4, 6), (2, 7)]
    store = ImageStore(decoded(), sizes)
    assert store.pixels.dtype == torch.uint8
    assert torch.equal(store.pixels, store_of([gradient_image(*size) for size in sizes]).pixels)


def test_images_that_are_left_out_are_not_drawn_until_they_are_back() -> None:
    store = store_of([gradient_image(5, 4), gradient_image(4, 6), gradient_image(6, 5)])
    left_out = torch.tensor([False, True, False])
    for _ in range(2):
        store.leave_out(left_out)
        pixels = [store.next_pixels(0, 50)[0], store.random_pixels(200, generator())[0]]
        for drawn in (*pixels, store.random_patches(40, 3, generator())[0]):
            assert set(drawn.tolist()) == set((~left_out).nonzero()[:, 0].tolist())
        left_out = torch.zeros(3, dtype=torch.bool)


def test_a_mask_holds_where_images_are_left_out() -> None:
    masks = [torch.full((3, 4), 255, dtype=torch.uint8) for _ in range(2)]
    masks[0][:, 2:] = 0
    store = store_of([gradient_image(4, 3), gradient_image(4, 3)], masks)
    store.leave_out(torch.tensor([False, True]))
    image, xy = store.next_pixels(0, 60)
    assert set(image.tolist()) == {0}
    assert float(xy[:, 0].max()) == 1.5


def test_a_whole_image_is_what_was_put_in() -> None:
    mask = torch.full((3, 4), 255, dtype=torch.uint8)
    mask[1, 2] = 0
    store = store_of(
        [gradient_image(5, 6), gradient_image(4, 3, 4)], [torch.full((6, 5), 255, dtype=torch.uint8), mask]
    )
    colors, visible = store.whole(1)
    torch.testing.assert_close(colors * 255, gradient_image(4, 3, 4).float())
    torch.testing.assert_close(visible, (mask > 0).float())
