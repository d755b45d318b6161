"""What a walker sees where it has to choose: the walk so far, and what lies ahead on each of its eight moves."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

AHEAD, BEHIND = 20, 32  # pixels seen along each move, and along the walk
REACH = BEHIND + 8  # pixels seen to every side
FEATURES = 155  # of a move
MOVES = np.array([[0, 1], [1, 1], [1, 0], [1, -1], [0, -1], [-1, -1], [-1, 0], [-1, 1]])  # y, x; from x towards y
WAYS = MOVES / np.linalg.norm(MOVES, axis=1)[:, None]
NEAR = np.arange(8) % 2 == 0  # moves that cut no corner
_TURNS = WAYS @ WAYS.T
_LAGS = np.array([1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32])
_DEPTHS = np.array([1, 2, 3, 4, 6, 8, 10, 12, 16, 20]) - 1
_RIVAL_DEPTHS = np.array([4, 6, 8, 12, 16]) - 1
_WIDTH_LAGS = np.array([0, 2, 4, 8, 12, 16, 20, 24, 28, 32])
_BESIDE = np.array([1.5, 2.5, 3.5, 5.0])  # pixels across a path at which other lines are looked for


class WalkView(NamedTuple):
    """What the policy sees.

    Attributes:
        features: of each move, as seen and as seen in a mirror.
        straight: cosine between each move and the last three; 0 where a walk begins.
        allowed: moves onto a labelled pixel that nobody has visited.
    """

    features: Float[Array, "8 2 features"]
    straight: Float[Array, " 8"]
    allowed: Bool[Array, " 8"]


def unit(vector: Float[Array, "*n 2"]) -> Float[Array, "*n 2"]:
    """Vectors of length 1; what is shorter than a thousandth stays shorter than 1."""
    return vector / jnp.maximum(jnp.linalg.norm(vector, axis=-1, keepdims=True), 1e-3)


def follow(
    free: Bool[Array, "height width"],
    start: Int[Array, " 2"],
    move: Int[Array, ""],
    drift: Float[Array, " 2"],
    steps: int,
    prefer: Bool[Array, "height width"] | None = None,
) -> tuple[Int[Array, "steps 2"], Int[Array, ""]]:
    """A line from a pixel on: along a move, then always as straight on as it goes.

    Arguments:
        free: pixels that may be taken.
        start: y, x; not on the path.
        move: 0 to 7.
        drift: direction before the move, y, x.
        steps: pixels at most; static.
        prefer: pixels that are taken before others.

    Returns:
        y, x of the path's pixels, the last one repeated; and how many they are.
    """
    path = jnp.zeros((steps, 2), int).at[0].set(start + jnp.asarray(MOVES)[move])

    def on(carry, i):
        path, last, drift, n, going = carry
        at = path[i - 1] + jnp.asarray(MOVES)
        been = (at[:, None] == path[None]).all(-1) & (jnp.arange(steps) < i)
        fine = free[at[:, 0], at[:, 1]] & (jnp.asarray(_TURNS)[last] >= -0.1) & ~been.any(-1) & (at != start).any(-1)
        worth = jnp.asarray(WAYS) @ drift + 0.2 * NEAR
        if prefer is not None:
            worth = worth + 10.0 * prefer[at[:, 0], at[:, 1]]
        best = jnp.argmax(jnp.where(fine, worth, -jnp.inf))
        going = going & fine.any()
        path = path.at[i].set(jnp.where(going, at[best], path[i - 1]))
        drift = jnp.where(going, 0.7 * drift + 0.3 * jnp.asarray(WAYS)[best], drift)
        return (path, jnp.where(going, best, last), drift, n + going, going), None

    begin = path, move, 0.3 * drift + 0.7 * jnp.asarray(WAYS)[move], jnp.ones((), int), jnp.ones((), bool)
    (path, _, _, n, _), _ = jax.lax.scan(on, begin, jnp.arange(1, steps))
    return path, n


def _sides(other: Array, path: Array, n: Array) -> Float[Array, "thirds 2 2"]:
    """Whether other lines run on either side of every three pixels of a path: right and left, near and farther."""
    m = len(path)
    i = np.arange(m)
    along = unit((path[np.minimum(i + 2, m - 1)] - path[np.maximum(i - 2, 0)]).astype(float))
    across = jnp.stack([-along[:, 1], along[:, 0]], -1)
    out = across[:, None, None] * np.array([1, -1])[:, None, None] * _BESIDE[:, None]
    at = jnp.round(path[:, None, None] + out).astype(int)
    hit = other[at[..., 0], at[..., 1]] & (i < n)[:, None, None]
    return hit.reshape(m // 3, 3, 2, 2, 2).any((1, 4)).astype(float)


def _between(points: Array, a: int, b: int) -> Array:
    return unit(points[..., b, :] - points[..., a, :])


def look(
    line: Bool[Array, "side side"],
    visited: Bool[Array, "side side"],
    width: Float[Array, "side side"],
    recent: Int[Array, "behind 2"],
    known: Int[Array, ""],
) -> WalkView:
    """What is seen from the middle of a window; all lengths are along and across the direction of the last eight moves.

    Of the walk: its pixels, the width of the mask there, and where other lines run beside it. Of each move: the same of the path
    ahead, how well its directions agree with those of the walk, and the mean of the paths that part from it.

    Arguments:
        line: the thinned mask, `REACH` pixels to every side of the place.
        visited: pixels that were walked over.
        width: distance to the edge of the mask, pixels; 0 off the lines.
        recent: y, x of the walk's last pixels in the window, the place first.
        known: how many more of them are the walk's.
    """
    here = jnp.full(2, REACH)
    back = recent[jnp.minimum(np.arange(BEHIND + 1), known)]
    ahead = jnp.where(known > 0, unit((here - back[8]).astype(float)), jnp.array([0.0, 1.0]))
    drift = unit((here - back[3]).astype(float))
    frame = jnp.stack([ahead, jnp.stack([ahead[1], -ahead[0]])], 1)

    def framed(points):
        return ((points - here) @ frame) / 8.0

    free = line & ~visited
    at = here + jnp.asarray(MOVES)
    allowed = free[at[:, 0], at[:, 1]]
    path, length = jax.vmap(lambda k: follow(free, here, k, drift, AHEAD))(jnp.arange(8))
    other = line.at[back[:, 0], back[:, 1]].set(False)
    beside = _sides(other, back[:24], known + 1)
    path_beside = jax.vmap(lambda p, n: _sides(other.at[p[:, 0], p[:, 1]].set(False), p[:15], n))(path, length)
    fork = path[:, 5]
    apart = (jnp.abs(fork[:, None] - fork[None]).max(-1) > 2) & allowed[None] & allowed[:, None]
    rivals = apart.sum(1)
    walked, ways = framed(back), framed(path)
    rival = jnp.einsum("km,mda->kda", apart.astype(float), ways) / jnp.maximum(rivals, 1)[:, None, None]
    thick = width[back[_WIDTH_LAGS, 0], back[_WIDTH_LAGS, 1]] / 4
    path_thick = width[path[:, _DEPTHS, 0], path[:, _DEPTHS, 1]] / 4

    def seen(side, beside, path_beside):
        mirror = jnp.stack([jnp.ones(()), side])
        h, p, r = walked * mirror, ways * mirror, rival * mirror
        walk = jnp.concatenate([h[_LAGS].ravel(), beside.ravel(), thick, known[None] / BEHIND])
        was = jnp.stack([-_between(h, 0, 4), -_between(h, 4, 8), -_between(h, 8, 16), -_between(h, 16, 24)])[:, None]
        will = jnp.stack([_between(p, 1, 5), _between(p, 5, 11), _between(p, 11, 19)], 1)[:, None]
        turn = jnp.stack([(was * will).sum(-1), was[..., 0] * will[..., 1] - was[..., 1] * will[..., 0]], -1)
        few = jnp.minimum(rivals, 3)[:, None] / 3.0
        moves = [p[:, _DEPTHS], length[:, None] / AHEAD, path_thick, path_beside, r[:, _RIVAL_DEPTHS], few, turn]
        parts = [jnp.broadcast_to(walk, (8, len(walk))), *(x.reshape(8, -1) for x in moves)]
        return jnp.concatenate(parts, -1)

    sides = jnp.stack([beside, beside[:, ::-1]]), jnp.stack([path_beside, path_beside[:, :, ::-1]])
    features = jax.vmap(seen, out_axes=1)(jnp.array([1.0, -1.0]), *sides)
    return WalkView(features, jnp.asarray(WAYS) @ drift, allowed)
