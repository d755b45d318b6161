"""One implicit function per membrane: anchors, Gaussian process, reweighting of spurious points; all membranes at once."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from jaxmem import anchors as anc
from jaxmem import gp
from jaxmem.grouping.shape import Shape
from jaxmem.numerics import bucket_size, pad_to
from jaxmem.points import evenly, first_of_each, orient, roughness
from jaxmem.settings import FitConfig

_LEARN = 512  # rows from which hyperparameters are learnt
_EXACT = 2048  # most rows of an exact fit
_STEPS = (12, 4, 4)  # of the optimiser in each round of learning
_DOUBT = 1.4  # noise may be learnt to be larger than its start by this factor
_BARS = 0.93  # error bars over those of the learnt process, so that they hold on simulated membranes (`benchmarks/calibration.py`)


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

    posterior: gp.Conditioned
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
    trend: gp.Trend
    centre: np.ndarray  # what was subtracted from voxel coordinates
    low: np.ndarray  # box in voxels
    high: np.ndarray


def _anchors_closed(points: np.ndarray, shape: Shape, config: FitConfig) -> anc.Anchors:
    return anc.by_rays(
        jnp.asarray(points[evenly(points, config.rays)]), jnp.asarray(shape.ellipse.centre), config.alpha
    )


def _anchors_open(points, normals, others: cKDTree | None, config: FitConfig) -> anc.Anchors:
    chosen = evenly(points, 460)
    offset = np.full(len(chosen), config.offset)
    if others is not None:
        offset = np.minimum(offset, 0.4 * others.query(points[chosen])[0])
    offset = np.maximum(offset, 1.0)
    one = jax.vmap(lambda p, n, o: anc.by_normals(p[None], n[None], o))
    parts = one(jnp.asarray(points[chosen]), jnp.asarray(normals[chosen]), jnp.asarray(offset))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), parts)


def _problem(points, normals, shape: Shape, closed: bool, others, config: FitConfig) -> _Problem:
    """Choose the points to condition on, add the anchors, and centre everything."""
    d = points.shape[1]
    # thinning to one point a cell would favour stray ones, which have their cells to themselves
    company = cKDTree(points).query_ball_point(points, 4.0, return_length=True, workers=-1)
    settled = company >= 0.35 * np.median(company)
    points, normals = points[settled], normals[settled]
    cells = len(first_of_each(np.floor(points / config.spacing).astype(int)))
    chosen = evenly(points, int(np.clip(cells, 8, config.most_points)))
    data = points[chosen]
    if closed:
        extra = _anchors_closed(data, shape, config)
    else:
        extra = _anchors_open(data, orient(data, normals[chosen]), others, config)
    centre = data.mean(0)
    x = np.concatenate([data, np.asarray(extra.points)]) - centre
    y = np.concatenate([np.zeros(len(data)), np.asarray(extra.values)])
    noise = max(roughness(data), config.least_noise) if len(data) > 12 else config.noise
    facing = normals[chosen, 0] ** 2 if d == 3 else np.zeros(len(data))
    facing = np.sqrt(1.0 + (config.beam**2 - 1.0) * facing)
    sigma = np.concatenate([noise * facing / np.median(facing), np.asarray(extra.sigma)])
    is_data = np.arange(len(x)) < len(data)
    if closed:
        around = np.asarray(anc.by_ellipsoid(shape.ellipse, 64, config.alpha).points) - centre
        low, high = np.minimum(x.min(0), around.min(0)) - 1.0, np.maximum(x.max(0), around.max(0)) + 1.0
    else:
        low, high = x[is_data].min(0) - config.offset, x[is_data].max(0) + config.offset
    corners = np.stack(np.meshgrid(*np.stack([low, high], 1), indexing="ij"), -1).reshape(-1, d)
    kernel = gp.Cubic if d == 3 else gp.ThinPlate
    reach = float(np.linalg.norm(x, axis=1).max())
    R = gp.valid_radius(kernel, np.concatenate([x, corners]))
    trend: gp.Trend = gp.Zero()
    if closed:
        trend = gp.Ellipsoid(shape.ellipse._replace(centre=shape.ellipse.centre - centre), jnp.asarray(config.spread))
    return _Problem(
        x, y, sigma, is_data, (0.1 * reach if closed else reach) ** 2, R, trend, centre, low + centre, high + centre
    )


def _learn(kernel_class, x, y, sigma, data, mask, variance, R, trend, least, inflation):
    """Amplitude, noise of the points and reliability of the anchors, with the points' errors as Student-t (4 degrees).

    A spurious point gets large noise instead of being removed: the decision stays soft and can be revised. Each round is a
    step of expectation maximisation: weights from the residuals, then scales from the weighted points. What neighbouring
    points have in common must not be taken for shape: the points' noise is inflated here already.
    """
    kernel, group = kernel_class(variance, R), jnp.where(data, 0, 1)
    sigma, typical = _inflated(sigma, data, mask, inflation, trend)
    lowest = jnp.maximum(inflation * least, 0.8 * typical)
    anchored = 0.0 * lowest if isinstance(trend, gp.Zero) else lowest
    spread = jnp.array([1.5, 1.0, 1.0], x.dtype)
    ceiling = jnp.array([_DOUBT, 1.0], x.dtype)

    def step(state, steps):
        relative, start = state
        # the floor is that of ordinary points: those with little weight, whose noise is large, do not count
        ordinary = jnp.sqrt(jnp.sum(jnp.where(data & mask, relative**2, 0.0)) / jnp.maximum(jnp.sum(data & mask), 1))
        floor = jnp.stack([lowest * ordinary / typical, anchored])
        bounds = {"floor": floor, "ceiling": ceiling, "spread": spread}
        learnt = gp.learn(kernel, x, y, relative, group, mask, trend, **bounds, start=start, steps=steps)
        posterior = gp.fit(learnt.kernel, x, y, relative * learnt.scales[group], mask, trend)
        pull = posterior.weights * (relative * learnt.scales[group]) ** 2
        weight = _weights(pull, learnt.scales[0] * sigma / inflation)
        theta = jnp.insert(jnp.log(learnt.scales), 0, 0.5 * jnp.log(learnt.kernel.variance / variance))
        return (jnp.where(data, sigma / jnp.sqrt(weight), sigma), theta), (relative, theta)

    start = sigma, jnp.zeros(3, x.dtype)
    _, rounds = jax.lax.scan(step, start, jnp.array(_STEPS))
    relative, theta = jax.tree.map(lambda a: a[-1], rounds)
    scales = jnp.exp(theta[1:])
    posterior = gp.fit(kernel_class(variance * jnp.exp(2 * theta[0]), R), x, y, relative * scales[group], mask, trend)
    return posterior, scales[0], scales[1]


def _inflated(sigma, data, mask, inflation, trend):
    """Noise with that of the points inflated, and the points' typical noise.

    An anchor is known no better than the point that it belongs to. One that is offset from an open membrane has only the
    point's own error: the errors that neighbours have in common must not make both sides of the membrane unknown.
    """
    own = jnp.where(data & mask, inflation * sigma, 0.0)
    typical = jnp.sqrt(jnp.sum(own**2) / jnp.maximum(jnp.sum(data & mask), 1))
    anchor = jnp.hypot(sigma, typical / inflation if isinstance(trend, gp.Zero) else typical)
    return jnp.where(data, inflation * sigma, anchor), typical


def _weights(residual, scale):
    return 5.0 / (4.0 + (residual / scale) ** 2)


def _solve(first: gp.Posterior, scale, trust, x, y, sigma, data, mask, inflation, exact: int, inducing: int):
    """The final fit, with weights from the residuals of the first; beyond `exact` rows it is a sparse one.

    A Student-t error of 4 degrees with scale s tells as much as a normal one with variance 7/5 s^2, so that is the noise.
    All standard deviations, those of the prior included, are then multiplied by `_BARS`: the mean stays, sigma shrinks.
    """
    sigma, _ = _inflated(sigma, data, mask, inflation, first.trend)
    weight = _weights(gp.means(first, x), scale * sigma / inflation)
    noise = _BARS * jnp.where(data, scale * sigma * jnp.sqrt(1.4 / weight), trust * sigma)
    kernel, trend = eqx.tree_at(lambda k: k.variance, first.kernel, _BARS**2 * first.kernel.variance), first.trend
    if isinstance(trend, gp.Ellipsoid):
        trend = eqx.tree_at(lambda t: t.spread, trend, _BARS * trend.spread)
    if len(x) <= exact:
        return gp.fit(kernel, x, y, noise, mask, trend)
    return gp.fit_sparse(kernel, x, y, noise, x[gp.inducing(x, inducing, mask)], mask, trend)


learn_batch = jax.jit(jax.vmap(_learn, (None, 0, 0, 0, 0, 0, 0, 0, 0, None, None)), static_argnums=0)
solve_batch = jax.jit(jax.vmap(_solve, (0, 0, 0, 0, 0, 0, 0, 0, None, None, None)), static_argnums=(9, 10))


def fit_membranes(
    points: list[np.ndarray], normals: list[np.ndarray], shapes: list[Shape], closed: list[bool], config: FitConfig
) -> list[Membrane | None]:
    """Fit every membrane; those whose padded sizes agree are one batched program.

    Amplitude, noise and the anchors' reliability are learnt from at most 512 rows of each; the fit then uses all. It runs in
    double precision: with few anchors and little noise its condition exceeds what single precision holds, and the mean is a
    difference of large terms.

    Arguments:
        points, normals: per membrane, (n_i, d) in voxels.
        shapes: per membrane, from `shape.describe`.
        closed: per membrane.
        config: options.

    Returns:
        One `Membrane` each, None where the factorisation failed, a point is not finite, or fewer than four are distinct.
    """
    usable = [i for i, p in enumerate(points) if np.isfinite(p).all() and len(np.unique(p, axis=0)) >= 4]
    fitted: list[Membrane | None] = [None] * len(points)
    if not usable:
        return fitted
    problems: dict[int, _Problem] = {}
    with jax.enable_x64(True):
        for i in usable:
            rest = [q for j, q in enumerate(points) if j != i and np.isfinite(q).all()]
            others = cKDTree(np.concatenate(rest)) if rest and not closed[i] else None
            shape = jax.tree.map(np.float64, shapes[i])
            problems[i] = _problem(points[i].astype(float), normals[i], shape, closed[i], others, config)
        kernel = gp.Cubic if points[usable[0]].shape[1] == 3 else gp.ThinPlate
        learnt: dict[int, tuple] = {}
        for members, arrays in _batches({i: _few(p) for i, p in problems.items()}):
            results = learn_batch(kernel, *arrays, config.least_noise, config.inflation)
            learnt |= dict(zip(members, _rows(results, len(members))))
        for members, arrays in _batches({i: p for i, p in problems.items() if bool(learnt[i][0].success)}):
            start = _stack([learnt[i] for i in members], len(arrays[0]))
            results = solve_batch(*start, *arrays[:5], config.inflation, _EXACT, config.inducing)
            for i, posterior in zip(members, _rows(results, len(members))):
                if bool(posterior.success):
                    p = problems[i]
                    noise = float(learnt[i][1] * np.median(p.sigma[p.data]))
                    fitted[i] = Membrane(posterior, p.centre, points[i], p.low, p.high, closed[i], noise)
    return fitted


def _few(problem: _Problem) -> _Problem:
    """A problem's points thinned to what hyperparameters are learnt from."""
    real = np.flatnonzero(problem.data)
    anchors = np.flatnonzero(~problem.data)
    room = _LEARN - min(len(anchors), _LEARN * 3 // 8)
    real = real[evenly(problem.x[real], room)]
    anchors = anchors[evenly(problem.x[anchors], _LEARN - room)]
    rows = np.concatenate([real, anchors])
    return problem._replace(x=problem.x[rows], y=problem.y[rows], sigma=problem.sigma[rows], data=problem.data[rows])


def _batches(problems: dict[int, _Problem]):
    """Groups of membranes of one padded size with their arrays stacked; the last group is filled up by repetition.

    Sizes above `_EXACT`, for which the program is a sparse one whose cost is linear, grow by factors of four.
    """
    sizes = {i: bucket_size(len(p.x), 256) for i, p in problems.items()}
    sizes = {i: size if size <= _EXACT else bucket_size(size, 4 * _EXACT, 4) for i, size in sizes.items()}
    kinds = {i: (size, jax.tree.structure(problems[i].trend)) for i, size in sizes.items()}
    for size, kind in sorted(set(kinds.values()), key=str):
        members = [i for i, k in kinds.items() if k == (size, kind)]
        most = _slots(size) if len(members) > 1 else 1
        for start in range(0, len(members), most):
            chunk = members[start : start + most]
            yield chunk, _stack([_padded(problems[i], size) for i in chunk], most)


def _slots(size: int) -> int:
    """How many problems of a size one program solves: one on a processor, where a batch gains nothing, as memory allows elsewhere.

    A factor of 2,048 rows takes 32 MiB.
    """
    return 1 if jax.default_backend() == "cpu" else max(1, 64 * _EXACT // size)


def _stack(rows: list, count: int):
    """Rows as one batch of `count`, the last one repeated; on the device if they are there."""

    def stack(*leaves):
        kind = jnp if isinstance(leaves[0], jax.Array) else np
        return kind.stack([*leaves, *[leaves[-1]] * (count - len(leaves))])

    return jax.tree.map(stack, *rows)


@jax.jit
def _row(batch, k):
    return jax.tree.map(lambda a: a[k], batch)


def _rows(batch, count: int) -> list:
    """The first of a batch, one by one, left on the device: factors are large."""
    return [_row(batch, k) for k in range(count)]


def _padded(problem: _Problem, size: int) -> tuple:
    x, mask = pad_to(problem.x, size)
    y, sigma, data = (pad_to(a, size)[0] for a in (problem.y, problem.sigma, problem.data))
    return x, y, sigma, data, mask, np.float64(problem.variance), np.float64(problem.R), problem.trend
