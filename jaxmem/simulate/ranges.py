"""The ranges from which training slices are drawn: wide ones, or those of a tomogram."""

from dataclasses import dataclass, field, replace
from typing import TypeAlias

import jax
import numpy as np

from jaxmem.simulate.noise import NoiseSpectrum
from jaxmem.simulate.profile import MembraneProfile
from jaxmem.types import Scalar

Range: TypeAlias = tuple[Scalar, Scalar]
"""Smallest and largest."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SliceModel:
    """Ranges from which a training slice is drawn; every pair is (smallest, largest).

    A pytree: one compiled program serves all ranges; another `size` or `visible_pixels`, or a profile or noise of another
    length, needs another one.

    Lengths in A are divided by `pixel_size`; lengths named `_pixels` are in pixels. `contrast` is the depth of a leaflet
    over the standard deviation of the noise once smoothed by one pixel. A membrane is labelled where it can be seen: where an
    ideal observer who looks at a piece of it under a window of `visible_pixels` has an index d' above `visible` (see
    `detectability`); gaps, and what the missing wedge or a blurred slope hides, are background. The defaults cover bilayers at
    10-18 A per pixel with the contrast and the noise of tomograms from weakly to well visible. `profile` and `noise` are
    empty for these ranges, or hold what was measured in a tomogram (see `matched`): the density at distances 0, 1/4, 1/2, ...
    pixels from the mid-surface, -1 where darkest; and the noise's power at frequencies 1/(4n), 3/(4n), ... cycles per pixel.

    Example:
        >>> SliceModel(size=64).pixel_size
        14.0
    """

    size: int = field(default=192, metadata={"static": True})
    pixel_size: Scalar = 14.0
    radius_pixels: Range = (9.0, 75.0)
    sheet_radius_pixels: Range = (75.0, 400.0)
    sheet_fraction: Scalar = 0.12
    nested_fraction: Scalar = 0.35
    double_fraction: Scalar = 0.15
    double_gap: Range = (90.0, 260.0)
    aspect: Range = (0.6, 1.0)
    deformation: Scalar = 0.09
    elastic_pixels: Range = (0.0, 4.0)
    leaflet_distance: Range = (26.0, 46.0)
    leaflet_sigma: Range = (8.0, 16.0)
    membrane_thickness: Scalar = 50.0
    z_blur: Scalar = 28.0
    tilt_range: Range = (50.0, 65.0)
    contrast: Range = (2.5, 15.0)
    visible: Scalar = 3.0
    visible_pixels: float = field(default=4.0, metadata={"static": True})
    gap_fraction: Scalar = 0.3
    protein_radius: Range = (28.0, 60.0)
    protein_stalk: Range = (50.0, 110.0)
    profile: tuple[Scalar, ...] = ()
    noise: tuple[Scalar, ...] = ()


def matched(
    model: SliceModel,
    profile: MembraneProfile,
    spectrum: NoiseSpectrum,
    contrast: float,
    spread: tuple[float, float] = (0.6, 1.4),
) -> SliceModel:
    """A model whose membranes and noise are those of a tomogram (paper, Section 3 and supplement, Section 1).

    Arguments:
        model: what to keep of shapes, proteins and gaps.
        profile: from `measure_profile`.
        spectrum: from `measure_noise`.
        contrast: the membranes' depth over the standard deviation of the noise smoothed by one pixel.
        spread: contrasts are drawn from so much of the measured one; a slice's membranes vary by 0.7 to 1.2 besides.

    Raises:
        ValueError: if the contrast is not positive: membranes must be darker than the background.
    """
    if not contrast > 0:
        raise ValueError(f"matched: membranes must be darker than the background, got a contrast of {contrast}")
    density, power = np.asarray(profile.density, float), np.asarray(spectrum.radial, float)
    return replace(
        model,
        contrast=(spread[0] * contrast, spread[1] * contrast),
        profile=tuple(np.round(density, 4).tolist()),
        noise=tuple(float(f"{v:.4g}") for v in power / power.max()),
    )
