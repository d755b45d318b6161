"""Ellipse stage: an ellipse in each slice; spurious points are pruned and missed ones recovered (paper, Section 5.1)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import cKDTree

from jaxmem import ellipse as ell
from jaxmem.defaults import known
from jaxmem.grouping import Midline, Region
from jaxmem.numerics import bucket_size
from jaxmem.pipeline.record import Run
from jaxmem.settings import Config

_ROW = 96  # points a slice is fitted with
_TOGETHER = 8  # membranes fitted at a time
_SLANT = 0.5  # |component along the beam| of the normal above which a slice's ellipse says little about a point
_REACH = 12.0  # voxels between a point that comes back and one that is there: ellipses do not reach across to other membranes


class Slices(NamedTuple):
    """Ellipses of the closed membranes in all slices.

    Attributes:
        fits: leading axes over membranes (more than there are) and slices.
        first: the slice that row 0 stands for.
        order: of the regions, those in `fits`.
        counts: (membranes,) points that each membrane's ellipses were fitted to.
    """

    fits: ell.EllipseFit
    first: int
    order: list[int]
    counts: np.ndarray


def slice_ellipses(line: Midline, regions: list[Region], config: Config, run: Run) -> Slices | None:
    """Fit an ellipse in each slice of each closed membrane, held by those in its neighbour slices.

    Arguments:
        line: midline points.
        regions: membranes; their members are rows of `line`.
        config: `config.ellipse`.
        run: told how far it is.

    Returns:
        None in two dimensions, where no membrane closes, or where the stage is turned off.
    """
    closed = [k for k, region in enumerate(regions) if region.closed]
    if line.points.shape[1] != 3 or not config.ellipse.enabled or not closed:
        return None
    planes = line.voxels[:, 0]
    used = np.concatenate([regions[k].members for k in closed])
    first = int(planes[used].min())
    rows = bucket_size(int(planes[used].max()) + 1 - first, 32)
    parts, counts = [], []
    with run.stage("ellipses", len(closed)) as step:
        for start in range(0, len(closed), _TOGETHER):
            points = np.zeros((_TOGETHER, rows, _ROW, 2), np.float32)
            mask = np.zeros((_TOGETHER, rows, _ROW), bool)
            for place, k in enumerate(closed[start : start + _TOGETHER]):
                mine = regions[k].members[np.argsort(planes[regions[k].members], kind="stable")]
                for index in np.split(mine, np.flatnonzero(np.diff(planes[mine])) + 1):
                    some = index[np.linspace(0, len(index) - 1, min(len(index), _ROW)).astype(int)]
                    points[place, planes[index[0]] - first, : len(some)] = line.points[some, 1:]
                    mask[place, planes[index[0]] - first, : len(some)] = True
            parts.append(jax.tree.map(np.asarray, _fit(points, mask, config.ellipse.change)))
            counts.append(mask.sum((1, 2)))
            step(min(start + _TOGETHER, len(closed)))
    return Slices(jax.tree.map(lambda *a: np.concatenate(a), *parts), first, closed, np.concatenate(counts))


def prune_and_recover(
    line: Midline, regions: list[Region], slices: Slices | None, config: Config, run: Run
) -> list[Region]:
    """Points far from their slice's ellipse go, and near ones come back; not where the membrane faces the beam.

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
    planes = line.voxels[:, 0]
    owner = np.zeros(len(planes), int)
    for k, region in enumerate(regions):
        owner[region.members] = slices.order.index(k) + 1 if k in slices.order else -1
    rows = slices.fits.outcome.shape[1]
    within = (planes >= slices.first) & (planes < slices.first + rows)
    asked = np.flatnonzero((owner >= 0) & within & (np.abs(line.normals[:, 0]) <= _SLANT))
    fits = slices.fits._replace(covariance=known(config.fit.inflation) ** 2 * slices.fits.covariance)
    answer = owner.copy()
    answer[asked] = _ask(fits, line, asked, planes[asked] - slices.first, owner[asked], config)
    members = [region.members for region in regions]
    for number, k in enumerate(slices.order, 1):
        mine = owner == number
        gone = mine & (answer != number)
        if gone.sum() > 0.5 * mine.sum():
            continue  # then the ellipses are wrong, not the points
        span = (planes >= planes[mine].min()) & (planes <= planes[mine].max())
        back = np.flatnonzero((answer == number) & (owner == 0) & span)
        back = back[cKDTree(line.points[mine]).query(line.points[back])[0] <= _REACH]
        members[k] = np.sort(np.concatenate([np.flatnonzero(mine & ~gone), back]))
        if gone.any() or len(back):
            run.decide(f"membrane {k + 1}: ellipses pruned {gone.sum()} points and recovered {len(back)}")
    return [r._replace(members=m) for r, m in zip(regions, members)]


_fit = jax.jit(jax.vmap(lambda points, mask, change: ell.fit_sequence(points, mask, change=change), (0, 0, None)))


def _ask(fits, line: Midline, asked, row, owner, config: Config) -> np.ndarray:
    """The owner of each point that is asked about, after `ellipse.select`."""
    rows = fits.outcome.shape[1]
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
    new = ell.select(
        fits,
        *(jnp.asarray(a) for a in (points, owners, probability)),
        tolerance=config.ellipse.tolerance,
        least_probability=config.ellipse.least_probability,
    )
    answer = np.empty(len(row), int)
    answer[order] = np.asarray(new)[where]
    return answer
