"""A texture from the photos themselves: per texel its best views, in two bands, so that seams do not show."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from craym_nerfstudio.console import track
from craym_nerfstudio.export.photo_views import PhotoView, Points

_BEST = 3
"""Views that fine detail comes from, at most."""
_LEAST_COSINE = 0.15
"""A view that is more slanted sees nothing worth taking."""
_LOW_BAND = 0.015
"""Width of the blur that parts the bands, as a share of the image's width."""
_FAVOUR = 4.0
"""Power of a view's quality by which fine detail prefers the better one."""
_SHARPENINGS = 5
_SHARPNESS_LIMITS = (0.2, 1.5)
_GAIN_LIMITS = (0.5, 2.0)
_GAIN_ROUNDS = 5
_LEAST_HELP = 0.3
"""Share by which gains must bring colours closer together, as for training (`start.exposure`)."""


@dataclass(frozen=True)
class SurfacePoints:
    """Points of a surface that are to be coloured, each on a face of a mesh."""

    points: Points
    normals: Points
    face: Int[np.ndarray, " n"]


@dataclass(frozen=True)
class Baked:
    """Colours of points, and whether any view had one."""

    rgb: Float[np.ndarray, "n 3"]
    known: Bool[np.ndarray, " n"]


def bake(
    surface: SurfacePoints,
    views: list[PhotoView],
    face_seen: Bool[np.ndarray, "views faces"],
    gains: Float[np.ndarray, "views 3"],
) -> Baked:
    """Colours of surface points from the photos.

    Coarse shades are averaged over all views that see a point, which hides differences between photos; fine detail
    comes from the best few alone, which keeps it sharp where poses are a little off. A view is the better the
    straighter it looks, the more pixels it spends on the surface and the sharper its photo is.

    Args:
        face_seen: which faces each view sees whole.
        gains: what each photo's colours are multiplied by.

    Raises:
        InputError: a photo cannot be read.
    """
    count = len(surface.points)
    coarse, coarse_weight = np.zeros((count, 3), dtype=np.float32), np.zeros(count, dtype=np.float32)
    best = np.zeros((count, _BEST), dtype=np.float32)
    fine = np.zeros((count, _BEST, 3), dtype=np.float32)
    sharp = sharpness(views)
    for number in track(range(len(views)), "Texture from photos"):
        view = views[number]
        index, quality = candidates(surface, view, face_seen[number])
        quality = quality * np.float32(sharp[number])
        if not len(index):
            continue
        sampled, opaque = _Bands.of(view, gains[number]).at(view.project(surface.points[index])[0])
        index, quality, sampled = index[opaque], quality[opaque], sampled[opaque]
        coarse[index] += quality[:, None] * sampled[:, :3]
        coarse_weight[index] += quality
        worst = best[index].argmin(-1)
        better = quality > best[index, worst]
        best[index[better], worst[better]] = quality[better]
        fine[index[better], worst[better]] = sampled[better, 3:]
    known = coarse_weight > 0
    rgb = coarse / np.maximum(coarse_weight, 1e-12)[:, None]
    favour = (best / np.maximum(best.max(-1, keepdims=True), 1e-12)) ** _FAVOUR
    rgb += (favour[..., None] * fine).sum(1) / np.maximum(favour.sum(-1), 1e-12)[:, None]
    for _ in range(_SHARPENINGS):
        rgb += _back_projected(rgb, surface, views, face_seen, gains)
    return Baked(rgb.clip(0.0, 1.0), known)


def _back_projected(
    rgb: Float[np.ndarray, "n 3"],
    surface: SurfacePoints,
    views: list[PhotoView],
    face_seen: Bool[np.ndarray, "views faces"],
    gains: Float[np.ndarray, "views 3"],
) -> Float[np.ndarray, "n 3"]:
    """What the photos still differ by from the texture seen through their pixels (Irani and Peleg 1991).

    A pixel averages the texels behind it; photos that look from many places know more than each of them shows.
    """
    total, weight = np.zeros_like(rgb), np.zeros(len(rgb), dtype=np.float32)
    for number in track(range(len(views)), "Sharpening the texture"):
        view = views[number]
        index, quality = candidates(surface, view, face_seen[number])
        pixels = view.project(surface.points[index])[0]
        difference = _Bands.of(view, gains[number]).difference(pixels, rgb[index])
        missing = sample(difference, pixels, smooth=False)
        total[index] += quality[:, None] * missing
        weight[index] += quality
    return total / np.maximum(weight, 1e-12)[:, None]


def sharpness(views: list[PhotoView]) -> Float[np.ndarray, " views"]:
    """How sharp each photo is, 1 for the usual one: what it holds of the finest detail, against that twice as coarse.

    Raises:
        InputError: a photo cannot be read.
    """
    import cv2

    values = []
    for view in track(views, "Sharpness of photos"):
        photo = view.photo()
        grey = photo[..., :3].mean(-1) * photo[..., 3]
        fine = cv2.Laplacian(grey, cv2.CV_32F).std()
        values.append(fine / max(float(cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 2.0), cv2.CV_32F).std()), 1e-6))
    return np.clip(np.array(values) / max(float(np.median(values)), 1e-6), *_SHARPNESS_LIMITS)


def candidates(
    surface: SurfacePoints, view: PhotoView, face_seen: Bool[np.ndarray, " faces"]
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """The points that a view may colour, and how well it shows them."""
    index = np.flatnonzero(face_seen[surface.face])
    points = surface.points[index]
    offset = points - view.center.astype(points.dtype)
    distance = np.linalg.norm(offset, axis=-1)
    cosine = -(offset * surface.normals[index]).sum(-1) / distance
    fits = (cosine > _LEAST_COSINE) & view.project(points)[1]
    pixels_per_length = view.intrinsics_px[:2].mean() / distance[fits]
    return index[fits], (cosine[fits] ** 2 * pixels_per_length**2 * 1e-6).astype(np.float32)


@dataclass(frozen=True)
class _Bands:
    """A photo as the sum of a smooth part and the rest."""

    coarse: Float[np.ndarray, "h w 3"]
    fine: Float[np.ndarray, "h w 3"]
    opaque: Float[np.ndarray, "h w"]
    """1 where the photo shows something, and around."""

    @classmethod
    def of(cls, view: PhotoView, gain: Float[np.ndarray, "3"]) -> "_Bands":
        import cv2

        photo = view.photo()
        rgb, alpha = photo[..., :3] * gain.astype(np.float32), photo[..., 3]
        sigma = max(2.0, _LOW_BAND * photo.shape[1])
        share = cv2.GaussianBlur(alpha, (0, 0), sigma)
        # What lies behind transparent pixels belongs to no surface.
        coarse = cv2.GaussianBlur(rgb * alpha[..., None], (0, 0), sigma) / np.maximum(share, 1e-4)[..., None]
        opaque = cv2.erode(alpha, np.ones((3, 3), dtype=np.uint8))
        return cls(coarse, rgb - coarse, opaque)

    def at(self, pixels: Float[np.ndarray, "n 2"]) -> tuple[Float[np.ndarray, "n 6"], Bool[np.ndarray, " n"]]:
        """Both parts at positions, and whether the photo shows anything there."""
        bands = [sample(self.coarse, pixels, smooth=False), sample(self.fine, pixels)]
        return np.concatenate(bands, axis=-1), sample(self.opaque, pixels, smooth=False)[:, 0] > 0.99

    def difference(self, pixels: Float[np.ndarray, "n 2"], rgb: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "h w 3"]:
        """The photo less the mean colour of the points in each pixel; 0 where the photo or the points show nothing."""
        height, width = self.opaque.shape
        column, row = np.floor(pixels).astype(np.int64).T
        flat = row.clip(0, height - 1) * width + column.clip(0, width - 1)
        count = np.bincount(flat, minlength=height * width)
        sums = [np.bincount(flat, rgb[:, k], height * width) for k in range(3)]
        mean = np.stack(sums, axis=-1) / np.maximum(count, 1)[:, None]
        difference = (self.coarse + self.fine) - mean.reshape(height, width, 3).astype(np.float32)
        shown = (count.reshape(height, width) > 0) & (self.opaque > 0.99)
        return np.where(shown[..., None], difference, 0.0).astype(np.float32)


def sample(
    image: Float[np.ndarray, "h w *c"], pixels: Float[np.ndarray, "n 2"], smooth: bool = True
) -> Float[np.ndarray, "n c"]:
    """An image at positions (first pixel's centre at 0.5): bicubic, or bilinear where it may not overshoot."""
    import cv2

    # The library takes maps of fewer than 32768 rows and columns.
    width = 1 << 14
    padded = np.zeros((-(-max(len(pixels), 1) // width) * width, 2), dtype=np.float32)
    padded[: len(pixels)] = pixels - 0.5
    x, y = padded.T.reshape(2, -1, width)
    method = cv2.INTER_CUBIC if smooth else cv2.INTER_LINEAR
    values = cv2.remap(image, np.ascontiguousarray(x), np.ascontiguousarray(y), method, borderMode=cv2.BORDER_REPLICATE)
    return values.reshape(len(padded), -1)[: len(pixels)]


def exposure_gains(
    points: Points, views: list[PhotoView], seen: Bool[np.ndarray, "views n"]
) -> Float[np.ndarray, "views 3"]:
    """Factors that bring the photos to one exposure and white balance, from points that several of them see.

    Raises:
        InputError: a photo cannot be read.
    """
    colors = np.zeros((len(views), len(points), 3), dtype=np.float32)
    valid = seen.copy()
    for number, view in enumerate(track(views, "Exposure")):
        index = np.flatnonzero(seen[number])
        photo = view.photo()
        pixels, inside = view.project(points[index])
        found = sample(photo, pixels, smooth=False)
        usable = inside & (found[:, 3] > 0.99) & (found[:, :3] > 0.02).all(-1) & (found[:, :3] < 0.98).all(-1)
        colors[number, index] = found[:, :3]
        valid[number, index] = usable
    gains = np.ones((len(views), 3))
    valid &= valid.sum(0) >= 2
    apart = _apart(colors, gains, valid)
    for _ in range(_GAIN_ROUNDS):
        mean = _mean(colors, gains, valid)
        for number in np.flatnonzero(valid.sum(1) >= 20):
            mine = valid[number]
            gains[number] = np.median(mean[mine] / colors[number, mine], axis=0)
        gains /= np.exp(np.log(gains).mean(0))
    gains = gains.clip(*_GAIN_LIMITS)
    # Where something shines, photos differ by what they see, which is no exposure.
    return gains if _apart(colors, gains, valid) < (1.0 - _LEAST_HELP) * apart else np.ones_like(gains)


def _mean(
    colors: Float[np.ndarray, "views n 3"], gains: Float[np.ndarray, "views 3"], valid: Bool[np.ndarray, "views n"]
) -> Float[np.ndarray, "n 3"]:
    """Of what views show of each point."""
    total = np.einsum("vnc,vc,vn->nc", colors, gains, valid, optimize=True)
    return total / np.maximum(valid.sum(0), 1)[:, None]


def _apart(
    colors: Float[np.ndarray, "views n 3"], gains: Float[np.ndarray, "views 3"], valid: Bool[np.ndarray, "views n"]
) -> float:
    """How far views' colours are from their mean at the same point, in the median."""
    off = np.abs(colors * gains[:, None] - _mean(colors, gains, valid))[valid]
    return float(np.median(off)) if len(off) else 0.0
