"""What all membranes of a tomogram have in common: the range of tilts, the density across them, and the noise."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmem.density import (
    FULL,
    OFFSETS,
    SHIFTS,
    Bilayer,
    Wedge,
    estimate_wedge,
    gain,
    learn_bilayer,
    tilt_of,
    two_leaflets,
    whitening,
)
from jaxmem.numerics import map_rows
from jaxmem.pipeline.keeping.record import Run
from jaxmem.settings import RefineConfig
from jaxmem.surface.tiles import CORE, EDGE, MARGIN, Outline, distances, sampled, shown

_UPRIGHT = 15.0  # degrees within the tilts at which a membrane is seen whole
_ENOUGH = 300  # vertices of upright membranes from which a bilayer is learnt
_LEARN_FROM = 64  # membranes of which it is learnt, at most about twice as many
_TURNS = (30.0, 50.0)  # degrees: noise is told apart by the normal's tilt; beyond the tilts is a kind of its own
KINDS = len(_TURNS) + 2


_tilts = jax.jit(tilt_of)


class Appearance(NamedTuple):
    """What is known of a tomogram before a round of placing points.

    Attributes:
        wedge: range of tilts.
        gain: what is left of the waves of a cube of `EDGE` voxels.
        bilayer: density across a membrane.
        noise: (`KINDS`, t, t) covariance of profiles; None before the first round.
        half: voxels along the normal, to each side, that count.
        reach: voxels that a point may move in a round.
    """

    wedge: Wedge
    gain: jax.Array
    bilayer: Bilayer
    noise: np.ndarray | None
    half: float
    reach: float

    @property
    def samples(self) -> int:
        """Of a profile."""
        return round(2 * self.half / OFFSETS) + 1

    @property
    def template(self) -> int:
        """Samples of a template."""
        return round(2 * (self.half + self.reach) / SHIFTS) + 1

    def tilt(self, normals: np.ndarray) -> np.ndarray:
        """The tilt at which each of some normals was measured, or would have been, degrees."""
        return map_rows(_tilts, normals.astype(np.float32), rest=(np.float32(self.wedge.azimuth),), smallest=1024)

    def kind(self, normals: np.ndarray) -> np.ndarray:
        """Which of the kinds of noise the profiles along some normals have."""
        tilt = self.tilt(normals)
        beyond = (tilt < self.wedge.low) | (tilt > self.wedge.high)
        return np.where(beyond, KINDS - 1, np.digitize(np.abs(tilt), _TURNS))


def first_look(volume, voxel_size: float, config: RefineConfig, run: Run) -> Appearance:
    """What is known at first: tilts from the settings or the spectrum, and a bilayer of the usual size.

    Arguments:
        volume: (nz, ny, nx), indexed like an array.
        voxel_size: A.
        config: settings.
        run: told the tilts.
    """
    low, high, azimuth = config.tilt_low, config.tilt_high, config.tilt_axis
    given = low is not None and high is not None
    seen = None if given and azimuth is not None else estimate_wedge(volume)
    base = seen or FULL
    wedge = Wedge(
        base.low if low is None else low,
        base.high if high is None else high,
        base.azimuth if azimuth is None else azimuth,
    )
    if seen is None and not given:
        run.decide("tilts: the spectrum shows no missing wedge")
    else:
        source = "settings" if given else "spectrum"
        run.decide(
            f"tilts: {wedge.low:.0f} to {wedge.high:.0f} degrees about an axis at {wedge.azimuth:.0f} ({source})"
        )
    half = float(np.ceil(max(config.window / voxel_size, 4.0) / OFFSETS) * OFFSETS)
    reach = float(np.ceil(max(config.range / voxel_size, 1.5) / OFFSETS) * OFFSETS)
    return Appearance(wedge, gain((EDGE,) * 3, wedge), two_leaflets(voxel_size, half), None, half, reach)


def cubes(vertices: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Corners of the cubes of `EDGE` voxels that hold vertices in their core, and which."""
    low, extent = vertices.min(0), np.ptp(vertices, axis=0)
    count = np.maximum(np.ceil((extent + 1e-3) / CORE), 1).astype(int)
    start = np.floor(low - 0.5 * (count * CORE - extent))
    cell = np.clip(((vertices - start) / CORE).astype(int), 0, count - 1)
    for one in np.unique(cell, axis=0):
        yield (start + one * CORE - MARGIN).astype(int), (cell == one).all(1)


def cube(volume, corner: np.ndarray) -> np.ndarray:
    """A cube of the volume; beyond its border the border goes on."""
    low, high = np.clip(corner, 0, volume.shape), np.clip(corner + EDGE, 0, volume.shape)
    if (high <= low).any():
        return np.zeros((EDGE,) * 3, np.float32)
    part = np.nan_to_num(np.asarray(volume[tuple(slice(a, b) for a, b in zip(low, high))], np.float32))
    return np.pad(part, [(a - c, c + EDGE - b) for a, b, c in zip(low, high, corner)], mode="edge")


def shown_of(surface: Outline, corner: np.ndarray, look: Appearance) -> jax.Array:
    """What the tomogram shows of a surface in the cube of `EDGE` voxels that begins at a corner."""
    distance, there = distances(surface, corner, look.half)
    return shown(jnp.asarray(distance), jnp.asarray(there), look.bilayer, look.gain)


def with_bilayer(volume, outlines: Iterator[Outline | None], look: Appearance) -> Appearance:
    """The same with the bilayer learnt from what is seen whole, if that is enough.

    Arguments:
        volume: see `first_look`.
        outlines: of some membranes.
        look: what is known.
    """
    total, many = np.zeros(0), 0
    span = look.half + 2.0
    for o in outlines:
        if o is None:
            continue
        tilt = look.tilt(o.normals)
        upright = (tilt > look.wedge.low + _UPRIGHT) & (tilt < look.wedge.high - _UPRIGHT)
        upright &= ((o.vertices > span) & (o.vertices < np.array(volume.shape) - 1 - span)).all(1)
        if not upright.any():
            continue
        o = Outline(o.vertices[upright], o.normals[upright])
        for corner, mine in cubes(o.vertices):
            profiles = sampled(cube(volume, corner), Outline(o.vertices[mine], o.normals[mine]), corner, span, OFFSETS)
            total = profiles.sum(0, dtype=float) + (total if many else 0.0)
            many += len(profiles)
    if many < _ENOUGH:
        return look
    offsets = np.linspace(-span, span, len(total), dtype=np.float32)
    return look._replace(
        bilayer=learn_bilayer(jnp.asarray(total / many, jnp.float32), jnp.asarray(offsets), look.half)[0]
    )


def some_of(count: int) -> range:
    """Numbers of the membranes from which a bilayer is learnt."""
    return range(0, count, max(1, count // _LEARN_FROM))


class Residuals:
    """What profiles keep of the noise: its covariance, by kinds of normals.

    Arguments:
        samples: of a profile.
    """

    def __init__(self, samples: int):
        self.square, self.count = np.zeros((KINDS, samples, samples)), np.zeros(KINDS)

    def add(self, square: np.ndarray, count: np.ndarray) -> None:
        """Take up sums of outer products, and how many they are."""
        self.square += square
        self.count += count

    def covariance(self) -> np.ndarray | None:
        """(`KINDS`, t, t); of a kind with few profiles that of all. None of no profile."""
        if self.count.sum() == 0:
            return None
        whole = self.square.sum(0) / self.count.sum()
        out = []
        for square, count in zip(self.square, self.count):
            mean = square / count if count >= 3 * len(whole) else whole
            # an amplitude and a shift were fitted to each
            freedom = np.trace(mean) ** 2 / max((mean**2).sum(), 1e-30)
            out.append(mean * freedom / max(freedom - 2.0, 1.0))
        return np.stack(out)


def white(data: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Covariance of white noise that is as strong as what the template leaves of the profiles, for all kinds."""
    t, many = data.shape[1], round(OFFSETS / SHIFTS)
    start = (template.shape[1] - ((t - 1) * many + 1)) // 2
    x = template[:, start : start + (t - 1) * many + 1 : many]
    x, y = x - x.mean(1, keepdims=True), data - data.mean(1, keepdims=True)
    factor = (x * y).sum(1) / np.maximum((x * x).sum(1), 1e-12)
    variance = float(np.median(((y - factor[:, None] * x) ** 2).mean(1)))
    return np.broadcast_to(max(variance, 1e-12) * np.eye(t), (KINDS, t, t))


@partial(jax.jit, static_argnums=2)
@partial(jax.vmap, in_axes=(0, None, None))
def sharpness(covariance: jax.Array, bilayer: Bilayer, samples: int) -> jax.Array:
    """One over the error, in voxels, of the place of a membrane that is seen whole, for each kind of noise."""
    offsets = OFFSETS * (jnp.arange(samples, dtype=covariance.dtype) - (samples - 1) / 2)
    # between the table's entries, where it has a slope of its own
    slope = jax.vmap(jax.grad(bilayer))(offsets + 1e-3)
    return jnp.linalg.norm(whitening(covariance) @ slope.astype(covariance.dtype))
