"""Ordered pieces of membranes in one slice, their ends, and what two ends look like to each other.

The linker and its baselines see a slice as segments: lists of pixels in order (paper, Section 4.1, first phase). Each has two
ends; end 2k is the first point of segment k, end 2k + 1 its last. A link joins two ends.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmem.numerics import safe_norm

# What is seen belongs to the shipped weights: whoever changes it trains anew. All of it was chosen by hand.
TIP = 14  # points of an end that say where it points to
_OUTLINE = 12  # points that stand for a whole segment where crossings are looked for
_BENT = 8  # points from which on an end has a curvature: fewer, with the scatter of whole pixels, say nothing of it
PARTNERS = 12  # ends that are looked at from each end
_FAR = 110.0  # pixels between two ends that nobody joins; the largest membrane that is drawn has a diameter of 120
_UNSURE = 4.0  # pixels; turns over a shorter gap count less in the cost, for a pixel's scatter makes them
_TURN_SHARE, _TURN_PIXELS = 1.5, 8.0  # a radian of turning costs this share of the gap, and so many pixels besides
_BORDER = 20.0  # pixels from the border of the slice that are seen as such


class Segments(NamedTuple):
    """The segments of one slice in arrays of a fixed size.

    Attributes:
        tips: (segments, 2, TIP, 2) y, x of the points at both ends, from the end inwards; short segments repeat the last.
        outline: (segments, 12, 2) points from first to last, evenly spaced.
        length: (segments,) number of points; 0 for padding.
        turned: (segments,) by how much the heading turns from first to last point, radians, positive from x towards y.
        closed: (segments,) whether a segment is a loop already, with no end to leave from.
        shape: (2,) height and width of the slice.
    """

    tips: Float[Array, "segments 2 tip 2"]
    outline: Float[Array, "segments 12 2"]
    length: Float[Array, " segments"]
    turned: Float[Array, " segments"]
    closed: Bool[Array, " segments"]
    shape: Float[Array, " 2"]


class Ends(NamedTuple):
    """Place, outward direction and signed curvature of every end (two to a segment), and the length of its segment.

    The curvature is that of a walk that leaves the segment here: radians a pixel, positive where it turns from x towards y.
    """

    place: Float[Array, "ends 2"]
    heading: Float[Array, "ends 2"]
    bend: Float[Array, " ends"]
    length: Float[Array, " ends"]


class Partners(NamedTuple):
    """The ends that a walk may go on to from each end, nearest and straightest first.

    Attributes:
        end: (ends, PARTNERS) which end.
        valid: (ends, PARTNERS) whether there is one.
        features: (ends, PARTNERS, f) what a policy sees of the pair.
        own: (ends, g) what it sees of the end itself.
        cost: (ends, PARTNERS) gap and turning in one number, about pixels.
        crosses: (ends, PARTNERS, segments) the segments that the gap's chord runs through.
    """

    end: Int[Array, "ends partners"]
    valid: Bool[Array, "ends partners"]
    features: Float[Array, "ends partners f"]
    own: Float[Array, "ends g"]
    cost: Float[Array, "ends partners"]
    crosses: Bool[Array, "ends partners segments"]


def summarise(
    paths: Sequence[Float[np.ndarray | Array, "_ 2"]],
    shape: tuple[int, int],
    capacity: int,
    closed: Sequence[bool] = (),
) -> Segments:
    """Ordered points as arrays of a fixed size.

    Arguments:
        paths: y, x of each segment's points, a pixel or so apart.
        shape: height and width of the slice.
        capacity: segments in the result; one compiled program serves all slices of one capacity.
        closed: which segments are loops; none by default.

    Raises:
        ValueError: if there are more segments than `capacity`, or one has no points.
    """
    if len(paths) > capacity:
        raise ValueError(f"summarise: {len(paths)} segments do not fit into {capacity}")
    if not all(len(p) for p in paths):
        raise ValueError("summarise: a segment has no points")
    tips = np.zeros((capacity, 2, TIP, 2), np.float32)
    outline = np.zeros((capacity, _OUTLINE, 2), np.float32)
    length, turned = np.zeros(capacity, np.float32), np.zeros(capacity, np.float32)
    loop = np.zeros(capacity, bool)
    loop[: len(closed)] = closed
    for k, path in enumerate(map(np.asarray, paths)):
        near = np.minimum(np.arange(TIP), len(path) - 1)
        tips[k] = path[near], path[len(path) - 1 - near]
        at = np.linspace(0, len(path) - 1, _OUTLINE)
        outline[k] = np.stack([np.interp(at, np.arange(len(path)), path[:, a]) for a in range(2)], -1)
        length[k] = len(path)
        step = np.diff(outline[k], axis=0)
        turn = np.diff(np.unwrap(np.arctan2(step[:, 0], step[:, 1])))
        turned[k] = turn.sum() if len(path) >= _BENT else 0.0
    return Segments(
        *map(jnp.asarray, (tips, outline, length, turned, loop)), shape=jnp.asarray(np.array(shape, np.float32))
    )


def _cross(a: Array, b: Array) -> Array:
    """Positive where b lies from a as y lies from x; vectors are y, x."""
    return a[..., 1] * b[..., 0] - a[..., 0] * b[..., 1]


def ends_of(segments: Segments) -> Ends:
    """Place, direction and curvature of every end, by a parabola through its outermost points.

    Least squares in the distance along the segment; fewer than eight points give a straight line.
    """

    def end(points, count):
        step = safe_norm(jnp.diff(points, axis=0))
        dtype = points.dtype
        s = jnp.concatenate([jnp.zeros(1, dtype), jnp.cumsum(step)])
        used = (jnp.arange(TIP, dtype=count.dtype) < count).astype(dtype)
        basis = jnp.stack([jnp.ones(TIP, dtype), s, s * s / TIP], -1)
        # hardly a prior, but for a curvature of which nothing is known
        straight = jnp.diag(
            jnp.stack([jnp.asarray(1e-6, dtype)] * 2 + [jnp.where(count >= _BENT, 1e-6, 1e6).astype(dtype)])
        )
        normal = (basis * used[:, None]).T @ basis + straight
        place, inwards, second = jnp.linalg.inv(normal) @ ((basis * used[:, None]).T @ points)
        heading = -inwards / jnp.maximum(safe_norm(inwards), 1e-6)
        return place, heading, _cross(heading, 2.0 * second / TIP)

    count = jnp.repeat(segments.length, 2)
    place, heading, bend = jax.vmap(end)(segments.tips.reshape(-1, TIP, 2), count)
    return Ends(place, heading, bend, count)


def relation(leaving: Ends, entering: Ends) -> tuple[Array, Array, Array]:
    """Gap in pixels, turn from one end onto the chord, and from the chord into the other end (radians, signed)."""
    chord = entering.place - leaving.place
    gap = safe_norm(chord)
    way = chord / jnp.maximum(gap, 1e-6)[..., None]
    off = jnp.arctan2(_cross(leaving.heading, way), (leaving.heading * way).sum(-1))
    on = jnp.arctan2(_cross(way, -entering.heading), -(entering.heading * way).sum(-1))
    return gap, off, on


def link_cost(gap: Array, off: Array, on: Array) -> Array:
    """What a gap and its two turns cost, in pixels; turns over less than four pixels are not to be trusted."""
    turn = (jnp.abs(off) + jnp.abs(on)) * jnp.clip((gap - 1.0) / (_UNSURE - 1.0), 0.0, 1.0)
    return gap * (1.0 + _TURN_SHARE * turn) + _TURN_PIXELS * turn


def runs_through(a: Array, b: Array, c: Array, d: Array) -> Array:
    """Whether the chord from a to b, but for its very ends, meets the stretch from c to d; arrays of equal rank, (..., 2)."""
    chord, stretch = b - a, d - c
    area = _cross(chord, stretch)
    area = jnp.where(jnp.abs(area) < 1e-9, 1e-9, area)
    along, across = _cross(c - a, stretch) / area, _cross(c - a, chord) / area
    return (along > 0.02) & (along < 0.98) & (across >= 0.0) & (across <= 1.0)


def _to_border(place: Array, shape: Array) -> Array:
    """Distance of points from the border of the slice, up to 20 pixels, from 0 to 1."""
    return jnp.clip(jnp.minimum(place, shape[None] - 1.0 - place).min(-1), 0.0, _BORDER) / _BORDER


def partners_of(segments: Segments) -> Partners:
    """The likeliest partners of every end, and what there is to see of each pair.

    The features are of the gap, the turns onto it and off it and whether they fit one circle, the curvatures on both sides, the
    lengths, what lies between, the border, and how the pair's cost compares with those of the rivals on either side.
    """
    ends = ends_of(segments)
    n = ends.place.shape[0]
    index = jnp.arange(n)
    free = jnp.repeat((segments.length > 0) & ~segments.closed, 2)
    each, other = jax.tree.map(lambda a: a[:, None], ends), jax.tree.map(lambda a: a[None], ends)
    gap, off, on = relation(each, other)
    possible = free[:, None] & free[None] & (index[:, None] != index[None]) & (gap <= _FAR)
    cost = jnp.where(possible, link_cost(gap, off, on), jnp.inf)
    best, end = jax.lax.top_k(-cost, PARTNERS)
    valid = jnp.isfinite(best)
    rival = jax.lax.top_k(-cost.T, 1)[0][:, 0]  # the least cost at which another end could join this one

    def chosen(table):
        return jnp.take_along_axis(table, end, 1)

    crosses = _crossed(segments, ends, end)
    weight = jnp.minimum(segments.length, 40.0)
    heaviest = jnp.where(crosses, weight[None, None], 0.0).max(-1) / 20.0
    gap, off, on, cost = chosen(gap), chosen(off), chosen(on), chosen(cost)
    arc = (off + on) / jnp.maximum(gap, 2.0)
    sense = jnp.sign(off + on + 1e-9)
    bend, bend_there = 10.0 * ends.bend[:, None] + 0.0 * gap, -10.0 * ends.bend[end]
    border = _to_border(ends.place, segments.shape)
    loss = jnp.log1p(jnp.where(valid, cost, 300.0))
    size = jnp.log(jnp.maximum(ends.length, 1.0))
    features = [
        jnp.log1p(gap),
        gap / 50.0,
        jnp.abs(off),
        jnp.abs(on),
        jnp.abs(off - on),
        jnp.abs(off + on),
        8.0 * jnp.abs(arc),
        jnp.cos(off),
        jnp.cos(on),
        jnp.tanh(bend) * sense,
        jnp.tanh(bend_there) * sense,
        jnp.tanh(jnp.abs(bend - 10.0 * arc)),
        jnp.tanh(jnp.abs(bend_there - 10.0 * arc)),
        jnp.tanh(jnp.abs(bend - bend_there)),
        size[:, None] + 0.0 * gap,
        size[end],
        heaviest,
        jnp.minimum(crosses.sum(-1), 3).astype(gap.dtype),
        (end // 2 == index[:, None] // 2).astype(gap.dtype),
        border[:, None] + 0.0 * gap,
        border[end],
        loss,
        loss - loss[:, :1],
        loss - jnp.log1p(jnp.minimum(-rival, 300.0))[end],
    ]
    own = [border, size, 10.0 * jnp.abs(ends.bend), loss[:, 0], loss[:, 1]]
    seen = jnp.where(valid[..., None], jnp.stack(features, -1), 0.0)
    return Partners(end, valid, seen, jnp.stack(own, -1), jnp.where(valid, cost, jnp.inf), crosses)


def _crossed(segments: Segments, ends: Ends, end: Int[Array, "ends partners"]) -> Bool[Array, "ends partners segments"]:
    """The segments, other than the two that are joined, that lie across each chord."""
    n, many = len(end), segments.length.shape[0]

    def from_end(e):
        a, b = ends.place[e][None, None, None], ends.place[end[e]][:, None, None]
        met = runs_through(a, b, segments.outline[None, :, :-1], segments.outline[None, :, 1:]).any(-1)
        index = jnp.arange(many)[None]
        joined = (index == e // 2) | (index == end[e][:, None] // 2)
        return met & ~joined & (segments.length > 0)[None]

    return jax.lax.map(from_end, jnp.arange(n), batch_size=16)
