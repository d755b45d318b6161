"""Where two membranes touch: cuts through the few neighbours that make one region of two surfaces.

Two surfaces in contact are one connected component, though far fewer pairs of neighbours join them than would join the
halves of one surface. The cut sought is the sparsest (normalised cut, Shi & Malik 2000): the second eigenvector of the
neighbour graph's Laplacian orders the points, and the best place in that order is measured by what a border through a whole
surface would cost. What belongs together after all is joined again across the cut, by the predicate for gaps.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.csgraph import connected_components, laplacian
from scipy.sparse.linalg import ArpackError, eigsh

_CELL = 6.0  # voxels; points of a cell that hang together are one node of the graph; for the time, by hand
_CLOSE = 1.6  # voxels between neighbours in a node: across a contact they are further apart; by hand
_LEAST = 500  # points on the smaller side of a cut; a vesicle of 13 voxels' radius has about 2,800, half of them seen
_PART = 2_000_000  # pairs counted together, for the memory; without influence on the result
_FIRM = 1e-6  # keeps the Laplacian regular: small beside its eigenvalues, large beside rounding


def cut_bridges(
    points: Float[np.ndarray, "n 3"],
    pairs: Int[np.ndarray, "m 2"],
    region: Int[np.ndarray, " n"],
    reach: float,
    most: float,
) -> Int[np.ndarray, " n"]:
    """Separate surfaces that touch.

    Arguments:
        points: on membranes, voxels.
        pairs: neighbours.
        region: of each point; pairs between different regions do not count.
        reach: largest distance of neighbours, voxels.
        most: a cut is made where the pairs cut, over those that a straight border through a surface of the same density would
            cut, are fewer than this times the square root of the smaller side's area (voxels). The halves of a sphere have 2.5; those of a tube
            longer than 25 times its radius less than 0.7.

    Returns:
        Region of each point, finer than before; the numbers have no order.
    """
    if len(pairs) == 0:
        return region
    degree = 2.0 * len(pairs) / len(points)
    density = degree / (np.pi * reach**2)  # points on a square voxel of surface
    across = density**2 * 2.0 * reach**3 / 3.0  # pairs over a voxel of border
    pairs = pairs[region[pairs[:, 0]] == region[pairs[:, 1]]]
    patch, graph = _patches(points, pairs, region)
    size = np.bincount(patch)
    _, part = connected_components(graph, directed=False)
    todo = list(np.flatnonzero(np.bincount(part, weights=size) >= 2 * _LEAST))
    number = part.max(initial=-1) + 1
    while todo:
        index = np.flatnonzero(part == todo.pop())
        cut = _sparsest(graph[index][:, index], size[index])
        if cut is None or cut[1] / across >= most * np.sqrt(cut[2] / density):
            continue
        for side in (index[cut[0]], index[~cut[0]]):
            pieces, piece = connected_components(graph[side][:, side], directed=False)
            part[side] = number + piece
            weights = np.bincount(piece, weights=size[side])
            todo += list(number + np.flatnonzero(weights >= 2 * _LEAST))
            number += pieces
    return part[patch]


def _patches(points, pairs, region) -> tuple[np.ndarray, csr_matrix]:
    """Node of each point, and the number of neighbours between nodes."""
    n = len(points)
    cell = np.floor(points / _CELL).astype(int)
    shape = cell.max(0) - cell.min(0) + 1
    key = np.ravel_multi_index(tuple((cell - cell.min(0)).T), tuple(shape))
    inner = pairs[key[pairs[:, 0]] == key[pairs[:, 1]]]
    parts = [inner[k : k + _PART] for k in range(0, len(inner), _PART)]
    close = [p[((points[p[:, 0]] - points[p[:, 1]]) ** 2).sum(1) < _CLOSE**2] for p in parts]
    inner = np.concatenate([inner[:0], *close])
    _, patch = connected_components(coo_matrix((np.ones(len(inner), np.int8), inner.T), shape=(n, n)), directed=False)
    nodes = patch.max(initial=-1) + 1
    half = csr_matrix((nodes, nodes))
    for k in range(0, len(pairs), _PART):
        ends = patch[pairs[k : k + _PART]]
        ends = np.sort(ends[ends[:, 0] != ends[:, 1]], axis=1)
        half = half + coo_matrix((np.ones(len(ends)), ends.T), shape=(nodes, nodes)).tocsr()
    return patch, half + half.T


def _sparsest(graph: csr_matrix, size: np.ndarray) -> tuple[np.ndarray, float, float] | None:
    """One side of the sparsest cut in the order of the second eigenvector, the pairs cut, points on the smaller side."""
    n = len(size)
    if n < 4:
        return None
    mass = diags(size.astype(float)).tocsc()
    try:
        values, vectors = eigsh(
            laplacian(graph).tocsc() + _FIRM * mass, k=2, M=mass, sigma=0.0, v0=np.linspace(-1.0, 1.0, n)
        )
    except ArpackError:  # no convergence: left whole
        return None
    order = np.argsort(vectors[:, np.argmax(values)])
    rank = np.empty(n, int)
    rank[order] = np.arange(n)
    links = graph.tocoo()
    one_way = links.row < links.col
    a, b, weight = rank[links.row[one_way]], rank[links.col[one_way]], links.data[one_way]
    change = np.bincount(np.minimum(a, b), weight, n) - np.bincount(np.maximum(a, b), weight, n)
    pairs_cut = np.cumsum(change)[:-1]
    before = np.cumsum(size[order])[:-1]
    smaller = np.minimum(before, size.sum() - before)
    cost = np.where(smaller >= _LEAST, pairs_cut / np.sqrt(np.maximum(smaller, 1)), np.inf)
    best = int(np.argmin(cost))
    if not np.isfinite(cost[best]):
        return None
    side = np.zeros(n, bool)
    side[order[: best + 1]] = True
    return side, float(pairs_cut[best]), float(smaller[best])
