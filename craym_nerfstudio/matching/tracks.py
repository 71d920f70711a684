"""Tracks: keypoints of several images that see one scene point, joined over matches."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32

from craym_nerfstudio.matching.matches import Matches


@dataclass(frozen=True)
class Tracks:
    """Conflict-free tracks in compressed rows: track k owns the entries ``start[k]:start[k + 1]``."""

    start: Int[np.ndarray, " tracks+1"]
    image: Int32[np.ndarray, " entries"]
    """Ascending inside a track and never twice the same."""
    keypoint_id: Int32[np.ndarray, " entries"]

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def lengths(self) -> Int[np.ndarray, " tracks"]:
        """Number of images of each track."""
        return np.diff(self.start)

    @property
    def track_of_entry(self) -> Int[np.ndarray, " entries"]:
        """Track that each entry belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths)


def build_tracks(matches: Matches) -> Tracks:
    """Join matches, the most trusted first, and refuse each one that would let a track see an image twice.

    So one wrong match does not spoil two long tracks: it stays out, and they stay apart. A keypoint is in at most one
    track.
    """
    keys = (matches.images.astype(np.int64) << 32) | matches.keypoint_ids
    nodes, ends = np.unique(keys.ravel(), return_inverse=True)
    trusted = np.argsort(-matches.confidence, kind="stable")
    root = _join(ends.reshape(-1, 2), (nodes >> 32).astype(np.int64), trusted)
    _, label, size = np.unique(root, return_inverse=True, return_counts=True)
    # `nodes` ascends by image, so a stable sort by track leaves the images of a track ascending.
    order = np.argsort(label, kind="stable")
    order = order[size[label[order]] > 1]
    return Tracks(
        start=np.concatenate([[0], np.cumsum(size[size > 1])]),
        image=(nodes[order] >> 32).astype(np.int32),
        keypoint_id=(nodes[order] & 0xFFFFFFFF).astype(np.int32),
    )


def _join(
    ends: Int[np.ndarray, "matches 2"], image: Int[np.ndarray, " nodes"], order: Int[np.ndarray, " matches"]
) -> Int[np.ndarray, " nodes"]:
    """Root of each node after joining the matches in the given order wherever no image would occur twice."""
    parent = list(range(len(image)))
    seen = [{number} for number in image.tolist()]

    def find(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for left, right in ends[order].tolist():
        a, b = find(left), find(right)
        if a == b or not seen[a].isdisjoint(seen[b]):
            continue
        if len(seen[a]) < len(seen[b]):
            a, b = b, a
        parent[b] = a
        seen[a] |= seen[b]
    return np.array([find(node) for node in range(len(image))], dtype=np.int64)
