"""Normalisation, filters and rescaling of tomograms before the network sees them (paper, Section 2)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_CLIP = 6.0  # robust standard deviations: gold beads must not rule the scale


def robust_normalise(image: Float[Array, "*shape"], axis: tuple[int, ...] | None = None) -> Float[Array, "*shape"]:
    """Subtract the median, divide by the scaled median absolute deviation, clip to +-6.

    A constant image becomes zero. NaN must be replaced beforehand.

    Arguments:
        image: any shape, real.
        axis: axes to normalise over; all when None. `(1, 2)` treats each slice of a volume by itself.

    Example:
        >>> float(robust_normalise(jnp.ones((4, 4))).max())
        0.0
    """
    middle = jnp.median(image, axis=axis, keepdims=True)
    deviation = 1.4826 * jnp.median(jnp.abs(image - middle), axis=axis, keepdims=True)
    scale = jnp.where(deviation > 0, deviation, jnp.std(image, axis=axis, keepdims=True))
    return jnp.clip((image - middle) / jnp.where(scale > 0, scale, 1.0), -_CLIP, _CLIP)


def gaussian(volume: Float[Array, "*shape"], sigma: tuple[float, ...]) -> Float[Array, "*shape"]:
    """Separable Gaussian filter with mirrored borders.

    Arguments:
        volume: array with as many axes as `sigma` has entries.
        sigma: standard deviation per axis in voxels; 0 leaves an axis alone. Static under jit.

    Raises:
        ValueError: if the number of axes differs from the number of sigmas.
    """
    if volume.ndim != len(sigma):
        raise ValueError(f"gaussian: expected {len(sigma)} axes, got an array of shape {volume.shape}")
    for axis, s in enumerate(sigma):
        if s <= 0 or volume.shape[axis] == 1:
            continue
        reach = min(int(4 * s + 0.5), volume.shape[axis] - 1)
        weights = jnp.exp(-0.5 * (jnp.arange(-reach, reach + 1) / s) ** 2).astype(volume.dtype)
        weights = weights / weights.sum()
        padded = jnp.moveaxis(volume, axis, 0)
        padded = jnp.pad(padded, [(reach, reach)] + [(0, 0)] * (volume.ndim - 1), mode="symmetric")
        n = volume.shape[axis]
        out = sum(weights[i] * padded[i : i + n] for i in range(2 * reach + 1))
        volume = jnp.moveaxis(out, 0, axis)
    return volume


def band_pass(image: Float[Array, "height width"], low: float, high: float) -> Float[Array, "height width"]:
    """Gaussian band-pass of one slice.

    Arguments:
        image: one slice.
        low, high: frequencies in cycles per pixel where the low and the high cut have fallen to exp(-1/2); 0 turns a cut off.
    """
    radius2 = jnp.fft.fftfreq(image.shape[0])[:, None] ** 2 + jnp.fft.rfftfreq(image.shape[1])[None, :] ** 2
    gain = jnp.ones_like(radius2)
    if high > 0:
        gain = gain * jnp.exp(-0.5 * radius2 / high**2)
    if low > 0:
        gain = gain * (1.0 - jnp.exp(-0.5 * radius2 / low**2))
    return jnp.fft.irfft2(jnp.fft.rfft2(image) * gain.astype(image.dtype), image.shape).astype(image.dtype)


def enhance_contrast(image: Float[Array, "height width"], window: float) -> Float[Array, "height width"]:
    """Local normalisation of one slice: subtract the local mean, divide by the local standard deviation.

    Arguments:
        image: one slice.
        window: standard deviation of the Gaussian neighbourhood in pixels.
    """
    mean = gaussian(image, (window, window))
    variance = gaussian((image - mean) ** 2, (window, window))
    floor = 1e-3 * jnp.mean(variance) + jnp.finfo(image.dtype).tiny
    return (image - mean) / jnp.sqrt(variance + floor)


def rescale(volume: Float[Array, "*shape"], shape: tuple[int, ...]) -> Float[Array, "*out"]:
    """Resample a volume to `shape` by (anti-aliased) linear interpolation; voxel centres scale about the volume's corner.

    Voxel i of the output lies at (i + 1/2) * old / new - 1/2 of the input, for every axis.
    """
    return jax.image.resize(volume, shape, "linear", antialias=True)
