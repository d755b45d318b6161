"""The U-Net (paper, Section 3; Ronneberger et al. 2015) and its losses."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxmem.unet.layers import conv3x3, max_pool2, stem3x3, upsample2


@dataclass(frozen=True)
class UNetConfig:
    """Architecture: `depth` resolutions, `width` channels at the finest, doubled at each coarser one; `classes` outputs.

    `slices` is how many neighbouring slices the network sees, an odd number, one pixel apart; it speaks of the middle one.
    """

    depth: int = 4
    width: int = 16
    classes: int = 3
    slices: int = 1

    @property
    def multiple(self) -> int:
        """Sides of an input must be multiples of this."""
        return 2 ** (self.depth - 1)


def _biased(x: Array, bias: nnx.Param) -> Array:
    """A bias for each channel added in the dtype of `x` (b, h, w, channels)."""
    return x + bias[...].astype(x.dtype)[None, None, None]


class _Convolution(nnx.Module):
    def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs):
        scale = (2.0 / (9 * inputs)) ** 0.5
        self.kernel = nnx.Param(scale * jax.random.normal(rngs.params(), (3, 3, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x):
        kernel = self.kernel[...].astype(x.dtype)
        y = stem3x3(x[..., 0], kernel) if kernel.shape[2] == 1 else conv3x3(x, kernel)
        return jax.nn.relu(_biased(y, self.bias))


class _Pair(nnx.Module):
    def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs):
        self.first = _Convolution(inputs, outputs, rngs)
        self.second = _Convolution(outputs, outputs, rngs)

    def __call__(self, x):
        return self.second(self.first(x))


class _Upsampling(nnx.Module):
    def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs):
        self.kernel = nnx.Param((1.0 / inputs) ** 0.5 * jax.random.normal(rngs.params(), (inputs, 4 * outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x):
        return _biased(upsample2(x, self.kernel[...].astype(x.dtype)), self.bias)


class UNet(nnx.Module):
    """Slices to class logits.

    Call with images (b, h, w), sides multiples of `config.multiple`, or, where the network sees several slices, with stacks of them
    (b, h, w, slices); a single slice then stands for all. Returns logits (b, h, w, classes) of the middle slice in the images' dtype.

    Example:
        >>> model = UNet(UNetConfig(depth=2, width=4), nnx.Rngs(0))
        >>> model(jnp.zeros((1, 8, 8))).shape
        (1, 8, 8, 3)
    """

    def __init__(self, config: UNetConfig, rngs: nnx.Rngs):
        widths = [config.width * 2**level for level in range(config.depth)]
        self.config = config
        self.down = nnx.List([_Pair(w, o, rngs) for w, o in zip([config.slices, *widths], widths)])
        self.rise = nnx.List([_Upsampling(2 * w, w, rngs) for w in widths[:-1]])
        self.up = nnx.List([_Pair(2 * w, w, rngs) for w in widths[:-1]])
        self.head_kernel = nnx.Param(
            (1.0 / widths[0]) ** 0.5 * jax.random.normal(rngs.params(), (widths[0], config.classes))
        )
        self.head_bias = nnx.Param(jnp.zeros(config.classes))

    def __call__(self, images: Float[Array, "b h w *slices"]) -> Float[Array, "b h w classes"]:
        if any(side % self.config.multiple for side in images.shape[1:3]):
            raise ValueError(f"UNet: sides must be multiples of {self.config.multiple}, got {images.shape}")
        if images.ndim == 4 and images.shape[3] != self.config.slices:
            raise ValueError(f"UNet: expected stacks of {self.config.slices} slices, got {images.shape}")
        alone = images.ndim == 3
        x = jnp.broadcast_to(images[..., None], (*images.shape, self.config.slices)) if alone else images
        skips = []
        for level, pair in enumerate(self.down):
            x = pair(x)
            if level + 1 < self.config.depth:
                skips.append(x)
                x = max_pool2(x)
        for level in reversed(range(self.config.depth - 1)):
            x = self.up[level](jnp.concatenate([skips[level], self.rise[level](x)], -1))
        return _biased(x @ self.head_kernel[...].astype(x.dtype), self.head_bias)


def dice_per_class(
    probabilities: Float[Array, "n classes"], labels: Int[Array, " n"], mask: Bool[Array, " n"] | None = None
) -> Float[Array, " classes"]:
    """Dice-Sorensen coefficient of each class (paper, equation 8); 1 where a class is absent from both.

    With probabilities in place of a decision it is the smooth form used as a loss. One is added above and below the line, so
    that an empty class has a value.

    Arguments:
        probabilities: of each class at each pixel, or a decision as 0 and 1.
        labels: 0 to classes - 1.
        mask: pixels that count; all when None. What the others hold, NaN included, matters neither to value nor gradient.
    """
    truth = jax.nn.one_hot(labels, probabilities.shape[-1], dtype=probabilities.dtype)
    if mask is not None:
        probabilities = jnp.where(mask[:, None], probabilities, 0.0)
        truth = jnp.where(mask[:, None], truth, 0.0)
    overlap = 2.0 * jnp.sum(probabilities * truth, 0) + 1.0
    return overlap / (jnp.sum(probabilities, 0) + jnp.sum(truth, 0) + 1.0)


def segmentation_loss(
    logits: Float[Array, "b h w classes"], labels: Int[Array, "b h w"], mask: Bool[Array, "b h w"] | None = None
) -> Float[Array, ""]:
    """Mean cross-entropy plus one minus the mean soft Dice coefficient over classes, pooled over the batch.

    Arguments:
        logits: of each class at each pixel.
        labels: 0 to classes - 1.
        mask: pixels that count; all when None. What the others hold, NaN included, matters neither to value nor gradient.
            Where it leaves nothing the loss is 0.
    """
    flat_mask = None
    if mask is not None:
        flat_mask = mask.reshape(-1)
        logits, labels = jnp.where(mask[..., None], logits, 0.0), jnp.where(mask, labels, 0)
    log_p = jax.nn.log_softmax(logits).reshape(-1, logits.shape[-1])
    flat = labels.reshape(-1)
    of_truth = jnp.take_along_axis(log_p, flat[:, None], 1)[:, 0]
    if flat_mask is None:
        cross_entropy = -jnp.mean(of_truth)
    else:
        count = jnp.maximum(jnp.sum(flat_mask), 1).astype(logits.dtype)
        cross_entropy = -jnp.sum(jnp.where(flat_mask, of_truth, 0.0)) / count
    return cross_entropy + 1.0 - jnp.mean(dice_per_class(jnp.exp(log_p), flat, flat_mask))
