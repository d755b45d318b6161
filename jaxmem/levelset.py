"""Differential geometry of a level set: where it is, which way it faces, how it bends, and how well all that is known.

Everything here can be differentiated with respect to the function (and through `gp.fit` to data, noise and hyperparameters) and to
the places asked about.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmem import gp
from jaxmem.numerics import compiled, safe_norm, safe_sqrt, unit
from jaxmem.types import Scalar

_STEPS = 5  # of Newton's method along a line, a voxel each at most


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

    Two-dimensional curves have a curvature, returned as the mean one, and no Gaussian one: 0. Where the slope is zero there is no
    surface; both are 0 there, and so are their derivatives.

    Example:
        >>> mean, gauss = curvatures(jnp.array([0.0, 0.0, 4.0]), 2.0 * jnp.eye(3))  # |x|^2 on the sphere of radius 2
        >>> float(mean), float(gauss)
        (0.5, 0.25)
    """
    d = slope.shape[0]
    length = safe_norm(slope)
    steep = length > 0
    length = jnp.where(steep, length, 1.0)
    mean = (length**2 * jnp.trace(bend) - slope @ bend @ slope) / ((d - 1) * length**3)
    mean = jnp.where(steep, mean, 0.0)
    if d == 2:
        return mean, jnp.zeros_like(mean)
    adjugate = jnp.stack([jnp.cross(bend[1], bend[2]), jnp.cross(bend[2], bend[0]), jnp.cross(bend[0], bend[1])], 1)
    return mean, jnp.where(steep, slope @ adjugate @ slope / length**4, 0.0)


@compiled
def locate(
    function: gp.Expansion, point: Float[Array, " d"], direction: Float[Array, " d"] | None = None
) -> Float[Array, " d"]:
    """Where a line meets the level set f = 0: Newton's steps from a point along a direction, at most a voxel each.

    The derivative is that of the implicit function theorem, with respect to the function, the point and the direction alike: what is
    found stays on the level set and on the line. Along the unit normal, the surface moves by -df / |grad f|. Second derivatives are
    right as well.

    Arguments:
        function: a posterior or a sample.
        point: start, within a few voxels of the level set; from farther away the search stops short of it: f there is not
            zero, and the function has no gradient.
        direction: of any length, not tangential to the level set; the gradient of the function at `point` when None. Along a direction
            of length zero nothing moves.
    """
    way = unit(gp.gradient(function, point) if direction is None else direction)
    frozen, start, line = jax.lax.stop_gradient((function, point, way))

    def newton(function, place, line):
        value, slope, _ = gp.derivatives(function, place)
        along = slope @ line
        # where the line is tangential there is no step to take
        return jnp.where(along == 0, 0.0, value / jnp.where(along == 0, 1.0, along))

    def step(_, t):
        return t - jnp.clip(newton(frozen, start + t * line, line), -1.0, 1.0)

    t = jax.lax.fori_loop(0, _STEPS, step, jnp.zeros((), point.dtype))
    # the search is not differentiated; from where it ends, two more steps give first and second derivatives
    for _ in range(2):
        t = t - jnp.clip(newton(function, point + t * way, way), -1.0, 1.0)
    return point + t * way


@compiled
def measure(function: gp.Expansion, points: Float[Array, "n d"]) -> Geometry:
    """Move points that lie within a fraction of a voxel of the level set onto it, and measure it there, in tiles."""
    value, slope = gp.slopes(function, points)
    close = points - _newton(value, slope)
    value, slope, bend = gp.map_points(gp.derivatives, function, close)
    mean, gauss = jax.vmap(curvatures)(slope, bend)
    return Geometry(close - _newton(value, slope), slope, mean, gauss)


def _newton(value, slope):
    move = value[:, None] * slope / (jnp.sum(slope**2, -1, keepdims=True) + 1e-12)
    return move / jnp.maximum(1.0, safe_norm(move)[:, None])


@compiled
def position_sigma(posterior: gp.Conditioned, points: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Standard deviation of a level set's position along its normal at points of it, voxels, to first order, in tiles.

    Infinite where the slope is zero: there is no surface.
    """
    variance = gp.map_points(gp.variance, posterior, points)
    steep = safe_norm(gp.slopes(posterior, points)[1])
    return jnp.where(steep > 0, safe_sqrt(variance) / jnp.where(steep > 0, steep, 1.0), jnp.inf)


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
        value, slope, bend = gp.derivatives_of(function, jnp.vstack([function.weights[None], weights]), point)
        mean, gauss = jax.vmap(curvatures)(slope[1:], bend[1:])
        return mean, gauss, (value[0] - value[1:]) / jnp.maximum(safe_norm(slope[0]), 1e-12)

    return Drawn(*(a.T for a in gp.map_points(one, expansion, points)))


@compiled
def face_areas(vertices: Float[Array, "n d"], faces: Int[Array, "m d"]) -> Float[Array, " m"]:
    """Areas of triangles, or lengths of segments."""
    corner = vertices[faces]
    if faces.shape[1] == 2:
        return safe_norm(corner[:, 1] - corner[:, 0])
    return 0.5 * safe_norm(jnp.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]))


@compiled
def content(
    vertices: Float[Array, "n d"],
    faces: Int[Array, "m d"],
    mean_curvature: Float[Array, " n"],
    gaussian_curvature: Float[Array, " n"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Area and enclosed volume of the curved surface that flat faces stand for (in two dimensions, length and area).

    To second order: over a triangle whose sides' squares add up to s, the surface lies H s / 24 higher on average, and its
    area is larger by a share H^2 s / 18 + K s / 72; over a segment of length c, kappa c^2 / 12 and kappa^2 c^2 / 24.

    Arguments:
        vertices: on the surface, voxels.
        faces: triangles, outward by the right hand in xyz (so inward in zyx); segments in two dimensions.
        mean_curvature, gaussian_curvature: at the vertices.

    Returns:
        voxel^2 and voxel^3 (voxel and voxel^2); the volume means nothing if the surface is not closed.
    """
    corner = vertices[faces]
    sides = corner - corner[:, jnp.roll(jnp.arange(faces.shape[1]), 1)]
    square, flat = (sides**2).sum((1, 2)), face_areas(vertices, faces)
    h, k = mean_curvature[faces].mean(1), gaussian_curvature[faces].mean(1)
    if faces.shape[1] == 2:
        square = 0.5 * square  # the segment's, there and back
        height, larger = h * square / 12.0, h**2 * square / 24.0
    else:
        height, larger = h * square / 24.0, h**2 * square / 18.0 + k * square / 72.0
    cones = jnp.linalg.det(corner - corner.mean((0, 1))[None, None]) / (6.0 if faces.shape[1] == 3 else 2.0)
    # cones are positive where faces look inwards, in two dimensions outwards; higher is along the normal in both
    enclosed = cones.sum() * (1.0 if faces.shape[1] == 2 else -1.0) + (flat * height).sum()
    return (flat * (1.0 + larger)).sum(), jnp.abs(enclosed)


@compiled
def winding(
    point: Float[Array, " d"],
    points: Float[Array, "n d"],
    normals: Float[Array, "n d"],
    area: Float[Array, " n"],
    width: Scalar = 1e-6,
) -> Float[Array, ""]:
    """Generalised winding number of an oriented surface about a point: 1 within, 0 without, between where it has gaps.

    Sum over the surface's points of their solid angles over that of the sphere (Jacobson et al. 2013; of points: Barill et al. 2018).

    Arguments:
        point: voxels; on the surface itself the number is the mean of both sides.
        points, normals: of the surface; unit normals.
        area: of each point, voxels^2 (lengths of a curve in two dimensions).
        width: over which points are spread, voxels: noise of their places does not matter to what is nearer.

    Example:
        >>> from jaxmem.points import sphere_directions
        >>> u = sphere_directions(500, 3)
        >>> round(float(winding(jnp.zeros(3), u, u, jnp.full(500, 4 * jnp.pi / 500))), 3)
        1.0
    """
    d = point.shape[0]
    away = points - point[None]
    square = jnp.sum(away**2, 1) + width**2
    whole = 2.0 * jnp.pi if d == 2 else 4.0 * jnp.pi
    return jnp.sum(area * jnp.sum(normals * away, 1) / square ** (d / 2)) / whole
