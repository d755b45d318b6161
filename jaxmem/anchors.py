"""Anchor points: places known to be inside or outside a membrane, with the value the implicit function takes there.

Values are signed distances in voxels, negative inside (the paper's +-1 carries no scale; with distances the ratio of the
posterior's standard deviation to its slope is the position error of the surface in voxels).

All functions take an optional mask of the rows that count, and are differentiable in everything but masks and counts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmem.ellipse import Quadric, distance
from jaxmem.numerics import cleaned, compiled, safe_norm, unit
from jaxmem.points import sphere_directions
from jaxmem.types import Scalar


class Anchors(NamedTuple):
    """Anchors of a membrane.

    Attributes:
        points: (n, d) voxels.
        values: (n,) voxels, negative inside.
        sigma: (n,) the values' standard deviations, voxels.
        mask: (n,) those that count: anchors of points that do.
    """

    points: Float[Array, "n d"]
    values: Float[Array, " n"]
    sigma: Float[Array, " n"]
    mask: Bool[Array, " n"]


def _checked(alpha: Scalar, name: str) -> Scalar:
    """alpha, if it lies between 1 and 2, or is traced: then nobody knows."""
    if not isinstance(alpha, jax.core.Tracer) and not 1.0 < float(alpha) < 2.0:
        raise ValueError(f"anchors.{name}: alpha must lie between 1 and 2, got {alpha}")
    return alpha


def by_rays(
    points: Float[Array, "n d"],
    centre: Float[Array, " d"],
    mask: Bool[Array, " n"] | None = None,
    *,
    alpha: Scalar = 1.2,
    relative_sigma: Scalar = 0.3,
) -> Anchors:
    """Anchors on the rays from the centroid through membrane voxels (paper, Section 5.2, Fig. 15).

    For each voxel B and centroid C there is an exterior anchor A with |AC| = alpha |BC| and an interior one with
    |AC| = (2 - alpha) |BC|; both lie (alpha - 1) |BC| from B. The interior ones keep the mean from rising above zero
    between the membrane and its centre.

    Arguments:
        points: well separated membrane voxels.
        centre: the centroid.
        mask: rows that count; all when None.
        alpha: 1 < alpha < 2.
        relative_sigma: standard deviation of an anchor's value over the value.

    Returns:
        The n exterior anchors, then the n interior ones. At the centre itself, where no ray is, the value is 0.

    Raises:
        ValueError: if alpha is known and not between 1 and 2.

    Example:
        >>> by_rays(jnp.array([[10.0, 0.0]]), jnp.zeros(2)).values.round(1).tolist()
        [2.0, -2.0]
    """
    return _by_rays(points, centre, _all(points, mask), _checked(alpha, "by_rays"), relative_sigma)


def _all(points: Array, mask: Array | None) -> Array:
    return jnp.ones(len(points), bool) if mask is None else mask


@compiled
def _by_rays(points, centre, mask, alpha, relative_sigma) -> Anchors:
    ray = cleaned(points, mask) - centre[None]
    length = (alpha - 1.0) * safe_norm(ray)
    return Anchors(
        jnp.concatenate([centre[None] + alpha * ray, centre[None] + (2.0 - alpha) * ray]),
        jnp.concatenate([length, -length]),
        relative_sigma * jnp.concatenate([length, length]),
        jnp.concatenate([mask, mask]),
    )


def by_ellipsoid(ellipse: Quadric, n: int, *, alpha: Scalar = 1.2, relative_sigma: Scalar = 0.3) -> Anchors:
    """Anchors sampled quasi-uniformly on an enclosing ellipsoid and on one within (paper, Section 5.2).

    The ellipsoids are the fitted one scaled by alpha and by 2 - alpha; values are distances to the fitted one.

    Arguments:
        ellipse: ellipsoid (or ellipse) through the membrane voxels.
        n: directions; 2 n anchors are returned.
        alpha: 1 < alpha < 2.
        relative_sigma: standard deviation of an anchor's value over the value.

    Raises:
        ValueError: if alpha is known and not between 1 and 2.
    """
    return _by_ellipsoid(ellipse, n, _checked(alpha, "by_ellipsoid"), relative_sigma)


@compiled(static=("n",))
def _by_ellipsoid(ellipse, n, alpha, relative_sigma) -> Anchors:
    axes, centre = ellipse.semi_axes, ellipse.centre[None]
    ray = (sphere_directions(n, ellipse.centre.shape[0]).astype(axes.dtype) * axes[None]) @ ellipse.rotation
    points = jnp.concatenate([centre + alpha * ray, centre + (2.0 - alpha) * ray])
    values = jax.vmap(lambda p: distance(ellipse, p))(points)
    return Anchors(points, values, relative_sigma * jnp.abs(values), jnp.ones(2 * n, bool))


def by_rings(
    outer: Float[Array, "n d"],
    inner: Float[Array, "m d"],
    centre: Float[Array, " d"],
    masks: tuple[Bool[Array, " n"], Bool[Array, " m"]] | None = None,
    *,
    alpha: Scalar = 1.2,
    relative_sigma: Scalar = 0.3,
) -> Anchors:
    """Anchors for both surfaces of a double membrane as the level set of one function (paper, Fig. 11).

    The function is negative between the two, positive outside the outer and within the inner one. On the ray from the
    centroid through each voxel there is an anchor outside, at alpha times the outer membrane's distance; one halfway
    between the two; and one within, at 2 - alpha times the inner one's distance. The membrane that the voxel is not of is
    taken to be as far away as in the nearest direction in which it was seen; so gaps in one are bridged along the other.

    Arguments:
        outer, inner: well separated voxels of the two membranes.
        centre: the centroid. A voxel there has no direction; its anchors lie at the centre and do not count.
        masks: rows of both that count; all when None.
        alpha: 1 < alpha < 2.
        relative_sigma: standard deviation of an anchor's value over the value.

    Returns:
        n + m anchors outside, as many between, as many within.

    Raises:
        ValueError: if alpha is known and not between 1 and 2.

    Example:
        >>> by_rings(jnp.array([[10.0, 0.0]]), jnp.array([[5.0, 0.0]]), jnp.zeros(2)).values.round(1).tolist()
        [2.0, 2.0, -2.5, -2.5, 1.0, 1.0]
    """
    masks = masks or (_all(outer, None), _all(inner, None))
    return _by_rings((outer, inner), centre, masks, _checked(alpha, "by_rings"), relative_sigma)


@compiled
def _by_rings(rings, centre, masks, alpha, relative_sigma) -> Anchors:
    rays = [cleaned(ring, mask) - centre[None] for ring, mask in zip(rings, masks)]
    lengths, ways = [safe_norm(ray) for ray in rays], [unit(ray) for ray in rays]
    counts = [mask & (length > 0) for mask, length in zip(masks, lengths)]
    direction = jnp.concatenate(ways)

    def seen(way, length, count):
        """How far a membrane is along every direction: as in the nearest one in which it was seen."""
        return length[jnp.argmax(jnp.where(count[None], direction @ way.T, -jnp.inf), 1)]

    far, close = (seen(*one) for one in zip(ways, lengths, counts))
    middle = 0.5 * (far + close)
    values = jnp.concatenate([(alpha - 1.0) * far, close - middle, (alpha - 1.0) * close])
    reach = jnp.concatenate([alpha * far, middle, (2.0 - alpha) * close])
    points = centre[None] + reach[:, None] * jnp.tile(direction, (3, 1))
    return Anchors(points, values, relative_sigma * jnp.abs(values), jnp.tile(jnp.concatenate(counts), 3))


@compiled
def by_normals(
    points: Float[Array, "n d"],
    normals: Float[Array, "n d"],
    offset: Scalar | Float[Array, " n"],
    mask: Bool[Array, " n"] | None = None,
    *,
    relative_sigma: Scalar = 0.15,
) -> Anchors:
    """Anchors on both sides of the membrane along oriented unit normals, for tubes, cups and sheets.

    Arguments:
        points: membrane voxels.
        normals: unit normals, oriented consistently (outwards where there is an outside).
        offset: distance in voxels, of each or of all.
        mask: rows that count; all when None.
        relative_sigma: standard deviation of an anchor's value over the value.

    Returns:
        The n anchors outside, then the n inside.
    """
    mask = _all(points, mask)
    points, normals = cleaned(points, mask), cleaned(normals, mask).astype(points.dtype)
    offset = jnp.broadcast_to(jnp.asarray(offset, points.dtype), (len(points),))
    offset = jnp.where(mask, offset, 1.0)
    step = offset[:, None] * normals
    return Anchors(
        jnp.concatenate([points + step, points - step]),
        jnp.concatenate([offset, -offset]),
        relative_sigma * jnp.concatenate([offset, offset]),
        jnp.concatenate([mask, mask]),
    )
