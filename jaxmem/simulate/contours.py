"""Slices of labelled contours with gaps, with touching and nested membranes and stray pieces: what grouping is measured on.

`slices` draws what a microscope would show; this draws what a network would have labelled, and what belongs together.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmem.numerics import safe_norm
from jaxmem.simulate.noise import log_uniform, uniform
from jaxmem.types import Scalar

_SLOTS = 12  # membranes of a slice, at most
_POINTS = 768  # along a membrane: half a pixel apart at a radius of 60 pixels
_COARSE = 8  # one point out of so many is asked whether membranes cross
_ATTEMPTS = 8  # to place a membrane; a choice
_APART = 2.7  # pixels between membranes that are not meant to touch
_PIECES = 12  # of a contour, at most
_STRAYS = 40  # stray pieces of a slice, at most
_STRAY_POINTS = 48  # of a stray piece at most, half a pixel apart
_Range = tuple[Scalar, Scalar]
_Counts = tuple[int | Int[Array, ""], int | Int[Array, ""]]
_ORDERS = (2, 3, 4, 5)  # of the harmonics of a contour's radius
_WOBBLES = 12  # harmonics along a contour that its labels depart by


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ContourModel:
    """Ranges from which a slice is drawn; every pair is (smallest, largest), lengths in pixels.

    A pytree: one compiled program serves all ranges, and another `size` needs another one.

    Attributes:
        size: of the slice.
        membranes: how many are tried, twelve at most; some find no room.
        radius, aspect, deformation: of closed membranes; the deformation is the size of the harmonics of the radius.
        sheet_radius, sheet_fraction: of membranes that enter the slice and leave it.
        nested_fraction, parallel_fraction, touching_fraction: share of membranes that are put inside another one, that
            follow another one on its inside, at least `parallel_gap` away, and that are pushed against another one (they may cross
            by less than a pixel).
        gap_fraction: share of every contour that is missing, the same throughout a slice.
        pieces: into how many pieces a closed contour falls, twelve at most; an open one has a piece more.
        stray_fraction: length of all stray pieces over that of the membranes' pieces.
        wobble: standard deviation of the labels' slow departure from the true course.

    Example:
        >>> ContourModel(size=128).membranes
        (1, 12)
    """

    size: int = field(default=256, metadata={"static": True})
    membranes: _Counts = (1, _SLOTS)
    radius: _Range = (10.0, 60.0)
    aspect: _Range = (0.6, 1.0)
    deformation: Scalar = 0.09
    sheet_radius: _Range = (80.0, 400.0)
    sheet_fraction: Scalar = 0.12
    nested_fraction: Scalar = 0.25
    parallel_fraction: Scalar = 0.1
    parallel_gap: _Range = (3.0, 8.0)
    touching_fraction: Scalar = 0.25
    gap_fraction: _Range = (0.0, 0.6)
    pieces: _Counts = (1, _PIECES)
    stray_fraction: _Range = (0.0, 0.2)
    wobble: Scalar = 0.3


class Contours(NamedTuple):
    """Membranes and stray pieces of one slice, as points one after another.

    Attributes:
        points: (membranes, n, 2) y, x in pixels, evenly spaced, about half a pixel apart or less.
        within: (membranes, n) those in the slice: one run of points, which may begin anywhere.
        visible: (membranes, n) those that are labelled.
        closed: (membranes,) whether the whole contour lies in the slice.
        present: (membranes,) the others are padding, none of whose points is visible.
        strays, stray_visible: (strays, m, 2) and (strays, m), likewise.
        gap_fraction: of this slice.
    """

    points: Float[Array, "membranes n 2"]
    within: Bool[Array, "membranes n"]
    visible: Bool[Array, "membranes n"]
    closed: Bool[Array, " membranes"]
    present: Bool[Array, " membranes"]
    strays: Float[Array, "strays m 2"]
    stray_visible: Bool[Array, "strays m"]
    gap_fraction: Float[Array, ""]


class _Shape(NamedTuple):
    centre: Float[Array, "*batch 2"]
    radius: Float[Array, "*batch"]
    aspect: Float[Array, "*batch"]
    angle: Float[Array, "*batch"]
    harmonics: Float[Array, "*batch 4 2"]
    sheet: Bool[Array, "*batch"]


def _draw_shape(key, model: ContourModel, hosts: _Shape, accepted):
    """A candidate, and whether it is to touch another membrane."""
    keys = jax.random.split(key, 12)
    chosen = jax.random.categorical(keys[0], jnp.where(accepted, 0.0, -1e9))
    host = jax.tree.map(lambda leaf: leaf[chosen], hosts)
    shares = jnp.array([model.sheet_fraction, model.nested_fraction, model.parallel_fraction, model.touching_fraction])
    kind = jnp.searchsorted(jnp.cumsum(shares), jax.random.uniform(keys[1]), side="right")
    nested, parallel, touching = ((kind == k) & accepted.any() for k in (1, 2, 3))
    nested &= ~host.sheet
    sheet = (kind == 0) | (parallel & host.sheet)

    low, high = (jnp.where(kind == 0, a, b) for a, b in zip(model.sheet_radius, model.radius))
    radius = log_uniform(keys[2], (low, high))
    radius = jnp.where(nested, host.radius * uniform(keys[3], (0.25, 0.85)), radius)
    radius = jnp.where(parallel, host.radius - uniform(keys[4], model.parallel_gap) / host.aspect, radius)
    aspect = jnp.where(sheet, 1.0, jnp.where(parallel, host.aspect, uniform(keys[5], model.aspect)))
    angle = jnp.where(parallel, host.angle, uniform(keys[6], (0.0, 2 * jnp.pi)))
    # a sheet keeps close to its circle, or it would cross the slice many times
    size = jnp.where(sheet, 0.3, 1.0) * model.deformation
    drawn = jax.random.normal(keys[7], (4, 2)) * size / jnp.array(_ORDERS, float)[:, None]
    harmonics = jnp.where(parallel, host.harmonics, drawn)

    centre = uniform(keys[8], (-0.1, 1.1), (2,)) * model.size
    # a sheet passes through a place well within the slice
    on = uniform(keys[9], (0.15, 0.85), (2,)) * model.size
    centre = jnp.where(sheet, on - radius * jnp.stack([jnp.sin(angle), jnp.cos(angle)]), centre)
    room = jnp.maximum(host.radius * host.aspect - radius, 0.0)
    centre = jnp.where(nested, host.centre + uniform(keys[10], (-0.7, 0.7), (2,)) * room, centre)
    centre = jnp.where(parallel, host.centre, centre)
    return _Shape(centre, radius, aspect, angle, harmonics, sheet), touching


def _outline(shape: _Shape, model: ContourModel) -> Float[Array, "n 2"]:
    """Evenly spaced points; of a sheet the arc that can lie in the slice."""
    half = jnp.where(shape.sheet, jnp.minimum(jnp.pi, 0.75 * model.size / shape.radius), jnp.pi)
    t = half * jnp.linspace(-1.0, 1.0, 2 * _POINTS)
    turn = jnp.array(_ORDERS, t.dtype)[:, None] * t[None]
    reach = shape.radius * (1.0 + shape.harmonics[:, 0] @ jnp.cos(turn) + shape.harmonics[:, 1] @ jnp.sin(turn))
    u, v = reach * jnp.cos(t), reach * jnp.sin(t) * shape.aspect
    cos, sin = jnp.cos(shape.angle), jnp.sin(shape.angle)
    path = shape.centre[None] + jnp.stack([u * sin + v * cos, u * cos - v * sin], -1)
    length = jnp.concatenate([jnp.zeros(1), jnp.cumsum(safe_norm(jnp.diff(path, axis=0)))])
    # of a closed path the last point is the first, and is left out
    last = jnp.where(shape.sheet, 1.0, 1.0 - 1.0 / _POINTS)
    at = jnp.linspace(0.0, 1.0, _POINTS) * last * length[-1]
    return jnp.stack([jnp.interp(at, length, path[:, a]) for a in range(2)], -1)


def _distances(points: Float[Array, "n 2"], curves: Float[Array, "k m 2"]) -> Float[Array, "k n m"]:
    return safe_norm(points[None, :, None] - curves[:, None])


def _inside(points: Float[Array, "n 2"], curves: Float[Array, "k m 2"]) -> Bool[Array, "k n"]:
    """Whether points lie within closed curves (crossing number)."""
    y, x = points[None, :, :1], points[None, :, 1:]
    a, b = curves[:, None], jnp.roll(curves, -1, 1)[:, None]
    rise = b[..., 0] - a[..., 0]
    between = (a[..., 0] > y) != (b[..., 0] > y)
    cross = a[..., 1] + (y - a[..., 0]) / jnp.where(rise == 0, 1.0, rise) * (b[..., 1] - a[..., 1])
    return jnp.sum(between & (x < cross), -1) % 2 == 1


def _place(key, model: ContourModel):
    """Points of the membranes, and which of them found room."""
    wanted = jax.random.randint(jax.random.fold_in(key, 0), (), model.membranes[0], model.membranes[1] + 1)
    ones = jnp.ones(_SLOTS)
    blank = _Shape(jnp.zeros((_SLOTS, 2)), ones, ones, ones, jnp.zeros((_SLOTS, 4, 2)), jnp.zeros(_SLOTS, bool))

    def slot(i, state):
        curves, shapes, accepted = state
        others = curves[:, ::_COARSE]

        def away(points):
            return jnp.where(accepted[:, None, None], _distances(points[::_COARSE], others), jnp.inf)

        def attempt(state):
            shape, touching = _draw_shape(
                jax.random.fold_in(key, 1 + i * _ATTEMPTS + state[0]), model, shapes, accepted
            )
            points = _outline(shape, model)
            # what is to touch moves along the shortest way to another membrane, up to less than three pixels
            gaps = away(points)
            k, near, theirs = jnp.unravel_index(jnp.argmin(gaps), gaps.shape)
            way = others[k, theirs] - points[near * _COARSE]
            rest = uniform(jax.random.fold_in(key, -1 - i), (0.0, 3.0))
            way = way * (1.0 - rest / jnp.maximum(safe_norm(way), 1.0))
            shift = jnp.where(touching & (gaps.min() < 0.5 * model.size), way, 0.0)
            points, shape = points + shift[None], shape._replace(centre=shape.centre + shift)

            share = _inside(points[::_COARSE], others).mean(-1)
            apart = jnp.minimum(share, 1.0 - share) <= jnp.where(touching, 0.03, 0.0)
            within = _in_slice(points, model)
            runs = jnp.sum(within != jnp.roll(within, 1))
            fine = (apart | ~accepted).all() & (touching | (away(points).min() >= _APART))
            fine &= (runs <= 2) & (within.sum() >= 60) & (shape.radius >= 0.8 * model.radius[0])
            return state[0] + 1, points, shape, fine

        def unsettled(state):
            return (state[0] < _ATTEMPTS) & ~state[-1] & (i < wanted)

        nothing = (0, curves[0], jax.tree.map(lambda leaf: leaf[0], shapes), jnp.zeros((), bool))
        _, points, shape, fine = jax.lax.while_loop(unsettled, attempt, nothing)
        put = jax.tree.map(lambda all_, one: all_.at[i].set(one), (curves, shapes), (points, shape))
        return (*put, accepted.at[i].set(fine))

    start = jnp.zeros((_SLOTS, _POINTS, 2)), blank, jnp.zeros(_SLOTS, bool)
    curves, _, accepted = jax.lax.fori_loop(0, _SLOTS, slot, start)
    return curves, accepted


def _in_slice(points, model: ContourModel):
    return ((points >= 0) & (points <= model.size - 1)).all(-1)


def _labelled(key, model: ContourModel, missing, within):
    """Which of a contour's points are labelled: pieces and gaps take turns along what lies in the slice."""
    keys = jax.random.split(key, 4)
    closed = within.all()
    first = jnp.where(closed, 0, jnp.argmax(within & ~jnp.roll(within, 1)))
    place = jnp.mod(jnp.arange(_POINTS) - first, _POINTS) / jnp.maximum(within.sum(), 1)
    place = jnp.where(closed, jnp.mod(place + jax.random.uniform(keys[0]), 1.0), place)
    gaps = jax.random.randint(keys[1], (), model.pieces[0], model.pieces[1] + 1)
    kept = jnp.where(jnp.arange(_PIECES + 1) <= gaps, jax.random.gamma(keys[2], 2.0, (_PIECES + 1,)), 0.0)
    lost = jnp.where(jnp.arange(_PIECES + 1) < gaps, jax.random.gamma(keys[3], 2.0, (_PIECES + 1,)), 0.0)
    shares = jnp.stack([(1.0 - missing) * kept / kept.sum(), missing * lost / lost.sum()], 1)
    return within & (jnp.searchsorted(jnp.cumsum(shares.reshape(-1)), place, side="right") % 2 == 0)


def _draw_strays(key, model: ContourModel, wanted):
    """Arcs of circles in steps of half a pixel, until their lengths sum to `wanted`."""
    keys = jax.random.split(key, 4)
    length = uniform(keys[0], (3.0, 0.5 * _STRAY_POINTS), (_STRAYS,))
    bend = 0.08 * jax.random.normal(keys[1], (_STRAYS, 1))
    start = uniform(keys[2], (0.0, 1.0), (_STRAYS, 1, 2)) * model.size
    s = 0.5 * jnp.arange(_STRAY_POINTS, dtype=float)[None]
    heading = uniform(keys[3], (0.0, 2 * jnp.pi), (_STRAYS, 1)) + bend * s
    points = start + jnp.cumsum(0.5 * jnp.stack([jnp.sin(heading), jnp.cos(heading)], -1), 1)
    used = jnp.cumsum(length) <= wanted
    return points, (s < length[:, None]) & used[:, None] & _in_slice(points, model)


def draw_contours(key: Key[Array, ""], model: ContourModel) -> Contours:
    """One slice's membranes with their gaps, and stray pieces: the task of grouping (paper, Section 4), with its truth.

    Membranes are placed one after another by a search that ends when there is room: under `jax.vmap` every slice waits for
    the slowest; `jax.lax.map` draws one after the other. Gradients go forwards through the search (`jax.jvp`), not backwards.

    Arguments:
        key: random key.
        model: the ranges to draw from.
    """
    keys = jax.random.split(key, 6)
    curves, present = _place(keys[0], model)
    within = _in_slice(curves, model) & present[:, None]
    missing = uniform(keys[1], model.gap_fraction)
    visible = jax.vmap(lambda key, w: _labelled(key, model, missing, w))(jax.random.split(keys[2], _SLOTS), within)
    order = jnp.arange(1, _WOBBLES + 1, dtype=float)
    size = jax.random.normal(keys[3], (_SLOTS, 2, 2, _WOBBLES)) * model.wobble / _WOBBLES**0.5
    turn = 2 * jnp.pi * order[:, None] * jnp.arange(_POINTS, dtype=float)[None] / _POINTS
    wobble = jnp.einsum("kaio,iop->kpa", size, jnp.stack([jnp.cos(turn), jnp.sin(turn)]))
    labelled = jnp.sum(jnp.where(visible, safe_norm(curves[:, 1] - curves[:, 0])[:, None], 0.0))
    strays, stray_visible = _draw_strays(keys[4], model, uniform(keys[5], model.stray_fraction) * labelled)
    return Contours(curves + wobble, within, visible, within.all(-1), present, strays, stray_visible, missing)


def rasterise(contours: Contours, model: ContourModel, thickness: int = 1) -> Int[Array, "size size"]:
    """The membrane that each labelled pixel belongs to.

    Arguments:
        contours: from `draw_contours`.
        model: the same.
        thickness: of the lines, pixels; odd, static under jit.

    Returns:
        0 where nothing is labelled, k for row k - 1 of the membranes, and -1 - j for the stray piece in row j. Where
        membranes share a pixel, the last of them has it; strays have what is left.
    """
    reach = jnp.arange(-(thickness // 2), thickness // 2 + 1)
    brush = jnp.stack(jnp.meshgrid(reach, reach, indexing="ij"), -1).reshape(-1, 2)
    round_ = 4 * (brush**2).sum(-1) <= thickness**2

    def painted(points, visible):
        """One more than the row of the last piece at each pixel; 0 where there is none."""
        at = jnp.round(points).astype(int)[..., None, :] + brush[None, None]
        shown = visible[..., None] & round_[None, None] & _in_slice(at, model)
        number = jnp.broadcast_to(1 + jnp.arange(len(points))[:, None, None], shown.shape)
        blank = jnp.zeros((model.size, model.size), int)
        return blank.at[jnp.where(shown, at[..., 0], model.size), at[..., 1]].max(number, mode="drop")

    membranes = painted(contours.points, contours.visible)
    return jnp.where(membranes > 0, membranes, -painted(contours.strays, contours.stray_visible))
