"""Which segments follow one another around a membrane: an agent that walks from end to end (paper, Section 4.1, second phase).

The walk begins at the longest segment that no chain has yet. At an end it goes over to one of the end's partners, entering their
segment there and leaving it at its other end; or it comes back to where the chain began and closes the loop; or it leaves the end
alone, and then the chain is continued at its beginning; or it takes back the last link, which it may not make again. A chain is
complete when its loop is closed or both its ends are left alone. No segment is visited twice, and no gap is crossed where a
segment of a chain or another gap lies.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmem.grouping.rl.environment import Environment
from jaxmem.grouping.rl.linker.segments import (
    PARTNERS,
    Ends,
    Partners,
    Segments,
    ends_of,
    link_cost,
    partners_of,
    relation,
    runs_through,
)
from jaxmem.numerics import compiled

LEAVE, UNDO = PARTNERS, PARTNERS + 1  # the actions beside "go over to partner k"
_UNDO_COST = 0.01  # reward: taking a link back is never for nothing; by hand
_REWARD = 10.0  # of a whole agreement, so that one link is worth about 1; by hand


class LinkTask(NamedTuple):
    """One slice.

    Attributes:
        segments, ends, partners: what there is to see.
        follows: (ends,) the end that truly follows each, -1 if none does or the truth is not known.
        owner: (segments,) the membrane that each segment belongs to; strays and padding have numbers of their own.
    """

    segments: Segments
    ends: Ends
    partners: Partners
    follows: Int[Array, " ends"]
    owner: Int[Array, " segments"]


class LinkState(NamedTuple):
    """Where the walk is.

    Attributes:
        task: the slice.
        current: the end where the walk stands.
        other: the other end of the chain.
        back: whether `other` has been left alone, so that the loop cannot close.
        made: links made since the walk last began at an end of the chain; these can be taken back.
        chain: number of the chain.
        group: (segments,) chain of each segment, 0 before it has one.
        linked: (ends,) the end each is linked to, -1 if to none.
        banned: (ends, PARTNERS) links that were taken back.
        turned, length: of the chain, towards `current`: radians and pixels.
        undone: links taken back so far.
    """

    task: LinkTask
    current: Int[Array, ""]
    other: Int[Array, ""]
    back: Bool[Array, ""]
    made: Int[Array, ""]
    chain: Int[Array, ""]
    group: Int[Array, " segments"]
    linked: Int[Array, " ends"]
    banned: Bool[Array, "ends partners"]
    turned: Float[Array, ""]
    length: Float[Array, ""]
    undone: Int[Array, ""]


class LinkView(NamedTuple):
    """What the policy sees: features of each partner, of the end and the chain, and which actions are allowed."""

    partners: Float[Array, "partners f"]
    chain: Float[Array, " g"]
    allowed: Bool[Array, " actions"]


@compiled
def link_task(
    segments: Segments, follows: Int[Array, " ends"] | None = None, owner: Int[Array, " segments"] | None = None
) -> LinkTask:
    """A slice as a task; the truth (`follows`, `owner`, as in `LinkTask`) is for learning and for scores only."""
    many = segments.length.shape[0]
    follows = jnp.full(2 * many, -1) if follows is None else follows
    owner = jnp.arange(many) if owner is None else owner
    return LinkTask(segments, ends_of(segments), partners_of(segments), follows, owner)


def steps_for(capacity: int) -> int:
    """Enough actions for any slice of so many segments: every end is linked or left alone, and some links are taken back."""
    return 2 * capacity + 2 * (capacity // 4)


def _at(ends: Ends, e: Array) -> Ends:
    return jax.tree.map(lambda leaf: leaf[e], ends)


def _allowed(state: LinkState) -> Bool[Array, " actions"]:
    task, e = state.task, state.current
    to = task.partners.end[e]
    closing = (to == state.other) & ~state.back
    free = (state.group[to // 2] == 0) | closing
    taken = state.group > 0
    walled = (task.partners.crosses[e] & taken[None]).any(-1)
    place = task.ends.place
    spans = (state.linked >= 0) & (state.linked != e)
    cut = runs_through(place[e][None, None], place[to][:, None], place[None], place[state.linked][None]) & spans[None]
    cut &= (state.linked[None] != to[:, None]) & (jnp.arange(len(place))[None] != to[:, None])
    link = task.partners.valid[e] & ~state.banned[e] & free & ~walled & ~cut.any(-1) & (state.linked[to] < 0)
    undo = (state.made > 0) & (state.undone < len(state.group) // 4)
    return jnp.concatenate([link, jnp.ones(1, bool), undo[None]])


def _gap_and_turn(state: LinkState, to: Array) -> tuple[Array, Array]:
    """Of a link from the current end: pixels, and radians turned in the gap."""
    gap, off, on = relation(_at(state.task.ends, state.current), _at(state.task.ends, to))
    return gap, off + on


def _gaps_and_turns(state: LinkState, to: Array) -> tuple[Array, Array]:
    """The same of links to several ends."""
    return jax.vmap(lambda one: _gap_and_turn(state, one))(to)


def turn_within(task: LinkTask, entered: Array) -> Array:
    """By how much the heading turns within a segment entered at an end."""
    turned = task.segments.turned[entered // 2]
    return jnp.where(entered % 2 == 0, turned, -turned)


def view(state: LinkState) -> LinkView:
    """What the policy sees of a state."""
    task, e = state.task, state.current
    ends, to = task.ends, task.partners.end[e]
    allowed = _allowed(state)
    closing = (to == state.other) & ~state.back
    gap, turn = _gaps_and_turns(state, to)
    bend = 10.0 * state.turned / jnp.maximum(state.length, 1.0)
    within = turn_within(task, to)
    bend_there = 10.0 * within / jnp.maximum(ends.length[to], 1.0)
    open_ = (~closing & ~state.back).astype(gap.dtype)
    rest, off, on = jax.vmap(relation, (0, None))(_at(ends, to ^ 1), _at(ends, state.other))
    offered = [
        allowed[:PARTNERS].astype(gap.dtype),
        closing.astype(gap.dtype),
        jnp.tanh(jnp.abs(10.0 * turn / jnp.maximum(gap, 2.0) - bend)),
        jnp.tanh(jnp.abs(bend_there - bend)),
        jnp.minimum(jnp.abs(state.turned + turn + jnp.where(closing, 0.0, within)) / (2 * jnp.pi), 2.0),
        open_ * jnp.log1p(rest) / 4.0,
        open_ * jnp.abs(off) / jnp.pi,
        open_ * jnp.abs(on) / jnp.pi,
    ]
    home, off, on = relation(_at(ends, e), _at(ends, state.other))
    ahead = (~state.back).astype(gap.dtype)
    came = state.linked[e ^ 1]
    last = jnp.where(state.made > 0, link_cost(*relation(_at(ends, came), _at(ends, e ^ 1))), 0.0)
    chain = [
        *task.partners.own[e],
        ahead,
        jnp.minimum(state.made, 5).astype(gap.dtype) / 5.0,
        ahead * jnp.log1p(home) / 4.0,
        ahead * jnp.abs(off) / jnp.pi,
        ahead * jnp.abs(on) / jnp.pi,
        jnp.minimum(jnp.abs(state.turned) / (2 * jnp.pi), 2.0),
        jnp.log1p(state.length) / 5.0,
        jnp.log1p(last) / 5.0,
        (state.made > 0).astype(gap.dtype),
        allowed[:PARTNERS].any().astype(gap.dtype),
    ]
    seen = jnp.concatenate([task.partners.features[e], jnp.stack(offered, -1)], -1)
    seen = jnp.where(allowed[:PARTNERS, None], seen, 0.0)
    return LinkView(seen, jnp.stack(chain), allowed)


def _begin(state: LinkState) -> tuple[LinkState, Bool[Array, ""]]:
    """A new chain at the longest segment that is in none; done if there is none."""
    size = jnp.where(state.group == 0, state.task.segments.length, 0.0)
    seed = jnp.argmax(size)
    found = size[seed] > 0
    begun = state._replace(
        current=2 * seed + 1,
        other=2 * seed,
        back=jnp.zeros((), bool),
        made=jnp.zeros((), int),
        chain=state.chain + 1,
        group=state.group.at[seed].set(state.chain + 1),
        turned=state.task.segments.turned[seed],
        length=size[seed],
    )
    return jax.tree.map(lambda new, old: jnp.where(found, new, old), begun, state), ~found


def init(key: Key[Array, ""], task: LinkTask) -> tuple[LinkState, LinkView]:
    """The state before the first action, and what the policy sees of it."""
    del key
    n, zero = task.ends.place.shape[0], jnp.zeros((), int)
    group = jnp.where(task.segments.closed, jnp.cumsum(task.segments.closed), 0)
    banned = jnp.zeros(task.partners.valid.shape, bool)
    nowhere = jnp.full(n, -1)
    flat = jnp.zeros((), task.ends.place.dtype)
    state = LinkState(task, zero, zero, jnp.ones((), bool), zero, group.max(), group, nowhere, banned, flat, flat, zero)
    state, _ = _begin(state)
    return state, view(state)


def _make_link(state: LinkState, k: Array) -> LinkState:
    task, e = state.task, state.current
    to = task.partners.end[e, k]
    gap, turn = _gap_and_turn(state, to)
    return state._replace(
        current=to ^ 1,
        made=state.made + 1,
        group=state.group.at[to // 2].set(state.chain),
        linked=state.linked.at[e].set(to).at[to].set(e),
        turned=state.turned + turn + turn_within(task, to),
        length=state.length + gap + task.ends.length[to],
    )


def _undo_link(state: LinkState) -> LinkState:
    task, entered = state.task, state.current ^ 1
    e = state.linked[entered]
    before = state._replace(current=e)
    to = task.partners.end
    banned = state.banned.at[e].set(state.banned[e] | (to[e] == entered))
    banned = banned.at[entered].set(banned[entered] | (to[entered] == e))
    gap, turn = _gap_and_turn(before, entered)
    return before._replace(
        made=state.made - 1,
        group=state.group.at[entered // 2].set(0),
        linked=state.linked.at[e].set(-1).at[entered].set(-1),
        banned=banned,
        turned=state.turned - turn - turn_within(task, entered),
        length=state.length - gap - task.ends.length[entered],
        undone=state.undone + 1,
    )


@compiled
def agreement(task: LinkTask, group: Int[Array, " segments"]) -> Float[Array, ""]:
    """Adjusted Rand index of pixels between groups of segments and the truth (Hubert & Arabie 1985); group 0 is alone."""
    w = task.segments.length
    alone = jnp.where(group > 0, group, -1 - jnp.arange(len(w)))
    pairs = w[:, None] * w[None] - jnp.diag(w)  # ordered pairs of pixels
    together, truly = alone[:, None] == alone[None], task.owner[:, None] == task.owner[None]
    both, found, true = (jnp.where(t, pairs, 0.0).sum() for t in (together & truly, together, truly))
    chance = found * true / jnp.maximum(pairs.sum(), 1.0)
    spare = 0.5 * (found + true) - chance
    return jnp.where(spare > 0, (both - chance) / jnp.where(spare > 0, spare, 1.0), 1.0)


def _step(key: Key[Array, ""], state: LinkState, action: Array) -> tuple[LinkState, LinkView, Array, Array]:
    del key
    action = jnp.where(_allowed(state)[action], action, LEAVE)
    k = jnp.minimum(action, PARTNERS - 1)
    to = state.task.partners.end[state.current, k]
    closes = (action < PARTNERS) & (to == state.other) & ~state.back
    went = _make_link(state, k)
    # at the other end of the chain the walk goes the other way round
    turned_back = state._replace(
        current=state.other,
        other=state.current,
        back=jnp.ones((), bool),
        made=jnp.zeros((), int),
        turned=-state.turned,
    )
    anew, none_left = _begin(state._replace(linked=jnp.where(closes, went.linked, state.linked)))
    complete = closes | ((action == LEAVE) & state.back)
    which = jnp.where(complete, 3, jnp.where(action == LEAVE, 1, jnp.where(action == UNDO, 2, 0)))
    outcomes = went, turned_back, _undo_link(state), anew
    new = jax.tree.map(lambda *leaves: jax.lax.select_n(which, *leaves), *outcomes)
    gained = agreement(state.task, new.group) - agreement(state.task, state.group)
    reward = _REWARD * gained - _UNDO_COST * (action == UNDO).astype(gained.dtype)
    return new, view(new), reward, complete & none_left


def _expert(state: LinkState) -> Int[Array, ""]:
    """Takes back a wrong link, makes the right one where it is offered, and otherwise leaves the end alone."""
    task, e = state.task, state.current
    allowed = _allowed(state)
    entered = e ^ 1
    wrong = allowed[UNDO] & (task.follows[entered] != state.linked[entered])
    right = allowed[:PARTNERS] & (task.partners.end[e] == task.follows[e])
    return jnp.where(wrong, UNDO, jnp.where(right.any(), jnp.argmax(right), LEAVE))


LINKING = Environment(init, _step, _expert)
"""The linker's environment: tasks are `LinkTask`, states `LinkState`, observations `LinkView`; 14 actions."""
