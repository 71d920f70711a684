"""Findings on given poses: the mistake that explains the images clearly better than the poses as they are."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Int

from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.preflight.focal import focal_factor, is_wrong
from craym_nerfstudio.preflight.hypotheses import (
    Disagreement,
    disagreement,
    pose_guesses,
    rotated_images_guess,
)
from craym_nerfstudio.preflight.lens import AS_GIVEN, Lens, Motions, assumed_views, motions, verified_motions
from craym_nerfstudio.preflight.observe import Observed, SamplePair, sample_pairs, sampled_images
from craym_nerfstudio.preflight.order import find_exchanged, find_order
from craym_nerfstudio.preflight.single_images import doubtful_images, rotated_images

_CLEARLY = 0.6
"""A mistake is named when without it the disagreement is at most this part, and lower by this many degrees:"""
_CLEARLY_DEG = 1.5
_EXPLAINED_DEG = 12.0
"""Rotations that agree this well need no search for another order."""
_FEWEST_SAMPLES = 3
_MOST_SINGLE = 0.4
"""Share of images up to which these are wrong while the others are right."""


@dataclass(frozen=True)
class Finding:
    """One mistake: short name, what is wrong, what to change."""

    kind: str
    problem: str
    remedy: str
    details: dict[str, object] = field(default_factory=dict)


@dataclass
class Diagnosis:
    """What is wrong with the input, and the input with that repaired."""

    findings: list[Finding]
    repaired: Views
    lens: Lens
    given: Disagreement
    """Of predicted and measured motions as the poses are given; 180 degrees when nothing could be measured."""
    remaining: Disagreement
    """The same after the repair."""
    sampled: int
    """Pairs whose motions were measured."""


@dataclass(frozen=True)
class _Candidate:
    finding: Finding
    views: Views
    """Repaired."""
    lens: Lens
    measured: Motions
    result: Disagreement


def diagnose(views: Views, observed: Observed) -> Diagnosis:
    """Name the mistakes in the poses and intrinsics of `views` (in the data's frame: w2c is told by the origin)."""
    samples = sample_pairs(observed, views)
    nothing = Disagreement(180.0, 180.0)
    if len(samples) < min(_FEWEST_SAMPLES, len(views.names) - 1):
        return Diagnosis([], views, AS_GIVEN, nothing, nothing, len(samples))
    images = sampled_images(samples)
    measured = motions(samples, views)
    given = disagreement(views.c2w, images, measured)
    diagnosis = Diagnosis([], views, AS_GIVEN, given, given, len(samples))
    # Where there is nothing to gain, nothing is searched.
    if given.total_deg > _CLEARLY_DEG:
        candidates = [*_of_poses(views, images, measured), *_of_lenses(views, samples)]
        best = min(candidates, key=lambda candidate: candidate.result.total_deg)
        if _is_clear(given, best.result):
            diagnosis, measured = _accepted(diagnosis, best), best.measured
    if diagnosis.remaining.rotation_deg > _EXPLAINED_DEG:
        reordered = _of_order(views, observed, images, motions(samples, views))
        if reordered is not None and _is_clear(diagnosis.remaining, reordered.result):
            fresh = Diagnosis([], views, AS_GIVEN, given, given, len(samples))
            diagnosis, measured = _accepted(fresh, reordered), reordered.measured
    if diagnosis.findings and diagnosis.lens.focal_factor == 1:
        second = _of_focal(diagnosis.repaired, samples)
        if second is not None and _is_clear(diagnosis.remaining, second.result):
            diagnosis, measured = _accepted(diagnosis, second), second.measured
    return _with_single_images(diagnosis, observed, samples, measured)


def _is_clear(before: Disagreement, after: Disagreement) -> bool:
    gain = before.total_deg - after.total_deg
    return after.total_deg < _CLEARLY * before.total_deg and gain > _CLEARLY_DEG


def _accepted(diagnosis: Diagnosis, found: _Candidate) -> Diagnosis:
    return replace(
        diagnosis,
        findings=[*diagnosis.findings, found.finding],
        repaired=found.views,
        lens=found.lens,
        remaining=found.result,
    )


def _of_poses(views: Views, images: Int[np.ndarray, "pairs 2"], measured: Motions) -> list[_Candidate]:
    found = []
    for guess in pose_guesses(views.names):
        c2w = guess.repair(views.c2w)
        finding = Finding(guess.kind, guess.problem, guess.remedy)
        result = disagreement(c2w, images, measured)
        found.append(_Candidate(finding, replace(views, c2w=c2w), AS_GIVEN, measured, result))
    return found


def _of_lenses(views: Views, samples: Sequence[SamplePair]) -> list[_Candidate]:
    found = []
    for turns in (1, 2, 3):
        guess = rotated_images_guess(turns)
        finding = Finding(guess.kind, guess.problem, guess.remedy, {"clockwise_deg": 90 * turns})
        found.append(_under(views, samples, Lens(quarter_turns=turns), finding))
    focal = _of_focal(views, samples)
    return found if focal is None else [*found, focal]


def _of_focal(views: Views, samples: Sequence[SamplePair]) -> _Candidate | None:
    factor, fitted_px, given_px = focal_factor(views, samples)
    if not is_wrong(factor) or fitted_px > _CLEARLY * given_px:
        return None
    before = float(np.median(views.focal_px))
    finding = Finding(
        "wrong-focal-length",
        f"The focal length is wrong: the matches fit the poses best with {factor:.2f} times the given one",
        f"Multiply fl_x and fl_y by {factor:.3f} (at the size used here {before:.0f} px become {factor * before:.0f}), "
        f"or divide tan(camera_angle_x / 2) by it; was it stated for images of another size?",
        {"factor": factor},
    )
    return _under(views, samples, Lens(focal_factor=factor), finding)


def _under(views: Views, samples: Sequence[SamplePair], lens: Lens, finding: Finding) -> _Candidate:
    assumed = assumed_views(views, lens)
    measured = motions(samples, assumed)
    return _Candidate(finding, assumed, lens, measured, disagreement(views.c2w, sampled_images(samples), measured))


def _of_order(
    views: Views, observed: Observed, images: Int[np.ndarray, "pairs 2"], measured: Motions
) -> _Candidate | None:
    source = find_order(views.c2w, *verified_motions(observed, views))
    return None if source is None else _reordered(views, images, measured, source)


def _reordered(
    views: Views, images: Int[np.ndarray, "pairs 2"], measured: Motions, source: Int[np.ndarray, " cams"]
) -> _Candidate:
    c2w, moved = views.c2w[source], np.flatnonzero(source != np.arange(len(source)))
    examples = "; ".join(f"{views.names[k]} needs that of {views.names[source[k]]}" for k in moved[:3])
    finding = Finding(
        "out-of-order",
        f"{len(moved)} of {len(source)} images have each other's poses",
        f"Give every image its own pose: {examples}{'; ...' if len(moved) > 3 else ''}.",
        {"pose_of": {views.names[k]: views.names[source[k]] for k in moved}},
    )
    return _Candidate(finding, replace(views, c2w=c2w), AS_GIVEN, measured, disagreement(c2w, images, measured))


def _with_single_images(
    diagnosis: Diagnosis, observed: Observed, samples: Sequence[SamplePair], measured: Motions
) -> Diagnosis:
    """Add what is wrong with single images where the others are right."""
    views, images = diagnosis.repaired, sampled_images(samples)
    doubtful = doubtful_images(views.c2w, images, measured)
    if not len(doubtful) or len(doubtful) > _MOST_SINGLE * len(views.names):
        return diagnosis
    turned = rotated_images(views, samples, measured, doubtful)
    findings = list(diagnosis.findings)
    for turns in sorted(set(turned.values())):
        chosen = [k for k in turned if turned[k] == turns]
        names = [views.names[k] for k in chosen]
        findings.append(
            Finding(
                "rotated-images",
                f"Rotated by {90 * turns} degrees clockwise against their poses: {', '.join(names)}",
                f"Rotate these files by {90 * turns} degrees counter-clockwise.",
                {"clockwise_deg": 90 * turns, "images": names},
            )
        )
        views = assumed_views(views, Lens(quarter_turns=turns), chosen)
    # Single pairs of a sample may be wrong; those that agree with each other decide who has whose pose.
    images, measured = verified_motions(observed, views)
    left = np.setdiff1d(doubtful_images(views.c2w, images, measured), list(turned))
    if 1 < len(left) <= _MOST_SINGLE * len(views.names):
        source = find_exchanged(views.c2w, images, measured, left)
        affected = np.isin(images, np.flatnonzero(source != np.arange(len(source)))).any(1)
        part = Motions(measured.rotation[affected], measured.translation[affected], measured.explained[affected])
        exchanged = _reordered(views, images[affected], part, source)
        if _is_clear(disagreement(views.c2w, images[affected], part), exchanged.result):
            findings.append(exchanged.finding)
            views = exchanged.views
    return replace(diagnosis, findings=findings, repaired=views)
