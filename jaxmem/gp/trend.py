"""What is expected of a function before data are seen: a kernel about nothing, or about the distance to an uncertain ellipsoid."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmem.ellipse import Quadric, triangular
from jaxmem.gp.kernels import Kernel


class Trend(eqx.Module):
    """A prior mean m(x) with p uncertain parameters, to first order: m(x) + basis(x) . b with b ~ N(0, sigma^2).

    Added to a kernel it makes the prior covariance k(x, y) + basis(x) . sigma^2 basis(y) (universal kriging; Rasmussen &
    Williams 2006, Section 2.7).
    """

    @abc.abstractmethod
    def value(self, point: Float[Array, " d"]) -> Float[Array, ""]:
        """m at one point."""

    @abc.abstractmethod
    def features(self, point: Float[Array, " d"]) -> Float[Array, " p"]:
        """The basis functions at one point, each times the standard deviation of its coefficient."""

    @abc.abstractmethod
    def moved(self, coefficients: Float[Array, " p"], point: Float[Array, " d"]) -> Float[Array, ""]:
        """value(point) + features(point) . coefficients, at the cost of the value."""


class Zero(Trend):
    """No trend: the prior mean is zero and certain."""

    def value(self, point):
        return jnp.zeros((), point.dtype)

    def features(self, point):
        return jnp.zeros((0,), point.dtype)

    def moved(self, coefficients, point):
        return jnp.zeros((), point.dtype)


class Ellipsoid(Trend):
    """First-order signed distance to an ellipse or ellipsoid, in voxels, negative inside.

    (q - 1) / |grad q| with q = |M (x - c)|. The parameters are the centre over the size, and the entries of M times the
    size, all with standard deviation `sigma`: what deviates from any ellipsoid is left to the kernel.

    Example:
        >>> from jaxmem.ellipse import ball
        >>> sphere = Ellipsoid(ball(jnp.zeros(3), 10.0), jnp.array(0.2))
        >>> round(float(sphere.value(jnp.array([12.0, 0.0, 0.0]))), 6), sphere.features(jnp.ones(3)).shape
        (2.0, (9,))
    """

    ellipse: Quadric
    sigma: Float[Array, ""]

    def _distance(self, theta, point):
        d = point.shape[0]
        size = self._size()
        centre = self.ellipse.centre + size * theta[:d]
        shape = triangular(self.ellipse).at[jnp.tril_indices(d)].add(theta[d:] / size)
        mapped = shape @ (point - centre)
        slope = shape.T @ mapped
        floor = float(
            jnp.finfo(point.dtype).eps
        )  # rounds the tip at the centre, so that it has derivatives of any order
        q = jnp.sqrt(jnp.sum(mapped**2) + floor)
        return (q - 1.0) * q / jnp.sqrt(jnp.sum(slope**2) + floor / size**2)

    def _size(self):
        return jnp.exp(jnp.mean(jnp.log(self.ellipse.semi_axes)))

    def _zero(self, point):
        d = point.shape[0]
        return jnp.zeros(d + d * (d + 1) // 2, point.dtype)

    def value(self, point):
        return self._distance(self._zero(point), point)

    def features(self, point):
        return self.sigma * jax.grad(self._distance)(self._zero(point), point)

    def moved(self, coefficients, point):
        value, step = jax.jvp(
            lambda theta: self._distance(theta, point), (self._zero(point),), (self.sigma * coefficients,)
        )
        return value + step


class Prior(eqx.Module):
    """What is expected of a function before data are seen: a kernel about a trend.

    Attributes:
        kernel: covariance of what deviates from the trend.
        trend: prior mean; zero by default.

    Example:
        >>> from jaxmem.gp import Cubic
        >>> type(Prior(Cubic(jnp.array(1.0), jnp.array(9.0))).trend).__name__
        'Zero'
    """

    kernel: Kernel
    trend: Trend = Zero()


def as_prior(prior: Kernel | Prior) -> Prior:
    """A kernel alone is a prior about zero."""
    return prior if isinstance(prior, Prior) else Prior(prior)
