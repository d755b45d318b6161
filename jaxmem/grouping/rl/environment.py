"""One contract for environments, policies and episodes; whole episodes by `lax.scan`.

An environment is two pure functions on NamedTuples (see `Environment`), a policy a function from an observation to the logits
of the actions and a value. Everything is written for one episode and vmapped over tasks and episodes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

Policy = Callable[[Any], tuple[Array, Array]]


class Environment(NamedTuple):
    """A task as states and actions.

    Attributes:
        init: `(key, task) -> (state, observation)`.
        step: `(key, state, action) -> (state, observation, reward, done)`.
        expert: `state -> action`, what a teacher who knows the truth would do; for `clone_step` only.
    """

    init: Callable[[Array, Any], tuple[Any, Any]]
    step: Callable[[Array, Any, Array], tuple[Any, Any, Array, Array]]
    expert: Callable[[Any], Array] | None = None


class Episode(NamedTuple):
    """What happened from start to end; after the end `alive` is False and rewards are 0.

    Attributes:
        observation: (steps, ...) before each action.
        action, log_prob, value, reward, alive: (steps,).
        advice: (steps,) the expert's action; zeros without an expert.
        state: the last one.
    """

    observation: Any
    action: Int[Array, " steps"]
    log_prob: Float[Array, " steps"]
    value: Float[Array, " steps"]
    reward: Float[Array, " steps"]
    alive: Bool[Array, " steps"]
    advice: Int[Array, " steps"]
    state: Any


def rollout(
    key: Key[Array, ""], environment: Environment, policy: Policy, task: Any, steps: int, greedy: bool = False
) -> Episode:
    """One episode.

    Arguments:
        key: random key.
        environment: static under jit.
        policy: from an observation to the logits of the actions and a value.
        task: what the environment begins from.
        steps: actions at most; what comes after the end is padding. Static under jit.
        greedy: always the likeliest action, instead of a sampled one. Static under jit.
    """
    keys = jax.random.split(key, steps + 1)
    first, rest = keys[:1], jax.random.key_data(keys[1:])  # as numbers: JAX cannot check keys of a scan that is vmapped
    state, observation = environment.init(first[0], task)

    def advance(carry, numbers):
        state, observation, alive = carry
        choose, move = jax.random.split(jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(key)))
        logits, value = policy(observation)
        action = jnp.argmax(logits) if greedy else jax.random.categorical(choose, logits)
        log_prob = jax.nn.log_softmax(logits)[action]
        advice = environment.expert(state) if environment.expert else jnp.zeros((), int)
        new_state, new_observation, reward, done = environment.step(move, state, action)
        seen = observation, action, log_prob, value, jnp.where(alive, reward, 0.0), alive, advice

        def keep(new, old):
            return jnp.where(alive, new, old)

        state, observation = jax.tree.map(keep, (new_state, new_observation), (state, observation))
        return (state, observation, alive & ~done), seen

    start = state, observation, jnp.ones((), bool)
    (state, _, _), seen = jax.lax.scan(advance, start, rest)
    observation, action, log_prob, value, reward, lived, advice = seen
    return Episode(observation, action, log_prob, value, reward, lived, advice, state)
