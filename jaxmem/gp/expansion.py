"""Functions of the form f(x) = m(x) + sum_j w_j k(x, x_j): posterior means and samples, their derivatives, one point or many."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmem.gp.kernels import Kernel, squared_distance
from jaxmem.gp.trend import Trend
from jaxmem.numerics import compiled

_BLOCK = 128  # points at a time against all data: what they share stays in the cache


class Expansion(eqx.Module):
    """A function m(x) + sum_j w_j c(x, x_j), where c is the kernel and what the trend's uncertain parameters add to it.

    Attributes:
        kernel: covariance function.
        trend: prior mean m.
        points: (n, d) voxels; padded rows have weight 0.
        features: (n, p) the trend's basis functions at `points`.
        weights: (n,) coefficients.
    """

    kernel: Kernel
    trend: Trend
    points: Float[Array, "n d"]
    features: Float[Array, "n p"]
    weights: Float[Array, " n"]

    def smooth(self, point: Float[Array, " d"]) -> Float[Array, ""]:
        """The trend with its parameters as the weights have moved them."""
        return self.trend.moved(self.weights @ self.features, point)

    def covariances(self, point: Float[Array, " d"]) -> Float[Array, " n"]:
        """Prior covariances of the function at one point with those at `points`."""
        return jax.vmap(lambda b: self.kernel(point, b))(self.points) + self.features @ self.trend.features(point)


class Derivatives(NamedTuple):
    """Value, gradient (d,) and second derivatives (d, d) of a function at one point; per voxel, per voxel^2."""

    value: Float[Array, "*m"]
    gradient: Float[Array, "*m d"]
    hessian: Float[Array, "*m d d"]


@compiled
def mean(function: Expansion, point: Float[Array, " d"]) -> Float[Array, ""]:
    """Value of the function at one point; of a posterior, its mean (paper, equation 3)."""
    terms = jax.vmap(lambda b: function.kernel(point, b))(function.points)
    return function.smooth(point) + jnp.dot(terms, function.weights)


@compiled
def derivatives(function: Expansion, point: Float[Array, " d"]) -> Derivatives:
    """The function with its first and second derivatives at one point, in one pass over the data.

    With s = |x - x_j|^2 / R^2 the function is sum_j w_j p(s_j), so its derivatives are moments of w_j p'(s_j) and
    w_j p''(s_j) over the data: matrix products, many times faster than differentiating the sum twice. Reverse-mode
    derivatives of `mean` agree (tested).
    """
    kernel, x = function.kernel, function.points
    scale = 1.0 / kernel.R**2
    square = jax.vmap(lambda b: squared_distance(point, b, kernel.R))(x)
    first, second = jax.grad(kernel.profile), jax.grad(jax.grad(kernel.profile))
    weights = kernel.variance * function.weights
    c0 = weights * jax.vmap(kernel.profile)(square)
    c1 = weights * jax.vmap(first)(square) * (2.0 * scale)
    c2 = weights * jax.vmap(second)(square) * (4.0 * scale**2)
    d = x.shape[1]
    outer = (x[:, :, None] * x[:, None, :]).reshape(-1, d * d)
    pull1, pull2, total1, total2 = c1 @ x, c2 @ x, c1.sum(), c2.sum()
    spread = (c2 @ outer).reshape(d, d) - jnp.outer(point, pull2) - jnp.outer(pull2, point)
    bend = total1 * jnp.eye(d, dtype=x.dtype) + spread + total2 * jnp.outer(point, point)
    smooth, slope = jax.value_and_grad(function.smooth)(point)
    return Derivatives(c0.sum() + smooth, total1 * point - pull1 + slope, bend + jax.hessian(function.smooth)(point))


@compiled
def derivatives_of(function: Expansion, weights: Float[Array, "draws n"], point: Float[Array, " d"]) -> Derivatives:
    """`derivatives` for many weights at once, as those of samples: what they share is computed once.

    All moments are one matrix product, with differences taken before sums. For a single function `derivatives` is faster.

    Arguments:
        function: whose kernel, trend and points are used.
        weights: (draws, n) in place of the function's own, as `sample` gives them.
        point: (d,) voxels.

    Returns:
        Values (draws,), gradients (draws, d) and second derivatives (draws, d, d); of a signed distance, voxels, 1 and 1/voxel.
    """
    kernel, x = function.kernel, function.points
    n, d = x.shape
    scale = 1.0 / kernel.R**2
    square = jax.vmap(lambda b: squared_distance(point, b, kernel.R))(x)
    step = point[None] - x
    c0 = jax.vmap(kernel.profile)(square)
    c1 = jax.vmap(jax.grad(kernel.profile))(square) * (2.0 * scale)
    c2 = jax.vmap(jax.grad(jax.grad(kernel.profile)))(square) * (4.0 * scale**2)
    outer = (c2[:, None, None] * step[:, :, None] * step[:, None, :]).reshape(n, d * d)
    moments = kernel.variance * weights @ jnp.concatenate([c0[:, None], c1[:, None], c1[:, None] * step, outer], 1)
    value, total, slope, bend = jnp.split(moments, [1, 2, 2 + d], -1)
    bend = bend.reshape(*bend.shape[:-1], d, d) + total[..., None] * jnp.eye(d, dtype=x.dtype)[None]

    coefficients, trend = weights @ function.features, function.trend
    parts = trend.value(point), jax.grad(trend.value)(point), jax.hessian(trend.value)(point)
    bases = trend.features(point), jax.jacfwd(trend.features)(point), jax.jacfwd(jax.jacfwd(trend.features))(point)
    moved = [part[None] + jnp.tensordot(coefficients, basis, 1) for part, basis in zip(parts, bases)]
    return Derivatives(value[..., 0] + moved[0], slope + moved[1], bend + moved[2])


@compiled
def gradient(function: Expansion, point: Float[Array, " d"]) -> Float[Array, " d"]:
    """Gradient of the function at one point."""
    return derivatives(function, point).gradient


@compiled
def hessian(function: Expansion, point: Float[Array, " d"]) -> Float[Array, "d d"]:
    """Second derivatives of the function at one point."""
    return derivatives(function, point).hessian


def map_points(one: Callable[[Any, Float[Array, " d"]], Any], function: Expansion, points: Float[Array, "m d"]) -> Any:
    """`one(function, point)` at many points, in tiles: memory does not grow with points times data.

    Example:
        >>> from jaxmem import gp
        >>> k = gp.Cubic(jnp.array(1.0), jnp.array(9.0))
        >>> f = gp.fit(jnp.ones((2, 3)), jnp.ones(2), noise=1.0, prior=k)
        >>> gp.map_points(gp.gradient, f, jnp.zeros((5, 3))).shape
        (5, 3)
    """
    return jax.lax.map(functools.partial(one, function), points, batch_size=_BLOCK)


class _Single(NamedTuple):
    """An expansion with the polynomial part of its terms summed in the inputs' precision, the rest ready in single precision."""

    kernel: Kernel
    x: Float[Array, "n d"]
    weights: Float[Array, " n"]
    total: Float[Array, ""]
    pull: Float[Array, " d"]
    spread: Float[Array, ""]


def _single(function: Expansion) -> _Single:
    x, weights = function.points, function.kernel.variance * function.weights
    kernel, *half = jax.tree.map(lambda a: a.astype(jnp.float32), (function.kernel, x, weights))
    return _Single(kernel, half[0], half[1], weights.sum(), weights @ x, weights @ jnp.sum(x**2, 1))


def _polynomial(kernel: Kernel, sums: _Single, points: Float[Array, "m d"]) -> Float[Array, " m"]:
    """The polynomial part of all terms together, from the moments of the weights."""
    constant, linear = kernel.polynomial
    square = jnp.sum(points**2, 1) * sums.total - 2.0 * points @ sums.pull + sums.spread
    return constant * sums.total + linear / kernel.R**2 * square


@compiled
def means(function: Expansion, points: Float[Array, "m d"]) -> Float[Array, " m"]:
    """The function at many points, in tiles, several times faster than `map_points(mean, ...)`.

    The terms' polynomial part is summed exactly, as moments of the weights; the rest is evaluated in single precision,
    whatever the dtype. The result keeps the inputs' dtype. Against double precision all through this costs thousandths of a
    voxel (`benchmarks/gp.py --sparse`); all in single precision would cost tenths, because large terms cancel.

    Arguments:
        function: with weights from a solve in double precision.
        points: any number, voxels.
    """
    sums = _single(function)

    def rough(point):
        square = jax.vmap(lambda b: squared_distance(point, b, sums.kernel.R))(sums.x)
        return jnp.dot(jax.vmap(sums.kernel.rough)(square), sums.weights)

    values = jax.lax.map(rough, points.astype(jnp.float32), batch_size=_BLOCK)
    smooth = _polynomial(function.kernel, sums, points) + jax.vmap(function.smooth)(points)
    return smooth + values.astype(points.dtype)


@compiled
def slopes(function: Expansion, points: Float[Array, "m d"]) -> tuple[Float[Array, " m"], Float[Array, "m d"]]:
    """Values and gradients at many points, as fast and as precise as `means`."""
    sums = _single(function)
    first = jax.vmap(jax.value_and_grad(sums.kernel.rough))

    def rough(point):
        value, slope = first(jax.vmap(lambda b: squared_distance(point, b, sums.kernel.R))(sums.x))
        pull = slope * sums.weights
        # differences first: the pulls of many points cancel
        steps = [jnp.sum(pull * (point[i] - sums.x[:, i])) for i in range(point.shape[0])]
        return jnp.dot(value, sums.weights), 2.0 / sums.kernel.R**2 * jnp.stack(steps)

    values, gradients = jax.lax.map(rough, points.astype(jnp.float32), batch_size=_BLOCK)
    linear = function.kernel.polynomial[1] * 2.0 / function.kernel.R**2
    trend, slope = jax.vmap(jax.value_and_grad(function.smooth))(points)
    return (
        _polynomial(function.kernel, sums, points) + trend + values.astype(points.dtype),
        linear * (points * sums.total - sums.pull[None]) + slope + gradients.astype(points.dtype),
    )


def with_weights(function: Expansion, weights: Float[Array, " n"]) -> Expansion:
    """The function with other weights: one of those that `sample` drew, for instance."""
    return eqx.tree_at(lambda f: f.weights, function, weights)
