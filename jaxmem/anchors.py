"""Anchor points: places known to be inside or outside a membrane, with the value the implicit function takes there.

Values are signed distances in voxels, negative inside (the paper's +-1 carries no scale; with distances the ratio of the
posterior's standard deviation to its slope is the position error of the surface in voxels).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmem.ellipse import Quadric, distance
from jaxmem.numerics import compiled, safe_norm
from jaxmem.points import sphere_directions
from jaxmem.types import Scalar


class Anchors(NamedTuple):
    """Points (n, d) in voxels, values (n,) in voxels (negative inside), and the values' standard deviations (n,)."""

    points: Float[Array, "n d"]
    values: Float[Array, " n"]
    sigma: Float[Array, " n"]


def _check(alpha: float, name: str) -> None:
    if not 1.0 < alpha < 2.0:
        raise ValueError(f"anchors.{name}: alpha must lie between 1 and 2, got {alpha}")


@compiled(static=("alpha",))
def by_rays(
    points: Float[Array, "n d"], centre: Float[Array, " d"], alpha: float = 1.2, relative_sigma: float = 0.3
) -> Anchors:
    """Anchors on the rays from the centroid through membrane voxels (paper, Section 5.2, Fig. 15).

    For each voxel B and centroid C there is an exterior anchor A with |AC| = alpha |BC| and an interior one with
    |AC| = (2 - alpha) |BC|; both lie (alpha - 1) |BC| from B. The interior ones keep the mean from rising above zero
    between the membrane and its centre.

    Arguments:
        points: well separated membrane voxels.
        centre: the centroid.
        alpha: 1 < alpha < 2.
        relative_sigma: standard deviation of an anchor's value over the value.

    Raises:
        ValueError: if alpha is not between 1 and 2.

    Example:
        >>> by_rays(jnp.array([[10.0, 0.0]]), jnp.zeros(2)).values.round(1).tolist()
        [2.0, -2.0]
    """
    _check(alpha, "by_rays")
    ray = points - centre
    length = (alpha - 1.0) * safe_norm(ray)
    return Anchors(
        jnp.concatenate([centre + alpha * ray, centre + (2.0 - alpha) * ray]),
        jnp.concatenate([length, -length]),
        relative_sigma * jnp.concatenate([length, length]),
    )


@compiled(static=("n", "alpha"))
def by_ellipsoid(ellipse: Quadric, n: int, alpha: float = 1.2, relative_sigma: float = 0.3) -> Anchors:
    """Anchors sampled quasi-uniformly on an enclosing ellipsoid and on one within (paper, Section 5.2).

    The ellipsoids are the fitted one scaled by alpha and by 2 - alpha; values are distances to the fitted one.

    Arguments:
        ellipse: ellipsoid (or ellipse) through the membrane voxels.
        n: directions; 2 n anchors are returned.
        alpha: 1 < alpha < 2.
        relative_sigma: standard deviation of an anchor's value over the value.

    Raises:
        ValueError: if alpha is not between 1 and 2.
    """
    _check(alpha, "by_ellipsoid")
    axes = ellipse.semi_axes
    ray = (sphere_directions(n, ellipse.centre.shape[0]).astype(axes.dtype) * axes) @ ellipse.rotation
    points = jnp.concatenate([ellipse.centre + alpha * ray, ellipse.centre + (2.0 - alpha) * ray])
    values = jax.vmap(lambda p: distance(ellipse, p))(points)
    return Anchors(points, values, relative_sigma * jnp.abs(values))


@compiled(static=("alpha",))
def by_rings(
    outer: Float[Array, "n d"],
    inner: Float[Array, "m d"],
    centre: Float[Array, " d"],
    alpha: float = 1.2,
    relative_sigma: float = 0.3,
) -> Anchors:
    """Anchors for both surfaces of a double membrane as the level set of one function (paper, Fig. 11).

    The function is negative between the two, positive outside the outer and within the inner one. On the ray from the
    centroid through each voxel there is an anchor outside, at alpha times the outer membrane's distance; one halfway
    between the two; and one within, at 2 - alpha times the inner one's distance. The membrane that the voxel is not of is
    taken to be as far away as in the nearest direction in which it was seen; so gaps in one are bridged along the other.

    Arguments:
        outer, inner: well separated voxels of the two membranes.
        centre: the centroid.
        alpha: 1 < alpha < 2.
        relative_sigma: standard deviation of an anchor's value over the value.

    Raises:
        ValueError: if alpha is not between 1 and 2.

    Example:
        >>> by_rings(jnp.array([[10.0, 0.0]]), jnp.array([[5.0, 0.0]]), jnp.zeros(2)).values.round(1).tolist()
        [2.0, 2.0, -2.5, -2.5, 1.0, 1.0]
    """
    _check(alpha, "by_rings")
    ways = [(ring - centre) / safe_norm(ring - centre)[:, None] for ring in (outer, inner)]
    direction = jnp.concatenate(ways)
    far, near = (safe_norm(ring - centre)[jnp.argmax(direction @ way.T, 1)] for ring, way in zip((outer, inner), ways))
    middle = 0.5 * (far + near)
    values = jnp.concatenate([(alpha - 1.0) * far, near - middle, (alpha - 1.0) * near])
    reach = jnp.concatenate([alpha * far, middle, (2.0 - alpha) * near])
    points = centre + reach[:, None] * jnp.tile(direction, (3, 1))
    return Anchors(points, values, relative_sigma * jnp.abs(values))


def by_normals(
    points: Float[Array, "n d"],
    normals: Float[Array, "n d"],
    offset: Scalar,
    relative_sigma: float = 0.15,
) -> Anchors:
    """Anchors on both sides of the membrane along oriented unit normals, for tubes, cups and sheets.

    Arguments:
        points: membrane voxels.
        normals: unit normals, oriented consistently (outwards where there is an outside).
        offset: distance in voxels.
        relative_sigma: standard deviation of an anchor's value over the value.
    """
    full = jnp.full(len(points), offset, points.dtype)
    return Anchors(
        jnp.concatenate([points + offset * normals, points - offset * normals]),
        jnp.concatenate([full, -full]),
        relative_sigma * jnp.concatenate([full, full]),
    )
