"""The container of matches and its file; tracks by hand."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from craym_nerfstudio.errors import InputError
from craym_nerfstudio.matching.matches import Matches
from craym_nerfstudio.matching.tracks import build_tracks
from craym_nerfstudio.storage import read_npz, write_npz


def made(links: list[tuple[int, int, int, int, float]], images: int = 4) -> Matches:
    """Matches from (image i, keypoint, image j, keypoint, confidence); keypoint k of image i lies at (10 i + k, k)."""
    pairs = sorted({(i, j) for i, _, j, _, _ in links})
    links = sorted(links, key=lambda link: pairs.index((link[0], link[2])))
    keypoints = np.array([[[10 * i + a, a], [10 * j + b, b]] for i, a, j, b, _ in links], dtype=np.float32)
    rays = np.concatenate([keypoints, -np.ones_like(keypoints[..., :1])], axis=-1)
    return Matches(
        names=[f"{number}.png" for number in range(images)],
        size_px=np.full((images, 2), 100),
        pairs=np.array(pairs, dtype=np.int32),
        rotation=np.tile(np.eye(3), (len(pairs), 1, 1)),
        translation=np.tile([1.0, 0, 0], (len(pairs), 1)),
        pair_of_match=np.array([pairs.index((i, j)) for i, _, j, _, _ in links], dtype=np.int32),
        keypoints=keypoints,
        keypoint_ids=np.array([[a, b] for _, a, _, b, _ in links], dtype=np.int32),
        bearings=rays / np.linalg.norm(rays, axis=-1, keepdims=True),
        confidence=np.array([link[4] for link in links], dtype=np.float32),
        detector="sift",
    )


def entries(matches: Matches) -> list[list[tuple[int, int]]]:
    tracks = build_tracks(matches)
    rows = list(zip(tracks.image.tolist(), tracks.keypoint_id.tolist(), strict=True))
    return sorted(rows[tracks.start[k] : tracks.start[k + 1]] for k in range(len(tracks)))


def test_file_keeps_everything(tmp_path: Path) -> None:
    matches = made([(0, 1, 1, 2, 0.5), (0, 3, 2, 3, 0.25)])
    matches = replace(matches, file_keys=["a", *matches.names[1:]])
    matches.save(tmp_path / "matches.npz")
    loaded = Matches.load(tmp_path / "matches.npz")
    for field in fields(Matches):
        before, after = getattr(matches, field.name), getattr(loaded, field.name)
        np.testing.assert_array_equal(before, after)
        assert np.asarray(before).dtype == np.asarray(after).dtype
    assert len(loaded) == 2 and loaded.pair_counts.tolist() == [1, 1]
    assert loaded.images.tolist() == [[0, 1], [0, 2]]


def test_files_of_other_versions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "matches.npz"
    made([(0, 1, 1, 2, 0.5)]).save(path)
    arrays = read_npz(path)
    write_npz(path, {**arrays, "format": np.array("craym-matches-0")})
    with pytest.raises(InputError, match="Not a matches file of this version"):
        Matches.load(path)
    with pytest.raises(InputError, match="Missing file"):
        Matches.load(tmp_path / "nothing.npz")


def test_poses_found_by_matching_stay_with_their_images(tmp_path: Path) -> None:
    guess = np.arange(48.0).reshape(4, 3, 4)
    matches = replace(made([(0, 1, 1, 2, 0.5), (0, 3, 2, 3, 0.25)]), guess_c2w=guess)
    matches.save(tmp_path / "matches.npz")
    part = Matches.load(tmp_path / "matches.npz").between(["0.png", "2.png"], np.full((2, 2), 100))
    np.testing.assert_array_equal(part.guess_c2w, guess[[0, 2]])
    assert part.pairs.tolist() == [[0, 1]]


def test_subset_renumbers_pairs() -> None:
    matches = made([(0, 1, 1, 2, 0.5), (0, 3, 2, 3, 0.25), (1, 4, 2, 4, 0.75), (1, 5, 2, 5, 0.1)])
    part = matches.subset(matches.confidence > 0.3)
    assert part.pairs.tolist() == [[0, 1], [1, 2]]
    assert part.pair_of_match.tolist() == [0, 1]
    assert part.confidence.tolist() == [0.5, 0.75]
    assert len(matches.subset(np.zeros(4, dtype=bool)).pairs) == 0


def test_tracks_join_over_views() -> None:
    matches = made([(0, 1, 1, 1, 0.9), (1, 1, 2, 1, 0.8), (0, 1, 2, 1, 0.7), (0, 5, 3, 6, 0.9)])
    assert entries(matches) == [[(0, 1), (1, 1), (2, 1)], [(0, 5), (3, 6)]]
    tracks = build_tracks(matches)
    assert tracks.lengths.tolist() == [3, 2]
    assert tracks.track_of_entry.tolist() == [0, 0, 0, 1, 1]


def test_the_least_trusted_match_of_a_conflict_stays_out() -> None:
    """0.1 - 1.1 and 0.2 - 2.1 are right; 1.1 - 2.1 would let image 0 be seen twice."""
    links = [(0, 1, 1, 1, 0.9), (0, 2, 2, 1, 0.8), (1, 1, 2, 1, 0.3)]
    assert entries(made(links)) == [[(0, 1), (1, 1)], [(0, 2), (2, 1)]]
    # With the order of trust turned round the other two contend, and the better one wins.
    links = [(0, 1, 1, 1, 0.4), (0, 2, 2, 1, 0.3), (1, 1, 2, 1, 0.9)]
    assert entries(made(links)) == [[(0, 1), (1, 1), (2, 1)]]


def test_random_matches_give_conflict_free_tracks() -> None:
    random = np.random.RandomState(0)
    links = []
    for i in range(6):
        for j in range(i + 1, 6):
            for a, b in zip(random.permutation(30)[:20], random.permutation(30)[:20], strict=True):
                links.append((i, int(a), j, int(b), float(random.uniform(0.01, 1))))
    matches = made(links, images=6)
    tracks = build_tracks(matches)
    for k in range(len(tracks)):
        images = tracks.image[tracks.start[k] : tracks.start[k + 1]]
        assert (np.diff(images) > 0).all()
    nodes = np.stack([tracks.image, tracks.keypoint_id], axis=1)
    assert len(np.unique(nodes, axis=0)) == len(nodes)
    track_of = {tuple(node): track for node, track in zip(nodes.tolist(), tracks.track_of_entry, strict=True)}
    refused = 0
    for images, ids in zip(matches.images.tolist(), matches.keypoint_ids.tolist(), strict=True):
        ends = list(zip(images, ids, strict=True))
        first, second = (track_of.get(end) for end in ends)
        if first is None or first != second:
            seen = [
                {end[0]} if track is None else set(tracks.image[tracks.track_of_entry == track].tolist())
                for end, track in zip(ends, (first, second), strict=True)
            ]
            assert seen[0] & seen[1], "joined, they would see no image twice"
            refused += 1
    assert 0 < refused < len(matches)


def test_matches_of_some_images_at_another_size() -> None:
    """Image 2 of four is left out, the others are half as large; bearings do not know of pixels."""
    matches = made([(0, 1, 1, 2, 0.5), (0, 3, 2, 4, 0.6), (1, 5, 3, 6, 0.7)])
    some = matches.between(["0.png", "1.png", "3.png"], np.full((3, 2), 50))
    assert some.pairs.tolist() == [[0, 1], [1, 2]]
    assert some.keypoints.tolist() == [[[0.5, 0.5], [6, 1]], [[7.5, 2.5], [18, 3]]]
    assert some.confidence.tolist() == pytest.approx([0.5, 0.7])
    np.testing.assert_array_equal(some.bearings, matches.bearings[[0, 2]])


@pytest.mark.parametrize(
    ("names", "size", "reason"),
    [
        (["0.png", "9.png"], (100, 100), "9.png is not among the images matched"),
        (["1.png", "0.png"], (100, 100), "in another order"),
        (["0.png", "1.png"], (100, 75), "0.png was matched at 100x100 pixels and has 100x75 now"),
    ],
)
def test_matches_of_other_images(names: list[str], size: tuple[int, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        made([(0, 1, 1, 2, 0.5)]).between(names, np.array([size] * 2))
