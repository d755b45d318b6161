"""One implicit function per membrane: anchors, Gaussian process, reweighting of spurious points; all membranes at once."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from jaxmem import anchors as anc
from jaxmem import ellipse as ell
from jaxmem import gp
from jaxmem.grouping.shape import Shape, evenly, orient
from jaxmem.numerics import bucket_size, pad_to


@dataclass(frozen=True)
class FitConfig:
    """How a membrane becomes a surface; lengths in voxels unless named.

    Attributes:
        alpha: exterior anchors lie alpha times as far from the centre as the membrane (paper, Section 5.2 and Fig. 22).
        rays, ellipsoid: numbers of anchor directions of either kind.
        spacing: distance between the points that the process is conditioned on, if `most_points` allows it.
        most_points: largest number of such points.
        noise: starting standard deviation of a point's position; learnt from the residuals afterwards.
        least_noise: floor of the learnt noise.
        inflation: the errors of neighbouring points agree (one network saw them, in smoothed slices), so that each point
            counts as if its noise were so many times larger; measured on simulated tomograms.
        offset: distance of the anchors from an open membrane.
        max_sigma: an open surface ends where its position is known no better than this.
        thickness: of the labels, A; 0 takes 50 A, or the thickness of the mask that was given.
    """

    alpha: float = 1.2
    rays: int = 40
    ellipsoid: int = 80
    spacing: float = 5.0
    most_points: int = 1400
    noise: float = 0.8
    least_noise: float = 0.6
    inflation: float = 3.0
    offset: float = 5.0
    max_sigma: float = 2.0
    thickness: float = 0.0


class Membrane(NamedTuple):
    """A membrane ready to be meshed.

    Attributes:
        posterior: the conditioned process in centred coordinates (voxels).
        centre: (d,) what was subtracted from voxel coordinates.
        points: (n, d) all its points, voxels.
        low, high: (d,) box in voxels within which the surface is looked for.
        closed: whether the surface closes around a centre.
        noise: learnt standard deviation of the points about the surface, voxels.
    """

    posterior: gp.Posterior
    centre: Float[np.ndarray, " d"]
    points: Float[np.ndarray, "n d"]
    low: Float[np.ndarray, " d"]
    high: Float[np.ndarray, " d"]
    closed: bool
    noise: float


class _Problem(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    sigma: np.ndarray
    data: np.ndarray  # True for membrane points, False for anchors
    variance: float
    R: float


def _anchors_closed(points: np.ndarray, shape: Shape, config: FitConfig) -> anc.Anchors:
    chosen = evenly(points, config.rays)
    rays = anc.by_rays(jnp.asarray(points[chosen]), jnp.asarray(shape.ellipse.centre), config.alpha)
    # the ellipsoid is known about as well as the points agree with it
    around = anc.by_ellipsoid(shape.ellipse, config.ellipsoid, config.alpha)
    lengths, _ = ell.semi_axes(shape.ellipse)
    middle = anc.Anchors(jnp.asarray(shape.ellipse.centre)[None], -lengths[:1], 0.3 * lengths[:1])
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), rays, around, middle)


def _anchors_open(points, normals, others: cKDTree | None, config: FitConfig) -> anc.Anchors:
    chosen = evenly(points, max(config.most_points // 3, 1))
    offset = np.full(len(chosen), config.offset)
    if others is not None:
        offset = np.minimum(offset, 0.4 * others.query(points[chosen])[0])
    offset = np.maximum(offset, 1.0)
    one = jax.vmap(lambda p, n, o: anc.by_normals(p[None], n[None], o))
    parts = one(jnp.asarray(points[chosen]), jnp.asarray(normals[chosen]), jnp.asarray(offset))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), parts)


def _problem(points, normals, shape: Shape, closed: bool, others, config: FitConfig):
    """Choose the points to condition on, add the anchors, and centre everything."""
    d = points.shape[1]
    # thinning to one point a cell would favour stray ones, which have their cells to themselves
    company = cKDTree(points).query_ball_point(points, 4.0, return_length=True, workers=-1)
    settled = company >= 0.35 * np.median(company)
    points, normals = points[settled], normals[settled]
    cells = len(np.unique(np.floor(points / config.spacing).astype(int), axis=0))
    chosen = evenly(points, int(np.clip(cells, 8, config.most_points)))
    data = points[chosen]
    if closed:
        extra = _anchors_closed(data, shape, config)
    else:
        extra = _anchors_open(data, orient(data, normals[chosen]), others, config)
    centre = data.mean(0)
    x = np.concatenate([data, np.asarray(extra.points)]) - centre
    y = np.concatenate([np.zeros(len(data)), np.asarray(extra.values)])
    sigma = np.concatenate([np.full(len(data), config.noise), np.asarray(extra.sigma)])
    is_data = np.arange(len(x)) < len(data)
    if closed:
        low, high = x.min(0) - 1.0, x.max(0) + 1.0
    else:
        low, high = x[is_data].min(0) - config.offset, x[is_data].max(0) + config.offset
    corners = np.stack(np.meshgrid(*np.stack([low, high], 1), indexing="ij"), -1).reshape(-1, d)
    kernel = gp.Cubic if d == 3 else gp.ThinPlate
    reach = float(np.linalg.norm(x, axis=1).max())
    problem = _Problem(x, y, sigma, is_data, reach**2, gp.valid_radius(kernel, np.concatenate([x, corners])))
    return problem, centre, low + centre, high + centre


def _solve(kernel_class, x, y, sigma, data, mask, variance, R, least, inflation):
    """Fit, learn the noise from the residuals with Student-t weights (4 degrees of freedom), and fit again, twice.

    Spurious points get large noise instead of being removed: the decision stays soft and can be revised.
    """
    kernel = kernel_class(variance, R)
    posterior = gp.fit(kernel, x, y, sigma, mask)
    noise, scale = sigma, sigma[0]
    for _ in range(2):
        residual = noise**2 * posterior.weights  # what the mean leaves of y at the data
        real = data & mask
        scale = jnp.maximum(1.4826 * jnp.nanmedian(jnp.where(real, jnp.abs(residual), jnp.nan)), least)
        weight = 5.0 / (4.0 + (residual / scale) ** 2)
        noise = jnp.where(data, inflation * scale / jnp.sqrt(weight), sigma)
        posterior = gp.fit(kernel, x, y, noise, mask)
    return posterior, scale


_solve_bucket = jax.jit(jax.vmap(_solve, (None, 0, 0, 0, 0, 0, 0, 0, None, None)), static_argnums=0)


def fit_membranes(
    points: list[np.ndarray], normals: list[np.ndarray], shapes: list[Shape], closed: list[bool], config: FitConfig
) -> list[Membrane | None]:
    """Fit every membrane; those whose padded sizes agree are one batched program.

    The factorisation runs in double precision: with few anchors and little noise its condition exceeds what single
    precision holds, and the mean is a difference of large terms.

    Arguments:
        points, normals: per membrane, (n_i, d) in voxels.
        shapes: per membrane, from `shape.describe`.
        closed: per membrane.
        config: options.

    Returns:
        One `Membrane` each, None where the factorisation failed or a point is not finite.
    """
    finite = [i for i, p in enumerate(points) if np.isfinite(p).all()]
    if len(finite) < len(points):
        kept = [points[i] for i in finite], [normals[i] for i in finite]
        good = fit_membranes(*kept, [shapes[i] for i in finite], [closed[i] for i in finite], config)
        by_place = dict(zip(finite, good))
        return [by_place.get(i) for i in range(len(points))]
    if not points:
        return []
    d = points[0].shape[1]
    problems = []
    with jax.enable_x64(True):
        for i, (p, n, s, c) in enumerate(zip(points, normals, shapes, closed)):
            rest = [q for j, q in enumerate(points) if j != i]
            others = cKDTree(np.concatenate(rest)) if rest and not c else None
            problems.append(_problem(p.astype(float), n, jax.tree.map(np.float64, s), c, others, config))
        sizes = [bucket_size(len(problem.x), 256) for problem, *_ in problems]
        fitted: list[Membrane | None] = [None] * len(points)
        for size in sorted(set(sizes)):
            members = [i for i, s in enumerate(sizes) if s == size]
            # batches of few membranes bound the memory: a factor of 2048 rows takes 32 MiB
            most = max(1, 4096 // size)
            for start in range(0, len(members), most):
                chunk = members[start : start + most]
                rows = chunk + [chunk[-1]] * (most - len(chunk))
                stacked = [_padded(problems[i][0], size) for i in rows]
                arrays = [np.stack(a) for a in zip(*stacked)]
                kernel = gp.Cubic if d == 3 else gp.ThinPlate
                posterior, scale = _solve_bucket(kernel, *arrays, config.least_noise, config.inflation)
                for slot, i in enumerate(chunk):
                    one = jax.tree.map(lambda a, k=slot: a[k], posterior)
                    _, centre, low, high = problems[i]
                    if bool(one.success):
                        fitted[i] = Membrane(one, centre, points[i], low, high, closed[i], float(scale[slot]))
    return fitted


def _padded(problem: _Problem, size: int) -> tuple:
    x, mask = pad_to(problem.x, size)
    y, sigma, data = (pad_to(a, size)[0] for a in (problem.y, problem.sigma, problem.data))
    return x, y, sigma, data, mask, np.float64(problem.variance), np.float64(problem.R)
