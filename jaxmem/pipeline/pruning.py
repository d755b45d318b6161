"""Ellipse stage: spurious points are pruned and missed ones recovered, slice by slice (paper, Section 5.1)."""

import jax
import numpy as np
from scipy.spatial import cKDTree

from jaxmem import ellipse as ell
from jaxmem.grouping import Midline, Region
from jaxmem.numerics import bucket_size
from jaxmem.pipeline.config import Config
from jaxmem.pipeline.record import Run

_ROW = 96  # points a slice is fitted with
_TOGETHER = 8  # membranes fitted at a time
_BEYOND = 4  # slices above and below a membrane's own in which points may come back
_REACH = 12.0  # voxels between a point that comes back and one that is there: ellipses do not reach across to other membranes


def prune_and_recover(line: Midline, regions: list[Region], config: Config, run: Run) -> list[Region]:
    """In each slice an ellipse, held by those of the neighbouring slices; points far from it go, near ones come back.

    Only closed membranes that an ellipse describes take part.

    Arguments:
        line: midline points, those too faint for the grouping included: they may come back.
        regions: membranes; their members are rows of `line`.
        config: `config.ellipse`; errors of neighbouring points agree as `config.fit.inflation` says.
        run: told what changed.

    Returns:
        The regions with new members.
    """
    closed = [k for k, region in enumerate(regions) if region.closed]
    if line.points.shape[1] != 3 or not config.ellipse.enabled or not closed:
        return regions
    planes = line.voxels[:, 0]
    owner = np.zeros(len(line.points), int)
    for number, k in enumerate(closed, 1):
        owner[regions[k].members] = number
    free = owner == 0
    for k in set(range(len(regions))) - set(closed):
        free[regions[k].members] = False
    first, last = (int(reach) for reach in (planes[owner > 0].min(), planes[owner > 0].max()))
    first -= _BEYOND
    rows = bucket_size(last + _BEYOND + 1 - first, 32)
    with run.stage("ellipses", len(closed) + 1) as step:
        fits = _sequences(line.points, planes - first, owner, len(closed), rows, config, step)
        asked = np.flatnonzero((owner > 0) | (free & (planes >= first) & (planes <= last + _BEYOND)))
        answer = owner.copy()
        answer[asked] = _ask(fits, line, asked, planes[asked] - first, owner[asked], rows, config)
    members = [region.members for region in regions]
    for number, k in enumerate(closed, 1):
        mine = owner == number
        gone = mine & (answer != number)
        if gone.sum() > 0.5 * mine.sum():
            continue  # then the ellipses are wrong, not the points
        span = planes[mine].min() - _BEYOND, planes[mine].max() + _BEYOND
        back = np.flatnonzero((answer == number) & (owner == 0) & (planes >= span[0]) & (planes <= span[1]))
        back = back[cKDTree(line.points[mine]).query(line.points[back])[0] <= _REACH]
        members[k] = np.sort(np.concatenate([np.flatnonzero(mine & ~gone), back]))
        if gone.any() or len(back):
            run.decide(f"membrane {k + 1}: ellipses pruned {gone.sum()} points and recovered {len(back)}")
    return [r._replace(members=m) for r, m in zip(regions, members)]


_fit = jax.jit(jax.vmap(lambda points, mask, change: ell.fit_sequence(points, mask, change=change), (0, 0, None)))
_select = jax.jit(lambda *a: ell.select(*a[:4], tolerance=a[4], least_probability=a[5]))


def _sequences(points, row, owner, count: int, rows: int, config: Config, step) -> ell.EllipseFit:
    """Ellipses of all membranes in all slices, on the host; leading axes (membranes up to a multiple of `_TOGETHER`, rows)."""
    parts = []
    for start in range(1, count + 1, _TOGETHER):
        padded = np.zeros((_TOGETHER, rows, _ROW, 2), np.float32)
        mask = np.zeros((_TOGETHER, rows, _ROW), bool)
        for number in range(start, min(start + _TOGETHER, count + 1)):
            mine = np.flatnonzero(owner == number)
            mine = mine[np.argsort(row[mine], kind="stable")]
            for index in np.split(mine, np.flatnonzero(np.diff(row[mine])) + 1):
                some = index[np.linspace(0, len(index) - 1, min(len(index), _ROW)).astype(int)]
                padded[number - start, row[index[0]], : len(some)] = points[some, 1:]
                mask[number - start, row[index[0]], : len(some)] = True
        parts.append(jax.tree.map(np.asarray, _fit(padded, mask, config.ellipse.change)))
        step(min(start + _TOGETHER - 1, count))
    fits = jax.tree.map(lambda *a: np.concatenate(a), *parts)
    return fits._replace(covariance=config.fit.inflation**2 * fits.covariance)


def _ask(fits, line: Midline, asked, row, owner, rows: int, config: Config) -> np.ndarray:
    """The owner of each point that is asked about, after `ellipse.select`."""
    order = np.argsort(row, kind="stable")
    counts = np.bincount(row, minlength=rows)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    width = bucket_size(int(counts.max()), 128)
    points = np.zeros((rows, width, 2), np.float32)
    owners = np.full((rows, width), -1, np.int32)
    probability = np.zeros((rows, width), np.float32)
    where = row[order], place
    points[where], owners[where] = line.points[asked[order], 1:], owner[order]
    probability[where] = line.weight[asked[order]]
    new = _select(fits, points, owners, probability, config.ellipse.tolerance, config.ellipse.least_probability)
    answer = np.empty(len(row), int)
    answer[order] = np.asarray(new)[where]
    return answer
