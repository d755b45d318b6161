"""What kind of surface a set of membrane points is: closed around a centre, or open; and which way its normals point."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial import cKDTree

from jaxmem import ellipse as ell
from jaxmem.anchors import sphere_directions
from jaxmem.numerics import bucket_size, pad_to


class Shape(NamedTuple):
    """An ellipsoid through the points and how much of it they cover.

    Attributes:
        ellipse: the fitted ellipsoid (or ellipse).
        sigma: robust standard deviation of the points about it, voxels.
        seen: share of all its directions that have a point.
        expected: the same, over directions where the membrane ought to show: inside the volume and not facing the beam.
        radial: median |cos| between the points' normals and the ellipsoid's.
    """

    ellipse: ell.Quadric
    sigma: float
    seen: float
    expected: float
    radial: float


@jax.jit
def _fit(points, mask):
    """The better of two starts: with the caps missing, elongated ellipsoids are local minima."""
    starts = jax.tree.map(lambda *a: jnp.stack(a), ell.moments(points, mask), ell.sphere_through(points, mask))

    def from_start(start):
        size = start.semi_axes.mean()
        prior = ell.near(start, 3.0 * size, 3.0 * size)  # hardly a prior: it keeps what is not seen finite
        # a residual of 2 voxels counts half
        return ell.fit(points, mask, prior=prior, loss="cauchy", noise=0.85, iterations=30)

    results = jax.vmap(from_start)(starts)
    return jax.tree.map(lambda a: a[jnp.argmin(results.cost)], results)


_distances = jax.jit(jax.vmap(ell.distance, (None, 0)))
_slopes = jax.jit(jax.vmap(jax.grad(ell.distance, 1), (None, 0)))


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


def distances(ellipse: ell.Quadric, points: np.ndarray) -> np.ndarray:
    """Signed distances of many points to an ellipse, voxels."""
    padded, mask = pad_to(np.asarray(points, np.float32), bucket_size(len(points)))
    return np.asarray(_distances(ellipse, padded))[mask]


def directions(ellipse: ell.Quadric, points: np.ndarray) -> np.ndarray:
    """Unit normals of the ellipse's level sets at many points."""
    padded, mask = pad_to(np.asarray(points, np.float32), bucket_size(len(points)))
    slope = np.asarray(_slopes(ellipse, padded))[mask]
    return slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-9)


def describe(points: np.ndarray, normals: np.ndarray, volume_shape: tuple[int, ...], beam_cut: float = 0.75) -> Shape:
    """Fit an ellipsoid and measure how much of it the points cover.

    Arguments:
        points: (n, d) membrane points, voxels; n > d.
        normals: (n, d) unit normals, any sign.
        volume_shape: of the volume, to tell what lies outside it.
        beam_cut: directions whose normal has a larger component along the beam (axis 0 of three) need not show.
    """
    d = points.shape[1]
    chosen = evenly(points, 1024)
    padded, mask = pad_to(points[chosen].astype(np.float32), 1024)
    result = _fit(padded, mask)
    ellipse = jax.tree.map(np.asarray, result.ellipse)
    directions_ = np.asarray(sphere_directions(60 if d == 2 else 400, d))
    surface = ellipse.centre + (directions_ * ellipse.semi_axes) @ np.asarray(ellipse.rotation)
    reach = 2.0 * float(result.sigma) + 2.5
    covered = np.isfinite(cKDTree(points).query(surface, distance_upper_bound=reach)[0])
    inside = ((surface >= 1) & (surface <= np.array(volume_shape) - 2)).all(1)
    facing = directions(ellipse, surface)
    visible = inside & ((np.abs(facing[:, 0]) <= beam_cut) if d == 3 else True)
    expected = covered[visible].mean() if visible.sum() >= 10 else 0.0
    agree = np.abs((directions(ellipse, points[chosen]) * normals[chosen]).sum(1))
    return Shape(ellipse, float(result.sigma), float(covered.mean()), float(expected), float(np.median(agree)))


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
