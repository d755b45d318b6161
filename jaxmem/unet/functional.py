"""The network as plain functions: parameters are a pytree, `init` or `fit` makes them, `evaluate` uses them on one image."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmem.numerics import compiled
from jaxmem.types import Outcome, Scalar
from jaxmem.unet.model import UNet, UNetConfig, segmentation_loss

if TYPE_CHECKING:
    import optax

WEIGHT_DECAY = 1e-4
"""Of AdamW, per step and unit of learning rate; optax's own default."""

CLIP_NORM = 1.0
"""Longest gradient of a step: a batch that is unlike the others must not undo what was learnt (Pascanu et al. 2013)."""

EPS_ROOT = 1e-16
"""Added under AdamW's root, whose slope at zero is infinite; as small as the square of the 1e-8 it adds beside the root."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Network:
    """Parameters of a U-Net: a pytree whose leaves are the arrays; the architecture is static and compares by value.

    Attributes:
        state: weights and biases, an `nnx.State`.
        graph: what `flax.nnx.merge` needs besides to make a `UNet` of them.
    """

    state: Any
    graph: nnx.GraphDef = field(metadata={"static": True})

    @property
    def model(self) -> UNet:
        """The `UNet` with these parameters."""
        return nnx.merge(self.graph, self.state)


class FitInfo(NamedTuple):
    """What a fit reports: the loss of each step's batch before the step, 0 where the mask left nothing of the batch."""

    losses: Float[Array, " steps"]


class NetworkFit(NamedTuple):
    """A fitted network.

    Attributes:
        params: the network after the last step; the one it began with where `outcome` is not OK.
        outcome: an `Outcome`: OK, EMPTY if the mask leaves nothing, or NOT_FINITE.
        info: the losses.
    """

    params: Network
    outcome: Int[Array, ""]
    info: FitInfo

    @property
    def success(self) -> Bool[Array, ""]:
        """Whether the outcome is OK."""
        return self.outcome == Outcome.OK


def network_of(model: UNet) -> Network:
    """The parameters of a model, as from `load_weights`.

    Example:
        >>> params = network_of(UNet(UNetConfig(depth=2, width=4), nnx.Rngs(0)))
        >>> evaluate(params, jnp.zeros((8, 8))).shape
        (8, 8, 3)
    """
    graph, state = nnx.split(model)
    return Network(state, graph)


def init(key: Key[Array, ""], config: UNetConfig) -> Network:
    """A network with random weights (He et al. 2015) in JAX's default float, and biases of zero.

    Arguments:
        key: random key.
        config: architecture; static under jit.
    """
    return network_of(UNet(config, nnx.Rngs(key)))


_new = init  # `fit` has an argument of this name


@compiled
def evaluate(params: Network, image: Float[Array, "h w *slices"]) -> Float[Array, "h w classes"]:
    """Class logits of one image, in its dtype; differentiable in both arguments; `jax.vmap` takes many images.

    Arguments:
        params: from `init`, `fit` or `network_of`.
        image: normalised as by `preprocess.robust_normalise`; sides multiples of 2**(depth - 1). Where the network sees several
            slices, a stack of them (h, w, slices), as by `preprocess.normalised_stack`, or one that stands for all.

    Raises:
        ValueError: at trace, if a side is not such a multiple.
    """
    return params.model(image[None])[0]


@compiled
def probabilities(params: Network, image: Float[Array, "h w *slices"]) -> Float[Array, "h w classes"]:
    """Class probabilities of one image: the softmax of `evaluate`, with the same arguments."""
    return jax.nn.softmax(evaluate(params, image))


def _shortened(gradient, _):
    """A gradient no longer than `CLIP_NORM`, differentiable at zero too."""
    square = sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(gradient))
    longer = square > CLIP_NORM**2
    factor = jnp.where(longer, CLIP_NORM / jnp.sqrt(jnp.where(longer, square, 1.0)), 1.0)
    return jax.tree.map(lambda leaf: leaf * factor, gradient)


def adamw(
    learning_rate: "Scalar | optax.Schedule", weight_decay: float = WEIGHT_DECAY
) -> "optax.GradientTransformation":
    """The optimiser of all trainings: AdamW (Loshchilov & Hutter 2019) on gradients no longer than `CLIP_NORM`.

    Its steps can be differentiated where a weight's gradients have all been zero.

    Arguments:
        learning_rate: a number, or one for each step.
        weight_decay: share of the weights, times the learning rate, that a step takes away.
    """
    import optax  # only training needs it

    steps = optax.adamw(learning_rate, weight_decay=weight_decay, eps_root=EPS_ROOT)
    chain = optax.chain(optax.stateless(_shortened), steps)

    def update(gradient, state, params=None):
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to powers that are integer arrays
            return chain.update(gradient, state, params)

    return optax.GradientTransformation(chain.init, update)


@compiled(static=("config", "steps", "batch"))
def fit(
    key: Key[Array, ""],
    images: Float[Array, "n h w *slices"],
    labels: Int[Array, "n h w"],
    mask: Bool[Array, "n h w"] | None = None,
    *,
    init: Network | None = None,
    config: UNetConfig | None = None,
    steps: int = 200,
    batch: int = 4,
    learning_rate: Scalar = 2e-3,
) -> NetworkFit:
    """A network fitted to labelled images, by steps of AdamW on random batches of `segmentation_loss`.

    One `lax.scan`, without augmentation; `train` makes a network on simulated slices, with all that is needed for hours of it.

    Arguments:
        key: random key, for the batches and the weights that a new network begins with.
        images: normalised as by `preprocess.robust_normalise`; sides multiples of 2**(depth - 1); or stacks of slices, as in `evaluate`.
        labels: 0 to classes - 1.
        mask: pixels that count; all when None. The others are replaced by 0 before the network sees them, because convolutions
            would carry them to their neighbours, and are left out of the loss: what they hold, NaN included, matters neither
            to the result nor to its gradient.
        init: the network to begin with; a new one when None.
        config: architecture of a new network, `UNetConfig()` when None; static under jit.
        steps: how many, at least 1; static under jit.
        batch: different images of a step, all of them where there are fewer; static under jit.
        learning_rate: of AdamW.

    Raises:
        ValueError: at trace, if shapes differ, there is no image or no step, or both `init` and `config` are given.

    Example:
        >>> images = jax.random.normal(jax.random.key(0), (2, 8, 8))
        >>> small = UNetConfig(depth=2, width=4)
        >>> found = fit(jax.random.key(1), images, (images > 0).astype(jnp.int32), config=small, steps=20)
        >>> bool(found.success), bool(found.info.losses[-1] < found.info.losses[0])
        (True, True)
    """
    import optax

    shape = images.shape[:3]
    if images.ndim not in (3, 4) or labels.shape != shape or (mask is not None and mask.shape != shape):
        shapes = images.shape, labels.shape, None if mask is None else mask.shape
        raise ValueError(f"fit: expected images, labels and mask of one shape (n, h, w), got {shapes}")
    if len(images) == 0 or steps < 1 or batch < 1:
        raise ValueError(f"fit: expected an image, a step and a batch, got {len(images)}, {steps} and {batch}")
    if init is not None and config is not None:
        raise ValueError("fit: expected init or config, got both")
    weights_key, batches_key = jax.random.split(key)
    start = init
    if start is None:
        start = jax.tree.map(lambda a: a.astype(images.dtype), _new(weights_key, config or UNetConfig()))
    if mask is not None:
        wide = mask if images.ndim == 3 else mask[..., None]
        images, labels = jnp.where(wide, images, 0.0), jnp.where(mask, labels, 0)
    optimiser = adamw(learning_rate)

    def step(state, step_key):
        params, memory = state
        rows = jax.random.permutation(step_key, len(images))[:batch]
        shown = None if mask is None else mask[rows]

        def objective(params):
            return segmentation_loss(jax.vmap(evaluate, (None, 0))(params, images[rows]), labels[rows], shown)

        loss, gradient = jax.value_and_grad(objective)(params)
        updates, memory = optimiser.update(gradient, memory, params)
        return (optax.apply_updates(params, updates), memory), loss

    (last, _), losses = jax.lax.scan(step, (start, optimiser.init(start)), jax.random.split(batches_key, steps))
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((images, losses, last))]).all()
    outcome = jnp.where(finite, jnp.int32(Outcome.OK), jnp.int32(Outcome.NOT_FINITE))
    if mask is not None:
        outcome = jnp.where(mask.any(), outcome, jnp.int32(Outcome.EMPTY))
    params = jax.tree.map(lambda a, b: jnp.where(outcome == Outcome.OK, a, b), last, start)
    return NetworkFit(params, outcome, FitInfo(losses))


def widened(params: Network, config: UNetConfig) -> Network:
    """A network that sees `config.slices` slices and says what one says that sees fewer, of its middle ones.

    Raises:
        ValueError: if the architectures differ in anything else, or it sees more.
    """
    old = params.model.config
    if replace(old, slices=config.slices) != config or old.slices > config.slices:
        raise ValueError(f"widened: {old} cannot be made {config}")
    wide, model = init(jax.random.key(0), config).model, params.model
    kernel = model.down[0].first.kernel[...]
    side = (config.slices - old.slices) // 2
    model.down[0].first.kernel = wide.down[0].first.kernel
    model.down[0].first.kernel[...] = jnp.pad(kernel, ((0, 0), (0, 0), (side, side), (0, 0)))
    model.config = config
    return network_of(model)


def averaged(params: Network, other: Network, share: float) -> Network:
    """Weights between those of two networks of one architecture (Wortsman et al. 2022, CVPR, 7959).

    Arguments:
        params, other: of equal `config`.
        share: of `other`, from 0 to 1.
    """
    return jax.tree.map(lambda a, b: (1.0 - share) * a + share * b, params, other)
