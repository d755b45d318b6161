"""Training on simulated slices (paper, Sections 3 and 6.1): resumable, reproducible from its seed."""

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxmem.checkpoints import load_checkpoint, save_checkpoint
from jaxmem.numerics import compiler_options
from jaxmem.simulate import SliceModel, training_slice
from jaxmem.unet.functional import Network, adamw, init
from jaxmem.unet.model import UNet, UNetConfig, dice_per_class, segmentation_loss
from jaxmem.unet.weights import save_weights

if TYPE_CHECKING:
    import optax

STEPS = 20
"""Of a stored slice in one robust standard deviation: clipped at 6 of them, it fits into a byte."""

SYMMETRIES = [lambda a, k=k: jnp.rot90(a.swapaxes(0, 1) if k >= 4 else a, k % 4) for k in range(8)]
"""Those of the square, for images and stacks (h, w, ...)."""

_CHUNK = 10  # slices drawn at once, whatever their number, so that all sets are drawn by one compiled program


@dataclass(frozen=True)
class TrainConfig:
    """What to train and on what; the weights are a function of this and of the machine's arithmetic alone.

    `test_images` measure the loss after each epoch; `validation_images` are looked at once, at the end (paper, 6.1).
    """

    network: UNetConfig = field(default_factory=UNetConfig)
    slices: SliceModel = field(default_factory=SliceModel)
    images: int = 4800
    test_images: int = 80
    validation_images: int = 10
    epochs: int = 10
    batch: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    seed: int = 0


class TrainState(NamedTuple):
    """Parameters, optimiser state and number of steps taken: a pytree, so that it can be saved and resumed."""

    params: Network
    optimiser: Any
    step: Int[Array, ""]


class Info(NamedTuple):
    """What one step reports."""

    loss: Float[Array, ""]


_draw = jax.jit(jax.vmap(training_slice, (0, None)))


def simulate_set(key: Key[Array, ""], model: SliceModel, n: int, report: Callable[[str], None] = print):
    """`n` simulated slices, stored as bytes: images in steps of 1/20 robust standard deviation, labels as they are.

    Arguments:
        key: random key.
        model: the ranges to draw from.
        n: how many; the first are the same whatever their number.
        report: told after every 500.

    Returns:
        images, labels: int8 (n, size, size) each.
    """
    images = np.empty((n, model.size, model.size), np.int8)
    labels = np.empty((n, model.size, model.size), np.int8)
    for start in range(0, n, _CHUNK):
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(start, start + _CHUNK))
        x, y = _draw(keys, model)
        stop = min(start + _CHUNK, n)
        images[start:stop] = np.round(np.asarray(x)[: stop - start] * STEPS)
        labels[start:stop] = np.asarray(y)[: stop - start]
        if start // 500 != stop // 500:
            report(f"simulated {stop} of {n} slices")
    return images, labels


def _augment(key: Key[Array, ""], image: Array, label: Array) -> tuple[Array, Array]:
    """One of the eight symmetries of the square, a change of contrast, and a little white noise."""
    keys = jax.random.split(key, 4)
    turn = jax.random.randint(keys[0], (), 0, 8)
    image = jax.lax.switch(turn, SYMMETRIES, image.astype(jnp.float32) / STEPS)
    label = jax.lax.switch(turn, SYMMETRIES, label.astype(jnp.int32))
    image = image * jax.random.uniform(keys[1], minval=0.85, maxval=1.15)
    noise = jax.random.uniform(keys[2], maxval=0.15)
    return image + noise * jax.random.normal(keys[3], image.shape), label


def schedule(config: TrainConfig) -> "optax.Schedule":
    """Linear warm-up over 3 % of the steps, then a cosine to a hundredth of the peak."""
    import optax

    steps = config.epochs * (config.images // config.batch)
    warm_up = max(1, steps // 33)
    return optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warm_up, max(steps, warm_up + 1), config.learning_rate / 100
    )


def begin(key: Key[Array, ""], config: TrainConfig) -> tuple[TrainState, "optax.GradientTransformation"]:
    """A new network, before its first step, and its optimiser."""
    params = init(key, config.network)
    optimiser = adamw(schedule(config), config.weight_decay)
    return TrainState(params, optimiser.init(params), jnp.zeros((), jnp.int32)), optimiser


def make_step(optimiser: "optax.GradientTransformation") -> Callable:
    """The compiled step `(key, state, images, labels) -> (state, Info)`; the state's buffers are reused."""
    import optax

    def step(key, state: TrainState, images, labels) -> tuple[TrainState, Info]:
        x, y = jax.vmap(_augment)(jax.random.split(key, len(images)), images, labels)

        def objective(params):
            return segmentation_loss(params.model(x), y)

        loss, gradient = jax.value_and_grad(objective)(state.params)
        updates, opt_state = optimiser.update(gradient, state.optimiser, state.params)
        return TrainState(optax.apply_updates(state.params, updates), opt_state, state.step + 1), Info(loss)

    return jax.jit(step, donate_argnums=1, compiler_options=compiler_options())


@jax.jit
def _decide(params: Network, images: Array, labels: Array) -> tuple[Array, Array]:
    logits = params.model(images.astype(jnp.float32) / STEPS)
    return segmentation_loss(logits, labels.astype(jnp.int32)), jnp.argmax(logits, -1)


def score(params: Network, data: tuple[np.ndarray, np.ndarray], batch: int) -> dict[str, float]:
    """Loss, share of pixels right and Dice of each class over images and labels from `simulate_set`, `batch` at a time."""
    images, labels = data
    losses, decided = [], []
    for start in range(0, len(images) - batch + 1, batch):
        loss, choice = _decide(params, images[start : start + batch], labels[start : start + batch])
        losses.append(float(loss))
        decided.append(np.asarray(choice))
    choice = np.concatenate(decided).ravel()
    truth = labels[: len(losses) * batch].astype(np.int32).ravel()
    dice = dice_per_class(jax.nn.one_hot(choice, 3), jnp.asarray(truth))
    return {
        "loss": float(np.mean(losses)),
        "accuracy": float((choice == truth).mean()),
        "dice_background": float(dice[0]),
        "dice_protein": float(dice[1]),
        "dice_membrane": float(dice[2]),
    }


def train(config: TrainConfig, folder: Path, report: Callable[[str], None] = print) -> UNet:
    """Train a U-Net; continues from `folder` if it holds a checkpoint of the same configuration.

    Writes `checkpoint.safetensors` after every epoch, `loss.csv` (one row per epoch: training loss, and loss, accuracy
    and Dice on the test images), and at the end `unet.safetensors` and `card.json` (configuration, seed, figures on the
    validation images).

    Arguments:
        config: what to train.
        folder: created if missing.
        report: receives a line of progress now and then.

    Raises:
        JaxmemError: if the checkpoint belongs to another configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = jax.random.key(config.seed)
    init_key, train_key, test_key, validation_key, step_key = jax.random.split(root, 5)
    state, optimiser = begin(init_key, config)
    checkpoint, log = folder / "checkpoint.safetensors", folder / "loss.csv"
    if checkpoint.exists():
        state = load_checkpoint(checkpoint, state, config)
        report(f"resuming after step {int(state.step)}")
    step = make_step(optimiser)
    images, labels = simulate_set(train_key, config.slices, config.images, report)
    test = simulate_set(test_key, config.slices, config.test_images, report)
    per_epoch = config.images // config.batch
    for epoch in range(int(state.step) // per_epoch, config.epochs):
        order_key, batch_key = jax.random.split(jax.random.fold_in(step_key, epoch))
        order = np.asarray(jax.random.permutation(order_key, config.images))
        losses = []
        for i in range(per_epoch):
            rows = order[i * config.batch : (i + 1) * config.batch]
            state, info = step(jax.random.fold_in(batch_key, i), state, images[rows], labels[rows])
            losses.append(info.loss)
            if (i + 1) % 100 == 0:
                report(
                    f"epoch {epoch + 1} step {i + 1}/{per_epoch} loss {np.mean([float(v) for v in losses[-100:]]):.4f}"
                )
        scores = score(state.params, test, config.batch)
        row = {"epoch": epoch + 1, "train_loss": float(np.mean([float(v) for v in losses])), **scores}
        report(" ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
        append_row(log, row)
        save_checkpoint(checkpoint, state, config)
    model = state.params.model
    held_out = simulate_set(validation_key, config.slices, config.validation_images, report)
    scores = score(state.params, held_out, 1)
    save_weights(folder / "unet.safetensors", model, float(config.slices.pixel_size))
    card = {"config": asdict(config), "held_out": scores, "steps": int(state.step)}
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    report("held out: " + " ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    return model


def append_row(path: Path, row: dict) -> None:
    """Add a row to the loss curve, dropping rows of epochs about to be repeated after a kill."""
    rows = []
    if path.exists():
        with path.open() as file:
            rows = [r for r in csv.DictReader(file) if float(r["epoch"]) < row["epoch"]]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerows([*rows, row])
