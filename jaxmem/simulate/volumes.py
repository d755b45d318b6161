"""Simulated tomograms of liposomes with a missing wedge, to measure the pipeline on volumes nobody tuned it on."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmem.numerics import compiled, safe_norm
from jaxmem.points import sphere_directions
from jaxmem.preprocess import robust_normalise

_CHECKED = 400  # points of a mid-surface asked whether it cuts another: 3 voxels apart at a radius of 16
_BUMPS = 4  # per vesicle, each in a direction of its own; a choice


@dataclass(frozen=True)
class VolumeModel:
    """Size (nz, ny, nx) in voxels and the ranges that vesicles and noise are drawn from; lengths in A unless named.

    `contrast` is the depth of a leaflet over the noise's standard deviation, per voxel. `touching_fraction` of the vesicles
    are placed against an earlier one, with `touching_gap` voxels between the mid-surfaces.
    """

    shape: tuple[int, int, int] = (96, 192, 192)
    voxel_size: float = 14.0
    candidates: int = 10
    radius_voxels: tuple[float, float] = (14.0, 32.0)
    aspect: tuple[float, float] = (0.8, 1.1)
    deformation: float = 0.05
    nested_fraction: float = 0.2
    touching_fraction: float = 0.0
    touching_gap: tuple[float, float] = (3.0, 5.0)
    contrast: tuple[float, float] = (1.0, 1.6)
    leaflet_distance: float = 40.0
    leaflet_sigma: float = 9.0
    membrane_thickness: float = 50.0
    tilt_max: float = 60.0
    truth_points: int = 6000


class SimulatedTomogram(NamedTuple):
    """A simulated tomogram and its truth.

    Attributes:
        data: (nz, ny, nx), robustly normalised.
        labels: instances 1...n where the mid-surface is within half the membrane's thickness.
        points, normals: (n, m, 3) on each mid-surface, zyx voxels.
        present: (n,) False for candidates that found no room.
    """

    data: Float[Array, "nz ny nx"]
    labels: Int[Array, "nz ny nx"]
    points: Float[Array, "n m 3"]
    normals: Float[Array, "n m 3"]
    present: Bool[Array, " n"]


class _Vesicle(NamedTuple):
    centre: Float[Array, " 3"]
    axes: Float[Array, " 3"]
    bumps: Float[Array, "bumps 3"]
    heights: Float[Array, " bumps"]


def _radius(vesicle: _Vesicle, direction: Array) -> Array:
    """Distance to the surface along a direction, relative to the ellipsoid's."""
    c = direction @ vesicle.bumps.T
    return 1.0 + jnp.sum(jnp.broadcast_to(vesicle.heights, c.shape) * (1.5 * c**2 - 0.5 + c**3), -1)


def _level(vesicle: _Vesicle, point: Array) -> Array:
    mapped = (point - jnp.broadcast_to(vesicle.centre, point.shape)) / jnp.broadcast_to(vesicle.axes, point.shape)
    rho = safe_norm(mapped) + 1e-6
    return (rho / _radius(vesicle, mapped / rho[..., None]) - 1.0) * jnp.mean(vesicle.axes)


def _extent(vesicle: _Vesicle, direction: Array) -> Array:
    """Distance from the centre to the surface along a unit vector, voxels."""
    mapped = direction / vesicle.axes
    length = safe_norm(mapped)
    return _radius(vesicle, mapped / length) / length


def _surface(vesicle: _Vesicle, direction: Float[Array, "m 3"]) -> Float[Array, "m 3"]:
    """Points on the mid-surface in directions of the undeformed sphere, voxels."""
    return vesicle.centre[None] + direction * _radius(vesicle, direction)[:, None] * vesicle.axes[None]


def _against(key: Key[Array, ""], vesicle: _Vesicle, host: _Vesicle, model: VolumeModel) -> _Vesicle:
    """The vesicle moved to where it touches the host."""
    keys = jax.random.split(key)
    direction = jax.random.normal(keys[0], (3,))
    direction = direction / safe_norm(direction)
    gap = jax.random.uniform(keys[1], minval=model.touching_gap[0], maxval=model.touching_gap[1])
    distance = _extent(host, direction) + gap + _extent(vesicle, -direction)
    return vesicle._replace(centre=host.centre + distance * direction)


def _draw(key: Key[Array, ""], model: VolumeModel, others: _Vesicle, accepted: Array) -> tuple[_Vesicle, Array]:
    keys = jax.random.split(key, 8)
    nested = jax.random.bernoulli(keys[0], model.nested_fraction) & accepted.any()
    host = jax.random.categorical(keys[1], jnp.log(jnp.where(accepted, 1.0, 1e-9)))
    radius = jax.random.uniform(keys[2], minval=model.radius_voxels[0], maxval=model.radius_voxels[1])
    radius = jnp.where(nested, 0.55 * others.axes[host].mean(), radius)
    size = jnp.array(model.shape, float)
    room = jnp.maximum(size / 2 - radius - 2.0, 0.0)
    centre = size / 2 + room * jax.random.uniform(keys[3], (3,), minval=-1.0, maxval=1.0)
    centre = jnp.where(nested, others.centre[host], centre)
    axes = radius * jax.random.uniform(keys[4], (3,), minval=model.aspect[0], maxval=model.aspect[1])
    bumps = jax.random.normal(keys[5], (_BUMPS, 3))
    heights = model.deformation * jax.random.normal(keys[6], (_BUMPS,)) / _BUMPS**0.5
    vesicle = _Vesicle(centre, axes, bumps / safe_norm(bumps)[:, None], heights)
    gap = safe_norm(others.centre - centre[None])
    reach, host_reach = 1.2 * axes.max(), 1.2 * others.axes.max(-1)
    apart = gap > reach + host_reach + 4.0
    inside = gap + reach < 0.85 * others.axes.min(-1)
    fits = jnp.all(axes.max() * 1.1 + 2 < size / 2)
    large = radius > 0.7 * model.radius_voxels[0]
    free = jnp.all(apart | inside | ~accepted) & fits & large
    if model.touching_fraction == 0.0:
        return vesicle, free
    pick = jax.random.split(keys[7], 3)
    touches = jax.random.bernoulli(pick[0], model.touching_fraction) & accepted.any() & ~nested
    host = jax.random.categorical(pick[1], jnp.log(jnp.where(accepted, 1.0, 1e-9)))
    moved = _against(pick[2], vesicle, jax.tree.map(lambda leaf: leaf[host], others), model)
    surface = _surface(moved, sphere_directions(_CHECKED, 3))
    clear = jax.vmap(lambda one: jnp.min(_level(one, surface)) >= 0.8 * model.touching_gap[0])(others)
    within = jnp.all(jnp.abs(moved.centre - size / 2) <= room) & fits & large
    vesicle = jax.tree.map(lambda a, b: jnp.where(touches, a, b), moved, vesicle)
    return vesicle, jnp.where(touches, jnp.all(clear | ~accepted) & within, free)


def _wedge(shape: tuple[int, int, int], tilt_max: float) -> Array:
    """1 where |kz| <= tan(tilt_max) |kx|: the tilt axis is y."""
    kz, kx = jnp.fft.fftfreq(shape[0])[:, None, None], jnp.fft.rfftfreq(shape[2])[None, None, :]
    return (jnp.abs(kz) <= jnp.tan(jnp.deg2rad(tilt_max)) * jnp.abs(kx) + 0.5 / shape[0]).astype(kx.dtype)


def _filter(volume: Array, gain: Array) -> Array:
    spectrum = jnp.fft.rfftn(volume)
    return jnp.fft.irfftn(spectrum * gain.astype(spectrum.dtype), volume.shape)


@compiled(static=("model",))
def simulate_tomogram(key: Key[Array, ""], model: VolumeModel) -> SimulatedTomogram:
    """Closed, slightly bumpy vesicles, some nested, seen through a missing wedge and noise with the same wedge.

    Arguments:
        key: random key.
        model: ranges; static under jit, so that nothing here is differentiated.
    """
    keys = jax.random.split(key, 6)
    n = model.candidates
    blank = _Vesicle(jnp.zeros((n, 3)), jnp.ones((n, 3)), jnp.zeros((n, _BUMPS, 3)), jnp.zeros((n, _BUMPS)))

    vesicle_key = keys[0]

    def place(i, state):
        vesicles, accepted = state
        new, keep = _draw(jax.random.fold_in(vesicle_key, i), model, vesicles, accepted)
        return jax.tree.map(lambda all_, one: all_.at[i].set(one), vesicles, new), accepted.at[i].set(keep)

    vesicles, accepted = jax.lax.fori_loop(0, n, place, (blank, jnp.zeros(n, bool)))
    grid = jnp.stack(jnp.meshgrid(*(jnp.arange(s, dtype=float) for s in model.shape), indexing="ij"), -1)
    half, sigma = model.leaflet_distance / 2 / model.voxel_size, model.leaflet_sigma / model.voxel_size

    def add(i, state):
        density, labels = state
        level = _level(jax.tree.map(lambda leaf: leaf[i], vesicles), grid)
        distance = level / jnp.sqrt(sum(g**2 for g in jnp.gradient(level)) + 1e-6)
        leaflets = sum(jnp.exp(-0.5 * ((distance + s * half) / sigma) ** 2) for s in (-1.0, 1.0))
        near = jnp.abs(distance) <= 0.5 * model.membrane_thickness / model.voxel_size
        near = near & (level > -0.6 * vesicles.axes[i].min())
        return density - leaflets, jnp.where(near, jnp.int32(i + 1), labels)

    start = (jnp.zeros(model.shape), jnp.zeros(model.shape, jnp.int32))

    def add_accepted(i, state):
        return jax.lax.cond(accepted[i], add, lambda _, unchanged: unchanged, i, state)

    density, labels = jax.lax.fori_loop(0, n, add_accepted, start)
    wedge = _wedge(model.shape, model.tilt_max)
    kx = jnp.fft.rfftfreq(model.shape[2])[None, None, :]
    k2 = (
        kx**2
        + jnp.fft.fftfreq(model.shape[1])[None, :, None] ** 2
        + jnp.fft.fftfreq(model.shape[0])[:, None, None] ** 2
    )
    # underfocus takes the lowest frequencies away, the detector and the defocus spread the highest
    transfer = wedge * (1.0 - 0.9 * jnp.exp(-k2 / 0.03**2)) * jnp.exp(-k2 / 0.45**2)
    noise = _filter(jax.random.normal(keys[1], model.shape), wedge * jnp.sqrt(0.02 + kx) * jnp.exp(-k2 / 0.5**2))
    contrast = jax.random.uniform(keys[2], minval=model.contrast[0], maxval=model.contrast[1])
    data = _filter(density, transfer) * contrast + noise / noise.std()

    direction = sphere_directions(model.truth_points, 3)
    points = jax.vmap(_surface, (0, None))(vesicles, direction)
    slope = jax.vmap(lambda v, p: jax.vmap(jax.grad(_level, 1), (None, 0))(v, p))(vesicles, points)
    normals = slope / safe_norm(slope)[..., None]
    return SimulatedTomogram(robust_normalise(data), labels, points, normals, accepted)
