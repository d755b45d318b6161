"""Linking of the segments of a slice: many walks, and the best set of their chains; or learning on the slice itself first."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from jaxmem.grouping.rl.learning import LearningConfig, init, ppo_step
from jaxmem.grouping.rl.linker.chains import best_set, chains_of_walk, collect_chains, sample_chains, sample_walks
from jaxmem.grouping.rl.linker.environment import LINKING, LinkState, LinkTask, link_task, steps_for
from jaxmem.grouping.rl.linker.policy import link_gains
from jaxmem.grouping.rl.linker.segments import summarise

MOST = 256  # segments of a slice that are linked: time and memory grow with the square of their number
_REWARD = 10.0  # of a slice that is all whole membranes; as in the environment
_UNKNOWN = 0.5  # what the judge is told of how often a chain was made while that is not known


def best_of_walks(
    key: Key[Array, ""], policy: Any, judge: Any, task: LinkTask, count: int = 12
) -> Int[Array, " segments"]:
    """The segments of one slice that belong together: the best set of the chains of many walks.

    Arguments:
        key: random key of the sampled walks.
        policy, judge: trained networks.
        task: from `link_task`.
        count: sampled walks; there is a greedy one besides.

    Returns:
        The group of each segment, 1, 2, ...; 0 for padding.
    """
    chains = sample_chains(key, policy, task, count)
    return best_set(chains, judge(chains.features))


def learn_and_link(
    key: Key[Array, ""],
    policy: Any,
    judge: Any,
    task: LinkTask,
    count: int = 12,
    learning: LearningConfig | None = None,
    steps: int = 20,
    episodes: int = 16,
) -> Int[Array, " segments"]:
    """`best_of_walks` by a policy that first goes on learning on the slice itself, without labels (paper, Section 4.1).

    It learns by proximal policy optimisation; what an episode earns is the share of the pixels that are in whole membranes, as
    the judge expects it. Then the chains of the walks before and after compete.

    Arguments:
        key: random key.
        policy, judge: trained networks.
        task: from `link_task`.
        count: sampled walks before learning, and as many after it.
        learning: how to learn.
        steps: of learning.
        episodes: of a step.

    Returns:
        The group of each segment, 1, 2, ...; 0 for padding. benchmarks/RESULTS.md says what it gains.
    """
    learning = learning or LearningConfig(3e-4, entropy=0.01)
    before, learn, after = jax.random.split(key, 3)
    graph, params = nnx.split(policy, nnx.Param)
    gain = link_gains(policy, task)
    length = task.segments.length

    def earned(state: LinkState) -> Float[Array, ""]:
        chains = chains_of_walk(task, state.group, state.linked, gain)
        features = chains.features.at[:, -2].set(_UNKNOWN).at[:, -1].set(_UNKNOWN)
        size = jnp.where(chains.members, length[None], 0.0).sum(1)
        whole = jnp.where(chains.present, jax.nn.sigmoid(judge(features)) * size, 0.0).sum()
        return _REWARD * whole / jnp.maximum(length.sum(), 1.0)

    def step(state, k):
        return ppo_step(
            k,
            state,
            jax.tree.map(lambda leaf: leaf[None], task),
            environment=LINKING,
            graph=graph,
            config=learning,
            episodes=episodes,
            steps=steps_for(len(length)),
            final=earned,
        )

    state, _ = jax.lax.scan(step, init(params, learning), jax.random.split(learn, steps))
    first = sample_walks(before, policy, task, count)
    then = sample_walks(after, nnx.merge(graph, state.params), task, count)
    chains = collect_chains(task, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, then), gain)
    return best_set(chains, judge(chains.features))


@functools.partial(jax.jit, static_argnums=(0, 4))
def _compiled(graphs, params, key, segments, count):
    policy, judge = (nnx.merge(graph, state) for graph, state in zip(graphs, params))
    return best_of_walks(key, policy, judge, link_task(segments), count)


def link_segments(
    key: Key[Array, ""],
    policy: Any,
    judge: Any,
    paths: Sequence[Float[np.ndarray | Array, "_ 2"]],
    shape: tuple[int, int],
    closed: Sequence[bool] = (),
    count: int = 12,
    capacity: int = 16,
) -> Int[np.ndarray, " segments"]:
    """`best_of_walks` for ordered points as they come, in any number; slices of similar size share a compiled program.

    Arguments:
        key: random key of the sampled walks.
        policy, judge: trained networks, from `weights.load_linker`.
        paths: y, x of each segment's points, a pixel or so apart; a pixel of 14 A is what the networks know.
        shape: height and width of the slice.
        closed: which segments are loops; none by default.
        count: sampled walks; there is a greedy one besides.
        capacity: most segments of any slice that shares the compiled program; more are taken, too.

    Returns:
        The group of each segment, from 1. Of more than `MOST` segments the longest are linked, and the others are alone.
    """
    chosen = np.sort(np.argsort([-len(p) for p in paths], kind="stable")[:MOST])
    loop = np.zeros(len(paths), bool)
    loop[: len(closed)] = closed
    capacity = max(16, 1 << (max(capacity, len(chosen)) - 1).bit_length())
    segments = summarise([paths[k] for k in chosen], shape, capacity, loop[chosen].tolist())
    graphs, params = zip(*(nnx.split(net) for net in (policy, judge)))
    found = np.asarray(_compiled(graphs, params, key, segments, count))[: len(chosen)]
    group = found.max(initial=0) + 1 + np.arange(len(paths))
    group[chosen] = found
    return group
