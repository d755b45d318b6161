"""Segments and links: geometry against direct sums, the walk's rules in random play, and rings that everybody can close."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matching import best_matching, gain_from_cost, nearest_ends

from jaxmem.grouping.rl.environment import rollout
from jaxmem.grouping.rl.linker.environment import LEAVE, LINKING, UNDO, agreement, link_task, steps_for
from jaxmem.grouping.rl.linker.policy import LinkPolicy, link_gains, walk_once
from jaxmem.grouping.rl.linker.segments import PARTNERS, ends_of, partners_of, relation, runs_through, summarise

CAPACITY = 16
SHAPE = (128, 128)


def arc(centre, radius, begin, end):
    """Points a pixel apart from one angle to another; positive turns from x towards y."""
    angle = np.linspace(begin, end, max(4, round(abs(end - begin) * radius) + 1))
    return np.asarray(centre) + radius * np.stack([np.sin(angle), np.cos(angle)], -1)


def rings():
    """Two nested rings in three and four pieces, one of them drawn backwards, a ring without gaps and a stray piece."""
    paths = [arc((60, 60), 40, a, a + 1.5) for a in (0.0, 2.1, 4.2)]
    paths += [arc((60, 60), 25, a, a + 1.2) for a in (0.2, 1.8, 3.3, 4.9)]
    paths[1] = paths[1][::-1]
    paths += [arc((60, 60), 8, 0.0, 6.25), np.stack([np.linspace(112.0, 124.0, 13), np.full(13, 124.0)], -1)]
    owner = np.array([1, 1, 1, 2, 2, 2, 2, 3, -1])
    return paths, owner, [False] * 7 + [True, False]


def follows_of():
    """0 -> 1 backwards -> 2 -> 0 and 3 -> 4 -> 5 -> 6 -> 3."""
    follows = np.full(2 * CAPACITY, -1)
    for a, b in [(1, 3), (2, 4), (5, 0), (7, 8), (9, 10), (11, 12), (13, 6)]:
        follows[a], follows[b] = b, a
    return jnp.asarray(follows)


@pytest.fixture(scope="module")
def task():
    paths, owner, closed = rings()
    owners = np.append(owner, -10 - np.arange(CAPACITY - len(owner)))
    return jax.jit(link_task)(summarise(paths, SHAPE, CAPACITY, closed), follows_of(), jnp.asarray(owners))


@pytest.fixture(scope="module")
def policy(task):
    _, seen = LINKING.init(jax.random.key(0), task)
    from flax import nnx

    return LinkPolicy(seen, 8, rngs=nnx.Rngs(0))


def same_groups(group, owner):
    group = np.asarray(group)[: len(owner)]
    return np.array_equal(group[:, None] == group, owner[:, None] == owner)


def test_ends_of_arcs_have_their_direction_and_curvature():
    paths = [arc((60, 60), 20, 0.5, 2.0), arc((60, 60), 20, 2.0, 0.5), np.array([[5.0, 5.0], [5.0, 6.0], [5.0, 7.0]])]
    ends = ends_of(summarise(paths, SHAPE, CAPACITY))
    out = np.array([np.cos(2.0), -np.sin(2.0)])  # where the first arc goes to at its end, y and x
    assert np.allclose(ends.heading[1], out, atol=0.03)
    assert np.allclose(ends.place[1], paths[0][-1], atol=0.1)
    assert np.allclose(ends.bend[:4], [-0.05, 0.05, 0.05, -0.05], atol=0.01)
    assert np.allclose(ends.heading[4:6], [[0, -1], [0, 1]], atol=1e-3)
    assert np.allclose(ends.bend[4:6], 0.0, atol=1e-3)
    assert np.isfinite(np.concatenate([np.ravel(a) for a in ends])).all()


def test_a_gap_on_a_circle_turns_the_same_on_both_sides():
    ends = ends_of(summarise([arc((60, 60), 30, 0, 1), arc((60, 60), 30, 1.5, 3)], SHAPE, CAPACITY))
    gap, off, on = relation(*(jax.tree.map(lambda a, e=e: a[e], ends) for e in (1, 2)))
    assert float(gap) == pytest.approx(2 * 30 * np.sin(0.25), rel=0.01)
    assert float(off) == pytest.approx(0.25, abs=0.03)
    assert float(on) == pytest.approx(0.25, abs=0.03)


def test_chords_that_cross():
    a, b = jnp.array([0.0, 0.0]), jnp.array([0.0, 10.0])
    c = jnp.array([[-1.0, 5.0], [1.0, 5.0], [-1.0, 11.0], [-1.0, 0.0]])
    d = jnp.array([[1.0, 5.0], [2.0, 5.0], [1.0, 11.0], [1.0, 0.0]])
    assert runs_through(a[None], b[None], c, d).tolist() == [True, False, False, False]


def test_partners_hold_what_follows(task):
    follows = np.asarray(task.follows)
    held = (np.asarray(task.partners.end) == follows[:, None]) & np.asarray(task.partners.valid)
    assert held.any(1)[follows >= 0].all()
    cost = np.asarray(task.partners.cost)
    assert (np.diff(np.where(np.isfinite(cost), cost, 1e9), axis=1) >= 0).all()
    assert np.isfinite(np.asarray(task.partners.features)).all()
    # chords between the rings' opposite sides run through what lies between; those within a ring's gap do not
    assert not np.asarray(task.partners.crosses)[held].any()
    # loops and padding have no ends
    assert not np.asarray(task.partners.valid)[14:16].any()
    assert not np.asarray(task.partners.valid)[18:].any()


def test_padding_changes_nothing(task):
    paths, _, closed = rings()
    wide = partners_of(summarise(paths, SHAPE, 2 * CAPACITY, closed))
    n = 2 * len(paths)
    valid = np.asarray(task.partners.valid)[:n]
    assert np.array_equal(wide.valid[:n], valid)
    found = []
    for partners in (wide, task.partners):  # those of equal cost may change places
        end, features = np.where(valid, partners.end[:n], 10**6), np.asarray(partners.features)[:n]
        order = np.argsort(end, axis=1, kind="stable")
        found.append((np.take_along_axis(end, order, 1), np.take_along_axis(features, order[..., None], 1)))
    assert np.array_equal(found[0][0], found[1][0])
    assert np.allclose(found[0][1], found[1][1], atol=1e-3)


def test_matching_closes_rings_where_nearest_ends_do_too(task):
    _, owner, _ = rings()
    assert same_groups(best_matching(task, gain_from_cost(task, 60.0)), owner)
    assert same_groups(nearest_ends(task, 25.0), owner)
    assert not same_groups(nearest_ends(task, 3.0), owner)


def test_a_matching_is_the_best_of_all():
    """Where the nearest pair blocks two good links, matching takes the two."""
    paths = [np.stack([np.full(9, 50.0), np.arange(9) + x], -1) for x in (10.0, 22.0, 34.0, 46.0)]
    task = link_task(summarise(paths, SHAPE, CAPACITY))
    gain = np.full((2 * CAPACITY, PARTNERS), -np.inf)

    def worth(a, b, value):
        for e, f in ((a, b), (b, a)):
            gain[e, int(np.flatnonzero(np.asarray(task.partners.end[e]) == f)[0])] = value

    worth(1, 2, 3.0)
    worth(2, 5, 4.0)
    worth(5, 6, 3.0)
    assert best_matching(task, gain)[:4].tolist() == [1, 1, 2, 2]


def test_the_expert_closes_every_ring(task):
    step = jax.jit(lambda state: LINKING.step(jax.random.key(0), state, LINKING.expert(state)))
    state, _ = LINKING.init(jax.random.key(0), task)
    missing, earned = 1.0 - float(agreement(task, state.group)), 0.0
    for i in range(9):  # seven links, and both ends of the stray piece are left alone
        state, _, reward, done = step(state)
        earned += float(reward)
        assert bool(done) == (i == 8)
    assert earned == pytest.approx(10.0 * missing, abs=1e-4)
    assert same_groups(state.group, rings()[1])


def test_agreement_equals_the_index_over_pixels(task):
    """Against counting all pairs of pixels."""
    rng = np.random.default_rng(0)
    size = np.asarray(task.segments.length).astype(int)
    pixel = np.repeat(np.arange(CAPACITY), size)
    group = rng.integers(0, 3, CAPACITY)
    found = np.where(group > 0, group, 100 + np.arange(CAPACITY))[pixel]
    truth = np.asarray(task.owner)[pixel]
    pair = np.triu(np.ones((len(pixel),) * 2, bool), 1)
    a, b = ((v[:, None] == v)[pair] for v in (found, truth))
    chance = a.sum() * b.sum() / len(a)
    expected = ((a & b).sum() - chance) / ((a.sum() + b.sum()) / 2 - chance)
    assert float(agreement(task, jnp.asarray(group))) == pytest.approx(expected, abs=1e-4)
    assert float(agreement(task, task.owner + 1)) == pytest.approx(1.0)


def test_random_walks_keep_the_rules(task, policy):
    """Links are mutual, no segment is visited twice, links taken back are not made again, and the walk comes to an end."""

    def random(seen):
        return jnp.where(seen.allowed, jnp.where(jnp.arange(PARTNERS + 2) == LEAVE, -1.0, 0.0), -1e9), jnp.zeros(())

    play = jax.jit(jax.vmap(lambda k: rollout(k, LINKING, random, task, steps_for(CAPACITY))))
    episodes = play(jax.random.split(jax.random.key(1), 32))
    assert not episodes.alive[:, -1].any()
    assert (episodes.action == UNDO).any()
    used = np.repeat(np.asarray(task.segments.length > 0), 2)
    state = jax.tree.map(np.asarray, episodes.state)
    for i in range(32):
        linked, group = state.linked[i], state.group[i]
        joined = np.flatnonzero(linked >= 0)
        assert used[joined].all()
        assert np.array_equal(linked[linked[joined]], joined)
        assert np.array_equal(group[joined // 2], group[linked[joined] // 2])
        assert (group[used[::2]] > 0).all()
        assert state.undone[i] <= CAPACITY // 4
        made = state.task.partners.end[i][joined] == linked[joined][:, None]
        assert not (made & state.banned[i][joined]).any()


def test_an_untrained_policy_gives_every_segment_a_group(task, policy):
    group = np.asarray(jax.jit(lambda t: walk_once(jax.random.key(0), policy, t))(task))
    _, owner, _ = rings()
    assert (group[: len(owner)] > 0).all()
    assert not group[len(owner) :].any()
    gain = np.asarray(jax.jit(lambda t: link_gains(policy, t))(task))
    assert gain.shape == (2 * CAPACITY, PARTNERS)
    assert np.array_equal(np.isfinite(gain).any(1), np.asarray(task.partners.valid).any(1))


@pytest.mark.parametrize("paths", [[], [np.array([[3.0, 3.0]])], [np.array([[3.0, 3.0]])] * CAPACITY])
def test_nothing_and_single_pixels(policy, paths):
    task = link_task(summarise(paths, SHAPE, CAPACITY))
    assert all(np.isfinite(np.asarray(a)).all() for a in (task.partners.features, task.partners.own, *task.ends))
    group = np.asarray(walk_once(jax.random.key(0), policy, task))
    assert (group > 0).sum() == len(paths)
    assert (nearest_ends(task, 2.0) > 0).sum() == len(paths)


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="do not fit"):
        summarise([np.zeros((2, 2))] * 3, SHAPE, 2)
    with pytest.raises(ValueError, match="no points"):
        summarise([np.zeros((0, 2))], SHAPE, 2)
