"""Where a fit may start: ellipses from moments of the points."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmem.ellipse.geometry import Quadric, ball, from_stretch
from jaxmem.numerics import cleaned, safe_norm


def moments(points: Float[Array, "n d"], mask: Bool[Array, " n"]) -> Quadric:
    """The ellipse whose boundary, evenly covered, has the points' mean and covariance: the cold start."""
    d = points.shape[1]
    weight = mask.astype(points.dtype)
    total = jnp.maximum(weight.sum(), 1.0)
    points = jnp.where(mask[:, None], points, 0.0)
    centre = (weight[:, None] * points).sum(0) / total
    offset = jnp.where(mask[:, None], points - centre[None], 0.0)
    spread = jnp.stack([jnp.stack([jnp.sum(a * b) for a in offset.T]) for b in offset.T]) * (d / total)
    square = from_stretch(centre, spread)
    return square._replace(semi_axes=jnp.sqrt(jnp.maximum(square.semi_axes, 1e-3 * square.semi_axes[0] + 1e-12)))


def sphere_through(points: Float[Array, "n d"], mask: Bool[Array, " n"]) -> Quadric:
    """The sphere (circle) about the points' mean with their mean distance as radius: a cold start without elongation."""
    points = cleaned(points, mask)
    weight = mask.astype(points.dtype)
    weight = weight / jnp.maximum(weight.sum(), 1.0)
    centre = weight @ points
    return ball(centre, jnp.maximum(weight @ safe_norm(points - centre[None]), 1e-3))
