"""Error bars of a mesh: of its position, its curvatures, its area and its volume."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import coo_matrix, diags_array
from scipy.spatial import cKDTree

from jaxmem import gp, levelset
from jaxmem.numerics import bucket_size, map_chunks, pad_to
from jaxmem.points import first_of_each
from jaxmem.settings import FitConfig
from jaxmem.surface.fitting import Membrane

CHUNK = 2048  # points evaluated by one call
SUPPORT = 256  # points at which samples are drawn, at most


def padded(vertices: np.ndarray, faces: np.ndarray) -> tuple[Any, Any]:
    """A mesh filled up with faces of no size, so that meshes of similar size share a compiled program."""
    more = bucket_size(len(faces), 1024) - len(faces)
    return pad_to(vertices, bucket_size(len(vertices), 1024))[0], np.pad(faces, ((0, more), (0, 0)))


def position_errors(membrane: Membrane, vertices: np.ndarray, step: float) -> np.ndarray:
    """Standard deviation of the surface's position along its normal at vertices `step` voxels apart, voxels."""
    chosen = _subset(vertices, step)
    weights, rows = _interpolation(vertices[chosen], vertices)
    return (weights * _deviations(membrane, vertices[chosen])[rows]).sum(1)


def _deviations(membrane: Membrane, vertices: np.ndarray) -> np.ndarray:
    with jax.enable_x64(True):
        return map_chunks(lambda p: levelset.position_sigma(membrane.posterior, p), vertices - membrane.centre, CHUNK)


def _subset(vertices: np.ndarray, step: float) -> np.ndarray:
    """About 3,000 vertices at most, evenly spread: error bars vary over the spacing of the data, vertices are denser."""
    cell = max(2.2 * step, (len(vertices) / 3000.0) ** 0.5 * step)
    return first_of_each(np.floor(vertices / cell).astype(int))


class Drawn(NamedTuple):
    """How surfaces drawn from the posterior depart from its mean at a few vertices of a mesh.

    Attributes:
        support: (s,) indices of vertices.
        displacement: (s, draws) along the normal, outwards, voxels.
        mean_curvature, gaussian_curvature: (s, draws) departures of the averaged curvatures, 1/voxel and 1/voxel^2.
    """

    support: np.ndarray
    displacement: np.ndarray
    mean_curvature: np.ndarray
    gaussian_curvature: np.ndarray


class Bars(NamedTuple):
    """Standard deviations at the vertices, and what drawn surfaces do at a few: displacements (n, draws), weights and rows; `drawn` at still fewer."""

    position: np.ndarray
    mean_curvature: np.ndarray
    gaussian_curvature: np.ndarray
    displacement: np.ndarray
    weights: np.ndarray
    rows: np.ndarray
    drawn: Drawn


def error_bars(membrane: Membrane, vertices, found: levelset.Geometry, step: float, config: FitConfig) -> Bars:
    """Error bars at a subset of the vertices, interpolated to the others."""
    chosen = _subset(vertices, step)
    size = 2 ** int(np.log2(min(SUPPORT, len(chosen))))
    centred = vertices[chosen] - membrane.centre
    spread = np.asarray(gp.inducing(jnp.asarray(pad_to(centred, bucket_size(len(centred), 512))[0]), size))
    sampled = gp.sample(jax.random.key(config.seed), membrane.posterior, centred[spread], config.draws)
    drawn = map_chunks(lambda p: tuple(a.T for a in levelset.draw(*sampled, p)), centred, CHUNK)
    smooth = averaging(vertices[chosen], np.asarray(found.slope)[chosen], config.curvature_radius)
    weights, rows = _interpolation(vertices[chosen], vertices)
    bent = [smooth @ a for a in drawn[:2]]
    exact = _deviations(membrane, vertices[chosen])
    position, mean, gauss = ((weights * a[rows]).sum(1) for a in (exact, *(a.std(1) for a in bent)))
    few = np.unique(spread)
    moved, *bends = ((a - a.mean(1, keepdims=True))[few].astype(np.float32) for a in (drawn[2], *bent))
    # the samples' own spread is that of few draws; the posterior's is known
    moved *= (exact[few] / np.maximum(moved.std(1), 1e-9))[:, None].astype(np.float32)
    return Bars(position, mean, gauss, drawn[2], weights, rows, Drawn(chosen[few], moved, *bends))


def content_sigma(vertices, faces, mean_curvature, bars: Bars, common: float) -> tuple[float, float]:
    """Standard deviations of the area and of the enclosed volume of some faces.

    A drawn surface moves a patch of area dA by a distance t along its normal, which changes the volume by t dA and the area
    by 2 H t dA. All patches together may besides be off by `common`.
    """
    d = faces.shape[1]
    share = np.bincount(faces.ravel(), np.repeat(_face_areas(vertices, faces) / d, d), len(vertices))

    def deviation(patches: np.ndarray) -> float:
        given = np.bincount(bars.rows.ravel(), (bars.weights * patches[:, None]).ravel(), len(bars.displacement))
        return float(np.hypot((given @ bars.displacement).std(), common * patches.sum()))

    return deviation((d - 1) * share * mean_curvature), deviation(share)


def _face_areas(vertices, faces) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(levelset.face_areas(*padded(vertices, faces)))[: len(faces)]


def averaging(points: np.ndarray, slope: np.ndarray, radius: float):
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
