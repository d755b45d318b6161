"""Covariance functions, written for one pair of points.

`ThinPlate` and `Cubic` are the Green's functions of Williams & Fitzgibbon (2007), scaled so that k(0) is the prior variance.
The paper's own scale is `variance = R**2` for the thin plate and `R**3` for the cubic. They are positive definite only on a
ball: R must exceed every distance at which they are evaluated by `Kernel.margin`. The Matern kernels and the squared
exponential are there for comparison; they are positive definite everywhere, and their R is a length scale.
"""

import abc
import functools
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmem.numerics import safe_sqrt


class Kernel(eqx.Module):
    """A stationary covariance function with variance k(0) and a length R (voxels, like the points).

    With s the squared distance over R squared, k / k(0) is `polynomial[0] + polynomial[1] s + rough(s)`. The polynomial is
    kept apart because its sums over many points need few operations and high precision, the rest many and little.
    """

    variance: eqx.AbstractVar[Float[Array, ""]]
    R: eqx.AbstractVar[Float[Array, ""]]
    margin: ClassVar[float] = 0.0
    polynomial: ClassVar[tuple[float, float]] = (0.0, 0.0)

    @abc.abstractmethod
    def rough(self, square: Float[Array, ""]) -> Float[Array, ""]:
        """What is not polynomial in k / k(0), as a function of the squared distance over R squared."""

    def profile(self, square: Float[Array, ""]) -> Float[Array, ""]:
        """k / k(0) as a function of the squared distance over R squared."""
        return self.polynomial[0] + self.polynomial[1] * square + self.rough(square)

    @property
    def reach(self) -> Float[Array, ""]:
        """Largest distance at which this is a covariance function: R, or infinity if `margin` is 0."""
        return self.R if self.margin else jnp.full_like(self.R, jnp.inf)

    def __call__(self, x: Float[Array, " d"], y: Float[Array, " d"]) -> Float[Array, ""]:
        """Covariance of the function's values at two points."""
        return self.variance * self.profile(squared_distance(x, y, self.R))


def squared_distance(x: Float[Array, " d"], y: Float[Array, " d"], R: Float[Array, ""]) -> Float[Array, ""]:
    """|x - y|^2 / R^2, coordinate by coordinate: under vmap XLA makes one loop of it, faster than a sum over an axis."""
    return functools.reduce(jnp.add, [((x[i] - y[i]) / R) ** 2 for i in range(x.shape[0])])


class ThinPlate(Kernel):
    """Thin plate kernel for two dimensions (paper, equation 6): 2 p^2 log p - p^2 + 1 with p = r / R.

    Example:
        >>> k = ThinPlate(jnp.array(4.0), jnp.array(2.0))
        >>> float(k(jnp.zeros(2), jnp.zeros(2)))
        4.0
    """

    variance: Float[Array, ""]
    R: Float[Array, ""]
    margin: ClassVar[float] = 1.2
    polynomial: ClassVar[tuple[float, float]] = (1.0, -1.0)

    def rough(self, square):
        positive = square > 0
        return jnp.where(positive, square * jnp.log(jnp.where(positive, square, 1.0)), 0.0)


class Cubic(Kernel):
    """Cubic kernel for three dimensions (paper, equation 7 with its sign mended): 2 p^3 - 3 p^2 + 1 with p = r / R.

    Example:
        >>> k = Cubic(jnp.array(8.0), jnp.array(2.0))
        >>> float(k(jnp.zeros(3), jnp.array([2.0, 0.0, 0.0])))
        0.0
    """

    variance: Float[Array, ""]
    R: Float[Array, ""]
    margin: ClassVar[float] = 1.3
    polynomial: ClassVar[tuple[float, float]] = (1.0, -3.0)

    def rough(self, square):
        return 2.0 * square * safe_sqrt(square)


class SquaredExponential(Kernel):
    """exp(-p^2 / 2) with p = r / R: infinitely smooth."""

    variance: Float[Array, ""]
    R: Float[Array, ""]

    def rough(self, square):
        return jnp.exp(-0.5 * square)


@jax.custom_jvp
def _matern32(square: Array) -> Array:
    root = safe_sqrt(square)
    return (1.0 + root) * jnp.exp(-root)


@_matern32.defjvp
def _matern32_jvp(primals, tangents):
    (square,), (step,) = primals, tangents
    return _matern32(square), -0.5 * jnp.exp(-safe_sqrt(square)) * step


@jax.custom_jvp
def _matern52(square: Array) -> Array:
    root = safe_sqrt(square)
    return (1.0 + root + square / 3.0) * jnp.exp(-root)


@_matern52.defjvp
def _matern52_jvp(primals, tangents):
    (square,), (step,) = primals, tangents
    return _matern52(square), -_matern32(square) / 6.0 * step


class Matern32(Kernel):
    """(1 + sqrt(3) p) exp(-sqrt(3) p) with p = r / R (Rasmussen & Williams 2006, equation 4.17): once differentiable."""

    variance: Float[Array, ""]
    R: Float[Array, ""]

    def rough(self, square):
        return _matern32(3.0 * square)


class Matern52(Kernel):
    """(1 + sqrt(5) p + 5 p^2 / 3) exp(-sqrt(5) p) with p = r / R (Rasmussen & Williams 2006, equation 4.17)."""

    variance: Float[Array, ""]
    R: Float[Array, ""]

    def rough(self, square):
        return _matern52(5.0 * square)


def valid_radius(kernel: type[Kernel], points: np.ndarray) -> float:
    """R for which `kernel` is positive definite on `points` and everything between them.

    The largest distance is bounded by the diagonal of the bounding box in principal axes, so that no pair is missed and
    not all pairs are visited.

    Arguments:
        kernel: the class, whose `margin` is the measured ratio of R to the largest distance.
        points: (n, d), every point at which the kernel will be evaluated: data, anchors, corners of the grid.

    Raises:
        ValueError: if there are fewer than two distinct points, or the kernel is valid everywhere: its R is a length scale.
    """
    if not kernel.margin:
        raise ValueError(f"valid_radius: {kernel.__name__} is positive definite everywhere; choose its length scale R")
    points = np.asarray(points, float)
    centred = points - points.mean(0)
    diameter = 2.0 * float(np.linalg.norm(centred, axis=1).max())
    if not np.isfinite(diameter) or not np.ptp(points, axis=0).max() > 0:
        raise ValueError("valid_radius: needs at least two distinct finite points")
    axes = np.linalg.svd(centred[:: max(1, len(points) // 4096)], full_matrices=False)[2]
    box = float(np.linalg.norm(np.ptp(centred @ axes.T, axis=0)))
    return kernel.margin * min(diameter, box)
