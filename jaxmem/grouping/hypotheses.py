"""Which open regions are a closed surface of any shape, alone or in pairs: by how much of what would be seen of it is there."""

from collections.abc import Callable
from typing import TypeGuard

import numpy as np
from scipy.spatial import cKDTree

from jaxmem.grouping.closing import Closure, close, values_of
from jaxmem.grouping.midline import Midline
from jaxmem.points import evenly
from jaxmem.settings import SelectConfig

_SAMPLE = 128  # points of a region from which it is told whether another lies across
_CONE = 0.95  # least cos between a normal and the way across
_FACING = 0.25  # share of the points that must have the other region across
_FARTHEST = 80.0  # voxels across
_FAIR = 0.75  # share of each region's points that must lie on the common surface
_ROUND = 0.85  # share that must be there of what would be seen of a tube whose top and bottom are guessed; chosen on `clear_public` and `cell_public`
_GAIN = 0.5  # of what two regions hide apart, at most this may be hidden of the common surface


def is_shut(closure: Closure | None, config: SelectConfig) -> TypeGuard[Closure]:
    """Whether a closure is that of a closed membrane."""
    return (
        closure is not None
        and closure.expected >= config.least_shut
        and closure.seen >= config.least_seen
        and closure.sigma <= max(1.5, 0.12 * closure.across)
        and closure.across >= 2.0
        and closure.turned >= 0.25
    )


def closure_of(
    points: np.ndarray, normals: np.ndarray, volume_shape: tuple[int, ...], config: SelectConfig
) -> Closure | None:
    """The closed surface through points; of a tube whose walls look upright, a round one, if nearly all that would be seen of that is there.

    Arguments:
        points, normals: (n, 3), voxels; normals have any sign.
        volume_shape: of the volume.
        config: thresholds.
    """
    plain = close(points, normals, volume_shape)
    if plain is None or is_shut(plain, config):
        return plain
    rounded = close(points, normals, volume_shape, rounded=True)
    return rounded if is_shut(rounded, config) and rounded.expected >= _ROUND else plain


def on_blend(closure: Closure, points: np.ndarray, tolerance: float) -> np.ndarray:
    """Which of (n, 3) points lie on a closure, within a tolerance in voxels and twice its own spread."""
    return np.abs(values_of(closure.blend, points)) <= tolerance + 2.0 * closure.sigma


def join_sides(
    line: Midline,
    regions: list[np.ndarray],
    volume_shape: tuple[int, ...],
    config: SelectConfig,
    report: Callable[[str], None],
) -> list[tuple[np.ndarray, Closure | None]]:
    """Join open regions that are two sides of one closed surface, the best pairs first.

    Of a closed surface all must be seen that is neither hidden by the missing wedge nor outside the volume. Two sides are one membrane if
    much less is missing of the surface through both than of each by itself.

    Arguments:
        line: midline points in three dimensions.
        regions: indices of the points of each, of no closed ones.
        volume_shape: of the volume.
        config: thresholds.
        report: told what was joined.

    Returns:
        The regions, some of them joined, each with its closure if it is closed.
    """
    alone = [closure_of(line.points[i], line.normals[i], volume_shape, config) for i in regions]
    out = [(i, c) for i, c in zip(regions, alone) if is_shut(c, config)]
    left = {k: i for k, (i, c) in enumerate(zip(regions, alone)) if not is_shut(c, config)}
    some = {k: i[evenly(line.points[i], _SAMPLE)] for k, i in left.items()}
    sides = {k: (line.points[i], line.normals[i]) for k, i in some.items()}
    missing = {k: _missing(line, left[k], alone[k]) for k in left}
    box = {k: (p.min(0), p.max(0)) for k, (p, _) in sides.items()}
    found = []
    for a in left:
        for b in left:
            if a >= b or (np.maximum(box[a][0] - box[b][1], box[b][0] - box[a][1]) > _FARTHEST).any():
                continue
            if max(_facing(*sides[a], *sides[b]), _facing(*sides[b], *sides[a])) >= _FACING:
                both = np.concatenate([left[a], left[b]])
                closure = closure_of(line.points[both], line.normals[both], volume_shape, config)
                if closure is None or not is_shut(closure, config):
                    continue
                fair = min(on_blend(closure, line.points[left[k]], config.tolerance).mean() for k in (a, b))
                if fair >= _FAIR and closure.hidden <= _GAIN * (missing[a] + missing[b]):
                    found.append((missing[a] + missing[b] - closure.hidden, a, b, both, closure))
    for _, a, b, both, closure in sorted(found, key=lambda one: -one[0]):
        if a in left and b in left:
            report(
                f"regions of {len(left.pop(a))} and {len(left.pop(b))} points are sides of one closed membrane, "
                f"{closure.expected:.0%} of what would be seen of it is there"
            )
            out.append((both, closure))
    return out + [(i, None) for i in left.values()]


def _missing(line: Midline, index: np.ndarray, closure: Closure | None) -> float:
    """Area, voxels^2, of what is missing of a region by itself: at most as much again as it has, its other side."""
    points = line.points[index]
    few = points[evenly(points, _SAMPLE * 4)]
    some = min(8, len(few) - 1)
    area = np.pi / some * float(np.median(cKDTree(few).query(few, k=[some + 1])[0])) ** 2 * len(few)
    return area if closure is None else min(closure.hidden, area)


def _facing(points: np.ndarray, normals: np.ndarray, others: np.ndarray, their_normals: np.ndarray) -> float:
    """Share of points that have others across, along their normals to either side."""
    away = others[None] - points[:, None]
    distance = np.maximum(np.linalg.norm(away, axis=-1), 1e-9)
    along = np.abs((away * normals[:, None]).sum(-1)) > _CONE * distance
    alike = np.abs(normals @ their_normals.T) > 0.3
    return float((along & alike & (distance < _FARTHEST)).any(1).mean())
