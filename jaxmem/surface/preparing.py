"""What a membrane's fit is made from: its points, their errors, and anchors."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from jaxmem import anchors as anc
from jaxmem import gp
from jaxmem.defaults import known
from jaxmem.grouping.shape import Shape
from jaxmem.membrane import AMPLITUDE, Problem
from jaxmem.points import evenly, first_of_each, orient, roughness
from jaxmem.settings import FitConfig

_NEIGHBOURHOOD = 4.0  # voxels within which a point's company is counted
_COMPANY = 0.35  # a point with less than this share of the median company is a stray one; not tuned
_OPEN_ANCHORS = 460  # points of an open membrane with anchors: 920 rows, within an exact fit; not tuned
_LENGTH = 30.0  # voxels over which errors that points share fade; chosen by trial, see docs/decisions.md
_CENTRES = 128  # of what points share, at most: a larger membrane shares it over longer distances
_OPEN_FEW = 64  # where the points' errors are known
_RAYS = 8  # that get anchors where the points' errors are known: an anchor repeats its point's error, as if it were seen twice
BETWEEN = 0.4  # anchors of an open membrane go at most this share of the way to the next membrane


class Errors(NamedTuple):
    """Standard deviations of points that are known, voxels.

    Attributes:
        sigma: (n,) of each by itself.
        shared: (n,) of what it shares with its neighbours.
    """

    sigma: Float[np.ndarray, " n"]
    shared: Float[np.ndarray, " n"]


class Prepared(NamedTuple):
    """A membrane ready to be fitted.

    Attributes:
        problem: of NumPy arrays, not padded; the mask is all True.
        centre: (d,) what was subtracted from voxel coordinates.
        low, high: (d,) box in voxels within which the surface is looked for.
    """

    problem: Problem
    centre: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _anchors_closed(points: np.ndarray, shape: Shape, rays: int, alpha: float) -> anc.Anchors:
    chosen = points[evenly(points, rays)]
    return anc.by_rays(jnp.asarray(chosen), jnp.asarray(shape.ellipse.centre), alpha=alpha)


def _anchors_open(points, normals, others: cKDTree | None, most: int, far: float) -> anc.Anchors:
    chosen = evenly(points, most)
    offset = np.full(len(chosen), far)
    if others is not None:
        offset = np.minimum(offset, BETWEEN * others.query(points[chosen])[0])
    offset = np.maximum(offset, 1.0)
    found = anc.by_normals(jnp.asarray(points[chosen]), jnp.asarray(normals[chosen]), jnp.asarray(offset))
    # a point's two anchors one after another: thinning then keeps both or none
    n = len(chosen)
    pairs = np.arange(2 * n).reshape(2, n).T.ravel()
    return jax.tree.map(lambda a: np.asarray(a)[pairs], found)


def _thinned(points: np.ndarray, normals: np.ndarray, config: FitConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some of the points, about `config.spacing` apart, their normals, and a start of their noise, voxels."""
    # thinning to one point a cell would favour stray ones, which have their cells to themselves
    company = cKDTree(points).query_ball_point(points, _NEIGHBOURHOOD, return_length=True, workers=-1)
    settled = company >= _COMPANY * np.median(company)
    points, normals = points[settled], normals[settled]
    cells = len(first_of_each(np.floor(points / config.spacing).astype(int)))
    chosen = evenly(points, int(np.clip(cells, 8, config.most_points)))
    data, normals = points[chosen], normals[chosen]
    noise = max(roughness(data), known(config.least_noise)) if len(data) > 12 else config.noise
    facing = normals[:, 0] ** 2 if points.shape[1] == 3 else np.zeros(len(data))
    facing = np.sqrt(1.0 + (config.beam**2 - 1.0) * facing)
    return data, normals, noise * facing / np.median(facing)


def _alike(points: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """(n, `_CENTRES`) errors that fade with the distance between points: covariance about exp(-d^2 / (2 `_LENGTH`^2))."""
    apart = len(first_of_each(np.floor(points / (0.7 * _LENGTH)).astype(int)))
    centres = points[evenly(points, min(apart, _CENTRES))]
    gap = cKDTree(centres).query(points, k=min(2, len(centres)))[0].reshape(len(points), -1)[:, -1]
    length = max(_LENGTH, float(np.median(gap)))
    basis = np.exp(-cdist(points, centres, "sqeuclidean") / length**2)
    basis *= (shared / np.sqrt((basis**2).sum(1)))[:, None]
    return np.pad(basis, ((0, 0), (0, _CENTRES - len(centres))))


def prepare(points, normals, errors, shape: Shape, closed: bool, others, config: FitConfig) -> Prepared:
    """Choose the points to condition on, if their errors are not known yet; add the anchors, and centre everything.

    Arguments:
        points, normals: (n, d) voxels.
        errors: of the points, if they are known; all of them are then used.
        shape: from `shape.describe`.
        closed: whether the membrane closes around a centre.
        others: points of other membranes that are near, for an open one.
        config: options.
    """
    d = points.shape[1]
    data, normals, noise = _thinned(points, normals, config) if errors is None else (points, normals, errors.sigma)
    if closed:
        extra = _anchors_closed(data, shape, config.rays if errors is None else _RAYS, config.alpha)
    else:
        extra = _anchors_open(
            data, orient(data, normals), others, _OPEN_ANCHORS if errors is None else _OPEN_FEW, config.offset
        )
    centre = data.mean(0)
    x = np.concatenate([data, np.asarray(extra.points)]) - centre
    y = np.concatenate([np.zeros(len(data)), np.asarray(extra.values)])
    sigma = np.concatenate([noise, np.asarray(extra.sigma)])
    is_data = np.arange(len(x)) < len(data)
    if closed:
        around = np.asarray(anc.by_ellipsoid(shape.ellipse, 64, alpha=config.alpha).points) - centre
        low, high = np.minimum(x.min(0), around.min(0)) - 1.0, np.maximum(x.max(0), around.max(0)) + 1.0
    else:
        low, high = x[is_data].min(0) - config.offset, x[is_data].max(0) + config.offset
    corners = np.stack(np.meshgrid(*np.stack([low, high], 1), indexing="ij"), -1).reshape(-1, d)
    reach = float(np.linalg.norm(x, axis=1).max())
    R = gp.valid_radius(gp.Cubic if d == 3 else gp.ThinPlate, np.concatenate([x, corners]))
    trend: gp.Trend = gp.Zero()
    if closed:
        ellipse = shape.ellipse._replace(centre=shape.ellipse.centre - centre)
        trend = gp.Ellipsoid(ellipse, jnp.asarray(config.shape_sigma))
    variance = (AMPLITUDE * reach if closed else reach) ** 2
    real = np.ones(len(x), bool)
    alike = np.zeros((len(x), 0)) if errors is None else np.zeros((len(x), _CENTRES))
    if errors is not None:
        alike[: len(data)] = _alike(data, errors.shared)
    problem = Problem(x, y, sigma, is_data, real, np.float64(variance), np.float64(R), trend, alike)  # type: ignore[arg-type]
    return Prepared(problem, centre, low + centre, high + centre)
