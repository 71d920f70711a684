"""Splats moved, resized and coloured until a renderer shows the photos: some hundred steps of gradient descent."""

import numpy as np
import torch

from craym_nerfstudio.console import track
from craym_nerfstudio.export.splat_pictures import Picture
from craym_nerfstudio.export.splat_view import Gaussians, picture_of
from craym_nerfstudio.kernels.threads import reserved_threads

_STEPS = 360
_RATES = {"log_sigmas": 0.08, "logits": 0.3, "constant": 0.035, "higher": 0.015}
"""How far a number goes in one of the first steps, about."""
_MEANS_RATE = 0.08
"""The same for positions, in typical standard deviations."""
_FINAL_RATE = 0.1
"""Of the last step, as a share of the first one's."""


def fit(splats: Gaussians, pictures: list[Picture]) -> Gaussians:
    """Splats whose squared errors in the pictures, one after the other in random order, Adam has made small.

    Colours alone, which are linear, cannot: a renderer widens every splat, and the nearest of them hide the others, so
    that outlines grow and what is drawn on a surface is seen displaced, from each side into another direction.
    """
    parts = {
        "means": splats.means.clone(),
        "log_sigmas": splats.log_sigmas.clone(),
        "logits": splats.logits.clone(),
        "constant": splats.harmonics[:, :1].clone(),
        "higher": splats.harmonics[:, 1:].clone(),
    }
    rates = {"means": _MEANS_RATE * float(splats.log_sigmas[:, 0].median().exp()), **_RATES}
    groups = [{"params": [part.requires_grad_()], "lr": rates[name]} for name, part in parts.items() if part.numel()]
    adam = torch.optim.Adam(groups, betas=(0.8, 0.99), eps=1e-15, fused=True)
    slower = torch.optim.lr_scheduler.ExponentialLR(adam, _FINAL_RATE ** (1.0 / _STEPS))
    rng = np.random.default_rng(0)
    rounds = [rng.permutation(len(pictures)) for _ in range(-(-_STEPS // len(pictures)))]
    with reserved_threads():
        for number in track(np.concatenate(rounds)[:_STEPS].tolist(), "Splats"):
            picture = pictures[number]
            adam.zero_grad()
            shown = picture_of(_joined(splats, parts), picture.view, picture.background)
            error = (shown - torch.from_numpy(picture.rgb))[torch.from_numpy(picture.valid)]
            error.square().sum().backward()
            adam.step()
            slower.step()
    return _joined(splats, {name: part.detach() for name, part in parts.items()})


def _joined(splats: Gaussians, parts: dict[str, torch.Tensor]) -> Gaussians:
    harmonics = torch.cat([parts["constant"], parts["higher"]], dim=1)
    return Gaussians(parts["means"], splats.axes, parts["log_sigmas"], parts["logits"], harmonics)
