"""Labelled pixels in the order of the membranes they lie on: an agent that walks (paper, Section 4.1, first phase).

A mask is thinned to lines one pixel wide. A walk begins at the end of a line and goes from labelled pixel to labelled pixel that
nobody has visited, until there is none; then it goes back to where it began, if a line leads on from there, and the next walk
begins. A step of the environment leads from one choice to the next: moves that leave none are made on the way.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from jaxmem.grouping.rl.environment import Environment
from jaxmem.grouping.rl.walker.state import WalkState, WalkTask, around, rank
from jaxmem.grouping.rl.walker.view import BEHIND, MOVES, NEAR, REACH, WAYS, WalkView, follow, look, unit

DEPTH = 10  # pixels that the teacher looks ahead: past the band in which two lines that cross are one; by hand
_PATIENCE = 12  # pixels in a row that belong to other membranes before a walk is held to have changed; by hand
_BEGINNING = 12  # pixels that say, on the way back, which membrane a walk is on; as many as `_PATIENCE`
_SWITCH, _ANEW = (
    1.0,
    0.3,
)  # costs of a change of membrane, and of a new walk; by hand: the shipped walker learnt without
_WINDOW = 3  # moves whose direction is the walk's; by hand


def view(state: WalkState) -> WalkView:
    """What the policy sees of a state."""
    corner = state.place - REACH

    def cut(whole):
        return jax.lax.dynamic_slice(whole, corner, (2 * REACH + 1, 2 * REACH + 1))

    return look(
        cut(state.task.line), cut(state.walk) > 0, cut(state.task.width), state.recent - corner[None], state.known
    )


def _go(state: WalkState, move: Array) -> WalkState:
    """One pixel on; nothing is written yet."""
    place = state.place + jnp.asarray(MOVES)[move]
    moved = state.moved + 1
    own = state.task.owners[place[0], place[1]]
    shared = state.owners & own
    against = jnp.where(own == 0, state.against, jnp.where(shared != 0, 0, state.against + 1))
    switch = (against >= _PATIENCE) | ((state.owners == 0) & (own != 0))
    return state._replace(
        place=place,
        recent=jnp.concatenate([place[None], state.recent[:-1]]),
        known=jnp.minimum(state.known + 1, BEHIND),
        # beyond the opening the index is out of bounds, and nothing is written
        opening=state.opening.at[jnp.where(state.sign > 0, moved, BEHIND + 1)].set(place, mode="drop"),
        moved=moved,
        owners=jnp.where(switch, own, jnp.where(shared != 0, shared, state.owners)),
        sure=jnp.where(switch, 0, state.sure + ((shared != 0) & (own & (own - 1) == 0)).astype(state.sure.dtype)),
        against=jnp.where(switch, 0, against),
        switches=state.switches + (switch & (state.owners != 0)).astype(state.switches.dtype),
    )


def _turn_back(state: WalkState) -> WalkState:
    """To where the walk began, the other way round: what it saw first is behind it now."""
    known = jnp.minimum(state.moved, BEHIND)
    own = state.task.owners[state.opening[:_BEGINNING, 0], state.opening[:_BEGINNING, 1]]

    def keep(held, i):
        both = held & own[i]
        return jnp.where((i <= known) & (both != 0), both, held), None

    held, _ = jax.lax.scan(keep, own[jnp.argmax(own != 0)], jnp.arange(1, _BEGINNING))
    return state._replace(
        place=state.opening[0],
        recent=state.opening,
        known=known,
        sign=-state.sign,
        owners=held,
        sure=((own[1:] == held) & (jnp.arange(1, _BEGINNING) <= known)).sum(),
        against=jnp.zeros_like(known),
    )


def _begin(state: WalkState) -> WalkState:
    """A new walk at the next start, if nobody has been there."""
    place = state.task.starts[jnp.minimum(state.next_start, len(state.task.starts) - 1)]
    fine = (state.walk[place[0], place[1]] == 0) & (state.next_start < state.task.used)
    zero, still = jnp.zeros_like(state.moved), jnp.broadcast_to(place, state.recent.shape)
    begun = state._replace(
        place=place,
        recent=still,
        known=zero,
        opening=still,
        moved=zero,
        sign=zero + 1,
        number=state.number + 1,
        owners=state.task.owners[place[0], place[1]],
        sure=zero,
        against=zero,
    )
    new = jax.tree.map(lambda a, b: jnp.where(fine, a, b), _small(begun), _small(state))
    return new._replace(next_start=state.next_start + 1, done=state.next_start >= state.task.used)


def _small(state: WalkState) -> WalkState:
    """Without the slice and what is written on it, which no loop should copy."""
    nothing: Any = None
    return state._replace(task=nothing, walk=nothing, order=nothing)


def _written(state: WalkState, small: WalkState, place_in_walk: Array) -> WalkState:
    """The slice put back, and the new place visited."""
    y, x = small.place
    walk, order = state.walk.at[y, x].set(small.number), state.order.at[y, x].set(place_in_walk)
    return small._replace(task=state.task, walk=walk, order=order)


def to_choice(state: WalkState) -> WalkState:
    """Whatever leaves no choice, until there is one or every pixel is visited."""

    def forced(state):
        return ~state.done & (around(state).sum() < 2)

    def on(state):
        free = around(state)
        back = (state.sign > 0) & around(state._replace(place=state.opening[0])).any()
        what = jnp.where(free.any(), 0, jnp.where(back, 1, 2))
        ways = (lambda: _small(_go(state, jnp.argmax(free))), lambda: _small(_turn_back(state)), lambda: _begin(state))
        new = jax.lax.switch(what, ways)
        same = (new.place == state.place).all()
        now = rank(state)
        return _written(state, new, jnp.where(what == 0, now + state.sign, jnp.where(same, now, 0)))

    return jax.lax.while_loop(forced, on, state)


def act(state: WalkState, action: Array) -> WalkState:
    """One move; a move that is not allowed is none."""
    may = around(state)[action]
    new = jax.tree.map(lambda a, b: jnp.where(may, a, b), _small(_go(state, action)), _small(state))
    return _written(state, new, rank(state) + jnp.where(may, state.sign, 0))


def begin(task: WalkTask) -> WalkState:
    """Before the first walk; `to_choice` begins it."""
    blank, zero = jnp.zeros(task.line.shape, int), jnp.zeros((), int)
    still = jnp.ones((BEHIND + 1, 2), int)  # in the border, where nothing is
    return WalkState(
        task=task,
        walk=blank,
        order=blank,
        place=still[0],
        recent=still,
        known=zero,
        opening=still,
        moved=zero,
        sign=zero - 1,
        number=zero,
        next_start=zero,
        owners=zero,
        sure=zero,
        against=zero,
        switches=zero,
        done=jnp.zeros((), bool),
    )


def _init(key: Key[Array, ""], task: WalkTask) -> tuple[WalkState, WalkView]:
    del key
    state = to_choice(begin(task))
    return state, view(state)


def _step(key: Key[Array, ""], state: WalkState, action: Array) -> tuple[WalkState, WalkView, Array, Array]:
    del key
    new = to_choice(act(state, action))
    switched, begun = new.switches - state.switches, new.number - state.number
    dtype = state.task.width.dtype
    return new, view(new), -_SWITCH * switched.astype(dtype) - _ANEW * begun.astype(dtype), new.done


def _drift(state: WalkState) -> Array:
    step = state.recent[0] - state.recent[jnp.minimum(_WINDOW, state.known)]
    return unit(step.astype(state.task.width.dtype))


def ahead(state: WalkState, depth: int) -> tuple[Int[Array, "8 depth 2"], Int[Array, " 8"]]:
    """The path of each move, on the walk's membranes where it can be, and how many pixels it has.

    Arguments:
        state: at a choice.
        depth: pixels at most; static.
    """
    free, keeps = state.task.line & (state.walk == 0), (state.task.owners & state.owners) != 0
    return jax.vmap(lambda k: follow(free, state.place, k, _drift(state), depth, keeps))(jnp.arange(8))


def verdicts(state: WalkState, path: Int[Array, "8 depth 2"], n: Int[Array, " 8"]) -> Int[Array, " 8"]:
    """Of each move 1 if it keeps to the walk's membranes, -1 if it leads onto others, 0 if neither, or not allowed.

    Arguments:
        state: at a choice.
        path, n: from `ahead`, at least `DEPTH` pixels deep; what is farther away does not count.
    """
    path, n = path[:, :DEPTH], jnp.minimum(n, DEPTH)
    own = state.task.owners[path[..., 0], path[..., 1]]
    index = jnp.arange(DEPTH)[None]
    there = (index < n[:, None]) & (index >= 2)
    keeps = (own & state.owners) != 0
    good, bad = (there & keeps).sum(1), (there & ~keeps & (own != 0)).sum(1)
    right, wrong = (good >= bad) & (good >= 2), (n >= 5) & (bad > good)
    return jnp.where(around(state), jnp.where(right, 1, jnp.where(wrong, -1, 0)), 0)


def taught(state: WalkState, verdict: Int[Array, " 8"]) -> Int[Array, ""]:
    """The move that keeps to the membrane, cuts no corner, and otherwise goes straight on."""
    drift = _drift(state)
    worth = 10.0 * verdict.astype(drift.dtype) + 2.0 * jnp.asarray(NEAR, drift.dtype)
    worth = worth + jnp.asarray(WAYS, drift.dtype) @ drift
    return jnp.argmax(jnp.where(around(state), worth, -jnp.inf))


def _expert(state: WalkState) -> Int[Array, ""]:
    return taught(state, verdicts(state, *ahead(state, DEPTH)))


WALKING = Environment(_init, _step, _expert)
"""The walker's environment: tasks are `WalkTask`, states `WalkState`, observations `WalkView`; eight moves."""
