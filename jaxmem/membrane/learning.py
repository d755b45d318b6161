"""What a membrane is conditioned on, and how its amplitude, its noise and its spurious points are learnt (paper, Section 5.2)."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmem import gp
from jaxmem.numerics import cleaned, safe_sqrt
from jaxmem.types import Scalar

LEARN_ROWS = 512  # most rows from which hyperparameters are learnt: time grows with their cube; by hand
EXACT_ROWS = 2048  # most rows of an exact fit; beyond, inducing points carry what the rows say; by hand
STEPS = (12, 4, 4)  # of the optimiser in each round of learning; by hand
AMPLITUDE = 0.1  # start of a closed membrane's deviation from its ellipsoid, over its reach; of an open one 1; by hand
_DOUBT = 1.4  # noise of points may be learnt to be larger than its start by this factor; by hand
_DEGREES = 4.0  # of freedom of the points' Student-t errors
_LOG_SIGMA = (1.5, 1.0, 1.0)  # of the priors of log amplitude, log noise and log reliability of the anchors; by hand
_HELD = 0.02  # of the prior of the log amplitude about a blend, so that it stays where it starts; by hand


class Problem(NamedTuple):
    """What a membrane's process is conditioned on.

    Attributes:
        points: (n, d) membrane points and anchors, voxels about a centre.
        values: (n,) 0 or the anchors' signed distances, voxels.
        sigma: (n,) start of the values' standard deviations, voxels.
        data: (n,) True for membrane points, False for anchors.
        mask: (n,) rows that count.
        variance: of the prior, voxels^2.
        R: of the kernel, voxels.
        trend: prior mean.
        shared: (n, k) errors that values have in common, voxels (see `gp.fit`).
    """

    points: Float[Array, "n d"]
    values: Float[Array, " n"]
    sigma: Float[Array, " n"]
    data: Bool[Array, " n"]
    mask: Bool[Array, " n"]
    variance: Float[Array, ""]
    R: Float[Array, ""]
    trend: gp.Trend
    shared: Float[Array, "n k"]

    @property
    def kernel(self) -> gp.Kernel:
        """Cubic in three dimensions, thin plate in two."""
        return (gp.Cubic if self.points.shape[1] == 3 else gp.ThinPlate)(self.variance, self.R)


class Learned(NamedTuple):
    """Hyperparameters of a membrane.

    Attributes:
        posterior: of the rows that they were learnt from.
        noise: factor on the points' noise.
        trust: factor on the anchors' noise.
        log_posterior: see `gp.Learnt`.
    """

    posterior: gp.Posterior
    noise: Float[Array, ""]
    trust: Float[Array, ""]
    log_posterior: Float[Array, ""]


def learn(problem: Problem, least_noise: Scalar, inflation: Scalar, steps: tuple[int, ...] = STEPS) -> Learned:
    """Amplitude, noise of the points and reliability of the anchors, with the points' errors as Student-t (4 degrees).

    A spurious point gets large noise instead of being removed: the decision stays soft and can be revised. Each round is a
    step of expectation maximisation: weights from the residuals, then scales from the weighted points. What neighbouring
    points have in common must not be taken for shape: the points' noise is inflated here already.

    Arguments:
        problem: at most some `LEARN_ROWS` rows, or it takes long.
        least_noise: floor of the points' noise, voxels.
        inflation: see `FitConfig`.
        steps: of the optimiser in each round.
    """
    data, mask, trend = problem.data, problem.mask, problem.trend
    dtype = problem.points.dtype
    x, y = cleaned(problem.points, mask), jnp.where(mask, problem.values, 0.0)
    kernel, group = problem.kernel, jnp.where(data, 0, 1)
    sigma, typical = _inflated(problem, inflation)
    lowest = jnp.maximum(inflation * least_noise, 0.8 * typical)
    anchored = lowest if isinstance(trend, gp.Ellipsoid) else 0.0 * lowest
    # a blend follows its points, so that these do not tell how far the surface may be from it
    first = _HELD if isinstance(trend, gp.Blend) else _LOG_SIGMA[0]
    log_sigma, ceiling = jnp.array([first, *_LOG_SIGMA[1:]], dtype), jnp.array([_DOUBT, 1.0], dtype)
    points = (data & mask).astype(dtype)

    def step(state, steps):
        relative, start = state
        # the floor is that of ordinary points: those with little weight, whose noise is large, do not count
        ordinary = root_mean_square(relative, points)
        floor = jnp.stack([lowest * ordinary / typical, anchored])
        learnt = gp.learn(
            x, y, mask, noise=relative, group=group, prior=gp.Prior(kernel, trend),
            floor=floor, ceiling=ceiling, log_sigma=log_sigma, init=start, steps=steps, shared=problem.shared,
        )  # fmt: skip
        noise = relative * learnt.scales[group]
        posterior = gp.fit(x, y, mask, noise=noise, prior=learnt.prior, shared=problem.shared)
        weight = _weights(posterior.weights * noise**2, learnt.scales[0] * sigma / inflation)
        amplitude = 0.5 * jnp.log(learnt.prior.kernel.variance / kernel.variance)
        theta = jnp.concatenate([amplitude[None], jnp.log(learnt.scales)])
        return (jnp.where(data, sigma / jnp.sqrt(weight), sigma), theta), (relative, theta, learnt.log_posterior)

    start = sigma, jnp.zeros(3, dtype)
    _, rounds = jax.lax.scan(step, start, jnp.array(steps))
    relative, theta, log_posterior = jax.tree.map(lambda a: a[-1], rounds)
    scales = jnp.exp(theta[1:])
    learnt = gp.Prior(eqx.tree_at(lambda k: k.variance, kernel, kernel.variance * jnp.exp(2 * theta[0])), trend)
    posterior = gp.fit(x, y, mask, noise=relative * scales[group], prior=learnt, shared=problem.shared)
    return Learned(posterior, scales[0], scales[1], log_posterior)


def root_mean_square(values: Array, weight: Array) -> Array:
    """Of the values, with weights."""
    square = jnp.sum(weight * values**2) / jnp.maximum(jnp.sum(weight), 1.0)
    return safe_sqrt(square)


def _inflated(problem: Problem, inflation: Scalar) -> tuple[Array, Array]:
    """Noise with that of the points inflated, and the points' typical noise.

    An anchor is known no better than the point that it belongs to. One that is offset along a normal has only the
    point's own error: the errors that neighbours have in common must not make both sides of the membrane unknown.
    """
    sigma = jnp.where(problem.mask, problem.sigma, 1.0)
    points = (problem.data & problem.mask).astype(sigma.dtype)
    typical = jnp.maximum(root_mean_square(inflation * sigma, points), 1e-6)
    shared = typical if isinstance(problem.trend, gp.Ellipsoid) else typical / inflation
    return jnp.where(problem.data, inflation * sigma, jnp.sqrt(sigma**2 + shared**2)), typical


def _weights(residual: Array, scale: Array) -> Array:
    return (_DEGREES + 1.0) / (_DEGREES + (residual / scale) ** 2)


def solve(
    learned: Learned,
    problem: Problem,
    inflation: Scalar,
    bars: Scalar,
    inducing: int,
    exact: int = EXACT_ROWS,
    fast: bool = True,
) -> gp.Conditioned:
    """The final fit, with weights from the residuals of the first; beyond `exact` rows it is a sparse one.

    A Student-t error of 4 degrees with scale s tells as much as a normal one with variance 7/5 s^2, so that is the noise.
    All standard deviations, those of the prior included, are then multiplied by `bars`: the mean stays, sigma shrinks.

    Arguments:
        learned: from `learn`, on these rows or some of them.
        problem: all rows.
        inflation, bars, inducing: see `FitConfig`.
        exact: most rows of an exact fit; static.
        fast: residuals by `gp.means`, in single precision; otherwise in that of the rows. Static.
    """
    first, mask = learned.posterior, problem.mask
    x, y = cleaned(problem.points, mask), jnp.where(mask, problem.values, 0.0)
    sigma, _ = _inflated(problem, inflation)
    residual = gp.means(first, x) if fast else gp.map_points(gp.mean, first, x)
    weight = _weights(residual, learned.noise * sigma / inflation)
    variance = (_DEGREES + 3.0) / (_DEGREES + 1.0)
    noise = bars * jnp.where(problem.data, learned.noise * sigma * jnp.sqrt(variance / weight), learned.trust * sigma)
    kernel, trend = eqx.tree_at(lambda k: k.variance, first.kernel, bars**2 * first.kernel.variance), first.trend
    if isinstance(trend, gp.Ellipsoid | gp.Blend):
        trend = eqx.tree_at(lambda t: t.sigma, trend, bars * trend.sigma)
    prior = gp.Prior(kernel, trend)
    if len(x) <= exact:
        return gp.fit(x, y, mask, noise=noise, prior=prior, shared=problem.shared)
    few = x[gp.inducing(x, inducing, mask)]
    return gp.fit_sparse(x, y, few, mask, noise=noise, prior=prior, shared=problem.shared)
