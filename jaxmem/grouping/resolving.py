"""From regions to pieces that are one surface each: arcs and sides are joined, mixed regions split, strays let go."""

import itertools
from typing import TypeAlias

import numpy as np
from jaxtyping import Int

from jaxmem.grouping.closing import Closure
from jaxmem.grouping.faces import LYING
from jaxmem.grouping.hypotheses import closure_of, is_shut, join_sides
from jaxmem.grouping.merging import merge_regions
from jaxmem.grouping.midline import Midline
from jaxmem.grouping.shape import Shape, describe, directions, distances
from jaxmem.settings import SelectConfig

_MOST_ARCS = (
    12  # an open region and those next to it, among which arcs of one membrane are sought; for the time, by hand
)
_MOST_ATTEMPTS = (
    200  # regions looked at before no more are split, or three times those there are; for the time, by hand
)
_OBLATE = 0.6  # of the next semi-axis, for an ellipsoid to be flat; by hand
_THINNER = 0.75  # of the ellipsoid's half thickness; by hand
_GOOD = 0.5  # voxels; spread of points about an ellipsoid that is one; by hand
BETTER = 0.7  # of the spread of points about an ellipsoid, for another shape to be taken; by hand

Described: TypeAlias = tuple[np.ndarray, Shape, Closure | None]
"""Indices of a piece's points, the ellipsoid through them, and its closure if it closes as something else."""


def members_of(region: Int[np.ndarray, " n"], many: int = 0) -> list[Int[np.ndarray, " k"]]:
    """Indices of the points of region 1, of region 2, ..., of `many` or more: in one pass, however many there are; 0 is nobody."""
    order = np.argsort(region, kind="stable")
    ends = np.cumsum(np.bincount(region, minlength=many + 1))
    return [order[a:b] for a, b in itertools.pairwise(ends)]


def is_closed(shape: Shape, config: SelectConfig) -> bool:
    """A surface all around a centre, as far as it can be seen."""
    axes = np.asarray(shape.ellipse.semi_axes)
    # a flat disc of stray points covers an ellipsoid, too
    solid = axes.min() >= max(3.0, config.least_aspect * axes.max())
    fits = bool(solid) and shape.sigma <= max(2.0, 0.12 * float(axes.min()))
    least_seen = config.least_seen if len(axes) == 3 else config.least_seen_slice
    covered = shape.seen >= least_seen and shape.expected >= config.least_expected
    return fits and covered and shape.radial >= config.least_radial


def on_ellipsoid(shape: Shape, points: np.ndarray, normals: np.ndarray, tolerance: float) -> np.ndarray:
    """Which points lie on an ellipsoid and run the same way."""
    near = np.abs(distances(shape.ellipse, points)) <= tolerance + 2.0 * shape.sigma
    return near & (np.abs((directions(shape.ellipse, points) * normals).sum(1)) > 0.6)


def within_reach(shape: Shape, points: np.ndarray, tolerance: float) -> float:
    """Share of points in a ball around an ellipsoid. Points on the ellipsoid are in it, so this is a quick upper bound of their share."""
    reach = 1.2 * float(np.max(shape.ellipse.semi_axes)) + tolerance + 2.0 * shape.sigma
    return float((((points - shape.ellipse.centre) ** 2).sum(1) <= reach**2).mean())


def _split(
    line: Midline,
    index: np.ndarray,
    volume_shape: tuple[int, ...],
    least: float,
    most_sigma: float,
    config: SelectConfig,
):
    """Two ellipsoids for a region that one does not fit: alternate between assigning points and fitting.

    Returns the two parts, or None unless at least one of them is a closed membrane, whose points agree with its ellipsoid
    within `most_sigma`: an open sheet is left whole.
    """
    points, normals = line.points[index], line.normals[index]
    centred = points - points.mean(0)
    axis = np.linalg.svd(centred[:: max(1, len(index) // 4096)], full_matrices=False)[2][0]
    side = centred @ axis > np.median(centred @ axis)
    for _ in range(8):
        if min(side.sum(), (~side).sum()) < 0.5 * least:
            return None
        shapes = [describe(points[part], normals[part], volume_shape) for part in (~side, side)]
        # how far off, in voxels; a normal that disagrees counts as three more
        off = [
            np.abs(distances(s.ellipse, points))
            + 3.0 * (1.0 - np.abs((directions(s.ellipse, points) * normals).sum(1)))
            for s in shapes
        ]
        new = off[1] < off[0]
        if (new == side).mean() > 0.999:
            break
        side = new
    pairs = zip(shapes, (~side, side))
    if not any(is_closed(s, config) and part.sum() >= least and s.sigma < most_sigma for s, part in pairs):
        return None
    return index[~side], index[side]


def _arcs_of_one(line, queue, volume_shape, least, config, report) -> list[np.ndarray]:
    """Join open regions that only together make a closed membrane: arcs too far apart for merging."""
    queue = sorted(queue, key=lambda index: -len(index))
    large = [index for index in queue if len(index) >= 0.5 * least]
    small = queue[len(large) :]
    shapes = [describe(line.points[i], line.normals[i], volume_shape) for i in large]
    settled = [i for i, s in zip(large, shapes) if is_closed(s, config)]
    arcs = [(i, s, line.points[i].mean(0)) for i, s in zip(large, shapes) if not is_closed(s, config)]
    k = 0
    while k < len(arcs):
        index, shape, middle = arcs[k]
        best = None
        for other in _next_to(middle, [arc[2] for arc in arcs[k + 1 :]], k + 1):
            both = np.concatenate([index, arcs[other][0]])
            joint = describe(line.points[both], line.normals[both], volume_shape)
            on = on_ellipsoid(joint, line.points[both], line.normals[both], config.tolerance)
            more = joint.seen > max(shape.seen, arcs[other][1].seen) + 0.1
            fair = min(on[: len(index)].mean(), on[len(index) :].mean()) >= 0.4
            if is_closed(joint, config) and more and fair and (best is None or on.mean() > best[0]):
                best = on.mean(), other, both
        if best is None or best[0] < 0.6:
            k += 1
            continue
        report(f"regions of {len(index)} and {len(arcs[best[1]][0])} points are arcs of one membrane")
        settled.append(best[2])
        del arcs[best[1]], arcs[k]
    return settled + [index for index, *_ in arcs] + small


def _next_to(middle: np.ndarray, others: list[np.ndarray], first: int) -> list[int]:
    """Which of the other arcs' middles are closest to an arc's, in their order, counted from `first`."""
    if len(others) < _MOST_ARCS:
        return list(range(first, first + len(others)))
    away = np.linalg.norm(np.stack(others) - middle, axis=1)
    return sorted((first + np.argsort(away, kind="stable")[: _MOST_ARCS - 1]).tolist())


def resolve(line, region, volume_shape, voxel_size, least, config, merge, report) -> dict[int, Described]:
    """Regions as one closed surface each, where that can be had: arcs are joined, mixed regions split, strays let go.

    Arguments:
        line: midline points.
        region: of each point, from 1; 0 is nobody.
        volume_shape: of the volume.
        voxel_size: A.
        least: points of a region that may be a membrane by itself.
        config: thresholds.
        merge: how points that a closed membrane lets go are grouped again.
        report: told what was split or joined.

    Returns:
        Pieces by number from 1, the largest first.
    """
    queue = members_of(region)
    queue = _arcs_of_one(line, queue, volume_shape, least, config, report)
    settled: list[tuple[np.ndarray, Shape]] = []
    shut: dict[bytes, Closure] = {}
    three = line.points.shape[1] == 3
    attempts, most = 0, max(_MOST_ATTEMPTS, 3 * sum(len(index) >= 0.5 * least for index in queue))
    while queue:
        index = queue.pop(0)
        if len(index) < 0.5 * least:
            continue
        shape = describe(line.points[index], line.normals[index], volume_shape)
        attempts += 1
        if is_closed(shape, config):
            off = ~on_ellipsoid(shape, line.points[index], line.normals[index], config.tolerance)
            if three and off.mean() > 0.15 and _takes_shape(line, index, shape, volume_shape, config, shut):
                settled.append((index, shape))
                continue
            mixed = off.mean() > 0.15 and attempts < most
            parts = _split(line, index, volume_shape, least, 0.8 * shape.sigma, config) if mixed else None
            if parts is not None:
                report(f"a region of {len(index)} points was split into {len(parts[0])} and {len(parts[1])}")
                queue += parts
                continue
            if off.sum() >= 0.25 * least and attempts < most:
                rest = index[off]
                part = merge_regions(line.points[rest], line.normals[rest], voxel_size, merge)
                queue += [rest[part == k] for k in range(1, part.max() + 1)]
                report(f"{off.sum()} points off a closed membrane of {len(index)} were looked at by themselves")
                index = index[~off]
                shape = describe(line.points[index], line.normals[index], volume_shape)
        elif three and _takes_shape(line, index, shape, volume_shape, config, shut):
            pass
        elif len(index) >= 2 * least and attempts < most:
            parts = _split(line, index, volume_shape, least, np.inf, config)
            if parts is not None:
                report(f"a region of {len(index)} points was split into {len(parts[0])} and {len(parts[1])}")
                queue += parts
                continue
        settled.append((index, shape))
    # what was let go may be the other half of something
    known = {index.tobytes(): shape for index, shape in settled}
    whole = [index for index, _ in settled if index.tobytes() in shut]
    rest = [index for index, _ in settled if index.tobytes() not in shut]
    again = _arcs_of_one(line, rest, volume_shape, least, config, report)

    def described(index: np.ndarray) -> Shape:
        return known.get(index.tobytes()) or describe(line.points[index], line.normals[index], volume_shape)

    final: list[Described] = [(i, described(i), shut[i.tobytes()]) for i in whole]
    sides = []
    for index in again:
        if three and len(index) >= least and not is_closed(described(index), config):
            sides.append(index)
        else:
            final.append((index, described(index), None))
    final += [(i, described(i), c) for i, c in join_sides(line, sides, volume_shape, config, report)]
    final.sort(key=lambda one: -len(one[0]))
    return dict(enumerate(final, 1))


def _takes_shape(line, index, shape, volume_shape, config, shut: dict[bytes, Closure]) -> bool:
    """Whether points are a closed surface that an ellipsoid does not describe; it is then noted."""
    closure = closure_of(line.points[index], line.normals[index], volume_shape, config)
    if closure is None or not is_shut(closure, config) or (is_closed(shape, config) and not improves(closure, shape)):
        return False
    shut[index.tobytes()] = closure
    return True


def improves(closure: Closure, shape: Shape) -> bool:
    """Whether points lie closer about a closure than about the closed ellipsoid through them, which leaves something to be wished for."""
    return shape.sigma > _GOOD and closure.sigma <= BETTER * shape.sigma


def thinner(closure: Closure, shape: Shape) -> bool:
    """Whether only the rim of something flat is there, and its curvature says that it is thinner than the ellipsoid.

    A membrane's side is then as flat as its rim lets it be, and no dome. This asks for points in their place: the missing wedge draws the rim
    out along the beam, and so does a network that learnt from single slices.
    """
    axes = np.asarray(shape.ellipse.semi_axes)
    thin = int(np.argmin(axes))
    lies = abs(np.asarray(shape.ellipse.rotation)[thin, 0]) > LYING
    flat = axes[thin] < _OBLATE * np.sort(axes)[1]
    return bool(lies and flat and closure.across < _THINNER * axes[thin])
