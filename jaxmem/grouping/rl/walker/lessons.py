"""What the walker learns from and is measured on: simulated contours as thinned masks, with the truth of which membranes a pixel is on."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

from jaxmem.grouping.rl.environment import Policy
from jaxmem.grouping.rl.walker.environment import act, ahead, begin, to_choice, verdicts, view
from jaxmem.grouping.rl.walker.state import WalkState, WalkTask, rank, walk_task
from jaxmem.grouping.rl.walker.view import MOVES, WalkView
from jaxmem.simulate.contours import Contours

# How junctions are counted is a convention: the model card's figures stand by it. All of it was chosen by hand.
ROOM = 512  # choices of a slice, at most; the simulated slices of 256 x 256 have fewer
_STRAY, _STRAYS = 12, 18  # first of the bits of stray pieces, and how many: 30 bits of an int32 in all
_SURE = 5  # pixels that a walk must have been on one membrane alone for a junction to count
_TOGETHER = 8  # moves within which choices are one junction
_EYE = 20  # pixels within which branches that meet again are two ways around an eye; as far as the walker sees
_SHORT = 10  # pixels; shorter branches are twigs; as far as the teacher sees


def owners_of(
    contours: Contours, line: Bool[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"], thickness: int
) -> Int[np.ndarray, "h w"]:
    """The membranes that each pixel of a thinned mask is on: those drawn by a brush within the largest disc in the mask about it.

    Arguments:
        contours: of the slice; leaves are NumPy arrays.
        line: the thinned mask.
        mask: from `rasterise`.
        thickness: of its lines, pixels.

    Returns:
        bits 0 to 11 for the membranes, 12 to 29 for stray pieces, which share them; gaps of up to four pixels along the line are
        closed.
    """
    pixels = np.argwhere(line)
    reach = np.maximum(ndimage.distance_transform_edt(mask)[line] - 0.5 * (thickness + 1), 0.0) + 1.5
    own = np.zeros(len(pixels), np.int32)
    pieces = [(k, contours.points[k], contours.visible[k]) for k in np.flatnonzero(contours.present)]
    pieces += [(_STRAY + j % _STRAYS, *both) for j, both in enumerate(zip(contours.strays, contours.stray_visible))]
    for bit, points, shown in pieces:
        if shown.any():
            distance, _ = cKDTree(points[shown]).query(pixels, distance_upper_bound=reach.max() + 1.0)
            own[distance <= reach] |= np.int32(1 << bit)
    owners = np.zeros(line.shape, np.int32)
    owners[line] = own
    return owners | _closed(owners, line)


def _closed(owners: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Closing along the line by two pixels."""
    for join, outside in ((np.bitwise_or, 0), (np.bitwise_and, -1)):
        for _ in range(2):
            framed = np.pad(np.where(line, owners, outside), 1, constant_values=outside)
            shifted = [np.roll(framed, m, (0, 1))[1:-1, 1:-1] for m in MOVES]
            owners = np.where(line, join.reduce([owners, *shifted]), 0)
    return owners


def walk_lesson(contours: Contours, drawn: Int[np.ndarray, "h w"], thickness: int) -> WalkTask:
    """A slice as a task with its truth.

    Arguments:
        contours: of the slice; leaves are NumPy arrays.
        drawn: from `rasterise`.
        thickness: of its lines, pixels.
    """
    mask = drawn != 0
    line = skeletonize(mask)
    return walk_task(line, ndimage.distance_transform_edt(mask), owners_of(contours, line, mask, thickness))


def replay(
    key: Key[Array, ""], decide: Callable[[Array, WalkState, WalkView], tuple[Array, Any]], task: WalkTask
) -> tuple[WalkState, Any, Int[Array, ""]]:
    """Walk over a slice and write something down at every choice.

    Arguments:
        key: random key.
        decide: `(key, state, view) -> (action, what to write down)`.
        task: the slice.

    Returns:
        The last state; what was written down, `ROOM` rows; and how many choices there were, of which more than `ROOM` are lost.
    """
    first = begin(task)
    _, row = jax.eval_shape(lambda k, s: decide(k, s, view(s)), key, first)
    blank = jax.tree.map(lambda leaf: jnp.zeros((ROOM, *leaf.shape), leaf.dtype), row)

    def on(carry):
        state, i, rows = carry
        state = to_choice(state)
        action, row = decide(jax.random.fold_in(key, i), state, view(state))
        at = jnp.where(state.done, ROOM, i)  # out of bounds: nothing is written
        rows = jax.tree.map(lambda all_, one: all_.at[at].set(one, mode="drop"), rows, row)
        return act(state, action), i + (~state.done).astype(i.dtype), rows

    state, count, rows = jax.lax.while_loop(lambda carry: ~carry[0].done, on, (first, jnp.zeros((), int), blank))
    return state, rows, count


def contested(state: WalkState, verdict: Int[Array, " 8"]) -> Bool[Array, ""]:
    """Whether a choice is one between right and wrong, on a walk whose membrane is known."""
    return (verdict == 1).any() & (verdict == -1).any() & (state.sure >= _SURE)


class Choice(NamedTuple):
    """A choice that was made.

    Attributes:
        contested: it was between right and wrong.
        right: the move keeps to the walk's membrane.
        half: number of the walk, negative on its way back.
        place: in the walk.
        eye: a right and a wrong branch meet again.
        stray: a stray piece is involved.
        branch: pixels of the shorter of the longest right and the longest wrong branch.
    """

    contested: Bool[Array, "*choices"]
    right: Bool[Array, "*choices"]
    half: Int[Array, "*choices"]
    place: Int[Array, "*choices"]
    eye: Bool[Array, "*choices"]
    stray: Bool[Array, "*choices"]
    branch: Int[Array, "*choices"]


def judged(state: WalkState, action: Int[Array, ""]) -> Choice:
    """A choice and its truth."""
    path, n = ahead(state, _EYE)
    verdict = verdicts(state, path, n)
    index = jnp.arange(_EYE)[None]
    there = index < n[:, None]
    right, wrong = (verdict == 1)[:, None] & there, (verdict == -1)[:, None] & there
    late = index >= 8  # behind the junction
    far, lost = (right & late).ravel(), (wrong & late).ravel()
    flat = path.reshape(-1, 2)
    near = jnp.abs(flat[:, None] - flat[None]).max(-1) <= 1
    on_path = state.task.owners[path[..., 0], path[..., 1]]
    strays = state.owners | jnp.where(right | wrong, on_path, 0)
    return Choice(
        contested(state, verdict),
        verdict[action] == 1,
        state.number * state.sign,
        jnp.abs(rank(state)),
        (near & far[:, None] & lost[None]).any(),
        (strays >= 1 << _STRAY).any(),
        jnp.minimum(right.sum(1).max(), wrong.sum(1).max()),
    )


class Walked(NamedTuple):
    """How a slice was walked over.

    Attributes:
        choices: the last contested choice of each junction.
        visited: pixels.
        pixels: of the thinned mask.
        walk, order: as from `walk_lines`, but with the border.
    """

    choices: Choice
    visited: int
    pixels: int
    walk: Int[np.ndarray, "height width"]
    order: Int[np.ndarray, "height width"]


@functools.partial(jax.jit, static_argnums=0)
def _judged(graph: Any, params: Any, task: WalkTask) -> tuple[WalkState, Choice, Array]:
    policy = graph if params is None else nnx.merge(graph, params)

    def decide(key, state, seen):
        del key
        action = jnp.argmax(policy(seen)[0])
        return action, judged(state, action)

    return replay(jax.random.key(0), decide, task)


def judge(policy: Policy) -> Callable[[WalkTask], Walked]:
    """A function that walks over slices with known truth, always by the likeliest move, and looks at the junctions.

    Contested choices within eight moves are one junction, at which the last of them decides.

    Arguments:
        policy: a network, or a function; compiled once for all networks of one architecture.
    """
    split = nnx.split(policy, nnx.Param) if isinstance(policy, nnx.Module) else (policy, None)

    def one(task: WalkTask) -> Walked:
        state, rows, count = _judged(*split, task)
        rows = jax.tree.map(lambda leaf: np.asarray(leaf)[: int(count)], rows)
        rows = jax.tree.map(lambda leaf: leaf[rows.contested], rows)
        goes_on = (rows.half[1:] == rows.half[:-1]) & (rows.place[1:] - rows.place[:-1] <= _TOGETHER)
        last = np.append(~goes_on, True)[: len(rows.half)]
        walk, order = np.asarray(state.walk), np.asarray(state.order)
        return Walked(
            jax.tree.map(lambda leaf: leaf[last], rows), int((walk > 0).sum()), int(task.line.sum()), walk, order
        )

    return one


def classes(choices: Choice) -> dict[str, Bool[np.ndarray, " choices"]]:
    """Which junctions are of which kind: clear ones are none of the others."""
    eye, stray, twig = (np.asarray(a) for a in (choices.eye, choices.stray, choices.branch < _SHORT))
    return {"all": np.ones_like(eye), "clear": ~(eye | stray | twig), "eyes": eye, "strays": stray, "twigs": twig}


def junction_table(walked: list[Walked]) -> dict[str, dict[str, Float[Any, ""] | int]]:
    """Number of junctions and share of them at which the walk kept to its membrane, over several slices, by kind."""
    choices = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(w.choices for w in walked))
    return {
        name: {"junctions": int(m.sum()), "right": round(float(choices.right[m].mean()), 4) if m.any() else 0.0}
        for name, m in classes(choices).items()
    }
