"""Which pixels belong to the ellipses of the membranes: spurious ones go, missed ones come back (paper, Section 5.1)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmem.ellipse.fitting import EllipseFit
from jaxmem.ellipse.geometry import distance, from_parameters, parameters
from jaxmem.numerics import compiled
from jaxmem.types import Outcome, Scalar


class Verdict(NamedTuple):
    """What the ellipse of a slice says of one pixel.

    Attributes:
        distance: of the pixel from the ellipse, voxels.
        stays: the pixel may stay with the ellipse's membrane, if it is one of its own.
        welcome: it may come to it, if it is nobody's.
    """

    distance: Float[Array, ""]
    stays: Bool[Array, ""]
    welcome: Bool[Array, ""]


@compiled
def judge(fit: EllipseFit, point: Float[Array, " 2"], *, tolerance: Scalar = 2.5) -> Verdict:
    """Whether a pixel belongs to an ellipse of its slice, by the rule of `select`.

    Arguments:
        fit: of one slice.
        point: pixel of that slice, voxels.
        tolerance: voxels.
    """
    theta = parameters(fit.ellipse)
    away, slope = jax.value_and_grad(lambda t: distance(from_parameters(t), point))(theta)
    away, error = jnp.abs(away), jnp.sqrt(jnp.maximum(slope @ fit.covariance @ slope, 0.0))
    bad = (Outcome.NOT_FINITE, Outcome.TOO_SMALL, Outcome.UNDETERMINED)
    failed = jnp.stack([fit.outcome == int(o) for o in bad]).any(0)
    decides = ~failed & (fit.sigma <= tolerance)
    reach = jnp.maximum(tolerance, 3.0 * fit.sigma) + 2.0 * error
    return Verdict(away, ~decides | (away <= reach), decides & (away <= tolerance) & (error <= 0.5 * tolerance))


@compiled
def select(
    fits: EllipseFit,
    points: Float[Array, "slices n 2"],
    owner: Int[Array, "slices n"],
    probability: Float[Array, "slices n"],
    *,
    tolerance: Scalar = 2.5,
    least_probability: Scalar = 0.2,
) -> Int[Array, "slices n"]:
    """Owners of the pixels of all slices, after all membranes' ellipses have been asked.

    A pixel stays with its membrane within `tolerance` of the ellipse (or three times the fit's sigma, where that is more,
    and twice the ellipse's own error besides). One that is nobody's, and is likely enough to be membrane, goes to the membrane it is
    closest to, if it is within `tolerance` there and the ellipse is known to half of that. Ellipses that failed, or that
    their own points do not follow (sigma above `tolerance`), decide nothing.

    Arguments:
        fits: with leading axes over membranes and slices, as `jax.vmap(fit_sequence)` returns them.
        points: pixels of each slice, voxels.
        owner: 0 for nobody, k for the membrane in row k - 1 of `fits`, -1 for rows that are padding.
        probability: of being membrane, as the network says.
        tolerance: voxels.
        least_probability: of a pixel that comes back.

    Returns:
        The new owners; padding stays -1.
    """

    def one_slice(fits, points, owner, probability):
        each = jax.vmap(lambda fit: jax.vmap(lambda point: judge(fit, point, tolerance=tolerance))(points))(fits)
        own = jnp.arange(1, len(each.distance) + 1)[:, None] == owner[None]
        kept = jnp.where((own & ~each.stays).any(0), 0, owner)
        open_to = each.welcome & ~own
        nearest = jnp.argmin(jnp.where(open_to, each.distance, jnp.inf), 0)
        back = (kept == 0) & open_to.any(0) & (probability >= least_probability)
        return jnp.where(back, (nearest + 1).astype(owner.dtype), kept)

    by_slice = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), fits)
    return jax.vmap(one_slice)(by_slice, points, owner, probability)
