"""Where a membrane lies, read from the density along its normal: the likelihood of a shift under the tomogram's own noise."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from jaxmem.density.bilayer import STEP, Bilayer
from jaxmem.density.wedge import Wedge, passes
from jaxmem.numerics import safe_sqrt, unit
from jaxmem.types import Scalar

OFFSETS = 0.5  # voxels between a profile's samples
SHIFTS = 0.25  # voxels between the shifts that are tried, and between a template's samples
_RIDGE = 0.5  # of the noise's mean variance, added to each of its directions: a template is not right to less than that


class Placed(NamedTuple):
    """What a profile says of one point.

    Attributes:
        shift: along the normal, from the point to the membrane, voxels.
        sigma: its standard deviation, voxels; that of the range of shifts if the profile says nothing.
        log_odds: of a membrane within that range against none.
        amplitude: of the membrane over that of the template.
    """

    shift: Float[Array, ""]
    sigma: Float[Array, ""]
    log_odds: Float[Array, ""]
    amplitude: Float[Array, ""]


def profile_along(
    volume: Float[Array, "z y x"],
    point: Float[Array, " 3"],
    normal: Float[Array, " 3"],
    offsets: Float[Array, " t"],
) -> Float[Array, " t"]:
    """Density along the line through a point, by linear interpolation; beyond the volume its border goes on.

    Arguments:
        volume: a tomogram or part of one.
        point: zyx, voxels.
        normal: unit vector.
        offsets: from the point, voxels.
    """
    places = point[:, None] + normal[:, None] * offsets[None]
    return map_coordinates(volume, list(places), order=1, mode="nearest")


def whitening(covariance: Float[Array, "t t"]) -> Float[Array, "w t"]:
    """What turns a profile's noise into independent unit noise, blind to the profile's mean and slope.

    Arguments:
        covariance: of the noise of profiles, of a background apart; any positive multiple of the identity for white noise.
    """
    t = len(covariance)
    rest = _rest(t, covariance.dtype)
    inner = rest @ covariance @ rest.T
    ridge = _RIDGE * jnp.trace(inner) / (t - 2)
    lower = jnp.linalg.cholesky(inner + ridge * jnp.eye(t - 2, dtype=covariance.dtype))
    return jax.lax.linalg.triangular_solve(lower, rest, left_side=True, lower=True)


def place(
    profile: Float[Array, " t"],
    template: Float[Array, " s"],
    whitener: Float[Array, "w t"],
    amplitude: Scalar,
    spread: Scalar,
) -> Placed:
    """The shift of a template along a profile by its posterior mean, its error, and the odds that a membrane is there.

    The profile is a template times an amplitude, shifted, plus a background with a slope, plus noise. The amplitude is normal about
    what the membrane has elsewhere, and integrated out; all shifts within the template's margin are as likely before.

    Arguments:
        profile: density along the normal, every `OFFSETS` voxels.
        template: density that a membrane at the point would show, every `SHIFTS` voxels, about the same middle; what it is longer
            by is the range of the shifts.
        whitener: of the noise, from `whitening`.
        amplitude, spread: mean and standard deviation of the template's factor.

    Returns:
        Differentiable in everything.
    """
    t, many = len(profile), round(OFFSETS / SHIFTS)
    shifts = (len(template) - ((t - 1) * many + 1)) // 2
    # the template shifted by d is read at the offset less d
    rows = jnp.arange(2 * shifts, -1, -1)[:, None] + many * jnp.arange(t)[None]
    x = template[rows] @ whitener.T
    y = whitener @ profile
    square, product = jnp.sum(x * x, 1), x @ y
    precision = 1.0 / jnp.asarray(spread, profile.dtype) ** 2
    best = (product + amplitude * precision) / (square + precision)
    level = 0.5 * (best**2 * (square + precision) - amplitude**2 * precision - jnp.log1p(square / precision))
    weight = jax.nn.softmax(level)
    d = SHIFTS * jnp.arange(-shifts, shifts + 1, dtype=profile.dtype)
    mean = weight @ d
    # a step of the grid is itself uncertain by so much
    variance = weight @ (d - mean) ** 2 + SHIFTS**2 / 12.0
    odds = logsumexp(level) - jnp.log(jnp.asarray(len(d), profile.dtype))
    return Placed(mean, safe_sqrt(variance), odds, weight @ best)


def residual(profile: Float[Array, " t"], template: Float[Array, " s"], placed: Placed) -> Float[Array, " t"]:
    """What is left of a profile without the membrane where it was placed, and without its mean and slope.

    Arguments:
        profile, template: see `place`.
        placed: what it returned.
    """
    t, many = len(profile), round(OFFSETS / SHIFTS)
    start = (len(template) - ((t - 1) * many + 1)) // 2
    where = start + many * jnp.arange(t, dtype=profile.dtype) - placed.shift / SHIFTS
    shifted = jnp.interp(where, jnp.arange(len(template), dtype=profile.dtype), template)
    rest = _rest(t, profile.dtype)
    return rest.T @ (rest @ (profile - placed.amplitude * shifted))


def _rest(t: int, dtype: jnp.dtype) -> Float[Array, "w t"]:
    """An orthonormal basis of the profiles that have no mean and no slope."""
    line = jnp.linspace(-1.0, 1.0, t, dtype=dtype)
    return jnp.linalg.qr(jnp.stack([jnp.ones(t, dtype), line], 1), mode="complete")[0][:, 2:].T


def local_information(normal: Float[Array, " 3"], bilayer: Bilayer, patch: Scalar, wedge: Wedge) -> Float[Array, ""]:
    """Share of what a small patch of membrane tells of its place that the missing wedge leaves, 0...1.

    A patch that moves by itself changes waves about its normal; the smaller it is, the wider they are spread.

    Arguments:
        normal: of the patch, zyx, unit.
        bilayer: density across the membrane.
        patch: standard deviation of the patch's Gaussian weights, voxels.
        wedge: range of tilts.
    """
    dtype = normal.dtype
    along = jnp.linspace(0.02, 0.5, 24, dtype=dtype)  # cycles a voxel
    phase = 2.0 * jnp.pi * STEP * along[:, None] * jnp.arange(len(bilayer.values), dtype=dtype)[None]
    values = bilayer.values.astype(dtype)
    weight = along**2 * ((jnp.cos(phase) @ values) ** 2 + (jnp.sin(phase) @ values) ** 2)
    # radii that hold equal shares of the weights across, which are Gaussian
    radius = jnp.sqrt(-jnp.log1p(-(jnp.arange(6, dtype=dtype) + 0.5) / 6.0)) / (2.0 * jnp.pi * patch)
    turn = jnp.arange(12, dtype=dtype) * jnp.asarray(jnp.pi / 6.0, dtype)
    helper = jnp.where(jnp.abs(normal[0]) < 0.7, jnp.array([1.0, 0.0, 0.0], dtype), jnp.array([0.0, 1.0, 0.0], dtype))
    first = unit(jnp.cross(normal, helper))
    ring = jnp.cos(turn)[:, None] * first[None] + jnp.sin(turn)[:, None] * jnp.cross(normal, first)[None]
    k = along[:, None, None, None] * normal[None, None, None] + (radius[:, None, None] * ring[None])[None]
    passed = passes(k, wedge).mean((1, 2))
    return jnp.sum(weight * passed) / jnp.maximum(jnp.sum(weight), jnp.finfo(dtype).tiny)
