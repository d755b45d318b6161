"""A first look at a tomogram, before hours are spent on it: what in a header or in a few slices says that something is wrong."""

from typing import NamedTuple

import numpy as np

from jaxmem.types import Tomogram

SIZES = (3.0, 60.0)
"""Voxel sizes in A within which membranes are looked for."""

_SLICES = 7  # that are read
_CLIPPED = 0.02  # share of the voxels at the lowest or the highest value
_WRAPPED = 0.2  # share of the voxels in the outer quarter on either side, where the middle has fewer
_HOT = 60.0  # robust standard deviations; gold has up to about 40


class Oddity(NamedTuple):
    """What is odd: one line that says what to do, and whether a run makes no sense."""

    line: str
    fatal: bool


def oddities(tomogram: Tomogram, name: str) -> list[Oddity]:
    """What is odd about a tomogram, the worst first; a few of its slices are read.

    Arguments:
        tomogram: (nz, ny, nx), or one slice.
        name: of the file, for the lines.
    """
    found = [*_size(tomogram.voxel_size, name)]
    data = tomogram.data if tomogram.data.ndim == 3 else tomogram.data[None]
    where = np.unique(np.linspace(0, len(data) - 1, min(_SLICES, len(data))).round().astype(int))
    slices = [np.asarray(data[int(k)]) for k in where]
    values = np.concatenate([s[np.isfinite(s)].ravel() for s in slices])
    if not values.size:
        return [
            *found,
            Oddity(f"{name}: no voxel of the slices that were read is a number; reconstruct it again", True),
        ]
    if np.ptp(values.astype(float)) == 0:
        return [
            *found,
            Oddity(f"{name}: blank: all voxels that were read have one value; check the reconstruction", True),
        ]
    if values.dtype == np.int8 and _looks_unsigned(values):
        line = f"{name}: its bytes look unsigned, though the header says they are not; add --unsigned"
        found.append(Oddity(line, False))
    else:
        found += [*_extremes(values, name)]
    return sorted(found, key=lambda one: not one.fatal)


def _size(size: float, name: str) -> list[Oddity]:
    low, high = SIZES
    if low <= size <= high:
        return []
    if size < low:
        what = f"if it is given in nm, add --voxel-size {10 * size:g}; if the volume is not binned, bin it"
    else:
        what = f"if the header is wrong, give --voxel-size in A; {size / 10:g}, perhaps"
    line = f"{name}: voxels of {size:g} A; membranes are looked for at {low:g} to {high:g} A: {what}"
    return [Oddity(line, True)]


def _looks_unsigned(values: np.ndarray) -> bool:
    """Bytes whose histogram is torn apart at its middle: 127 goes on at -128."""
    outer = np.abs(values.astype(int) + 0.5) > 96
    inner = np.abs(values.astype(int) + 0.5) < 32
    both = min(np.mean(values[outer] > 0), np.mean(values[outer] < 0)) if outer.any() else 0.0
    return bool(outer.mean() > _WRAPPED and both > 0.1 and outer.mean() > 2 * inner.mean())


def _extremes(values: np.ndarray, name: str) -> list[Oddity]:
    found = []
    low, high = values.min(), values.max()
    clipped = max(np.mean(values == low), np.mean(values == high))
    if clipped > _CLIPPED:
        line = f"{name}: {100 * clipped:.0f} % of the voxels have its lowest or highest value: blank areas, or grey values that were cut off"
        found.append(Oddity(line, False))
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values.astype(float) - middle)))
    if spread > 0 and max(float(high) - middle, middle - float(low)) > _HOT * spread:
        line = f"{name}: single voxels lie more than {_HOT:.0f} standard deviations away: hot pixels; they are cut off for the network"
        found.append(Oddity(line, False))
    return found
