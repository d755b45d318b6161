"""Hyperparameters by marginal likelihood: the prior's amplitude and the scale of each group's noise, and checks of them."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmem.gp.kernels import Kernel
from jaxmem.gp.posterior import Posterior, gram, trend_at
from jaxmem.gp.trend import Trend, Zero
from jaxmem.numerics import compiled, inverse_lower, jitter, square_of_lower


class Learnt(NamedTuple):
    """What `learn` found.

    Attributes:
        kernel: with the learnt variance.
        scales: (groups,) factors on the noise of each group.
        log_posterior: logarithm of marginal likelihood times prior, up to a constant; NaN if nothing could be learnt.
        error: (1 + groups,) standard deviations of the logarithms of the amplitude and of the scales.
    """

    kernel: Kernel
    scales: Float[Array, " groups"]
    log_posterior: Float[Array, ""]
    error: Float[Array, " parameters"]


@compiled
def log_likelihood(posterior: Posterior, y: Float[Array, " n"]) -> Float[Array, ""]:
    """Logarithm of the marginal likelihood of the values that `fit` was given (Rasmussen & Williams 2006, equation 2.30)."""
    y = jnp.where(posterior.mask, y - trend_at(posterior.trend, posterior.x)[0], 0.0)
    log_determinant = 2.0 * jnp.sum(jnp.log(jnp.diagonal(posterior.cholesky)))
    return -0.5 * (y @ posterior.weights + log_determinant + posterior.mask.sum() * jnp.log(2.0 * jnp.pi))


@compiled
def leave_one_out(posterior: Posterior, y: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """What the other points predict for each value: mean, and standard deviation including the value's own noise.

    Where (y - mean) / sigma is not about standard normal, the hyperparameters are wrong. Masked rows give 0 and 1.

    Source: Rasmussen & Williams 2006, equations 5.10-5.12.
    """
    n = len(y)
    inverse = jax.scipy.linalg.cho_solve((posterior.cholesky, True), jnp.eye(n, dtype=y.dtype))
    precision = jnp.diagonal(inverse)
    expected = y - posterior.weights / precision
    return jnp.where(posterior.mask, expected, 0.0), jnp.where(posterior.mask, 1.0 / jnp.sqrt(precision), 1.0)


@compiled
def learn(
    kernel: Kernel,
    x: Float[Array, "n d"],
    y: Float[Array, " n"],
    noise: Float[Array, " n"],
    group: Int[Array, " n"],
    mask: Bool[Array, " n"] | None = None,
    trend: Trend | None = None,
    *,
    floor: Float[Array, " groups"],
    ceiling: Float[Array, " groups"],
    spread: Float[Array, " parameters"],
    start: Float[Array, " parameters"] | None = None,
    steps: int | Int[Array, ""] = 12,
) -> Learnt:
    """The amplitude of the prior, and one factor for the noise of each group of values, at the largest posterior density.

    Logarithms of all of them have normal priors around zero, the kernel and noise given, so that few points end well too.
    Fisher scoring with Levenberg's damping, adapted as Nielsen (1999) does: one factorisation a step, a dozen steps, the same
    program for every membrane under vmap.

    Arguments:
        kernel: start; only its variance is learnt (R says where the kernel is valid, and the amplitude takes its part).
        x, y, mask, trend: as for `fit`.
        noise: start of the values' standard deviations.
        group: which scale each value's noise has: 0 for membrane points, 1 for anchors, say.
        floor: smallest standard deviation of a value of each group, on the average of the group.
        ceiling: largest scale of each group. Where all values of the other groups are zero, as on a surface, a function that
            is zero everywhere explains them without noise; the anchors' ceiling keeps that from being the likeliest.
        spread: standard deviations of the priors of log(amplitude) and of the logarithms of the scales.
        start: log(amplitude) and logarithms of the scales at which to start, relative to `kernel` and `noise`; zeros when None.
        steps: of the optimiser.

    Raises:
        ValueError: if the numbers of groups disagree.

    Source: Rasmussen & Williams 2006, Section 5.4.1; the information matrix is 1/2 tr(K^-1 dK_i K^-1 dK_j).
    """
    groups = floor.shape[0]
    if spread.shape != (groups + 1,):
        raise ValueError(f"gp.learn: expected {groups + 1} spreads for {groups} groups, got {spread.shape}")
    n = x.shape[0]
    mask = jnp.ones(n, bool) if mask is None else mask
    member = (group[:, None] == jnp.arange(groups)) & mask[:, None]
    expected, features = trend_at(Zero() if trend is None else trend, x)
    features = jnp.where(mask[:, None], features, 0.0)
    shape = jnp.where(mask[:, None] & mask[None, :], gram(kernel, x, x), 0.0)
    shape = shape + jnp.diag(jnp.where(mask, jitter(x.dtype) * kernel.variance, 0.0))
    y = jnp.where(mask, y - expected, 0.0)
    count = jnp.maximum(member.sum(0), 1)
    typical = jnp.sqrt(jnp.sum(jnp.where(member, noise[:, None] ** 2, 0.0), 0) / count)
    free = jnp.full(1, jnp.inf, x.dtype)
    highest = jnp.concatenate([free, jnp.log(ceiling)])
    lowest = jnp.minimum(jnp.concatenate([-free, jnp.log(floor / jnp.maximum(typical, 1e-12))]), highest)

    def judge(theta):
        """Objective, its slope, and the information matrix, all in theta = log(amplitude, scales)."""
        scaled = jnp.where(member, (jnp.exp(theta[1:]) * noise[:, None]) ** 2, 0.0)
        diagonal = jnp.where(mask, scaled.sum(1), 1.0)
        factor = jnp.linalg.cholesky(jnp.exp(2 * theta[0]) * shape + features @ features.T + jnp.diag(diagonal))
        inverse = square_of_lower(inverse_lower(factor))
        w = inverse @ y
        value = -0.5 * y @ w - jnp.sum(jnp.log(jnp.diagonal(factor))) - 0.5 * jnp.sum((theta / spread) ** 2)
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
        slope = pulls - traces - theta / spread**2
        return value, slope, information + jnp.diag(1.0 / spread**2)

    def step(_, state):
        theta, best, damping = state
        value, slope, information = best
        # what is at a bound and pulled beyond it stays there, and the others move as if it were known
        held = ((theta <= lowest) & (slope < 0)) | ((theta >= highest) & (slope > 0))
        pull = jnp.where(held, 0.0, slope)
        between = jnp.where(held[:, None] | held[None, :], 0.0, information) + jnp.diag(jnp.where(held, 1.0, 0.0))
        scaling = jnp.diagonal(between)
        move = jnp.linalg.solve(between + damping * jnp.diag(scaling), pull)
        proposal = jnp.clip(theta + jnp.clip(move, -1.0, 1.0), lowest, highest)
        trial, moved = judge(proposal), proposal - theta
        better = trial[0] > value
        kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), (proposal, trial), (theta, best))
        # the information is an expectation: where the likelihood bends more than it says, damping has to stay
        gain = (trial[0] - value) / jnp.maximum(moved @ pull - 0.5 * moved @ between @ moved, 1e-12)
        easier = damping * jnp.clip(1.0 - (2.0 * gain - 1.0) ** 3, 1.0 / 3.0, 2.0)
        return *kept, jnp.where(better, easier, jnp.maximum(4.0 * damping, 0.25))

    start = jnp.clip(jnp.zeros(groups + 1, x.dtype) if start is None else start, lowest, highest)
    # the first step goes nowhere, and finds what `judge` says of the start
    unknown = jnp.asarray(-jnp.inf, x.dtype), jnp.zeros_like(start), jnp.eye(groups + 1, dtype=x.dtype)
    theta, best, _ = jax.lax.fori_loop(0, 1 + steps, step, (start, unknown, jnp.asarray(1e-3, x.dtype)))
    good = jnp.isfinite(best[0]) & mask.any()
    theta = jnp.where(good, theta, start)
    error = jnp.sqrt(jnp.diagonal(jnp.linalg.inv(jnp.where(good, best[2], jnp.eye(groups + 1, dtype=x.dtype)))))
    learnt = eqx.tree_at(lambda k: k.variance, kernel, kernel.variance * jnp.exp(2 * theta[0]))
    return Learnt(learnt, jnp.exp(theta[1:]), jnp.where(good, best[0], jnp.nan), error)
