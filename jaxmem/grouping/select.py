"""From regions to membranes: fragments join the closed surface they lie on, and what is too little to be one is dropped."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxmem.grouping.merging import MergeConfig, merge_regions
from jaxmem.grouping.midline import Midline
from jaxmem.grouping.shape import Shape, describe, directions, distances


@dataclass(frozen=True)
class SelectConfig:
    """When a region counts as a membrane.

    Attributes:
        least_points: a closed membrane has at least so many midline points (about one per square voxel of surface).
        least_open_points: the same for an open sheet, which nothing else vouches for.
        least_seen: share of a closed membrane's directions that must have points.
        least_expected: the same among directions where it ought to show.
        least_radial: median |cos| between the points' normals and the ellipsoid's.
        tolerance: a fragment joins an ellipsoid within so many voxels (plus the ellipsoid's own misfit).
    """

    least_points: int = 150
    least_open_points: int = 900
    least_seen: float = 0.25
    least_expected: float = 0.55
    least_radial: float = 0.8
    tolerance: float = 2.0


class Region(NamedTuple):
    """One membrane's points: indices into the midline, its ellipsoid, and whether it closes around a centre."""

    index: Int[np.ndarray, " n"]
    shape: Shape
    closed: bool


def is_closed(shape: Shape, config: SelectConfig) -> bool:
    """A surface all around a centre, as far as it can be seen."""
    axes = 1.0 / np.linalg.svd(np.asarray(shape.ellipse.shape), compute_uv=False)
    fits = shape.sigma <= max(2.0, 0.12 * float(axes.min()))
    covered = shape.seen >= config.least_seen and shape.expected >= config.least_expected
    return fits and covered and shape.radial >= config.least_radial


def _on(shape: Shape, points: np.ndarray, normals: np.ndarray, tolerance: float) -> np.ndarray:
    near = np.abs(distances(shape.ellipse, points)) <= tolerance + 2.0 * shape.sigma
    return near & (np.abs((directions(shape.ellipse, points) * normals).sum(1)) > 0.6)


def _split(line: Midline, index: np.ndarray, volume_shape: tuple[int, ...], least: float, config: SelectConfig):
    """Two ellipsoids for a region that one does not fit: alternate between assigning points and fitting.

    Returns the two parts, or None unless at least one of them is a closed membrane: an open sheet is left whole.
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
            np.abs(distances(s.ellipse, points)) + 3.0 * (1.0 - np.abs((directions(s.ellipse, points) * normals).sum(1)))
            for s in shapes
        ]
        new = off[1] < off[0]
        if (new == side).mean() > 0.999:
            break
        side = new
    if not any(is_closed(s, config) and part.sum() >= least for s, part in zip(shapes, (~side, side))):
        return None
    return index[~side], index[side]


def _resolve(line, region, volume_shape, least, config, report) -> dict[int, tuple[np.ndarray, Shape]]:
    """Regions as one closed surface each, where that can be had: mixed ones are split, points that lie off are let go."""
    queue = [np.flatnonzero(region == r) for r in range(1, region.max(initial=0) + 1)]
    settled: list[tuple[np.ndarray, Shape]] = []
    attempts = 0
    while queue:
        index = queue.pop(0)
        if len(index) < 0.5 * least:
            continue
        shape = describe(line.points[index], line.normals[index], volume_shape)
        attempts += 1
        if is_closed(shape, config):
            off = ~_on(shape, line.points[index], line.normals[index], config.tolerance)
            if off.sum() >= 0.5 * least and attempts < 200:
                rest = index[off]
                part = merge_regions(line.points[rest], line.normals[rest], MergeConfig())
                queue += [rest[part == k] for k in range(1, part.max() + 1)]
                report(f"{off.sum()} points off a closed membrane of {len(index)} were looked at by themselves")
                index = index[~off]
                shape = describe(line.points[index], line.normals[index], volume_shape)
        elif len(index) >= 2 * least and attempts < 200:
            parts = _split(line, index, volume_shape, least, config)
            if parts is not None:
                report(f"a region of {len(index)} points was split into {len(parts[0])} and {len(parts[1])}")
                queue += parts
                continue
        settled.append((index, shape))
    settled.sort(key=lambda one: -len(one[0]))
    return dict(enumerate(settled, 1))


def select_membranes(
    line: Midline,
    region: Int[np.ndarray, " n"],
    volume_shape: tuple[int, ...],
    config: SelectConfig,
    report: Callable[[str], None] = lambda _: None,
) -> list[Region]:
    """Choose the regions that are membranes.

    Arguments:
        line: midline points.
        region: of each point, 1...m by falling size, from `merge_regions`.
        volume_shape: voxels.
        config: thresholds; in two dimensions the numbers of points are taken to the power 2/3.
        report: told what was split, joined or dropped, and why.

    Returns:
        The membranes, largest first.
    """
    power = 1.0 if line.points.shape[1] == 3 else 2.0 / 3.0
    least, least_open = config.least_points**power, config.least_open_points**power
    described = _resolve(line, region, volume_shape, least, config, report)
    # closed ones, the largest first, take the fragments that lie on them, and are then described again
    for r, (index, shape) in list(described.items()):
        if r not in described or shape.radial < config.least_radial or shape.seen < config.least_seen:
            continue
        joined = [index]
        for other, (theirs, their_shape) in list(described.items()):
            if other <= r or is_closed(their_shape, config):
                continue
            if _on(shape, line.points[theirs], line.normals[theirs], config.tolerance).mean() > 0.7:
                joined.append(theirs)
                del described[other]
        if len(joined) > 1:
            report(f"{len(joined) - 1} fragments joined to a membrane of {len(index)} points")
            index = np.concatenate(joined)
            described[r] = index, describe(line.points[index], line.normals[index], volume_shape)

    found = []
    for index, shape in described.values():
        closed = is_closed(shape, config)
        if len(index) < (least if closed else least_open):
            reason = f"{len(index)} points, seen {shape.seen:.0%} of it, {shape.expected:.0%} where it ought to show"
            report(f"dropped a region at {np.round(line.points[index].mean(0)).astype(int).tolist()}: {reason}")
            continue
        found.append(Region(np.sort(index), shape, closed))
    return sorted(found, key=lambda one: -len(one.index))


def regions_from_instances(
    line: Midline, instance: Int[np.ndarray, " n"], volume_shape: tuple[int, ...], config: SelectConfig
) -> list[Region]:
    """Regions from instance labels made elsewhere: nothing is joined or dropped, only described."""
    found = []
    for value in np.unique(instance[instance > 0]):
        index = np.flatnonzero(instance == value)
        if len(index) <= 4 * line.points.shape[1]:
            continue
        shape = describe(line.points[index], line.normals[index], volume_shape)
        found.append(Region(index, shape, is_closed(shape, config)))
    return found

