"""Training of the walker on simulated contours: by the example of a teacher who knows the membranes."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmem.grouping.rl.learning import descend
from jaxmem.grouping.rl.walker.environment import DEPTH, ahead, taught, verdicts
from jaxmem.grouping.rl.walker.lessons import contested, judge, junction_table, replay, walk_lesson
from jaxmem.grouping.rl.walker.policy import WalkPolicy, straight_on
from jaxmem.grouping.rl.walker.state import WalkState, WalkTask
from jaxmem.grouping.rl.walker.view import FEATURES, NEAR
from jaxmem.grouping.rl.weights import save_walker
from jaxmem.simulate.contours import ContourModel, draw_contours, rasterise
from jaxmem.types import Scalar

_MOVES = 4  # moves of a choice that are learnt from; hardly ever there are more
# Choices that are not between right and wrong: share that is learnt from, and their weight; by hand
_PLAIN_SHARE, _PLAIN_WEIGHT = 0.1, 0.3
_STRAYING = 0.2  # share of choices that the teacher makes badly, to be seen where it would not go; by hand
_THREADS = 2  # walks at a time; without influence on the result


@dataclass(frozen=True)
class WalkTraining:
    """What to train the walker on and for how long.

    Attributes:
        contours: from which slices to learn from are drawn, with more junctions than usual; scores are of the usual ones.
        thickness: of their lines, pixels, in turn.
        slices: to learn from.
        test_slices: looked at once, at the end.
        walks: over each slice: the first by the teacher, the others with some bad choices and in another order.
        width: of the layers.
        epochs: over all choices.
        batch: choices of a step.
        learning_rate, weight_decay: of AdamW; the rate falls as a cosine.
        dropout: share of a layer's outputs.
        seed: of everything.
    """

    contours: ContourModel = field(default_factory=lambda: ContourModel(membranes=(4, 12), touching_fraction=0.4))
    thickness: tuple[int, ...] = (1, 3, 5)
    slices: int = 4000
    test_slices: int = 300
    walks: int = 3
    width: int = 128
    epochs: int = 8
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.03
    dropout: float = 0.12
    seed: int = 0


class Examples(NamedTuple):
    """Choices to learn from.

    Attributes:
        features: of up to four moves, as in `WalkView`.
        allowed: the others are padding.
        right: moves that a teacher might take.
        weight: 1 for a choice between right and wrong, less for others.
    """

    features: Float[Array, "n moves 2 features"]
    allowed: Bool[Array, "n moves"]
    right: Bool[Array, "n moves"]
    weight: Float[Array, " n"]


def task_drawer(key: Key[Array, ""], config: WalkTraining) -> Callable[[int], WalkTask]:
    """A function from a slice's number to the slice with its truth.

    Arguments:
        key: random key.
        config: which contours, and how thick.
    """
    draw = jax.jit(lambda k: draw_contours(k, config.contours))
    paint = jax.jit(lambda c, thickness: rasterise(c, config.contours, thickness), static_argnums=1)

    def one(i: int) -> WalkTask:
        contours, thickness = draw(jax.random.fold_in(key, i)), config.thickness[i % len(config.thickness)]
        drawn = np.asarray(paint(contours, thickness))
        return walk_lesson(jax.tree.map(np.asarray, contours), drawn, thickness)

    return one


@jax.jit
def example_walk(key: Key[Array, ""], straying: Scalar, task: WalkTask) -> tuple[WalkState, Examples, Int[Array, ""]]:
    """One walk over a slice by the teacher: last state, what each choice teaches, and how many choices there were.

    Right are the moves that keep to the membrane and cut no corner; where there are none, those that do no harm.

    Arguments:
        key: random key.
        straying: share of choices at which it goes straight on instead.
        task: with its truth.
    """

    def decide(key, state, seen):
        verdict, allowed = verdicts(state, *ahead(state, DEPTH)), seen.allowed
        astray = jax.random.bernoulli(key, straying)
        action = jnp.where(astray, jnp.argmax(straight_on(seen)[0]), taught(state, verdict))
        right = allowed & (verdict == jnp.where(allowed, verdict, -1).max())
        right &= NEAR | ~(jnp.roll(right, 1) | jnp.roll(right, -1))
        few = jnp.argsort(~allowed)[:_MOVES]
        weight = jnp.where(contested(state, verdict), 1.0, _PLAIN_WEIGHT)
        return action, Examples(seen.features[few].astype(jnp.float16), allowed[few], right[few], weight)

    return replay(key, decide, task)


def collect(key: Key[Array, ""], config: WalkTraining, report: Callable[[str], None] = lambda _: None) -> Examples:
    """Walk over slices: of the choices between right and wrong all are kept, of the others one in ten.

    Arguments:
        key: random key.
        config: what to walk over, and how often.
        report: receives a line of progress now and then.
    """
    slices, walking = jax.random.split(key)
    draw = task_drawer(slices, config)

    def one(i: int) -> list[Examples]:
        task, out, rng = draw(i), [], np.random.default_rng((config.seed, i))
        for k in range(config.walks):
            walk_key = jax.random.fold_in(walking, config.walks * i + k)
            _, rows, count = example_walk(walk_key, _STRAYING * (k > 0), _elsewhere(rng, task) if k else task)
            rows = jax.tree.map(lambda leaf, n=int(count): np.asarray(leaf)[:n], rows)
            kept = ((rows.weight == 1.0) | (rng.random(len(rows.weight)) < _PLAIN_SHARE)) & rows.right.any(1)
            out.append(jax.tree.map(lambda leaf, kept=kept: leaf[kept], rows))
        return out

    parts: list[Examples] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for i, some in enumerate(pool.map(one, range(config.slices))):
            parts += some
            if (i + 1) % 500 == 0:
                report(f"walked over {i + 1} of {config.slices} slices: {sum(len(p.weight) for p in parts)} choices")
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _elsewhere(rng: np.random.Generator, task: WalkTask) -> WalkTask:
    """The same slice, but walks begin in another order: still at the ends of lines first."""
    count, pixels = int(task.used), int(task.line.sum())
    order = np.arange(len(task.starts))
    rng.shuffle(order[: count - pixels])
    rng.shuffle(order[count - pixels : count])
    return task._replace(starts=task.starts[order])


def fit(key: Key[Array, ""], examples: Examples, config: WalkTraining, report: Callable[[str], None]) -> WalkPolicy:
    """Train a policy to make the teacher's choices likely, whichever of the right moves it takes.

    Arguments:
        key: random key.
        examples: from `collect`.
        config: how wide, how long and how fast.
        report: receives a line of progress after every epoch.
    """
    begin, order, drops = jax.random.split(key, 3)
    graph, params = nnx.split(WalkPolicy(config.width, rngs=nnx.Rngs(begin)), nnx.Param)
    some = examples.features[examples.allowed].astype(np.float32).reshape(-1, FEATURES)
    mean, scale = some.mean(0), some.std(0) + 1e-2
    batch = min(config.batch, len(examples.weight))
    steps = len(examples.weight) // batch
    rate = optax.cosine_decay_schedule(config.learning_rate, config.epochs * steps)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=config.weight_decay))
    keep = 1.0 - config.dropout

    @jax.jit
    def step(key, params, state, part):
        def thin(layer, x):
            if config.dropout == 0.0:
                return x
            return x * jax.random.bernoulli(jax.random.fold_in(key, layer), keep, x.shape).astype(x.dtype) / keep

        def objective(params):
            policy = nnx.merge(graph, params)
            standard = (part.features.astype(jnp.float32) - mean[None, None, None]) / scale[None, None, None]
            worth = policy.score(standard, thin)
            log_prob = jax.nn.log_softmax(jnp.where(part.allowed, worth, -1e9))
            right = jax.nn.logsumexp(jnp.where(part.right, log_prob, -1e9), -1)
            return -(part.weight * right).mean()

        loss, gradient = jax.value_and_grad(objective)(params)
        return *descend(optimiser, gradient, state, params), loss

    state = optimiser.init(params)
    for epoch in range(config.epochs):
        rows = np.asarray(jax.random.permutation(jax.random.fold_in(order, epoch), len(examples.weight)))
        for i in range(steps):
            part = jax.tree.map(lambda leaf, i=i, rows=rows: leaf[rows[i * batch : (i + 1) * batch]], examples)
            params, state, loss = step(jax.random.fold_in(drops, epoch * steps + i), params, state, part)
        report(f"epoch {epoch + 1}/{config.epochs} loss {float(loss):.4f}")
    # features come as they are: the first layer standardises them
    pure: Any = params.to_pure_dict()
    kernel = pure["first"]["kernel"] / scale[:, None]
    pure["first"] = {"kernel": kernel, "bias": pure["first"]["bias"] - mean @ kernel}
    nnx.replace_by_pure_dict(params, pure)
    return nnx.merge(graph, params)


def train_walker(config: WalkTraining, folder: Path, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Train the walker's policy; writes `walker.safetensors` and `walker.json` (configuration, and figures on unseen slices).

    Arguments:
        config: what to train.
        folder: created if missing.
        report: receives a line of progress now and then.

    Returns:
        What stands in `walker.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lessons, learning, test = jax.random.split(jax.random.key(config.seed), 3)
    examples = collect(lessons, config, report)
    policy = fit(learning, examples, config, report)
    # unseen slices are those of the usual contours, whichever were learnt from
    draw = task_drawer(test, replace(config, contours=ContourModel(size=config.contours.size)))
    card: dict[str, Any] = {
        "config": asdict(config),
        "choices": len(examples.weight),
        "contested": int((examples.weight == 1.0).sum()),
    }
    go = judge(policy)
    card["unseen"] = junction_table([go(draw(i)) for i in range(config.test_slices)])
    report(f"junctions on unseen slices: {card['unseen']}")
    save_walker(folder / "walker.safetensors", policy, config.width)
    partial = folder / "walker.partial"
    partial.write_text(json.dumps(card, indent=2) + "\n")
    partial.replace(folder / "walker.json")
    return card
