"""The linker's policy, one episode by it, and what it thinks of every link."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from jaxmem.grouping.rl.environment import rollout
from jaxmem.grouping.rl.linker.environment import (
    LEAVE,
    LINKING,
    LinkTask,
    LinkView,
    init,
    steps_for,
    turn_within,
    view,
)
from jaxmem.grouping.rl.linker.segments import (
    PARTNERS,
)


class LinkPolicy(nnx.Module):
    """A small network over the partners of an end, which are compared through their largest features.

    Arguments:
        view: an observation, for its sizes.
        width: of the layers.
        rngs: of the first weights.
    """

    def __init__(self, view: LinkView, width: int, *, rngs: nnx.Rngs):
        f, g = view.partners.shape[-1], view.chain.shape[-1]
        self.pair = nnx.Linear(f, width, rngs=rngs)
        self.pair2 = nnx.Linear(width, width, rngs=rngs)
        self.end = nnx.Linear(g, width, rngs=rngs)
        self.join = nnx.Linear(3 * width, width, rngs=rngs)
        self.score = nnx.Linear(width, 1, rngs=rngs)
        self.other = nnx.Linear(2 * width, width, rngs=rngs)
        self.rest = nnx.Linear(width, 3, rngs=rngs)

    def __call__(self, view: LinkView) -> tuple[Float[Array, " actions"], Float[Array, ""]]:
        """Logits of the actions, and the value."""
        pair = nnx.gelu(self.pair2(nnx.gelu(self.pair(view.partners))))
        best = jnp.where(view.allowed[:PARTNERS, None], pair, -1.0).max(0)
        around = jnp.concatenate([best, nnx.gelu(self.end(view.chain))])
        both = jnp.concatenate([pair, jnp.broadcast_to(around, (PARTNERS, around.shape[0]))], -1)
        score = self.score(nnx.gelu(self.join(both)))[:, 0]
        leave, undo, value = self.rest(nnx.gelu(self.other(around)))
        logits = jnp.concatenate([score, jnp.stack([leave, undo])])
        return jnp.where(view.allowed, logits, -1e9), value


def walk_once(key: Key[Array, ""], policy: Any, task: LinkTask, greedy: bool = True) -> Int[Array, " segments"]:
    """The chain of each segment after one episode; segments that no chain reached are alone.

    Arguments:
        key: random key; without effect if `greedy`.
        policy: from an observation to logits and value.
        task: from `link_task`.
        greedy: always the likeliest action, instead of a sampled one.
    """
    capacity = task.segments.length.shape[0]
    state = rollout(key, LINKING, policy, task, steps_for(capacity), greedy).state
    alone = state.group.max() + 1 + jnp.arange(capacity)
    return jnp.where(task.segments.length > 0, jnp.where(state.group > 0, state.group, alone), 0)


def link_gains(policy: Any, task: LinkTask) -> Float[Array, "ends partners"]:
    """By how much more likely the policy is to link each end to each partner than to leave it alone: log of the ratio.

    The walk is taken to have begun at the end's own segment, with every other segment still free. -inf where there is no link.
    """
    state, _ = init(jax.random.key(0), task)

    def from_end(e):
        group = jnp.where(task.segments.closed, 1, 0).at[e // 2].set(1)
        turned = turn_within(task, e ^ 1)
        fresh = state._replace(
            current=e, other=e ^ 1, back=jnp.zeros((), bool), group=group, turned=turned, length=task.ends.length[e]
        )
        seen = view(fresh)
        logits, _ = policy(seen)
        return jnp.where(seen.allowed[:PARTNERS], logits[:PARTNERS] - logits[LEAVE], -jnp.inf)

    return jax.lax.map(from_end, jnp.arange(task.ends.place.shape[0]), batch_size=16)
