"""Distances between surfaces, and the area over which they come close."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmem.types import Scalar

_EDGE = 0.25  # of a length's unit, voxels: over which what is near becomes what is not


def gap(point: Float[Array, " 3"], vertex: Float[Array, " 3"], normal: Float[Array, " 3"]) -> Float[Array, ""]:
    """Signed distance of a point from a surface, positive on the side to which its normals point.

    Arguments:
        point: voxels.
        vertex: the surface's vertex that is nearest to it.
        normal: of the surface there, unit length.
    """
    return (point - vertex) @ normal


def moved_gap(
    gap: Float[Array, "*n"],
    along: Float[Array, "*n"],
    own: Float[Array, "*n"],
    other: Float[Array, "*n"],
) -> Float[Array, "*n"]:
    """The gap once both surfaces have moved along their normals, to first order.

    Arguments:
        gap: signed, of a point of one surface from the other.
        along: cosine between the two normals.
        own: displacement of the point's surface.
        other: of the other one, where it is nearest.
    """
    return gap + along * own - other


def contact(
    gap: Float[Array, " n"], area: Float[Array, " n"], within: Scalar
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The area of a surface that lies within a distance of another, and the mean gap over it.

    Arguments:
        gap: of the surface's points from the other one, either side; large where they do not face each other.
        area: that each point stands for.
        within: the distance. What is nearer by a quarter of a unit counts in full, and what is as much farther not at all, so that
            both results can be differentiated.

    Returns:
        The area and the mean of the gap's amount; that is 0 where nothing is near.
    """
    distance = jnp.abs(gap)
    weight = area * jax.nn.sigmoid((jnp.asarray(within, distance.dtype) - distance) * (4.0 / _EDGE))
    total = jnp.sum(weight)
    mean = jnp.sum(weight * distance) / jnp.where(total > 0, total, 1.0)
    return total, mean
