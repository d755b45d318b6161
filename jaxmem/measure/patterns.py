"""How particles lie on a surface: distances along it, neighbours, clusters."""

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix, csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

_REACH = 2.6  # of the median edge, to which vertices are joined: paths through such neighbours are 1 % too long at most
_DRAWS = 99  # random patterns on the same surface


def vertex_areas(vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"]) -> Float[np.ndarray, " n"]:
    """Area that each vertex of a mesh stands for: a third of each of its triangles."""
    corner = vertices[faces].astype(float)
    area = 0.5 * np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
    return np.bincount(faces.ravel(), np.repeat(area / 3.0, 3), len(vertices))


def graph_of(vertices: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"], edge: float) -> csr_array:
    """Neighbours on a surface and how far apart they are, for distances along it.

    Arguments:
        vertices, normals: of a mesh.
        edge: median length of its edges.
    """
    i, j = cKDTree(vertices).query_pairs(_REACH * edge, output_type="ndarray").T
    alike = (normals[i] * normals[j]).sum(1) > 0.0
    i, j = i[alike], j[alike]
    gap = np.linalg.norm(vertices[i] - vertices[j], axis=1)
    n = len(vertices)
    return csr_array(
        coo_matrix((np.concatenate([gap, gap]), (np.concatenate([i, j]), np.concatenate([j, i]))), shape=(n, n))
    )


def along_surface(graph: csr_array, where: Int[np.ndarray, " k"], most: float = np.inf) -> Float[np.ndarray, "k k"]:
    """Distances along a surface between some of its vertices; infinite beyond `most`, and between pieces.

    Arguments:
        graph: of `graph_of`.
        where: vertices.
        most: distances that matter.
    """
    return dijkstra(graph, directed=False, indices=where, limit=most)[:, where]


def ripley(distance: Float[np.ndarray, "k k"], radii: Float[np.ndarray, " r"], area: float) -> Float[np.ndarray, " r"]:
    """Ripley's K: the mean number of others within each radius of a particle, over their density.

    Arguments:
        distance: between particles, along the surface.
        radii: in the same unit.
        area: of the surface.

    Returns:
        In a plane, of particles that do not mind each other, pi r^2. On a curved surface of limited extent compare with `ripley_null`.
    """
    k = len(distance)
    if k < 2:
        return np.full(len(radii), np.nan)
    others = distance[~np.eye(k, dtype=bool)]
    return area / (k * (k - 1)) * (others[None] <= np.asarray(radii)[:, None]).sum(1)


def ripley_null(
    graph: csr_array,
    areas: Float[np.ndarray, " n"],
    count: int,
    radii: Float[np.ndarray, " r"],
    seed: int = 0,
    draws: int = _DRAWS,
) -> Float[np.ndarray, "draws r"]:
    """`ripley` of random patterns on the same surface, of as many particles: what no order looks like there.

    Arguments:
        graph: of the surface.
        areas: of its vertices; particles fall on each in proportion.
        count: particles.
        radii: see `ripley`.
        seed: of the random numbers.
        draws: patterns.
    """
    rng = np.random.default_rng(seed)
    share = areas / areas.sum()
    # distances from one pool of places serve all patterns
    pool = rng.choice(len(areas), min(max(8 * count, 64), 1024), p=share)
    distance = along_surface(graph, pool, float(np.max(radii)))
    picks = (rng.choice(len(pool), count, replace=len(pool) < 2 * count) for _ in range(draws))
    return np.stack([ripley(distance[np.ix_(p, p)], radii, float(areas.sum())) for p in picks])
