"""A slice as a task for the walker, and where a walk is."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmem.grouping.rl.walker.view import MOVES, REACH

_LEAST = 4096  # starts that there is always room for: most slices of 256 x 256 share one compiled program


class WalkTask(NamedTuple):
    """One slice, with a border of `REACH` pixels added to every side.

    Attributes:
        line: where the thinned mask is.
        width: distance to the edge of the mask that was thinned, pixels; 0 off the lines.
        owners: bit k is set where membrane k runs; 0 everywhere if the truth is not known.
        starts: y, x where walks may begin: ends of lines, then every pixel.
        used: how many of the starts; the others are padding.
    """

    line: Bool[Array, "height width"]
    width: Float[Array, "height width"]
    owners: Int[Array, "height width"]
    starts: Int[Array, "starts 2"]
    used: Int[Array, ""]


class WalkState(NamedTuple):
    """Where the walk is.

    Attributes:
        task: the slice.
        walk, order: (height, width) number of the walk that visited each pixel, 0 before, and the place in it: it grows
            from 0 where the walk began, and falls on the way back.
        place: y, x.
        recent: the walk's last pixels, the place first.
        known: how many of them after the first are the walk's.
        opening: the first pixels of the walk, where it began first.
        moved: moves since the beginning, both ways.
        sign: 1, or -1 on the way back.
        number: of the walk.
        next_start: the next of the task's starts.
        owners: membranes that the walk is on, as bits.
        sure: pixels that belong to these and to no others, since the last change.
        against: pixels in a row that belong to others.
        switches: how often walks have changed from membrane to membrane.
        done: every pixel is visited.
    """

    task: WalkTask
    walk: Int[Array, "height width"]
    order: Int[Array, "height width"]
    place: Int[Array, " 2"]
    recent: Int[Array, "behind 2"]
    known: Int[Array, ""]
    opening: Int[Array, "behind 2"]
    moved: Int[Array, ""]
    sign: Int[Array, ""]
    number: Int[Array, ""]
    next_start: Int[Array, ""]
    owners: Int[Array, ""]
    sure: Int[Array, ""]
    against: Int[Array, ""]
    switches: Int[Array, ""]
    done: Bool[Array, ""]


def walk_task(
    line: Bool[np.ndarray, "height width"],
    width: Float[np.ndarray, "height width"],
    owners: Int[np.ndarray, "height width"] | None = None,
) -> WalkTask:
    """A thinned mask as a task; there is room for a power of two of starts, so that few shapes are compiled.

    Arguments:
        line: the thinned mask, from `skimage.morphology.skeletonize`; where corners are left, walks pass them by.
        width: distance to the edge of the mask, pixels, from `scipy.ndimage.distance_transform_edt`.
        owners: the truth as bits, for learning and for scores.
    """
    line = np.pad(np.asarray(line, bool), REACH)
    width = np.pad(np.asarray(width, np.float32), REACH) * line
    owners = np.zeros(line.shape, np.int32) if owners is None else np.pad(np.asarray(owners, np.int32), REACH)
    degree = sum(np.roll(line, m, (0, 1)).astype(int) for m in MOVES)
    starts = np.concatenate([np.argwhere(line & (degree <= 1)), np.argwhere(line)])
    room = max(_LEAST, 1 << (len(starts) - 1).bit_length())
    padded = np.pad(starts, ((0, room - len(starts)), (0, 0))).astype(np.int32)
    return WalkTask(*map(jnp.asarray, (line, width, owners, padded, np.int32(len(starts)))))


def around(state: WalkState) -> Bool[Array, " 8"]:
    """Which of the eight neighbours, from x towards y, are labelled and not visited."""
    at = state.place[None] + jnp.asarray(MOVES, state.place.dtype)
    return state.task.line[at[:, 0], at[:, 1]] & (state.walk[at[:, 0], at[:, 1]] == 0)


def rank(state: WalkState) -> Int[Array, ""]:
    """The place of the last pixel in its walk."""
    return state.order[state.place[0], state.place[1]]
