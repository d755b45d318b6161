"""Analysis by synthesis: from a surface to the tomogram that it would give."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmem.density.bilayer import Bilayer
from jaxmem.numerics import compiled


@compiled
def filtered(volume: Float[Array, "z y x"], gain: Float[Array, "z y half"]) -> Float[Array, "z y x"]:
    """A volume without the waves that were not measured.

    Arguments:
        volume: density.
        gain: what is left of each wave, from `wedge.gain`.
    """
    waves = jnp.fft.rfftn(volume)
    return jnp.fft.irfftn(waves * gain.astype(waves.dtype), volume.shape)


@compiled
def synthesize(
    distance: Float[Array, "z y x"], bilayer: Bilayer, gain: Float[Array, "z y half"]
) -> Float[Array, "z y x"]:
    """The tomogram of a membrane: its density, less what the missing wedge hides.

    Arguments:
        distance: from the membrane's middle, voxels; far away anything beyond the bilayer's reach.
        bilayer: what the membrane looks like across.
        gain: see `filtered`.
    """
    return filtered(bilayer(distance), gain)
