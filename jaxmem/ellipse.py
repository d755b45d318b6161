"""Ellipses and ellipsoids through points: one robust fit, and slice-to-slice sequences (paper, Sections 4.3.1 and 5.1).

An ellipse is {x : |M (x - c)| = 1} with M lower triangular, so that one code serves two and three dimensions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmem.numerics import safe_norm
from jaxmem.types import Scalar


class Ellipse(NamedTuple):
    """Centre c (d,) in voxels and lower triangular shape matrix M (d, d) in 1/voxel."""

    centre: Float[Array, " d"]
    shape: Float[Array, "d d"]


class EllipseFit(NamedTuple):
    """A fitted ellipse, the robust standard deviation of its residuals in voxels, the cost, and whether it is usable."""

    ellipse: Ellipse
    sigma: Float[Array, ""]
    cost: Float[Array, ""]
    success: Bool[Array, ""]


def semi_axes(ellipse: Ellipse) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
    """Semi-axes in voxels, ascending, and their directions as rows.

    Example:
        >>> lengths, _ = semi_axes(Ellipse(jnp.zeros(2), jnp.diag(jnp.array([0.5, 0.25]))))
        >>> lengths.tolist()
        [2.0, 4.0]
    """
    _, singular, directions = jnp.linalg.svd(ellipse.shape)
    return 1.0 / singular, directions


def distance(ellipse: Ellipse, point: Float[Array, " d"]) -> Float[Array, ""]:
    """First-order signed distance of one point in voxels, negative inside; finite at the centre.

    (q^2 - 1) / (2 q |grad q|) with q = |M (x - c)|: exact to second order near the ellipse (Sampson).
    """
    mapped = ellipse.shape @ (point - ellipse.centre)
    slope = ellipse.shape.T @ mapped
    floor = jnp.finfo(point.dtype).eps * jnp.sum(ellipse.shape**2)
    return (jnp.sum(mapped**2) - 1.0) / (2.0 * jnp.sqrt(jnp.sum(slope**2) + floor))


def moments(points: Float[Array, "n d"], mask: Bool[Array, " n"]) -> Ellipse:
    """The ellipse whose boundary has the points' mean and covariance: the cold start."""
    d = points.shape[1]
    weight = mask.astype(points.dtype)
    total = jnp.maximum(weight.sum(), 1.0)
    centre = (weight[:, None] * points).sum(0) / total
    offset = (points - centre) * weight[:, None]
    covariance = d * offset.T @ offset / total
    # a flat set has no extent across itself; a floor on the small axes keeps the start finite
    floor = 1e-2 * jnp.trace(covariance) / d + 1e-3
    precision = jnp.linalg.inv(covariance + floor * jnp.eye(d, dtype=points.dtype))
    # precision = M^T M with M lower triangular: a Cholesky factor of the reversed matrix
    flip = jnp.linalg.cholesky(precision[::-1, ::-1])
    return Ellipse(centre, flip.T[::-1, ::-1])


def sphere_through(points: Float[Array, "n d"], mask: Bool[Array, " n"]) -> Ellipse:
    """The sphere (circle) about the points' mean with their mean distance as radius: a cold start without elongation."""
    d = points.shape[1]
    weight = mask.astype(points.dtype) / jnp.maximum(mask.sum(), 1)
    centre = weight @ points
    radius = weight @ safe_norm(points - centre)
    return Ellipse(centre, jnp.eye(d, dtype=points.dtype) / jnp.maximum(radius, 1e-3))


def _pack(ellipse: Ellipse, scale: Array) -> Array:
    d = ellipse.centre.shape[0]
    return jnp.concatenate([ellipse.centre / scale, (ellipse.shape * scale)[jnp.tril_indices(d)]])


def _unpack(theta: Array, d: int, scale: Array) -> Ellipse:
    shape = jnp.zeros((d, d), theta.dtype).at[jnp.tril_indices(d)].set(theta[d:])
    return Ellipse(theta[:d] * scale, shape / scale)


def fit(
    points: Float[Array, "n d"],
    mask: Bool[Array, " n"],
    init: Ellipse,
    *,
    prior_sigma: Scalar = 1.0,
    noise: Scalar = 1.0,
    iterations: int = 30,
) -> EllipseFit:
    """Robust least squares on distances, from a start that is also a prior (paper, Section 5.1).

    Minimises sum_i rho(d_i / noise) + |theta - theta_0|^2 / prior_sigma^2 with rho the Cauchy loss, by Levenberg-Marquardt
    on reweighted normal equations. theta holds the centre over the size of `init` and the entries of M times that size, so
    that the prior is relative to the ellipse's own size.

    Arguments:
        points: voxels on the membrane.
        mask: rows that count.
        init: start and prior; `moments(points, mask)` for a cold start, the neighbour slice's result for a warm one.
        prior_sigma: relative standard deviation of the prior; large means no prior.
        noise: scale in voxels at which a residual starts to count as spurious.
        iterations: fixed number of steps.

    Returns:
        `success` is False for fewer than d + 1 points or a result that is not finite.
    """
    d = points.shape[1]
    lengths, _ = semi_axes(init)
    scale = jnp.exp(jnp.mean(jnp.log(lengths)))
    start = _pack(init, scale)
    weight = mask.astype(points.dtype)

    def residuals(theta):
        return jax.vmap(lambda p: distance(_unpack(theta, d, scale), p))(points) / noise

    def cost(theta):
        r = residuals(theta)
        return jnp.sum(weight * jnp.log1p(r**2)) + jnp.sum(((theta - start) / prior_sigma) ** 2)

    def step(_, state):
        theta, damping, value = state
        r = residuals(theta)
        jacobian = jax.jacfwd(residuals)(theta)
        w = weight / (1.0 + r**2)
        normal = jacobian.T @ (w[:, None] * jacobian) + jnp.eye(len(theta), dtype=theta.dtype) / prior_sigma**2
        slope = jacobian.T @ (w * r) + (theta - start) / prior_sigma**2
        lifted = normal + damping * jnp.diag(jnp.diag(normal) + 1e-6)
        trial = theta - jnp.linalg.solve(lifted, slope)
        trial_value = cost(trial)
        better = trial_value < value
        return (
            jnp.where(better, trial, theta),
            jnp.clip(jnp.where(better, damping * 0.3, damping * 4.0), 1e-6, 1e6),
            jnp.where(better, trial_value, value),
        )

    damping = jnp.asarray(1e-2, points.dtype)
    theta, _, value = jax.lax.fori_loop(0, iterations, step, (start, damping, cost(start)))
    ellipse = _unpack(theta, d, scale)
    r = jnp.where(mask, jnp.abs(residuals(theta)) * noise, jnp.nan)
    sigma = 1.4826 * jnp.nanmedian(r)
    enough = mask.sum() >= d + 1
    return EllipseFit(ellipse, sigma, value, enough & jnp.all(jnp.isfinite(theta)) & jnp.isfinite(sigma))


def fit_sequence(
    points: Float[Array, "slices n 2"], mask: Bool[Array, "slices n"], *, prior_sigma: Scalar = 0.1, noise: Scalar = 1.0
) -> EllipseFit:
    """Ellipses of one membrane slice by slice, from the slice with most points outwards (paper, Section 5.1, Fig. 14).

    Each slice starts from, and is held near, the ellipse of the neighbour that was fitted before it; slices without
    enough points take over the neighbour's ellipse with `success` False.

    Arguments:
        points, mask: padded points of every slice; row order is the slices' order.
        prior_sigma: relative change from slice to slice that is still likely.
        noise: see `fit`.

    Returns:
        An `EllipseFit` with a leading axis over slices.
    """
    seed = jnp.argmax(mask.sum(1))
    first = fit(points[seed], mask[seed], moments(points[seed], mask[seed]), prior_sigma=10.0, noise=noise)

    def advance(carry, row):
        result = fit(*row, carry, prior_sigma=prior_sigma, noise=noise)
        ellipse = jax.tree.map(lambda new, old: jnp.where(result.success, new, old), result.ellipse, carry)
        return ellipse, EllipseFit(ellipse, result.sigma, result.cost, result.success)

    order = jnp.arange(len(points))
    _, upward = jax.lax.scan(lambda c, i: advance(c, (points[i], mask[i] & (i > seed))), first.ellipse, order)
    _, downward = jax.lax.scan(
        lambda c, i: advance(c, (points[i], mask[i] & (i < seed))), first.ellipse, order, reverse=True
    )

    def choose(up, down, at_seed):
        index = order.reshape((-1,) + (1,) * (up.ndim - 1))
        return jnp.where(index > seed, up, jnp.where(index < seed, down, at_seed))

    return jax.tree.map(choose, upward, downward, first)
