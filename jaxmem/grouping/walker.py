"""Labelled pixels in the order of the membranes they lie on: an agent that walks (paper, Section 4.1, first phase).

A mask is thinned to lines one pixel wide. A walk begins at the end of a line and takes one of eight moves onto a labelled pixel
that nobody has visited, until there is none; then it goes back to where it began, if a line leads on from there, and the next
walk begins. Where lines meet, the agent has to choose; it sees its surroundings turned into its own direction.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmem.grouping.reinforcement import Environment

REACH = 7  # pixels that the agent sees to every side
_SIDE = 2 * REACH + 1
_MOVES = np.array(
    [[0, 1], [1, 1], [1, 0], [1, -1], [0, -1], [-1, -1], [-1, 0], [-1, 1]]
)  # y, x; turning from x towards y
_MEMORY = np.array([0.75, 0.92])  # how much of its two smoothed directions a walk keeps from one move to the next
_SWITCH, _ANEW = 1.0, 0.3


def _windows() -> np.ndarray:
    """(8, 15, 15, 2): the pixels seen by an agent of each heading; rows run ahead of it, columns to its right."""
    ahead, right = np.meshgrid(np.arange(-REACH, REACH + 1), np.arange(-REACH, REACH + 1), indexing="ij")
    out = []
    for k in range(8):
        cos, sin = np.cos(k * np.pi / 4), np.sin(k * np.pi / 4)
        out.append(np.stack([ahead * sin + right * cos, ahead * cos - right * sin], -1))
    return np.round(np.array(out)).astype(int)


_WINDOWS = _windows()


class WalkTask(NamedTuple):
    """One slice, with a border of `REACH` pixels added to every side.

    Attributes:
        line: where the thinned mask is.
        probability: of membrane, 0 to 1.
        first: where walks begin: larger first, 0 off the lines.
        owners: bit k is set where membrane k runs; 0 everywhere if the truth is not known.
    """

    line: Bool[Array, "height width"]
    probability: Float[Array, "height width"]
    first: Int[Array, "height width"]
    owners: Int[Array, "height width"]


class WalkState(NamedTuple):
    """Where the walk is.

    Attributes:
        task: the slice.
        walk, order: (height, width) number of the walk that visited each pixel, 0 before, and the place in it: it grows
            from 0 where the walk began, and falls on the way back.
        place: y, x.
        heading: 0 to 7, in steps of 45 degrees from x towards y; -1 before the first move.
        drift: direction of the last moves, smoothed over about 4 and 12 of them: what lies between the two is the bend.
        begin, begin_drift: where the walk began and where to.
        sign: 1, or -1 on the way back.
        number: of the walk.
        owners: membranes that hold every pixel since the last change.
        moved: moves since the beginning or the turning back.
    """

    task: WalkTask
    walk: Int[Array, "height width"]
    order: Int[Array, "height width"]
    place: Int[Array, " 2"]
    heading: Int[Array, ""]
    drift: Float[Array, "2 2"]
    begin: Int[Array, " 2"]
    begin_drift: Float[Array, "2 2"]
    sign: Int[Array, ""]
    number: Int[Array, ""]
    owners: Int[Array, ""]
    moved: Int[Array, ""]


class WalkView(NamedTuple):
    """What the policy sees, in the frame of its heading: lines, visited pixels and probabilities; smoothed directions; moves.

    Move k turns by 45 k degrees from x towards y; before the first move the frame is that of the slice.
    """

    window: Float[Array, "15 15 3"]
    drift: Float[Array, "2 2"]
    allowed: Bool[Array, " 8"]


def walk_task(
    line: Bool[np.ndarray, "height width"],
    probability: Float[np.ndarray, "height width"],
    owners: Int[np.ndarray, "height width"] | None = None,
) -> WalkTask:
    """A thinned mask as a task: walks begin at the ends of lines, then wherever pixels are left.

    Arguments:
        line: the thinned mask, from `skimage.morphology.skeletonize`; where corners are left, walks pass them by.
        probability: of membrane, 0 to 1.
        owners: the truth as bits, for learning and for scores.
    """
    line = np.pad(np.asarray(line, bool), REACH)
    ahead = sum(np.roll(line, m, (0, 1)).astype(int) for m in _MOVES)
    first = np.where(line, np.where(ahead <= 1, 2, 1), 0)
    owners = np.zeros(line.shape, np.int32) if owners is None else np.pad(owners, REACH).astype(np.int32)
    seen = np.pad(np.asarray(probability, np.float32), REACH)
    return WalkTask(*map(jnp.asarray, (line, seen, first.astype(np.int32), owners)))


def _around(state: WalkState) -> Bool[Array, " 8"]:
    """Which of the eight neighbours, from x towards y, are labelled and not visited."""
    at = state.place + jnp.asarray(_MOVES)
    return state.task.line[at[:, 0], at[:, 1]] & (state.walk[at[:, 0], at[:, 1]] == 0)


def _turned(vector: Array, heading: Array) -> Array:
    """Vectors (y, x) as parts to the right of the heading and along it."""
    angle = jnp.maximum(heading, 0) * jnp.pi / 4
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return vector @ jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])]).T


def view(state: WalkState) -> WalkView:
    """What the policy sees of a state."""
    heading = jnp.maximum(state.heading, 0)
    at = state.place + jnp.asarray(_WINDOWS)[heading]
    y, x = at[..., 0], at[..., 1]
    inside = (y >= 0) & (x >= 0) & (y < state.walk.shape[0]) & (x < state.walk.shape[1])
    seen = [state.task.line[y, x], state.walk[y, x] > 0, state.task.probability[y, x]]
    window = jnp.stack([jnp.where(inside, s, 0.0) for s in seen], -1)
    return WalkView(window, _turned(state.drift, heading), jnp.roll(_around(state), -heading))


def _begin(state: WalkState) -> tuple[WalkState, Bool[Array, ""]]:
    """A new walk where lines end or pixels are left; done if there are none."""
    left = jnp.where(state.walk == 0, state.task.first, 0)
    where = jnp.argmax(left)
    place = jnp.stack(jnp.unravel_index(where, left.shape))
    found = left.reshape(-1)[where] > 0
    number = state.number + found
    still = jnp.zeros((2, 2))
    begun = state._replace(
        walk=state.walk.at[place[0], place[1]].set(jnp.where(found, number, state.walk[place[0], place[1]])),
        place=jnp.where(found, place, state.place),
        heading=jnp.asarray(-1),
        drift=still,
        begin=place,
        begin_drift=still,
        sign=jnp.asarray(1),
        number=number,
        owners=state.task.owners[place[0], place[1]],
        moved=jnp.asarray(0),
    )
    return begun, ~found


def _turn_back(state: WalkState) -> WalkState:
    """To where the walk began, the other way round."""
    back = -state.begin_drift
    heading = jnp.round(jnp.arctan2(back[0, 0], back[0, 1]) / (jnp.pi / 4)).astype(int) % 8
    return state._replace(
        place=state.begin,
        heading=jnp.where((back == 0).all(), -1, heading),
        drift=back,
        sign=jnp.asarray(-1),
        owners=state.task.owners[state.begin[0], state.begin[1]],
        moved=jnp.asarray(0),
    )


def _init(key: Key[Array, ""], task: WalkTask) -> tuple[WalkState, WalkView]:
    del key
    nobody, zero, still = jnp.zeros(task.line.shape, int), jnp.asarray(0), jnp.zeros((2, 2))
    somewhere = jnp.full(2, REACH)
    one = jnp.asarray(1)
    state = WalkState(task, nobody, nobody, somewhere, zero, still, somewhere, still, one, zero, zero, zero)
    state, _ = _begin(state)
    return state, view(state)


def _step(key: Key[Array, ""], state: WalkState, action: Array) -> tuple[WalkState, WalkView, Array, Array]:
    del key
    free = _around(state)
    move = (jnp.maximum(state.heading, 0) + action) % 8
    may = free[move]
    step = jnp.asarray(_MOVES)[move]
    place = state.place + step * may
    way = step / jnp.sqrt((step**2).sum() * 1.0)
    memory = jnp.where(state.heading < 0, 0.0, jnp.asarray(_MEMORY, way.dtype))[:, None]
    drift = memory * state.drift + (1.0 - memory) * way
    shared = state.owners & state.task.owners[place[0], place[1]]
    switched = may & (shared == 0) & (state.owners != 0)
    rank = state.order[state.place[0], state.place[1]] + state.sign
    went = state._replace(
        walk=state.walk.at[place[0], place[1]].set(state.number),
        order=state.order.at[place[0], place[1]].set(jnp.where(may, rank, state.order[place[0], place[1]])),
        place=place,
        heading=jnp.where(may, move, state.heading),
        drift=jnp.where(may, drift, state.drift),
        owners=jnp.where(shared == 0, state.task.owners[place[0], place[1]], shared),
        begin_drift=jnp.where((state.moved < 4) & (state.sign > 0) & may, drift, state.begin_drift),
        moved=state.moved + 1,
    )
    stuck = ~_around(went).any()
    back = _turn_back(went)
    can_turn = (state.sign > 0) & _around(back).any()
    anew, done = _begin(went)

    def choose(on, turned, begun):
        return jnp.where(stuck, jnp.where(can_turn, turned, begun), on)

    new = jax.tree.map(choose, went, back, anew)
    over = stuck & ~can_turn
    reward = -_SWITCH * switched - _ANEW * (over & ~done)
    return new, view(new), reward, over & done


def _expert(state: WalkState) -> Int[Array, ""]:
    """Keeps to its membrane, and of the pixels that lie on it takes the one that changes its direction least."""
    free = _around(state)
    at = state.place + jnp.asarray(_MOVES)
    keeps = (state.task.owners[at[:, 0], at[:, 1]] & state.owners) != 0
    way = jnp.asarray(_MOVES) / jnp.linalg.norm(jnp.asarray(_MOVES), axis=1)[:, None]
    near = jnp.asarray(np.abs(_MOVES).sum(1) == 1)  # who cuts a corner leaves its pixel behind
    worth = 10.0 * keeps + 2.0 * near + way @ state.drift[0]
    best = jnp.argmax(jnp.where(free, worth, -jnp.inf))
    return (best - jnp.maximum(state.heading, 0)) % 8


WALKING = Environment(_init, _step, _expert)
"""The walker's environment: tasks are `WalkTask`, states `WalkState`, observations `WalkView`; eight moves."""


def straight_on(seen: WalkView) -> tuple[Float[Array, " 8"], Float[Array, ""]]:
    """The policy without learning: the move that changes the direction least."""
    angle = jnp.arange(8) * jnp.pi / 4
    ahead = seen.drift[0, 0] * jnp.sin(angle) + seen.drift[0, 1] * jnp.cos(angle)
    return jnp.where(seen.allowed, ahead, -1e9), jnp.zeros(())


class WalkPolicy(nnx.Module):
    """A small network over the window.

    Arguments:
        width: of the layers.
        rngs: of the first weights.
    """

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.first = nnx.Linear(3 * _SIDE**2 + 4, width, rngs=rngs)
        self.second = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, 9, rngs=rngs)

    def __call__(self, seen: WalkView) -> tuple[Float[Array, " 8"], Float[Array, ""]]:
        """Logits of the moves, and the value."""
        x = jnp.concatenate([seen.window.reshape(-1), seen.drift.reshape(-1)])
        out = self.out(nnx.gelu(self.second(nnx.gelu(self.first(x)))))
        return jnp.where(seen.allowed, out[:8], -1e9), out[8]


def walk_lines(policy: Any, task: WalkTask) -> tuple[Int[Array, "height width"], Int[Array, "height width"]]:
    """Walk over a whole slice, always by the likeliest move.

    Arguments:
        policy: from an observation to logits and value.
        task: from `walk_task`.

    Returns:
        number of the walk of each pixel, 0 off the lines; and its place in that walk. Both without the task's border.
    """
    key = jax.random.key(0)
    state, seen = WALKING.init(key, task)

    def more(carry):
        return ~carry[2]

    def advance(carry):
        state, seen, _ = carry
        state, seen, _, done = WALKING.step(key, state, jnp.argmax(policy(seen)[0]))
        return state, seen, done

    state, _, _ = jax.lax.while_loop(more, advance, (state, seen, ~task.line.any()))
    inner = slice(REACH, -REACH)
    return state.walk[inner, inner], state.order[inner, inner]


def paths_of(walk: Int[np.ndarray, "height width"], order: Int[np.ndarray, "height width"]) -> list[np.ndarray]:
    """The pixels (n, 2) of each walk, in order."""
    y, x = np.nonzero(walk)
    number = walk[y, x]
    by = np.lexsort((order[y, x], number))
    ends = np.flatnonzero(np.diff(number[by])) + 1
    return [np.stack([y[i], x[i]], -1).astype(float) for i in np.split(by, ends) if len(i)]
