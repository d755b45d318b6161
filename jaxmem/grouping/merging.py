"""Region merging in two and three dimensions (paper, Section 4.2, equation 1), with a spatial index.

Points first join their near neighbours where both agree on the direction of the membrane; regions then join across gaps,
nearest first, where several pairs of points could lie on one smooth curve (cocircularity), which is the predicate that the
paper leaves open. Membranes that touch or are nested stay apart because their points face each other along the normal.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree


@dataclass(frozen=True)
class MergeConfig:
    """Distances in A.

    Attributes:
        link: points closer than this (and than 2.6 voxels, whichever is more) are neighbours.
        gap: regions further apart (equation 1) are not joined.
        seed: regions of fewer points take no part in joining across gaps.
        support: pairs of points that must agree before two regions join.
        agreement: share of the near pairs between two regions that must agree; parallel membranes have few.
    """

    link: float = 36.0
    gap: float = 140.0
    seed: int = 15
    support: int = 3
    agreement: float = 0.25


def merge_regions(
    points: Float[np.ndarray, "n d"], normals: Float[np.ndarray, "n d"], voxel_size: float, config: MergeConfig
) -> Int[np.ndarray, " n"]:
    """Assign each point to a region.

    Arguments:
        points: membrane points, voxels.
        normals: unit normals, any sign.
        voxel_size: A.
        config: distances.

    Returns:
        Region of each point, 1...m by falling size.
    """
    if len(points) == 0:
        return np.zeros(0, int)
    pairs = cKDTree(points).query_pairs(max(config.link / voxel_size, 2.6), output_type="ndarray")
    pairs = pairs[_continuous(points, normals, pairs, turn=0.8, lift=0.5)]
    region = _core_components(len(points), pairs)
    region = _join_across_gaps(points, normals, region, config.gap / voxel_size, config)
    return relabel_by_size(region)


def _core_components(n: int, pairs: Int[np.ndarray, "m 2"]) -> Int[np.ndarray, " n"]:
    """Connected components through points with enough agreeing neighbours; the others follow one of theirs (Ester 1996).

    A chain of stray points between two membranes would otherwise make them one.
    """
    degree = np.bincount(pairs.ravel(), minlength=n)
    core = degree >= 0.4 * np.median(degree)
    inner = pairs[core[pairs].all(1)]
    graph = coo_matrix((np.ones(len(inner)), inner.T), shape=(n, n))
    _, region = connected_components(graph, directed=False)
    edge = pairs[core[pairs].sum(1) == 1]
    edge = np.where(core[edge[:, :1]], edge, edge[:, ::-1])  # the core point first
    region[edge[:, 1]] = region[edge[:, 0]]
    return region


def relabel_by_size(region: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Number regions 1...m from the largest to the smallest."""
    _, inverse, counts = np.unique(region, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), int)
    rank[np.argsort(-counts, kind="stable")] = np.arange(1, len(counts) + 1)
    return rank[inverse]


def _continuous(points, normals, pairs, turn: float, lift: float) -> np.ndarray:
    """True where two points with their normals can lie on one smooth surface.

    `turn` is the least |cos| between the normals; `lift` the largest share of the distance that is along either normal
    beyond what an arc of a circle through both would have.
    """
    first, second = pairs.T
    chord = points[second] - points[first]
    length = np.linalg.norm(chord, axis=1)
    chord /= np.maximum(length, 1e-6)[:, None]
    a, b = normals[first], normals[second]
    cosine = np.einsum("nd,nd->n", a, b)
    b = b * np.where(cosine < 0, -1.0, 1.0)[:, None]
    middle = a + b
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    # on a circle the chord is at right angles to the sum of the normals; within a voxel, position errors dominate
    off = np.abs(np.einsum("nd,nd->n", chord, middle))
    return (np.abs(cosine) >= turn) & (off * length <= lift * np.maximum(length - 1.0, 0.0) + 0.7)


def _join_across_gaps(points, normals, region, gap: float, config: MergeConfig) -> np.ndarray:
    counts = np.bincount(region)
    # one representative of a region in each small cell: equation (1) changes by less than a cell's size
    cells = np.c_[region, np.floor(points / 2.0).astype(int)]
    _, chosen = np.unique(cells, axis=0, return_index=True)
    chosen = chosen[counts[region[chosen]] >= config.seed]
    if len(chosen) < 2:
        return region
    pairs = cKDTree(points[chosen]).query_pairs(gap, output_type="ndarray")
    pairs = chosen[pairs]
    pairs = pairs[region[pairs[:, 0]] != region[pairs[:, 1]]]
    if len(pairs) == 0:
        return region
    agree = _continuous(points, normals, pairs, turn=0.5, lift=0.2)
    keys = np.sort(region[pairs], axis=1)
    distance = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    joined, inverse, near = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    support = np.bincount(inverse.ravel(), weights=agree, minlength=len(joined))
    nearest = np.full(len(joined), np.inf)
    np.minimum.at(nearest, inverse.ravel(), np.where(agree, distance, np.inf))
    parent = list(range(len(counts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for k in np.argsort(nearest):
        if support[k] >= max(config.support, config.agreement * near[k]):
            parent[root(int(joined[k, 0]))] = root(int(joined[k, 1]))
    return np.array([root(i) for i in range(len(parent))])[region]
