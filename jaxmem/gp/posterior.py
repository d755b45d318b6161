"""Exact posterior of a zero-mean Gaussian process: mean, variance, derivatives (paper, equations 3-5, mended).

`fit` solves once; `mean`, `variance`, `gradient`, `hessian` take the result and **one** point, and are vmapped by the
caller over blocks of points, so that no matrix of all points against all data is ever held.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmem.gp.kernels import Kernel
from jaxmem.numerics import jitter


class Posterior(eqx.Module):
    """A conditioned process.

    Attributes:
        kernel: the prior's covariance.
        x: (n, d) data points, voxels; padded rows are ignored.
        mask: (n,) True for the rows that count.
        weights: (n,) solution of (K + noise) w = y, zero where masked.
        cholesky: (n, n) lower factor of K + noise; the identity where masked.
    """

    kernel: Kernel
    x: Float[Array, "n d"]
    mask: Bool[Array, " n"]
    weights: Float[Array, " n"]
    cholesky: Float[Array, "n n"]

    @property
    def success(self) -> Bool[Array, ""]:
        """False where the factorisation failed: R too small for the points, or NaN among them."""
        return jnp.all(jnp.isfinite(self.weights))


def fit(
    kernel: Kernel,
    x: Float[Array, "n d"],
    y: Float[Array, " n"],
    noise: Float[Array, " n"],
    mask: Bool[Array, " n"] | None = None,
) -> Posterior:
    """Condition the process on values with independent errors.

    Arguments:
        kernel: prior covariance; its R must satisfy `valid_radius` for all points used.
        x: data points, voxels.
        y: values: 0 on the surface, signed distances in voxels at anchors (negative inside).
        noise: standard deviation of each value, voxels.
        mask: rows that count; all when None.

    Returns:
        The posterior. A failed factorisation gives NaN weights and `success` False; nothing is raised inside jit.

    Raises:
        ValueError: if shapes disagree, or there are no rows.

    Source: paper, equations (3) and (4).
    """
    n = x.shape[0]
    if n == 0 or y.shape != (n,) or noise.shape != (n,):
        raise ValueError(f"gp.fit: expected n > 0 points, values and noise; got {x.shape}, {y.shape}, {noise.shape}")
    mask = jnp.ones(n, bool) if mask is None else mask
    gram = jax.vmap(lambda a: jax.vmap(lambda b: kernel(a, b))(x))(x)
    diagonal = jnp.where(mask, noise**2 + jitter(x.dtype) * kernel.variance, 1.0)
    gram = jnp.where(mask[:, None] & mask[None, :], gram, 0.0) + jnp.diag(diagonal)
    factor = jnp.linalg.cholesky(gram)
    weights = jax.scipy.linalg.cho_solve((factor, True), jnp.where(mask, y, 0.0))
    return Posterior(kernel, x, mask, jnp.where(mask, weights, 0.0), factor)


def mean(posterior: Posterior, point: Float[Array, " d"]) -> Float[Array, ""]:
    """Posterior mean at one point (paper, equation 3)."""
    return jnp.dot(jax.vmap(lambda b: posterior.kernel(point, b))(posterior.x), posterior.weights)


def variance(posterior: Posterior, point: Float[Array, " d"]) -> Float[Array, ""]:
    """Posterior variance at one point (paper, equation 4: K22 - K21 K11^-1 K12), never negative.

    Further than R from a data point the kernels are no covariances any more (beyond 1.5 R they exceed k(0)); nothing is
    known there, and the prior's variance is returned.
    """
    away = jnp.max(jnp.where(posterior.mask, jnp.sum((posterior.x - point) ** 2, -1), 0.0)) > posterior.kernel.R**2
    cross = jnp.where(posterior.mask, jax.vmap(lambda b: posterior.kernel(point, b))(posterior.x), 0.0)
    solved = jax.scipy.linalg.solve_triangular(posterior.cholesky, cross, lower=True)
    prior = posterior.kernel(point, point)
    return jnp.where(away, prior, jnp.maximum(prior - jnp.sum(solved**2), 0.0))


class Derivatives(NamedTuple):
    """Value, gradient (d,) and second derivatives (d, d) of the posterior mean at one point; per voxel, per voxel^2."""

    value: Float[Array, ""]
    gradient: Float[Array, " d"]
    hessian: Float[Array, "d d"]


def derivatives(posterior: Posterior, point: Float[Array, " d"]) -> Derivatives:
    """The posterior mean with its first and second derivatives at one point, in one pass over the data.

    With s = |x - x_j|^2 / R^2 the mean is sum_j w_j p(s_j), so its derivatives are moments of w_j p'(s_j) and w_j p''(s_j)
    over the data: matrix products, many times faster than differentiating the sum twice. Reverse-mode derivatives of
    `mean` agree (tested).
    """
    kernel, x = posterior.kernel, posterior.x
    scale = 1.0 / kernel.R**2
    square = sum((point[i] - x[:, i]) ** 2 for i in range(x.shape[1])) * scale
    first, second = jax.grad(kernel.profile), jax.grad(jax.grad(kernel.profile))
    weights = kernel.variance * posterior.weights
    c0 = weights * jax.vmap(kernel.profile)(square)
    c1 = weights * jax.vmap(first)(square) * (2.0 * scale)
    c2 = weights * jax.vmap(second)(square) * (4.0 * scale**2)
    d = x.shape[1]
    outer = (x[:, :, None] * x[:, None, :]).reshape(-1, d * d)
    pull1, pull2, total1, total2 = c1 @ x, c2 @ x, c1.sum(), c2.sum()
    spread = (c2 @ outer).reshape(d, d) - jnp.outer(point, pull2) - jnp.outer(pull2, point)
    bend = total1 * jnp.eye(d, dtype=x.dtype) + spread + total2 * jnp.outer(point, point)
    return Derivatives(c0.sum(), total1 * point - pull1, bend)


def gradient(posterior: Posterior, point: Float[Array, " d"]) -> Float[Array, " d"]:
    """Gradient of the posterior mean at one point."""
    return derivatives(posterior, point).gradient


def hessian(posterior: Posterior, point: Float[Array, " d"]) -> Float[Array, "d d"]:
    """Second derivatives of the posterior mean at one point."""
    return derivatives(posterior, point).hessian


def level_set_density(value: Float[Array, "*s"], sigma: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Density of f = 0 where f has mean `value` and standard deviation `sigma` (paper, equation 5, mended).

    Example:
        >>> round(float(level_set_density(jnp.array(0.0), jnp.array(1.0))), 4)
        0.3989
    """
    return jnp.exp(-0.5 * (value / sigma) ** 2) / (jnp.sqrt(2 * jnp.pi) * sigma)
