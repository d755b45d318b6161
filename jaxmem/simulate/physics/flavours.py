"""Flavours of a tomogram: how strong its noise is, and what people do to it before they look for membranes."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxmem.numerics import compiled
from jaxmem.preprocess import normalised_stack
from jaxmem.simulate.noise import log_uniform, uniform
from jaxmem.simulate.ranges import Range

_BINS = 24  # of frequencies whose gains are drawn
_ROUNDS = 6  # of diffusion; a choice: it then smooths over about two pixels


@dataclass(frozen=True)
class FlavourModel:
    """Ranges and shares of the flavours.

    Attributes:
        snr: of a projection, variance of the signal over that of the noise.
        denoised: share of the slices most of whose noise was taken away.
        left: of the noise of those.
        noise_blur: of what is left, standard deviation in pixels.
        blurred: share of the slices that are low-passed.
        blur: by a Gaussian of such a standard deviation, pixels.
        reweighted: share of the slices whose amplitudes at each frequency were changed, by a filter or a deconvolution.
        step, slope: of the logarithm of the gain: of each of its random steps, and over all of them.
        diffused: share of the denoised slices that were smoothed where they are flat (Perona & Malik 1990).
        clipped: share of the slices stored in eight bits.
        clip: of those, largest grey value in standard deviations.
    """

    snr: Range = (0.012, 0.6)
    denoised: float = 0.25
    left: Range = (0.03, 0.4)
    noise_blur: Range = (0.5, 1.8)
    blurred: float = 0.4
    blur: Range = (0.3, 1.4)
    reweighted: float = 0.5
    step: float = 0.12
    slope: Range = (-1.2, 1.2)
    diffused: float = 0.4
    clipped: float = 0.3
    clip: Range = (2.5, 6.0)


def _gain(key: Key[Array, ""], model: FlavourModel, frequency: Array) -> Array:
    """Gain at each frequency: low-passed and reweighted, or neither."""
    k = jax.random.split(key, 5)
    sigma = jnp.where(jax.random.bernoulli(k[0], model.blurred), uniform(k[1], model.blur), 0.0)
    walk = jnp.cumsum(model.step * jax.random.normal(k[2], (_BINS,)))
    walk = walk + jnp.linspace(0.0, 1.0, _BINS) * uniform(k[3], model.slope)
    chosen = jax.random.bernoulli(k[4], model.reweighted)
    logs = jnp.interp(frequency, jnp.linspace(0.0, 0.7, _BINS), jnp.where(chosen, walk, 0.0))
    return jnp.exp(logs - 2.0 * (jnp.pi * sigma * frequency) ** 2)


def _diffused(image: Float[Array, "h w slices"], edge: Array) -> Float[Array, "h w slices"]:
    """An image smoothed where it varies by less than `edge` from pixel to pixel (Perona & Malik 1990, IEEE Trans. PAMI 12, 629)."""

    def step(_, image):
        flow = jnp.zeros_like(image)
        for axis in (0, 1):
            for shift in (-1, 1):
                change = jnp.roll(image, shift, axis) - image
                flow = flow + change * jnp.exp(-((change / edge) ** 2))
        return image + 0.2 * flow

    return jax.lax.fori_loop(0, _ROUNDS, step, image)


@compiled(static=("model",))
def flavoured(
    key: Key[Array, ""], signal: Float[Array, "h w slices"], noise: Float[Array, "h w slices"], model: FlavourModel
) -> Float[Array, "h w slices"]:
    """Neighbouring slices of one tomogram in a random flavour, normalised together by the middle one.

    Arguments:
        key: random key.
        signal, noise: of a `PhysicalTomogram`.
        model: ranges; static under jit, so that nothing here is differentiated.
    """
    k = jax.random.split(key, 10)
    strength = 1.0 / jnp.sqrt(log_uniform(k[0], model.snr))
    denoised = jax.random.bernoulli(k[1], model.denoised)
    strength = strength * jnp.where(denoised, log_uniform(k[2], model.left), 1.0)
    height, width = signal.shape[:2]
    frequency = jnp.hypot(jnp.fft.fftfreq(height)[:, None], jnp.fft.rfftfreq(width)[None])
    blur = jnp.where(denoised, uniform(k[3], model.noise_blur), 0.0)
    soft = jnp.exp(-2.0 * (jnp.pi * blur * frequency) ** 2)
    gain = _gain(k[4], model, frequency)
    clear, static = (jnp.fft.rfft2(a, axes=(0, 1)) for a in (signal, noise))
    kept, left = ((gain * share)[..., None].astype(clear.dtype) for share in (jnp.ones(()), strength * soft))
    image = jnp.fft.irfft2(kept * clear + left * static, (height, width), axes=(0, 1))
    middle = image[..., image.shape[-1] // 2]
    spread = jnp.maximum(middle.std(), 1e-6)
    smooth = denoised & jax.random.bernoulli(k[5], model.diffused)
    image = jnp.where(smooth, _diffused(image, uniform(k[6], (0.3, 1.5)) * spread), image)
    top = uniform(k[7], model.clip) * spread
    bytes_ = jnp.round(jnp.clip((image - middle.mean()) / top, -1.0, 1.0) * 127.0)
    image = jnp.where(jax.random.bernoulli(k[8], model.clipped), bytes_, image)
    return normalised_stack(image)
