"""Points of stage 0 sought again in every image that may see them, by patches that lie on their planes.

Matches are found between neighbouring views, and a detector sees the same corner in a third of them. Once poses are
known, a patch round a point tells how the surface is tilted there, and so what it looks like from sixty degrees
further: half as many rays again, precise to a twentieth of a pixel, that tie far views to each other. It asks
for a surface that is flat over some pixels; `misses_px` tells whether it is.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from craym_nerfstudio.console import console
from craym_nerfstudio.geometry.epipolar import relative_pose
from craym_nerfstudio.matching.images import Picture
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.patches import Brightness, Patch, align_patches, compared_scale, cut_out, over_images
from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.sfm.adjust import adjust_again, adjust_rays
from craym_nerfstudio.sfm.planes import Cameras, Planes, Seen, fit_tilts, seen_in
from craym_nerfstudio.sfm.ray_graph import CameraMask, ray_graph
from craym_nerfstudio.sfm.refinement import MANY_VIEWS
from craym_nerfstudio.sfm.result import StageZero
from craym_nerfstudio.sfm.view_focals import corrected

_PATCH = Patch(blur_px=0.3, radius_px=3, finer=2)
_LEAST_RAYS = 3
_FITS = 2
"""A tilt found from views that face the plane, then from such as are warped by it."""
_MOST_ANGLE_DEG, _MOST_TILT_DEG = 60.0, 70.0
"""Of the direction to an image: from that to the reference, and from the normal."""
_LEAST_AGREEMENT, _FARTHEST_PX = 0.9, 1.0
_LEAST_AGREEMENT_OF_WARP, _FARTHEST_PX_OF_WARP = 0.85, 2.0
_MARGIN_PX = 4.0
_MOST_IMAGES, _MOST_TRIED = 40, 1_000_000
"""Images that a point is sought in, and points times images."""
_UNCERTAIN = 0.5
"""Confidence in rays that stay as they were."""
_NEAR_DEG, _FAR_DEG = (5.0, 20.0), 35.0
_MOST_GROWTH, _GROWTH_PX = 1.5, 0.02
"""By what patches may miss more from the side: relative, and absolute where they miss by next to nothing."""


class _Rays(NamedTuple):
    """Rays with the point of stage 0 that they see."""

    point: Int[np.ndarray, " rays"]
    image: Int[np.ndarray, " rays"]
    px: Float[np.ndarray, "rays 2"]
    confidence: Float[np.ndarray, " rays"]

    def subset(self, keep: np.ndarray) -> "_Rays":
        return _Rays(*(values[keep] for values in self))

    def __add__(self, other: tuple) -> "_Rays":
        return _Rays(*(np.concatenate(both) for both in zip(self, other, strict=True)))


class _Search:
    """Points of stage 0 with three rays and more, each with the patch of the ray nearest to its mean direction."""

    def __init__(self, views: Views, stage: StageZero) -> None:
        self._views, self._scale, self._stage = views, compared_scale(views), stage
        self._cameras = Cameras(views, stage.c2w, stage.intrinsics)
        ray = _references(stage, _is_test(views))
        self.point = np.flatnonzero((ray >= 0) & (stage.track_length >= _LEAST_RAYS))
        self._ray = ray[self.point]
        image, px = stage.ray_image[self._ray], stage.ray_keypoint_px[self._ray]
        plane, slope = np.zeros_like(px), np.zeros((len(px), 2, 2))
        self._patches = torch.zeros((len(px), _PATCH.pixels))

        def cut(index: int, pixels: Brightness, _: Picture) -> None:
            here = image == index
            plane[here], slope[here] = self._cameras.plane(index, px[here]), self._cameras.slope(index, px[here])
            at = torch.from_numpy(px[here] * self._scale[index]).float()
            self._patches[torch.from_numpy(here)] = cut_out(pixels, at, _PATCH)

        over_images(views, np.unique(image), _PATCH, "Patches", cut)
        inverse_depth = 1 / self._cameras.depth(image, stage.points[self.point])
        self._planes = Planes(image, px, plane, slope, inverse_depth, np.zeros_like(px))
        for _ in range(_FITS):
            self._planes.tilt = self._tilts()

    @property
    def references(self) -> _Rays:
        """The rays whose patches are sought."""
        return _Rays(self.point, self._planes.image, self._planes.px, np.ones(len(self.point)))

    def found(self) -> _Rays:
        """Rays to the points in all images that agree with the references."""
        images, tried = range(len(self._stage.names)), np.zeros(len(self.point))
        for index in images:
            tried[self._candidates(index)] += 1
        share = min(_MOST_IMAGES, _MOST_TRIED / max(1, len(tried))) / np.maximum(tried, 1)

        def seek(index: int, pixels: Brightness, picture: Picture) -> _Rays:
            which = self._candidates(index)
            which = which[np.random.RandomState(index).uniform(size=len(which)) < share[which]]
            return self._found_in(index, pixels, picture, which)

        result = over_images(self._views, images, _PATCH, "Second look", seek)
        return _Rays(*(np.concatenate(values) for values in zip(*result, strict=True)))

    def _aligned(
        self,
        index: int,
        pixels: Brightness,
        which: Int[np.ndarray, " n"],
        start_px: Float[np.ndarray, "n 2"],
        seen: Seen,
        warp_is_known: bool,
    ) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2 2"], Float[np.ndarray, " n"]]:
        """Pixels at which patches of some points are found from a start, their maps, and how well they agree."""
        own, of_reference = self._scale[index], self._scale[self._planes.image[which]][:, None, None]
        warp = seen.warp(self._planes.tilt[which]) * own / of_reference
        start, maps = torch.from_numpy(start_px * own).float(), torch.from_numpy(warp).float()
        at = align_patches(self._patches[torch.from_numpy(which)], pixels, start, maps, warp_is_known)
        return at.at_px.double().numpy() / own, at.warp.double().numpy() * of_reference / own, at.agreement.numpy()

    def _tilts(self) -> Float[np.ndarray, "planes 2"]:
        """Tilts that explain how the patches of all known rays are warped."""
        stage, number = self._stage, np.full(len(self._stage.points), -1)
        number[self.point] = np.arange(len(self.point))
        known = number[stage.ray_point] >= 0
        known[self._ray] = False

        def fit(index: int, pixels: Brightness, _: Picture) -> tuple[np.ndarray, ...]:
            rays = np.flatnonzero(known & (stage.ray_image == index))
            which, start = number[stage.ray_point[rays]], stage.ray_keypoint_px[rays]
            seen = seen_in(self._planes.subset(which), self._cameras, index)
            at, warp, agreement = self._aligned(index, pixels, which, start, seen, warp_is_known=False)
            good = agreement > _LEAST_AGREEMENT_OF_WARP
            good &= np.linalg.norm(at - start, axis=1) * self._scale[index] < _FARTHEST_PX_OF_WARP
            return which[good], seen.facing[good], seen.by_tilt[good], warp[good]

        maps = over_images(self._views, np.unique(stage.ray_image[known]), _PATCH, "Planes", fit)
        if not maps:
            return self._planes.tilt
        return fit_tilts(len(self.point), *(np.concatenate(values) for values in zip(*maps, strict=True)))

    def _candidates(self, index: int) -> Int[np.ndarray, " n"]:
        """Points that an image may see, and from a side that patches tell of."""
        if not self._stage.registered[index]:
            return np.zeros(0, dtype=int)
        points, centers = self._stage.points[self.point], self._cameras.centers
        here, reference = (_unit(center - points) for center in (centers[index], centers[self._planes.image]))
        may = (here * reference).sum(-1) > np.cos(np.radians(_MOST_ANGLE_DEG))
        may &= (here * self._normals).sum(-1) > np.cos(np.radians(_MOST_TILT_DEG))
        may &= self._cameras.depth(np.full(len(points), index), points) > 0
        return np.flatnonzero(may & (self._planes.image != index))

    @cached_property
    def _normals(self) -> Float[np.ndarray, "planes 3"]:
        return self._planes.normals(self._cameras)

    def _found_in(self, index: int, pixels: Brightness, picture: Picture, which: Int[np.ndarray, " n"]) -> _Rays:
        """Rays of one image."""
        seen = seen_in(self._planes.subset(which), self._cameras, index)
        margin = _MARGIN_PX / self._scale[index]
        inside = ((seen.px > margin) & (seen.px < self._views.size_px[index] - margin)).all(1)
        which, seen = which[inside], Seen(*(values[inside] for values in seen))
        at, _, agreement = self._aligned(index, pixels, which, seen.px, seen, warp_is_known=True)
        good = (agreement > _LEAST_AGREEMENT) & picture.is_usable(at)
        good &= np.linalg.norm(at - seen.px, axis=1) * self._scale[index] < _FARTHEST_PX
        return _Rays(self.point[which], np.full(len(which), index), at, agreement.astype(np.float64)).subset(good)


def look_again(views: Views, matches: Matches, stage: StageZero) -> Matches:
    """Matches of stage 0's points between their reference and every image that shows the same there.

    Points that are found in fewer than three images keep the rays they have.

    Raises:
        InputError: an image cannot be read.
    """
    search = _Search(views, stage)
    rays = search.references + search.found()
    many = np.bincount(rays.point, minlength=len(stage.points)) >= _LEAST_RAYS
    confidence = np.full(len(stage.ray_point), _UNCERTAIN)
    before = _Rays(stage.ray_point, stage.ray_image, stage.ray_keypoint_px, confidence)
    rays = rays.subset(many[rays.point]) + before.subset(~many[stage.ray_point])
    return _star(views, stage, rays, matches.detector)


def adjust_twice(
    views: Views, matches: Matches, *, fixed: CameraMask | None = None, refine_intrinsics: bool = False, seed: int = 0
) -> tuple[Matches, StageZero]:
    """Stage 0 (`adjust_rays`) and the matches it rests on: those of a second look where surfaces are flat enough.

    Without a look the matches stay: where the input poses do, where cameras are left without rays, of few views and of
    fisheyes. Test images need no rays and do not count as views.

    Raises:
        InputError: as `adjust_rays`; or an image cannot be read.
    """
    with console.status("Stage 0: matched-ray bundle adjustment"):
        stage = adjust_rays(views, matches, fixed=fixed, refine_intrinsics=refine_intrinsics, seed=seed)
    is_sure = stage.decision.chosen == "solution" and (stage.registered | _is_test(views)).all()
    if not is_sure or np.sum(~_is_test(views)) < MANY_VIEWS or not views.is_perspective:
        return matches, stage
    closer = look_again(views, matches, stage)
    with console.status("Stage 0: second look"):
        again = adjust_again(views, closer, stage, fixed=fixed, seed=seed)
    doubt = _doubt(closer, views, again)
    if doubt is not None:
        console.print(f"Stage 0: the second look is not used: {doubt}")
        return matches, stage
    console.print(f"Stage 0: a second look turns {len(stage.ray_point)} rays into {len(again.ray_point)}")
    return closer, again


def _doubt(matches: Matches, views: Views, stage: StageZero) -> str | None:
    """Why the matches of a second look, and the poses that rest on them, are not believed."""
    if not (stage.registered | _is_test(views)).all():
        return "it leaves cameras without rays"
    near_px, far_px = misses_px(matches, views, stage)
    if not np.isfinite(far_px + near_px):
        return f"too few points are seen from {_FAR_DEG:.0f} degrees apart to tell whether surfaces are flat"
    if far_px > max(_MOST_GROWTH * near_px, near_px + _GROWTH_PX):
        return (
            f"surfaces are not flat enough, patches miss by {near_px:.2f} px from the front, {far_px:.2f} from the side"
        )
    return None


def misses_px(matches: Matches, views: Views, stage: StageZero) -> tuple[float, float]:
    """Median distances from epipolar lines where rays differ by 5 to 20 degrees, and by 35 and more; NaN without any.

    The second is 1.0 to 1.3 times the first where surfaces are flat, and 1.7 to 2.5 times where they are not.
    """
    graph, c2w = corrected(ray_graph(matches, views.focal_px), stage.intrinsics), torch.from_numpy(stage.c2w)
    world = (c2w[torch.from_numpy(graph.image), :, :3] @ torch.from_numpy(graph.bearing)[..., None])[..., 0].numpy()
    cosine = (world[graph.ends[:, 0]] * world[graph.ends[:, 1]]).sum(-1)
    angle_deg, distance_px = np.degrees(np.arccos(cosine.clip(-1, 1))), graph.epipolar_px(c2w)
    near = (angle_deg > _NEAR_DEG[0]) & (angle_deg < _NEAR_DEG[1])
    first, second = (float(np.median(distance_px[k])) if k.any() else np.nan for k in (near, angle_deg > _FAR_DEG))
    return first, second


def _is_test(views: Views) -> CameraMask:
    return np.zeros(len(views.names), dtype=bool) if views.is_test is None else views.is_test


def _references(stage: StageZero, last: CameraMask) -> Int[np.ndarray, " points"]:
    """The ray of each point that is nearest to the mean direction it is seen from; -1 for points without.

    Rays of the `last` cameras are taken where there are no others.
    """
    point, count = stage.ray_point, len(stage.points)
    towards = _unit(stage.c2w[stage.ray_image, :, 3] - stage.points[point])
    mean = np.stack([np.bincount(point, column, count) for column in towards.T], axis=1)
    order = np.lexsort((-(towards * mean[point]).sum(-1), last[stage.ray_image], point))
    result = np.full(count, -1)
    points, first = np.unique(point[order], return_index=True)
    result[points] = order[first]
    return result


def _star(views: Views, stage: StageZero, rays: _Rays, detector: str) -> Matches:
    """Matches between the most trusted ray of each point and its others; keypoints are numbered by the points."""
    rays = rays.subset(np.lexsort((-rays.confidence, _is_test(views)[rays.image], rays.point)))
    points, first = np.unique(rays.point, return_index=True)
    is_first = np.isin(np.arange(len(rays.point)), first)
    centre = first[np.searchsorted(points, rays.point[~is_first])]
    ends = np.sort(np.stack([centre, np.flatnonzero(~is_first)], axis=1), axis=1)
    # The lower image comes first.
    ends = np.take_along_axis(ends, np.argsort(rays.image[ends], axis=1, kind="stable"), axis=1)
    pairs, pair = np.unique(rays.image[ends], axis=0, return_inverse=True)
    order = np.argsort(pair, kind="stable")
    ends, pair = ends[order], pair[order]
    bearings = np.zeros((len(rays.point), 3))
    for index in np.unique(rays.image):
        bearings[rays.image == index] = views.bearings(int(index), rays.px[rays.image == index])
    motion = relative_pose(*torch.from_numpy(stage.c2w)[torch.from_numpy(pairs)].unbind(1)).numpy()
    return Matches(
        names=list(stage.names),
        size_px=views.size_px,
        pairs=pairs.astype(np.int32),
        rotation=motion[:, :, :3],
        translation=_unit(motion[:, :, 3]),
        pair_of_match=pair.astype(np.int32),
        keypoints=rays.px[ends].astype(np.float32),
        keypoint_ids=rays.point[ends].astype(np.int32),
        bearings=bearings[ends].astype(np.float32),
        confidence=np.minimum(*rays.confidence[ends].T).clip(0.01, 1.0).astype(np.float32),
        detector=detector,
        guess_c2w=stage.c2w,
    )


def _unit(vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12)
