"""Differential geometry of a level set: where it is, which way it faces, how it bends, and how well all that is known."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmem import gp
from jaxmem.numerics import compiled, safe_norm

_STEPS = 5  # of Newton's method along a line


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


class Drawn(NamedTuple):
    """What surfaces drawn from the posterior do at given points of the level set of its mean.

    Attributes:
        mean_curvature, gaussian_curvature: (draws, n) 1/voxel and 1/voxel^2.
        displacement: (draws, n) along the normal, outwards, voxels.
    """

    mean_curvature: Float[Array, "draws n"]
    gaussian_curvature: Float[Array, "draws n"]
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


@compiled
def locate(function: gp.Expansion, point: Float[Array, " d"], direction: Float[Array, " d"]) -> Float[Array, " d"]:
    """Where a line meets the level set f = 0: five of Newton's steps from a point along a direction, at most a voxel each.

    Its derivative with respect to the function (and through `gp.fit` to data, noise and hyperparameters) is that of the
    implicit function theorem, dt = -df / (grad f . direction): the search itself is not differentiated. Along the unit
    normal of the level set, dt is what the surface moves.

    Arguments:
        function: a posterior or a sample.
        point: start, within a few voxels of the level set; from farther away the search stops short of it, and f there is
            not zero.
        direction: of any length, not tangential to the level set.
    """
    frozen, start, way = jax.lax.stop_gradient((function, point, direction / safe_norm(direction)))

    def step(_, t):
        value, slope, _ = gp.derivatives(frozen, start + t * way)
        return t - jnp.clip(value / (slope @ way), -1.0, 1.0)

    found = start + jax.lax.fori_loop(0, _STEPS, step, jnp.zeros((), point.dtype)) * way
    change = gp.mean(function, found) - gp.mean(frozen, found)
    return found - change / (gp.gradient(frozen, found) @ way) * way


@compiled
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


@compiled
def position_sigma(posterior: gp.Conditioned, points: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Standard deviation of a level set's position along its normal at points of it, voxels, to first order, in tiles."""
    variance = gp.over(gp.variance, posterior, points)
    return jnp.sqrt(variance) / jnp.linalg.norm(gp.slopes(posterior, points)[1], axis=-1)


@compiled
def draw(expansion: gp.Expansion, weights: Float[Array, "draws k"], points: Float[Array, "n d"]) -> Drawn:
    """Curvatures and displacements of surfaces drawn from the posterior, in tiles.

    Under the thin plate and the cubic kernel the curvature at a point has no finite variance; a drawn surface shows that at
    the spacing of the points where it was drawn. Standard deviations over the draws are good to a share
    1 / sqrt(2 draws) of themselves.

    Arguments:
        expansion, weights: from `gp.sample`, drawn at points spread over the level set.
        points: on the level set of the mean.
    """

    def one(function, point):
        value, slope, bend = gp.derivatives_of(function, jnp.vstack([function.weights, weights]), point)
        mean, gauss = jax.vmap(curvatures)(slope[1:], bend[1:])
        return mean, gauss, (value[0] - value[1:]) / jnp.linalg.norm(slope[0])

    return Drawn(*(a.T for a in gp.over(one, expansion, points)))
