"""One membrane, or several nested ones, through many slices: warm starts outwards, then a smoother over all slices."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmem.ellipse.descent import Problem, summary
from jaxmem.ellipse.fitting import EllipseFit, Prior, conclude, isotropic_prior, solve
from jaxmem.ellipse.geometry import from_parameters, parameters
from jaxmem.ellipse.starts import moments
from jaxmem.numerics import compiled
from jaxmem.types import Outcome, Scalar

_DIRECTIONS = 32  # at so many normals nested ellipses are kept apart


@compiled(static=("loss", "iterations", "rounds"))
def fit_sequence(
    points: Float[Array, "slices n 2"],
    mask: Bool[Array, "slices n"] | None = None,
    *,
    change: Scalar = 0.02,
    noise: Scalar = 1.0,
    loss: str = "biweight",
    iterations: int = 8,
    rounds: int = 6,
) -> EllipseFit:
    """Ellipses of one membrane in many slices, each of which says what is likely in its neighbours (paper, Section 5.1, Fig. 14).

    First outwards from the slice with points all around: each slice's fit, its covariance widened by the process noise, is the prior of
    the next. Then all slices at once, by Gauss-Newton steps on the sum of all slices' costs and of the changes from slice
    to slice, |theta_i+1 - theta_i|^2 / (change size)^2; a step is a Kalman smoother (forward and backward messages).

    Arguments:
        points, mask: padded points of every slice; row order is the slices' order. Batch over membranes with `jax.vmap`.
        change: relative standard deviation of the change from one slice to the next.
        noise, loss, iterations: see `fit`.
        rounds: of the smoother; 0 leaves it out.

    Returns:
        An `EllipseFit` with a leading axis over slices. A slice without points of its own has an ellipse with an
        error bar, and the outcome EMPTY. After the smoother covariances are those for `noise` as it was given, not, as in
        `fit`, for the points' own scatter.

    Raises:
        ValueError: if the shapes do not fit.
    """
    mask = jnp.ones(points.shape[:-1], bool) if mask is None else mask
    fits = fit_nested(
        points[None], mask[None], change=change, noise=noise, loss=loss, iterations=iterations, rounds=rounds
    )
    return jax.tree.map(lambda a: a[0], fits)


@compiled(static=("loss", "iterations", "rounds"))
def fit_nested(
    points: Float[Array, "membranes slices n 2"],
    mask: Bool[Array, "membranes slices n"] | None = None,
    *,
    gap: Scalar = 2.0,
    change: Scalar = 0.02,
    noise: Scalar = 1.0,
    loss: str = "biweight",
    iterations: int = 8,
    rounds: int = 6,
) -> EllipseFit:
    """`fit_sequence` of membranes that lie within one another, innermost first, which stay `gap` voxels apart.

    Where the support functions h(n) + n . c of two neighbours come closer than `gap` along a normal n, the difference
    counts like a distance measured to a quarter of the noise.

    Arguments:
        points, mask: of the membranes, from the inside outwards.
        gap: least distance between neighbours, voxels.
        change, noise, loss, iterations, rounds: see `fit_sequence`.

    Returns:
        An `EllipseFit` with leading axes over membranes and slices.

    Raises:
        ValueError: if the shapes do not fit.
    """
    mask = jnp.ones(points.shape[:-1], bool) if mask is None else mask
    if points.ndim < 3 or points.shape[-1] != 2 or mask.shape != points.shape[:-1]:
        raise ValueError(
            f"expected points (..., slices, n, 2) and mask (..., slices, n), got {points.shape} and {mask.shape}"
        )
    alone = jax.vmap(lambda p, m: _outwards(p, m, change, noise, loss, iterations))(points, mask)
    if rounds == 0:
        return alone
    dtype = points.dtype
    gap, change, noise = (jnp.asarray(a, dtype) for a in (gap, change, noise))
    return _smooth(points, mask, alone, gap, change, noise, loss, rounds)


def _outwards(points, mask, change, noise, loss, iterations) -> EllipseFit:
    """Fits from the best slice outwards, both directions side by side."""
    slices = len(points)
    seed = jnp.argmax(jax.vmap(_support)(points, mask))
    start = moments(points[seed], mask[seed])
    vague = isotropic_prior(start, 10.0 * start.semi_axes[0], 10.0 * start.semi_axes[0]).covariance

    def advance(last, covariance, rows, first):
        size = jnp.where(first, 0.0, change * last.semi_axes.mean())
        widened = covariance + isotropic_prior(last, size, size).covariance
        result = solve(rows[0], rows[1], None, Prior(last, widened), None, loss, noise, iterations, unroll=False)
        ellipse, covariance = jax.tree.map(
            lambda new, old: jnp.where(result.success, new, old),
            (result.ellipse, result.covariance),
            (last, widened),
        )
        return result._replace(ellipse=ellipse, covariance=covariance)

    def both(carry, k):
        index = jnp.stack([seed - k, seed + k])
        there = jnp.clip(index, 0, slices - 1)
        result = jax.vmap(advance, (0, 0, 0, None))(carry[0], carry[1], (points[there], mask[there]), k == 0)
        return (result.ellipse, result.covariance), (result, jnp.where(index == there, index, slices))

    twice = jax.tree.map(lambda a: jnp.stack([a, a]), (start, vague))
    _, (fits, index) = jax.lax.scan(both, twice, jnp.arange(slices))
    # back into the slices' order; what lies beyond the first or the last slice is dropped
    flat = jax.tree.map(lambda a: a.reshape(2 * slices, *a.shape[2:]), fits)
    return jax.tree.map(lambda a: jnp.zeros_like(a[:slices]).at[index.reshape(-1)].set(a, mode="drop"), flat)


def _support(points, mask):
    """How many of 24 sectors around their middle points lie in; where that is equal, more points are better."""
    weight = mask.astype(points.dtype)
    centre = weight @ jnp.where(mask[:, None], points, 0.0) / jnp.maximum(weight.sum(), 1.0)
    offset = points - centre[None]
    sector = jnp.floor((jnp.arctan2(offset[:, 1], offset[:, 0]) / (2.0 * jnp.pi) + 0.5) * 24).astype(int)
    seen = jnp.zeros(25, points.dtype).at[jnp.where(mask, sector, 24)].max(1.0)[:24].sum()
    return seen + weight.sum() / (len(mask) + 1)


def _smooth(points, mask, start: EllipseFit, gap, change, noise, loss, rounds) -> EllipseFit:
    members, slices = mask.shape[:2]
    dtype = points.dtype
    # in units of the outermost ellipse where it has most points
    best = jnp.argmax(mask[-1].sum(-1))
    outer = jax.lax.stop_gradient(jax.tree.map(lambda a: a[-1, best], start.ellipse))
    middle, size = outer.centre, outer.semi_axes[0]
    shift = jnp.zeros(5, dtype).at[:2].set(middle)
    weight = mask.astype(dtype).swapaxes(0, 1)
    local = jnp.where(mask[..., None], (points - middle[None, None, None]) / size, 1.0).swapaxes(0, 1)
    theta = jax.vmap(jax.vmap(lambda e: (parameters(e) - shift) / size))(start.ellipse).swapaxes(0, 1)
    noise, gap = noise / size, gap / size
    # precision of the change between slices; entries off the diagonal of A have half the variance of those on it
    radius = start.ellipse.semi_axes[:, best].mean(-1) / size
    steady = (jnp.array([[1.0, 1.0, 1.0, 2.0, 1.0]], dtype) / (change * radius[:, None]) ** 2).reshape(-1)
    width = members * 5
    identity = jnp.eye(width, dtype=dtype)

    def of_one(theta, points, weight):
        return summary(theta, Problem(points, weight, theta, jnp.zeros((5, 5), dtype), noise), loss)

    def slice_equations(theta, rows, weight):
        matrix, gradient, cost, variance = jax.vmap(of_one)(theta, rows, weight)
        wall, push, price = _walls(theta, gap, 0.25 * noise)
        matrix = jax.scipy.linalg.block_diag(*matrix) / noise**2 + wall
        return matrix, gradient.reshape(-1) / noise**2 + push, jnp.sum(cost) / noise**2 + price, variance

    def evaluate(theta):
        matrix, gradient, cost, variance = jax.vmap(slice_equations)(theta, local, weight)
        moves = jnp.diff(theta.reshape(slices, width), axis=0)
        return matrix, gradient, jnp.sum(cost) + jnp.sum(steady[None] * moves**2), variance

    def step(_, state):
        theta, damping, equations = state
        matrix, gradient, cost, _ = equations
        lifted = matrix + (damping * matrix + 1e-4) * identity[None]
        target = jnp.einsum("sij,sj->si", lifted, theta.reshape(slices, width)) - gradient
        trial = jnp.where(jnp.isinf(cost), theta, _smoothed(lifted, target, steady)[0].reshape(theta.shape))
        there = evaluate(trial)
        better = there[2] < cost
        theta, equations = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), (trial, there), (theta, equations)
        )
        return theta, jnp.where(better, 0.1 * damping, 10.0 * damping + 1e-3), equations

    # the first step stays where it is and is taken, so that the loop's body is all there is to compile
    nothing = (jnp.broadcast_to(identity, (slices, width, width)), jnp.zeros((slices, width), dtype))
    unknown = (*nothing, jnp.asarray(jnp.inf, dtype), jnp.ones((slices, members), dtype))
    initial = (theta, jnp.zeros((), dtype), unknown)
    theta, _, (matrix, _, cost, variance) = jax.lax.fori_loop(0, rounds + 1, step, initial)
    _, covariance = _smoothed(matrix + 1e-6 * identity[None], jnp.zeros((slices, width), dtype), steady)
    covariance = jnp.stack([covariance[:, i : i + 5, i : i + 5] for i in range(0, width, 5)], 1)
    limits = (0.5 / size, 50.0)

    def finish(theta, count, covariance, variance):
        result = EllipseFit(from_parameters(theta), jnp.asarray(int(Outcome.OK)), jnp.sqrt(variance), covariance, cost)
        return conclude(result, theta, count, 1, limits, size, shift)

    fits = jax.vmap(jax.vmap(finish))(theta, weight.sum(-1), covariance, variance)
    return jax.tree.map(lambda a: a.swapaxes(0, 1), fits)


def _smoothed(matrix, target, steady):
    """Mean and covariance of every slice under its own (matrix, target) and a random walk from slice to slice.

    Two-filter form: messages run forwards and backwards, each the information of all slices on one side. A message through one
    step of the walk is (L^-1 + Q)^-1 = L (L + Q^-1)^-1 Q^-1, which holds for slices that say nothing, too.
    """
    walk = jnp.diag(steady)

    def carry_on(message, own):
        matrix, target = message[0] + own[0], message[1] + own[1]
        share = jnp.linalg.solve(matrix + walk, jnp.concatenate([walk, target[:, None]], 1))
        through = matrix @ share[:, :-1]
        return (0.5 * (through + through.T), steady * share[:, -1]), message

    nothing = (jnp.zeros_like(matrix[0]), jnp.zeros_like(target[0]))
    _, before = jax.lax.scan(carry_on, nothing, (matrix, target))
    _, after = jax.lax.scan(carry_on, nothing, (matrix, target), reverse=True)
    total, right = matrix + before[0] + after[0], target + before[1] + after[1]
    covariance = jnp.linalg.inv(total)
    return jnp.einsum("sij,sj->si", covariance, right), 0.5 * (covariance + covariance.swapaxes(1, 2))


def _walls(theta, gap, softness):
    """Normal equations of what keeps neighbours apart in one slice."""
    members = len(theta)
    width = members * 5
    turn = jnp.arange(_DIRECTIONS, dtype=theta.dtype) * (2.0 * jnp.pi / _DIRECTIONS)
    normals = jnp.stack([jnp.cos(turn), jnp.sin(turn)], 1)

    def reach(theta, n):
        """Support function: how far the ellipse reaches along n."""
        stretched = jnp.stack([theta[2] * n[0] + theta[3] * n[1], theta[3] * n[0] + theta[4] * n[1]])
        return jnp.sqrt(jnp.sum(stretched**2)) + theta[0] * n[0] + theta[1] * n[1]

    if members == 1:
        return jnp.zeros((width, width), theta.dtype), jnp.zeros(width, theta.dtype), jnp.zeros((), theta.dtype)

    def violations(flat):
        height = jax.vmap(lambda t: jax.vmap(lambda n: reach(t, n))(normals))(flat.reshape(members, 5))
        return jnp.minimum(height[1:] - height[:-1] - gap, 0.0).reshape(-1) / softness

    flat = theta.reshape(-1)
    r, jacobian = violations(flat), jax.jacfwd(violations)(flat)
    return jacobian.T @ jacobian, jacobian.T @ r, jnp.sum(r**2)
