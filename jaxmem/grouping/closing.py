"""Whether points are a closed surface of any shape: which way is out, how far it is across, and how much of what would be seen is there."""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.ndimage import map_coordinates
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from jaxmem import gp, levelset
from jaxmem.grouping.faces import LYING, faces_of, spacing_of, widths
from jaxmem.grouping.shape import Shape, directions
from jaxmem.grouping.vaults import UNSEEN, vaults
from jaxmem.numerics import map_rows, pad_to
from jaxmem.points import evenly, orient

CENTRES = 64  # neighbourhoods of a blend
_MOST = 1024  # points from which a closure is made
_FEW = 256  # points at which winding numbers and distances across are looked at
_SIGMA = 0.2  # relative standard deviation of the blend's parameters, as of an ellipsoid's (`FitConfig.shape_sigma`)
_LINK = 2.0  # spacings within which points are of one sheet
_ALONG = 0.6  # |sine| of the way to a neighbour out of the sheet, at most; and least |cos| of their normals
_SOFT = 1.5  # spacings over which points are spread where they are looked at from others
_ACROSS = 0.35  # least share of the points that have others across
_OBLATE = 0.65  # its semi-axis there over the next, at most, as an ellipsoid
_BORDER = 1.0  # voxels from the volume's border within which nothing need be seen
_BEAM = 0.75  # |component along the beam| of a normal beyond which nothing need be seen


class Closure(NamedTuple):
    """A closed surface through points, as far as it can be told before it is fitted.

    Attributes:
        blend: about the signed distance to it.
        seen: share of it that has points.
        expected: the same, of what ought to show: inside the volume and not facing the beam.
        hidden: area without points of what ought to show, voxels^2.
        sigma: robust standard deviation of the points about it, voxels.
        across: half the distance across, voxels.
        turned: how far the surface goes round, from 0 for a sheet to 1 for what closes.
        low, high: (3,) box about it, voxels.
    """

    blend: gp.Blend
    seen: float
    expected: float
    hidden: float
    sigma: float
    across: float
    turned: float
    low: Float[np.ndarray, " 3"]
    high: Float[np.ndarray, " 3"]


_windings = jax.jit(jax.vmap(levelset.winding, (0, None, None, None, None)))
_values = jax.jit(jax.vmap(lambda point, blend: blend.value(point), (0, None)))
_of_blend = jax.jit(gp.fit_blend)


@jax.jit
@partial(jax.vmap, in_axes=(0, None))
def _bends(point, blend):
    """The largest principal curvature of the blend's level set through a point, 1/voxel."""
    slope, hessian = jax.grad(blend.value)(point), jax.hessian(blend.value)(point)
    mean, gauss = levelset.curvatures(slope, hessian)
    return mean + jnp.sqrt(jnp.maximum(mean**2 - gauss, 0.0))


def values_of(blend: gp.Blend, points: np.ndarray) -> np.ndarray:
    """The blend at (n, 3) points, voxels; single precision."""
    return map_rows(_values, points.astype(np.float32), rest=(jax.tree.map(np.float32, blend),), smallest=1024)


def outwards(
    points: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, "n 3"], float]:
    """Normals turned so that they point out of the surface that the points are pieces of, and how far it goes round.

    Each sheet is oriented by itself. Two sheets face each other, or they are two sides of a wall: by which, the winding number of each at
    the other has the same sign or not.

    Arguments:
        points: evenly spread over the surface.
        normals: unit normals, any sign.

    Returns:
        (n, 3) unit normals, and twice the mean winding number of the surface about its own points, at most 1: see `Closure.turned`.
    """
    tree = cKDTree(points)
    spacing = spacing_of(tree)
    pairs = tree.query_pairs(_LINK * spacing, output_type="ndarray")
    way = points[pairs[:, 1]] - points[pairs[:, 0]]
    way /= np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-9)
    alike = np.abs((normals[pairs[:, 0]] * normals[pairs[:, 1]]).sum(1)) > _ALONG
    for side in (0, 1):
        alike &= np.abs((way * normals[pairs[:, side]]).sum(1)) < _ALONG
    a, b = pairs[alike].T
    n = len(points)
    sheet = connected_components(coo_matrix((np.ones(len(a)), (a, b)), (n, n)), directed=False)[1]
    order = np.argsort(-np.bincount(sheet))
    out = normals.astype(float).copy()
    area = spacing**2
    settled: list[np.ndarray] = []
    for number in order:
        own = np.flatnonzero(sheet == number)
        if len(own) > 3:
            out[own] = orient(points[own], out[own])
        agree = 0.0
        for other in settled:
            theirs = _round(points[own], points[other], out[other], area)
            mine = _round(points[other], points[own], out[own], area)
            agree += np.sign(theirs * mine) * np.sqrt(abs(theirs * mine))
        if agree < 0:
            out[own] = -out[own]
        settled.append(own)
    turned = 2.0 * _round(points, points, out, area)
    return (out if turned >= 0 else -out), min(abs(turned), 1.0)


def _round(at: np.ndarray, points: np.ndarray, normals: np.ndarray, area: float) -> float:
    padded, mask = pad_to(points.astype(np.float32), _MOST)
    facing, _ = pad_to(normals.astype(np.float32), _MOST)
    weight = np.where(mask, np.float32(area), np.float32(0.0))
    at = at[evenly(at, _FEW)].astype(np.float32)
    return float(
        map_rows(_windings, at, rest=(padded, facing, weight, np.float32(_SOFT * np.sqrt(area))), smallest=_FEW).mean()
    )


def half_across(points: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"]) -> float:
    """Half the median distance to the other side along the normals, inwards, voxels; NaN where few points have another side.

    Arguments:
        points: evenly spread over the surface, voxels.
        normals: unit normals, outwards.
    """
    nearest = widths(points, normals, evenly(points, _FEW))
    found = np.isfinite(nearest)
    return 0.5 * float(np.median(nearest[found])) if found.mean() >= _ACROSS else float("nan")


def close(
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    volume_shape: tuple[int, ...],
    *,
    rounded: bool = False,
) -> Closure | None:
    """A closed surface through points that are seen where the missing wedge allows; None where there is nothing to close around.

    Arguments:
        points: midline points of a membrane, voxels.
        normals: unit normals, any sign.
        volume_shape: of the volume, beyond which nothing is seen.
        rounded: where walls stand upright over all that is seen of them, they are taken for those of a tube as high as it is wide; None if
            there are none.
    """
    chosen = evenly(points, _MOST)
    x, n = points[chosen].astype(float), normals[chosen].astype(float)
    if len(x) < 50:
        return None
    n, turned = outwards(x, n)
    across = half_across(x, n)
    spacing = spacing_of(cKDTree(x))
    if not np.isfinite(across) or turned < 0.2:
        return None
    across = min(across, _bend(x, n, max(3.0 * spacing, 5.0)))
    radius = max(1.2 * across, 2.5 * spacing)
    flat = faces_of(x, n, across)
    if rounded:
        more = None if flat is not None else vaults(x, n, np.ones(len(x)), across, 1.0)
        if more is None:
            return None
        blend = blend_of(more.points, more.normals, radius, across, more.noise, vaulted=True)
    elif flat is not None:
        noise = np.where(np.arange(len(x) + len(flat[0])) < len(x), 1.0, UNSEEN)
        blend = blend_of(np.concatenate([x, flat[0]]), np.concatenate([n, flat[1]]), radius, across, noise)
    else:
        blend = blend_of(x, n, radius, across)
    low, high = x.min(0) - across - 2.0, x.max(0) + across + 2.0
    step = float(np.clip(across / 4.0, max(1.0, (high - low).max() / 64), 4.0))
    count = np.ceil((high - low) / step).astype(int) + 1
    grid = low + step * np.moveaxis(np.indices(count), 0, -1)
    field = np.array(values_of(blend, grid.reshape(-1, 3))).reshape(count)
    if not field.min() < 0 < field.max():
        return None
    vertices, faces, _, _ = marching_cubes(field, 0.0, gradient_direction="ascent")
    slope = np.stack([map_coordinates(g, vertices.T, order=1) for g in np.gradient(field)], 1)
    facing = np.abs(slope[:, 0]) / np.maximum(np.linalg.norm(slope, axis=1), 1e-9)
    place = vertices * step + low
    area = _areas(place, faces)
    # pieces of the level set that no points lie on are the blend's, far from all neighbourhoods
    piece = connected_components(
        coo_matrix((np.ones(3 * len(faces)), (faces.ravel(), np.roll(faces, 1, 1).ravel())), (len(place),) * 2),
        directed=False,
    )[1]
    support = np.bincount(piece[cKDTree(place).query(x)[1]], minlength=piece.max() + 1)
    inside = ((place >= _BORDER) & (place <= np.array(volume_shape) - 1 - _BORDER)).all(1)
    inside &= (support >= 0.05 * support.sum())[piece]
    sigma = 1.4826 * float(np.median(np.abs(values_of(blend, x))))
    covered = cKDTree(points).query(place)[0] <= 2.0 * sigma + 2.5
    visible = inside & (facing <= _BEAM)
    if area[visible].sum() <= 0:
        return None
    hidden = float(area[visible & ~covered].sum())
    return Closure(
        blend, float(area[inside & covered].sum() / area[inside].sum()), 1.0 - hidden / float(area[visible].sum()), hidden, sigma,
        across, turned, place[inside].min(0), place[inside].max(0),
    )  # fmt: skip


def lying_sac(points: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"], shape: Shape) -> gp.Blend | None:
    """A flat sac through points that an ellipsoid describes as well, where only the rim of something lying is seen; None elsewhere.

    A rim tells how it is bent, c^2 / a at the equator of an ellipsoid of semi-axes a and c. That is an ellipsoid's dome of height c, or a sac
    whose faces lie c^2 / a from its middle. Membranes under little tension that are so flat have faces, not domes: oblate shapes of least
    bending energy are discs whose faces are flat or hollow (Seifert, Berndl & Lipowsky 1991).

    Arguments:
        points, normals: of a membrane, voxels; unit normals, any sign.
        shape: the ellipsoid through them.

    Returns:
        The sac as a blend.
    """
    axes = np.asarray(shape.ellipse.semi_axes)
    thin = int(np.argmin(axes))
    wide = np.sort(axes)[1:]
    if abs(np.asarray(shape.ellipse.rotation)[thin, 0]) < LYING or axes[thin] > _OBLATE * wide[0]:
        return None
    size = float(axes[thin] ** 2 / np.sqrt(wide.prod()))
    chosen = evenly(points, _MOST)
    x, n = points[chosen].astype(float), normals[chosen].astype(float)
    n = np.where((n * directions(shape.ellipse, x)).sum(1, keepdims=True) < 0, -n, n)
    flat = faces_of(x, n, size, convex=True)
    if flat is None:
        return None
    radius = max(1.2 * size, 2.5 * spacing_of(cKDTree(x)))
    noise = np.where(np.arange(len(x) + len(flat[0])) < len(x), 1.0, UNSEEN)
    return blend_of(np.concatenate([x, flat[0]]), np.concatenate([n, flat[1]]), radius, size, noise)


def _bend(points: np.ndarray, normals: np.ndarray, radius: float) -> float:
    """One over the median of the larger principal curvature, voxels; where that is none, infinity."""
    blend = blend_of(points, normals, radius, radius)
    bends = map_rows(_bends, points[evenly(points, _FEW)].astype(np.float32), rest=(blend,), smallest=_FEW)
    return 1.0 / max(float(np.median(bends)), 1e-9)


def blend_of(
    points: np.ndarray,
    normals: np.ndarray,
    radius: float,
    across: float,
    noise: np.ndarray | None = None,
    *,
    vaulted: bool = False,
) -> gp.Blend:
    """Quadrics about evenly spread points; normals point outwards; `noise` is the points' standard deviations, `vaulted` that of `gp.Blend`."""
    few = evenly(points, _MOST)
    points, normals = points[few], normals[few]
    spread, _ = pad_to(np.ones(len(few), np.float32) if noise is None else noise[few].astype(np.float32), _MOST)
    centres = points[np.resize(evenly(points, CENTRES), CENTRES)]
    padded, mask = pad_to(points.astype(np.float32), _MOST)
    facing, _ = pad_to(normals.astype(np.float32), _MOST)
    of = (np.float32(value) for value in (radius, _SIGMA, across))
    blend = _of_blend(padded, facing, centres.astype(np.float32), *of, mask, noise=spread)
    blend = eqx.tree_at(lambda b: b.vaulted, blend, np.float32(vaulted))
    return jax.tree.map(np.asarray, blend)


def _areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    corners = vertices[faces]
    area = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    return np.bincount(faces.ravel(), np.repeat(area / 3.0, 3), len(vertices))
