"""The trainer on a task whose best return is known, and its parts against direct sums."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmem.grouping.rl import learning as rl
from jaxmem.grouping.rl.environment import rollout

LENGTH, START, STEP_COST, LURE, PRIZE = 7, 2, 0.05, 0.3, 1.0
BEST = PRIZE - STEP_COST * (LENGTH - 1 - START)  # always to the right; the lure on the left is nearer and smaller


class Corridor(NamedTuple):
    place: jax.Array
    width: jax.Array


def look(state):
    return jax.nn.one_hot(state.place, LENGTH)


def begin(key, task):
    del key
    state = Corridor(jnp.asarray(START), task)
    return state, look(state)


def move(key, state, action):
    del key
    state = state._replace(place=state.place + 2 * action - 1)
    left, right = state.place == 0, state.place == LENGTH - 1
    return state, look(state), jnp.where(left, LURE, jnp.where(right, PRIZE, 0.0)) - STEP_COST, left | right


CORRIDOR = rl.Environment(begin, move, lambda state: jnp.ones((), int))
CONFIG = rl.LearningConfig(learning_rate=0.02, passes=2, parts=2, entropy=0.01)
TASKS = jnp.zeros(4)


class Table(nnx.Module):
    def __init__(self, rngs):
        self.layer = nnx.Linear(LENGTH, 3, rngs=rngs)

    def __call__(self, seen):
        out = self.layer(seen)
        return out[:2], out[2]


@pytest.fixture(scope="module")
def untaught():
    return nnx.split(Table(nnx.Rngs(0)), nnx.Param)


@pytest.mark.parametrize("learn", [rl.ppo_step, rl.clone_step], ids=["ppo", "clone"])
def test_a_known_best_return_is_reached(learn, untaught):
    graph, params = untaught
    step = jax.jit(functools.partial(learn, environment=CORRIDOR, graph=graph, config=CONFIG, episodes=8, steps=40))
    state = rl.init(params, CONFIG)
    earned = []
    for i in range(80):
        state, info = step(jax.random.key(i), state, TASKS)
        earned.append(float(info.reward))
    assert np.mean(earned[:3]) < 0.5
    assert earned[-1] > BEST - 0.05
    assert int(state.step) == 80
    episode = rollout(jax.random.key(0), CORRIDOR, nnx.merge(graph, state.params), TASKS[0], steps=10, greedy=True)
    assert float(episode.reward.sum()) == pytest.approx(BEST)
    assert int(episode.alive.sum()) == LENGTH - 1 - START
    assert int(episode.state.place) == LENGTH - 1  # and it stays there


def test_the_last_state_alone_can_be_rewarded(untaught):
    graph, params = untaught
    given = {"environment": CORRIDOR, "graph": graph, "config": CONFIG, "episodes": 8, "steps": 40}
    step = jax.jit(functools.partial(rl.ppo_step, **given, final=lambda state: 3.0 + 0.0 * state.place.astype(float)))
    _, info = step(jax.random.key(0), rl.init(params, CONFIG), TASKS)
    assert float(info.reward) == pytest.approx(3.0)  # once in each episode, and nothing of the corridor's own rewards


def test_advantages_equal_their_definition():
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=6), rng.normal(size=6)
    alive = np.arange(6) < 4
    reward = reward * alive
    got = rl.advantages(jnp.asarray(reward), jnp.asarray(value), jnp.asarray(alive), 0.9, 0.8)
    value = np.append(value * alive, 0.0)
    surprise = reward + 0.9 * value[1:] - value[:-1]
    expected = [sum((0.9 * 0.8) ** (j - i) * surprise[j] for j in range(i, 4)) for i in range(6)]
    assert np.allclose(got, expected, atol=1e-6)
    whole = rl.advantages(jnp.asarray(reward), jnp.zeros(6), jnp.asarray(alive), 1.0, 1.0)
    assert np.allclose(whole, np.cumsum(reward[::-1])[::-1], atol=1e-6)


def test_cloning_needs_an_expert(untaught):
    graph, params = untaught
    alone = CORRIDOR._replace(expert=None)
    with pytest.raises(ValueError, match="expert"):
        rl.clone_step(
            jax.random.key(0),
            rl.init(params, CONFIG),
            TASKS,
            environment=alone,
            graph=graph,
            config=CONFIG,
            episodes=1,
            steps=2,
        )
