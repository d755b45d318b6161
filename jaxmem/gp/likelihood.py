"""Hyperparameters by marginal likelihood: the prior's amplitude and the scale of each group's noise, and checks of them."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmem.gp.kernels import Kernel
from jaxmem.gp.posterior import Posterior, check_rows, gram, trend_at
from jaxmem.gp.trend import Prior, as_prior
from jaxmem.numerics import cleaned, compiled, inverse_lower, jitter, square_of_lower
from jaxmem.types import Outcome, Scalar


class Learnt(NamedTuple):
    """What `learn` found.

    Attributes:
        prior: with the learnt amplitude.
        scales: (groups,) factors on the noise of each group.
        outcome: an `Outcome`; NOT_FINITE and EMPTY leave the start as it was.
        log_posterior: logarithm of marginal likelihood times prior, up to a constant; NaN if nothing could be learnt.
        error: (1 + groups,) standard deviations of the logarithms of the amplitude and of the scales.
    """

    prior: Prior
    scales: Float[Array, " groups"]
    outcome: Int[Array, ""]
    log_posterior: Float[Array, ""]
    error: Float[Array, " parameters"]

    @property
    def success(self) -> Bool[Array, ""]:
        """Whether `outcome` is OK."""
        return jnp.equal(self.outcome, Outcome.OK)


@compiled
def leave_one_out(posterior: Posterior, values: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """What the other points predict for each value: mean, and standard deviation including the value's own noise.

    Where (value - mean) / sigma is not about standard normal, the hyperparameters are wrong. Masked rows give 0 and 1.

    Source: Rasmussen & Williams 2006, equations 5.10-5.12.
    """
    mask = posterior.mask
    inverse = jax.scipy.linalg.cho_solve((posterior.cholesky, True), jnp.eye(len(values), dtype=values.dtype))
    precision = jnp.diagonal(inverse)
    expected = jnp.where(mask, values, 0.0) - posterior.weights / precision
    return jnp.where(mask, expected, 0.0), jnp.where(mask, 1.0 / jnp.sqrt(precision), 1.0)


class _Problem(NamedTuple):
    """What the objective depends on; everything in theta = logarithms of the amplitude and of the scales.

    `shape` is the kernel's part of the covariance at theta = 0, `member` 1 where a row belongs to a group, `real` 1 where it counts.
    """

    shape: Float[Array, "n n"]
    features: Float[Array, "n p"]
    residual: Float[Array, " n"]
    noise: Float[Array, " n"]
    member: Float[Array, "n groups"]
    real: Float[Array, " n"]
    log_sigma: Float[Array, " parameters"]
    lowest: Float[Array, " parameters"]
    highest: Float[Array, " parameters"]


def _judge(theta: Array, problem: _Problem) -> tuple[Array, Array, Array]:
    """Objective, its slope, and the information matrix."""
    features, y, n = problem.features, problem.residual, len(problem.residual)
    scaled = problem.member * (jnp.exp(theta[1:])[None] * problem.noise[:, None]) ** 2
    diagonal = jnp.where(problem.real > 0, scaled.sum(1), 1.0)
    factor = jnp.linalg.cholesky(jnp.exp(2 * theta[0]) * problem.shape + features @ features.T + jnp.diag(diagonal))
    inverse = square_of_lower(inverse_lower(factor))
    w = inverse @ y
    value = -0.5 * y @ w - jnp.sum(jnp.log(jnp.diagonal(factor))) - 0.5 * jnp.sum((theta / problem.log_sigma) ** 2)
    # dK/dtheta: twice the kernel's part A for the amplitude, twice the group's noise for a scale. What A = K - F F^T - N
    # leaves of traces with K^-1 A needs no product of two matrices of this size, for N is diagonal and F has few columns.
    basis = inverse @ features
    of_noise, of_basis, squares = jnp.diagonal(inverse), jnp.sum(basis**2, 1), inverse**2
    through = squares @ diagonal
    inner = features.T @ basis
    left = n - jnp.trace(inner) - of_noise @ diagonal
    pulls = jnp.concatenate([(w @ y - jnp.sum((w @ features) ** 2) - w**2 @ diagonal)[None], w**2 @ scaled])
    traces = jnp.concatenate([left[None], of_noise @ scaled])
    single = (of_noise - of_basis - through) @ scaled
    between = scaled.T @ squares @ scaled
    corner = 2.0 * left - n + jnp.sum(inner**2) + 2.0 * of_basis @ diagonal + diagonal @ through
    information = 2.0 * jnp.block([[corner[None, None], single[None, :]], [single[:, None], between]])
    slope = pulls - traces - theta / problem.log_sigma**2
    return value, slope, information + jnp.diag(1.0 / problem.log_sigma**2)


def _held(theta: Array, slope: Array, problem: _Problem) -> tuple[Array, Array]:
    """What is at its lowest and pulled below it, and what is at its highest and pulled above it."""
    return (theta <= problem.lowest) & (slope < 0), (theta >= problem.highest) & (slope > 0)


def _climb(problem: _Problem, init: Array, steps: int | Array) -> tuple[Array, Array, Array]:
    """Where the objective is largest, by Fisher scoring; its value there, and the error bars."""

    def step(_, state):
        theta, best, damping = state
        value, slope, information = best
        # what is at a bound and pulled beyond it stays there, and the others move as if it were known
        low, high = _held(theta, slope, problem)
        held = low | high
        pull = jnp.where(held, 0.0, slope)
        between = jnp.where(held[:, None] | held[None, :], 0.0, information) + jnp.diag(
            jnp.where(held, 1.0, 0.0).astype(theta.dtype)
        )
        scaling = jnp.diagonal(between)
        move = jnp.linalg.solve(between + damping * jnp.diag(scaling), pull)
        proposal = jnp.clip(theta + jnp.clip(move, -1.0, 1.0), problem.lowest, problem.highest)
        trial, moved = _judge(proposal, problem), proposal - theta
        better = trial[0] > value
        kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), (proposal, trial), (theta, best))
        # the information is an expectation: where the likelihood bends more than it says, damping has to stay
        gain = (trial[0] - value) / jnp.maximum(moved @ pull - 0.5 * moved @ between @ moved, 1e-12)
        easier = damping * jnp.clip(1.0 - (2.0 * gain - 1.0) ** 3, 1.0 / 3.0, 2.0)
        return *kept, jnp.where(better, easier, jnp.maximum(4.0 * damping, 0.25))

    # the first step goes nowhere, and finds what `_judge` says of the start
    unknown = jnp.asarray(-jnp.inf, init.dtype), jnp.zeros_like(init), jnp.eye(len(init), dtype=init.dtype)
    theta, best, _ = jax.lax.fori_loop(0, 1 + steps, step, (init, unknown, jnp.asarray(1e-3, init.dtype)))
    return theta, best[0], _errors(best[2])


def _errors(information: Array) -> Array:
    return jnp.sqrt(jnp.diagonal(jnp.linalg.inv(information)))


def _value_and_error(theta: Array, problem: _Problem) -> tuple[Array, Array]:
    value, _, information = _judge(theta, problem)
    return value, _errors(information)


@jax.custom_jvp
def _attach(theta: Array, value: Array, error: Array, problem: _Problem) -> tuple[Array, Array, Array]:
    """theta, the objective and its error bars, with the derivatives that the maximum has by the implicit function theorem."""
    return theta, value, error


@_attach.defjvp
def _attach_jvp(primals, tangents):
    theta, value, error, problem = primals
    change = tangents[3]

    def slope(theta, problem):
        return _judge(theta, problem)[1]

    here, mixed = jax.jvp(lambda problem: slope(theta, problem), (problem,), (change,))
    low, high = _held(theta, here, problem)
    held = low | high
    # what a bound holds moves with the bound
    known = jnp.where(low, change.lowest, jnp.where(high, change.highest, 0.0))
    bend = jax.jacfwd(slope)(theta, problem)
    right = jnp.where(held, known, mixed + bend @ known)
    matrix = jnp.where(held[:, None], jnp.eye(len(theta), dtype=theta.dtype), jnp.where(held[None], 0.0, -bend))
    moved = jnp.linalg.solve(matrix, right)
    _, (value_moves, error_moves) = jax.jvp(_value_and_error, (theta, problem), (moved, change))
    return (theta, value, error), (moved, value_moves, error_moves)


@compiled
def learn(
    points: Float[Array, "n d"],
    values: Float[Array, " n"],
    mask: Bool[Array, " n"] | None = None,
    *,
    noise: Scalar | Float[Array, " n"],
    group: Int[Array, " n"],
    prior: Kernel | Prior,
    floor: Float[Array, " groups"],
    ceiling: Float[Array, " groups"],
    log_sigma: Float[Array, " parameters"],
    init: Float[Array, " parameters"] | None = None,
    steps: int | Int[Array, ""] = 12,
    shared: Float[Array, "n k"] | None = None,
) -> Learnt:
    """The amplitude of the prior, and one factor for the noise of each group of values, at the largest posterior density.

    Logarithms of all of them have normal priors around zero, the kernel and noise given, so that few points end well too.
    Fisher scoring with Levenberg's damping, adapted as Nielsen (1999) does: one factorisation a step, a dozen steps, the same
    program for every membrane under vmap.

    Arguments:
        points, values, mask: as for `fit`.
        noise: start of the values' standard deviations.
        group: which scale each value's noise has: 0 for membrane points, 1 for anchors, say.
        prior: start; only its kernel's variance is learnt (R says where the kernel is valid, and the amplitude takes its part).
        floor: smallest standard deviation of a value of each group, on the average of the group.
        ceiling: largest scale of each group. Where all values of the other groups are zero, as on a surface, a function that
            is zero everywhere explains them without noise; the anchors' ceiling keeps that from being the likeliest.
        log_sigma: standard deviations of the priors of log(amplitude) and of the logarithms of the scales.
        init: log(amplitude) and logarithms of the scales at which to start, relative to `prior` and `noise`; zeros when None.
        steps: of the optimiser.
        shared: as for `fit`; not scaled.

    Returns:
        Differentiable in points, values, noise, prior, floor, ceiling and log_sigma by the implicit function theorem, as far as the
        optimiser has converged; what is at a bound moves with the bound. No gradient with respect to `init`.

    Raises:
        ValueError: if shapes disagree, there are no rows, or the numbers of groups disagree.

    Source: Rasmussen & Williams 2006, Section 5.4.1; the information matrix is 1/2 tr(K^-1 dK_i K^-1 dK_j).
    """
    noise = check_rows("gp.learn", points, values, noise)
    groups = floor.shape[0]
    if log_sigma.shape != (groups + 1,) or ceiling.shape != (groups,):
        raise ValueError(
            f"gp.learn: expected {groups} ceilings and {groups + 1} log_sigma for {groups} groups, got {ceiling.shape} and {log_sigma.shape}"
        )
    mask = jnp.ones(len(points), bool) if mask is None else mask
    kernel, trend = as_prior(prior).kernel, as_prior(prior).trend
    points, noise = cleaned(points, mask), jnp.where(mask, noise, 1.0)
    dtype = points.dtype
    real = mask.astype(dtype)
    member = ((group[:, None] == jnp.arange(groups)[None]) & mask[:, None]).astype(dtype)
    expected, features = trend_at(trend, points)
    if shared is not None:
        features = jnp.concatenate([features, cleaned(shared, mask)], 1)
    features = jnp.where(mask[:, None], features, 0.0)
    shape = jnp.where(mask[:, None] & mask[None, :], gram(kernel, points, points), 0.0)
    shape = shape + jnp.diag(jnp.where(mask, jitter(dtype) * kernel.variance, 0.0))
    residual = jnp.where(mask, jnp.where(mask, values, 0.0) - expected, 0.0)
    square = (member * noise[:, None] ** 2).sum(0) / jnp.maximum(member.sum(0), 1.0)
    typical = jnp.sqrt(jnp.where(square > 0, square, 1.0))  # of a group without rows anything will do
    free = jnp.full(1, jnp.inf, dtype)
    highest = jnp.concatenate([free, jnp.log(ceiling)])
    positive = floor > 0
    least = jnp.where(positive, jnp.log(jnp.where(positive, floor, 1.0) / typical), -jnp.inf)
    lowest = jnp.minimum(jnp.concatenate([-free, least]), highest)
    problem = _Problem(shape, features, residual, noise, member, real, log_sigma, lowest, highest)

    start = jnp.clip(jnp.zeros(groups + 1, dtype) if init is None else init, lowest, highest)
    theta, value, error = _climb(*jax.lax.stop_gradient((problem, start)), steps)
    good = jnp.isfinite(value) & mask.any()
    theta = jnp.where(good, theta, jax.lax.stop_gradient(start))
    theta, value, error = _attach(theta, value, jnp.where(good, error, log_sigma), problem)
    outcome = jnp.where(good, int(Outcome.OK), int(Outcome.NOT_FINITE))
    outcome = jnp.where(mask.any(), outcome, int(Outcome.EMPTY)).astype(jnp.int32)
    learnt = eqx.tree_at(lambda k: k.variance, kernel, kernel.variance * jnp.exp(2 * theta[0]))
    return Learnt(Prior(learnt, trend), jnp.exp(theta[1:]), outcome, jnp.where(good, value, jnp.nan), error)
