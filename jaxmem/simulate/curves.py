"""Membranes of a training slice: closed curves that keep apart, and the density of each as a tilt series leaves it.

Curves are ellipses with a few Fourier harmonics, some nested, some double, each the cut of a membrane through a plane of
constant z. The bilayer profile is a function of the distance to the membrane's mid-surface; how strongly it shows depends on
the direction of its normal, because the Fourier transform of a flat piece of membrane lies on one line and that line is either
inside the missing wedge or outside it.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from jaxmem.numerics import safe_norm
from jaxmem.simulate.noise import log_uniform, uniform
from jaxmem.simulate.profile import bilayer, blurred, sampled
from jaxmem.simulate.ranges import SliceModel

CURVES = 10  # candidate membranes per slice; those that would cross another are dropped; a choice, as many as find room
ORDERS = (2, 3, 4, 5)  # of the harmonics of a curve's radius: 0 and 1 would only change its size and place


class Curve(NamedTuple):
    """The mid-surface's cut through the slice, or many of them along leading axes.

    Attributes:
        centre: row and column, pixels.
        radius: of the longer axis, pixels.
        aspect: the shorter axis over the longer one.
        angle: of the longer axis from the columns' direction towards the rows', radians.
        harmonics: cosine and sine of each of `ORDERS`, over the radius.
    """

    centre: Float[Array, "*batch 2"]
    radius: Float[Array, "*batch"]
    aspect: Float[Array, "*batch"]
    angle: Float[Array, "*batch"]
    harmonics: Float[Array, "*batch 4 2"]


def radial(harmonics: Float[Array, "*batch 4 2"], angle: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """What the harmonics add to a radius of 1 in the direction of a polar angle of the undeformed circle."""
    order = jnp.array(ORDERS, angle.dtype).reshape(*(1,) * angle.ndim, -1)
    turn = order * angle[..., None]
    return (harmonics[..., 0] * jnp.cos(turn) + harmonics[..., 1] * jnp.sin(turn)).sum(-1)


def _draw(key: Key[Array, ""], model: SliceModel, hosts: Curve, accepted: Bool[Array, " curves"]) -> Curve:
    """A candidate membrane; with `nested_fraction`, inside one of the accepted `hosts`."""
    keys = jax.random.split(key, 11)
    sheet = jax.random.bernoulli(keys[0], model.sheet_fraction)
    low, high = (jnp.where(sheet, a, b) for a, b in zip(model.sheet_radius_pixels, model.radius_pixels))
    radius = log_uniform(keys[1], (low, high))
    free = uniform(keys[2], (-0.15, 1.15), (2,)) * model.size
    # a sheet's centre lies so far out that its circumference passes through the slice
    towards = free - model.size / 2 + 1e-3
    far = model.size * uniform(keys[3], (0.2, 0.8), (2,)) + radius * towards / safe_norm(towards)
    weights = jnp.where(accepted, 1.0, 1e-6)
    host = jax.random.categorical(keys[4], jnp.log(weights))
    nested = jax.random.bernoulli(keys[5], model.nested_fraction) & accepted.any() & ~sheet
    inner = jnp.maximum(hosts.radius[host] * uniform(keys[6], (0.3, 0.8)), model.radius_pixels[0] * 0.8)
    centre = jnp.where(sheet, far, jnp.where(nested, hosts.centre[host] + uniform(keys[7], (-6.0, 6.0), (2,)), free))
    draw = jax.random.normal(keys[8], (4, 2)) * model.deformation
    aspect = uniform(keys[9], model.aspect)
    return Curve(
        centre,
        jnp.where(nested, inner, radius),
        jnp.where(nested, 0.5 + 0.5 * aspect, aspect),
        uniform(keys[10], (0.0, jnp.pi)),
        draw / jnp.array(ORDERS, draw.dtype)[:, None],
    )


def place(key: Key[Array, ""], model: SliceModel) -> tuple[Curve, Bool[Array, " curves"]]:
    """Candidates drawn one by one, and which of them neither cross nor touch the ones before (enclosing circles)."""
    n = CURVES
    blank = Curve(jnp.zeros((n, 2)), jnp.ones(n), jnp.ones(n), jnp.zeros(n), jnp.zeros((n, 4, 2)))

    def step(i, state):
        curves, accepted = state
        # 0, 1, ... are folded into the key for the curves, -1, -2, ... for whether they are kept
        new = _draw(jax.random.fold_in(key, i), model, curves, accepted)
        distance = safe_norm(curves.centre - new.centre[None])
        outer, inner = 1.15, new.aspect * 0.85
        apart = distance > outer * (curves.radius + new.radius)
        inside = distance + outer * new.radius < curves.radius * curves.aspect * 0.9
        around = distance + outer * curves.radius < new.radius * inner
        keep = jnp.all(apart | inside | around | ~accepted) & (
            jax.random.uniform(jax.random.fold_in(key, -i - 1)) < 0.8
        )
        curves = jax.tree.map(lambda all_, one: all_.at[i].set(one), curves, new)
        return curves, accepted.at[i].set(keep)

    return jax.lax.fori_loop(0, n, step, (blank, jnp.zeros(n, bool)))


def level_of(curve: Curve, points: Float[Array, "*batch 2"]) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Level function of a deformed ellipse (negative inside, in pixels) and the polar angle, at `points` (row, column)."""
    offset = points - jnp.broadcast_to(curve.centre, points.shape)
    cos, sin = jnp.cos(curve.angle), jnp.sin(curve.angle)
    u = offset[..., 1] * cos + offset[..., 0] * sin
    v = (offset[..., 0] * cos - offset[..., 1] * sin) / curve.aspect
    angle = jnp.arctan2(v, u + 1e-6)
    wave = radial(jnp.broadcast_to(curve.harmonics, (*angle.shape, 4, 2)), angle)
    return jnp.sqrt(u**2 + v**2 + 1e-6) - curve.radius * (1.0 + wave), angle


def _cross_section(key: Key[Array, ""], model: SliceModel, spread: Array):
    """The density across a membrane as a function of distance, blurred by `spread` pixels."""
    if model.profile:
        return functools.partial(sampled, blurred(jnp.array(model.profile, float), spread))
    keys = jax.random.split(key, 3)
    half = 0.5 * uniform(keys[0], model.leaflet_distance) / model.pixel_size
    sigma = uniform(keys[1], model.leaflet_sigma) / model.pixel_size
    blur = jnp.sqrt(sigma**2 + spread**2)
    fringe = uniform(keys[2], (0.0, 0.5))
    return lambda distance: sigma / blur * bilayer(distance, half, blur, fringe)


def _intact(keys: Key[Array, " 3"], model: SliceModel, angle: Float[Array, "*batch"], radius: Array) -> Array:
    """1 along a curve, 0 in up to two windows of its polar angle where nothing is left."""
    middle, width = uniform(keys[0], (0.0, 2 * jnp.pi), (2,)), uniform(keys[1], (0.1, 0.7), (2,))
    gap = jax.random.bernoulli(keys[2], model.gap_fraction, (2,))
    share = jnp.ones_like(angle)
    for m, w, g in zip(middle, width, gap):
        away = jnp.abs(jnp.mod(angle - m + jnp.pi, 2 * jnp.pi) - jnp.pi) - w
        share = share * jnp.where(g, jax.nn.sigmoid(away * radius / 1.5), 1.0)
    return share


def membrane(
    key: Key[Array, ""],
    model: SliceModel,
    curve: Curve,
    points: Float[Array, "h w 2"],
    wedge: tuple[Float[Array, " 2"], Float[Array, ""]],
    contrast: Float[Array, ""],
) -> tuple[Float[Array, "h w"], Bool[Array, "h w"], Float[Array, "h w"]]:
    """One membrane over the slice.

    Arguments:
        key: random key, for tilt, gaps and cross-section.
        model: the ranges to draw from.
        curve: the membrane's course.
        points: row and column at which the curve is looked up, one for each pixel.
        wedge: unit vector across the tilt axis, and the tangent of the largest tilt.
        contrast: depth of the membrane.

    Returns:
        density, which pixels lie within the membrane's thickness, and the level function.
    """
    keys = jax.random.split(key, 10)
    level, angle = level_of(curve, points)
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
    slow = sum(jnp.cos(order * angle + phase[order - 1]) for order in (1, 2, 3)) / 3.0
    fade = 1.0 + uniform(keys[3], (0.0, 0.5)) * (slow - 0.5)
    visible = seen * _intact(keys[4:7], model, angle, curve.radius)

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
