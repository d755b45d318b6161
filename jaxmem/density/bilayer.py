"""What a membrane looks like across, where nothing of it is missing: density as a function of the distance from its middle."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmem.numerics import compiled
from jaxmem.types import Scalar

STEP = 0.25  # voxels between a table's entries
_FINE, _SHIFTS = 0.1, 15  # voxels between the places where a profile's middle is sought, and how many to each side
_SPACING = 36.0  # A; of the leaflets' middles
_WIDTH = 9.0  # A; of each, blurred as an average transfer does; by hand


class Bilayer(eqx.Module):
    """A function of the signed distance from the membrane's middle, 0 far away; a table, interpolated by cubics.

    Attributes:
        values: every `STEP` voxels, the middle one at the membrane's middle; the first and the last are 0.
    """

    values: Float[Array, " n"]

    def __call__(self, distance: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Density at distances from the middle, voxels; positive on the side to which normals point."""
        n = len(self.values)
        place = jnp.clip(distance / STEP + (n - 1) / 2, 0.0, n - 1.0)
        i = jnp.clip(jnp.floor(place).astype(int), 0, n - 2)
        t = place - i.astype(place.dtype)
        before, here, there, after = (self.values[jnp.clip(j, 0, n - 1)] for j in (i - 1, i, i + 1, i + 2))
        rise, next_rise = 0.5 * (there - before), 0.5 * (after - here)
        jump = here - there
        return here + t * (rise + t * (-3.0 * jump - 2.0 * rise - next_rise + t * (2.0 * jump + rise + next_rise)))

    @property
    def reach(self) -> float:
        """Distance from which on the density is 0, voxels."""
        return STEP * (len(self.values) - 1) / 2


def two_leaflets(voxel_size: Scalar, reach: float, spacing: Scalar = _SPACING, width: Scalar = _WIDTH) -> Bilayer:
    """Two dark Gaussian leaflets, 1 deep together: for tomograms that show too little of a membrane to learn from.

    Arguments:
        voxel_size: A.
        reach: of the table, voxels.
        spacing: of the leaflets' middles, A.
        width: standard deviation of each, A.
    """
    t = _table(reach) * voxel_size

    def leaflet(middle):
        return jnp.exp(-0.5 * ((t - middle) / width) ** 2)

    both = leaflet(0.5 * spacing) + leaflet(-0.5 * spacing)
    return Bilayer(-both / both.max() * _taper(reach))


@compiled(static=("reach",))
def learn_bilayer(
    profile: Float[Array, " t"], offsets: Float[Array, " t"], reach: float
) -> tuple[Bilayer, Float[Array, ""]]:
    """The bilayer of a mean profile along the normal, and where on the profile its middle is.

    A membrane's two sides differ in what lies beside it; the bilayer itself is taken to be even about its middle, which is where the
    profile is most like its mirror image. The density far away is 0.

    Arguments:
        profile: mean density at each offset.
        offsets: along the normal, voxels, evenly spaced about 0, some voxels beyond `reach`.
        reach: of the bilayer, voxels; static under jit.

    Returns:
        The bilayer, and its middle in voxels along the normal: within 1.5 voxels of 0. Differentiable in the profile, but for the choice of the
        tenth of a voxel about which the middle is refined.
    """
    left, right = (jnp.where(far, profile, 0.0) for far in (offsets < 1.0 - reach, offsets > reach - 1.0))
    many = jnp.maximum(jnp.sum((offsets > reach - 1.0).astype(profile.dtype)), 1.0)
    left, right = left.sum() / many, right.sum() / many
    level = profile - 0.5 * (left + right) - 0.5 * (right - left) * jnp.clip(offsets / reach, -1.0, 1.0)
    t = _table(reach).astype(profile.dtype)

    def at(x):
        return jnp.interp(x, offsets, level)

    tried = _FINE * jnp.arange(-_SHIFTS, _SHIFTS + 1, dtype=profile.dtype)
    unlike = jax.vmap(lambda c: jnp.sum((at(c + t) - at(c - t)) ** 2))(tried)
    i = jnp.clip(jnp.argmin(unlike), 1, len(tried) - 2)
    before, here, after = unlike[i - 1], unlike[i], unlike[i + 1]
    bend = before - 2.0 * here + after
    middle = tried[i] + jnp.where(bend > 0, 0.5 * _FINE * (before - after) / jnp.where(bend > 0, bend, 1.0), 0.0)
    return Bilayer(at(middle + t) * _taper(reach).astype(profile.dtype)), middle


def _table(reach: float) -> Array:
    """Distances of the entries, voxels."""
    n = int(np.ceil(reach / STEP))
    return STEP * jnp.arange(-n, n + 1, dtype=float)


def _taper(reach: float) -> Array:
    """1 inside, falling to 0 over the last voxel and a half."""
    return jnp.clip((reach - jnp.abs(_table(reach))) / 1.5, 0.0, 1.0)
