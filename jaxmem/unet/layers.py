"""The U-Net's operations in the form that XLA runs fastest on a CPU; plain functions on (batch, row, column, channel).

XLA:CPU lowers the textbook gradients badly: a transposed convolution, the weight gradient of a convolution, and the
scatter of max pooling. Each is written here as something it does well; `benchmarks/unet.py` measures them.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Batch = Float[Array, "b h w c"]
_LAYOUT = ("NHWC", "HWIO", "NHWC")  # of images, kernels and results, as `jax.lax.conv_general_dilated` names them


def _convolve(x: Array, kernel: Array) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=_LAYOUT)


@jax.custom_vjp
def conv3x3(x: Batch, kernel: Float[Array, "3 3 c o"]) -> Float[Array, "b h w o"]:
    """3x3 convolution with zero padding.

    The weight gradient is itself a convolution in which batch and channels change places; of image and gradient, the one
    with fewer channels is taken as the kernel's side.
    """
    return _convolve(x, kernel)


def _conv3x3_forward(x, kernel):
    return _convolve(x, kernel), (x, kernel)


def _conv3x3_backward(saved, g):
    x, kernel = saved
    to_input = _convolve(g, kernel[::-1, ::-1].swapaxes(2, 3))
    return to_input, _kernel_gradient(x, g)


def _kernel_gradient(x, g):
    if g.shape[-1] < x.shape[-1]:
        swapped = _correlate(g, x, ("CHWN", "IHWO", "HWCN"))
        return swapped[::-1, ::-1]
    return _correlate(x, g, ("CHWN", "IHWO", "HWNC"))


def _correlate(image, kernel, layout):
    return jax.lax.conv_general_dilated(image, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=layout)


conv3x3.defvjp(_conv3x3_forward, _conv3x3_backward)


@jax.custom_vjp
def stem3x3(x: Float[Array, "b h w"], kernel: Float[Array, "3 3 1 o"]) -> Float[Array, "b h w o"]:
    """3x3 convolution of a single channel, as nine shifted multiples that XLA fuses.

    The gradient with respect to the image is the ordinary one, and costs nothing where it is not asked for.
    """
    height, width = x.shape[1:]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1)))[..., None]
    shifts = [(i, j) for i in range(3) for j in range(3)]
    parts = [padded[:, i : i + height, j : j + width] * kernel[i, j][None, None] for i, j in shifts]
    return functools.reduce(jnp.add, parts)


def _stem_forward(x, kernel):
    return stem3x3(x, kernel), (x, kernel)


def _stem_backward(saved, g):
    x, kernel = saved
    to_input = _convolve(g, kernel[::-1, ::-1].swapaxes(2, 3))[..., 0]
    return to_input, _correlate(x[..., None], g, ("CHWN", "IHWO", "HWNC"))


stem3x3.defvjp(_stem_forward, _stem_backward)


def _quarters(x: Batch) -> tuple[Array, Array, Array, Array]:
    b, h, w, c = x.shape
    y = x.reshape(b, h // 2, 2, w // 2, 2, c)
    return y[:, :, 0, :, 0], y[:, :, 0, :, 1], y[:, :, 1, :, 0], y[:, :, 1, :, 1]


@jax.custom_vjp
def max_pool2(x: Batch) -> Float[Array, "b h2 w2 c"]:
    """2x2 max pooling; the gradient goes to the first of equal maxima, without a scatter.

    Raises:
        ValueError: at trace, if a side is odd.
    """
    if x.shape[1] % 2 or x.shape[2] % 2:
        raise ValueError(f"max_pool2: sides must be even, got {x.shape}")
    a, b, c, d = _quarters(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _max_pool2_forward(x):
    y = max_pool2(x)
    return y, (x, y)


def _max_pool2_backward(saved, g):
    x, y = saved
    a, b, c, d = (quarter == y for quarter in _quarters(x))
    first = jnp.stack([a, b & ~a, c & ~(a | b), d & ~(a | b | c)], 3)  # b h w 4 c
    n, h, w, _, channels = first.shape
    first = first.reshape(n, h, w, 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return (jnp.where(first, g[:, :, None, :, None], 0).reshape(x.shape),)


max_pool2.defvjp(_max_pool2_forward, _max_pool2_backward)


def upsample2(x: Batch, kernel: Float[Array, "c o4"]) -> Float[Array, "b h2 w2 o"]:
    """2x2 transposed convolution of stride 2, as a matrix product and a reshape; `kernel` has 4 columns per output channel."""
    b, h, w, c = x.shape
    out = kernel.shape[1] // 4
    y = (x.reshape(-1, c) @ kernel).reshape(b, h, w, 2, 2, out)
    return y.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, out)
