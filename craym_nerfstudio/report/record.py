"""What a run leaves for its report beside its figures: cameras before and after, matchability."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from craym_nerfstudio.pipeline import CraymPipeline
from craym_nerfstudio.storage import read_npz, write_npz

RECORD_NAME = "record.npz"
METRICS_NAME = "metrics.json"
"""A run that has ended holds both."""
_MATCHES = 1024
"""Matches whose matchability is looked at, about."""


@dataclass(frozen=True)
class RunRecord:
    """The training cameras of a run, and what its matches said; None for what is not known."""

    names: Float[np.ndarray, " cams"]
    given_c2w: Float[np.ndarray, "cams 3 4"]
    """In the world, as the refined poses."""
    refined_c2w: Float[np.ndarray, "cams 3 4"]
    reference_c2w: Float[np.ndarray, "cams 3 4"] | None = None
    """In a frame of their own."""
    matchability: Float[np.ndarray, " matches"] | None = None
    """The w of Eq. 3 of random training matches, after training."""

    def save(self, path: Path) -> None:
        """Write atomically.

        Raises:
            InputError: the disk is full.
        """
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        write_npz(path, {name: np.asarray(value) for name, value in values.items() if value is not None})

    @classmethod
    def load(cls, path: Path) -> "RunRecord":
        """Read what `save` wrote.

        Raises:
            InputError: the file is damaged.
        """
        arrays = read_npz(path)
        return cls(**{item.name: arrays[item.name] for item in fields(cls) if item.name in arrays})


def record_run(pipeline: CraymPipeline) -> RunRecord:
    """The record of a pipeline, whether it has just been trained or was loaded; the latter knows no matches."""
    manager = pipeline.datamanager
    return RunRecord(
        names=np.array(manager.train_dataset.metadata["image_names"], dtype=np.str_),
        given_c2w=pipeline.given_c2w().double().numpy(),
        refined_c2w=pipeline.refined_c2w().double().numpy(),
        reference_c2w=None if manager.reference is None else manager.reference.train_c2w,
        matchability=_matchability(pipeline),
    )


@torch.no_grad()
def _matchability(pipeline: CraymPipeline) -> Float[np.ndarray, " matches"] | None:
    """From the key rays of further training batches."""
    manager = pipeline.datamanager
    # Only a pipeline that trains has looked for matches.
    if manager.key_source is None or not manager.config.num_key_pairs:
        return None
    was_training, found = pipeline.training, []
    pipeline.train()
    for number in range(max(1, _MATCHES // manager.config.num_key_pairs)):
        rays, _ = manager.next_train(pipeline.craym_model.step + 1 + number)
        found.append(pipeline.model(rays)["matchability"].cpu())
    pipeline.train(was_training)
    return torch.cat(found).double().numpy()
