"""Images and masks from disk: one pixel format, the size that the cameras want, one clear error for unusable files.

EXIF orientation is *not* applied: poses and intrinsics describe the pixels as they lie in the file.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from craym_nerfstudio.console import warn
from craym_nerfstudio.errors import InputError

Decoded = TypeVar("Decoded")

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
UNREAD_SUFFIXES = (".heic", ".heif", ".dng")
"""Of what cameras write and people convert, some after the poses were found."""

_DECODE_ERRORS = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError)
_TURNED_ORIENTATIONS = (5, 6, 7, 8)


@dataclass(frozen=True)
class ImageHeader:
    """What the first bytes of an image file tell: its size in pixels and whether it has an alpha channel."""

    size_px: tuple[int, int]
    has_alpha: bool
    is_turned_by_exif: bool


def has_image_name(path: Path) -> bool:
    """Whether a file is called as an image; a Mac writes ._000.png beside 000.png, which is none."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def said_of_unread(paths: Iterable[Path]) -> str:
    """How many of these are photos in a format that is not read, and what to do; nothing where none are."""
    unread = [path for path in paths if path.suffix.lower() in UNREAD_SUFFIXES and not path.name.startswith(".")]
    formats = " or ".join(sorted({path.suffix[1:].upper() for path in unread}))
    are, them = ("photo is", "it") if len(unread) == 1 else ("photos are", "them")
    return f"{len(unread)} {are} {formats}, which is not read: convert {them} to JPEG" if unread else ""


def _open(path: Path) -> Image.Image:
    if not path.is_file():
        raise InputError("Missing image", path, "Put the file there, or remove it from the list of images.")
    try:
        return Image.open(path)
    except Image.DecompressionBombError as error:
        problem = f"Image larger than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000} megapixels"
        raise InputError(problem, path, "Scale the image down before training.") from error
    except _DECODE_ERRORS as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = str(error).replace(str(path), "").strip(" '\"") or type(error).__name__
    return InputError(
        f"Unreadable image ({reason})", path, "Export the image again as PNG or JPEG, or remove it from the data."
    )


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def exif_of(image: Image.Image) -> Image.Exif:
    """EXIF tags of an opened image; Pillow would decode a PNG without any to look for them behind its pixels."""
    return Image.Image.getexif(image)


def read_header(path: Path) -> ImageHeader:
    """Size and kind of an image without decoding its pixels.

    Raises:
        InputError: the file is missing or is no image.
    """
    with _open(path) as image:
        try:
            orientation = exif_of(image).get(ExifTags.Base.Orientation, 1)
        except _DECODE_ERRORS:  # a broken EXIF block says nothing about the pixels
            orientation = 1
        return ImageHeader(image.size, _has_alpha(image), orientation in _TURNED_ORIENTATIONS)


_said_dark = False


def _remark_dark(largest: int, path: Path) -> None:
    """Say, once, that the values of a 16-bit image may be of fewer bits."""
    global _said_dark
    if 255 < largest < 4096 and not _said_dark:
        _said_dark = True
        warn(f"{path} has 16 bits and no value above {largest}: very dark, or values of 10 or 12 bits to be scaled up?")


def _to_8_bit(image: Image.Image, path: Path) -> Image.Image:
    """Any PIL mode as RGB or RGBA."""
    if image.mode.startswith("I"):
        _remark_dark(int(np.asarray(image).max()), path)
        high_byte = np.asarray(image).astype(np.int64) >> 8
        return Image.fromarray(high_byte.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise InputError("Floating-point image", path, "Tone-map it to an 8-bit PNG or JPEG.")
    return image.convert("RGBA" if _has_alpha(image) else "RGB")


def _decode(path: Path, convert: Callable[[Image.Image, Path], Decoded]) -> Decoded:
    with _open(path) as image:
        try:
            image.load()
            return convert(image, path)
        except InputError:
            raise
        except _DECODE_ERRORS as error:
            raise _unreadable(path, error) from error


def load_image(path: Path, size_px: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w c"]:
    """Decoded image with 3 channels, or 4 when it has (straight) alpha, resampled to `size_px` = (width, height).

    Shrinking averages pixel areas, with colours weighted by alpha; greyscale, 16-bit and palette images are converted.

    Raises:
        InputError: the file is missing, truncated, no image, or of floating-point type.
    """
    image = _decode(path, _to_8_bit)
    if size_px is not None and image.size != tuple(size_px):
        # Pillow premultiplies RGBA before it resamples, so that colours hidden by alpha 0 do not bleed in.
        image = image.resize((size_px[0], size_px[1]), Image.Resampling.BOX)
    return np.array(image)


def load_mask(path: Path | None, size_px: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w"]:
    """Mask with 255 where the image may be used and 0 where it is unknown; without a file, all of `size_px` is usable.

    Any value above 0 counts as usable, whatever its depth, and alpha as a grey value does; what is the same in all
    pixels of a file says nothing. After shrinking, a pixel is usable when at least half of it was.

    Raises:
        InputError: the file is missing, truncated or no image.
    """
    if path is None:
        assert size_px is not None
        return np.full(size_px[::-1], 255, dtype=np.uint8)
    layers = _decode(path, _above_zero)
    varying = [layer for layer in layers if layer.any() and not layer.all()]
    usable = np.logical_and.reduce(varying) if varying else layers[0]
    mask = Image.fromarray(usable.astype(np.uint8) * 255)
    if size_px is not None and mask.size != tuple(size_px):
        mask = mask.resize((size_px[0], size_px[1]), Image.Resampling.BOX)
    return (np.array(mask) >= 128).astype(np.uint8) * 255


def _above_zero(image: Image.Image, _: Path) -> list[Bool[np.ndarray, "h w"]]:
    """Where the colour of an image of any PIL mode is above 0, and where its alpha is if it has one."""
    if image.mode[0] in "IF":
        return [np.asarray(image) > 0]
    channels = np.asarray(image.convert("RGBA")) > 0
    color = channels[..., :3].any(-1)
    return [color, channels[..., 3]] if _has_alpha(image) else [color]


def alpha_use(paths: list[Path], samples: int = 8) -> tuple[bool, bool]:
    """Whether some pixels of evenly spread images are transparent, and whether these show whole, isolated objects.

    Objects are isolated when what is opaque touches no image border.

    Raises:
        InputError: one of them cannot be read.
    """
    has_alpha, is_cut = False, False
    for index in np.unique(np.linspace(0, len(paths) - 1, samples).round().astype(int)):
        if not read_header(paths[index]).has_alpha:
            return False, False
        alpha = load_image(paths[index])[..., -1]
        has_alpha |= bool((alpha < 255).any())
        borders = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
        is_cut |= bool((borders > 127).any())
    return has_alpha, has_alpha and not is_cut
