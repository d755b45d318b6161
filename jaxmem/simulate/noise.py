"""Noise as back-projection leaves it: drawn at random, or with the power spectrum of a tomogram."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxmem.numerics import safe_sqrt
from jaxmem.preprocess import gaussian, safe_std
from jaxmem.types import Scalar

_NYQUIST = 0.5  # cycles per pixel, the highest frequency that pixels can show
_LEAST = 1e-6  # standard deviation, any units: noise weaker than this is not scaled up any more
_FLOOR = 1e-3  # of a spectrum's highest power, added to every frequency's


class NoiseSpectrum(NamedTuple):
    """Power spectrum of a tomogram's noise: `radial[i]` at spatial frequency `frequency[i]` (cycles per pixel)."""

    frequency: Float[Array, " n"]
    radial: Float[Array, " n"]


def uniform(key: Key[Array, ""], bounds: tuple[Scalar, Scalar], shape: tuple[int, ...] = ()) -> Array:
    """Uniform numbers of some `shape` between two bounds."""
    return jax.random.uniform(key, shape, minval=bounds[0], maxval=bounds[1])


def log_uniform(key: Key[Array, ""], bounds: tuple[Scalar, Scalar]) -> Array:
    """A number whose logarithm is uniform between those of two positive bounds."""
    return jnp.exp(uniform(key, (jnp.log(bounds[0]), jnp.log(bounds[1]))))


def measure_noise(slices: Float[Array, "n height width"], bins: int = 48) -> NoiseSpectrum:
    """Radially averaged power spectrum of background slices.

    Arguments:
        slices: background regions, one per row of the leading axis, any units.
        bins: number of frequencies between 0 and the Nyquist frequency.

    Returns:
        The spectrum, for `matched`, so that the noise of training slices is the tomogram's (paper, supplement, Section 1).

    Raises:
        ValueError: if `slices` is not three-dimensional.
    """
    if slices.ndim != 3:
        raise ValueError(f"measure_noise: expected slices of shape (n, height, width), got {slices.shape}")
    height, width = slices.shape[-2:]
    power = jnp.abs(jnp.fft.fft2(slices - slices.mean(axis=(1, 2), keepdims=True))) ** 2
    power = power.mean(0) / (height * width)
    frequency = jnp.hypot(jnp.fft.fftfreq(height)[:, None], jnp.fft.fftfreq(width)[None, :])
    index = jnp.clip((frequency / _NYQUIST * bins).astype(int), 0, bins - 1).ravel()
    total = jnp.zeros(bins, slices.dtype).at[index].add(power.ravel())
    count = jnp.zeros(bins, slices.dtype).at[index].add(1.0)
    middle = (jnp.arange(bins, dtype=slices.dtype) + 0.5) * _NYQUIST / bins
    return NoiseSpectrum(middle, total / jnp.maximum(count, 1.0))


def noise_power(key: Key[Array, ""], size: int, spectrum: NoiseSpectrum | None = None) -> Float[Array, "size size"]:
    """Power of unit-variance noise at the frequencies of `jnp.fft.fft2`: that of a spectrum, or random.

    Random spectra have a low cut along the direction across the tilt axis (the ramp filter), a Gaussian high cut that differs
    between the two axes, and a little low-frequency power (ice thickness, out-of-focus density).

    Arguments:
        key: random key.
        size: side of the square slice in pixels.
        spectrum: measured spectrum; drawn at random when None.

    Returns:
        The power, in the spectrum's dtype, or JAX's default float.
    """
    keys = jax.random.split(key, 7)
    frequency = jnp.fft.fftfreq(size, dtype=None if spectrum is None else spectrum.frequency.dtype)
    qy, qx = frequency[:, None], frequency[None, :]
    if spectrum is None:
        columns = jax.random.bernoulli(keys[0])
        across, along = jnp.where(columns, qx, qy), jnp.where(columns, qy, qx)
        ramp = 1.0 - uniform(keys[1], (0.0, 1.0)) * jnp.exp(-((across / uniform(keys[2], (0.03, 0.15))) ** 2))
        cut_across, cut_along = uniform(keys[3], (0.12, 0.45)), uniform(keys[4], (0.2, 0.7))
        cut = jnp.exp(-((across / cut_across) ** 2) - (along / cut_along) ** 2)
        radius2 = qx**2 + qy**2
        slow = uniform(keys[5], (0.0, 3.0)) * jnp.exp(-radius2 / uniform(keys[6], (0.01, 0.05)) ** 2)
        power = cut * (ramp + slow)
    else:
        power = jnp.maximum(jnp.interp(jnp.hypot(qx, qy), spectrum.frequency, spectrum.radial), 0.0)
    return power / jnp.maximum(power.mean(), _LEAST**2)


def coloured_noise(key: Key[Array, ""], power: Float[Array, "size size"]) -> Float[Array, "size size"]:
    """Gaussian noise with a power spectrum, scaled to unit variance.

    Arguments:
        key: random key.
        power: at the frequencies of `jnp.fft.fft2`, from `noise_power`.

    Returns:
        One slice of noise with standard deviation 1, in the dtype of `power`; zero if there is no power.

    Its gradient is 0 at frequencies that have no power, where the true one is infinite.
    """
    white = jnp.fft.fft2(jax.random.normal(key, power.shape, power.dtype))
    noise = jnp.fft.ifft2(white * safe_sqrt(power).astype(white.dtype)).real
    return noise / jnp.maximum(safe_std(noise), _LEAST)


def detectability(
    density: Float[Array, "size size"], power: Float[Array, "size size"], window: float
) -> Float[Array, "size size"]:
    """The index d' with which an ideal observer tells a piece of a known signal from noise of a known spectrum.

    d'^2 is the energy of the signal once the filter that makes the noise white has been applied (Barrett & Myers,
    Foundations of Image Science, 2004, Section 13.2.8); here the energy under a Gaussian window around each pixel.

    Arguments:
        density: the signal in units of the noise's standard deviation.
        power: from `noise_power`; more than 0 somewhere.
        window: standard deviation of the window in pixels, its peak 1: a line counts over a length of 2.5 `window`.

    The filter takes the slice to be periodic, as simulated noise is. Where d' is 0 its gradient, which has no direction there,
    is 0.
    """
    floor = _FLOOR * power.max()  # frequencies without noise would count without bound
    spectrum = jnp.fft.fft2(density)
    white = jnp.fft.ifft2(spectrum / jnp.sqrt(power + floor).astype(spectrum.dtype)).real
    energy = gaussian(white**2, (window, window)) * (2 * jnp.pi * window**2)
    return safe_sqrt(energy)
