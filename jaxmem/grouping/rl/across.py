"""Groups found slice by slice become membranes in three dimensions (paper, Section 5.1: what neighbouring slices share).

Two groups of neighbouring slices belong together where their lines lie over each other and run the same way. Groups that cover
each other are joined first; then small pieces join what they lie upon. Two membranes that both close around a centre of their own
in several slices are never joined, whatever a slice in between, in which they were one group, may say.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import DisjointSet
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from jaxmem.grouping.merging import relabel_by_size

# All of it was chosen by hand; none of it is learnt.
_REACH = 2.5  # voxels between lines that lie over each other; half as much again two slices apart
_ALIKE = 0.8  # |cos| between their directions: 37 degrees
_COVER = 0.5  # share of both groups that lies over the other: the same membrane
_UPON = 0.6  # share of a piece that lies over a larger group: part of it
_AROUND = 0.75  # share of the directions from its centre in which a group has points: it closes
_SLICES = 2  # in so many slices two membranes must both close to be kept apart: one may be mistaken
_VOTES = 9  # neighbours that a midline point asks


class Lines(NamedTuple):
    """Points on the lines of all slices: slice, y, x in pixels; direction in the slice; group, a number of its slice's own."""

    points: Float[np.ndarray, "n 3"]
    tangents: Float[np.ndarray, "n 2"]
    group: Int[np.ndarray, " n"]


def tangents_of(path: Float[np.ndarray, "n 2"], reach: int = 3) -> Float[np.ndarray, "n 2"]:
    """Unit direction at each point of a line, from the points `reach` before and after it."""
    index = np.arange(len(path))
    step = path[np.minimum(index + reach, len(path) - 1)] - path[np.maximum(index - reach, 0)]
    return step / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-9)


def closes(points: Float[np.ndarray, "n 2"], sectors: int = 24) -> bool:
    """Whether points lie all around the middle of their bounding box: in three quarters of its sectors.

    Arguments:
        points: y, x in pixels, at least one.
        sectors: into which the directions are divided.
    """
    offset = points - 0.5 * (points.min(0) + points.max(0))
    angle = np.arctan2(offset[:, 0], offset[:, 1])
    seen = np.unique(((angle + np.pi) / (2 * np.pi) * sectors).astype(int) % sectors)
    return len(points) >= sectors // 2 and len(seen) >= _AROUND * sectors


def join_slices(lines: Lines) -> Int[np.ndarray, " n"]:
    """The membrane of each point, 1...m by falling size.

    Arguments:
        lines: of all slices; groups of different slices have different numbers.
    """
    if len(lines.group) == 0:
        return np.zeros(0, int)
    _, group = np.unique(lines.group, return_inverse=True)
    size = np.bincount(group)
    z = np.round(lines.points[:, 0]).astype(int)
    first, second, share, back = _overlaps(lines, group, size, z)
    floor = np.empty(len(size), int)
    floor[group] = z
    joined = DisjointSet(range(len(size)))
    whole: list[set[int]] = []  # of each root, the slices in which a group of its set closes
    order = np.argsort(group, kind="stable")
    for g, members in enumerate(np.split(order, np.cumsum(size)[:-1])):
        whole.append({int(floor[g])} if closes(lines.points[members, 1:]) else set())

    both, either = np.minimum(share, back), np.maximum(share, back)
    # those that cover each other, the best first, then the pieces
    for k in np.argsort(-np.where(both >= _COVER, 1.0 + both, either), kind="stable"):
        if both[k] < _COVER and either[k] < _UPON:
            continue
        a, b = joined[int(first[k])], joined[int(second[k])]
        if a == b or len(whole[a] & whole[b]) >= _SLICES:
            continue
        if len(whole[a]) < len(whole[b]):
            a, b = b, a
        whole[a] |= whole[b]
        joined.merge(a, b)
        whole[joined[a]] = whole[a]
    return relabel_by_size(np.array([joined[i] for i in range(len(size))])[group])


def _overlaps(lines: Lines, group, size, z) -> tuple[np.ndarray, ...]:
    """Pairs of groups one or two slices apart, and the shares of the first and the second that lie over the other."""
    keys, counts = [], []
    many = len(size)
    by_slice = {int(k): np.flatnonzero(z == k) for k in np.unique(z)}
    trees = {k: cKDTree(lines.points[index, 1:]) for k, index in by_slice.items()}
    for k, index in by_slice.items():
        for other in (k - 2, k - 1, k + 1, k + 2):
            if other not in by_slice:
                continue
            distance, near = trees[other].query(
                lines.points[index, 1:], distance_upper_bound=_REACH * (1 + abs(other - k)) / 2
            )
            found = np.isfinite(distance)
            here, there = index[found], by_slice[other][near[found]]
            alike = np.abs((lines.tangents[here] * lines.tangents[there]).sum(1)) >= _ALIKE
            key, count = np.unique(group[here[alike]] * many + group[there[alike]], return_counts=True)
            keys.append(key)
            counts.append(count)
    if not keys:
        return (np.zeros(0, int),) * 2 + (np.zeros(0),) * 2
    key, count = np.concatenate(keys), np.concatenate(counts).astype(float)
    a, b = np.divmod(key, many)
    matrix = coo_matrix((count / size[a], (a, b)), shape=(many, many)).tocsr()
    upper = coo_matrix(matrix + matrix.T)
    one_way = upper.row < upper.col
    a, b = upper.row[one_way], upper.col[one_way]
    return a, b, np.asarray(matrix[a, b]).ravel(), np.asarray(matrix[b, a]).ravel()


def propagate_labels(
    points: Float[np.ndarray, "n 3"],
    pairs: Int[np.ndarray, "m 2"],
    lines: Lines,
    membrane: Int[np.ndarray, " k"],
) -> Int[np.ndarray, " n"]:
    """The membrane of each midline point, 0 where none is near.

    Points on or beside a line take the membrane that most of the line points about them have, in their own slice and the next
    ones; the others, caps above all, that of the nearest such point along the surface.

    Arguments:
        points: on the midline, voxels.
        pairs: neighbours among them that lie on one surface.
        lines: of all slices, in the same voxels.
        membrane: of each point of `lines`.
    """
    out = np.zeros(len(points), int)
    if len(points) == 0 or len(membrane) == 0:
        return out
    distance, near = cKDTree(lines.points).query(points, k=_VOTES, distance_upper_bound=_REACH)
    votes = np.where(np.isfinite(distance), membrane[np.minimum(near, len(membrane) - 1)], 0)
    same = (votes[:, :, None] == votes[:, None, :]).sum(2) * (votes > 0)
    rows = np.arange(len(points))
    out = votes[rows, np.argmax(same, 1)]
    sources = np.flatnonzero(out > 0)
    if len(sources) == 0 or len(sources) == len(points):
        return out
    length = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1) + 1e-3
    graph = coo_matrix((length, pairs.T), shape=(len(points),) * 2).tocsr()
    far, _, origin = dijkstra(graph, directed=False, indices=sources, min_only=True, return_predecessors=True)
    reached = np.isfinite(far)
    out[reached] = out[origin[reached]]
    return out
