"""Normalisation, filters and rescaling of tomograms before the network sees them (paper, Section 2)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmem.numerics import safe_sqrt

_CLIP = 6.0  # robust standard deviations: gold beads must not rule the scale
_MAD = 1.4826  # standard deviation of a normal density over its median absolute deviation, 1 / Phi^-1(3/4)
_REACH = 4.0  # standard deviations to which a Gaussian filter goes, as in scipy.ndimage
_QUIET = 1e-3  # of the mean variance, added to the local one, so that empty places are not blown up
_FLAT = 100.0  # squared rounding errors that an image must vary by; constant ones, filtered in float32, did by up to 34


def safe_std(
    image: Float[Array, "*shape"], axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> Float[Array, "*out"]:
    """Standard deviation, as `jnp.std` with its `axis` and `keepdims`, whose gradient at a constant array is zero, not NaN."""
    return safe_sqrt(jnp.var(image, axis=axis, keepdims=keepdims))


def robust_normalise(image: Float[Array, "*shape"], axis: tuple[int, ...] | None = None) -> Float[Array, "*shape"]:
    """Subtract the median, divide by the scaled median absolute deviation, clip to +-6.

    A constant image becomes zero, and its gradient is that of the image less its median. NaN must be replaced beforehand.

    Arguments:
        image: any shape, real.
        axis: axes to normalise over; all when None. `(1, 2)` treats each slice of a volume by itself.

    Example:
        >>> float(robust_normalise(jnp.ones((4, 4))).max())
        0.0
    """
    middle, scale = _middle_and_scale(image, axis)
    return jnp.clip((image - middle) / scale, -_CLIP, _CLIP)


def _middle_and_scale(image: Array, axis: tuple[int, ...] | None) -> tuple[Array, Array]:
    """Median and scaled median absolute deviation, with the axes kept; where that is 0 the standard deviation, of a constant 1."""
    middle = jnp.median(image, axis=axis, keepdims=True)
    deviation = _MAD * jnp.median(jnp.abs(image - middle), axis=axis, keepdims=True)
    varies = jnp.any(image != middle, axis=axis, keepdims=True)
    scale = jnp.where(deviation > 0, deviation, jnp.where(varies, safe_std(image, axis, keepdims=True), 1.0))
    return middle, jnp.where(scale > 0, scale, 1.0)


def normalised_stack(stack: Float[Array, "height width slices"]) -> Float[Array, "height width slices"]:
    """Neighbouring slices normalised together: as `robust_normalise` would the middle one.

    Arguments:
        stack: an odd number of slices, real, without NaN.
    """
    of = stack.shape[-1] // 2
    middle, scale = _middle_and_scale(stack[..., of : of + 1], None)
    return jnp.clip((stack - middle) / scale, -_CLIP, _CLIP)


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
        reach = min(int(_REACH * s + 0.5), volume.shape[axis] - 1)
        weights = jnp.exp(-0.5 * (jnp.arange(-reach, reach + 1, dtype=volume.dtype) / s) ** 2)
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
    spectrum = jnp.fft.rfft2(image)
    return jnp.fft.irfft2(spectrum * gain.astype(spectrum.dtype), image.shape).astype(image.dtype)


def enhance_contrast(image: Float[Array, "height width"], window: float) -> Float[Array, "height width"]:
    """Local normalisation of one slice: subtract the local mean, divide by the local standard deviation.

    Arguments:
        image: one slice.
        window: standard deviation of the Gaussian neighbourhood in pixels.

    What varies by rounding errors alone counts as constant: it becomes zero up to those errors, and its gradient is that of
    the image less its local mean.
    """
    mean = gaussian(image, (window, window))
    variance = gaussian((image - mean) ** 2, (window, window))
    average = jnp.mean(variance)
    varies = average > _FLAT * jnp.finfo(image.dtype).eps ** 2 * jnp.mean(image**2)
    scale = jnp.sqrt(jnp.where(varies, variance + _QUIET * average, 1.0))
    return (image - mean) / scale


def rescale(volume: Float[Array, "*shape"], shape: tuple[int, ...]) -> Float[Array, "*out"]:
    """Resample a volume to `shape` by (anti-aliased) linear interpolation; voxel centres scale about the volume's corner.

    Voxel i of the output lies at (i + 1/2) * old / new - 1/2 of the input, for every axis.
    """
    return jax.image.resize(volume, shape, "linear", antialias=True)
