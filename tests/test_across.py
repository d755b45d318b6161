"""Groups across slices, cuts where membranes touch, and midlines in slabs: plain NumPy, no network."""

import sys

import numpy as np
import pytest

from jaxmem.grouping import MergeConfig, merge_regions, midline
from jaxmem.grouping.merging import neighbours
from jaxmem.grouping.merging.bridges import cut_bridges
from jaxmem.grouping.rl.across import Lines, closes, join_slices, propagate_labels, tangents_of
from jaxmem.grouping.rl.tracing import resample
from jaxmem.metrics import compare_groups

VOXEL = 14.0


def sphere(centre, radius, count, seed):
    u = np.random.default_rng(seed).normal(size=(count, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    u = u[np.abs(u[:, 0]) < 0.8]  # caps are missing
    return np.asarray(centre) + radius * u, u


def ring(z, centre, radius, start=0.0, stop=2 * np.pi):
    angle = np.arange(start, stop, 1.0 / radius)
    path = np.stack([centre[0] + radius * np.sin(angle), centre[1] + radius * np.cos(angle)], -1)
    return np.insert(path, 0, float(z), axis=1), tangents_of(path)


def lines_of(pieces):
    """Lines from (points, tangents) pieces, each a group; pieces may be given as lists that are one group."""
    points, tangents, group = [], [], []
    for number, piece in enumerate(pieces):
        for p, t in piece if isinstance(piece, list) else [piece]:
            points.append(p)
            tangents.append(t)
            group.append(np.full(len(p), number))
    return Lines(*map(np.concatenate, (points, tangents, group)))


def test_touching_spheres_are_cut_apart_and_a_torn_one_is_not():
    """Two spheres a voxel apart are one component; a sphere that hangs together by a strip stays whole."""
    first, n1 = sphere((30, 30, 30), 20, 9000, 0)
    second, n2 = sphere((30, 30, 71), 20, 9000, 1)
    torn, n3 = sphere((30, 90, 50), 20, 9000, 2)
    keep = (np.abs(torn[:, 2] - 50) > 1.5) | ((np.abs(torn[:, 0] - 30) < 3) & (torn[:, 1] > 90))
    points = np.concatenate([first, second, torn[keep]])
    normals = np.concatenate([n1, n2, n3[keep]])
    truth = np.repeat([1, 2, 3], [len(first), len(second), keep.sum()])
    whole = merge_regions(points, normals, VOXEL, MergeConfig(bridge=0.0))
    assert compare_groups(whole, truth).false_merges == 1
    parted = compare_groups(merge_regions(points, normals, VOXEL, MergeConfig()), truth)
    assert parted.false_merges == parted.splits == 0
    assert parted.adjusted_rand > 0.99


def test_long_tubes_stay_whole():
    """The border around a tube is short; what it parts is joined again."""
    rng = np.random.default_rng(0)
    angle, length = rng.uniform(0, 2 * np.pi, 17000), rng.uniform(0, 360, 17000)
    normals = np.stack([np.sin(angle), np.cos(angle), 0 * angle], 1)
    points = 6.0 * normals + np.outer(length, [0, 0, 1])
    pairs, whole = neighbours(points, normals, VOXEL, MergeConfig())
    assert len(np.unique(cut_bridges(points, pairs, whole, 2.6, 0.7))) > len(np.unique(whole))
    assert merge_regions(points, normals, VOXEL, MergeConfig()).max() == 1


def test_cuts_of_next_to_nothing():
    few = np.random.default_rng(0).normal(size=(5, 3))
    for n in (0, 1, 5):
        pairs = np.argwhere(np.triu(np.ones((n, n)), 1))
        assert len(cut_bridges(few[:n], pairs, np.zeros(n, int), 2.6, 0.7)) == n


@pytest.mark.parametrize("shape", [(50, 30, 30), (80, 64)])
def test_midlines_in_slabs_are_those_of_the_whole(shape, monkeypatch):
    volume = np.random.default_rng(0).random(shape).astype(np.float32) ** 4
    whole = midline(volume, 1.2, 0.2)
    monkeypatch.setattr(sys.modules["jaxmem.grouping.midline"], "_SLAB", 7)
    for one, other in zip(whole, midline(volume, 1.2, 0.2)):
        assert np.allclose(one, other)


def test_adjusted_rand_index_splits_and_merges():
    truth = np.repeat([1, 2, 3], 10)
    assert compare_groups(truth + 5, truth) == (1.0, 0, 0)
    one = compare_groups(np.ones(30, int), truth)
    assert (one.splits, one.false_merges) == (0, 2)
    assert abs(one.adjusted_rand) < 1e-12
    found = np.where(np.arange(30) < 5, 7, truth)
    # Hubert & Arabie by hand: pairs together 10 + 10 + 45 + 45 = 110, true 135, found 110 of 435
    chance = 135 * 110 / 435
    expected = (110 - chance) / (0.5 * (135 + 110) - chance)
    assert compare_groups(found, truth) == (pytest.approx(expected), 1, 0)
    random = np.random.default_rng(0).integers(0, 5, (2, 4000))
    assert abs(compare_groups(random[0], random[1]).adjusted_rand) < 0.01


def test_nested_spheres_across_slices():
    """Slices, arcs and a missing slice become two membranes; the inner one is never part of the outer."""
    pieces, truth = [], []
    for z in range(30):
        outer, inner = np.sqrt(20.0**2 - (z - 15) ** 2), np.sqrt(max(12.0**2 - (z - 15) ** 2, 0.0))
        if z % 3 == 0:  # in two pieces, which the linker did not join
            pieces += [ring(z, (30, 30), outer, 0.0, 2.8), ring(z, (30, 30), outer, 3.2, 6.0)]
            truth += [1, 1]
        elif z != 13:
            pieces.append(ring(z, (30, 30), outer))
            truth.append(1)
        if inner > 4:
            pieces.append(ring(z, (30, 30), inner))
            truth.append(2)
    lines = lines_of(pieces)
    found = join_slices(lines)
    assert compare_groups(found, np.array(truth)[lines.group]) == (1.0, 0, 0)


def test_one_mistaken_slice_does_not_join_two_membranes():
    pieces, truth = [], []
    for z in range(12):
        both = [ring(z, (30, 20), 15.0), ring(z, (30, 51), 15.0)]
        pieces += [both] if z == 6 else both
        truth += [[1, 2]] if z == 6 else [1, 2]
    lines = lines_of(pieces)
    found = join_slices(lines)
    apart = lines.points[:, 0] != 6
    assert len(np.unique(found[apart])) == 2
    # midline points ask their neighbours in the next slices too, and outvote the mistake
    side = 1 + (lines.points[:, 2] > 35.5)
    pairs, _ = neighbours(
        lines.points, np.c_[np.zeros(len(side)), lines.tangents[:, ::-1] * (1, -1)], VOXEL, MergeConfig()
    )
    votes = propagate_labels(lines.points, pairs, lines, found)
    assert compare_groups(votes, side).adjusted_rand > 0.97


def test_caps_take_the_membrane_they_hang_on():
    lines = lines_of([ring(z, (30, 30), 10.0) for z in range(10, 20)])
    points, normals = sphere((15, 30, 30), 10.0, 6000, 0)
    far = points + np.array([0.0, 0.0, 60.0])
    both, across = np.concatenate([points, far]), np.concatenate([normals, normals])
    pairs, _ = neighbours(both, across, VOXEL, MergeConfig())
    out = propagate_labels(both, pairs, lines, join_slices(lines))
    assert (out[: len(points)] == 1).all()
    assert (out[len(points) :] == 0).all()


def test_nothing_across_slices():
    none = Lines(np.zeros((0, 3)), np.zeros((0, 2)), np.zeros(0, int))
    assert len(join_slices(none)) == 0
    assert propagate_labels(np.ones((3, 3)), np.zeros((0, 2), int), none, np.zeros(0, int)).tolist() == [0, 0, 0]
    dot = Lines(np.zeros((1, 3)), np.zeros((1, 2)), np.zeros(1, int))
    assert join_slices(dot).tolist() == [1]


def test_closing_and_even_spacing():
    assert closes(ring(0, (0, 0), 9.0)[0][:, 1:])
    assert not closes(ring(0, (0, 0), 9.0, 0.0, 3.2)[0][:, 1:])
    path = resample(np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]), 2.0)
    assert np.allclose(np.linalg.norm(np.diff(path, axis=0), axis=1), 1.0, atol=0.1)
    assert np.allclose(path[[0, -1]], [[0, 0], [4, 6]])
