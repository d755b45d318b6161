"""Reinforcement learning in the small: one contract for environments, whole episodes by `lax.scan`, and two ways to learn.

An environment is two pure functions on NamedTuples (see `Environment`), a policy a function from an observation to the logits
of the actions and a value. Everything is written for one episode and vmapped over tasks and episodes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float, Int, Key

from jaxmem.grouping.rl.environment import Environment, Episode, rollout

_MOST_SURPRISE = 50.0  # -log probability in the entropy, at most: actions that are not allowed have 1e9
_NORM = 1.0  # of gradients, at most; by hand
_CLONE_VALUE = 0.1  # of `LearningConfig.value` while cloning, where the value decides nothing; by hand


@dataclass(frozen=True)
class LearningConfig:
    """How to learn; both ways take Adam and gradients clipped to norm 1.

    Attributes:
        learning_rate: of Adam, a number or a schedule.
        passes: over the episodes of a step (Schulman et al. 2017).
        parts: into which the episodes are split in each pass.
        clip: by how much an action's probability may grow or shrink in a step before it stops counting.
        discount, trace: of the advantage estimates (Schulman et al. 2016, equation 16).
        entropy, value: weights in the loss.
    """

    learning_rate: float | optax.Schedule = 5e-4
    passes: int = 2
    parts: int = 4
    clip: float = 0.2
    discount: float = 1.0
    trace: float = 0.9
    entropy: float = 0.003
    value: float = 0.5


class LearningState(NamedTuple):
    """Parameters, optimiser state and number of steps taken."""

    params: Any
    optimiser: optax.OptState
    step: Int[Array, ""]


class LearningInfo(NamedTuple):
    """What a step reports: mean return of its episodes, loss, entropy of the policy."""

    reward: Float[Array, ""]
    loss: Float[Array, ""]
    entropy: Float[Array, ""]


def advantages(
    reward: Float[Array, " steps"],
    value: Float[Array, " steps"],
    alive: Bool[Array, " steps"],
    discount: float,
    trace: float,
) -> Float[Array, " steps"]:
    """Generalised advantage estimates of one episode (Schulman et al. 2016, equation 16); nothing is to come after its end."""
    value = jnp.where(alive, value, 0.0)
    surprise = jnp.where(alive, reward + discount * jnp.pad(value[1:], (0, 1)) - value, 0.0)

    def back(later, now):
        total = now + discount * trace * later
        return total, total

    return jax.lax.scan(back, jnp.zeros((), surprise.dtype), surprise, reverse=True)[1]


def init(params: Any, config: LearningConfig) -> LearningState:
    """A state that begins with given parameters."""
    return LearningState(params, _optimiser(config).init(params), jnp.zeros((), int))


def _optimiser(config: LearningConfig) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(_NORM), optax.adam(config.learning_rate))


def descend(
    optimiser: optax.GradientTransformation, gradient: Any, state: optax.OptState, params: Any
) -> tuple[Any, optax.OptState]:
    """Parameters and the optimiser's state after a step of an optimiser."""
    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
        updates, state = optimiser.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def _update(state: LearningState, gradient: Any, config: LearningConfig) -> LearningState:
    params, optimiser = descend(_optimiser(config), gradient, state.optimiser, state.params)
    return state._replace(params=params, optimiser=optimiser)


def _shares(alive: Bool[Array, "*steps"], dtype: DTypeLike) -> Float[Array, "*steps"]:
    """Weights that take the mean over what is alive."""
    return alive.astype(dtype) / jnp.maximum(alive.sum(), 1).astype(dtype)


def play(
    key: Key[Array, ""],
    environment: Environment,
    graph: nnx.GraphDef,
    params: Any,
    tasks: Any,
    episodes: int,
    steps: int,
) -> Episode:
    """Episodes of several tasks: leaves are (tasks x episodes, ...)."""
    policy = nnx.merge(graph, params)
    n = len(jax.tree.leaves(tasks)[0])
    many = jax.tree.map(lambda leaf: jnp.repeat(leaf, episodes, 0), tasks)
    keys = jax.random.split(key, n * episodes)
    return jax.vmap(lambda k, task: rollout(k, environment, policy, task, steps))(keys, many)


def ppo_step(
    key: Key[Array, ""],
    state: LearningState,
    tasks: Any,
    *,
    environment: Environment,
    graph: nnx.GraphDef,
    config: LearningConfig,
    episodes: int,
    steps: int,
    final: Callable[[Any], Array] | None = None,
) -> tuple[LearningState, LearningInfo]:
    """Play, then improve the policy by the clipped objective of proximal policy optimisation (Schulman et al. 2017, equation 9).

    Arguments:
        key: random key.
        state: from `init`.
        tasks: leading axis: tasks.
        environment, graph, config: static; `graph` from `nnx.split` of the policy.
        episodes: per task.
        steps: of an episode, at most.
        final: what an episode earns, from its last state, at its last step; it replaces the environment's rewards.
    """
    play_key, *pass_keys = jax.random.split(key, config.passes + 1)
    played = play(play_key, environment, graph, state.params, tasks, episodes, steps)
    if final is not None:
        last = played.alive & ~jnp.pad(played.alive[:, 1:], ((0, 0), (0, 1)))
        played = played._replace(reward=jnp.where(last, jax.vmap(final)(played.state)[:, None], 0.0))
    gain = jax.vmap(lambda r, v, a: advantages(r, v, a, config.discount, config.trace))(
        played.reward, played.value, played.alive
    )
    target = gain + jnp.where(played.alive, played.value, 0.0)
    count = played.alive.sum().astype(gain.dtype)
    mean = jnp.where(played.alive, gain, 0.0).sum() / count
    spread = jnp.sqrt(jnp.where(played.alive, (gain - mean) ** 2, 0.0).sum() / count)
    gain = (gain - mean) / (spread + 1e-6)
    data = played._replace(state=()), gain, target

    def objective(params, part):
        seen, gain, target = part
        logits, value = jax.vmap(jax.vmap(nnx.merge(graph, params)))(seen.observation)
        log_probs = jax.nn.log_softmax(logits)
        log_prob = jnp.take_along_axis(log_probs, seen.action[..., None], -1)[..., 0]
        ratio = jnp.exp(log_prob - seen.log_prob)
        clipped = jnp.clip(ratio, 1.0 - config.clip, 1.0 + config.clip)
        surrogate = jnp.minimum(ratio * gain, clipped * gain)
        entropy = -(jnp.exp(log_probs) * jnp.maximum(log_probs, -_MOST_SURPRISE)).sum(-1)
        each = -surrogate + config.value * 0.5 * (value - target) ** 2 - config.entropy * entropy
        weight = _shares(seen.alive, each.dtype)
        return (each * weight).sum(), (entropy * weight).sum()

    n = played.action.shape[0]
    rows = jnp.stack([jax.random.permutation(k, n) for k in pass_keys]).reshape(config.passes * config.parts, -1)

    def improve(state, chosen):
        part = jax.tree.map(lambda leaf: leaf[chosen], data)
        (loss, entropy), gradient = jax.value_and_grad(objective, has_aux=True)(state.params, part)
        return _update(state, gradient, config), (loss, entropy)

    state, (loss, entropy) = jax.lax.scan(improve, state, rows)
    return state._replace(step=state.step + 1), LearningInfo(played.reward.sum(-1).mean(), loss.mean(), entropy.mean())


def clone_step(
    key: Key[Array, ""],
    state: LearningState,
    tasks: Any,
    *,
    environment: Environment,
    graph: nnx.GraphDef,
    config: LearningConfig,
    episodes: int,
    steps: int,
) -> tuple[LearningState, LearningInfo]:
    """Play, then make the expert's action likelier in every state that the policy itself came to (Ross et al. 2011).

    The value learns what the policy earned from there. Arguments as for `ppo_step`.

    Raises:
        ValueError: if the environment has no expert.
    """
    if environment.expert is None:
        raise ValueError("clone_step: the environment has no expert")
    played = play(key, environment, graph, state.params, tasks, episodes, steps)
    nothing = jnp.zeros_like(played.value)
    to_come = jax.vmap(lambda r, v, a: advantages(r, v, a, config.discount, 1.0))(played.reward, nothing, played.alive)

    def objective(params):
        logits, value = jax.vmap(jax.vmap(nnx.merge(graph, params)))(played.observation)
        surprise = optax.softmax_cross_entropy_with_integer_labels(logits, played.advice)
        entropy = -(jax.nn.softmax(logits) * jnp.maximum(jax.nn.log_softmax(logits), -_MOST_SURPRISE)).sum(-1)
        each = surprise + _CLONE_VALUE * config.value * (value - to_come) ** 2
        weight = _shares(played.alive, each.dtype)
        return (each * weight).sum(), (entropy * weight).sum()

    (loss, entropy), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
    state = _update(state, gradient, config)._replace(step=state.step + 1)
    return state, LearningInfo(played.reward.sum(-1).mean(), loss, entropy)
