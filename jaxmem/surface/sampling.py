"""Points spread over a mesh."""

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

_DENSE = 12  # random points for each that is kept: enough that gaps are about as wide as the spacing


def sample_points(
    vertices: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "m 3"],
    normals: Float[np.ndarray, "n 3"],
    spacing: float,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "k 3"], Float[np.ndarray, "k 3"]]:
    """Random points on a mesh, none closer to another than the spacing (Bridson's dart throwing on a surface), and the normals there.

    Arguments:
        vertices: any unit.
        faces: vertex indices.
        normals: of the vertices.
        spacing: least distance, in the same unit; positive.
        seed: of the random numbers.

    Raises:
        ValueError: if the spacing is not positive.
    """
    if not spacing > 0:
        raise ValueError(f"sample_points: the spacing must be positive, got {spacing}")
    if not len(faces):
        return np.zeros((0, 3)), np.zeros((0, 3))
    rng = np.random.default_rng(seed)
    corners = vertices[faces].astype(float)
    area = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    count = max(1, int(np.ceil(_DENSE * area.sum() / spacing**2)))
    chosen = rng.choice(len(faces), count, p=area / area.sum())
    u, v = rng.random((2, count))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    weights = np.stack([1 - u - v, u, v], 1)
    places = np.einsum("kc,kcd->kd", weights, corners[chosen])
    ways = np.einsum("kc,kcd->kd", weights, normals[faces[chosen]].astype(float))
    tree, free = cKDTree(places), np.ones(count, bool)
    kept = []
    for k in range(count):
        if free[k]:
            kept.append(k)
            free[tree.query_ball_point(places[k], spacing)] = False
    ways = ways[kept]
    return places[kept], ways / np.maximum(np.linalg.norm(ways, axis=1, keepdims=True), 1e-9)
