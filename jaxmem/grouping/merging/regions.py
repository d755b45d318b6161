"""Region merging in two and three dimensions (paper, Section 4.2, equation 1), with a spatial index.

Points first join their near neighbours where both agree on the direction of the membrane; regions then join across gaps
where several pairs of points could lie on one smooth curve (cocircularity), which is the predicate that the paper leaves
open. It does not change as regions grow, so the order of joining has no influence. Membranes that touch or are nested stay
apart because their points face each other along the normal.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from jaxmem.grouping.merging.bridges import cut_bridges
from jaxmem.settings import MergeConfig

_PART = 500_000  # pairs looked at together, for the memory; without influence on the result
_BLOCK = 100_000  # points whose pairs are sought together, for the memory; without influence on the result
_NEAREST = 2.6  # voxels; neighbours may always be so far apart: the diagonal of a cube of 1.5 voxels
_CORE = 0.4  # of the median number of agreeing neighbours: points with fewer join nothing; by hand
# Least |cos| between the normals of two points of one surface, and largest share of their distance that is along a normal
# beyond an arc; by hand. Neighbours must agree better, but a voxel's error weighs more.
_SURFACE = {"turn": 0.8, "lift": 0.5}
_GAP = {"turn": 0.5, "lift": 0.2}
_ERROR = 0.7  # voxels along the normal that are within the error of positions


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
    pairs, whole = neighbours(points, normals, voxel_size, config)
    region = whole
    if points.shape[1] == 3 and config.bridge > 0:
        region = cut_bridges(points, pairs, whole, _reach(voxel_size, config), config.bridge)
    region = _join_across_gaps(points, normals, region, whole, config.gap / voxel_size, config)
    return relabel_by_size(region)


def _reach(voxel_size: float, config: MergeConfig) -> float:
    return max(config.link / voxel_size, _NEAREST)


def neighbours(
    points: Float[np.ndarray, "n d"], normals: Float[np.ndarray, "n d"], voxel_size: float, config: MergeConfig
) -> tuple[Int[np.ndarray, "m 2"], Int[np.ndarray, " n"]]:
    """Pairs of near points that can lie on one smooth surface, and the connected component of each point, from 0."""
    pairs = near_pairs(
        points, _reach(voxel_size, config), lambda pairs: _continuous(points, normals, pairs, **_SURFACE)
    )
    return pairs, _core_components(len(points), pairs)


def near_pairs(
    points: Float[np.ndarray, "n d"], reach: float, wanted: Callable[[np.ndarray], np.ndarray]
) -> Int[np.ndarray, "m 2"]:
    """Pairs of points no further apart than `reach`, of which `wanted` tells which are kept.

    They are sought block by block along axis 0: there are many times more pairs than points, and most are not kept.

    Arguments:
        points: (n, d).
        reach: largest distance.
        wanted: from pairs (k, 2) to (k,) bool.

    Returns:
        Each pair once, the lower index first; in the smallest integers that hold an index.
    """
    order = np.argsort(points[:, 0], kind="stable")
    height = points[order, 0]
    kind = np.int32 if len(points) < 2**31 else np.int64
    found = [np.zeros((0, 2), kind)]
    for start in range(0, len(points), _BLOCK):
        stop = min(start + _BLOCK, len(points))
        # what is within reach of the block's last point lies in the next ones
        end = int(np.searchsorted(height, height[stop - 1] + reach, "right"))
        some = order[start:end]
        pairs = cKDTree(points[some]).query_pairs(reach, output_type="ndarray")
        pairs = some[pairs[pairs.min(1) < stop - start]]
        found.append(np.sort(pairs[wanted(pairs)], axis=1).astype(kind))
    return np.concatenate(found)


def _core_components(n: int, pairs: Int[np.ndarray, "m 2"]) -> Int[np.ndarray, " n"]:
    """Connected components through points with enough agreeing neighbours; the others follow one of theirs (Ester 1996).

    A chain of stray points between two membranes would otherwise make them one.
    """
    if len(pairs) == 0:
        return np.arange(n)
    degree = np.bincount(pairs[:, 0], minlength=n) + np.bincount(pairs[:, 1], minlength=n)
    core = degree >= _CORE * np.median(degree)
    inner = pairs[core[pairs[:, 0]] & core[pairs[:, 1]]]
    _, region = connected_components(coo_matrix((np.ones(len(inner), np.int8), inner.T), shape=(n, n)), directed=False)
    edge = pairs[core[pairs[:, 0]] != core[pairs[:, 1]]]
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
    out = np.empty(len(pairs), bool)
    for start in range(0, len(pairs), _PART):  # in parts, so that memory does not grow with the pairs
        first, second = pairs[start : start + _PART].T
        chord = points[second] - points[first]
        length = np.sqrt(np.einsum("nd,nd->n", chord, chord))
        a, b = normals[first], normals[second]
        cosine = np.einsum("nd,nd->n", a, b)
        # on a circle the chord is at right angles to the sum of the normals; within a voxel, position errors dominate
        middle = a + b * np.where(cosine < 0, -1.0, 1.0).astype(b.dtype)[:, None]
        off = np.abs(np.einsum("nd,nd->n", chord, middle)) / np.sqrt(np.einsum("nd,nd->n", middle, middle))
        out[start : start + _PART] = (np.abs(cosine) >= turn) & (off <= lift * np.maximum(length - 1.0, 0.0) + _ERROR)
    return out


def _near_pairs(points, region, gap: float) -> np.ndarray:
    """Pairs (m, 2) of points of different regions, no further apart than `gap`."""
    cell = np.floor((points - points.min(0)) / max(gap, 4.0)).astype(int)
    shape = tuple(cell.max(0) + 1)
    key = np.ravel_multi_index(tuple(cell.T), shape)
    least, most = np.full(shape, region.max() + 1), np.full(shape, -1)
    np.minimum.at(least.reshape(-1), key, region)
    np.maximum.at(most.reshape(-1), key, region)
    # where one region is alone as far as `gap` and more, there is nothing to join
    mixed = ndimage.minimum_filter(least, 3, mode="nearest") < ndimage.maximum_filter(most, 3, mode="nearest")
    chosen = np.flatnonzero(mixed.reshape(-1)[key])
    own = region[chosen]
    return chosen[near_pairs(points[chosen], gap, lambda pairs: own[pairs[:, 0]] != own[pairs[:, 1]])]


def _join_across_gaps(points, normals, region, whole, gap: float, config: MergeConfig) -> np.ndarray:
    """Regions joined where they continue one another; `whole` is the region of each point before cuts."""
    region = region.astype(np.int64)  # pairs of regions are counted below, of which a large tomogram has more than 2^31
    counts = np.bincount(region)
    # one representative of a region in each small cell: equation (1) changes by less than a cell's size
    cell = np.floor((points - points.min(0)) / max(2.0, 0.2 * gap)).astype(int)
    key = np.ravel_multi_index((region, *cell.T), (len(counts), *(cell.max(0) + 1)))
    _, chosen = np.unique(key, return_index=True)
    chosen = chosen[counts[region[chosen]] >= config.seed]
    if len(chosen) < 2:
        return region
    pairs = chosen[_near_pairs(points[chosen], region[chosen], gap)]
    if len(pairs) == 0:
        return region
    agree = _continuous(points, normals, pairs, **_GAP)
    low, high = np.sort(region[pairs], axis=1).T
    key, inverse, near = np.unique(low * len(counts) + high, return_inverse=True, return_counts=True)
    joined = np.stack(np.divmod(key, len(counts)), -1)
    support = np.bincount(inverse, weights=agree, minlength=len(joined))
    uncut = np.empty(len(counts), int)
    uncut[region] = whole
    of_one = uncut[joined[:, 0]] == uncut[joined[:, 1]]
    needed = np.maximum(config.support, np.where(of_one, config.agreement_cut, config.agreement) * near)
    joined = joined[support >= needed]
    graph = coo_matrix((np.ones(len(joined)), joined.T), shape=(len(counts),) * 2)
    _, component = connected_components(graph, directed=False)
    return component[region]
