"""Differential geometry of a level set: where it is, which way it faces, how it bends, and how well all that is known."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxmem import gp

_STEPS = 4


class Geometry(NamedTuple):
    """A level set at given points.

    Attributes:
        points: (n, d) moved onto the level set, voxels.
        slope: (n, d) gradient of the function there.
        mean_curvature, gaussian_curvature: (n,) 1/voxel and 1/voxel^2; the former positive on a sphere.
    """

    points: Float[Array, "n d"]
    slope: Float[Array, "n d"]
    mean_curvature: Float[Array, " n"]
    gaussian_curvature: Float[Array, " n"]


class ErrorBars(NamedTuple):
    """Standard deviations at given points of a level set, and what a sampled surface does there.

    Attributes:
        position: (n,) of the surface along its normal, voxels.
        mean_curvature, gaussian_curvature: (n,) 1/voxel and 1/voxel^2.
        displacement: (draws, n) of sampled surfaces along the normal, outwards, voxels.
    """

    position: Float[Array, " n"]
    mean_curvature: Float[Array, " n"]
    gaussian_curvature: Float[Array, " n"]
    displacement: Float[Array, "draws n"]


def curvatures(slope: Float[Array, " d"], bend: Float[Array, "d d"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean and Gaussian curvature of a level set from the function's first and second derivatives (Goldman 2005).

    Two-dimensional curves have a curvature, returned as the mean one, and no Gaussian one: 0.

    Example:
        >>> mean, gauss = curvatures(jnp.array([0.0, 0.0, 4.0]), 2.0 * jnp.eye(3))  # |x|^2 on the sphere of radius 2
        >>> float(mean), float(gauss)
        (0.5, 0.25)
    """
    d = slope.shape[0]
    length = jnp.linalg.norm(slope)
    mean = (length**2 * jnp.trace(bend) - slope @ bend @ slope) / ((d - 1) * length**3)
    if d == 2:
        return mean, jnp.zeros_like(mean)
    adjugate = jnp.stack([jnp.cross(bend[1], bend[2]), jnp.cross(bend[2], bend[0]), jnp.cross(bend[0], bend[1])], 1)
    return mean, slope @ adjugate @ slope / length**4


def locate(function: gp.Expansion, point: Float[Array, " d"]) -> Float[Array, " d"]:
    """The point of the level set f = 0 that Newton's steps along the gradient reach, at most a voxel each.

    Its derivative with respect to the function (and through `gp.fit` to data, noise and hyperparameters) is that of the
    implicit function theorem, dx = -n df / |grad f| along the normal n: the search itself is not differentiated.

    Arguments:
        function: a posterior or a sample.
        point: start, within a few voxels of the level set.
    """
    frozen = jax.lax.stop_gradient(function)

    def step(_, q):
        value, slope, _ = gp.derivatives(frozen, q)
        move = value * slope / (jnp.sum(slope**2) + 1e-12)
        return q - move / jnp.maximum(1.0, jnp.linalg.norm(move))

    found = jax.lax.fori_loop(0, _STEPS, step, jax.lax.stop_gradient(point))
    slope = gp.gradient(frozen, found)
    return found - gp.mean(function, found) * slope / (jnp.sum(slope**2) + 1e-12)


def measure(function: gp.Expansion, points: Float[Array, "n d"]) -> Geometry:
    """Move points that lie within a fraction of a voxel of the level set onto it, and measure it there, in tiles."""
    value, slope = gp.slopes(function, points)
    near = points - _newton(value, slope)
    value, slope, bend = gp.over(gp.derivatives, function, near)
    mean, gauss = jax.vmap(curvatures)(slope, bend)
    return Geometry(near - _newton(value, slope), slope, mean, gauss)


def _newton(value, slope):
    move = value[:, None] * slope / (jnp.sum(slope**2, -1, keepdims=True) + 1e-12)
    return move / jnp.maximum(1.0, jnp.linalg.norm(move, axis=-1, keepdims=True))


def error_bars(
    key: Key[Array, ""],
    posterior: gp.Conditioned,
    points: Float[Array, "n d"],
    support: Float[Array, "m d"],
    draws: int,
) -> ErrorBars:
    """How well a level set is known at points of it, in tiles.

    The position's error is exact to first order: the standard deviation of f over its slope. Those of the curvatures are
    the spread over functions drawn from the posterior. Under the thin plate and the cubic kernel the curvature at a point
    has no finite variance; what is meant is that of the surface seen at the spacing of `support`.

    Arguments:
        key: random key.
        posterior: exact or sparse.
        points: on the level set.
        support: where samples are drawn, spread over the level set; see `gp.sample`.
        draws: number of samples; the standard deviations are good to a share 1 / sqrt(2 draws) of themselves.
    """
    expansion, weights = gp.sample(key, posterior, support, draws)

    def one(function, point):
        f = gp.derivatives(function, point)
        sigma = jnp.sqrt(gp.variance(posterior, point)) / jnp.linalg.norm(f.gradient)
        drawn = jax.vmap(lambda w: gp.derivatives(gp.drawn(function, w), point))(weights)
        mean, gauss = jax.vmap(curvatures)(drawn.gradient, drawn.hessian)
        shift = -(drawn.value - f.value) / jnp.linalg.norm(f.gradient)
        return sigma, mean.std(), gauss.std(), shift

    sigma, mean, gauss, shift = gp.over(one, expansion, points)
    return ErrorBars(sigma, mean, gauss, shift.T)
