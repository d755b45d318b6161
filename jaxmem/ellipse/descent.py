"""Levenberg-Marquardt for one ellipse, written by coordinates so that a batch of fits runs at full width.

With `unroll` the normal equations are written out, too: 1.4 times as many fits a second, but three times as long to compile. Without,
they are matrices: right for the nine parameters of an ellipsoid and inside other loops.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Problem(NamedTuple):
    """What the minimum depends on, in units of the points' own size about their own middle."""

    points: Float[Array, "n d"]
    weight: Float[Array, " n"]
    mean: Float[Array, " p"]
    precision: Float[Array, "p p"]
    noise: Float[Array, ""]
    relative: Float[Array, " n"] | None = None
    """Noise of each point over `noise`; None where all have the same."""

    def over_noise(self, values: Float[Array, " n"]) -> Float[Array, " n"]:
        """What belongs to the points, less where they are noisier."""
        return values if self.relative is None else values / self.relative


# What is added for a residual of q^2 tuning constants, and its derivative with respect to q^2
LOSSES = {
    "squares": (1.0, lambda q: q, jnp.ones_like),
    "huber": (
        1.345,
        lambda q: jnp.where(q < 1, q, 2 * jnp.sqrt(jnp.maximum(q, 1.0)) - 1),
        lambda q: jax.lax.rsqrt(jnp.maximum(q, 1.0)),
    ),
    "cauchy": (2.385, jnp.log1p, lambda q: 1.0 / (1.0 + q)),
    "biweight": (4.685, lambda q: (1 - (1 - jnp.minimum(q, 1.0)) ** 3) / 3, lambda q: (1 - jnp.minimum(q, 1.0)) ** 2),
}


def _matrix(theta, d):
    entry = dict(zip([(i, j) for i in range(d) for j in range(i, d)], theta[d:]))
    return jnp.stack([jnp.stack([entry[min(i, j), max(i, j)] for j in range(d)]) for i in range(d)])


def _dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def _axes(theta, d):
    """Semi-axes, the shortest one last, and their directions."""
    if d == 3:
        values, vectors = jnp.linalg.eigh(_matrix(theta, d))
        return list(values[::-1]), [list(row) for row in vectors.T[::-1]]
    p, q, r = theta[2:]
    middle, half = 0.5 * (p + r), 0.5 * (p - r)
    spread = jnp.sqrt(half**2 + q**2)
    twice = half / jnp.maximum(spread, jnp.finfo(spread.dtype).tiny)
    c, s = jnp.sqrt(0.5 * (1.0 + twice)), jnp.where(q < 0, -1.0, 1.0) * jnp.sqrt(0.5 * jnp.maximum(1.0 - twice, 0.0))
    return [middle + spread, middle - spread], [[c, s], [-s, c]]


def _rows(theta, points, d, newton):
    """Distances of the points, and their derivatives with respect to each parameter; everything by coordinates.

    The distance of `geometry.distance`, with few steps from a start that is right to first order: of points a voxel off an ellipse, an
    axis ratio of 4 leaves 0.005 voxel RMS after two steps, one of 10 leaves 0.02.
    """
    axes, turn = _axes(theta, d)
    shortest, eps = axes[-1], jnp.finfo(points[0].dtype).eps
    x = [p - c for p, c in zip(points, theta)]
    y = [_dot(row, x) for row in turn]
    y = [jnp.where(yi < 0, yi - 4 * eps * a, yi + 4 * eps * a) for yi, a in zip(y, axes)]
    off = [(a - shortest) * (a + shortest) for a in axes]
    scaled = [yi * a for yi, a in zip(y, axes)]
    lowest = jnp.abs(scaled[-1])
    for v, o in zip(scaled[:-1], off):
        lowest = jnp.maximum(lowest, jnp.abs(v) - o)
    u = [yi * (1.0 / a) for yi, a in zip(y, axes)]
    square = _dot(u, u)
    slope = sum((v * (1.0 / a)) ** 2 for v, a in zip(u, axes))
    s = jnp.maximum(shortest**2 + (jnp.sqrt(square) - 1.0) * square / slope, lowest)
    for _ in range(newton):
        share = [1.0 / (s + o) for o in off]
        part = [(v * i) ** 2 for v, i in zip(scaled, share)]
        total = sum(part)
        s = jnp.maximum(s + (jnp.sqrt(total) - 1.0) * total / _dot(part, share), lowest)
    n = [yi / (s + o) for yi, o in zip(y, off)]
    scale = jax.lax.rsqrt(_dot(n, n))
    n = [v * scale for v in n]
    an = [a * v for a, v in zip(axes, n)]
    height = jnp.sqrt(_dot(an, an))
    distance = _dot(n, y) - height
    u = [v / height for v in an]
    n, u = ([_dot(v, column) for column in zip(*turn)] for v in (n, u))
    pairs = [(i, j) for i in range(d) for j in range(i, d)]
    jacobian = [-ni for ni in n] + [-n[i] * u[i] if i == j else -(n[i] * u[j] + n[j] * u[i]) for i, j in pairs]
    return distance, jacobian


def inverse(matrix: Float[Array, "p p"], unroll: bool) -> Float[Array, "p p"]:
    """Inverse of a small positive definite matrix."""
    unit = jnp.eye(len(matrix), dtype=matrix.dtype)
    if not unroll:
        return jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(matrix), True), unit)
    lower = _factor([list(row) for row in matrix])
    return jnp.stack([jnp.stack(_solve(lower, list(row))) for row in unit])


def _factor(matrix):
    """Cholesky factor of scalars, with the inverses of its diagonal on the diagonal."""
    lower: list[list[Any]] = [[None] * len(matrix) for _ in matrix]
    for j in range(len(matrix)):
        pivot = matrix[j][j] - sum(lower[j][m] ** 2 for m in range(j))
        lower[j][j] = jax.lax.rsqrt(jnp.maximum(pivot, jnp.finfo(pivot.dtype).tiny))
        for i in range(j + 1, len(matrix)):
            lower[i][j] = (matrix[i][j] - sum(lower[i][m] * lower[j][m] for m in range(j))) * lower[j][j]
    return lower


def _solve(lower, right):
    """Solution of the system that `_factor` has factored."""
    size = len(right)
    z: list[Any] = []
    for j in range(size):
        z.append((right[j] - sum(lower[j][m] * z[m] for m in range(j))) * lower[j][j])
    out: list[Any] = [None] * size
    for i in reversed(range(size)):
        out[i] = (z[i] - sum(lower[m][i] * out[m] for m in range(i + 1, size))) * lower[i][i]
    return out


def _clip(theta, d, least, most, low, high):
    """Parameters with the semi-axes between `least` and `most` and the centre between `low` and `high`."""
    centre = [jnp.clip(c, low[i], high[i]) for i, c in enumerate(theta[:d])]
    if d == 3:
        values, vectors = jnp.linalg.eigh(_matrix(theta, d))
        matrix = (vectors * jnp.clip(values, least, most)[None]) @ vectors.T
        return centre + [matrix[i, j] for i in range(3) for j in range(i, 3)]
    p, q, r = theta[2:]
    middle, half = 0.5 * (p + r), 0.5 * (p - r)
    spread = jnp.sqrt(half**2 + q**2 + 1e-12)
    large, small = jnp.clip(middle + spread, least, most), jnp.clip(middle - spread, least, most)
    factor, middle = 0.5 * (large - small) / spread, 0.5 * (large + small)
    return [*centre, middle + factor * half, factor * q, middle - factor * half]


def _equations(r, jacobian, weight, loss, scale, unroll):
    """Normal matrix (its lower triangle as lists, or an array), gradient and cost of residuals and their derivatives."""
    constant, rho, slope = LOSSES[loss]
    width = constant * scale
    q = (r / width) ** 2
    weighted = [weight * slope(q) * column for column in jacobian]
    cost = width**2 * jnp.sum(weight * rho(q))
    if not unroll:
        rows = jnp.stack(weighted)
        return rows @ jnp.stack(jacobian).T, rows @ r, cost
    matrix = [[jnp.sum(row * column) for column in jacobian[: i + 1]] for i, row in enumerate(weighted)]
    return matrix, [jnp.sum(row * r) for row in weighted], cost


def _descend(theta, problem, limits, loss, scale, iterations, newton, unroll):
    """Levenberg-Marquardt on reweighted normal equations; returns the parameters, the cost and the squared size of what is left."""
    points, mean, precision = list(problem.points.T), list(problem.mean), [list(row) for row in problem.precision]
    size, noise = len(theta), problem.noise

    def evaluate(theta):
        r, jacobian = _rows(theta, points, len(points), newton)
        r, jacobian = problem.over_noise(r), [problem.over_noise(column) for column in jacobian]
        matrix, gradient, cost = _equations(r, jacobian, problem.weight, loss, scale, unroll)
        if not unroll:
            off = jnp.stack(theta) - problem.mean
            pull = noise**2 * problem.precision @ off
            return matrix + noise**2 * problem.precision, gradient + pull, cost + pull @ off
        off = [t - m for t, m in zip(theta, mean)]
        pull = [noise**2 * _dot(precision[i], off) for i in range(size)]
        matrix = [[matrix[i][j] + noise**2 * precision[i][j] for j in range(i + 1)] for i in range(size)]
        return matrix, [g + p for g, p in zip(gradient, pull)], cost + _dot(pull, off)

    def newton_step(matrix, gradient, damping):
        if not unroll:
            lifted = matrix + jnp.diag(damping * jnp.diagonal(matrix) + 1e-6)
            return list(jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(lifted), True), gradient))
        lifted = [
            [m * (1.0 + damping) + 1e-6 if i == j else m for j, m in enumerate(row)] for i, row in enumerate(matrix)
        ]
        return _solve(_factor(lifted), gradient)

    def step(_, state):
        theta, damping, (matrix, gradient, cost) = state
        move = newton_step(matrix, gradient, damping)
        trial = _clip([t - m for t, m in zip(theta, move)], len(points), *limits)
        there = evaluate(trial)
        better = there[2] < cost
        theta, equations = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), (trial, there), (theta, (matrix, gradient, cost))
        )
        return theta, jnp.clip(jnp.where(better, damping * 0.2, damping * 4.0), 1e-7, 1e7), equations

    # the first step stays where it is and is taken, so that the loop's body is all there is to compile
    zero = jnp.zeros_like(theta[0])
    start: tuple
    if not unroll:
        start = (jnp.eye(size, dtype=zero.dtype), jnp.zeros(size, zero.dtype), zero + jnp.inf)
    else:
        unit = [[zero + float(i == j) for j in range(i + 1)] for i in range(size)]
        start = (unit, [zero] * size, zero + jnp.inf)
    theta, _, (matrix, gradient, cost) = jax.lax.fori_loop(0, iterations + 1, step, (theta, zero + 5e-2, start))
    return theta, cost, _dot(newton_step(matrix, gradient, 0.0), gradient)


def minimise(
    problem: Problem, start: Float[Array, " p"], limits: tuple, loss: str, iterations: int, unroll: bool
) -> tuple[Float[Array, " p"], Array, Array]:
    """The parameters with the least cost, that cost, and the squared size of the step that is left, in residuals' units."""
    theta = list(start)
    if loss in ("cauchy", "biweight"):
        # where a redescending loss sees nothing, a narrow Cauchy loss still finds the right valley; some of the points
        # are enough for that, held by a weak prior where nothing else holds them
        stride = max(len(problem.points) // 64, 1)
        free = ~problem.precision.any()
        some = problem._replace(
            points=problem.points[::stride],
            weight=problem.weight[::stride],
            relative=None if problem.relative is None else problem.relative[::stride],
            mean=jnp.where(free, start, problem.mean),
            precision=problem.precision + jnp.where(free, jnp.eye(len(theta), dtype=start.dtype), 0.0),
        )
        width = problem.noise / LOSSES["cauchy"][0]
        theta, _, _ = _descend(theta, some, limits, "cauchy", width, iterations, 2, unroll)
    theta, cost, left = _descend(theta, problem, limits, loss, problem.noise, iterations, 4, unroll)
    return jnp.stack(theta), cost, left


def _median(values, weight):
    """Median of values >= 0, by bisection: sorting takes longer than a fit."""
    half = 0.5 * weight.sum()

    def halve(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        enough = jnp.sum(jnp.where(values <= middle, weight, 0.0)) >= half
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    return jax.lax.fori_loop(0, 20, halve, (jnp.zeros_like(half), jnp.max(values * weight)))[1]


def summary(
    theta: Float[Array, " p"], problem: Problem, loss: str
) -> tuple[Float[Array, "p p"], Float[Array, " p"], Array, Array]:
    """Of the points alone, in their units: normal matrix, half the gradient, cost, and robust variance about the ellipse.

    The variance is that of the points within three deviations of the median kind. A fit through few points leaves residuals that
    are too small, by p parameters' worth, which `noise` stands in for.
    """
    p = len(theta)
    points, weight, noise = problem.points, problem.weight, problem.noise
    r, jacobian = _rows(list(theta), list(points.T), points.shape[1], 2)
    r, jacobian = problem.over_noise(r), [problem.over_noise(column) for column in jacobian]
    matrix, gradient, cost = _equations(r, jacobian, weight, loss, noise, False)
    absolute, count = jnp.abs(r), weight.sum()
    good = jnp.where(absolute <= 3.0 * 1.4826 * jax.lax.stop_gradient(_median(absolute, weight)), weight, 0.0)
    missing = jnp.minimum(p / jnp.maximum(count, 1.0), 1.0)
    # a normal distribution cut at three deviations has 2.7 % less variance
    variance = 1.027 * jnp.sum(good * r**2) / jnp.maximum(jnp.sum(good), 1.0) + missing * noise**2
    return matrix, gradient, cost, variance
