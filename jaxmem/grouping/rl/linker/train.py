"""Training of the linker on simulated contours: first by example, then by reward, and last the judge of chains."""

import functools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from jaxmem.checkpoints import load_checkpoint, save_checkpoint
from jaxmem.grouping.rl.learning import LearningConfig, LearningState, clone_step, descend, init, ppo_step
from jaxmem.grouping.rl.linker.chains import is_membrane, sample_chains
from jaxmem.grouping.rl.linker.environment import LINKING, LinkTask, agreement, link_task, steps_for
from jaxmem.grouping.rl.linker.lessons import lesson, summarised
from jaxmem.grouping.rl.linker.linking import best_of_walks
from jaxmem.grouping.rl.linker.policy import walk_once
from jaxmem.grouping.rl.linker.segments import Segments
from jaxmem.grouping.rl.weights import blank_judge, blank_policy, save_linker
from jaxmem.simulate.contours import ContourModel, draw_contours

_ENOUGH = 0.6  # of the most steps that a walk can take: few take more, and what comes later is not learnt from


@dataclass(frozen=True)
class LinkTraining:
    """What to train the linker on and for how long.

    Attributes:
        contours: from which slices are drawn.
        slices: to learn from; those with more segments than `capacity` are left out.
        judge_slices: on which the judge learns; others, as the policy knows its own too well.
        test_slices: looked at once, at the end; as many others say whether learning by reward is kept.
        capacity: segments of a slice.
        width: of both networks' layers.
        clone_steps, ppo_steps, judge_steps: of the three parts.
        batch: slices of a step; of the judge's chains, 64 times as many.
        walks: sampled walks, from which the judge learns and among which it chooses.
        seed: of everything.
    """

    contours: ContourModel = field(default_factory=ContourModel)
    slices: int = 4000
    judge_slices: int = 2000
    test_slices: int = 300
    capacity: int = 64
    width: int = 64
    clone_steps: int = 5000
    ppo_steps: int = 300
    judge_steps: int = 6000
    batch: int = 16
    walks: int = 12
    seed: int = 0


class Lessons(NamedTuple):
    """Slices to learn from, with their truth; the leading axis are slices."""

    segments: Segments
    follows: Int[Array, "slices ends"]
    owner: Int[Array, "slices segments"]
    gap_fraction: Float[Array, " slices"]


def draw_lessons(
    key: Key[Array, ""],
    contours: ContourModel,
    count: int,
    capacity: int,
    report: Callable[[str], None] = lambda _: None,
) -> Lessons:
    """Draw slices until `count` have at most `capacity` segments and at least one.

    Arguments:
        key: random key.
        contours: from which slices are drawn.
        count: slices.
        capacity: segments of a slice, at most.
        report: receives a line of progress now and then.

    Raises:
        ValueError: if hardly any slice of these contours has so few.
    """
    draw = jax.jit(lambda k: draw_contours(k, contours))
    key, scatter = jax.random.split(key)
    rng = np.random.default_rng(int(jax.random.bits(scatter)))
    rows: list[tuple[Segments, np.ndarray, np.ndarray]] = []
    gaps: list[float] = []
    drawn = 0
    while len(rows) < count:
        if drawn > 20 * (len(rows) + 5):
            raise ValueError(f"draw_lessons: of {drawn} slices {len(rows)} have 1 to {capacity} segments")
        one = jax.tree.map(np.asarray, draw(jax.random.fold_in(key, drawn)))
        given = lesson(rng, one)
        drawn += 1
        if 0 < len(given.paths) <= capacity:
            rows.append(summarised(given, (contours.size, contours.size), capacity))
            gaps.append(given.gap_fraction)
            if len(rows) % 500 == 0:
                report(f"simulated {len(rows)} of {count} slices")
    segments, follows, owner = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *rows)
    return Lessons(segments, follows, owner, jnp.asarray(np.array(gaps, np.float32)))


def train_linker(config: LinkTraining, folder: Path, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Train the linker's policy and its judge; continues from `folder` where it was stopped.

    Writes `examples.safetensors` and `reward.safetensors`, the states of both ways of learning, now and then, and at the end
    `linker.safetensors` and `card.json` (configuration, and the figures on slices never seen).

    Arguments:
        config: what to train.
        folder: created if missing.
        report: receives a line of progress now and then.

    Returns:
        What stands in `card.json`.

    Raises:
        JaxmemError: if the checkpoint belongs to another configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys = jax.random.split(jax.random.key(config.seed), 9)
    lessons = draw_lessons(keys[0], config.contours, config.slices, config.capacity, report)
    tasks = _tasks(lessons)
    graph, params = nnx.split(blank_policy(config.width, nnx.Rngs(keys[1])), nnx.Param)
    judge_graph, judge_params = nnx.split(blank_judge(config.width, nnx.Rngs(keys[2])), nnx.Param)
    test, check = (draw_lessons(k, config.contours, config.test_slices, config.capacity) for k in keys[6:8])

    by_example = LearningConfig(optax.cosine_decay_schedule(3e-3, config.clone_steps), discount=0.9)
    by_reward = LearningConfig(1e-4, discount=1.0, trace=0.95, entropy=0.001)
    card: dict[str, Any] = {"config": asdict(config), "greedy": {}}
    best = -1.0
    for name, learn, how, steps, episodes, key in (
        ("examples", clone_step, by_example, config.clone_steps, 2, keys[3]),
        ("reward", ppo_step, by_reward, config.ppo_steps, 4, keys[4]),
    ):
        step = _learning_step(learn, graph, how, episodes, config)
        state, begin = _resume(folder / f"{name}.safetensors", config, init(params, how), report)
        for i in range(begin, steps):
            choose, play = jax.random.split(jax.random.fold_in(key, i))
            state, info = step(play, state, _some(choose, tasks, config.batch))
            if (i + 1) % 100 == 0 or i + 1 == steps:
                report(f"{name} {i + 1}/{steps} reward {float(info.reward):.3f} loss {float(info.loss):.4f}")
            if (i + 1) % 250 == 0 or i + 1 == steps:
                save_checkpoint(folder / f"{name}.safetensors", state, config)
        found = score_table(_greedy(nnx.merge(graph, state.params), check), check)["all"]
        report(f"greedy walks after {name}: {found}")
        card["greedy"][name] = found
        if found["adjusted_rand"] > best:
            best, params, card["kept"] = found["adjusted_rand"], state.params, name
    policy = nnx.merge(graph, params)
    del tasks
    fresh = _tasks(draw_lessons(keys[8], config.contours, config.judge_slices, config.capacity, report))
    judge_params = _train_judge(keys[5], policy, judge_graph, judge_params, fresh, config, report)
    judge = nnx.merge(judge_graph, judge_params)
    save_linker(folder / "linker.safetensors", policy, judge, config.width)
    card["unseen"] = scores(policy, judge, test, config.walks)
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    return card


@functools.partial(jax.jit, static_argnums=0)
def _walk_each(graph, params, segments: Segments) -> Int[Array, "slices segments"]:
    policy = nnx.merge(graph, params)
    return jax.lax.map(lambda s: walk_once(jax.random.key(0), policy, link_task(s)), segments, batch_size=10)


def _greedy(policy: Any, lessons: Lessons) -> Int[np.ndarray, "slices segments"]:
    """Groups by one greedy walk over each slice."""
    return np.asarray(_walk_each(*nnx.split(policy), lessons.segments))


def _tasks(lessons: Lessons, chunk: int = 50) -> LinkTask:
    """All slices as tasks, made once."""
    make = jax.jit(lambda all_: jax.lax.map(lambda one: link_task(*one), all_))
    parts = []
    for begin in range(0, len(lessons.owner), chunk):
        part = jax.tree.map(lambda leaf, b=begin: leaf[b : b + chunk], lessons)
        parts.append(make((part.segments, part.follows, part.owner)))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def _some(key: Key[Array, ""], tasks: LinkTask, count: int) -> LinkTask:
    rows = jax.random.randint(key, (count,), 0, len(tasks.owner))
    return jax.tree.map(lambda leaf: leaf[rows], tasks)


def _learning_step(learn, graph, how: LearningConfig, episodes: int, config: LinkTraining) -> Callable:
    """A compiled step of one way of learning."""
    steps = int(_ENOUGH * steps_for(config.capacity))
    given = {"environment": LINKING, "graph": graph, "config": how, "episodes": episodes, "steps": steps}
    return jax.jit(functools.partial(learn, **given))


def _train_judge(key, policy, graph, params, tasks: LinkTask, config: LinkTraining, report):
    """Logistic regression by a network: is a chain one whole membrane?"""

    @jax.jit
    def chains(key, tasks: LinkTask):
        def one(k, task):
            made = sample_chains(k, policy, task, config.walks)
            return made.features, made.present, is_membrane(task, made)

        return jax.lax.map(lambda both: one(*both), (jax.random.split(key, len(tasks.owner)), tasks))

    features, right = [], []
    chunk = min(50, config.judge_slices)
    for begin in range(0, config.judge_slices - chunk + 1, chunk):
        part = jax.tree.map(lambda leaf, b=begin: leaf[b : b + chunk], tasks)
        seen, present, good = (np.asarray(a) for a in chains(jax.random.fold_in(key, begin), part))
        features.append(seen[present])
        right.append(good[present])
        if (begin // chunk + 1) % 20 == 0:
            report(f"judge: walked over {begin + chunk} of {config.judge_slices} slices")
    x, y = np.concatenate(features), np.concatenate(right).astype(np.float32)
    optimiser = optax.adamw(optax.cosine_decay_schedule(2e-3, config.judge_steps), weight_decay=1e-3)

    @jax.jit
    def step(params, state, x, y):
        def objective(params):
            return optax.sigmoid_binary_cross_entropy(nnx.merge(graph, params)(x), y).mean()

        loss, gradient = jax.value_and_grad(objective)(params)
        return *descend(optimiser, gradient, state, params), loss

    state = optimiser.init(params)
    choose = jax.random.fold_in(key, config.judge_slices)  # a number that none of the chunks has, so a key of its own
    for i in range(config.judge_steps):
        rows = np.asarray(jax.random.randint(jax.random.fold_in(choose, i), (64 * config.batch,), 0, len(x)))
        params, state, loss = step(params, state, x[rows], y[rows])
        if (i + 1) % 1000 == 0 or i + 1 == config.judge_steps:
            report(f"judge {i + 1}/{config.judge_steps} loss {float(loss):.4f}")
    return params


def scores(policy: Any, judge: Any, lessons: Lessons, walks: int) -> dict[str, dict[str, float | int]]:
    """Adjusted Rand index and share of membranes found exactly, by the share that is missing of every contour."""

    @jax.jit
    def groups(keys, segments: Segments):
        return jax.lax.map(lambda one: best_of_walks(one[0], policy, judge, link_task(one[1]), walks), (keys, segments))

    found = np.asarray(groups(jax.random.split(jax.random.key(0), len(lessons.owner)), lessons.segments))
    return score_table(found, lessons)


def score_table(found: Int[np.ndarray, "slices segments"], lessons: Lessons) -> dict[str, dict[str, float | int]]:
    """Scores of groups by tenths of the gap fraction, and over all slices."""
    index = jax.jit(jax.vmap(lambda s, o, g: agreement(link_task(s, owner=o), g)))
    rand = np.asarray(index(lessons.segments, lessons.owner, found))
    exact = np.array([_exact(g, o) for g, o in zip(found, np.asarray(lessons.owner))])
    tenth = np.minimum((10 * np.asarray(lessons.gap_fraction)).astype(int), 9)
    rows = {f"{10 * t}-{10 * t + 10} %": tenth == t for t in np.unique(tenth)} | {"all": tenth >= 0}
    return {
        name: {
            "slices": int(chosen.sum()),
            "adjusted_rand": round(float(rand[chosen].mean()), 4),
            "exact": round(float(np.nanmean(exact[chosen])), 4),
        }
        for name, chosen in rows.items()
    }


def _exact(group: np.ndarray, owner: np.ndarray) -> float:
    """Share of a slice's membranes whose segments are one group with nothing else in it; NaN without membranes."""
    right = []
    for k in np.unique(owner[owner > 0]):
        mine = group[owner == k]
        right.append((mine == mine[0]).all() and (group == mine[0]).sum() == len(mine))
    return float(np.mean(right)) if right else float("nan")


def _resume(path: Path, config: LinkTraining, fresh: LearningState, report) -> tuple[LearningState, int]:
    """The saved state and the steps it has taken; the fresh one if nothing was saved."""
    if not path.exists():
        return fresh, 0
    state = load_checkpoint(path, fresh, config)
    report(f"{path.stem}: going on after {int(state.step)} steps")
    return state, int(state.step)
