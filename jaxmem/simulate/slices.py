"""Simulated training slices: membranes, proteins and noise drawn from geometry alone (paper, Section 3)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmem.numerics import compiled, safe_norm
from jaxmem.preprocess import gaussian, robust_normalise
from jaxmem.simulate.curves import CURVES, Curve, membrane, place, radial
from jaxmem.simulate.noise import NoiseSpectrum, coloured_noise, detectability, log_uniform, noise_power, uniform
from jaxmem.simulate.ranges import SliceModel
from jaxmem.types import BACKGROUND, MEMBRANE, PROTEIN

_DISCS = 28  # candidate proteins per slice, of which up to 60 % are shown; a choice
_BEADS = 3  # candidate gold beads per slice, of which a quarter are shown; a choice


def _discs(
    key: Key[Array, ""],
    model: SliceModel,
    curves: Curve,
    accepted: Bool[Array, " curves"],
    points: Float[Array, "h w 2"],
) -> tuple[Float[Array, "h w"], Bool[Array, "h w"]]:
    """Globular proteins on stalks beside the membranes, and a few free ones: density and label."""
    keys = jax.random.split(key, 9)
    host = jax.random.categorical(keys[0], jnp.log(jnp.where(accepted, 1.0, 1e-9)), shape=(_DISCS,))
    angle = uniform(keys[1], (0.0, 2 * jnp.pi), (_DISCS,))
    stalk = uniform(keys[2], model.protein_stalk, (_DISCS,)) / model.pixel_size
    side = jnp.where(jax.random.bernoulli(keys[3], 0.8, (_DISCS,)), 1.0, -1.0)
    curve = jax.tree.map(lambda leaf: leaf[host], curves)
    reach = curve.radius * (1.0 + radial(curve.harmonics, angle)) + side * stalk
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
        distance = safe_norm(points - centre[i][None, None])
        inside = jnp.where(present[i], jax.nn.sigmoid((radius[i] - distance) / 0.5), 0.0)
        return jnp.minimum(density, -inside), label | ((distance <= radius[i]) & present[i])

    blank = jnp.zeros(points.shape[:-1], points.dtype)
    return jax.lax.fori_loop(0, _DISCS, add, (blank, blank.astype(bool)))


def _beads(
    keys: Key[Array, " 6"], grid: Float[Array, "h w 2"], axis: Float[Array, " 2"]
) -> tuple[Float[Array, "h w"], Bool[Array, "h w"]]:
    """Gold beads: their density, and which pixels they hide; `axis` is the unit vector across the tilt axis."""
    size = grid.shape[0]
    centre = uniform(keys[0], (0.0, 1.0), (_BEADS, 2)) * size
    bead = jnp.where(jax.random.bernoulli(keys[1], 0.25, (_BEADS,)), uniform(keys[3], (5.0, 16.0), (_BEADS,)), 0.0)
    radius = uniform(keys[2], (1.5, 6.0), (_BEADS,))[None, None]
    offset = grid[..., None, :] - centre[None, None]
    distance = safe_norm(offset)
    # the bright halo of underfocus, and the bright wings that the missing wedge draws out across the tilt axis
    drawn_out = jnp.sqrt((offset @ jnp.abs(axis[::-1]) / 3.0) ** 2 + (offset @ axis) ** 2 + 1e-3)
    halo = uniform(keys[4], (0.15, 0.5)) * jnp.exp(-((distance / radius - 1.6) ** 2) / 0.15)
    wings = uniform(keys[5], (0.0, 0.3)) * jnp.exp(-((drawn_out / (1.5 * radius)) ** 2))
    spot = -jax.nn.sigmoid((radius - distance) / 0.6) + halo + jnp.where(distance > radius, wings, 0.0)
    hidden = ((distance < radius + 1) & (bead > 0)[None, None]).any(-1)
    return (spot * bead[None, None]).sum(-1), hidden


@compiled
def training_slice(key: Key[Array, ""], model: SliceModel) -> tuple[Float[Array, "size size"], Int[Array, "size size"]]:
    """One simulated slice with its labels (paper, Section 3 and Fig. 3).

    Arguments:
        key: random key.
        model: the ranges to draw from.

    Returns:
        image: normalised as `preprocess.robust_normalise` leaves a tomogram's slice; membranes are dark. In JAX's default
            float, and differentiable in the model's ranges but not in its fractions, which only decide.
        labels: 0 background, 1 protein, 2 membrane.

    Example:
        >>> image, labels = training_slice(jax.random.key(0), SliceModel(size=64))
        >>> image.shape, int(labels.max()) <= 2
        ((64, 64), True)
    """
    keys = jax.random.split(key, 23)
    size = model.size
    grid = jnp.stack(jnp.meshgrid(jnp.arange(size), jnp.arange(size), indexing="ij"), -1).astype(float)
    knots = max(3, size // 40)
    bend = jax.random.normal(keys[0], (knots, knots, 2)) * uniform(keys[1], model.elastic_pixels)
    warped = grid + jax.image.resize(bend, (size, size, 2), "cubic")

    curves, accepted = place(keys[2], model)
    across = jax.random.bernoulli(keys[3])
    axis = jnp.where(across, jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))
    wedge = axis, jnp.tan(jnp.deg2rad(uniform(keys[4], model.tilt_range)))
    contrast = log_uniform(keys[16], model.contrast)
    strength = contrast * uniform(keys[5], (0.7, 1.2), (CURVES,))
    lumen = 0.15 * jax.random.normal(keys[6], (CURVES,))

    spectrum = None
    if model.noise:
        bins = len(model.noise)
        spectrum = NoiseSpectrum((jnp.arange(bins, dtype=float) + 0.5) * 0.5 / bins, jnp.array(model.noise, float))
    noise_keys, texture_keys = jax.random.split(keys[10]), jax.random.split(keys[15])
    power = noise_power(noise_keys[0], size, spectrum)
    noise = coloured_noise(noise_keys[1], power)
    # a measured spectrum lacks the mean, and with it the lowest frequencies: no observer should see a membrane by those
    rivalling = jnp.maximum(power, 0.05 * power.max()) if model.noise else power
    # a strip of carbon film or an ice crystal: a texture of its own, stronger on one side of a line
    towards = uniform(keys[11], (0.0, 2 * jnp.pi))
    through = uniform(keys[12], (0.2, 0.8), (2,)) * size
    line = (grid - through[None, None]) @ jnp.stack([jnp.sin(towards), jnp.cos(towards)])
    strip = jnp.where(jax.random.bernoulli(keys[13], 0.15), uniform(keys[14], (0.3, 2.0)), 0.0)
    film = jax.nn.sigmoid(line / 3.0) * strip
    texture = coloured_noise(texture_keys[1], noise_power(texture_keys[0], size))
    # contrast counts against the noise left after smoothing by a leaflet's width: what the eye has to beat
    rival = gaussian(noise, (1.0, 1.0)).std()
    total = jnp.sqrt(1.0 + film**2)

    membrane_key = keys[7]

    def add(i, state):
        density, label = state
        curve = jax.tree.map(lambda leaf: leaf[i], curves)
        layer, extent, level = membrane(jax.random.fold_in(membrane_key, i), model, curve, warped, wedge, strength[i])
        index = detectability(rival * layer, rivalling, model.visible_pixels) / total
        layer = layer + contrast * lumen[i] * jax.nn.sigmoid(-level / 2)
        seen = extent & (index > model.visible) & accepted[i]
        return density + jnp.where(accepted[i], layer, 0.0), label | seen

    blank = jnp.zeros((size, size))
    density, shown = jax.lax.fori_loop(0, CURVES, add, (blank, blank.astype(bool)))
    protein_density, protein = _discs(keys[8], model, curves, accepted, warped)
    density = density + contrast * protein_density * uniform(keys[9], (0.7, 1.5))
    beads, hidden = _beads(keys[17:23], grid, axis)
    image = rival * density + noise + film * texture + beads

    labels = jnp.where(shown, MEMBRANE, jnp.where(protein, PROTEIN, BACKGROUND))
    labels = jnp.where(hidden, BACKGROUND, labels).astype(jnp.int32)
    return robust_normalise(image), labels
