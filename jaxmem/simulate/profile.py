"""How a membrane's density falls off to both sides of its mid-surface: as a bilayer model, or as measured in a tomogram."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

STEP = 0.25  # pixels between the samples of a profile: the thinnest leaflet (8 A at 18 A per pixel) has a sigma of nearly two
_FRINGE = 2.2  # leaflet sigmas beyond the leaflets at which the bright fringe has a sigma of its own; a choice
_FADED = 0.25  # of a profile's reach over which it falls to 0, so that it ends without an edge
_NARROWEST = 0.4  # steps: a Gaussian of a smaller sigma than this cannot be told from a sample


class MembraneProfile(NamedTuple):
    """Density across a membrane, both sides averaged.

    Attributes:
        density: (n,) at distances 0, `STEP`, 2 `STEP`, ... pixels from the mid-surface; 0 in the background, -1 where darkest.
        depth: darkest density below the background, in the units it was measured in.
    """

    density: Float[Array, " n"]
    depth: Float[Array, ""]


def bilayer(distance: Array, half: Array, sigma: Array, fringe: Array) -> Array:
    """Two dark leaflets at +-`half` with the bright fringe of underfocus around them; about -1 on a leaflet.

    `distance`, `half` (from the mid-surface to a leaflet) and `sigma` (of a leaflet, above 0) share one unit of length; `fringe`
    is the fringe's height. They broadcast against one another.
    """
    leaflets = jnp.exp(-0.5 * ((distance - half) / sigma) ** 2) + jnp.exp(-0.5 * ((distance + half) / sigma) ** 2)
    halo = jnp.exp(-0.5 * (distance / (half + _FRINGE * sigma)) ** 2)
    return -leaflets + fringe * halo


def measure_profile(
    values: Float[Array, " n"], distance: Float[Array, " n"], background: Float[Array, ""], reach: float = 8.0
) -> MembraneProfile:
    """Mean density as a function of the distance from known membranes (paper, supplement, Section 1).

    Bins are triangular, one `STEP` to each side, so that neighbouring samples agree as much as a linear interpolation does.

    Arguments:
        values: intensities of pixels near membranes, darker there than elsewhere.
        distance: their distances from the mid-surface, pixels; the sign is ignored.
        background: mean intensity far from membranes.
        reach: the profile is faded to 0 over the last quarter of this distance.

    Returns:
        The profile. Its `depth` is 0, and its density zero, where membranes are not darker than the background.

    Example:
        >>> d = jnp.linspace(-8.0, 8.0, 2001)
        >>> measured = measure_profile(5.0 - 2.0 * jnp.exp(-(d**2)), d, jnp.array(5.0))
        >>> round(float(measured.depth), 1), round(float(measured.density[0]), 2)
        (2.0, -1.0)
    """
    n = int(reach / STEP) + 1
    values, background = values.astype(distance.dtype), background.astype(distance.dtype)
    sample = jnp.arange(n, dtype=distance.dtype)
    place = jnp.abs(distance) / STEP
    weight = jnp.maximum(1.0 - jnp.abs(place[:, None] - sample[None]), 0.0)
    total = weight.sum(0)
    mean = (weight * (values - background)[:, None]).sum(0) / jnp.maximum(total, 1e-9)
    mean = jnp.where(total > 0, mean, 0.0)
    fade = jnp.clip((n - 1 - sample) / (_FADED * (n - 1)), 0.0, 1.0)
    mean = mean * fade
    depth = jnp.maximum(-mean.min(), 0.0)
    return MembraneProfile(jnp.where(depth > 0, mean / jnp.where(depth > 0, depth, 1.0), 0.0), depth)


def blurred(density: Float[Array, " n"], sigma: Float[Array, ""]) -> Float[Array, " n"]:
    """A profile convolved with a Gaussian of standard deviation `sigma` pixels (mirrored at 0, zero beyond its end).

    Below `0.4 STEP` the width no longer follows `sigma`, and its gradient is 0.
    """
    n = density.shape[0]
    node = jnp.arange(n, dtype=density.dtype) * STEP
    width = jnp.maximum(sigma.astype(density.dtype), _NARROWEST * STEP)
    kernel = jnp.exp(-0.5 * ((node[:, None] - node[None]) / width) ** 2)
    mirror = jnp.exp(-0.5 * ((node[:, None] + node[None]) / width) ** 2)
    kernel = kernel + jnp.where(node[None] > 0, mirror, 0.0)  # the sample at 0 is its own mirror image
    comb = jnp.exp(-0.5 * (node[1:] / width) ** 2)  # the samples' own sum: right for narrow Gaussians too
    return kernel @ density / (1.0 + 2.0 * comb.sum())


def sampled(density: Float[Array, " n"], distance: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """A profile at any distances in pixels, by linear interpolation; 0 beyond its end.

    Its slope is that of the straight piece a distance lies on, 0 at the mid-surface, where the two sides meet.
    """
    distance = distance.astype(density.dtype)
    place = jnp.abs(distance) / STEP
    low = jnp.clip(place.astype(int), 0, density.shape[0] - 2)
    t = jnp.clip(place - low.astype(place.dtype), 0.0, 1.0)
    inside = place <= density.shape[0] - 1
    return jnp.where(inside, (1 - t) * density[low] + t * density[low + 1], 0.0)
