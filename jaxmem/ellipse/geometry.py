"""Ellipses and ellipsoids as pytrees: conversions, orthogonal distances, sampling, size (zyx order, voxels)."""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxmem.numerics import compiled
from jaxmem.types import Scalar


class Ellipse(NamedTuple):
    """An ellipse in a slice.

    Attributes:
        centre: (row, column), voxels.
        semi_axes: voxels, positive; fits return the longer one first.
        angle: of the first semi-axis, radians, from the row axis towards the column axis.

    Example:
        >>> lying = Ellipse(jnp.array([20.0, 30.0]), jnp.array([8.0, 5.0]), jnp.array(jnp.pi / 2))
        >>> [round(float(distance(lying, jnp.array(p))), 4) for p in ([20.0, 39.0], [26.0, 30.0], [20.0, 30.0])]
        [1.0, 1.0, -5.0]
    """

    centre: Float[Array, " 2"]
    semi_axes: Float[Array, " 2"]
    angle: Float[Array, ""]

    @property
    def rotation(self) -> Float[Array, "2 2"]:
        """Rows are the directions of the semi-axes."""
        c, s = jnp.cos(self.angle), jnp.sin(self.angle)
        return jnp.stack([jnp.stack([c, s]), jnp.stack([-s, c])])


class Ellipsoid(NamedTuple):
    """An ellipsoid, with the same functions as an ellipse.

    Attributes:
        centre: (plane, row, column), voxels.
        semi_axes: voxels, positive; fits return the longest first.
        rotation: orthogonal; rows are the directions of the semi-axes.
    """

    centre: Float[Array, " 3"]
    semi_axes: Float[Array, " 3"]
    rotation: Float[Array, "3 3"]


Quadric: TypeAlias = Ellipse | Ellipsoid
"""An ellipse or an ellipsoid: what every function of this package takes."""


def ball(centre: Float[Array, " d"], radius: Scalar) -> Quadric:
    """A circle (two coordinates) or a sphere (three)."""
    d = centre.shape[0]
    axes = jnp.full(d, radius, centre.dtype)
    if d == 2:
        return Ellipse(centre, axes, jnp.zeros((), centre.dtype))
    return Ellipsoid(centre, axes, jnp.eye(3, dtype=centre.dtype))


def stretch(ellipse: Quadric) -> Float[Array, "d d"]:
    """The symmetric matrix A with the ellipse = {centre + A u : |u| = 1}; smooth in every parameter, for circles, too."""
    turn = ellipse.rotation
    return turn.T @ (ellipse.semi_axes[:, None] * turn)


@compiled
def from_stretch(centre: Float[Array, " d"], matrix: Float[Array, "d d"]) -> Quadric:
    """The inverse of `stretch`: semi-axes in descending order. A circle's directions are arbitrary and have no gradient."""
    axes, rotation = eigen(matrix)
    if centre.shape[0] == 2:
        return Ellipse(centre, axes, jnp.arctan2(rotation[0, 1], rotation[0, 0]))
    return Ellipsoid(centre, axes, rotation)


def parameters(ellipse: Quadric) -> Float[Array, " p"]:
    """The p = 5 (ellipsoid: 9) numbers that fits work with: the centre, then the upper triangle of `stretch`, voxels.

    Unlike semi-axes and angles they are smooth where an ellipse passes through a circle.

    Example:
        >>> parameters(ball(jnp.array([3.0, 4.0]), 2.0)).tolist()
        [3.0, 4.0, 2.0, 0.0, 2.0]
    """
    d = ellipse.centre.shape[0]
    return jnp.concatenate([ellipse.centre, stretch(ellipse)[jnp.triu_indices(d)]])


def from_parameters(theta: Float[Array, " p"]) -> Quadric:
    """The inverse of `parameters`."""
    d = 2 if theta.shape[0] == 5 else 3
    rows, columns = jnp.triu_indices(d)
    matrix = jnp.zeros((d, d), theta.dtype).at[rows, columns].set(theta[d:]).at[columns, rows].set(theta[d:])
    return from_stretch(theta[:d], matrix)


@jax.custom_jvp
def eigen(matrix):
    """Eigenvalues, descending, and eigenvectors as rows; the first one points towards larger first coordinates."""
    if len(matrix) == 2:  # written out: a batch of fits would wait for LAPACK
        (p, q), r = matrix[0], matrix[1, 1]
        middle, half = 0.5 * (p + r), 0.5 * (p - r)
        spread = jnp.sqrt(half**2 + q**2)
        angle = 0.5 * jnp.arctan2(q, jnp.where(spread > 0, half, 1.0))
        c, s = jnp.cos(angle), jnp.sin(angle)
        return jnp.stack([middle + spread, middle - spread]), jnp.stack([jnp.stack([c, s]), jnp.stack([-s, c])])
    values, vectors = jnp.linalg.eigh(matrix)
    rows = vectors.T[::-1]
    return values[::-1], rows * jnp.where(rows[:, :1] < 0, -1.0, 1.0).astype(rows.dtype)


@eigen.defjvp
def _eigen_jvp(primals, tangents):
    values, rows = eigen(*primals)
    change = rows @ tangents[0] @ rows.T
    gap = values[None, :] - values[:, None]
    apart = jnp.abs(gap) > 1e-6 * jnp.abs(values).max()
    turn = jnp.where(apart, change / jnp.where(apart, gap, 1.0), 0.0)
    return (values, rows), (jnp.diagonal(change), turn.T @ rows)


def triangular(ellipse: Quadric) -> Float[Array, "d d"]:
    """The lower triangular M with the ellipse = {x : |M (x - centre)| = 1}, its diagonal positive."""
    mapping = ellipse.rotation / ellipse.semi_axes[:, None]
    # M^T M = mapping^T mapping with M lower triangular: a Cholesky factor of the reversed matrix
    return jnp.linalg.cholesky((mapping.T @ mapping)[::-1, ::-1]).T[::-1, ::-1]


@compiled
def conic(ellipse: Quadric) -> Float[Array, "e e"]:
    """Symmetric (d + 1, d + 1) matrix Q with (x, 1) Q (x, 1) = 0 on the ellipse and < 0 inside; Frobenius norm 1."""
    d = ellipse.centre.shape[0]
    mapping = ellipse.rotation / ellipse.semi_axes[:, None]
    affine = jnp.concatenate([mapping, -(mapping @ ellipse.centre)[:, None]], 1)
    matrix = affine.T @ affine - jnp.zeros((d + 1, d + 1), affine.dtype).at[d, d].set(1.0)
    return matrix / jnp.sqrt(jnp.sum(matrix**2))


@compiled
def from_conic(matrix: Float[Array, "e e"]) -> Quadric:
    """The ellipse of a conic (d = 2) or quadric (d = 3) of any scale and sign; NaN throughout if it is no real ellipse.

    Example:
        >>> from_conic(3.0 * conic(ball(jnp.array([1.0, 2.0]), 5.0))).semi_axes.round(3).tolist()
        [5.0, 5.0]
    """
    d = matrix.shape[0] - 1
    matrix = matrix * jnp.where(jnp.trace(matrix[:d, :d]) < 0, -1.0, 1.0)
    quadratic = matrix[:d, :d]
    centre = -jnp.linalg.solve(quadratic, matrix[:d, d])
    level = -(matrix[d, d] + matrix[d, :d] @ centre)
    values, rows = eigen(quadratic)
    real = (values > 0).all() & (level > 0)
    axes = jnp.sqrt(jnp.where(real, level / values, jnp.nan))
    return from_stretch(jnp.where(real, centre, jnp.nan), rows.T @ (axes[:, None] * rows))


@compiled
def distance(ellipse: Quadric, point: Float[Array, " d"]) -> Float[Array, ""]:
    """Orthogonal signed distance of one point in voxels, negative inside.

    The foot has the coordinates a_i^2 y_i / (a_i^2 + s) along the axes, where y are the point's and s is a root of
    |a_i y_i / (a_i^2 + s)| = 1 (Eberly 2013, "Distance from a point to an ellipse"); the root is found by Newton's method on
    the reciprocal of that norm, which is nearly linear in s. Derivatives of first and second order with respect to the point and the
    ellipse are right. At the centre and on the axes, where several feet can be closest, one of them is taken.
    """
    axes, y = ellipse.semi_axes, ellipse.rotation @ (point - ellipse.centre)
    eps = jnp.finfo(y.dtype).eps
    # moved off the axes by a rounding error, a point always has one foot; the distance changes by as much
    least = 4.0 * eps * axes
    moved = y + jax.lax.stop_gradient(jnp.where(jnp.abs(y) < least, jnp.where(y < 0, -least, least) - y, 0.0))

    fixed_y, fixed_axes = jax.lax.stop_gradient((moved, axes))
    shortest = jnp.min(fixed_axes)

    def above(s, axes):
        """a_i^2 + s, where s counts from the pole at -min a_i^2: near the longer axis the root is next to it."""
        return s + (axes - shortest) * (axes + shortest)

    def newton(s, y, axes):
        v = axes * y / above(s, axes)
        norm = jnp.sqrt(jnp.sum(v**2))
        return s + (norm - 1.0) * norm**2 / jnp.sum(v**2 / above(s, axes))

    lowest = jnp.max(fixed_axes * jnp.abs(fixed_y) - above(0.0, fixed_axes))
    s = jax.lax.fori_loop(0, 20, lambda _, s: jnp.maximum(newton(s, fixed_y, fixed_axes), lowest), lowest)
    s = newton(s, moved, axes)  # gives s its derivatives
    # the normal at the foot; the distance is n . y - |a n|, which is stationary in n
    normal = moved / above(s, axes)
    normal = normal / jnp.sqrt(jnp.sum(normal**2))
    # where two feet are equally close the normal has no derivative
    normal = jnp.where(jnp.min(above(s, axes) / axes**2) > 1e-3, normal, jax.lax.stop_gradient(normal))
    return jnp.sum(normal * y) - jnp.sqrt(jnp.sum((axes * normal) ** 2))


@compiled
def foot(ellipse: Quadric, point: Float[Array, " d"]) -> Float[Array, " d"]:
    """The closest point of the ellipse."""
    away, slope = jax.value_and_grad(distance, 1)(ellipse, point)
    return point - away * slope


def boundary(ellipse: Ellipse, n: int) -> Float[Array, "n 2"]:
    """`n` points along an ellipse, at equal steps of its parameter, from the end of the first semi-axis.

    Example:
        >>> boundary(ball(jnp.zeros(2), 2.0), 4).round(3).tolist()
        [[2.0, 0.0], [-0.0, 2.0], [-2.0, -0.0], [0.0, -2.0]]
    """
    t = jnp.arange(n, dtype=ellipse.centre.dtype) * (2.0 * jnp.pi / n)
    unit = jnp.stack([jnp.cos(t), jnp.sin(t)], 1)
    return ellipse.centre[None] + (unit * ellipse.semi_axes[None]) @ ellipse.rotation


@compiled
def area(ellipse: Quadric) -> Float[Array, ""]:
    """Area in voxels^2: the one an ellipse encloses, or the surface of an ellipsoid (by quadrature, to 1e-4).

    Example:
        >>> round(float(area(ball(jnp.zeros(2), 1.0))), 4), round(float(area(ball(jnp.zeros(3), 1.0))), 3)
        (3.1416, 12.566)
    """
    axes = ellipse.semi_axes
    if axes.shape[0] == 2:
        return jnp.pi * jnp.prod(axes)
    # abc |u / a| over the directions u of a sphere
    height, weight = (jnp.asarray(a, axes.dtype) for a in np.polynomial.legendre.leggauss(64))
    turn = (jnp.arange(64, dtype=axes.dtype) + 0.5)[None] * (2.0 * jnp.pi / 64)
    across = jnp.sqrt(1.0 - height**2)[:, None]
    least_first = jnp.sort(axes)  # the polar axis is the longest: the integrand is then smoothest
    unit = jnp.stack([across * jnp.cos(turn), across * jnp.sin(turn), jnp.broadcast_to(height[:, None], (64, 64))], -1)
    density = jnp.sqrt(jnp.sum((unit / least_first[None, None]) ** 2, -1))
    return jnp.prod(axes) * jnp.sum(weight[:, None] * density) * (2.0 * jnp.pi / 64)


def volume(ellipsoid: Ellipsoid) -> Float[Array, ""]:
    """Enclosed volume of an ellipsoid in voxels^3."""
    return 4.0 * jnp.pi / 3.0 * jnp.prod(ellipsoid.semi_axes)


@compiled
def perimeter(ellipse: Ellipse) -> Float[Array, ""]:
    """Circumference of an ellipse in voxels, by the arithmetic-geometric mean; to rounding.

    Example:
        >>> round(float(perimeter(Ellipse(jnp.zeros(2), jnp.array([2.0, 1.0]), jnp.array(0.0)))), 4)
        9.6884
    """
    a, b = ellipse.semi_axes.max(), ellipse.semi_axes.min()
    total, power = 0.5 * (a * a + b * b), 0.5
    for _ in range(5):  # converges quadratically
        a, b, c = 0.5 * (a + b), jnp.sqrt(a * b), 0.5 * (a - b)
        power *= 2.0
        total = total - power * c * c
    return 2.0 * jnp.pi * total / a


def raster(ellipse: Quadric, shape: tuple[int, ...], thickness: float | None = None) -> Bool[Array, "*shape"]:
    """The voxels inside an ellipse (an ellipsoid), or those within half of `thickness` voxels of its boundary.

    Example:
        >>> raster(ball(jnp.array([2.0, 2.0]), 1.1), (5, 5)).sum().item()
        5
    """
    grid = jnp.stack(jnp.meshgrid(*map(jnp.arange, shape), indexing="ij"), -1).astype(ellipse.centre.dtype)
    if thickness is None:
        mapped = (grid - ellipse.centre.reshape((1,) * len(shape) + (-1,))) @ (
            ellipse.rotation / ellipse.semi_axes[:, None]
        ).T
        return jnp.sum(mapped**2, -1) <= 1.0
    away = jax.vmap(lambda p: distance(ellipse, p))(grid.reshape(-1, len(shape)))
    return (jnp.abs(away) <= 0.5 * thickness).reshape(shape)
