"""What the linker learns from: simulated contours cut into segments, with the truth of what follows what."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxmem.grouping.rl.linker.segments import Segments, summarise
from jaxmem.simulate.contours import Contours

_SHORTEST = 2.5  # pixels; what is shorter is a speck: fewer than four points
_SCATTER = 0.29  # pixels: the standard deviation of rounding to whole pixels, 1 / sqrt(12)


class Lesson(NamedTuple):
    """Segments of one slice and their truth.

    Attributes:
        paths: y, x of each segment's points, a pixel apart.
        owner: (segments,) membrane 1, 2, ...; below 0 a stray piece, each with a number of its own.
        closed: (segments,) whole loops.
        follows: (2 * segments,) the end that each end joins, -1 if none.
        gap_fraction: of the slice.
    """

    paths: list[Float[np.ndarray, "n 2"]]
    owner: Int[np.ndarray, " segments"]
    closed: list[bool]
    follows: Int[np.ndarray, " ends"]
    gap_fraction: float


def lesson(rng: np.random.Generator, contours: Contours) -> Lesson:
    """Cut simulated contours at their gaps.

    Arguments:
        rng: for the points' scatter.
        contours: of one slice; leaves are turned into NumPy arrays.
    """
    paths: list[np.ndarray] = []
    owner: list[int] = []
    closed: list[bool] = []
    joined: list[tuple[int, int]] = []
    for k in np.flatnonzero(contours.present):
        points, shown, whole = np.asarray(contours.points[k]), np.asarray(contours.visible[k]), bool(contours.closed[k])
        inside = np.asarray(contours.within[k])
        # begin where a piece begins, or where the contour enters the slice
        edge = shown & ~np.roll(shown, 1) if whole else inside & ~np.roll(inside, 1)
        first = int(np.argmax(edge))
        points, shown = np.roll(points, -first, 0), np.roll(shown, -first)
        mine = [p for p in (_resample(rng, piece) for piece in _runs(points, shown)) if p is not None]
        loop = whole and bool(shown.all())
        numbers = range(len(paths), len(paths) + len(mine))
        paths += mine
        owner += [int(k) + 1] * len(mine)
        closed += [loop] * len(mine)
        joined += [(2 * a + 1, 2 * b) for a, b in pairwise(numbers)]
        if whole and not loop and len(mine):
            joined.append((2 * numbers[-1] + 1, 2 * numbers[0]))
    for j in np.flatnonzero(np.asarray(contours.stray_visible).any(-1)):
        piece = _resample(rng, np.asarray(contours.strays[j])[np.asarray(contours.stray_visible[j])])
        if piece is not None:
            paths.append(piece)
            owner.append(-1 - int(j))
            closed.append(False)
    follows = np.full(2 * len(paths), -1)
    for a, b in joined:
        follows[a], follows[b] = b, a
    return Lesson(paths, np.array(owner, int), closed, follows, float(contours.gap_fraction))


def _runs(points, shown):
    """The pieces: stretches of points that are shown."""
    index = np.flatnonzero(shown)
    return [points[i] for i in np.split(index, np.flatnonzero(np.diff(index) > 1) + 1) if len(i)]


def _resample(rng: np.random.Generator, points: np.ndarray) -> np.ndarray | None:
    """Points a pixel apart with the scatter of pixels; None for a speck."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    if length[-1] < _SHORTEST:
        return None
    at = np.linspace(0.0, length[-1], max(4, round(length[-1]) + 1))
    even = np.stack([np.interp(at, length, points[:, a]) for a in range(2)], -1)
    return even + rng.normal(0.0, _SCATTER, even.shape)


def summarised(given: Lesson, shape: tuple[int, int], capacity: int) -> tuple[Segments, np.ndarray, np.ndarray]:
    """Segments, `follows` and `owner` of a lesson, padded to `capacity`; padding has owners of its own, from -1000 down.

    Raises:
        ValueError: if there are more segments than `capacity`.
    """
    follows, owner = np.full(2 * capacity, -1, np.int32), -1000 - np.arange(capacity, dtype=np.int32)
    follows[: len(given.follows)], owner[: len(given.owner)] = given.follows, given.owner
    return summarise(given.paths, shape, capacity, given.closed), follows, owner
