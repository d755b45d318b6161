"""From regions to membranes: fragments join the closed surface they lie on, and what is too little to be one is dropped."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxmem import gp
from jaxmem.defaults import FROM_NETWORK
from jaxmem.grouping.closing import Closure
from jaxmem.grouping.hypotheses import closure_of, is_shut, on_blend
from jaxmem.grouping.merging import MergeConfig
from jaxmem.grouping.midline import Midline
from jaxmem.grouping.resolving import (
    improves,
    is_closed,
    members_of,
    on_ellipsoid,
    resolve,
    thinner,
    within_reach,
)
from jaxmem.grouping.shape import Shape, describe, distances
from jaxmem.points import surface_density
from jaxmem.settings import SelectConfig

_PER_VOXEL = 1.3  # midline points on a square voxel of surface, or on a voxel of curve (measured)
_WHOLE = 0.97  # share of a closed surface that has points, from which nothing is left to be inferred
_DEEP = 9.0  # voxels; half the distance across that leaves room for an open surface's anchors on both sides (`FitConfig.offset`)


class Region(NamedTuple):
    """One membrane's points.

    Attributes:
        members: indices into the midline.
        shape: its ellipsoid.
        closed: whether it closes around a centre, or as `blend` says.
        blend: of a closed surface that is no ellipsoid.
    """

    members: Int[np.ndarray, " n"]
    shape: Shape
    closed: bool
    blend: gp.Blend | None = None

    @property
    def form(self) -> Shape | gp.Blend:
        """What its surface is expected to be near."""
        return self.shape if self.blend is None else self.blend


def select_membranes(
    line: Midline,
    region: Int[np.ndarray, " n"],
    volume_shape: tuple[int, ...],
    voxel_size: float,
    config: SelectConfig,
    report: Callable[[str], None] = lambda _: None,
    *,
    merge: MergeConfig | None = None,
) -> list[Region]:
    """Choose the regions that are membranes.

    Arguments:
        line: midline points.
        region: of each point, 1...m by falling size, from `merge_regions`.
        volume_shape: voxels.
        voxel_size: A, for the thresholds on areas and lengths.
        config: thresholds.
        report: told what was split, joined or dropped, and why.
        merge: how points that a closed membrane lets go are grouped again; the defaults when None.

    Returns:
        The membranes, largest first.
    """
    if line.points.shape[1] == 3:
        least, least_open = (_PER_VOXEL * a / voxel_size**2 for a in (config.least_area, config.least_open_area))
    else:
        least, least_open = (_PER_VOXEL * a / voxel_size for a in (config.least_length, config.least_open_length))
    least_probability = config.least_open_probability
    if least_probability is None:
        least_probability = FROM_NETWORK["select"]["least_open_probability"]
    described = resolve(line, region, volume_shape, voxel_size, least, config, merge or MergeConfig(), report)
    # closed ones, the largest first, take the fragments that lie on them, and are then described again
    for r, (index, shape, closure) in list(described.items()):
        if r not in described or (
            closure is None and (shape.radial < config.least_radial or shape.seen < config.least_seen)
        ):
            continue
        joined = [index]
        for other, (theirs, their_shape, their_closure) in list(described.items()):
            if other <= r or their_closure is not None or is_closed(their_shape, config):
                continue
            if _belongs(line, theirs, shape, closure, config.tolerance):
                joined.append(theirs)
                del described[other]
        if len(joined) > 1:
            report(f"{len(joined) - 1} fragments joined to a membrane of {len(index)} points")
            index = np.concatenate(joined)
            shape = describe(line.points[index], line.normals[index], volume_shape)
            if closure is not None:
                closure = closure_of(line.points[index], line.normals[index], volume_shape, config) or closure
            described[r] = index, shape, closure

    found = []
    for index, shape, closure in described.values():
        closed = closure is not None or is_closed(shape, config)
        if closure is not None and closure.blend.vaulted > 0:
            # the missing wedge draws walls out over where they bend inwards
            index = index[on_blend(closure, line.points[index], config.tolerance)]
        density = surface_density(line.points[index])
        probability = float(line.weight[index].mean())
        faint = not closed and probability < least_probability
        if len(index) < (least if closed else least_open) or density < config.least_density or faint:
            reason = f"{len(index)} points, {density:.2f} per voxel, probability {probability:.2f}, seen {shape.seen:.0%} as an ellipsoid"
            report(f"dropped a region at {np.round(line.points[index].mean(0)).astype(int).tolist()}: {reason}")
            continue
        if closure is not None:
            where = np.round(line.points[index].mean(0)).astype(int).tolist()
            report(
                f"the membrane at {where} closes, but not as an ellipsoid: of what would be seen of it "
                f"{closure.expected:.0%} is there, {2.0 * closure.across:.0f} voxels across"
            )
        found.append(Region(np.sort(index), shape, closed, None if closure is None else closure.blend))
    return sorted(found, key=lambda one: -len(one.members))


def _belongs(line: Midline, theirs: np.ndarray, shape: Shape, closure: Closure | None, tolerance: float) -> bool:
    """Whether a fragment lies on a closed membrane."""
    points, normals = line.points[theirs], line.normals[theirs]
    if closure is not None:
        near = ((points >= closure.low - tolerance) & (points <= closure.high + tolerance)).all(1)
        return near.mean() > 0.7 and bool(on_blend(closure, points, tolerance).mean() > 0.7)
    return within_reach(shape, points, tolerance) > 0.7 and bool(
        on_ellipsoid(shape, points, normals, tolerance).mean() > 0.7
    )


def regions_from_instances(
    line: Midline, instance: Int[np.ndarray, " n"], volume_shape: tuple[int, ...], config: SelectConfig
) -> list[Region]:
    """Regions from instance labels made elsewhere: nothing is joined or dropped, only described."""
    found = []
    labelled = np.flatnonzero(instance > 0)
    _, number = np.unique(instance[labelled], return_inverse=True)
    for index in (labelled[own] for own in members_of(number + 1)):
        if len(index) <= 4 * line.points.shape[1]:
            continue
        points = line.points[index]
        shape = describe(points, line.normals[index], volume_shape)
        # every point is the membrane's own: if many lie deep within the ellipsoid, that is the hole of a ring
        deep = np.abs(distances(shape.ellipse, points)) > 0.4 * np.min(shape.ellipse.semi_axes)
        round_ = is_closed(shape, config) and bool(deep.mean() < 0.05)
        closure = closure_of(points, line.normals[index], volume_shape, config) if points.shape[1] == 3 else None
        if not is_shut(closure, config) or (round_ and not improves(closure, shape) and not thinner(closure, shape)):
            closure = None
        if closure is not None and closure.seen >= _WHOLE and closure.across >= _DEEP:
            # points all around say more than what is expected of them
            closure, round_ = None, False
        found.append(Region(index, shape, round_ or closure is not None, None if closure is None else closure.blend))
    return found
