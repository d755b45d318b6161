"""Ellipse stage: spurious points are pruned and missed ones recovered, slice by slice (paper, Section 5.1)."""

import jax
import numpy as np
from scipy.spatial import cKDTree

from jaxmem import ellipse as ell
from jaxmem.grouping import Midline, Region
from jaxmem.numerics import bucket_size
from jaxmem.pipeline.config import Config
from jaxmem.pipeline.record import Run


def prune_and_recover(line: Midline, regions: list[Region], config: Config, run: Run) -> list[Region]:
    """Ellipse stage: in each slice an ellipse, warm-started from the neighbour; points far from it go, near ones come back.

    Only closed membranes that an ellipse describes take part (paper, Section 5.1).
    """
    if line.points.shape[1] != 3 or not config.ellipse.enabled:
        return regions
    taken = np.zeros(len(line.points), int)
    for number, region in enumerate(regions, 1):
        taken[region.members] = number
    with run.stage("ellipses", len(regions)) as step:
        for number, region in enumerate(regions, 1):
            if region.closed:
                gone, back = _one_sequence(line, taken, number, config)
                if gone or back:
                    run.decide(f"membrane {number}: ellipses pruned {gone} points and recovered {back}")
            step(number)
    return [r._replace(members=np.flatnonzero(taken == k)) for k, r in enumerate(regions, 1)]


_sequence = jax.jit(lambda points, mask, change: ell.fit_sequence(points, mask, prior_sigma=change, noise=1.0))
_distance_rows = jax.jit(jax.vmap(jax.vmap(ell.distance, (None, 0))))
_ROW = 96  # points a slice is fitted with


def _one_sequence(line: Midline, taken: np.ndarray, number: int, config: Config) -> tuple[int, int]:
    mine = taken == number
    planes = line.voxels[:, 0]
    first, last = int(planes[mine].min()), int(planes[mine].max())
    rows = bucket_size(last - first + 1, 32)
    points, mask = np.zeros((rows, _ROW, 2), np.float32), np.zeros((rows, _ROW), bool)
    for z in range(first, last + 1):
        index = np.flatnonzero(mine & (planes == z))
        index = index[np.linspace(0, len(index) - 1, min(len(index), _ROW)).astype(int)] if len(index) else index
        points[z - first, : len(index)] = line.points[index, 1:]
        mask[z - first, : len(index)] = True
    fits = _sequence(points, mask, config.ellipse.change)
    # far from the slice with most points an ellipse through few points means little: only trusted slices decide
    trusted = np.asarray(fits.success) & (mask.sum(1) >= 12)
    tolerance = np.maximum(config.ellipse.tolerance, 3.0 * np.nan_to_num(np.asarray(fits.sigma), nan=np.inf))
    tolerance = np.where(tolerance > 3.0 * config.ellipse.tolerance, np.inf, tolerance)  # no ellipse: leave it alone
    inside = (planes >= first) & (planes <= last)
    candidates = np.flatnonzero(inside & (mine | (taken == 0)))
    row = planes[candidates] - first
    order = np.argsort(row, kind="stable")
    candidates, row = candidates[order], row[order]
    counts = np.bincount(row, minlength=rows)
    width = bucket_size(int(counts.max()), 128)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    grid = np.zeros((rows, width, 2), np.float32)
    grid[row, place] = line.points[candidates, 1:]
    far = np.abs(np.asarray(_distance_rows(fits.ellipse, grid))[row, place])
    decides = trusted[row] & np.isfinite(tolerance[row])
    gone = candidates[decides & mine[candidates] & (far > tolerance[row])]
    # a recovered point also has to be near one that is already there: ellipses do not reach across to other membranes
    back = candidates[decides & ~mine[candidates] & (far <= config.ellipse.tolerance)]
    if len(back):
        near = cKDTree(line.points[mine]).query(line.points[back])[0] <= 12.0
        back = back[near]
    if len(gone) > 0.5 * mine.sum():
        return 0, 0  # then the ellipses are wrong, not the points
    taken[gone] = 0
    taken[back] = number
    return len(gone), len(back)
