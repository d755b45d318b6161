"""Simulated training slices: membranes, proteins and noise drawn from geometry alone (paper, Section 3).

A slice is built from closed curves (ellipses with a few Fourier harmonics, some nested, some double), each the cut of a
membrane through a plane of constant z. The bilayer profile is a function of the distance to the membrane's mid-surface;
how strongly it shows depends on the direction of its normal, because the Fourier transform of a flat piece of membrane
lies on one line and that line is either inside the missing wedge or outside it.
"""

import functools
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxmem.numerics import compiled, safe_norm
from jaxmem.preprocess import gaussian, robust_normalise
from jaxmem.simulate.noise import NoiseSpectrum, coloured_noise, detectability, log_uniform, noise_power, uniform
from jaxmem.simulate.profile import MembraneProfile, bilayer, blurred, sampled
from jaxmem.types import BACKGROUND, MEMBRANE, PROTEIN, Scalar

_CURVES = 10  # candidate membranes per slice; those that would cross another are dropped
_DISCS = 28  # candidate proteins per slice
_BEADS = 3  # candidate gold beads per slice
_Range = tuple[Scalar, Scalar]


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
    radius_pixels: _Range = (9.0, 75.0)
    sheet_radius_pixels: _Range = (75.0, 400.0)
    sheet_fraction: Scalar = 0.12
    nested_fraction: Scalar = 0.35
    double_fraction: Scalar = 0.15
    double_gap: _Range = (90.0, 260.0)
    aspect: _Range = (0.6, 1.0)
    deformation: Scalar = 0.09
    elastic_pixels: _Range = (0.0, 4.0)
    leaflet_distance: _Range = (26.0, 46.0)
    leaflet_sigma: _Range = (8.0, 16.0)
    membrane_thickness: Scalar = 50.0
    z_blur: Scalar = 28.0
    tilt_range: _Range = (50.0, 65.0)
    contrast: _Range = (2.5, 15.0)
    visible: Scalar = 3.0
    visible_pixels: float = field(default=4.0, metadata={"static": True})
    gap_fraction: Scalar = 0.3
    protein_radius: _Range = (28.0, 60.0)
    protein_stalk: _Range = (50.0, 110.0)
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


class _Curve(NamedTuple):
    centre: Float[Array, " 2"]
    radius: Float[Array, ""]
    aspect: Float[Array, ""]
    angle: Float[Array, ""]
    harmonics: Float[Array, "4 2"]


def _draw_curve(key: Key[Array, ""], model: SliceModel, hosts: _Curve, accepted: Array) -> _Curve:
    """A candidate membrane; with `nested_fraction`, inside one of the accepted `hosts`."""
    keys = jax.random.split(key, 11)
    sheet = jax.random.bernoulli(keys[0], model.sheet_fraction)
    radius = jnp.where(
        sheet, log_uniform(keys[1], model.sheet_radius_pixels), log_uniform(keys[1], model.radius_pixels)
    )
    free = uniform(keys[2], (-0.15, 1.15), (2,)) * model.size
    # a sheet's centre lies so far out that its circumference passes through the slice
    towards = free - model.size / 2 + 1e-3
    far = model.size * uniform(keys[3], (0.2, 0.8), (2,)) + radius * towards / safe_norm(towards)
    weights = jnp.where(accepted, 1.0, 1e-6)
    host = jax.random.categorical(keys[4], jnp.log(weights))
    nested = jax.random.bernoulli(keys[5], model.nested_fraction) & accepted.any() & ~sheet
    inner = jnp.clip(hosts.radius[host] * uniform(keys[6], (0.3, 0.8)), model.radius_pixels[0] * 0.8)
    centre = jnp.where(sheet, far, jnp.where(nested, hosts.centre[host] + uniform(keys[7], (-6.0, 6.0), (2,)), free))
    order = jnp.arange(2, 6)[:, None]
    draw = jax.random.normal(keys[8], (4, 2)) * model.deformation / order
    aspect = uniform(keys[9], model.aspect)
    return _Curve(
        centre,
        jnp.where(nested, inner, radius),
        jnp.where(nested, 0.5 + 0.5 * aspect, aspect),
        uniform(keys[10], (0.0, jnp.pi)),
        draw,
    )


def _place(key: Key[Array, ""], model: SliceModel) -> tuple[_Curve, Array]:
    """Draw candidates one by one and keep those that neither cross nor touch the ones before (enclosing circles)."""
    blank = _Curve(
        jnp.zeros((_CURVES, 2)), jnp.ones(_CURVES), jnp.ones(_CURVES), jnp.zeros(_CURVES), jnp.zeros((_CURVES, 4, 2))
    )

    def step(i, state):
        curves, accepted = state
        new = _draw_curve(jax.random.fold_in(key, i), model, curves, accepted)
        distance = safe_norm(curves.centre - new.centre)
        outer, inner = 1.15, new.aspect * 0.85
        apart = distance > outer * (curves.radius + new.radius)
        inside = distance + outer * new.radius < curves.radius * curves.aspect * 0.9
        around = distance + outer * curves.radius < new.radius * inner
        keep = jnp.all(apart | inside | around | ~accepted) & (
            jax.random.uniform(jax.random.fold_in(key, -i - 1)) < 0.8
        )
        curves = jax.tree.map(lambda all_, one: all_.at[i].set(one), curves, new)
        return curves, accepted.at[i].set(keep)

    return jax.lax.fori_loop(0, _CURVES, step, (blank, jnp.zeros(_CURVES, bool)))


def _level(curve: _Curve, points: Float[Array, "... 2"]) -> tuple[Array, Array]:
    """Level function of a deformed ellipse (negative inside, in pixels) and the polar angle, at `points` (row, column)."""
    offset = points - curve.centre
    cos, sin = jnp.cos(curve.angle), jnp.sin(curve.angle)
    u = offset[..., 1] * cos + offset[..., 0] * sin
    v = (offset[..., 0] * cos - offset[..., 1] * sin) / curve.aspect
    angle = jnp.arctan2(v, u + 1e-6)
    order = jnp.arange(2, 6)
    wave = curve.harmonics[:, 0] * jnp.cos(order * angle[..., None]) + curve.harmonics[:, 1] * jnp.sin(
        order * angle[..., None]
    )
    return jnp.sqrt(u**2 + v**2 + 1e-6) - curve.radius * (1.0 + wave.sum(-1)), angle


def _cross_section(key: Key[Array, ""], model: SliceModel, spread: Array):
    """The density across a membrane as a function of distance, blurred by `spread` pixels."""
    if model.profile:
        density = blurred(jnp.array(model.profile, jnp.float32), spread)
        return functools.partial(sampled, density)
    keys = jax.random.split(key, 3)
    half = 0.5 * uniform(keys[0], model.leaflet_distance) / model.pixel_size
    sigma = uniform(keys[1], model.leaflet_sigma) / model.pixel_size
    blur = jnp.sqrt(sigma**2 + spread**2)
    fringe = uniform(keys[2], (0.0, 0.5))
    return lambda distance: sigma / blur * bilayer(distance, half, blur, fringe)


def _membrane(
    key: Key[Array, ""], model: SliceModel, curve: _Curve, points: Array, wedge: tuple[Array, Array], contrast: Array
):
    """Density, extent, and level function of one membrane over the slice."""
    keys = jax.random.split(key, 10)
    level, angle = _level(curve, points)
    slope_y, slope_x = jnp.gradient(level)
    slope = jnp.sqrt(slope_y**2 + slope_x**2 + 1e-6)
    distance = level / slope
    sin_tilt = uniform(keys[0], (0.0, 0.85)) * jnp.where(jax.random.bernoulli(keys[1], 0.6), 1.0, 0.3)
    cos_tilt = jnp.sqrt(1.0 - sin_tilt**2)
    axis, tan_max = wedge
    across = jnp.abs(slope_x * axis[0] + slope_y * axis[1]) / slope * cos_tilt
    seen = jax.nn.sigmoid((tan_max * across + 0.12 - sin_tilt) / 0.1)

    # weak and missing arcs: a slow modulation along the curve, and up to two windows where nothing is left
    phase = uniform(keys[2], (0.0, 2 * jnp.pi), (3,))
    order = jnp.arange(1, 4)
    slow = jnp.cos(order * angle[..., None] + phase).sum(-1) / 3.0
    fade = 1.0 + uniform(keys[3], (0.0, 0.5)) * (slow - 0.5)
    middle, width = uniform(keys[4], (0.0, 2 * jnp.pi), (2,)), uniform(keys[5], (0.1, 0.7), (2,))
    gap = jax.random.bernoulli(keys[6], model.gap_fraction, (2,))
    away = jnp.abs(jnp.mod(angle[..., None] - middle + jnp.pi, 2 * jnp.pi) - jnp.pi) - width
    intact = jnp.prod(jnp.where(gap, jax.nn.sigmoid(away * curve.radius / 1.5), 1.0), -1)
    visible = seen * intact

    spread = model.z_blur / model.pixel_size * sin_tilt
    across_membrane = _cross_section(keys[7], model, spread)
    along = distance * cos_tilt
    gap_pixels = uniform(keys[8], model.double_gap) / model.pixel_size
    double = jax.random.bernoulli(keys[9], model.double_fraction) & (curve.radius > 2.5 * gap_pixels)
    second = along + gap_pixels
    density = across_membrane(along) + jnp.where(double, across_membrane(second), 0.0)
    density = density * contrast * fade * visible * jax.nn.sigmoid(level + 0.7 * curve.radius)
    nearest = jnp.where(double, jnp.minimum(jnp.abs(along), jnp.abs(second)), jnp.abs(along))
    whole = level > -0.7 * curve.radius  # the level function has a kink at the centre
    extent = (nearest <= 0.5 * model.membrane_thickness / model.pixel_size) & whole
    return density, extent, level


def _discs(key: Key[Array, ""], model: SliceModel, curves: _Curve, accepted: Array, points: Array):
    """Globular proteins on stalks beside the membranes, and a few free ones: density and label."""
    keys = jax.random.split(key, 9)
    host = jax.random.categorical(keys[0], jnp.log(jnp.where(accepted, 1.0, 1e-9)), shape=(_DISCS,))
    angle = uniform(keys[1], (0.0, 2 * jnp.pi), (_DISCS,))
    stalk = uniform(keys[2], model.protein_stalk, (_DISCS,)) / model.pixel_size
    side = jnp.where(jax.random.bernoulli(keys[3], 0.8, (_DISCS,)), 1.0, -1.0)
    curve = jax.tree.map(lambda leaf: leaf[host], curves)
    order = jnp.arange(2, 6)
    wave = (
        curve.harmonics[:, :, 0] * jnp.cos(order * angle[:, None])
        + curve.harmonics[:, :, 1] * jnp.sin(order * angle[:, None])
    ).sum(-1)
    reach = curve.radius * (1.0 + wave) + side * stalk
    u, v = reach * jnp.cos(angle), reach * jnp.sin(angle) * curve.aspect
    cos, sin = jnp.cos(curve.angle), jnp.sin(curve.angle)
    attached = curve.centre + jnp.stack([u * sin + v * cos, u * cos - v * sin], -1)
    free = uniform(keys[4], (0.0, 1.0), (_DISCS, 2)) * model.size
    is_free = jax.random.bernoulli(keys[5], 0.15, (_DISCS,)) | ~accepted.any()
    centre = jnp.where(is_free[:, None], free, attached)
    radius = uniform(keys[6], model.protein_radius, (_DISCS,)) / model.pixel_size
    present = jax.random.uniform(keys[7], (_DISCS,)) < uniform(keys[8], (0.0, 0.6))

    def add(i, state):
        density, label = state
        distance = safe_norm(points - centre[i])
        inside = jax.nn.sigmoid((radius[i] - distance) / 0.5) * present[i]
        return jnp.minimum(density, -inside), label | ((distance <= radius[i]) & present[i])

    blank = jnp.zeros(points.shape[:-1])
    return jax.lax.fori_loop(0, _DISCS, add, (blank, blank.astype(bool)))


@compiled
def training_slice(key: Key[Array, ""], model: SliceModel) -> tuple[Float[Array, "size size"], Int[Array, "size size"]]:
    """One simulated slice with its labels (paper, Section 3 and Fig. 3).

    Arguments:
        key: random key.
        model: the ranges to draw from.

    Returns:
        image: normalised as `preprocess.robust_normalise` leaves a tomogram's slice; membranes are dark.
        labels: 0 background, 1 protein, 2 membrane.

    Example:
        >>> image, labels = training_slice(jax.random.key(0), SliceModel(size=64))
        >>> image.shape, int(labels.max()) <= 2
        ((64, 64), True)
    """
    keys = jax.random.split(key, 23)
    size = model.size
    grid = jnp.stack(jnp.meshgrid(jnp.arange(size), jnp.arange(size), indexing="ij"), -1).astype(jnp.float32)
    knots = max(3, size // 40)
    bend = jax.random.normal(keys[0], (knots, knots, 2)) * uniform(keys[1], model.elastic_pixels)
    warped = grid + jax.image.resize(bend, (size, size, 2), "cubic")

    curves, accepted = _place(keys[2], model)
    across = jax.random.bernoulli(keys[3])
    axis = jnp.where(across, jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))
    wedge = axis, jnp.tan(jnp.deg2rad(uniform(keys[4], model.tilt_range)))
    contrast = log_uniform(keys[16], model.contrast)
    strength = contrast * uniform(keys[5], (0.7, 1.2), (_CURVES,))
    lumen = 0.15 * jax.random.normal(keys[6], (_CURVES,))

    spectrum = None
    if model.noise:
        bins = len(model.noise)
        spectrum = NoiseSpectrum((jnp.arange(bins) + 0.5) * 0.5 / bins, jnp.array(model.noise, jnp.float32))
    noise_keys, texture_keys = jax.random.split(keys[10]), jax.random.split(keys[15])
    power = noise_power(noise_keys[0], size, spectrum)
    noise = coloured_noise(noise_keys[1], power)
    # a measured spectrum lacks the mean, and with it the lowest frequencies: no observer should see a membrane by those
    rivalling = jnp.maximum(power, 0.05 * power.max()) if model.noise else power
    # a strip of carbon film or an ice crystal: a texture of its own, stronger on one side of a line
    towards = uniform(keys[11], (0.0, 2 * jnp.pi))
    line = (grid - uniform(keys[12], (0.2, 0.8), (2,)) * size) @ jnp.stack([jnp.sin(towards), jnp.cos(towards)])
    film = jax.nn.sigmoid(line / 3.0) * jax.random.bernoulli(keys[13], 0.15) * uniform(keys[14], (0.3, 2.0))
    texture = coloured_noise(texture_keys[1], noise_power(texture_keys[0], size))
    # contrast counts against the noise left after smoothing by a leaflet's width: what the eye has to beat
    rival = gaussian(noise, (1.0, 1.0)).std()
    total = jnp.sqrt(1.0 + film**2)

    def add(i, state):
        density, label = state
        curve = jax.tree.map(lambda leaf: leaf[i], curves)
        layer, extent, level = _membrane(jax.random.fold_in(keys[7], i), model, curve, warped, wedge, strength[i])
        index = detectability(rival * layer, rivalling, model.visible_pixels) / total
        layer = layer + contrast * lumen[i] * jax.nn.sigmoid(-level / 2)
        return density + accepted[i] * layer, label | (extent & (index > model.visible) & accepted[i])

    blank = jnp.zeros((size, size))
    density, membrane = jax.lax.fori_loop(0, _CURVES, add, (blank, blank.astype(bool)))
    protein_density, protein = _discs(keys[8], model, curves, accepted, warped)
    density = density + contrast * protein_density * uniform(keys[9], (0.7, 1.5))

    image = rival * density + noise + film * texture

    centre = uniform(keys[17], (0.0, 1.0), (_BEADS, 2)) * size
    bead = jax.random.bernoulli(keys[18], 0.25, (_BEADS,)) * uniform(keys[20], (5.0, 16.0), (_BEADS,))
    radius = uniform(keys[19], (1.5, 6.0), (_BEADS,))
    distance = safe_norm(grid[..., None, :] - centre)
    # the bright halo of underfocus, and the bright wings that the missing wedge draws out across the tilt axis
    offset = grid[..., None, :] - centre
    drawn_out = jnp.sqrt((offset @ jnp.abs(axis[::-1]) / 3.0) ** 2 + (offset @ axis) ** 2 + 1e-3)
    halo = uniform(keys[21], (0.15, 0.5)) * jnp.exp(-((distance / radius - 1.6) ** 2) / 0.15)
    wings = uniform(keys[22], (0.0, 0.3)) * jnp.exp(-((drawn_out / (1.5 * radius)) ** 2)) * (distance > radius)
    spot = -jax.nn.sigmoid((radius - distance) / 0.6) + halo + wings
    image = image + (spot * bead).sum(-1)
    hidden = ((distance < radius + 1) & (bead > 0)).any(-1)

    labels = jnp.where(membrane, MEMBRANE, jnp.where(protein, PROTEIN, BACKGROUND))
    labels = jnp.where(hidden, BACKGROUND, labels).astype(jnp.int32)
    return robust_normalise(image), labels
