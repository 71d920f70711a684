"""Single image files that lie on their side or on their head while the others are upright."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.preflight.hypotheses import Poses, pair_disagreement, quarter_turn, turned_axes
from craym_nerfstudio.preflight.lens import Lens, Motions, assumed_views, motions
from craym_nerfstudio.preflight.observe import SamplePair, sampled_images

_DOUBTFUL_DEG = 8.0
_OUTLYING = 4.0
"""Times the median over pairs."""
_LEFT = 0.5
"""Share of the disagreement that a turn may leave."""


def doubtful_images(c2w: Poses, images: Int[np.ndarray, "pairs 2"], measured: Motions) -> Int[np.ndarray, " some"]:
    """Images whose pairs rotate otherwise than the poses `c2w` say, while most pairs agree with these."""
    turn, count = _filled(pair_disagreement(c2w, images, measured)[0]), len(c2w)
    if not len(turn):
        return np.zeros(0, dtype=int)
    limit = max(_DOUBTFUL_DEG, _OUTLYING * float(np.median(turn)))
    doubtful = np.zeros(count, dtype=bool)
    # An image beside several wrong ones looks wrong until these are set aside: the worst goes first.
    while True:
        open_pair = ~doubtful[images].any(1)
        values = [_median(turn[(images == k).any(1) & open_pair], 0.0) for k in range(count)]
        worst = int(np.argmax(values))
        if values[worst] <= limit:
            return np.flatnonzero(doubtful)
        doubtful[worst] = True


def rotated_images(
    views: Views, samples: Sequence[SamplePair], measured: Motions, doubtful: Int[np.ndarray, " some"]
) -> dict[int, int]:
    """Clockwise quarter turns of those doubtful images that a turn reconciles with the undoubted ones."""
    images, found = sampled_images(samples), {}
    turn = _filled(pair_disagreement(views.c2w, images, measured)[0])
    for image in doubtful.tolist():
        # Pairs of two doubtful images say nothing about either.
        other = np.where(images[:, 0] == image, images[:, 1], images[:, 0])
        mine = np.flatnonzero((images == image).any(1) & ~np.isin(other, doubtful))
        if not len(mine):
            continue
        best, turns = min((_turned_error(views, [samples[k] for k in mine], image, t), t) for t in (1, 2, 3))
        if best < _LEFT * _median(turn[mine], 0.0):
            found[image] = turns
    return found


def _turned_error(views: Views, samples: list[SamplePair], image: int, turns: int) -> float:
    """Median rotation error in degrees if the file is turned, its intrinsics describing either the upright or it."""
    images = sampled_images(samples)
    as_upright = motions(samples, assumed_views(views, Lens(quarter_turns=turns), [image]))
    repaired = views.c2w.copy()
    repaired[image] = turned_axes(repaired[image : image + 1], quarter_turn(turns))[0]
    return min(
        float(np.median(_filled(pair_disagreement(views.c2w, images, as_upright)[0]))),
        float(np.median(_filled(pair_disagreement(repaired, images, motions(samples, views))[0]))),
    )


def _filled(turn_deg: Float[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
    return np.where(np.isnan(turn_deg), 180.0, turn_deg)


def _median(values: np.ndarray, otherwise: float) -> float:
    return float(np.median(values)) if len(values) else otherwise
