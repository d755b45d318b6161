"""The zero level set as a mesh on which every vertex has its error bar and its curvatures."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import maximum_filter
from scipy.sparse import coo_matrix, diags_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from skimage.measure import find_contours, marching_cubes

from jaxmem import gp, levelset
from jaxmem.numerics import bucket_size, map_chunks, pad_to
from jaxmem.points import first_of_each
from jaxmem.settings import FitConfig
from jaxmem.surface.fitting import Membrane

_COARSE = 4  # cells of the grid in the edge of one where f is evaluated everywhere
_CHUNK = 2048
_SUPPORT = 256  # points at which samples are drawn, at most


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
    coarse = map_chunks(lambda p: gp.means(membrane.posterior, p), coarse_nodes.reshape(-1, len(extent)), _CHUNK)
    values = _halved(coarse.reshape(counts))
    slope = np.sqrt(sum(g**2 for g in np.gradient(values, 2.0 * step)))
    # what a cell that is crossed is interpolated from reaches five cells
    near = np.abs(values) <= maximum_filter(slope, 3) * (5.0 * step + 0.5)
    values[near] = map_chunks(lambda p: gp.means(membrane.posterior, p), low + 2.0 * step * np.argwhere(near), _CHUNK)
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
        vertices, faces = triangulate(field)
        if len(faces) == 0:
            return None
        found = map_chunks(lambda p: levelset.measure(membrane.posterior, p), vertices - membrane.centre, _CHUNK)
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
        found = jax.tree.map(lambda a: a[used], found)
        bars = _uncertainty(membrane, vertices, found, field.step, config)
    smooth = _averaging(vertices, np.asarray(found.slope), config.curvature_radius)
    reach = np.array(volume_shape) - 0.5
    beyond = np.maximum(np.maximum(-0.5 - vertices, vertices - reach), 0.0).max(1)
    allowed = max(3.0, 0.05 * float(np.ptp(vertices, axis=0).max()))
    cut = bool(beyond.max() > allowed)
    good = beyond <= 0 if cut or not membrane.closed else np.ones(len(vertices), bool)
    if not membrane.closed:
        good &= bars.position <= config.max_sigma
    area_sigma, volume_sigma = _spread(vertices, faces[good[faces].all(1)], found.mean_curvature, bars, config.common)
    vertices, faces, used = _keep(vertices, faces, good)
    if len(faces) == 0:
        return None
    distance = cKDTree(membrane.points).query(vertices)[0]
    closed = is_watertight(faces)
    mean_curvature, gaussian_curvature = ((smooth @ a)[used] for a in (found.mean_curvature, found.gaussian_curvature))
    area, volume = _content(vertices, faces, mean_curvature, gaussian_curvature)
    mesh = Mesh(
        vertices,
        faces,
        (found.slope / np.maximum(np.linalg.norm(found.slope, axis=1), 1e-9)[:, None])[used],
        bars.position[used],
        distance <= max(3.0, 1.5 * field.step),
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
    )
    return mesh, field


def _areas(vertices, faces) -> np.ndarray:
    """Areas of triangles, or lengths of segments."""
    corner = vertices[faces]
    if faces.shape[1] == 2:
        return np.linalg.norm(corner[:, 1] - corner[:, 0], axis=1)
    return 0.5 * np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)


def _cones(vertices, faces) -> np.ndarray:
    """Signed volumes between faces and the vertices' mean."""
    corner = vertices[faces] - vertices.mean(0)
    return np.linalg.det(corner) / (6.0 if faces.shape[1] == 3 else 2.0)


def _content(vertices, faces, mean_curvature, gaussian_curvature) -> tuple[float, float]:
    """Area and enclosed volume (in two dimensions, length and area) of the curved surface that the flat faces stand for.

    To second order: over a triangle whose sides' squares add up to s, the surface lies H s / 24 higher on average, and its
    area is larger by a share H^2 s / 18 + K s / 72; over a segment of length c, kappa c^2 / 12 and kappa^2 c^2 / 24.
    """
    sides = vertices[faces] - vertices[np.roll(faces, 1, 1)]
    square, flat = (sides**2).sum((1, 2)), _areas(vertices, faces)
    h, k = mean_curvature[faces].mean(1), gaussian_curvature[faces].mean(1)
    if faces.shape[1] == 2:
        square = 0.5 * square  # the segment's, there and back
        height, larger = h * square / 12.0, h**2 * square / 24.0
    else:
        height, larger = h * square / 24.0, h**2 * square / 18.0 + k * square / 72.0
    # cones are positive where faces look inwards, in two dimensions outwards; higher is along the normal in both
    enclosed = _cones(vertices, faces).sum() * (1.0 if faces.shape[1] == 2 else -1.0) + (flat * height).sum()
    return float((flat * (1.0 + larger)).sum()), abs(float(enclosed))


def position_errors(membrane: Membrane, vertices: np.ndarray, step: float) -> np.ndarray:
    """Standard deviation of the surface's position along its normal at vertices `step` voxels apart, voxels."""
    chosen = _subset(vertices, step)
    weights, rows = _interpolation(vertices[chosen], vertices)
    return (weights * _deviations(membrane, vertices[chosen])[rows]).sum(1)


def _deviations(membrane: Membrane, vertices: np.ndarray) -> np.ndarray:
    with jax.enable_x64(True):
        return map_chunks(lambda p: levelset.position_sigma(membrane.posterior, p), vertices - membrane.centre, _CHUNK)


def _subset(vertices: np.ndarray, step: float) -> np.ndarray:
    """About 3,000 vertices at most, evenly spread: error bars vary over the spacing of the data, vertices are denser."""
    cell = max(2.2 * step, (len(vertices) / 3000.0) ** 0.5 * step)
    return first_of_each(np.floor(vertices / cell).astype(int))


class _Bars(NamedTuple):
    """Standard deviations at the vertices, and what drawn surfaces do at a few: displacements (n, draws), weights and rows."""

    position: np.ndarray
    mean_curvature: np.ndarray
    gaussian_curvature: np.ndarray
    displacement: np.ndarray
    weights: np.ndarray
    rows: np.ndarray


def _uncertainty(membrane: Membrane, vertices, found: levelset.Geometry, step: float, config: FitConfig) -> _Bars:
    """Error bars at a subset of the vertices, interpolated to the others."""
    chosen = _subset(vertices, step)
    size = 2 ** int(np.log2(min(_SUPPORT, len(chosen))))
    centred = vertices[chosen] - membrane.centre
    support = centred[np.asarray(gp.inducing(jnp.asarray(pad_to(centred, bucket_size(len(centred), 512))[0]), size))]
    sampled = gp.sample(jax.random.key(config.seed), membrane.posterior, support, config.draws)
    drawn = map_chunks(lambda p: tuple(a.T for a in levelset.draw(*sampled, p)), centred, _CHUNK)
    smooth = _averaging(vertices[chosen], np.asarray(found.slope)[chosen], config.curvature_radius)
    weights, rows = _interpolation(vertices[chosen], vertices)
    few = _deviations(membrane, vertices[chosen]), *((smooth @ a).std(1) for a in drawn[:2])
    position, mean, gauss = ((weights * a[rows]).sum(1) for a in few)
    return _Bars(position, mean, gauss, drawn[2], weights, rows)


def _spread(vertices, faces, mean_curvature, bars: _Bars, common: float) -> tuple[float, float]:
    """Standard deviations of the area and of the enclosed volume of some faces.

    A drawn surface moves a patch of area dA by a distance t along its normal, which changes the volume by t dA and the area
    by 2 H t dA. All patches together may besides be off by `common`.
    """
    d = faces.shape[1]
    share = np.bincount(faces.ravel(), np.repeat(_areas(vertices, faces) / d, d), len(vertices))

    def deviation(patches: np.ndarray) -> float:
        given = np.bincount(bars.rows.ravel(), (bars.weights * patches[:, None]).ravel(), len(bars.displacement))
        return float(np.hypot((given @ bars.displacement).std(), common * patches.sum()))

    return deviation((d - 1) * share * mean_curvature), deviation(share)


def _averaging(points: np.ndarray, slope: np.ndarray, radius: float):
    """A sparse matrix that averages over points within `radius` that face the same way, near ones counting more."""
    normal = slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-9)
    pairs = cKDTree(points).query_pairs(radius, output_type="ndarray") if radius > 0 else np.zeros((0, 2), int)
    i, j = np.concatenate([pairs, pairs[:, ::-1], np.repeat(np.arange(len(points))[:, None], 2, 1)]).T
    weight = np.exp(-2.0 * ((points[i] - points[j]) ** 2).sum(1) / max(radius, 1e-9) ** 2)
    weight *= (normal[i] * normal[j]).sum(1) > 0.5
    matrix = coo_matrix((weight, (i, j)), shape=(len(points),) * 2).tocsr()
    return diags_array(1.0 / np.asarray(matrix.sum(1)).ravel()) @ matrix


def _interpolation(sources: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights and indices of the few sources next to each target, nearer ones counting more."""
    near, rows = cKDTree(sources).query(targets, k=min(3, len(sources)), workers=-1)
    weights = 1.0 / (near.reshape(len(targets), -1) ** 2 + 1e-6)
    return weights / weights.sum(1, keepdims=True), rows.reshape(len(targets), -1)
