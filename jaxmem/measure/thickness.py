"""The distance of a bilayer's two leaflets, from the density along its normal.

Two leaflets at a distance d show waves of k cycles a voxel by cos(pi k d), times a transfer that is the same for all membranes of a tomogram: a
leaflet's own width, the microscope's contrast transfer, the filters of the reconstruction. That transfer has one sign where waves are
longer than its first zero, so that the distance is told by where the profile's spectrum changes its own sign, at 1 / (2 d). The transfer is
learnt from the mean profile of what is seen whole; then each place has one unknown more, its distance.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from jaxmem.numerics import compiled, safe_sqrt
from jaxmem.types import Scalar

_WAVES, _FINEST = 40, 0.5  # waves that make up a profile, and the shortest, cycles a voxel
_SCALE = 0.2  # cycles a voxel: unit of the waves in the transfer's polynomial
_LOW = 0.02  # of its square: below, the transfer is level
_STEPS = 40  # of Levenberg and Marquardt
_SLACK = (0.3, 0.5)  # standard deviations of a place's own shift, voxels, and of its blur's square, voxels^2
_SPREAD = 0.4  # of a place's contrast, over the usual one


class Transfer(eqx.Module):
    """What a tomogram makes of a pair of thin leaflets.

    Attributes:
        coefficients: (4,) of the logarithm of what is left of a wave: 1, u, u^2 and log(u + 0.02), u the square of its frequency over 0.2
            cycles a voxel.
    """

    coefficients: Float[Array, " 4"]

    def __call__(self, k: Float[Array, "*w"]) -> Float[Array, "*w"]:
        """What is left of waves of k cycles a voxel."""
        u = (k / _SCALE) ** 2
        a, b, c, d = self.coefficients
        return jnp.exp(a + b * u + c * u**2 + d * jnp.log(u + _LOW))


class Leaflets(NamedTuple):
    """The distance of two leaflets at one place.

    Attributes:
        log_likelihood: (d,) at each distance that was asked about.
        distance: mean of the posterior, all of these being as likely before; in the distances' unit.
        sigma: its standard deviation.
        log_odds: of two leaflets at one of these distances against a single band.
    """

    log_likelihood: Float[Array, " d"]
    distance: Float[Array, ""]
    sigma: Float[Array, ""]
    log_odds: Float[Array, ""]


def _frequencies(dtype) -> Float[Array, " w"]:
    return (jnp.arange(_WAVES, dtype=dtype) + 0.5) * (_FINEST / _WAVES)


def pair(offsets: Float[Array, " t"], distance: Scalar, transfer: Transfer) -> Float[Array, " t"]:
    """Density of two leaflets, dark, along the normal through their middle.

    Arguments:
        offsets: from the middle, voxels.
        distance: of the leaflets, voxels; 0 is a single band.
        transfer: of the tomogram.
    """
    k = _frequencies(offsets.dtype)
    weight = transfer(k) * jnp.cos(jnp.pi * k * distance)
    return -jnp.cos(2.0 * jnp.pi * offsets[:, None] * k[None]) @ weight


def changes(offsets: Float[Array, " t"], distance: Scalar, transfer: Transfer) -> Float[Array, "t 3"]:
    """The pair, and how it changes when it is shifted, and when the square of its blur grows.

    Arguments:
        offsets, distance, transfer: as for `pair`.
    """
    k = _frequencies(offsets.dtype)
    weight = transfer(k) * jnp.cos(jnp.pi * k * distance)
    phase = 2.0 * jnp.pi * offsets[:, None] * k[None]
    turn = 2.0 * jnp.pi * k
    parts = -jnp.cos(phase) @ weight, -jnp.sin(phase) @ (turn * weight), jnp.cos(phase) @ (0.5 * turn**2 * weight)
    return jnp.stack(parts, 1)


def _level(profile: Array) -> Array:
    """Without its mean and its slope."""
    t = len(profile)
    line = jnp.linspace(-1.0, 1.0, t, dtype=profile.dtype)
    return profile - jnp.mean(profile) - line * (line @ profile) / (line @ line)


@compiled
def learn_transfer(
    profile: Float[Array, " t"], offsets: Float[Array, " t"], starts: Float[Array, " s"]
) -> tuple[Transfer, Float[Array, ""], Float[Array, ""]]:
    """The transfer and the leaflets' mean distance that explain a mean profile best, by least squares.

    Arguments:
        profile: mean density along the normal, of places that are seen whole; even about its middle.
        offsets: from the middle, voxels.
        starts: distances from which the best one is sought, voxels.

    Returns:
        The transfer, the distance (voxels), and the share of the profile's variance that is left. Differentiable in the profile, by the implicit
        function theorem; the starts have no gradient, and nothing has one where the search ended more than a step of 0.1 from its end.
    """
    dtype = profile.dtype
    scale = jnp.maximum(jnp.max(jnp.abs(profile)), jnp.finfo(dtype).tiny)
    wanted = _level(profile / scale)

    def model(p):
        return _level(pair(offsets, p[4], Transfer(p[:4])))

    # what nothing is known about stays within reason
    weak = 0.02 * jnp.array([0.0, 0.03, 0.1, 0.1, 0.0], dtype)

    def misfit(p, first, wanted):
        return jnp.concatenate([model(p) - wanted, weak * (p - first)])

    def begin(start):
        first = jnp.stack([jnp.zeros((), dtype), -jnp.ones((), dtype), *jnp.zeros((2,), dtype), start])
        shape = model(first)
        size = jnp.vdot(shape, wanted) / jnp.maximum(jnp.vdot(shape, shape), jnp.finfo(dtype).tiny)
        return first.at[0].set(jnp.log(jnp.clip(size, 1e-3, 1e3)))

    def search(first):
        given = jax.lax.stop_gradient(wanted)

        def step(state, _):
            p, damping, value = state
            r, jacobian = misfit(p, first, given), jax.jacfwd(misfit)(p, first, given)
            square = jacobian.T @ jacobian
            move = jnp.linalg.solve(square + damping * jnp.diag(jnp.diagonal(square) + 1e-9), -jacobian.T @ r)
            tried = p + jnp.clip(move, -0.7, 0.7)
            better = jnp.sum(misfit(tried, first, given) ** 2)
            good = better < value
            return (
                jnp.where(good, tried, p),
                jnp.where(good, 0.3 * damping, 4.0 * damping),
                jnp.where(good, better, value),
            ), None

        state = (first, jnp.asarray(1e-2, dtype), jnp.sum(misfit(first, first, given) ** 2))
        (p, _, value), _ = jax.lax.scan(step, state, length=_STEPS)
        return p, value

    first = jax.vmap(begin)(starts)
    p, value = jax.vmap(search)(jax.lax.stop_gradient(first))
    best = jnp.argmin(value)

    # the search is not differentiated: a step of Newton's from where it ends has the derivative of what it seeks
    def half(p, wanted):
        return 0.5 * jnp.sum(misfit(p, jax.lax.stop_gradient(first[best]), wanted) ** 2)

    at = jax.lax.stop_gradient(p[best])
    bend = jax.lax.stop_gradient(jax.hessian(half)(at, wanted))
    move = jnp.linalg.solve(bend, jax.grad(half)(at, wanted))
    chosen = at - jnp.where(jnp.all(jnp.isfinite(move)) & (jnp.max(jnp.abs(move)) < 0.1), move, 0.0)
    left = jnp.sum((model(chosen) - wanted) ** 2) / jnp.maximum(jnp.sum(wanted**2), jnp.finfo(dtype).tiny)
    return Transfer(chosen[:4].at[0].add(jnp.log(scale))), chosen[4], left


def leaflets(
    profile: Float[Array, " t"],
    offsets: Float[Array, " t"],
    distances: Float[Array, " d"],
    transfer: Transfer,
    whitener: Float[Array, "w t"],
    amplitude: Scalar = 1.0,
) -> Leaflets:
    """The leaflets' distance at one place: its likelihood with contrast, shift and blur integrated out.

    The profile is the pair times a contrast, shifted and blurred a little, plus a background with a slope, plus noise. Contrast,
    shift and change of blur are normal.

    Arguments:
        profile: density along the normal.
        offsets: of its samples, voxels.
        distances: that are asked about, evenly spaced, voxels.
        transfer: of the tomogram, from `learn_transfer`.
        whitener: of the noise, from `density.whitening`.
        amplitude: contrast that membranes have, over that of the mean profile.

    Returns:
        Differentiable in everything.
    """
    dtype = profile.dtype
    y = whitener @ profile
    usual = jnp.asarray(amplitude, dtype)
    shift, blur = _SLACK
    spread = jnp.stack([_SPREAD * usual, usual * shift, usual * blur])

    def level(distance):
        x = whitener @ changes(offsets, distance, transfer)
        r = y - usual * x[:, 0]
        scaled = x * spread[None]
        inner = jnp.eye(3, dtype=dtype) + scaled.T @ scaled
        factor = jnp.linalg.cholesky(inner)
        pulled = jax.scipy.linalg.solve_triangular(factor, scaled.T @ r, lower=True)
        return -0.5 * (r @ r - pulled @ pulled) - jnp.sum(jnp.log(jnp.diagonal(factor)))

    found = jax.vmap(level)(distances)
    return Leaflets(
        found, *moments(found, distances), logsumexp(found) - jnp.log(len(distances)) - level(jnp.zeros((), dtype))
    )


def moments(
    log_likelihood: Float[Array, " d"], distances: Float[Array, " d"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean and standard deviation of a distance of which so much is likely, all being alike before.

    Arguments:
        log_likelihood: at each distance; several places' may be added up.
        distances: evenly spaced.
    """
    weight = jax.nn.softmax(log_likelihood)
    mean = weight @ distances
    step = distances[1] - distances[0]
    return mean, safe_sqrt(weight @ (distances - mean) ** 2 + step**2 / 12.0)
