"""The walker's policies, and walks over whole slices by them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxmem.grouping.rl.environment import Policy
from jaxmem.grouping.rl.walker.environment import act, begin, to_choice, view
from jaxmem.grouping.rl.walker.state import WalkTask
from jaxmem.grouping.rl.walker.view import FEATURES, REACH, WalkView


def straight_on(seen: WalkView) -> tuple[Float[Array, " 8"], Float[Array, ""]]:
    """The policy without learning: the move that changes the direction least."""
    return jnp.where(seen.allowed, seen.straight, -1e9), jnp.zeros(())


class WalkPolicy(nnx.Module):
    """A small network that scores one move at a time, the same for all moves and for both hands.

    Arguments:
        width: of the layers.
        rngs: of the first weights.
    """

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.first = nnx.Linear(FEATURES, width, rngs=rngs)
        self.second = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, seen: WalkView) -> tuple[Float[Array, " 8"], Float[Array, ""]]:
        """Logits of the moves, and no value."""
        return jnp.where(seen.allowed, self.score(seen.features), -1e9), jnp.zeros(())

    def score(
        self, features: Float[Array, "*moves 2 features"], thin: Callable[[int, Array], Array] = lambda _, x: x
    ) -> Float[Array, "*moves"]:
        """What each move is worth: the sum of both hands.

        Arguments:
            features: as in `WalkView`.
            thin: what to do while training with a layer's outputs, from the number of the layer, 0 or 1, and them.
        """
        x = thin(0, nnx.gelu(self.first(features)))
        x = thin(1, nnx.gelu(self.second(x)))
        return self.out(x)[..., 0].sum(-1)


def walk_lines(policy: Policy, task: WalkTask) -> tuple[Int[Array, "height width"], Int[Array, "height width"]]:
    """Walk over a whole slice, always by the likeliest move.

    Arguments:
        policy: from an observation to logits and value.
        task: from `walk_task`.

    Returns:
        number of the walk of each pixel, 0 off the lines; and its place in that walk. Both without the task's border.
    """

    def on(state):
        state = to_choice(state)
        return act(state, jnp.argmax(policy(view(state))[0]))

    state = jax.lax.while_loop(lambda state: ~state.done, on, begin(task))
    inner = slice(REACH, -REACH)
    return state.walk[inner, inner], state.order[inner, inner]


def paths_of(walk: Int[np.ndarray, "height width"], order: Int[np.ndarray, "height width"]) -> list[np.ndarray]:
    """The pixels (n, 2) of each walk, in order."""
    y, x = np.nonzero(walk)
    number = walk[y, x]
    by = np.lexsort((order[y, x], number))
    ends = np.flatnonzero(np.diff(number[by])) + 1
    return [np.stack([y[i], x[i]], -1).astype(float) for i in np.split(by, ends) if len(i)]
