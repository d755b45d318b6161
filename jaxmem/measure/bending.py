"""What the two curvatures of a surface say: principal curvatures, shape index, curvedness, bending energy.

Curvatures are 1/length, positive on a sphere whose normals point outwards; any unit of length will do.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmem.numerics import safe_sqrt
from jaxmem.types import Scalar


def principal(mean: Float[Array, "*n"], gaussian: Float[Array, "*n"]) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """The larger and the smaller principal curvature; alike where noise leaves the square of the mean below the Gaussian one.

    Where they are alike their difference has no gradient: it counts as 0.

    Example:
        >>> [round(float(k), 3) for k in principal(jnp.array(0.5), jnp.array(0.21))]
        [0.7, 0.3]
    """
    root = safe_sqrt(jnp.maximum(mean**2 - gaussian, 0.0))
    return mean + root, mean - root


def curvedness(mean: Float[Array, "*n"], gaussian: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Root of half the sum of the principal curvatures' squares (Koenderink & van Doorn 1992, equation 2)."""
    return safe_sqrt(jnp.maximum(2.0 * mean**2 - gaussian, 0.5 * mean**2))


def shape_index(mean: Float[Array, "*n"], gaussian: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """1 on a sphere seen from outside, 1/2 on a cylinder, 0 on a saddle, -1 within a sphere (Koenderink & van Doorn 1992, equation 1).

    Arguments:
        mean, gaussian: curvatures.

    Returns:
        2 / pi arctan of the sum of the principal curvatures over their difference; 0 on a plane, where there is none. Where the principal curvatures are alike their
        difference has no gradient: it counts as 0.
    """
    flat = (mean == 0) & (gaussian == 0)
    half = safe_sqrt(jnp.maximum(mean**2 - gaussian, 0.0))
    return (2.0 / jnp.pi) * jnp.arctan2(jnp.where(flat, 0.0, mean), jnp.where(flat, 1.0, half))


def willmore(mean: Float[Array, " n"], area: Float[Array, " n"], spontaneous: Scalar = 0.0) -> Float[Array, ""]:
    """Integral of the square of the mean curvature over a surface, less the spontaneous one: bending energy over twice the rigidity.

    Arguments:
        mean: curvature at points of the surface.
        area: that each of them stands for.
        spontaneous: curvature that costs nothing.

    Returns:
        4 pi for every sphere; Helfrich's energy is 2 kappa times this.
    """
    return jnp.sum((mean - spontaneous) ** 2 * area)
