"""From a map of protein voxels to single particles."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

_BLUR = 0.35  # of the least diameter: smoothing of the density before particles that touch are told apart
_APART = 0.75  # of the least diameter: two particles are at least so far apart
_LEAST = 0.8  # of a ball of the least diameter: smaller pieces are none


class Particles(NamedTuple):
    """Particles that were found; n of them.

    Attributes:
        centre: (n, 3) centres of mass of their density, zyx, voxels.
        volume: (n,) voxels.
        contrast: (n,) mean density over that of their surroundings, in standard deviations of these; positive where a particle is darker.
    """

    centre: Float[np.ndarray, "n 3"]
    volume: Int[np.ndarray, " n"]
    contrast: Float[np.ndarray, " n"]


def find_particles(
    mask: Bool[np.ndarray, "z y x"],
    density: Float[np.ndarray, "z y x"] | Int[np.ndarray, "z y x"] | None,
    diameter: float,
) -> Particles:
    """Single particles of a map of protein voxels: its pieces, cut where the density has more than one core.

    Arguments:
        mask: voxels of protein.
        density: of the tomogram, particles dark; without it the mask itself tells cores apart.
        diameter: least of a particle, voxels.

    Returns:
        Particles from the first slice to the last.
    """
    least = _LEAST * np.pi / 6.0 * diameter**3
    piece, _ = ndimage.label(mask)
    size = np.bincount(piece.ravel())
    found: list[tuple] = []
    margin = int(np.ceil(diameter))
    for number, box in enumerate(ndimage.find_objects(piece), 1):
        if box is None or size[number] < least:
            continue
        wide = tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in box)
        own, taken = piece[wide] == number, piece[wide] > 0
        here = own.astype(np.float32) if density is None else -np.asarray(density[wide], np.float32)
        found += [(place + [s.start for s in wide], n, c) for place, n, c in _cores(own, taken, here, diameter, least)]
    order = sorted(found, key=lambda one: tuple(one[0]))
    centre = np.array([one[0] for one in order]).reshape(-1, 3)
    return Particles(centre, np.array([one[1] for one in order], int), np.array([one[2] for one in order], float))


def _cores(own: np.ndarray, taken: np.ndarray, bright: np.ndarray, diameter: float, least: float) -> list[tuple]:
    """Centre, volume and contrast of each core within one piece."""
    smooth = ndimage.gaussian_filter(
        np.where(own, bright, bright[~taken].mean() if (~taken).any() else 0.0), _BLUR * diameter
    )
    reach = int(np.ceil(0.5 * _APART * diameter))
    ball = np.linalg.norm(np.indices((2 * reach + 1,) * 3) - reach, axis=0) <= reach
    peak = (ndimage.maximum_filter(smooth, footprint=ball) == smooth) & own
    places = _apart(np.argwhere(peak), smooth[peak], _APART * diameter)
    if len(places) == 0:
        return []
    voxels = np.argwhere(own)
    near = np.argmin(((voxels[:, None] - places[None]) ** 2).sum(-1), 1)
    around = bright[~taken]
    level, spread = (float(around.mean()), float(around.std())) if around.size > 1 else (0.0, 1.0)
    out = []
    for k in range(len(places)):
        mine = voxels[near == k]
        if len(mine) < least:
            continue
        value = bright[tuple(mine.T)]
        weight = np.maximum(value - level, 0.0) + 1e-6
        out.append(
            ((weight[:, None] * mine).sum(0) / weight.sum(), len(mine), (value.mean() - level) / max(spread, 1e-9))
        )
    return out


def _apart(places: np.ndarray, height: np.ndarray, least: float) -> np.ndarray:
    """The highest places, none closer than so much to a higher one."""
    kept: list[np.ndarray] = []
    for k in np.argsort(-height):
        if all(np.linalg.norm(places[k] - other) >= least for other in kept):
            kept.append(places[k])
    return np.array(kept).reshape(-1, 3)
