"""Figures of matchability: the AUC by hand, and what is told of right and wrong matches."""

import numpy as np
import pytest

from benchmarks.coherency import auc, figures


def test_auc_by_hand() -> None:
    """Of nine pairs, 0.9 beats three, 0.5 two and half of a tie, 0.1 none."""
    assert auc(np.array([0.9, 0.5, 0.1]), np.array([0.5, 0.4, 0.2])) == pytest.approx(5.5 / 9)
    assert auc(np.array([1.0, 0.9]), np.array([0.1])) == 1.0 and auc(np.array([0.1]), np.array([0.1, 0.1])) == 0.5


def test_right_and_wrong_matches_are_told_apart() -> None:
    told = figures(np.array([0.95, 0.85, 0.05, 0.15]), np.array([False, False, True, True]))
    assert told["auc"] == 1.0 and told["right_median"] == 0.9 and told["wrong_share_above_half"] == 0.0
    assert told["right_histogram"] == [0] * 8 + [1, 1] and told["wrong_histogram"] == [1, 1] + [0] * 8
