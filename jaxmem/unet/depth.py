"""Training a network that sees neighbouring slices, on tomograms simulated by physics: resumable, reproducible from its seed."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmem.checkpoints import load_checkpoint, save_checkpoint
from jaxmem.numerics import compiler_options
from jaxmem.simulate import FlavourModel, PhysicalModel, SliceModel, flavoured, physical_tomogram
from jaxmem.types import MEMBRANE, JaxmemError
from jaxmem.unet.functional import Network, adamw, averaged, init, network_of, widened
from jaxmem.unet.model import UNetConfig, dice_per_class, segmentation_loss
from jaxmem.unet.stacks import offsets, resampling
from jaxmem.unet.train import STEPS, SYMMETRIES, Info, TrainState, append_row, simulate_set
from jaxmem.unet.weights import load_weights, save_weights

IGNORED = 3
"""Label of voxels that do not count: membrane that the missing wedge hides."""

_STEPS = 16.0  # of a stored voxel in one standard deviation: beyond 8 of them a byte is full
_SPACING = (0.6, 1.5)  # between slices over the pixel size, where they are not alike: 8 to 21 A of 14
_COARSE = (1.3, 3.2)  # voxels of coarse tomograms over the pixel size: 18 to 45 A of 14


@dataclass(frozen=True)
class DepthTraining:
    """What to train and on what.

    Attributes:
        network: architecture.
        physics, flavours: tomograms, and what becomes of them.
        slices: drawn slices, which show what scenes do not; the network sees them as if their neighbours were like them.
        tomograms, held_out: how many to learn from, and to measure the loss on.
        plain: drawn slices in the set, and `plain_share` of each batch is of them.
        alone: share of the simulated slices that are shown without their neighbours, as a file of one slice is.
        coarse: share of the simulated slices from tomograms of larger voxels, 18 to 45 A where pixels have 14.
        start: weights to begin with, of a network that sees fewer slices as well; the package's own when empty, "none" for new ones.
        kept: share of the weights it began with in those that are written (Wortsman et al. 2022, CVPR, 7959); of new ones nothing is kept.
        side: of the pieces that are shown, pixels.
        steps, batch, learning_rate, weight_decay, seed: of the optimiser.
        every: steps between two looks at the tomograms held out, after which the state is saved.
    """

    network: UNetConfig = field(default_factory=lambda: UNetConfig(slices=5))
    physics: PhysicalModel = field(default_factory=PhysicalModel)
    flavours: FlavourModel = field(default_factory=FlavourModel)
    slices: SliceModel = field(default_factory=SliceModel)
    tomograms: int = 60
    held_out: int = 4
    plain: int = 1200
    plain_share: float = 0.2
    alone: float = 0.15
    coarse: float = 0.15
    start: str = ""
    kept: float = 0.0
    side: int = 192
    steps: int = 6000
    batch: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    seed: int = 0
    every: int = 250


class Volumes(NamedTuple):
    """A simulated tomogram as bytes, on disk: signal and noise in sixteenths of their standard deviation, the noise's, and labels."""

    signal: Int[np.ndarray, "nz ny nx"]
    noise: Int[np.ndarray, "nz ny nx"]
    strength: float
    labels: Int[np.ndarray, "nz ny nx"]


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(_STEPS * values), -127, 127).astype(np.int8)


def simulate_volumes(
    seed: int, model: PhysicalModel, count: int, folder: Path, report: Callable[[str], None] = print
) -> list[Volumes]:
    """Tomograms 0 ... count - 1 of a seed, read from a folder where they are there, and written into it.

    Arguments:
        seed: of all.
        model: scenes and optics.
        count: how many; the first are the same whatever their number.
        folder: created if missing.
        report: told of each that was made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for i in range(count):
        path = folder / f"tomogram_{i:04d}.npy"
        strengths = path.with_suffix(".txt")
        if not (path.exists() and strengths.exists()):
            one = physical_tomogram(jax.random.fold_in(jax.random.key(seed), i), model)
            labels = jnp.where((one.semantic == MEMBRANE) & ~one.visible, IGNORED, one.semantic)
            strength = max(float(one.noise.std()), 1e-6)
            stored = [
                _bytes(np.asarray(one.signal)),
                _bytes(np.asarray(one.noise) / strength),
                np.asarray(labels, np.int8),
            ]
            with path.open("wb") as file:
                np.save(file, np.stack(stored))
            strengths.write_text(f"{strength:.6g}\n")
            report(f"simulated tomogram {i + 1} of {count}")
        signal, noise, labels = np.load(path, mmap_mode="r")
        found.append(Volumes(signal, noise, float(strengths.read_text()), labels))
    return found


class Batch(NamedTuple):
    """What a step sees: signal and noise (b, side, side, slices), labels (b, side, side), and which are drawn slices, (b,)."""

    signal: np.ndarray
    noise: np.ndarray
    labels: np.ndarray
    plain: np.ndarray


def draw_batch(
    rng: np.random.Generator, config: DepthTraining, volumes: list[Volumes], plain: tuple[np.ndarray, np.ndarray] | None
) -> Batch:
    """Random pieces of random slices with their neighbours, and some drawn slices."""
    side, many = config.side, config.network.slices
    signal = np.empty((config.batch, side, side, many), np.float32)
    noise, labels = np.zeros_like(signal), np.empty((config.batch, side, side), np.int32)
    is_plain = np.zeros(config.batch, bool)
    for row in range(config.batch):
        if plain is not None and rng.random() < config.plain_share:
            k = rng.integers(len(plain[0]))
            is_plain[row] = True
            signal[row] = plain[0][k][:side, :side, None].astype(np.float32) / STEPS
            labels[row] = plain[1][k][:side, :side]
            continue
        one = volumes[rng.integers(len(volumes))]
        depth, height, width = one.signal.shape
        z, y, x = rng.integers(depth), rng.integers(height - side + 1), rng.integers(width - side + 1)
        coarse = rng.random() < config.coarse
        spacing = float(np.exp(rng.uniform(*np.log(_COARSE)))) if coarse else 1.0
        spacing_z = spacing if coarse or rng.random() < 0.5 else rng.uniform(*_SPACING)
        # voxels average less noise the smaller they are: so that coarse tomograms are not all clear
        louder = spacing ** rng.uniform(0.0, 1.5)
        along = resampling(z + offsets(many), depth, spacing_z, float(z), averaged=coarse)
        used = np.flatnonzero(along.any(0))
        piece = (used, slice(y, y + side), slice(x, x + side))
        for out, volume, scale in ((signal, one.signal, 1.0), (noise, one.noise, one.strength * louder)):
            out[row] = np.tensordot(volume[piece].astype(np.float32), along.T[used] * (scale / _STEPS), (0, 0))
        if coarse:
            across = resampling(np.arange(side, dtype=float), side, spacing, rng.uniform(0.0, spacing), averaged=True)
            for out in (signal, noise):
                out[row] = np.einsum("ij,jkl,mk->iml", across, out[row], across, optimize=True)
        labels[row] = one.labels[z, y : y + side, x : x + side]
        if rng.random() < 0.5:
            signal[row], noise[row] = signal[row][..., ::-1], noise[row][..., ::-1]
        if rng.random() < config.alone:
            signal[row], noise[row] = (a[row][..., many // 2, None] for a in (signal, noise))
    return Batch(signal, noise, labels, is_plain)


def make_step(optimiser, flavours: FlavourModel) -> Callable:
    """The compiled step `(key, state, batch) -> (state, Info)`; the state's buffers are reused."""
    import optax

    def step(key, state: TrainState, batch: Batch) -> tuple[TrainState, Info]:
        x, y = jax.vmap(lambda k, *one: shown(k, flavours, *one))(jax.random.split(key, len(batch.plain)), *batch)

        def objective(params):
            return segmentation_loss(params.model(x), jnp.where(y == IGNORED, 0, y), y != IGNORED)

        loss, gradient = jax.value_and_grad(objective)(state.params)
        updates, memory = optimiser.update(gradient, state.optimiser, state.params)
        return TrainState(optax.apply_updates(state.params, updates), memory, state.step + 1), Info(loss)

    return jax.jit(step, donate_argnums=1, compiler_options=compiler_options())


def shown(
    key: Array, flavours: FlavourModel, signal: Array, noise: Array, labels: Array, plain: Array
) -> tuple[Float[Array, "side side slices"], Int[Array, "side side"]]:
    """A stack as the network is to see it and its labels: of some flavour, under one of the square's symmetries."""
    keys = jax.random.split(key, 3)
    stack = jnp.where(plain, signal, flavoured(keys[0], signal, noise, flavours))
    stack = stack * jax.random.uniform(keys[1], minval=0.85, maxval=1.15)
    turn = jax.random.randint(keys[2], (), 0, 8)
    return jax.lax.switch(turn, SYMMETRIES, stack), jax.lax.switch(turn, SYMMETRIES, labels)


def first_params(key: Array, config: DepthTraining) -> Network:
    """The weights that a training begins with.

    Raises:
        JaxmemError: if they cannot be read, or are of another architecture.
    """
    if config.start == "none":
        return init(key, config.network)
    own = network_of(load_weights(config.start or None, flat=config.network.slices == 1)[0])
    try:
        return widened(own, config.network)
    except ValueError:
        whose = config.start or "the package's weights"
        raise JaxmemError(
            f"{whose}: of another network than {config.network}; begin with none (--start none)"
        ) from None


def look_at(params: Network, batches: list[tuple[Array, Array]]) -> dict[str, float]:
    """Loss, share of pixels right and Dice of protein and membrane over prepared stacks, voxels that do not count left out."""
    losses, dice, right = [], [], []
    for x, y in batches:
        logits = _logits(params, x)
        mask = y != IGNORED
        truth = jnp.where(mask, y, 0)
        losses.append(float(segmentation_loss(logits, truth, mask)))
        choice = jnp.argmax(logits, -1)
        decided = jax.nn.one_hot(choice.reshape(-1), logits.shape[-1])
        dice.append(np.asarray(dice_per_class(decided, truth.reshape(-1), mask.reshape(-1))))
        right.append(float(jnp.where(mask, choice == truth, False).sum() / mask.sum()))
    protein, membrane = np.mean(dice, 0)[1:]
    return {
        "loss": float(np.mean(losses)),
        "accuracy": float(np.mean(right)),
        "dice_protein": float(protein),
        "dice_membrane": float(membrane),
    }


@jax.jit
def _logits(params: Network, x: Array) -> Array:
    return params.model(x)


def train_on_tomograms(config: DepthTraining, folder: Path, report: Callable[[str], None] = print) -> Network:
    """Train a network that sees depth; continues from `folder` if it holds a checkpoint of the same configuration.

    Writes `tomograms/`, `checkpoint.safetensors` and a row of `loss.csv` after every `every` steps, and at the end `unet.safetensors` and
    `card.json`.

    Arguments:
        config: what to train.
        folder: created if missing.
        report: receives a line of progress now and then.

    Raises:
        JaxmemError: if the checkpoint belongs to another configuration, or the weights to begin with cannot be read.
    """
    import optax

    root = jax.random.key(config.seed)
    init_key, plain_key, step_key, test_key = jax.random.split(root, 4)
    params = first_params(init_key, config)
    many = config.tomograms + config.held_out
    volumes = simulate_volumes(config.seed, config.physics, many, folder / "tomograms", report)
    learnt, held_out = volumes[: config.tomograms], volumes[config.tomograms :]
    plain = simulate_set(plain_key, replace(config.slices, size=config.side), config.plain, report)
    warm = max(1, config.steps // 33)
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warm, config.steps, 0.0)
    optimiser = adamw(schedule, config.weight_decay)
    state = TrainState(params, optimiser.init(params), jnp.zeros((), jnp.int32))
    checkpoint = folder / "checkpoint.safetensors"
    if checkpoint.exists():
        state = load_checkpoint(checkpoint, state, config)
        report(f"resuming after step {int(state.step)}")
    step = make_step(optimiser, config.flavours)
    rng = np.random.default_rng(config.seed)
    test = [draw_batch(rng, replace(config, plain_share=0.0), held_out, None) for _ in range(8)]
    keys = [jax.random.split(jax.random.fold_in(test_key, i), config.batch) for i in range(len(test))]
    prepare = jax.jit(jax.vmap(lambda k, *one: shown(k, config.flavours, *one)))
    prepared = [prepare(k, *batch) for k, batch in zip(keys, test)]
    losses: list[Array] = []
    for i in range(int(state.step), config.steps):
        batch = draw_batch(np.random.default_rng((config.seed, i)), config, learnt, plain)
        state, info = step(jax.random.fold_in(step_key, i), state, batch)
        losses.append(info.loss)
        if (i + 1) % config.every == 0 or i + 1 == config.steps:
            scores = look_at(state.params, prepared)
            row = {"epoch": (i + 1) / config.every, "train_loss": float(np.mean(losses)), **scores}
            report(f"step {i + 1}/{config.steps} " + " ".join(f"{k} {v:.4f}" for k, v in row.items()))
            append_row(folder / "loss.csv", row)
            save_checkpoint(checkpoint, state, config)
            losses = []
    params = state.params
    if config.start != "none" and config.kept > 0:
        params = averaged(params, first_params(init_key, config), config.kept)
    save_weights(folder / "unet.safetensors", params.model, config.physics.scene.voxel_size)
    card = {"config": asdict(config), "held_out": look_at(params, prepared), "steps": int(state.step)}
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    return params
