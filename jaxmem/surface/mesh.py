"""The zero level set as a mesh on which every vertex has its error bar and its curvatures."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import map_coordinates
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from skimage.measure import find_contours, marching_cubes

from jaxmem import gp
from jaxmem.numerics import map_chunks
from jaxmem.surface.implicit import FitConfig, Membrane

_COARSE = 4  # fine cells in the edge of a coarse one
_CHUNK = 2048
_BLOCK = 128  # points at a time against all data: what they share stays in the cache


class Field(NamedTuple):
    """f on a regular grid: exact near the surface, interpolated from a coarser grid elsewhere.

    Attributes:
        values: samples.
        origin: (d,) voxel coordinates of the first sample.
        step: spacing in voxels.
    """

    values: Float[np.ndarray, "*grid"]
    origin: Float[np.ndarray, " d"]
    step: float


class Mesh(NamedTuple):
    """A membrane's surface in voxel coordinates.

    Attributes:
        vertices: (n, d) zyx (or yx) voxels, on the level set.
        faces: (m, 3) triangles, outward by the right hand in xyz; (m, 2) segments in two dimensions.
        normals: (n, d) outward unit normals.
        sigma: (n,) standard deviation of the surface's position along the normal, voxels.
        seen: (n,) True where membrane points lie nearby, False where the surface is inferred.
        mean_curvature, gaussian_curvature: (n,) 1/voxel and 1/voxel^2; positive mean curvature on a sphere.
        closed: the mesh has no border.
        cut: a closed membrane that leaves the volume was cut at its border.
    """

    vertices: Float[np.ndarray, "n d"]
    faces: Int[np.ndarray, "m k"]
    normals: Float[np.ndarray, "n d"]
    sigma: Float[np.ndarray, " n"]
    seen: Bool[np.ndarray, " n"]
    mean_curvature: Float[np.ndarray, " n"]
    gaussian_curvature: Float[np.ndarray, " n"]
    closed: bool
    cut: bool


@jax.jit
def _means(posterior, points):
    return jax.lax.map(lambda p: gp.mean(posterior, p), points, batch_size=_BLOCK)


@jax.jit
def _project(posterior, points):
    """Newton steps along the gradient, at most a voxel each."""

    def one(p):
        def step(_, q):
            value, slope, _ = gp.derivatives(posterior, q)
            move = value * slope / (jnp.sum(slope**2) + 1e-12)
            return q - move / jnp.maximum(1.0, jnp.linalg.norm(move))

        return jax.lax.fori_loop(0, 3, step, p)

    return jax.lax.map(one, points, batch_size=_BLOCK)


@jax.jit
def _geometry(posterior, points):
    """Slope, standard deviation and curvatures; see Goldman (2005) for the curvatures of an implicit surface."""

    def one(p):
        _, slope, bend = gp.derivatives(posterior, p)
        length = jnp.linalg.norm(slope)
        d = p.shape[0]
        mean = (length**2 * jnp.trace(bend) - slope @ bend @ slope) / ((d - 1) * length**3)
        if d == 3:
            adjugate = jnp.stack(
                [jnp.cross(bend[1], bend[2]), jnp.cross(bend[2], bend[0]), jnp.cross(bend[0], bend[1])], 1
            )
            gauss = slope @ adjugate @ slope / length**4
        else:
            gauss = jnp.zeros_like(length)
        return slope, jnp.sqrt(gp.variance(posterior, p)), mean, gauss

    return jax.lax.map(one, points, batch_size=_BLOCK)


def _nodes(low: np.ndarray, counts: np.ndarray, step: float) -> np.ndarray:
    return np.stack(np.meshgrid(*(low[a] + step * np.arange(counts[a]) for a in range(len(low))), indexing="ij"), -1)


def sample(membrane: Membrane, most: int = 80) -> Field:
    """Evaluate f on a grid over the membrane's box: coarse everywhere, fine near the zero level set.

    Arguments:
        membrane: fitted membrane.
        most: fine cells along the longest side of the box; cells are never smaller than 1.25 voxels.
    """
    extent = membrane.high - membrane.low
    step = max(1.25, float(extent.max()) / most)
    counts = np.ceil(extent / (_COARSE * step)).astype(int) + 1
    coarse_nodes = _nodes(membrane.low - membrane.centre, counts, _COARSE * step)
    coarse = map_chunks(lambda p: _means(membrane.posterior, p), coarse_nodes.reshape(-1, len(extent)), _CHUNK)
    coarse = coarse.reshape(counts)
    fine_counts = (counts - 1) * _COARSE + 1
    index = np.stack(np.meshgrid(*(np.arange(c) for c in fine_counts), indexing="ij")) / _COARSE
    values = np.asarray(map_coordinates(coarse, index, order=1, mode="nearest"))
    # |grad f| is about one near the surface: farther than this from zero, no fine cell is crossed and no label painted
    near = np.abs(values) <= 2.0 * step + 1.0
    nodes = _nodes(membrane.low - membrane.centre, fine_counts, step)[near]
    values[near] = map_chunks(lambda p: _means(membrane.posterior, p), nodes, _CHUNK)
    return Field(values, membrane.low, step)


def _triangulate(field: Field) -> tuple[np.ndarray, np.ndarray]:
    d = field.values.ndim
    if field.values.min() >= 0 or field.values.max() <= 0:
        return np.zeros((0, d)), np.zeros((0, d), int)
    if d == 3:
        vertices, faces, _, _ = marching_cubes(field.values, 0.0, gradient_direction="ascent")
        return vertices * field.step + field.origin, faces.astype(int)
    vertices, faces, total = [], [], 0
    for line in find_contours(field.values, 0.0):
        loop = np.allclose(line[0], line[-1])
        line = line[:-1] if loop else line
        index = np.arange(len(line)) + total
        following = np.roll(index, -1)
        faces.append(np.stack([index, following], 1)[: None if loop else -1])
        vertices.append(line)
        total += len(line)
    return np.concatenate(vertices) * field.step + field.origin, np.concatenate(faces)


def is_watertight(faces: Int[np.ndarray, "m k"]) -> bool:
    """True if every edge has exactly two triangles (every point two segments), and there is at least one face."""
    if len(faces) == 0:
        return False
    k = faces.shape[1]
    if k == 2:
        return bool((np.bincount(faces.ravel())[np.unique(faces)] == 2).all())
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    return bool((np.unique(edges, axis=0, return_counts=True)[1] == 2).all())


def _keep(vertices, faces, good) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Faces whose vertices are all good, with unused vertices dropped; also the kept vertices' indices."""
    faces = faces[good[faces].all(1)]
    used, compact = np.unique(faces, return_inverse=True)
    return vertices[used], compact.reshape(faces.shape), used


def _pieces(faces: np.ndarray, n: int) -> np.ndarray:
    edges = np.concatenate([faces[:, [i, (i + 1) % faces.shape[1]]] for i in range(faces.shape[1])])
    return connected_components(coo_matrix((np.ones(len(edges)), edges.T), shape=(n, n)), directed=False)[1]


def extract(membrane: Membrane, volume_shape: tuple[int, ...], config: FitConfig) -> tuple[Mesh, Field] | None:
    """Mesh the zero level set and measure it.

    Pieces of the level set that hold no membrane points are dropped (false inner surfaces); an open surface ends where
    its position is known no better than `config.max_sigma`; nothing is kept beyond the volume, except the few voxels that
    close a membrane which touches its border.

    Arguments:
        membrane: fitted membrane.
        volume_shape: of the volume, voxels.
        config: options.

    Returns:
        The mesh and the sampled function, or None if no level set is left.
    """
    with jax.enable_x64(True):
        field = sample(membrane)
        vertices, faces = _triangulate(field)
        if len(faces) == 0:
            return None
        centred = map_chunks(lambda p: _project(membrane.posterior, p), vertices - membrane.centre, _CHUNK)
        moved = centred + membrane.centre
        # a step that leaves the neighbourhood of its cell has no level set to go to; marching cubes' point stays
        astray = np.linalg.norm(moved - vertices, axis=1) > 2.0 * field.step
        vertices = np.where(astray[:, None], vertices, moved)

        near = np.unique(cKDTree(vertices).query(membrane.points)[1])
        piece = _pieces(faces, len(vertices))
        support = np.bincount(piece[near], minlength=piece.max() + 1)
        good = support[piece] >= 0.05 * support.sum()
        vertices, faces, _ = _keep(vertices, faces, good)
        if len(faces) == 0:
            return None
        slope, sigma, mean, gauss = map_chunks(
            lambda p: _geometry(membrane.posterior, p), vertices - membrane.centre, _CHUNK
        )
    length = np.linalg.norm(slope, axis=1)
    sigma = sigma / np.maximum(length, 1e-9)
    reach = np.array(volume_shape) - 0.5
    beyond = np.maximum(np.maximum(-0.5 - vertices, vertices - reach), 0.0).max(1)
    allowed = max(3.0, 0.05 * float(np.ptp(vertices, axis=0).max()))
    cut = bool(beyond.max() > allowed)
    good = beyond <= 0 if cut or not membrane.closed else np.ones(len(vertices), bool)
    if not membrane.closed:
        good &= sigma <= config.max_sigma
    vertices, faces, used = _keep(vertices, faces, good)
    if len(faces) == 0:
        return None
    distance = cKDTree(membrane.points).query(vertices)[0]
    mesh = Mesh(
        vertices,
        faces,
        slope[used] / np.maximum(length[used], 1e-9)[:, None],
        sigma[used],
        distance <= max(3.0, 1.5 * field.step),
        mean[used],
        gauss[used],
        is_watertight(faces),
        cut,
    )
    return mesh, field
