"""Exact posterior of a Gaussian process: mean, variance, derivatives, samples (paper, equations 3-5, mended).

`fit` solves once; `mean`, `variance`, `gradient`, `hessian` take the result and **one** point, and are mapped over tiles of
points (`map_points`), so that no matrix of all points against all data is ever held.
"""

import abc
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmem.gp.expansion import Expansion
from jaxmem.gp.kernels import Kernel
from jaxmem.gp.trend import Prior, Trend, as_prior
from jaxmem.numerics import cleaned, compiled, jitter
from jaxmem.types import Outcome, Scalar

LOG_TWO_PI = math.log(2.0 * math.pi)


class Conditioned(Expansion):
    """A process that has seen data: its mean is an expansion, and it knows how much variance the data have removed.

    It is the result of a fit, and what `evaluate` takes: `params` is the posterior itself.

    Attributes:
        outcome: an `Outcome`.
        log_likelihood: logarithm of the marginal likelihood of the values (Rasmussen & Williams 2006, equation 2.30); of a sparse
            posterior the lower bound of Titsias (2009, equation 9).
    """

    outcome: Int[Array, ""]
    log_likelihood: Float[Array, ""]

    @property
    def success(self) -> Bool[Array, ""]:
        """Whether `outcome` is OK; if not, the reason is there, and numbers may be NaN."""
        return jnp.equal(self.outcome, Outcome.OK)

    @property
    def params(self) -> "Conditioned":
        """What `evaluate` takes: the posterior itself."""
        return self

    @property
    def info(self) -> dict[str, Array]:
        """What there is to know about the fit besides its result: the logarithm of the marginal likelihood."""
        return {"log_likelihood": self.log_likelihood}

    @property
    def prior(self) -> Prior:
        """The kernel and the trend."""
        return Prior(self.kernel, self.trend)

    @abc.abstractmethod
    def whiten(self, cross: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Vectors a, b for prior covariances `cross` with `self.points`: the data remove a.a' - b.b' from a covariance."""

    @abc.abstractmethod
    def pull_back(self, a: Float[Array, " n"], b: Float[Array, " n"]) -> Float[Array, " n"]:
        """Weights w with w.cross = a.a' - b.b' for every `cross` whose whitened vectors are a', b'."""


class Posterior(Conditioned):
    """A process conditioned on values, exactly.

    Attributes:
        mask: (n,) True for the rows that count.
        cholesky: (n, n) lower factor of K + noise; the identity where masked.
    """

    mask: Bool[Array, " n"]
    cholesky: Float[Array, "n n"]

    def whiten(self, cross):
        cross = jnp.where(self.mask, cross, 0.0)
        solved = jax.scipy.linalg.solve_triangular(self.cholesky, cross, lower=True)
        return solved, jnp.zeros_like(solved)

    def pull_back(self, a, b):
        return jnp.where(self.mask, jax.scipy.linalg.solve_triangular(self.cholesky, a, lower=True, trans=1), 0.0)


@compiled
def gram(kernel: Kernel, x: Float[Array, "n d"], z: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Covariances of the function's values at two sets of points."""
    return jax.vmap(lambda a: jax.vmap(lambda b: kernel(a, b))(z))(x)


def trend_at(trend: Trend, x: Float[Array, "n d"]) -> tuple[Float[Array, " n"], Float[Array, "n p"]]:
    """A trend's values and features at many points."""
    return jax.vmap(trend.value)(x), jax.vmap(trend.features)(x)


def check_rows(name: str, points: Array, values: Array, noise: Any) -> Array:
    """The noise of each row, after the shapes have been looked at.

    Raises:
        ValueError: at trace, if shapes disagree, or there are no rows.
    """
    n = points.shape[0]
    noise = jnp.asarray(noise, points.dtype)
    if points.ndim != 2 or n == 0 or values.shape != (n,) or noise.shape not in ((), (n,)):
        raise ValueError(
            f"{name}: expected points (n, d) with n > 0, values (n,) and noise (n,) or one number; "
            f"got {points.shape}, {values.shape} and {noise.shape}"
        )
    return jnp.broadcast_to(noise, (n,))


def outcome_of(kernel: Kernel, points: Array, mask: Array, solution: Array) -> Int[Array, ""]:
    """The `Outcome` of a fit with a mask, given its solution; the distance of two far points bounds R from below."""
    middle = jnp.sum(jnp.where(mask[:, None], points, 0.0), 0) / jnp.maximum(mask.sum(), 1).astype(points.dtype)

    def far(point):
        square = jnp.where(mask, jnp.sum((points - point[None]) ** 2, -1), -1.0)
        return points[jnp.argmax(square)], square.max()

    start = far(middle)[0]
    small = far(start)[1] > kernel.reach**2
    outcome = jnp.where(jnp.all(jnp.isfinite(solution)), int(Outcome.OK), int(Outcome.NOT_FINITE))
    outcome = jnp.where(small, int(Outcome.RADIUS), outcome)
    return jnp.where(mask.any(), outcome, int(Outcome.EMPTY)).astype(jnp.int32)


@compiled
def fit(
    points: Float[Array, "n d"],
    values: Float[Array, " n"],
    mask: Bool[Array, " n"] | None = None,
    *,
    noise: Scalar | Float[Array, " n"],
    prior: Kernel | Prior,
    shared: Float[Array, "n k"] | None = None,
) -> Posterior:
    """Condition the process on values with independent errors, and with errors that they share.

    Arguments:
        points: data points, voxels.
        values: 0 on the surface, signed distances in voxels at anchors (negative inside).
        mask: rows that count; all when None. The others may hold anything, NaN included.
        noise: standard deviation of each value, or of all, voxels.
        prior: kernel, or kernel and trend; the kernel's R must satisfy `valid_radius` for all points used.
        shared: errors that the values have in common, voxels: their covariance is `shared @ shared.T`.

    Returns:
        The posterior. Nothing is raised inside jit: its `outcome` says what went wrong, if anything did. Differentiable in points,
        values, noise, prior and shared errors.

    Raises:
        ValueError: if shapes disagree, or there are no rows.

    Source: paper, equations (3) and (4).

    Example:
        >>> from jaxmem.gp import ThinPlate, evaluate
        >>> two = fit(jnp.array([[0.0, 0.0], [4.0, 0.0]]), jnp.array([-1.0, 1.0]), noise=0.1, prior=ThinPlate(jnp.array(9.0), jnp.array(9.0)))
        >>> bool(abs(evaluate(two, jnp.array([2.0, 0.0]))) < 0.01)
        True
    """
    noise = check_rows("gp.fit", points, values, noise)
    mask = jnp.ones(len(points), bool) if mask is None else mask
    kernel, trend = as_prior(prior).kernel, as_prior(prior).trend
    points = cleaned(points, mask)
    diagonal = jnp.where(mask, jnp.where(mask, noise, 1.0) ** 2 + jitter(points.dtype) * kernel.variance, 1.0)
    expected, features = trend_at(trend, points)
    both = gram(kernel, points, points) + features @ features.T
    if shared is not None:
        shared = cleaned(shared, mask)
        both = both + shared @ shared.T
    covariance = jnp.where(mask[:, None] & mask[None, :], both, 0.0)
    factor = jnp.linalg.cholesky(covariance + jnp.diag(diagonal))
    residual = jnp.where(mask, jnp.where(mask, values, 0.0) - expected, 0.0)
    weights = jnp.where(mask, jax.scipy.linalg.cho_solve((factor, True), residual), 0.0)
    log_likelihood = -0.5 * (residual @ weights + mask.sum().astype(points.dtype) * LOG_TWO_PI)
    log_likelihood = log_likelihood - jnp.sum(jnp.log(jnp.diagonal(factor)))
    outcome = outcome_of(kernel, points, mask, weights)
    return Posterior(kernel, trend, points, features, weights, outcome, log_likelihood, mask, factor)


@compiled
def variance(posterior: Conditioned, point: Float[Array, " d"]) -> Float[Array, ""]:
    """Posterior variance at one point (paper, equation 4: K22 - K21 K11^-1 K12).

    It is a difference: what rounding leaves of it is never below the prior's variance times the precision of the dtype, so that its
    square root can be differentiated.

    Further than R from a data point the thin plate and the cubic kernel are no covariances any more (beyond 1.5 R they
    exceed k(0)); nothing is known there, and the prior's variance is returned.
    """
    kernel = posterior.kernel
    away = jnp.max(jnp.sum((posterior.points - point[None]) ** 2, -1)) > kernel.reach**2
    a, b = posterior.whiten(posterior.covariances(point))
    prior = kernel(point, point) + jnp.sum(posterior.trend.features(point) ** 2)
    left = jnp.maximum(prior - jnp.sum(a**2) + jnp.sum(b**2), jnp.finfo(prior.dtype).eps * prior)
    return jnp.where(away, prior, left)


@compiled(static=("draws",))
def sample(
    key: Key[Array, ""], posterior: Conditioned, support: Float[Array, "m d"], draws: int = 1
) -> tuple[Expansion, Float[Array, "draws k"]]:
    """Draw functions from the posterior: expansions like its mean, that can be differentiated and meshed.

    The values at `support` are drawn jointly from the posterior, exactly; elsewhere the function is what the process
    expects given those values. Between support points a sample is therefore smoother than it should be by the variance
    that is left there, which is small once their spacing is that of the data (see `variance`).

    Arguments:
        key: random key.
        posterior: exact or sparse.
        support: where the samples are right; spread them over the region of interest.
        draws: number of functions.

    Returns:
        An expansion over `posterior.points` and `support` whose weights are those of the mean, and (draws, n + m) weights: the
        samples. `with_weights(expansion, weights[i])` is one of them.

    Source: conditional simulation (Chiles & Delfiner, Geostatistics, 2012, Section 7.3).
    """
    kernel, x = posterior.kernel, posterior.points
    features = jax.vmap(posterior.trend.features)(support)
    a, b = jax.vmap(posterior.whiten)(gram(kernel, support, x) + features @ posterior.features.T)
    covariance = gram(kernel, support, support) + features @ features.T - a @ a.T + b @ b.T
    # the factor's jitter is relative to the prior's variance; what is left of it may be much smaller
    ridge = jitter(x.dtype) * kernel.variance
    factor = jnp.linalg.cholesky(covariance + ridge * jnp.eye(len(support), dtype=x.dtype))
    normal = jax.random.normal(key, (len(support), draws), x.dtype)
    near = jax.scipy.linalg.solve_triangular(factor, normal, lower=True, trans=1).T
    far = -jax.vmap(posterior.pull_back)(near @ a, near @ b)
    weights = jnp.concatenate([posterior.weights[None] + far, near], 1)
    centre = jnp.concatenate([posterior.weights, jnp.zeros(len(support), x.dtype)])
    both = jnp.concatenate([x, support]), jnp.concatenate([posterior.features, features])
    return Expansion(kernel, posterior.trend, *both, centre), weights


def level_set_density(value: Float[Array, "*s"], sigma: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Density of f = 0 where f has mean `value` and standard deviation `sigma` (paper, equation 5, mended).

    Example:
        >>> round(float(level_set_density(jnp.array(0.0), jnp.array(1.0))), 4)
        0.3989
    """
    return jnp.exp(-0.5 * (value / sigma) ** 2) / ((2.0 * jnp.pi) ** 0.5 * sigma)
