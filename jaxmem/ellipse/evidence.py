"""How well a model explains a membrane's points for the number of its parameters."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmem.numerics import compiled
from jaxmem.types import Scalar

_DEGREES = 4.0  # of freedom of Student's t: spurious points must not decide


@compiled
def bic(
    residual: Float[Array, " n"], mask: Bool[Array, " n"], parameters: Scalar, least: Scalar = 0.05
) -> Float[Array, ""]:
    """Bayesian information criterion, -2 log L + k log n, of a model whose points are off by `residual` (Schwarz 1978).

    The errors are Student-t with 4 degrees of freedom and the scale that makes them likeliest. Of two models of the same
    points the one with the lower value is preferred; a difference of 10 is strong.

    Arguments:
        residual: distances of points whose errors are independent, voxels; anything where not in `mask`.
        mask: rows that count.
        parameters: k; of a smoother or a Gaussian process the trace of its hat matrix.
        least: floor of the scale, voxels: models that differ by less are equally good.

    Example:
        >>> off = jnp.linspace(-1.0, 1.0, 50)
        >>> bool(bic(off, off < 2, 5.0) < bic(1.2 * off, off < 2, 5.0) < bic(off, off < 2, 15.0))
        True
    """
    count = jnp.maximum(mask.sum(), 1).astype(residual.dtype)
    square = jnp.where(mask, residual**2, 0.0)

    def step(_, scale):  # expectation maximisation
        weight = (_DEGREES + 1.0) / (_DEGREES + square / scale)
        return jnp.maximum(jnp.sum(weight * square) / count, least**2)

    scale = jax.lax.fori_loop(0, 30, step, jnp.maximum(jnp.sum(square) / count, least**2))
    tails = 0.5 * (_DEGREES + 1.0) * jnp.sum(jnp.log1p(square / (_DEGREES * scale)))
    # of the density's constant, Gamma(5/2) / (Gamma(2) sqrt(4 pi)) = 3/8
    return 2.0 * tails + count * (jnp.log(scale) - 2.0 * jnp.log(0.375)) + parameters * jnp.log(count)
