"""Grey photos: values by hand, what is unknown, lenses, and the way values change with bearings."""

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from craym_nerfstudio.data.grey_photos import GreyPhotos
from craym_nerfstudio.data.image_store import ImageStore
from craym_nerfstudio.geometry.lens import pixels_of

WIDTH, HEIGHT, FOCAL = 8, 6, 10.0
LENS = torch.tensor([0.1, -0.05, 0.01, 0.0, 0.02, -0.01])
"""k1 k2 k3 k4 p1 p2"""


def ramp(channels: int = 3) -> Tensor:
    """Grey counts 20 per column and 5 per row, from 10 on."""
    columns, rows = torch.arange(WIDTH)[None], torch.arange(HEIGHT)[:, None]
    grey = (10 + 20 * columns + 5 * rows).to(torch.uint8)
    image = grey[..., None].repeat(1, 1, channels)
    if channels == 4:
        image[..., 3] = 255
    return image


def photos_of(images: list[Tensor], masks: list[Tensor] | None = None, lens: Tensor | None = None) -> GreyPhotos:
    """Photos of equal cameras that stand at the origin."""
    store = ImageStore(images, [(WIDTH, HEIGHT)] * len(images), masks)
    pose = torch.eye(4)[:3].repeat(len(images), 1, 1)
    bent = None if lens is None else lens.repeat(len(images), 1)
    cameras = Cameras(pose, FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT, distortion_params=bent)
    return GreyPhotos(store, cameras, torch.zeros(len(images), 8, dtype=torch.long))


def bearings(*xy: tuple[float, float]) -> Tensor:
    """Through positions in px of an undistorted camera, of various lengths, each a row of its own [n, 3, 1]."""
    places = torch.tensor(xy)
    plane = (places - torch.tensor([WIDTH / 2, HEIGHT / 2])) / FOCAL
    local = torch.stack([plane[:, 0], -plane[:, 1], -torch.ones(len(plane))], dim=-1)
    return (local * torch.linspace(0.5, 2.0, len(plane))[:, None])[..., None]


def looked_up(
    photos: GreyPhotos, local: Tensor, along: Tensor | None = None, image: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Counts, their slopes and what is known of each bearing, in one photo."""
    along = torch.zeros(len(local), 3) if along is None else along
    grey, slope, known = photos.at(torch.full((len(local),), image), local, along)
    return 255 * grey[:, 0], 255 * slope[:, 0], known


def test_values_are_exact_at_pixel_centres_and_linear_between() -> None:
    photos = photos_of([ramp(), 255 - ramp()])
    grey, _, known = looked_up(photos, bearings((0.5, 0.5), (3.5, 2.5), (2.0, 1.25), (7.5, 5.5)))
    assert grey.tolist() == pytest.approx([10, 80, 10 + 30 + 3.75, 175], abs=1e-3)
    assert known.all()
    other, _, _ = looked_up(photos, bearings((3.5, 2.5), (7.5, 5.5)), image=1)
    assert other.tolist() == pytest.approx([175, 80], abs=1e-3)


def test_outside_and_behind_is_unknown() -> None:
    places = bearings((0.4, 3.0), (7.6, 3.0), (3.0, 0.4), (3.0, 5.6), (4.0, 3.0))
    _, _, known = looked_up(photos_of([ramp()]), torch.cat([places, -places[4:]]))
    assert known.tolist() == [False, False, False, False, True, False]


def test_a_row_is_known_where_all_of_it_is() -> None:
    inside, outside = bearings((4.0, 3.0), (0.4, 3.0))
    rows = torch.stack([torch.cat([inside, inside], dim=-1), torch.cat([inside, outside], dim=-1)])
    _, _, known = photos_of([ramp()]).at(torch.zeros(2, dtype=torch.long), rows, torch.zeros(2, 3))
    assert known.tolist() == [True, False]


@pytest.mark.parametrize("by", ["mask", "alpha"])
def test_hidden_pixels_are_unknown_to_whatever_touches_them(by: str) -> None:
    image, mask = ramp(4), torch.full((HEIGHT, WIDTH), 255, dtype=torch.uint8)
    image[0, 0, :3] = 0  # black, and known
    if by == "mask":
        mask[2, 3] = 0
    else:
        image[2, 3, 3] = 254
    photos = photos_of([image], [mask])
    _, _, known = looked_up(photos, bearings((3.5, 2.5), (3.0, 2.0), (4.4, 3.4), (5.0, 3.0), (0.5, 0.5)))
    assert known.tolist() == [False, False, False, True, True]


def test_lenses_bend_as_everywhere_else() -> None:
    local = bearings((1.5, 1.5), (4.0, 3.0), (6.3, 4.2), (2.2, 4.4))
    grey, _, known = looked_up(photos_of([ramp()], lens=LENS), local)
    intrinsics = torch.tensor([FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2]).numpy()
    pixels, _ = pixels_of(local[..., 0].numpy(), intrinsics, LENS.numpy(), torch.tensor([WIDTH, HEIGHT]).numpy())
    expected = 10 + 20 * (pixels[:, 0] - 0.5) + 5 * (pixels[:, 1] - 0.5)
    assert known.all()
    assert grey.tolist() == pytest.approx(expected.tolist(), abs=1e-3)


def test_what_no_photo_can_show_has_numbers_nevertheless() -> None:
    local = torch.tensor([[0.0, 0.0, 0.0], [1e6, -1e6, -1e-5], [3.0, 2.0, 1.0], [0.0, 0.0, 1.0]])[..., None]
    grey, slope, known = looked_up(photos_of([ramp()], lens=LENS), local, torch.ones(4, 3))
    assert not known.any()
    assert grey.isfinite().all()
    assert slope.isfinite().all()


@pytest.mark.parametrize("lens", [None, LENS])
@pytest.mark.parametrize("along", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.3, -0.2, 1.0]])
def test_values_change_with_bearings_as_their_slopes_say(lens: Tensor | None, along: list[float]) -> None:
    """Counts are linear in places; a step of float32 must not vanish in its rounding."""
    photos, local = photos_of([ramp()], lens=lens), bearings((1.7, 1.2), (4.2, 3.4), (6.1, 4.2))
    towards, step = torch.tensor(along).expand(3, 3), 3e-3
    after, before = (looked_up(photos, local + sign * step * towards[..., None])[0] for sign in (1, -1))
    _, slope, known = looked_up(photos, local, towards)
    assert known.all()
    torch.testing.assert_close(slope, (after - before) / (2 * step), rtol=2e-3, atol=0.02)


def test_fisheyes_and_small_photos_are_not_compared() -> None:
    pose = torch.eye(4)[:3].repeat(2, 1, 1)
    kinds = torch.tensor([[CameraType.PERSPECTIVE.value], [CameraType.FISHEYE.value]])
    assert GreyPhotos.hindrance(Cameras(pose, 500.0, 500.0, 150.0, 200.0, 300, 400)) is None
    assert "fisheyes" in str(
        GreyPhotos.hindrance(Cameras(pose, 500.0, 500.0, 150.0, 200.0, 300, 400, camera_type=kinds))
    )
    assert "200 pixels" in str(GreyPhotos.hindrance(Cameras(pose, 250.0, 250.0, 75.0, 100.0, 150, 200)))
