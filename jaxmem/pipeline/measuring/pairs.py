"""Distances of a run's membranes: between two of them, and across the lumen of one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import cKDTree

from jaxmem.measure import contact, moved_gap
from jaxmem.numerics import bucket_size, map_rows
from jaxmem.pipeline.measuring.inputs import Skin

_BESIDE = 2.5  # voxels beyond its border at which a surface has ended
_RAYS = 1500  # vertices of a membrane from which its width is taken
_STEPS = 40  # of a ray until it meets the other side
_CLOSE = 0.05  # voxels from it
_LEAST = 4.0  # voxels^2 of contact, of which there is a mean gap
_THIN = 1.0  # voxels; what a ray meets sooner is where it came from

_moved = jax.jit(jax.vmap(jax.vmap(moved_gap, (None, None, 0, 0))))
_contact = jax.jit(jax.vmap(contact, (0, None, None)))


class Facing(NamedTuple):
    """How one surface lies to another, at those of its vertices that are near.

    Attributes:
        where: (k,) vertices of the surface.
        nearest: (k,) vertices of the other.
        gap: (k,) signed distance, positive on the side to which the other's normals point, voxels.
        along: (k,) cosine between the normals.
    """

    where: np.ndarray
    nearest: np.ndarray
    gap: np.ndarray
    along: np.ndarray


def facing(one: Skin, other: Skin, tree: cKDTree, reach: float) -> Facing:
    """Vertices of one surface within reach of another, but for those beyond its border.

    Arguments:
        one, other: surfaces.
        tree: of the other's vertices.
        reach: voxels.
    """
    low, high = other.vertices.min(0) - reach, other.vertices.max(0) + reach
    near = np.flatnonzero(((one.vertices >= low) & (one.vertices <= high)).all(1))
    distance, nearest = tree.query(one.vertices[near], distance_upper_bound=reach)
    found = np.isfinite(distance)
    near, nearest, distance = near[found], nearest[found], distance[found]
    normal = other.normals[nearest]
    gap = ((one.vertices[near] - other.vertices[nearest]) * normal).sum(1)
    beside = np.sqrt(np.maximum(distance**2 - gap**2, 0.0)) > _BESIDE
    near, nearest, gap, normal = (a[~beside] for a in (near, nearest, gap, normal))
    return Facing(near, nearest, gap, (one.normals[near] * normal).sum(1))


def contact_of(one: Skin, other: Skin, at: Facing, within: float) -> dict[str, float]:
    """Area of a surface within a distance of another and the mean gap there, with their standard deviations; voxels.

    Arguments:
        one, other: surfaces.
        at: from `facing`.
        within: voxels.
    """
    n = len(at.where)
    if n == 0:
        return {"area": 0.0, "area_sigma": 0.0, "gap": np.nan, "gap_sigma": np.nan}
    drawn = map_rows(
        _moved,
        at.gap,
        at.along,
        one.drawn("displacement", at.where),
        other.drawn("displacement", at.nearest),
        smallest=1024,
    )
    size = bucket_size(n, 1024)
    gaps = np.pad(np.vstack([at.gap, drawn.T]), ((0, 0), (0, size - n)), constant_values=1e6)
    area, gap = (
        np.asarray(a)
        for a in _contact(jnp.asarray(gaps), jnp.asarray(np.pad(one.area[at.where], (0, size - n))), within)
    )
    return {
        "area": float(area[0]), "area_sigma": float(area[1:].std()),
        "gap": float(gap[0]) if area[0] > _LEAST else np.nan, "gap_sigma": float(np.hypot(gap[1:].std(), _common(one, other))) if area[0] > _LEAST else np.nan,
    }  # fmt: skip


def closest(one: Skin, other: Skin, at: Facing) -> tuple[float, float]:
    """The least gap, and its standard deviation; voxels. Rims of open surfaces do not count; infinite where nothing faces."""
    if not len(at.where):
        return np.inf, np.nan
    rim = one.rim[at.where] | other.rim[at.nearest]
    # the least of many uncertain gaps is too small: what is known less well must be so much closer
    most = np.abs(at.gap) + np.hypot(one.values["sigma"][at.where], other.values["sigma"][at.nearest])
    k = int(np.argmin(np.where(rim & ~rim.all(), np.inf, most)))
    own, its = one.drawn("displacement", at.where[[k]])[0], other.drawn("displacement", at.nearest[[k]])[0]
    return float(abs(at.gap[k])), float(np.hypot((at.along[k] * own - its).std(), _common(one, other)))


def _common(one: Skin, other: Skin) -> float:
    """Error of a distance between two surfaces that all of it shares, voxels."""
    return float(np.hypot(one.common, other.common))


def relation(one: Skin, other: Skin, at: Facing, tree: cKDTree) -> str:
    """How a surface lies to another: "inside" it, "around" it, "beside" it, or "crossing" it."""
    share = float(one.area[at.where[at.gap < 0]].sum() / max(one.area[at.where].sum(), 1e-9)) if len(at.where) else 0.0
    if len(at.where) and min(share, 1.0 - share) > 0.02 and other.closed:
        return "crossing"
    if other.closed and _within(one.vertices, other, tree):
        return "inside"
    if one.closed and _within(other.vertices, one, cKDTree(one.vertices)):
        return "around"
    return "beside"


def _within(points: np.ndarray, body: Skin, tree: cKDTree) -> bool:
    """Whether most of some points lie inside a closed surface."""
    some = points[:: max(1, len(points) // 200)]
    if not ((some >= body.vertices.min(0)) & (some <= body.vertices.max(0))).all(1).mean() > 0.5:
        return False
    near = tree.query(some)[1]
    return bool((((some - body.vertices[near]) * body.normals[near]).sum(1) < 0).mean() > 0.5)


def crossing_area(one: Skin, at: Facing) -> float:
    """The area of a surface that lies on the other side of another than most of it, voxels^2."""
    area = one.area[at.where]
    inner = float(area[at.gap < 0].sum())
    return min(inner, float(area.sum()) - inner)


def widths(one: Skin) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How far it is from some vertices of a closed surface to its other side, straight inwards.

    Arguments:
        one: surface.

    Returns:
        Vertices, the distances (voxels; NaN where a ray meets nothing) and their standard deviations.
    """
    start = np.arange(len(one.vertices))[:: max(1, -(-len(one.vertices) // _RAYS))]
    way = -one.normals[start]
    tree = cKDTree(one.vertices)
    far = float(np.linalg.norm(np.ptp(one.vertices, axis=0)))
    t = np.full(len(start), _THIN)
    met = np.full(len(start), -1)
    running = np.arange(len(start))
    for _ in range(_STEPS):
        place = one.vertices[start[running]] + t[running, None] * way[running]
        distance, near = tree.query(place)
        inner = -((place - one.vertices[near]) * one.normals[near]).sum(1)
        cosine = (way[running] * one.normals[near]).sum(1)
        # a surface that is met faces the ray; near it, its plane tells where
        ahead = (cosine > 0.1) & (distance < 2.0)
        move = np.where(ahead, inner / np.maximum(cosine, 0.1), np.maximum(0.9 * distance, 0.3))
        t[running] += move
        done = ahead & (np.abs(move) < _CLOSE)
        met[running[done]] = near[done]
        running = running[~done & (t[running] < far)]
        if not len(running):
            break
    hit = met >= 0
    width, sigma = np.full(len(start), np.nan), np.full(len(start), np.nan)
    width[hit] = t[hit]
    cosine = (way[hit] * one.normals[met[hit]]).sum(1)
    moves = (
        one.drawn("displacement", start[hit]) + one.drawn("displacement", met[hit]) / np.maximum(cosine, 0.1)[:, None]
    )
    sigma[hit] = moves.std(1)
    return start, width, sigma


def pair_row(
    one: Skin, other: Skin, trees: tuple[cKDTree, cKDTree], within: float, reach: float
) -> dict[str, Any] | None:
    """What is known of two membranes that come within reach of one another, in voxels; None of others.

    Arguments:
        one, other: surfaces.
        trees: of their vertices.
        within: distance of a contact.
        reach: that counts.
    """
    at = facing(one, other, trees[1], reach)
    back = facing(other, one, trees[0], reach)
    least, least_sigma = min((closest(one, other, at), closest(other, one, back)), key=lambda found: found[0])
    if not least <= reach:
        return None
    own, its = contact_of(one, other, at, within), contact_of(other, one, back, within)
    how = relation(one, other, at, trees[1])
    # of the one that has more of itself opposite the other
    shares = [float(a.area[f.where].sum() / a.area.sum()) for a, f in ((one, at), (other, back))]
    share = max(shares)
    weight, gap = (
        (one.area[at.where], np.abs(at.gap)) if shares[0] == share else (other.area[back.where], np.abs(back.gap))
    )
    middle = np.average(gap, weights=weight)
    spread = float(np.sqrt(np.average((gap - middle) ** 2, weights=weight)))
    return {
        "relation": how, "closest": least, "closest_sigma": least_sigma,
        "contact_area": own["area"], "contact_area_sigma": own["area_sigma"],
        "gap": own["gap"], "gap_sigma": own["gap_sigma"],
        "contact_area_other": its["area"], "contact_area_other_sigma": its["area_sigma"],
        "crossing_area": crossing_area(one, at) if how == "crossing" else 0.0, "facing_share": share, "gap_spread": spread,
        "facing": at, "facing_back": back,
    }  # fmt: skip
