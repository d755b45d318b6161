"""The zero level set as a mesh on which every vertex has its error bar and its curvatures."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import maximum_filter
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from skimage.measure import find_contours, marching_cubes

from jaxmem import gp, levelset
from jaxmem.numerics import bucket_size, map_chunks, pad_to, unit_rows
from jaxmem.points import first_of_each
from jaxmem.settings import FitConfig
from jaxmem.surface.fitting import Membrane
from jaxmem.surface.tiles import Outline
from jaxmem.surface.uncertainty import CHUNK, Drawn, averaging, content_sigma, error_bars, padded, position_errors

_APART = 1.5  # voxels; edge of the cells of which an outline has one vertex each
_OUTSIDE = 8.0  # voxels beyond the volume to which an outline goes on: what is there is seen inside, smeared
_COARSE = 4  # cells of the grid in the edge of one where f is evaluated everywhere


class Field(NamedTuple):
    """f on a regular grid, interpolated: to hundredths of a voxel near the surface, roughly elsewhere.

    Attributes:
        values: samples, in single precision.
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
        mean_curvature, gaussian_curvature: (n,) 1/voxel and 1/voxel^2, averaged over `FitConfig.curvature_radius`; positive
            mean curvature on a sphere.
        mean_curvature_sigma, gaussian_curvature_sigma: (n,) their standard deviations.
        area, area_sigma: voxel^2, or length in voxels of a curve.
        volume, volume_sigma: enclosed, voxel^3 (or area in voxel^2); 0 if not closed.
        closed: the mesh has no border.
        cut: a closed membrane that leaves the volume was cut at its border.
        support: (s,) vertices at which it is known how surfaces drawn from the posterior depart from this one.
        drawn: (s, draws) by how much along the normal, outwards, voxels.
        drawn_mean, drawn_gaussian: (s, draws) by how much their curvatures do, 1/voxel and 1/voxel^2.
    """

    vertices: Float[np.ndarray, "n d"]
    faces: Int[np.ndarray, "m k"]
    normals: Float[np.ndarray, "n d"]
    sigma: Float[np.ndarray, " n"]
    seen: Bool[np.ndarray, " n"]
    mean_curvature: Float[np.ndarray, " n"]
    gaussian_curvature: Float[np.ndarray, " n"]
    mean_curvature_sigma: Float[np.ndarray, " n"]
    gaussian_curvature_sigma: Float[np.ndarray, " n"]
    area: float
    area_sigma: float
    volume: float
    volume_sigma: float
    closed: bool
    cut: bool
    support: Int[np.ndarray, " s"]
    drawn: Float[np.ndarray, "s draws"]
    drawn_mean: Float[np.ndarray, "s draws"]
    drawn_gaussian: Float[np.ndarray, "s draws"]


def _nodes(low: np.ndarray, counts: np.ndarray, step: float) -> np.ndarray:
    return np.stack(np.meshgrid(*(low[a] + step * np.arange(counts[a]) for a in range(len(low))), indexing="ij"), -1)


def sample(membrane: Membrane, most: int = 80, least: float = 1.25) -> Field:
    """Sample f on a grid over the membrane's box.

    f is evaluated at every fourth node, at every second one near the zero level set, and interpolated to the rest by cubic
    polynomials. That moves the level set by 0.006 voxels RMS at a step of 0.8, by 0.02 to 0.03 at 1.6: f has no structure
    finer than the distance of the points; `extract` then moves every vertex onto the level set of f itself. How near is near
    is judged from the slope of f, which is one only where the data say so.

    Arguments:
        membrane: fitted membrane.
        most: cells along the longest side of the box.
        least: edge of the smallest cells, voxels.
    """
    extent = membrane.high - membrane.low
    step = max(least, float(extent.max()) / most)
    counts = np.ceil(extent / (_COARSE * step)).astype(int) + 1
    low = membrane.low - membrane.centre
    coarse_nodes = _nodes(low, counts, _COARSE * step)
    coarse = map_chunks(lambda p: gp.means(membrane.posterior, p), coarse_nodes.reshape(-1, len(extent)), CHUNK)
    values = _halved(coarse.reshape(counts))
    slope = np.sqrt(sum(g**2 for g in np.gradient(values, 2.0 * step)))
    # what a cell that is crossed is interpolated from reaches five cells
    near = np.abs(values) <= maximum_filter(slope, 3) * (5.0 * step + 0.5)
    values[near] = map_chunks(lambda p: gp.means(membrane.posterior, p), low + 2.0 * step * np.argwhere(near), CHUNK)
    return Field(_halved(values.astype(np.float32)), membrane.low, step)


def _halved(values: np.ndarray) -> np.ndarray:
    """Cubic interpolation to a grid of half the spacing along every axis."""
    for axis in range(values.ndim):
        values = np.moveaxis(values, axis, 0)
        fine = np.empty((2 * len(values) - 1, *values.shape[1:]), values.dtype)
        fine[::2] = values
        ends = [2 * values[:1] - values[1:2], values, 2 * values[-1:] - values[-2:-1]]
        outer = np.concatenate(ends)
        fine[1::2] = 0.5625 * (values[:-1] + values[1:]) - 0.0625 * (outer[:-3] + outer[3:])
        values = np.moveaxis(fine, 0, axis)
    return np.ascontiguousarray(values)


def triangulate(field: Field) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (n, d) in voxels and faces (m, d) of the zero level set, by marching cubes or squares."""
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


def _level_set(membrane: Membrane) -> tuple[Field, np.ndarray, np.ndarray, levelset.Geometry] | None:
    """The zero level set, triangulated and measured: vertices on it in voxels, and only pieces that hold membrane points."""
    field = sample(membrane)
    vertices, faces = triangulate(field)
    if len(faces) == 0:
        return None
    found = map_chunks(lambda p: levelset.measure(membrane.posterior, p), vertices - membrane.centre, CHUNK)
    moved = found.points + membrane.centre
    # a step that leaves the neighbourhood of its cell has no level set to go to; marching cubes' point stays
    astray = np.linalg.norm(moved - vertices, axis=1) > field.step
    vertices = np.where(astray[:, None], vertices, moved)
    near = np.unique(cKDTree(vertices).query(membrane.points)[1])
    piece = _pieces(faces, len(vertices))
    support = np.bincount(piece[near], minlength=piece.max() + 1)
    good = support[piece] >= 0.05 * support.sum()
    vertices, faces, used = _keep(vertices, faces, good)
    if len(faces) == 0:
        return None
    return field, vertices, faces, jax.tree.map(lambda a: a[used], found)


def _kept(drawn: Drawn, used: np.ndarray) -> tuple[np.ndarray, ...]:
    """What is known of drawn surfaces at vertices that were kept, with the numbers that these have now."""
    place = np.searchsorted(used, drawn.support)
    there = used[np.minimum(place, len(used) - 1)] == drawn.support
    return place[there], *(a[there] for a in drawn[1:])


def outline(membrane: Membrane, volume_shape: tuple[int, ...], config: FitConfig) -> Outline | None:
    """A membrane's surface as points one to two voxels apart, without error bars; ends where `extract` ends it.

    Arguments:
        membrane, volume_shape, config: see `extract`.

    Returns:
        None if no level set is left.
    """
    with jax.enable_x64(True):
        known = _level_set(membrane)
        if known is None:
            return None
        _, vertices, _, found = known
        chosen = first_of_each(np.floor(vertices / _APART).astype(int))
        vertices, slope = vertices[chosen], np.asarray(found.slope)[chosen]
        good = ((vertices > -_OUTSIDE) & (vertices < np.array(volume_shape) - 1.0 + _OUTSIDE)).all(1)
        if not membrane.closed:
            good &= position_errors(membrane, vertices, 2.0) <= config.max_sigma
    if not good.any():
        return None
    return Outline(vertices[good].astype(np.float32), unit_rows(slope[good]).astype(np.float32))


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
        known = _level_set(membrane)
        if known is None:
            return None
        field, vertices, faces, found = known
        bars = error_bars(membrane, vertices, found, field.step, config)
    smooth = averaging(vertices, np.asarray(found.slope), config.curvature_radius)
    reach = np.array(volume_shape) - 0.5
    beyond = np.maximum(np.maximum(-0.5 - vertices, vertices - reach), 0.0).max(1)
    allowed = max(3.0, 0.05 * float(np.ptp(vertices, axis=0).max()))
    cut = bool(beyond.max() > allowed)
    good = beyond <= 0 if cut or not membrane.closed else np.ones(len(vertices), bool)
    if not membrane.closed:
        good &= bars.position <= config.max_sigma
    area_sigma, volume_sigma = content_sigma(
        vertices, faces[good[faces].all(1)], found.mean_curvature, bars, config.common
    )
    vertices, faces, used = _keep(vertices, faces, good)
    if len(faces) == 0:
        return None
    distance = cKDTree(membrane.points).query(vertices)[0]
    closed = is_watertight(faces)
    mean_curvature, gaussian_curvature = ((smooth @ a)[used] for a in (found.mean_curvature, found.gaussian_curvature))
    with jax.enable_x64(True):
        curved: Any = (pad_to(a, bucket_size(len(a), 1024))[0] for a in (mean_curvature, gaussian_curvature))
        area, volume = map(float, levelset.content(*padded(vertices, faces), *curved))
    mesh = Mesh(
        vertices,
        faces,
        unit_rows(np.asarray(found.slope))[used],
        bars.position[used],
        distance <= max(3.0, 1.5 * field.step, membrane.apart),
        mean_curvature,
        gaussian_curvature,
        bars.mean_curvature[used],
        bars.gaussian_curvature[used],
        area,
        area_sigma,
        volume if closed else 0.0,
        volume_sigma if closed else 0.0,
        closed,
        cut,
        *_kept(bars.drawn, used),
    )
    return mesh, field
