"""Noise as back-projection leaves it: drawn at random, or with the power spectrum of a tomogram."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


class NoiseSpectrum(NamedTuple):
    """Power spectrum of a tomogram's noise: `radial[i]` at spatial frequency `frequency[i]` (cycles per pixel)."""

    frequency: Float[Array, " n"]
    radial: Float[Array, " n"]


def uniform(key: Key[Array, ""], bounds: tuple[float, float], shape: tuple[int, ...] = ()) -> Array:
    """Uniform numbers between two bounds."""
    return jax.random.uniform(key, shape, minval=bounds[0], maxval=bounds[1])


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
    index = jnp.clip((frequency / 0.5 * bins).astype(int), 0, bins - 1).ravel()
    total = jnp.zeros(bins, slices.dtype).at[index].add(power.ravel())
    count = jnp.zeros(bins, slices.dtype).at[index].add(1.0)
    return NoiseSpectrum((jnp.arange(bins) + 0.5).astype(slices.dtype) * 0.5 / bins, total / jnp.maximum(count, 1))


def coloured_noise(key: Key[Array, ""], size: int, spectrum: NoiseSpectrum | None = None) -> Float[Array, "size size"]:
    """Gaussian noise of unit variance, coloured by `spectrum` or by a random spectrum typical of back-projected slices.

    The random spectrum has a low cut along the direction across the tilt axis (the ramp filter), a Gaussian high cut
    that differs between the two axes, and a little low-frequency power (ice thickness, out-of-focus density).

    Arguments:
        key: random key.
        size: side of the square slice in pixels.
        spectrum: measured spectrum; drawn at random when None.

    Returns:
        One slice of noise with standard deviation 1.
    """
    keys = jax.random.split(key, 8)
    qy, qx = jnp.fft.fftfreq(size)[:, None], jnp.fft.fftfreq(size)[None, :]
    if spectrum is None:
        across = jnp.where(jax.random.bernoulli(keys[0]), qx, qy)
        along = jnp.where(jax.random.bernoulli(keys[0]), qy, qx)
        ramp = 1.0 - uniform(keys[1], (0.0, 1.0)) * jnp.exp(-((across / uniform(keys[2], (0.03, 0.15))) ** 2))
        cut_across, cut_along = uniform(keys[3], (0.12, 0.45)), uniform(keys[4], (0.2, 0.7))
        cut = jnp.exp(-((across / cut_across) ** 2) - (along / cut_along) ** 2)
        radius2 = qx**2 + qy**2
        slow = uniform(keys[5], (0.0, 3.0)) * jnp.exp(-radius2 / uniform(keys[6], (0.01, 0.05)) ** 2)
        power = cut * (ramp + slow)
    else:
        power = jnp.interp(jnp.hypot(qx, qy), spectrum.frequency, spectrum.radial)
    white = jax.random.normal(keys[7], (size, size))
    noise = jnp.fft.ifft2(jnp.fft.fft2(white) * jnp.sqrt(jnp.maximum(power, 0.0))).real
    return noise / jnp.maximum(noise.std(), 1e-6)
