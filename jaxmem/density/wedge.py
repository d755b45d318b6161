"""The missing wedge: which directions of Fourier space a tilt series has measured."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmem.numerics import compiled
from jaxmem.types import Scalar

_SOFT = 2.0  # degrees over which a range of tilts ends: about a step of the series
_EDGE = 64  # voxels of the cubes whose spectra are averaged
_MOST = 24  # cubes at most; by hand
_BAND = (0.08, 0.4)  # cycles a voxel: below, the window leaks; above, interpolation has its own shape
_BIN = 3.0  # degrees
_LEAST = np.log(2.0)  # by how much the logarithm of the spectrum must fall beyond the tilts; by hand
_EXPLAINED = 0.5  # share of the variance between bins that two tilts must explain; by hand


class Wedge(NamedTuple):
    """A range of tilts about an axis in the plane of the slices.

    Attributes:
        low, high: first and last tilt, degrees; -90 and 90 measure everything.
        azimuth: of the axis, degrees from y towards x.
    """

    low: Scalar
    high: Scalar
    azimuth: Scalar


FULL = Wedge(-90.0, 90.0, 0.0)
"""Nothing is missing."""


def tilt_of(direction: Float[Array | np.ndarray, "*batch 3"], azimuth: Scalar) -> Float[Array, "*batch"]:
    """The tilt at which a projection holds a direction of Fourier space, degrees, -90...90.

    A plane membrane is seen if its normal's tilt was measured.

    Arguments:
        direction: zyx, of any length; of zero the answer is 0.
        azimuth: of the tilt axis, see `Wedge`.

    Example:
        >>> round(float(tilt_of(jnp.array([1.0, 5.0, 1.0]), 0.0)))
        45
    """
    turn = jnp.deg2rad(jnp.asarray(azimuth, direction.dtype))
    across = direction[..., 2] * jnp.cos(turn) - direction[..., 1] * jnp.sin(turn)
    # the direction and its opposite are the same wave
    rise = jnp.where(across < 0, -direction[..., 0], direction[..., 0])
    nowhere = (rise == 0) & (across == 0)
    return jnp.rad2deg(jnp.arctan2(rise, jnp.where(nowhere, 1.0, jnp.abs(across))))


def passes(k: Float[Array, "*batch 3"], wedge: Wedge) -> Float[Array, "*batch"]:
    """1 for waves that were measured, 0 for those that were not, and between over two degrees of tilt.

    Arguments:
        k: waves, zyx, in any unit.
        wedge: the range of tilts.
    """
    low, high, azimuth = (jnp.asarray(a, k.dtype) for a in wedge)
    tilt = tilt_of(k, azimuth)
    inside = jnp.minimum(tilt - low, high - tilt)
    # waves along z lie at 90 and at -90 degrees
    inside = jnp.maximum(inside, jnp.minimum(180.0 + tilt - low, high - tilt - 180.0))
    return jnp.where(high - low >= 180.0, 1.0, jnp.clip(inside / _SOFT + 0.5, 0.0, 1.0))


@compiled(static=("shape",))
def gain(shape: tuple[int, int, int], wedge: Wedge) -> Float[Array, "z y half"]:
    """What is left of each wave of a volume, 0...1, on the grid of `jnp.fft.rfftn`; the mean is left as it is.

    Arguments:
        shape: of the volume, zyx.
        wedge: the range of tilts.
    """
    kz, ky = jnp.fft.fftfreq(shape[0]), jnp.fft.fftfreq(shape[1])
    kx = jnp.fft.rfftfreq(shape[2])
    k = jnp.stack(jnp.meshgrid(kz, ky, kx, indexing="ij"), -1)
    return jnp.where(jnp.all(k == 0, -1), 1.0, passes(k, wedge))


def estimate_wedge(volume: np.ndarray) -> Wedge | None:
    """The range of tilts and their axis from a tomogram's spectrum, which falls where nothing was measured.

    Arguments:
        volume: (nz, ny, nx) array, or what is indexed like one; a few cubes are read.

    Returns:
        The wedge, or None if the spectrum shows none: few slices, or a tomogram whose wedge has been filled.
    """
    edge = min(_EDGE, *volume.shape)
    if edge < _EDGE // 2:
        return None
    power = _spectrum(volume, edge)
    k = np.stack(np.meshgrid(*(np.fft.fftfreq(edge),) * 3, indexing="ij"), -1)
    radius = np.linalg.norm(k, axis=-1)
    used = (radius > _BAND[0]) & (radius < _BAND[1]) & (power > 0)
    if not used.any():
        return None
    k, level, shell = k[used], np.log(power[used]), np.round(radius[used] * edge).astype(int)
    # within a shell only the direction matters
    level -= (np.bincount(shell, level) / np.maximum(np.bincount(shell), 1))[shell]
    best = max((_step(k, level, float(a)) for a in range(0, 180, 5)), key=lambda found: found[0])
    around = int(best[1].azimuth)
    best = max((_step(k, level, float(a)) for a in range(around - 4, around + 5)), key=lambda found: found[0])
    score, wedge, fall = best
    return wedge if fall > _LEAST and score > _EXPLAINED else None


def _spectrum(volume: np.ndarray, edge: int) -> np.ndarray:
    """Mean power of cubes spread over the volume, under a Hann window."""
    starts = [np.unique(np.linspace(0, n - edge, -(-n // edge)).astype(int)) for n in volume.shape]
    places = np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 3)
    places = places[np.unique(np.linspace(0, len(places) - 1, _MOST).astype(int))]
    window = np.hanning(edge + 2)[1:-1].astype(np.float32)
    window = window[:, None, None] * window[:, None] * window
    power = np.zeros((edge,) * 3)
    for z, y, x in places:
        cube = np.nan_to_num(np.asarray(volume[z : z + edge, y : y + edge, x : x + edge], np.float32))
        scale = cube.std()
        if scale > 0:
            power += np.abs(np.fft.fftn((cube - cube.mean()) / scale * window)) ** 2
    return power


def _step(k: np.ndarray, level: np.ndarray, azimuth: float) -> tuple[float, Wedge, float]:
    """The two tilts between which the level is best called high: share of the variance they explain, wedge, and fall."""
    tilt = np.asarray(tilt_of(k.astype(np.float32), azimuth))
    n = int(180 / _BIN)
    row = np.clip(((tilt + 90.0) / _BIN).astype(int), 0, n - 1)
    count = np.bincount(row, minlength=n).astype(float)
    total = np.bincount(row, level, n)
    edges = np.arange(n + 1) * _BIN - 90.0
    below, upto = np.concatenate([[0], np.cumsum(total)]), np.concatenate([[0], np.cumsum(count)])
    first, last = np.meshgrid(np.flatnonzero(edges < -20), np.flatnonzero(edges > 20), indexing="ij")
    within, many = below[last] - below[first], upto[last] - upto[first]
    rest, few = below[-1] - within, upto[-1] - many
    score = within**2 / np.maximum(many, 1) + np.where(few > 0, rest**2 / np.maximum(few, 1), 0.0)
    i = np.unravel_index(np.argmax(score), score.shape)
    fall = within[i] / many[i] - rest[i] / max(few[i], 1.0)
    mean = total / np.maximum(count, 1)
    # of the variance between bins: noise scatters a voxel's level, not the bins' means
    explained = score[i] / max(float((count * mean**2).sum()), 1e-12)
    low, high = (_half(mean, edges, int(j), side) for j, side in ((first[i], 1), (last[i] - 1, -1)))
    return float(explained), Wedge(low, high, float(azimuth)), float(fall)


def _half(mean: np.ndarray, edges: np.ndarray, j: int, inwards: int) -> float:
    """Where the power, going outwards, falls to the middle between its levels a little further in and out; degrees."""
    n = len(mean)
    outer = np.exp(mean[np.clip([j - 4 * inwards, j - 3 * inwards], 0, n - 1)]).mean()
    inner = np.exp(mean[np.clip(np.arange(j + inwards, j + 5 * inwards, inwards), 0, n - 1)]).mean()
    middle = 0.5 * (inner + outer)
    for row in range(j + 2 * inwards, j - 5 * inwards, -inwards):
        if not 0 <= row - inwards < n:
            break
        here, beyond = np.exp(mean[row]), np.exp(mean[row - inwards])
        if here >= middle > beyond:
            share = (here - middle) / (here - beyond)
            return float(edges[row] + 0.5 * _BIN - inwards * share * _BIN)
    return float(edges[j] if inwards > 0 else edges[j + 1])
