"""Findings on given poses: the mistake that explains the images clearly better than the poses as they are."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from craym_nerfstudio.matching.views import Views
from craym_nerfstudio.preflight.focal import focal_factor, is_wrong, power_of_two
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
from craym_nerfstudio.sfm.result import Intrinsics
from craym_nerfstudio.sfm.shared_intrinsics import correct_bearings

_CLEARLY = 0.6
"""A mistake is named when without it the disagreement is at most this part, and lower by this many degrees:"""
_CLEARLY_DEG = 1.5
_EXPLAINED_DEG = 12.0
"""Rotations that agree this well need no search for another order."""
_FEWEST_SAMPLES = 3
_CONVENTIONS = 3
"""Pose guesses of which any may come with a wrong focal length: w2c, the same with OpenCV axes, OpenCV axes."""
_BOTH, _BOTH_PX = 0.3, 2.0
"""Part of the distance from the epipolar lines that both repairs may leave, and its most."""
_CENTER = 0.01
"""Part of the image by which a principal point may be off without a word."""
_MOST_SINGLE = 0.4
"""Share of images up to which these are wrong while the others are right."""

_EXAMPLES = 3
_FIX = "let `craym preflight --fix DIR` write a copy with that"
_ONE_LENS = 0.006
"""Spread of focal lengths that is none."""


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
    measured: Motions
    """Motions of the sampled pairs with the lens of the repaired views."""


def diagnose(views: Views, observed: Observed) -> Diagnosis:
    """Name the mistakes in the poses and intrinsics of `views` (in the data's frame: w2c is told by the origin)."""
    samples = sample_pairs(observed, views)
    images, measured = sampled_images(samples), motions(samples, views)
    nothing = Disagreement(180.0, 180.0)
    if len(samples) < min(_FEWEST_SAMPLES, len(views.names) - 1):
        return Diagnosis([], views, AS_GIVEN, nothing, nothing, measured)
    given = disagreement(views.c2w, images, measured)
    as_given = diagnosis = Diagnosis([], views, AS_GIVEN, given, given, measured)
    # Where there is nothing to gain, nothing is searched.
    if given.total_deg > _CLEARLY_DEG:
        candidates = [*_of_poses(as_given, images), *_of_lenses(as_given, samples)]
        diagnosis = _better(as_given, min(candidates, key=lambda candidate: candidate.remaining.total_deg))
    if diagnosis.remaining.rotation_deg > _EXPLAINED_DEG:
        diagnosis = _better(diagnosis, _of_order(as_given, observed, images))
    if diagnosis.findings and diagnosis.lens.focal_factor == 1:
        diagnosis = _better(diagnosis, _of_focal(diagnosis, samples))
    if given.total_deg > _CLEARLY_DEG and (not diagnosis.findings or not _is_credible(diagnosis, as_given, samples)):
        diagnosis = _of_axes_and_focal(as_given, samples) or as_given
    return _with_single_images(diagnosis, observed, samples)


def _better(diagnosis: Diagnosis, candidate: Diagnosis | None) -> Diagnosis:
    """The candidate where it leaves clearly less disagreement."""
    return diagnosis if candidate is None or not _is_clear(diagnosis.remaining, candidate.remaining) else candidate


def _is_credible(diagnosis: Diagnosis, as_given: Diagnosis, samples: Sequence[SamplePair]) -> bool:
    """Whether a repair also brings the matches nearer to their epipolar lines: motions of flat scenes are ambiguous."""
    return focal_factor(diagnosis.repaired, samples)[2] < focal_factor(as_given.repaired, samples)[2]


def _of_axes_and_focal(as_given: Diagnosis, samples: Sequence[SamplePair]) -> Diagnosis | None:
    """Two mistakes at once, each of which hides the other: a convention of the poses and a wrong focal length."""
    given_px, views = focal_factor(as_given.repaired, samples)[2], as_given.repaired
    trials = []
    for guess in pose_guesses(views.names)[:_CONVENTIONS]:
        repaired = replace(views, c2w=guess.repair(views.c2w))
        factor, fitted_px, _ = focal_factor(repaired, samples)
        trials.append((fitted_px, factor, guess, repaired))
    fitted_px, factor, guess, repaired = min(trials, key=lambda trial: trial[0])
    if fitted_px > min(_BOTH * given_px, _BOTH_PX) or not is_wrong(factor):
        return None
    found = _with_finding(as_given, Finding(guess.kind, guess.problem, guess.remedy), repaired, sampled_images(samples))
    return _under(found, samples, Lens(focal_factor=factor), _focal_finding(factor, repaired))


def _is_clear(before: Disagreement, after: Disagreement) -> bool:
    gain = before.total_deg - after.total_deg
    return after.total_deg < _CLEARLY * before.total_deg and gain > _CLEARLY_DEG


def _with_finding(
    diagnosis: Diagnosis, finding: Finding, views: Views, images: Int[np.ndarray, "pairs 2"]
) -> Diagnosis:
    """One more mistake, repaired in `views`."""
    remaining = disagreement(views.c2w, images, diagnosis.measured)
    return replace(diagnosis, findings=[*diagnosis.findings, finding], repaired=views, remaining=remaining)


def _of_poses(diagnosis: Diagnosis, images: Int[np.ndarray, "pairs 2"]) -> list[Diagnosis]:
    views, found = diagnosis.repaired, []
    for guess in pose_guesses(views.names):
        repaired = replace(views, c2w=guess.repair(views.c2w))
        found.append(_with_finding(diagnosis, Finding(guess.kind, guess.problem, guess.remedy), repaired, images))
    return found


def _of_lenses(diagnosis: Diagnosis, samples: Sequence[SamplePair]) -> list[Diagnosis]:
    found = []
    for turns in (1, 2, 3):
        guess = rotated_images_guess(turns)
        finding = Finding(guess.kind, guess.problem, guess.remedy, {"clockwise_deg": 90 * turns})
        found.append(_under(diagnosis, samples, Lens(quarter_turns=turns), finding))
    focal = _of_focal(diagnosis, samples)
    return found if focal is None else [*found, focal]


def _of_focal(diagnosis: Diagnosis, samples: Sequence[SamplePair]) -> Diagnosis | None:
    views = diagnosis.repaired
    factor, fitted_px, given_px = focal_factor(views, samples)
    if not is_wrong(factor) or fitted_px > _CLEARLY * given_px:
        return None
    return _under(diagnosis, samples, Lens(focal_factor=factor), _focal_finding(factor, views))


def _focal_finding(factor: float, views: Views) -> Finding:
    before, power = float(np.median(views.focal_px)), power_of_two(factor)
    where = f"at the size used here {before:.0f} px become {factor * before:.0f}"
    problem = f"The focal length is wrong: the matches fit the poses best with {factor:.2f} times the given one"
    remedy = (
        f"Multiply fl_x and fl_y by {factor:.3f} ({where}), or divide tan(camera_angle_x / 2) by it; was it stated for "
        "images of another size?"
    )
    if power is not None:
        factor = power
        large, times = ("larger", 1 / power) if power < 1 else ("smaller", power)
        problem += f": it is that of images {times:.0f} times {large}"
        remedy = (
            f"Give the w and h that fl_x belongs to, or multiply fl_x, fl_y (and cx, cy, if they belong to it) by "
            f"{power:g} ({where})."
        )
    return Finding("wrong-focal-length", problem, remedy, {"factor": factor})


def with_suspected_lens(
    diagnosis: Diagnosis, suspected: Intrinsics, only: Bool[np.ndarray, " cams"] | None = None
) -> Diagnosis:
    """The finding that the intrinsics (of all images, or of some) are wrong and not the poses: stage 0 comes to it."""
    views = diagnosis.repaired
    chosen = np.ones(len(views.names), dtype=bool) if only is None else only
    x, y = suspected.center
    focal_px = float(np.median(np.asarray(views.focal_px)[chosen]))
    size_px = np.median(views.size_px[chosen], axis=0)
    changes = [f"multiply fl_x and fl_y by {suspected.focal_factor:.4f}"] if is_wrong(suspected.focal_factor) else []
    if np.hypot(x, y) * focal_px > _CENTER * size_px.max():
        moved = f"{100 * x * focal_px / size_px[0]:+.1f} % of the width, {100 * y * focal_px / size_px[1]:+.1f} %"
        changes.append(f"move cx and cy by {moved} of the height (add {x:+.5f} fl_x and {y:+.5f} fl_y)")
    if suspected.k1 or suspected.k2:
        changes.append("calibrate or undistort: there is radial distortion that the file does not say")
    todo, whose, details = "; ".join(changes) or "calibrate the camera", "the given lens", {}
    remedy = "train with --pipeline.start.refine-intrinsics True" if only is None else _FIX
    if only is not None:
        names = [views.names[k] for k in np.flatnonzero(only)]
        whose, details = f"the lens of {len(names)} images ({', '.join(names[:_EXAMPLES])}, ...)", {"images": names}
    finding = Finding(
        "wrong-intrinsics",
        f"The poses explain the images, but not through {whose}: they fit {suspected.in_words}",
        f"{todo[0].upper()}{todo[1:]}; or {remedy}.",
        {
            **details,
            "lens": {name: getattr(suspected, name) for name in ("focal_factor", "center", "k1", "k2")},
        },
    )

    def bearings(image: int, keypoints_px: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 3"]:
        rays = np.asarray(views.bearings(image, keypoints_px), dtype=np.float64)
        return correct_bearings(torch.from_numpy(rays), suspected).numpy() if chosen[image] else rays

    focal = np.asarray(views.focal_px) * np.where(chosen, suspected.focal_factor, 1.0)
    repaired = replace(views, bearings=bearings, focal_px=focal)
    return replace(diagnosis, findings=[*diagnosis.findings, finding], repaired=repaired)


def with_wrong_focals(diagnosis: Diagnosis, factors: Float[np.ndarray, " cams"]) -> Diagnosis:
    """The finding that single images have a wrong focal length, which stage 0 may come to."""
    views = diagnosis.repaired
    wrong = sorted(np.flatnonzero(factors != 1).tolist(), key=lambda k: -abs(np.log(factors[k])))
    examples = ", ".join(f"{views.names[k]} by {factors[k]:.4f}" for k in wrong[:_EXAMPLES])
    more = ", ..." if len(wrong) > _EXAMPLES else ""
    problem = (
        f"The poses explain the images, but not with the focal lengths of {len(wrong)} of {len(views.names)} images"
    )
    true_px = np.asarray(views.focal_px) * factors
    if np.ptp(np.log(true_px)) < _ONE_LENS:
        problem += ": all fit one focal length"
    finding = Finding(
        "wrong-focal-lengths",
        problem,
        f"Multiply fl_x and fl_y of each: {examples}{more}; or {_FIX}.",
        {"factors": {views.names[k]: float(factors[k]) for k in wrong}},
    )
    repaired = views
    for k in wrong:
        repaired = assumed_views(repaired, Lens(focal_factor=float(factors[k])), [k])
    return replace(diagnosis, findings=[*diagnosis.findings, finding], repaired=repaired)


def _under(diagnosis: Diagnosis, samples: Sequence[SamplePair], lens: Lens, finding: Finding) -> Diagnosis:
    assumed = assumed_views(diagnosis.repaired, lens)
    measured = replace(diagnosis, lens=lens, measured=motions(samples, assumed))
    return _with_finding(measured, finding, assumed, sampled_images(samples))


def _of_order(diagnosis: Diagnosis, observed: Observed, images: Int[np.ndarray, "pairs 2"]) -> Diagnosis | None:
    views = diagnosis.repaired
    source = find_order(views.c2w, *verified_motions(observed, views))
    return None if source is None else _reordered(diagnosis, images, source)


def _reordered(diagnosis: Diagnosis, images: Int[np.ndarray, "pairs 2"], source: Int[np.ndarray, " cams"]) -> Diagnosis:
    views, moved = diagnosis.repaired, np.flatnonzero(source != np.arange(len(source)))
    examples = "; ".join(f"{views.names[k]} needs that of {views.names[source[k]]}" for k in moved[:3])
    finding = Finding(
        "out-of-order",
        f"{len(moved)} of {len(source)} images have each other's poses",
        f"Give every image its own pose: {examples}{'; ...' if len(moved) > 3 else ''}.",
        {"pose_of": {views.names[k]: views.names[source[k]] for k in moved}},
    )
    return _with_finding(diagnosis, finding, replace(views, c2w=views.c2w[source]), images)


def _with_single_images(diagnosis: Diagnosis, observed: Observed, samples: Sequence[SamplePair]) -> Diagnosis:
    """Add what is wrong with single images where the others are right."""
    views, images = diagnosis.repaired, sampled_images(samples)
    doubtful = doubtful_images(views.c2w, images, diagnosis.measured)
    if not len(doubtful) or len(doubtful) > _MOST_SINGLE * len(views.names):
        return diagnosis
    turned = rotated_images(views, samples, diagnosis.measured, doubtful)
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
        before = replace(diagnosis, findings=findings, repaired=views, measured=part)
        exchanged = _reordered(before, images[affected], source)
        if _is_clear(disagreement(views.c2w, images[affected], part), exchanged.remaining):
            findings, views = exchanged.findings, exchanged.repaired
    return replace(diagnosis, findings=findings, repaired=views)
