"""Helpers on point sets: thinning, orientation of normals, roughness, directions of a sphere."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial import cKDTree


def first_of_each(cells: Int[np.ndarray, "n d"]) -> Int[np.ndarray, " m"]:
    """Index of the first of the rows that are alike, one for each kind of row, the kinds in lexicographic order.

    Arguments:
        cells: (n, d), n > 0; whole numbers of a range that keeps the product of all axes within 64 bits.
    """
    cells = cells - cells.min(0)
    return np.unique(np.ravel_multi_index(tuple(cells.T), tuple(cells.max(0) + 1)), return_index=True)[1]


def evenly(points: Float[np.ndarray, "n d"], most: int) -> np.ndarray:
    """Indices of at most `most` points, one for each cell of the smallest grid that leaves so few; evenly spread."""
    if len(points) <= most:
        return np.arange(len(points))
    low, high, chosen = 1.0, float(np.ptp(points, axis=0).max()) + 1.0, np.zeros(1, int)
    for _ in range(12):
        cell = (low * high) ** 0.5
        first = first_of_each(np.floor(points / cell).astype(int))
        if len(first) > most:
            low = cell
        else:
            high, chosen = cell, first
    return np.sort(chosen)


def orient(points: Float[np.ndarray, "n d"], normals: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Give neighbouring normals the same sign, along the minimum spanning tree of the neighbour graph (Hoppe et al. 1992).

    Pieces that have no neighbours in common are joined where they come closest, so that a gap does not part the two sides.

    Arguments:
        points: voxels, finite.
        normals: unit normals, any sign.

    Returns:
        The normals, some of them reversed.
    """
    n = len(points)
    if n < 3:
        return normals
    near = cKDTree(points).query(points, k=min(9, n))[1]
    edges = np.stack([np.repeat(np.arange(n), near.shape[1] - 1), near[:, 1:].ravel()])
    while True:
        cosine = np.abs((normals[edges[0]] * normals[edges[1]]).sum(1))
        gap = np.linalg.norm(points[edges[0]] - points[edges[1]], axis=1)
        graph = coo_matrix((gap * (1.05 - cosine) + 1e-6, edges), shape=(n, n))
        pieces, piece = connected_components(graph, directed=False)
        if pieces == 1:
            break
        edges = np.concatenate([edges, _bridges(points, piece)], 1)
    order, parent = breadth_first_order(minimum_spanning_tree(graph), 0, directed=False)
    out = normals.copy()
    for i in order[1:]:
        if out[i] @ out[parent[i]] < 0:
            out[i] = -out[i]
    return out


def _bridges(points: np.ndarray, piece: np.ndarray) -> np.ndarray:
    """(2, m) indices: from each piece to the point of another that is closest to it."""
    pairs = []
    for number in range(piece.max() + 1):
        own, rest = np.flatnonzero(piece == number), np.flatnonzero(piece != number)
        gap, other = cKDTree(points[rest]).query(points[own])
        first = int(np.argmin(gap))
        pairs.append((own[first], rest[other[first]]))
    return np.array(pairs).T


def roughness(points: Float[np.ndarray, "n d"], neighbours: int = 24) -> float:
    """Standard deviation of points about the smooth surface through them, from quadrics fitted to neighbourhoods.

    The median absolute residual counts, so that a few stray points hardly matter.

    Arguments:
        points: (n, d) voxels.
        neighbours: how many each quadric is fitted to.

    Returns:
        Voxels; NaN for fewer points than twice the number of a quadric's coefficients.
    """
    n, d = points.shape
    k = min(neighbours, n - 1)
    coefficients = 3 if d == 2 else 6
    if k < 2 * coefficients:
        return float("nan")
    chosen = evenly(points, 400)
    local = points[cKDTree(points).query(points[chosen], k=k + 1)[1]]
    local = local - local.mean(1, keepdims=True)
    axes = np.linalg.eigh(np.einsum("nki,nkj->nij", local, local))[1]
    frame = np.einsum("nki,nij->nkj", local, axes)  # the normal comes first
    height, across = frame[..., 0], frame[..., 1:]
    terms = [np.ones_like(height), *np.moveaxis(across, -1, 0)]
    terms += [across[..., i] * across[..., j] for i in range(d - 1) for j in range(i, d - 1)]
    design = np.stack(terms, -1)
    fitted = np.einsum("nkc,ncm,nm->nk", design, np.linalg.pinv(design), height)
    return float(1.4826 * np.median(np.abs(height - fitted)) * ((k + 1) / (k + 1 - coefficients)) ** 0.5)


def sphere_directions(n: int, d: int) -> Float[Array, "n d"]:
    """Quasi-uniform unit vectors: equal angles in two dimensions, a Fibonacci spiral in three."""
    if d == 2:
        angle = 2 * jnp.pi * (jnp.arange(n, dtype=float) + 0.5) / n
        return jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1)
    height = 1.0 - 2.0 * (jnp.arange(n, dtype=float) + 0.5) / n
    angle = jnp.pi * (3.0 - 5.0**0.5) * jnp.arange(n, dtype=float)
    radius = jnp.sqrt(1.0 - height**2)
    return jnp.stack([height, radius * jnp.sin(angle), radius * jnp.cos(angle)], -1)


def surface_density(points: Float[np.ndarray, "n d"], radius: float = 4.0) -> float:
    """Median number of points within `radius` voxels, over the area (length) of a disc (segment) of that radius."""
    sample = points[:: max(1, len(points) // 2000)]
    count = cKDTree(points).query_ball_point(sample, radius, return_length=True)
    return float(np.median(count)) / (np.pi * radius**2 if points.shape[1] == 3 else 2.0 * radius)


class Cells:
    """Points sorted into cubes, so that those in a box are found without looking at all.

    Arguments:
        points: (n, d).
        edge: of a cube; about the size of the boxes that will be asked for.

    Example:
        >>> Cells(np.array([[1.0, 1.0], [40.0, 2.0], [3.0, 90.0]])).within(np.zeros(2), np.full(2, 50.0)).tolist()
        [0, 1]
    """

    def __init__(self, points: Float[np.ndarray, "n d"], edge: float = 24.0):
        self._points, self._edge = points, edge
        self._low = points.min(0) if len(points) else np.zeros(points.shape[1])
        cell = ((points - self._low) / edge).astype(np.int64)
        self._shape = tuple(cell.max(0, initial=0) + 1)
        key = np.ravel_multi_index(tuple(cell.T), self._shape)
        self._order = np.argsort(key, kind="stable")
        self._key = key[self._order]

    def within(self, low: np.ndarray, high: np.ndarray) -> Int[np.ndarray, " k"]:
        """Indices, ascending, of the points with low <= point <= high along every axis."""
        first = np.maximum((low - self._low) // self._edge, 0).astype(int)
        last = np.minimum((high - self._low) // self._edge, np.array(self._shape) - 1).astype(int)
        if (last < first).any():
            return np.zeros(0, int)
        rows = np.stack(np.meshgrid(*(np.arange(a, b + 1) for a, b in zip(first[:-1], last[:-1])), indexing="ij"), -1)
        rows = np.ravel_multi_index(tuple(rows.reshape(-1, rows.shape[-1]).T), self._shape[:-1]) * self._shape[-1]
        # along the last axis cubes follow one another
        starts = np.searchsorted(self._key, rows + first[-1])
        ends = np.searchsorted(self._key, rows + last[-1], "right")
        found = np.concatenate([self._order[a:b] for a, b in zip(starts, ends)])
        p = self._points[found]
        return np.sort(found[((p >= low) & (p <= high)).all(1)])
