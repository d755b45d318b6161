"""What is expected of a closed surface of any shape: quadrics fitted to its neighbourhoods, blended (Ohtake et al. 2003)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmem.gp.trend import Trend
from jaxmem.numerics import cleaned, compiled
from jaxmem.types import Scalar

_ON = 3.0  # weight of a point's place against that of its normal, both in units of the neighbourhood's radius
_RIDGE = 1e-3  # of the weight of a neighbourhood, for coefficients that nothing tells
BUMPS = 16
"""Places, at most, at which a blend is uncertain by itself."""
_LEAST = 1e-6  # weight of a neighbourhood without points


class Blend(Trend):
    """About the signed distance to a surface, in voxels, negative inside: quadrics about centres, each counting near its own.

    A sphere, an ellipsoid and a tube are quadrics themselves, and go on where nothing is seen. The uncertain parameters are the
    coefficients of one more quadric, for the whole surface, in coordinates that reach from -1 to 1 along its own axes, times the size; and the
    heights of bumps where the surface goes on far from all points, times the size.

    Attributes:
        centres: (k, d) voxels.
        coefficients: (k, m) of each quadric, about its centre and in units of the radius.
        radius: of the neighbourhoods, voxels.
        sigma: standard deviation of the uncertain parameters.
        size: half the distance across, voxels.
        frame: (d, d) from coordinates about `middle` to those of the whole.
        middle: (d,) voxels.
        bumps: (b, d) voxels, as wide as the neighbourhoods.
        loose: (b,) 1 for those that are there.
        vaulted: 1 if top and bottom were guessed from upright walls; otherwise 0.

    Example:
        >>> turn = jnp.linspace(0.0, 6.2, 60)
        >>> ring = jnp.stack([jnp.sin(turn), jnp.cos(turn)], 1)
        >>> found = fit_blend(10.0 * ring, ring, ring[::10] * 10.0, 12.0, 0.2, 10.0)
        >>> round(float(found.value(jnp.array([10.5, 0.0]))), 2)
        0.51
    """

    centres: Float[Array, "k d"]
    coefficients: Float[Array, "k m"]
    radius: Float[Array, ""]
    sigma: Float[Array, ""]
    size: Float[Array, ""]
    frame: Float[Array, "d d"]
    middle: Float[Array, " d"]
    bumps: Float[Array, "b d"]
    loose: Float[Array, " b"]
    vaulted: Float[Array, ""]

    def value(self, point):
        away = (point[None] - self.centres) / self.radius
        square = jnp.sum(away**2, 1)
        weight = jax.nn.softmax(-2.0 * square)
        return self.radius * jnp.sum(weight * jax.vmap(lambda a, c: terms(a) @ c)(away, self.coefficients))

    def features(self, point):
        away = (point[None] - self.bumps) / self.radius
        height = self.loose * jnp.exp(-jnp.sum(away**2, 1))
        return self.sigma * self.size * jnp.concatenate([terms(self.frame @ (point - self.middle)), height])

    def moved(self, coefficients, point):
        return self.value(point) + self.features(point) @ coefficients


def terms(x: Float[Array, " d"]) -> Float[Array, " m"]:
    """1, the coordinates, and their products in pairs."""
    rows, columns = jnp.triu_indices(x.shape[0])
    return jnp.concatenate([jnp.ones(1, x.dtype), x, x[rows] * x[columns]])


@compiled
def fit_blend(
    points: Float[Array, "n d"],
    normals: Float[Array, "n d"],
    centres: Float[Array, "k d"],
    radius: Scalar,
    sigma: Scalar,
    size: Scalar,
    mask: Bool[Array, " n"] | None = None,
    *,
    noise: Scalar | Float[Array, " n"] = 1.0,
) -> Blend:
    """Quadrics q with q = 0 and grad q = normal, by least squares, at the points about each centre.

    Arguments:
        points: on the surface, voxels.
        normals: unit normals, outwards.
        centres: of the neighbourhoods, voxels: some of the points, for instance.
        radius: of the neighbourhoods: a Gaussian's width times the square root of 2. It must reach across, so that what is seen on both sides
            says how the surface closes between them.
        sigma, size: see `Blend`.
        mask: rows that count; all when None.
        noise: standard deviation of the points, of each or of all: only their ratios matter.

    Returns:
        Differentiable in all floating arguments. The directions of the frame of uncertain parameters have no gradient.

    Source: Ohtake et al. 2003, multi-level partition of unity implicits, with normals as observations of the slope.
    """
    mask = jnp.ones(len(points), bool) if mask is None else mask
    dtype = points.dtype
    points, normals = cleaned(points, mask), cleaned(normals, mask).astype(dtype)
    radius = jnp.asarray(radius, dtype)
    spread = jnp.where(mask, jnp.broadcast_to(jnp.asarray(noise, dtype), (len(points),)), 1.0)
    count = jnp.maximum(jnp.sum(mask), 1).astype(dtype)
    trust = jnp.where(mask, spread**-2.0, 0.0)
    trust = trust * count / jnp.maximum(jnp.sum(trust), jnp.finfo(dtype).tiny)
    slopes = jax.vmap(jax.jacfwd(terms))

    def around(centre):
        x = (points - centre[None]) / radius
        weight = trust * jnp.exp(-jnp.sum(x**2, 1))
        value, slope = jax.vmap(terms)(x), slopes(x)
        normal = _ON**2 * jnp.einsum("n,ni,nj->ij", weight, value, value)
        normal = normal + jnp.einsum("n,nik,njk->ij", weight, slope, slope)
        right = jnp.einsum("n,nik,nk->i", weight, slope, normals)
        ridge = _RIDGE * jnp.sum(weight) + _LEAST
        return jnp.linalg.solve(normal + ridge * jnp.eye(len(right), dtype=dtype), right)

    middle = jnp.sum(points, 0) / count
    offset = jnp.where(mask[:, None], points - middle[None], 0.0)
    axes = jnp.linalg.eigh(jax.lax.stop_gradient(offset.T @ offset))[1].T
    reach = jnp.maximum(jnp.max(jnp.abs(offset @ axes.T), 0), 1.0)
    return Blend(
        centres, jax.vmap(around)(centres), radius, jnp.asarray(sigma, dtype), jnp.asarray(size, dtype),
        axes / reach[:, None], middle, jnp.zeros((BUMPS, points.shape[1]), dtype), jnp.zeros(BUMPS, dtype), jnp.zeros((), dtype),
    )  # fmt: skip
