"""Many walks over one slice, and the best set of chains out of all of them (paper, Section 4.1 and Fig. 4).

Every walk is sampled anew. A small network, which learned on simulated slices how whole chains look that are a membrane and
nothing else, judges each chain that any walk has made; the best judged chains that share no segment are kept.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from jaxmem.grouping.rl.environment import rollout
from jaxmem.grouping.rl.linker.environment import LINKING, LinkState, LinkTask, steps_for
from jaxmem.grouping.rl.linker.policy import link_gains
from jaxmem.numerics import compiled, safe_norm

FEATURES = 21  # of a chain, counted
_MOST_GAIN = 8.0  # log of a ratio; what is beyond, or not known, is seen as so much; by hand
_MOST_COST = 200.0  # pixels; likewise


class Chains(NamedTuple):
    """The chains of all walks over a slice.

    Attributes:
        members: (chains, segments) which segments each holds.
        present: (chains,) the others are padding.
        features: (chains, FEATURES) what a judge sees.
    """

    members: Bool[Array, "chains segments"]
    present: Bool[Array, " chains"]
    features: Float[Array, "chains f"]


def sample_walks(key: Key[Array, ""], policy: Any, task: LinkTask, count: int) -> LinkState:
    """Where one greedy walk and `count` sampled ones ended; leaves are (1 + count, ...)."""
    steps = steps_for(task.segments.length.shape[0])
    keys = jax.random.split(key, count + 1)
    first, rest = keys[:1], keys[1:]

    def play(k, greedy):
        return rollout(k, LINKING, policy, task, steps, greedy).state

    best = play(first[0], True)
    others = jax.vmap(lambda k: play(k, False))(rest)
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), best, others)


def _conic(sums: Float[Array, "6 6"]) -> Float[Array, " 6"]:
    """The conic of least algebraic distance to the points whose monomials' moments are given."""
    return jnp.linalg.eigh(sums)[1][:, 0]


def _monomials(points: Float[Array, "*n 2"]) -> Float[Array, "*n 6"]:
    y, x = points[..., 0], points[..., 1]
    return jnp.stack([x * x, x * y, y * y, x, y, jnp.ones_like(x)], -1)


def _off_conic(points: Float[Array, "*n 2"], conic: Float[Array, "*n 6"]) -> Float[Array, "*n"]:
    """Distance of points from a conic, to first order (Sampson 1982), at most 1."""
    a, b, c, d, e, _ = jnp.moveaxis(conic, -1, 0)
    y, x = points[..., 0], points[..., 1]
    value = (_monomials(points) * conic).sum(-1)
    slope = safe_norm(jnp.stack([2 * a * x + b * y + d, b * x + 2 * c * y + e], -1))
    return jnp.minimum(jnp.abs(value) / jnp.maximum(slope, 1e-3), 1.0)


@compiled
def chains_of_walk(
    task: LinkTask,
    group: Int[Array, " segments"],
    linked: Int[Array, " ends"],
    gain: Float[Array, "ends partners"],
) -> Chains:
    """The chains of one walk, one row for each segment of the slice, most of them padding.

    The last two features, how often the chain was made and whether the greedy walk made it, are left at 0.

    Arguments:
        task: the slice.
        group, linked: where the walk ended; group 0 is alone.
        gain: from `link_gains`.
    """
    segments, ends = task.segments, task.ends
    many = segments.length.shape[0]
    used = segments.length > 0
    fresh = group.max() + jnp.cumsum((group == 0) & used)
    number = jnp.where(used, jnp.where(group > 0, group, fresh) - 1, many)

    def total(values, of=number):
        return jax.ops.segment_sum(values, of, many + 1)[:many]

    def extreme(values, of, largest, empty):
        found = (jax.ops.segment_max if largest else jax.ops.segment_min)(values, of, many + 1)[:many]
        return jnp.where(jnp.isfinite(found), found, empty)

    joined = linked >= 0
    of_end = jnp.repeat(number, 2)
    of_link, of_free = jnp.where(joined, of_end, many), jnp.where(joined, many, of_end)
    which = (task.partners.end == linked[:, None]) & task.partners.valid
    known = jnp.where(jnp.isfinite(gain), gain, -_MOST_GAIN)
    worth = jnp.clip(jnp.where(which, known, 0.0).sum(-1), -_MOST_GAIN, _MOST_GAIN)
    worth = jnp.where(which.any(-1), worth, -_MOST_GAIN)
    cost = jnp.minimum(jnp.where(which, task.partners.cost, 0.0).sum(-1), _MOST_COST)
    cost = jnp.where(which.any(-1), cost, _MOST_COST)
    missed = jnp.clip(known.max(-1), -_MOST_GAIN, _MOST_GAIN)
    border = task.partners.own[:, 0]
    gap = safe_norm(ends.place - ends.place[linked])

    size, count = total(segments.length), total(used.astype(gap.dtype))
    made = joined.astype(gap.dtype)
    links = jnp.maximum(total(made, of_end), 1e-6)
    free = total(1.0 - made, of_end)
    closed_piece = total(segments.closed.astype(gap.dtype)) > 0
    missing = total(gap * made, of_end) / 2

    # an ellipse through all points: in units of the chain's own size
    there = used.astype(gap.dtype)
    heart = total((segments.outline * there[:, None, None]).sum(1)) / jnp.maximum(12.0 * count, 1.0)[:, None]
    row = jnp.minimum(number, many - 1)
    centred = segments.outline - heart[row][:, None]
    extent = jnp.sqrt(total((centred**2).sum((1, 2)) * there) / jnp.maximum(12.0 * count, 1.0)) + 1e-3
    scaled = centred / extent[row][:, None, None]
    powers = _monomials(scaled)
    moments = total(jnp.einsum("spi,spj->sij", powers, powers) * there[:, None, None])
    conic = jax.vmap(_conic)(moments + 1e-6 * jnp.eye(6, dtype=moments.dtype)[None])
    off = _off_conic(scaled, jnp.broadcast_to(conic[row][:, None], (*scaled.shape[:2], 6)))
    off = jnp.sqrt(total((off**2).sum(1) * there) / jnp.maximum(12.0 * count, 1.0))
    kind = jnp.sign(4 * conic[:, 0] * conic[:, 2] - conic[:, 1] ** 2)

    features = [
        ((free == 0) | closed_piece).astype(gap.dtype),
        count / 5.0,
        jnp.log(jnp.maximum(size, 1.0)),
        jnp.log1p(missing),
        missing / jnp.maximum(missing + size, 1.0),
        extreme(jnp.where(joined, worth, jnp.inf), of_link, False, 0.0) / 4.0,
        total(worth * made, of_end) / 16.0,
        total(worth * made, of_end) / links / 4.0,
        jnp.log1p(extreme(cost, of_link, True, 0.0)),
        jnp.log1p(total(cost * made, of_end) / 2),
        jnp.log1p(off * extent),
        10.0 * off,
        kind,
        jnp.log(extent),
        extreme(border, of_free, True, 0.0),
        extreme(border, of_free, False, 0.0),
        extreme(missed, of_free, True, -_MOST_GAIN) / 4.0,
        extreme(missed, of_free, False, -_MOST_GAIN) / 4.0,
        (count == 1).astype(gap.dtype),
    ]
    present = count > 0
    seen = jnp.where(present[:, None], jnp.stack(features, -1), 0.0)
    members = (number[None] == jnp.arange(many)[:, None]) & used[None]
    return Chains(members, present, jnp.concatenate([seen, jnp.zeros((many, 2), seen.dtype)], -1))


def sample_chains(key: Key[Array, ""], policy: Any, task: LinkTask, count: int) -> Chains:
    """Every chain of a greedy and `count` sampled walks; equal ones stand there as often as they were made."""
    return collect_chains(task, sample_walks(key, policy, task, count), link_gains(policy, task))


def collect_chains(task: LinkTask, final: LinkState, gain: Float[Array, "ends partners"]) -> Chains:
    """Every chain of some walks, of which the first was greedy.

    Arguments:
        task: the slice.
        final: where the walks ended; leaves are (walks, ...).
        gain: from `link_gains`.
    """
    each = jax.vmap(lambda g, to: chains_of_walk(task, g, to, gain))(final.group, final.linked)
    members, present, features = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), each)
    words = _bits(members)
    same = (words[:, None] == words[None]).all(-1) & present[None]
    often = same.sum(1).astype(features.dtype) / len(final.group)
    greedy = same[:, : members.shape[1]].any(1).astype(features.dtype)
    features = features.at[:, -2].set(often).at[:, -1].set(greedy)
    return Chains(members, present, jnp.where(present[:, None], features, 0.0))


def _bits(members: Bool[Array, "chains segments"]) -> UInt32[Array, "chains words"]:
    """Sets of segments as whole numbers, 32 segments in each: equal where the sets are, and fast to compare."""
    padded = jnp.pad(members, ((0, 0), (0, -members.shape[1] % 32))).reshape(len(members), -1, 32)
    places = jnp.arange(32, dtype=jnp.uint32)[None, None]
    return jax.lax.reduce_or(padded.astype(jnp.uint32) << places, (2,))


class ChainJudge(nnx.Module):
    """How likely a chain is to be one whole membrane: the logit, from its features.

    Arguments:
        width: of the layers.
        rngs: of the first weights.
    """

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.first = nnx.Linear(FEATURES, width, rngs=rngs)
        self.second = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, features: Float[Array, "*n f"]) -> Float[Array, "*n"]:
        return self.out(nnx.gelu(self.second(nnx.gelu(self.first(features)))))[..., 0]


def best_set(chains: Chains, worth: Float[Array, " chains"]) -> Int[Array, " segments"]:
    """Chains that share no segment, the worthiest first; the group of each segment, 1, 2, ..., and 0 for padding."""
    many = chains.members.shape[1]

    def pick(i, state):
        group, left = state
        k = jnp.argmax(jnp.where(left, worth, -jnp.inf))
        group = jnp.where(chains.members[k] & left[k], i + 1, group)
        return group, left & ~(chains.members & chains.members[k][None]).any(1)

    start = jnp.zeros(many, int), chains.present
    return jax.lax.fori_loop(0, many, pick, start)[0]


def is_membrane(task: LinkTask, chains: Chains) -> Bool[Array, " chains"]:
    """Whether a chain holds all segments of one membrane, or a stray piece alone, and nothing else."""
    used = task.segments.length > 0
    first = jnp.argmax(chains.members, 1)
    mine = (task.owner[None] == task.owner[first][:, None]) & used[None]
    return chains.present & (mine == chains.members).all(1)
