"""What a membrane's fit is made from: its points, their errors, and anchors."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from jaxmem import anchors as anc
from jaxmem import gp
from jaxmem.defaults import known
from jaxmem.grouping.closing import blend_of, values_of
from jaxmem.grouping.shape import Shape
from jaxmem.grouping.vaults import UNSEEN, vaults
from jaxmem.membrane import AMPLITUDE, Problem
from jaxmem.numerics import map_rows, unit_rows
from jaxmem.points import evenly, first_of_each, orient, roughness
from jaxmem.settings import FitConfig

_NEIGHBOURHOOD = 4.0  # voxels within which a point's company is counted
_COMPANY = 0.35  # a point with less than this share of the median company is a stray one; not tuned
_OPEN_ANCHORS = 460  # points of an open membrane with anchors: 920 rows, within an exact fit; not tuned
_LENGTH = 30.0  # voxels over which errors that points share fade; chosen by trial, see docs/decisions.md
_WHOLE = 0.5  # of the variance of shared errors, what the whole membrane shares; by hand
_ANGLES = 6  # of normals, at which what the whole membrane shares is told apart; by hand
_SLANT = 0.3  # of the |component along the beam| of normals, over which shared errors fade; by hand
_CENTRES = 128  # of what points share, at most: a larger membrane shares it over longer distances
_OPEN_FEW = 64  # where the points' errors are known
_DEEP = 0.4  # of half the distance across, for the anchors of a closed membrane that is no ellipsoid
_WIDE = 5.0  # R over the size of a closed membrane, where the membrane is a sphere
_GUESS = 0.02  # of half the distance across, the standard deviation of guessed half circles; chosen with `_FREE`
_FREE = 1.5  # how much more a shape deviates from a blend than from an ellipsoid; chosen on tubes of `clear_public` and `cell_public`
_RAYS = 8  # that get anchors where the points' errors are known: an anchor repeats its point's error, as if it were seen twice
BETWEEN = 0.4  # anchors of an open membrane go at most this share of the way to the next membrane


_slopes = jax.jit(jax.vmap(lambda point, blend: jax.grad(blend.value)(point), (0, None)))


class Errors(NamedTuple):
    """Standard deviations of points that are known, voxels.

    Attributes:
        sigma: (n,) of each by itself.
        shared: (n,) of what it shares with its neighbours.
    """

    sigma: Float[np.ndarray, " n"]
    shared: Float[np.ndarray, " n"]


class Prepared(NamedTuple):
    """A membrane ready to be fitted.

    Attributes:
        problem: of NumPy arrays, not padded; the mask is all True.
        centre: (d,) what was subtracted from voxel coordinates.
        low, high: (d,) box in voxels within which the surface is looked for.
    """

    problem: Problem
    centre: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _anchors_closed(points: np.ndarray, shape: Shape, rays: int, alpha: float) -> anc.Anchors:
    chosen = points[evenly(points, rays)]
    return anc.by_rays(jnp.asarray(chosen), jnp.asarray(shape.ellipse.centre), alpha=alpha)


def _anchors_open(points, normals, others: cKDTree | None, most: int, far: float) -> anc.Anchors:
    chosen = evenly(points, most)
    offset = np.full(len(chosen), far)
    if others is not None:
        offset = np.minimum(offset, BETWEEN * others.query(points[chosen])[0])
    offset = np.maximum(offset, 1.0)
    found = anc.by_normals(jnp.asarray(points[chosen]), jnp.asarray(normals[chosen]), jnp.asarray(offset))
    # a point's two anchors one after another: thinning then keeps both or none
    n = len(chosen)
    pairs = np.arange(2 * n).reshape(2, n).T.ravel()
    return jax.tree.map(lambda a: np.asarray(a)[pairs], found)


def thinned(points: np.ndarray, normals: np.ndarray, config: FitConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some of the points, about `config.spacing` apart, their normals, and a start of their noise, voxels.

    Arguments:
        points, normals: (n, d) voxels.
        config: spacing, most points, least noise.
    """
    # thinning to one point a cell would favour stray ones, which have their cells to themselves
    company = cKDTree(points).query_ball_point(points, _NEIGHBOURHOOD, return_length=True, workers=-1)
    settled = company >= _COMPANY * np.median(company)
    points, normals = points[settled], normals[settled]
    cells = len(first_of_each(np.floor(points / config.spacing).astype(int)))
    chosen = evenly(points, int(np.clip(cells, 8, config.most_points)))
    data, normals = points[chosen], normals[chosen]
    noise = max(roughness(data), known(config.least_noise)) if len(data) > 12 else config.noise
    facing = normals[:, 0] ** 2 if points.shape[1] == 3 else np.zeros(len(data))
    facing = np.sqrt(1.0 + (config.beam**2 - 1.0) * facing)
    return data, normals, noise * facing / np.median(facing)


def _alike(points: np.ndarray, facing: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """(n, `_CENTRES`) errors that points share which are near one another and as slanted.

    One part of the variance fades with the distance, the other is the whole membrane's; both fade as points are differently slanted, for
    nobody knows how the error depends on that.

    Arguments:
        points: voxels.
        facing: |component along the beam| of their normals.
        shared: standard deviations, voxels.
    """
    angles = np.exp(-((facing[:, None] - np.linspace(0.0, 1.0, _ANGLES)) ** 2) / _SLANT**2)
    place = np.concatenate([points / _LENGTH, facing[:, None] / _SLANT], 1)
    apart = len(first_of_each(np.floor(place / 0.7).astype(int)))
    centres = place[evenly(place, min(apart, _CENTRES - _ANGLES))]
    gap = cKDTree(centres).query(place, k=min(2, len(centres)))[0].reshape(len(points), -1)[:, -1]
    basis = np.exp(-cdist(place, centres, "sqeuclidean") / max(1.0, float(np.median(gap))) ** 2)
    basis = np.pad(basis, ((0, 0), (0, _CENTRES - _ANGLES - len(centres))))
    parts = [
        np.sqrt(share) * a / np.sqrt((a**2).sum(1, keepdims=True))
        for a, share in ((basis, 1.0 - _WHOLE), (angles, _WHOLE))
    ]
    return shared[:, None] * np.concatenate(parts, 1)


def _blend(
    points: np.ndarray, normals: np.ndarray, noise: np.ndarray, earlier: gp.Blend
) -> tuple[gp.Blend, np.ndarray]:
    """A blend of better points than the earlier one's, and their normals, outwards.

    Where the earlier one goes on without points, as over the faces of a lying sac, its own centres stand for them; top and bottom of a tube
    are guessed anew.
    """
    slope = map_rows(_slopes, points, rest=(earlier,))
    facing = unit_rows(np.asarray(normals, float))
    facing = np.where((slope * facing).sum(1, keepdims=True) < 0, -facing, facing)
    radius, size = float(earlier.radius), float(earlier.size)
    more = vaults(points, facing, noise, size, _GUESS * size) if earlier.vaulted > 0 else None
    if more is not None:
        blend, places = blend_of(more.points, more.normals, radius, size, more.noise, vaulted=True), more.tops
    else:
        lonely = cKDTree(points).query(earlier.centres)[0] > 0.8 * radius
        places = np.asarray(earlier.centres, float)[lonely]
        ways = unit_rows(map_rows(_slopes, places, rest=(earlier,))) if len(places) else places
        rows = np.concatenate([points, places]), np.concatenate([facing, ways])
        unseen = np.full(len(places), UNSEEN * float(np.median(noise)))
        blend = blend_of(*rows, radius, size, np.concatenate([noise, unseen]), vaulted=bool(earlier.vaulted > 0))
    if len(places):
        # what nothing is seen of is as uncertain as the shape of what is
        far = places[evenly(places, gp.BUMPS)]
        bumps = np.resize(far, (gp.BUMPS, far.shape[1]))
        blend = eqx.tree_at(
            lambda b: (b.bumps, b.loose), blend, (bumps, (np.arange(gp.BUMPS) < len(far)).astype(float))
        )
    return jax.tree.map(np.float64, blend), facing


def prepare(points, normals, errors, shape: Shape | gp.Blend, closed: bool, others, config: FitConfig) -> Prepared:
    """Choose the points to condition on, if their errors are not known yet; add the anchors, and centre everything.

    Arguments:
        points, normals: (n, d) voxels.
        errors: of the points, if they are known; all of them are then used.
        shape: from `shape.describe`; or a blend, which is made anew from the points.
        closed: whether the membrane closes around a centre.
        others: points of other membranes that are near, for an open one.
        config: options.
    """
    d = points.shape[1]
    data, normals, noise = thinned(points, normals, config) if errors is None else (points, normals, errors.sigma)
    blend = None
    if isinstance(shape, gp.Blend):
        spread = noise if errors is None else np.hypot(noise, errors.shared)
        blend, normals = _blend(data, normals, spread, shape)
        most = _OPEN_ANCHORS if errors is None else _OPEN_FEW
        extra = _anchors_open(data, normals, None, most, min(config.offset, _DEEP * float(blend.size)))
        # no distance, but near it: by how much the blend rises from a point to its anchor, wherever it takes the point itself to be
        own = np.repeat(data[evenly(data, most)], 2, 0)
        rise = values_of(blend, np.asarray(extra.points)) - values_of(blend, own)
        extra = extra._replace(values=jnp.asarray(rise, float))
    elif closed and isinstance(shape, Shape):
        extra = _anchors_closed(data, shape, config.rays if errors is None else _RAYS, config.alpha)
    else:
        extra = _anchors_open(
            data, orient(data, normals), others, _OPEN_ANCHORS if errors is None else _OPEN_FEW, config.offset
        )
    centre = data.mean(0)
    x = np.concatenate([data, np.asarray(extra.points)]) - centre
    y = np.concatenate([np.zeros(len(data)), np.asarray(extra.values)])
    sigma = np.concatenate([noise, np.asarray(extra.sigma)])
    is_data = np.arange(len(x)) < len(data)
    if blend is not None:
        reach = float(blend.size) + 2.0
        low, high = x[is_data].min(0) - reach, x[is_data].max(0) + reach
    elif closed and isinstance(shape, Shape):
        around = np.asarray(anc.by_ellipsoid(shape.ellipse, 64, alpha=config.alpha).points) - centre
        low, high = np.minimum(x.min(0), around.min(0)) - 1.0, np.maximum(x.max(0), around.max(0)) + 1.0
    else:
        low, high = x[is_data].min(0) - config.offset, x[is_data].max(0) + config.offset
    corners = np.stack(np.meshgrid(*np.stack([low, high], 1), indexing="ij"), -1).reshape(-1, d)
    reach = float(np.linalg.norm(x, axis=1).max())
    R = gp.valid_radius(gp.Cubic if d == 3 else gp.ThinPlate, np.concatenate([x, corners]))
    trend: gp.Trend = gp.Zero()
    variance = (AMPLITUDE * reach if closed else reach) ** 2
    if blend is not None:
        trend = eqx.tree_at(
            lambda b: (b.centres, b.middle, b.bumps, b.sigma),
            blend,
            (blend.centres - centre, blend.middle - centre, blend.bumps - centre, np.float64(config.shape_sigma)),
        )
        # as rough, over its size, as what deviates from an ellipsoid: the kernel's roughness is 2 variance (r / R)^3
        variance = (_FREE * AMPLITUDE * float(blend.size)) ** 2 * (R / (_WIDE * float(blend.size))) ** 3
    elif closed and isinstance(shape, Shape):
        ellipse = shape.ellipse._replace(centre=shape.ellipse.centre - centre)
        trend = gp.Ellipsoid(ellipse, jnp.asarray(config.shape_sigma))
    real = np.ones(len(x), bool)
    alike = np.zeros((len(x), 0)) if errors is None else np.zeros((len(x), _CENTRES))
    if errors is not None:
        shared = _alike(data, np.abs(unit_rows(np.asarray(normals, float))[:, 0]), errors.shared)
        # an anchor is as wrong as the point it was made from
        alike = np.concatenate([shared, shared[cKDTree(data).query(np.asarray(extra.points))[1]]])
    problem = Problem(x, y, sigma, is_data, real, np.float64(variance), np.float64(R), trend, alike)  # type: ignore[arg-type]
    return Prepared(problem, centre, low + centre, high + centre)
