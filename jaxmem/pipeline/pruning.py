"""Ellipse stage: an ellipse in each slice; spurious points are pruned and missed ones recovered (paper, Section 5.1).

One membrane after another: only its own points and those of nobody around it are held against its ellipses.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np
from scipy.spatial import cKDTree

from jaxmem import ellipse as ell
from jaxmem.defaults import known
from jaxmem.grouping import Midline, Region
from jaxmem.numerics import bucket_size, map_chunks
from jaxmem.pipeline.keeping.record import Run
from jaxmem.points import Cells
from jaxmem.settings import Config

_ROW = 96  # points a slice is fitted with
_TOGETHER = 8  # membranes fitted at a time
_CHUNK = 4096  # points held against ellipses at a time
_SLANT = 0.5  # |component along the beam| of the normal above which a slice's ellipse says little about a point
_REACH = 12.0  # voxels between a point that comes back and one that is there: ellipses do not reach across to other membranes


class Ellipses(NamedTuple):
    """Ellipses of one closed membrane, slice by slice.

    Attributes:
        fits: leading axis over slices, a few more than there are.
        first: the slice that row 0 stands for.
        fitted: points that they were fitted to.
    """

    fits: ell.EllipseFit
    first: int
    fitted: int


def slice_ellipses(line: Midline, regions: list[Region], config: Config, run: Run) -> dict[int, Ellipses] | None:
    """Fit an ellipse in each slice of each closed membrane, held by those in its neighbour slices.

    Arguments:
        line: midline points.
        regions: membranes; their members are rows of `line`.
        config: `config.ellipse`.
        run: told how far it is.

    Returns:
        Of each closed region that is about an ellipsoid, by its place among the regions. None in two dimensions, where no membrane closes, or where the
        stage is turned off.
    """
    closed = [k for k, region in enumerate(regions) if region.closed and region.blend is None]
    if line.points.shape[1] != 3 or not config.ellipse.enabled or not closed:
        return None
    planes = line.voxels[:, 0]
    first = {k: int(planes[regions[k].members].min()) for k in closed}
    rows = {k: bucket_size(int(planes[regions[k].members].max()) + 1 - first[k], 64) for k in closed}
    found: dict[int, Ellipses] = {}
    with run.stage("ellipses", len(closed)) as step:
        for size in sorted(set(rows.values())):
            alike = [k for k in closed if rows[k] == size]
            for start in range(0, len(alike), _TOGETHER):
                some = alike[start : start + _TOGETHER]
                points = np.zeros((_TOGETHER, size, _ROW, 2), np.float32)
                mask = np.zeros((_TOGETHER, size, _ROW), bool)
                for place, k in enumerate(some):
                    _fill(points[place], mask[place], line, regions[k].members, first[k])
                fits = jax.tree.map(np.asarray, _fit(points, mask, config.ellipse.change))
                for place, k in enumerate(some):
                    one = jax.tree.map(lambda a, place=place: a[place], fits)
                    found[k] = Ellipses(one, first[k], int(mask[place].sum()))
                step(len(found))
    return dict(sorted(found.items()))


def _fill(points: np.ndarray, mask: np.ndarray, line: Midline, members: np.ndarray, first: int) -> None:
    """Points of one membrane into the rows of their slices, at most `_ROW` of each."""
    planes = line.voxels[members, 0]
    order = np.argsort(planes, kind="stable")
    for index in np.split(members[order], np.flatnonzero(np.diff(planes[order])) + 1):
        some = index[np.linspace(0, len(index) - 1, min(len(index), _ROW)).astype(int)]
        row = line.voxels[index[0], 0] - first
        points[row, : len(some)] = line.points[some, 1:]
        mask[row, : len(some)] = True


def prune_and_recover(
    line: Midline, regions: list[Region], slices: dict[int, Ellipses] | None, config: Config, run: Run
) -> list[Region]:
    """Points far from their slice's ellipse go, and near ones come back; not where the membrane faces the beam.

    A point that comes back goes to the membrane whose ellipse is nearest.

    Arguments:
        line: midline points, those too faint for the grouping included: they may come back.
        regions: membranes; their members are rows of `line`.
        slices: of `slice_ellipses`.
        config: `config.ellipse`; errors of neighbouring points agree as `config.fit.inflation` says.
        run: told what changed.

    Returns:
        The regions with new members.
    """
    if slices is None:
        return regions
    steep = np.abs(line.normals[:, 0]) <= _SLANT
    free = steep & (line.weight >= config.ellipse.least_probability)
    for region in regions:
        free[region.members] = False
    nobody = np.flatnonzero(free)
    cells = Cells(line.points[nobody])
    nearest, owner = np.full(len(nobody), np.inf, np.float32), np.full(len(nobody), -1)
    stays: dict[int, np.ndarray] = {}
    for k, ellipses in slices.items():
        mine = regions[k].members
        asked = steep[mine]
        stays[k] = ~asked
        stays[k][asked] = _judged(ellipses, line, mine[asked], config)[1]
        near = cells.within(line.points[mine].min(0) - _REACH, line.points[mine].max(0) + _REACH)
        planes = line.voxels[nobody[near], 0]
        near = near[(planes >= line.voxels[mine, 0].min()) & (planes <= line.voxels[mine, 0].max())]
        distance, _, welcome = _judged(ellipses, line, nobody[near], config)
        better = near[welcome & (distance < nearest[near])]
        nearest[better] = distance[welcome & (distance < nearest[near])]
        owner[better] = k
    members = [region.members for region in regions]
    for k, stay in stays.items():
        if stay.sum() < 0.5 * len(stay):
            continue  # then the ellipses are wrong, not the points
        back = nobody[owner == k]
        back = back[cKDTree(line.points[members[k]]).query(line.points[back])[0] <= _REACH]
        if not stay.all() or len(back):
            run.decide(f"membrane {k + 1}: ellipses pruned {(~stay).sum()} points and recovered {len(back)}")
        members[k] = np.sort(np.concatenate([members[k][stay], back]))
    return [r._replace(members=m) for r, m in zip(regions, members)]


_fit = jax.jit(jax.vmap(lambda points, mask, change: ell.fit_sequence(points, mask, change=change), (0, 0, None)))


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0, None))
def _judge(fits: ell.EllipseFit, place, tolerance) -> ell.Verdict:
    """Verdicts on points, each with its row before its two coordinates, by the ellipses of their rows."""
    fit = jax.tree.map(lambda a: a[place[0].astype(int)], fits)
    return ell.judge(fit, place[1:], tolerance=tolerance)


def _judged(ellipses: Ellipses, line: Midline, index: np.ndarray, config: Config) -> ell.Verdict:
    """What a membrane's ellipses say of some points, all in slices that it has."""
    fits = ellipses.fits._replace(covariance=np.float32(known(config.fit.inflation) ** 2) * ellipses.fits.covariance)
    row = (line.voxels[index, :1] - ellipses.first).astype(np.float32)
    place = np.concatenate([row, line.points[index, 1:]], 1)
    tolerance = np.float32(config.ellipse.tolerance)
    return ell.Verdict(*map_chunks(lambda some: _judge(fits, some, tolerance), place, _CHUNK))
