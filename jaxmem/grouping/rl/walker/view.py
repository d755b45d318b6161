"""What a walker sees where it has to choose: the walk so far, and what lies ahead on each of its eight moves."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, DTypeLike, Float, Int

# What is seen belongs to the shipped weights: whoever changes it trains anew. All of it was chosen by hand.
AHEAD = 20  # pixels seen along each move
BEHIND = 32  # pixels seen along the walk: half round the smallest membrane that is drawn
REACH = BEHIND + 8  # pixels seen to every side: the walk, and what lies beside it
FEATURES = 155  # of a move, counted
MOVES = np.array([[0, 1], [1, 1], [1, 0], [1, -1], [0, -1], [-1, -1], [-1, 0], [-1, 1]])  # y, x; from x towards y
WAYS = MOVES / np.linalg.norm(MOVES, axis=1)[:, None]  # the same, of length 1
NEAR = np.arange(8) % 2 == 0  # moves that cut no corner
_TURNS = WAYS @ WAYS.T  # cosines between moves
_LAGS = np.array([1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32])  # moves ago, denser where the walk is near
_DEPTHS = np.array([1, 2, 3, 4, 6, 8, 10, 12, 16, 20]) - 1  # moves ahead, from 0
_RIVAL_DEPTHS = np.array([4, 6, 8, 12, 16]) - 1  # the same, for the mean of the other paths
_WIDTH_LAGS = np.array([0, 2, 4, 8, 12, 16, 20, 24, 28, 32])  # moves ago, for the width of the mask
_BESIDE = np.array([1.5, 2.5, 3.5, 5.0])  # pixels across a path at which other lines are looked for
_INERTIA = 0.7  # of the direction of a path that is followed; each move adds the rest
_SHARPEST = -0.1  # cosine of the sharpest turn from move to move: a right angle, with room for rounding
_STRAIGHTER = 0.2  # worth of a move that cuts no corner, beside the cosine: it decides between about equal ones


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
    path = jnp.zeros((steps, 2), start.dtype).at[0].set(start + jnp.asarray(MOVES, start.dtype)[move])
    ways = jnp.asarray(WAYS, drift.dtype)

    def on(carry, i):
        path, last, drift, n, going = carry
        at = path[i - 1][None] + jnp.asarray(MOVES, path.dtype)
        been = (at[:, None] == path[None]).all(-1) & (jnp.arange(steps) < i)[None]
        fine = free[at[:, 0], at[:, 1]] & (jnp.asarray(_TURNS, drift.dtype)[last] >= _SHARPEST)
        fine &= ~been.any(-1) & (at != start[None]).any(-1)
        worth = ways @ drift + _STRAIGHTER * jnp.asarray(NEAR, drift.dtype)
        if prefer is not None:
            worth = worth + 10.0 * prefer[at[:, 0], at[:, 1]].astype(worth.dtype)  # before all others
        best = jnp.argmax(jnp.where(fine, worth, -jnp.inf))
        going = going & fine.any()
        path = path.at[i].set(jnp.where(going, at[best], path[i - 1]))
        drift = jnp.where(going, _INERTIA * drift + (1.0 - _INERTIA) * ways[best], drift)
        return (path, jnp.where(going, best, last), drift, n + going.astype(n.dtype), going), None

    # the move itself says more about the path than what was before it
    begin = path, move, (1.0 - _INERTIA) * drift + _INERTIA * ways[move], jnp.ones((), int), jnp.ones((), bool)
    (path, _, _, n, _), _ = jax.lax.scan(on, begin, jnp.arange(1, steps))
    return path, n


def _sides(other: Array, path: Array, n: Array, dtype: DTypeLike) -> Float[Array, "thirds 2 2"]:
    """Whether other lines run on either side of every three pixels of a path: right and left, near and farther."""
    m = len(path)
    i = np.arange(m)
    along = unit((path[np.minimum(i + 2, m - 1)] - path[np.maximum(i - 2, 0)]).astype(dtype))
    across = jnp.stack([-along[:, 1], along[:, 0]], -1)
    off = jnp.asarray(np.stack([_BESIDE, -_BESIDE]), dtype)  # to the right and to the left
    at = jnp.round(path[:, None, None].astype(dtype) + across[:, None, None] * off[None, :, :, None]).astype(int)
    hit = other[at[..., 0], at[..., 1]] & (jnp.arange(m) < n)[:, None, None]
    return hit.reshape(m // 3, 3, 2, 2, 2).any((1, 4)).astype(dtype)


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
    dtype = width.dtype
    here = jnp.full(2, REACH, recent.dtype)
    back = recent[jnp.minimum(jnp.arange(BEHIND + 1), known)]
    ahead = jnp.where(known > 0, unit((here - back[8]).astype(dtype)), jnp.array([0.0, 1.0], dtype))
    drift = unit((here - back[3]).astype(dtype))
    frame = jnp.stack([ahead, jnp.stack([ahead[1], -ahead[0]])], 1)

    def framed(points):
        return ((points - REACH).astype(dtype) @ frame) / 8.0

    free = line & ~visited
    at = REACH + jnp.asarray(MOVES)
    allowed = free[at[:, 0], at[:, 1]]
    path, length = jax.vmap(lambda k: follow(free, here, k, drift, AHEAD))(jnp.arange(8))
    other = line.at[back[:, 0], back[:, 1]].set(False)
    beside = _sides(other, back[:24], known + 1, dtype)
    path_beside = jax.vmap(lambda p, n: _sides(other.at[p[:, 0], p[:, 1]].set(False), p[:15], n, dtype))(path, length)
    fork = path[:, 5]
    apart = (jnp.abs(fork[:, None] - fork[None]).max(-1) > 2) & allowed[None] & allowed[:, None]
    rivals = apart.sum(1)
    walked, ways = framed(back), framed(path)
    count = jnp.maximum(rivals, 1).astype(dtype)[:, None, None]
    rival = jnp.einsum("km,mda->kda", apart.astype(dtype), ways) / count
    thick = width[back[_WIDTH_LAGS, 0], back[_WIDTH_LAGS, 1]] / 4
    path_thick = width[path[:, _DEPTHS, 0], path[:, _DEPTHS, 1]] / 4

    def seen(side, beside, path_beside):
        mirror = jnp.stack([jnp.ones((), dtype), side])
        h, p, r = walked * mirror[None], ways * mirror[None, None], rival * mirror[None, None]
        walk = jnp.concatenate([h[_LAGS].ravel(), beside.ravel(), thick, known[None].astype(dtype) / BEHIND])
        was = jnp.stack([-_between(h, 0, 4), -_between(h, 4, 8), -_between(h, 8, 16), -_between(h, 16, 24)])
        was = was[None, :, None]
        will = jnp.stack([_between(p, 1, 5), _between(p, 5, 11), _between(p, 11, 19)], 1)[:, None]
        turn = jnp.stack([(was * will).sum(-1), was[..., 0] * will[..., 1] - was[..., 1] * will[..., 0]], -1)
        few = jnp.minimum(rivals, 3)[:, None].astype(dtype) / 3.0
        long = length[:, None].astype(dtype) / AHEAD
        moves = [p[:, _DEPTHS], long, path_thick, path_beside, r[:, _RIVAL_DEPTHS], few, turn]
        parts = [jnp.broadcast_to(walk, (8, len(walk))), *(x.reshape(8, -1) for x in moves)]
        return jnp.concatenate(parts, -1)

    sides = jnp.stack([beside, beside[:, ::-1]]), jnp.stack([path_beside, path_beside[:, :, ::-1]])
    features = jax.vmap(seen, out_axes=1)(jnp.array([1.0, -1.0], dtype), *sides)
    return WalkView(features, jnp.asarray(WAYS, dtype) @ drift, allowed)
