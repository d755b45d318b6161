"""Exact posterior of a Gaussian process: mean, variance, derivatives, samples (paper, equations 3-5, mended).

`fit` solves once; `mean`, `variance`, `gradient`, `hessian` take the result and **one** point, and are mapped over tiles of
points (`over`), so that no matrix of all points against all data is ever held.
"""

import abc
import enum

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmem.gp.expansion import Expansion
from jaxmem.gp.kernels import Kernel
from jaxmem.gp.trend import Trend, Zero
from jaxmem.numerics import compiled, jitter


class Code(enum.IntEnum):
    """What became of a fit."""

    OK = 0
    FAILED = 1  # no finite solution: NaN among the inputs, or K + noise is not positive definite
    RADIUS = 2  # R is smaller than the largest distance between points: not a covariance there
    EMPTY = 3  # the mask leaves no points


class Conditioned(Expansion):
    """A process that has seen data: its mean is an expansion, and it knows how much variance the data have removed.

    Attributes:
        code: what became of the fit, a `Code`.
    """

    code: Int[Array, ""]

    @property
    def success(self) -> Bool[Array, ""]:
        """Whether `code` is OK; if not, the reason is there, and numbers may be NaN."""
        return jnp.equal(self.code, Code.OK)

    @abc.abstractmethod
    def whiten(self, cross: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Vectors a, b for prior covariances `cross` with `self.x`: the data remove a.a' - b.b' from a covariance."""

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


def outcome(kernel: Kernel, x: Array, mask: Array, solution: Array) -> Int[Array, ""]:
    """The `Code` of a fit on `x` with a mask, given its solution; the distance of two far points bounds R from below."""
    middle = jnp.sum(jnp.where(mask[:, None], x, 0.0), 0) / jnp.maximum(mask.sum(), 1)

    def far(point):
        square = jnp.where(mask, jnp.sum((x - point) ** 2, -1), -1.0)
        return x[jnp.argmax(square)], square.max()

    start = far(middle)[0]
    small = far(start)[1] > kernel.reach**2
    code = jnp.where(jnp.all(jnp.isfinite(solution)), Code.OK, Code.FAILED)
    code = jnp.where(small, Code.RADIUS, code)
    return jnp.where(mask.any(), code, Code.EMPTY).astype(jnp.int32)


@compiled
def fit(
    kernel: Kernel,
    x: Float[Array, "n d"],
    y: Float[Array, " n"],
    noise: Float[Array, " n"],
    mask: Bool[Array, " n"] | None = None,
    trend: Trend | None = None,
) -> Posterior:
    """Condition the process on values with independent errors.

    Arguments:
        kernel: prior covariance; its R must satisfy `valid_radius` for all points used.
        x: data points, voxels.
        y: values: 0 on the surface, signed distances in voxels at anchors (negative inside).
        noise: standard deviation of each value, voxels.
        mask: rows that count; all when None.
        trend: prior mean; zero when None.

    Returns:
        The posterior. Nothing is raised inside jit: its `code` says what went wrong, if anything did.

    Raises:
        ValueError: if shapes disagree, or there are no rows.

    Source: paper, equations (3) and (4).
    """
    n = x.shape[0]
    if n == 0 or y.shape != (n,) or noise.shape != (n,):
        raise ValueError(f"gp.fit: expected n > 0 points, values and noise; got {x.shape}, {y.shape}, {noise.shape}")
    mask = jnp.ones(n, bool) if mask is None else mask
    x = jnp.where(mask[:, None], x, x[jnp.argmax(mask)])  # padding may hold anything
    diagonal = jnp.where(mask, noise**2 + jitter(x.dtype) * kernel.variance, 1.0)
    trend = Zero() if trend is None else trend
    expected, features = trend_at(trend, x)
    prior = jnp.where(mask[:, None] & mask[None, :], gram(kernel, x, x) + features @ features.T, 0.0)
    factor = jnp.linalg.cholesky(prior + jnp.diag(diagonal))
    solved = jax.scipy.linalg.cho_solve((factor, True), jnp.where(mask, y - expected, 0.0))
    weights = jnp.where(mask, solved, 0.0)
    return Posterior(kernel, trend, x, features, weights, outcome(kernel, x, mask, weights), mask, factor)


@compiled
def variance(posterior: Conditioned, point: Float[Array, " d"]) -> Float[Array, ""]:
    """Posterior variance at one point (paper, equation 4: K22 - K21 K11^-1 K12), never negative.

    Further than R from a data point the thin plate and the cubic kernel are no covariances any more (beyond 1.5 R they
    exceed k(0)); nothing is known there, and the prior's variance is returned.
    """
    kernel, x = posterior.kernel, posterior.x
    away = jnp.max(jnp.sum((x - point) ** 2, -1)) > kernel.reach**2
    a, b = posterior.whiten(posterior.covariances(point))
    prior = kernel(point, point) + jnp.sum(posterior.trend.features(point) ** 2)
    return jnp.where(away, prior, jnp.maximum(prior - jnp.sum(a**2) + jnp.sum(b**2), 0.0))


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
        An expansion over `posterior.x` and `support` whose weights are those of the mean, and (draws, n + m) weights: the
        samples. `drawn(expansion, weights[i])` is one of them.

    Source: conditional simulation (Chiles & Delfiner, Geostatistics, 2012, Section 7.3).
    """
    kernel, x = posterior.kernel, posterior.x
    features = jax.vmap(posterior.trend.features)(support)
    a, b = jax.vmap(posterior.whiten)(gram(kernel, support, x) + features @ posterior.features.T)
    covariance = gram(kernel, support, support) + features @ features.T - a @ a.T + b @ b.T
    # the factor's jitter is relative to the prior's variance; what is left of it may be much smaller
    ridge = jitter(x.dtype) * kernel.variance
    factor = jnp.linalg.cholesky(covariance + ridge * jnp.eye(len(support), dtype=x.dtype))
    normal = jax.random.normal(key, (len(support), draws), x.dtype)
    near = jax.scipy.linalg.solve_triangular(factor, normal, lower=True, trans=1).T
    far = -jax.vmap(posterior.pull_back)(near @ a, near @ b)
    weights = jnp.concatenate([posterior.weights + far, near], 1)
    centre = jnp.concatenate([posterior.weights, jnp.zeros(len(support), x.dtype)])
    both = jnp.concatenate([x, support]), jnp.concatenate([posterior.features, features])
    return Expansion(kernel, posterior.trend, *both, centre), weights


def drawn(expansion: Expansion, weights: Float[Array, " k"]) -> Expansion:
    """One of the functions that `sample` drew."""
    return eqx.tree_at(lambda e: e.weights, expansion, weights)


def level_set_density(value: Float[Array, "*s"], sigma: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Density of f = 0 where f has mean `value` and standard deviation `sigma` (paper, equation 5, mended).

    Example:
        >>> round(float(level_set_density(jnp.array(0.0), jnp.array(1.0))), 4)
        0.3989
    """
    return jnp.exp(-0.5 * (value / sigma) ** 2) / (jnp.sqrt(2 * jnp.pi) * sigma)
