"""Whether ellipses, an ellipsoid or the Gaussian process describes a membrane best."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import cKDTree

from jaxmem import ellipse as ell
from jaxmem.defaults import known
from jaxmem.grouping import Midline, Region
from jaxmem.grouping.shape import describe, distances
from jaxmem.numerics import bucket_size, pad_to
from jaxmem.pipeline.placing.refinement import Points
from jaxmem.pipeline.pruning import Ellipses
from jaxmem.points import evenly, first_of_each
from jaxmem.results import Evidence
from jaxmem.settings import FitConfig
from jaxmem.surface import Mesh

_MOST = 1024  # points; `describe` uses no more


def _criterion(residual: np.ndarray, parameters: float) -> float:
    padded, mask = pad_to(np.asarray(residual, np.float32), bucket_size(len(residual), 512))
    return float(ell.bic(jnp.asarray(padded), jnp.asarray(mask), parameters))


@jax.jit
@partial(jax.vmap, in_axes=(None, 0, 0))
def in_slice(fits: ell.EllipseFit, row, point):
    """Distances of points to the ellipses of their slices, and how much each point itself holds its ellipse (its leverage).

    Arguments:
        fits: of one membrane, leading axis over slices.
        row: (n,) slices of the points.
        point: (n, 2) voxels.

    Returns:
        (n,) voxels, negative inside, and (n,) leverages, whose sum over the points of a fit is its number of parameters.
    """
    fit = jax.tree.map(lambda a: a[row], fits)
    theta = ell.parameters(fit.ellipse)
    away, slope = jax.value_and_grad(lambda t: ell.distance(ell.from_parameters(t), point))(theta)
    # a leverage is in units of the variance that the sequence took for its points: one voxel^2
    return away, slope @ fit.covariance @ slope


class Cloud(NamedTuple):
    """Points of a membrane whose errors are taken to be independent.

    Attributes:
        points, normals: (n, d) voxels.
        row: (n,) their slices; 0 of a single one.
        sigma: (n,) their standard deviations, voxels.
    """

    points: np.ndarray
    normals: np.ndarray
    row: np.ndarray
    sigma: np.ndarray


def cloud(line: Midline, region: Region, placed: Points | None, noise: float, config: FitConfig) -> Cloud:
    """What the models are compared on: points `config.spacing` apart of the midline, or those that the tomogram has placed.

    Arguments:
        line: midline points.
        region: the membrane's.
        placed: its points as the tomogram has placed them.
        noise: of the midline's points about the surface, voxels.
        config: as used in the fit.
    """
    if placed is not None:
        chosen = evenly(placed.points, _MOST)
        points = placed.points[chosen]
        return Cloud(points, placed.normals[chosen], np.round(points[:, 0]).astype(int), placed.sigma[chosen])
    points = line.points[region.members]
    cells = len(first_of_each(np.floor(points / config.spacing).astype(int)))
    chosen = evenly(points, int(np.clip(cells, 8, _MOST)))
    index = region.members[chosen]
    row = line.voxels[index, 0] if points.shape[1] == 3 else np.zeros(len(index), int)
    sigma = np.full(len(index), known(config.inflation) * noise)
    return Cloud(points[chosen], line.normals[index], row, sigma)


def weigh(cloud: Cloud, ellipses: Ellipses | None, mesh: Mesh) -> Evidence:
    """Compare the models of a closed membrane.

    Distances are across the surface: one within a slice counts by the part of the normal that lies in the slice.

    Arguments:
        cloud: points of the membrane.
        ellipses: of its slices, if they were fitted.
        mesh: its surface.
    """
    points, normals = cloud.points, cloud.normals
    three = points.shape[1] == 3
    closest = cKDTree(mesh.vertices).query(points)[1]
    away = ((points - mesh.vertices[closest]) * mesh.normals[closest]).sum(1)
    # the trace of the process's hat matrix is the sum of the variances of its mean over those of the points; its anchors, which are
    # made from the points, hide some of it, but it is never less than that of the ellipsoid it starts from
    least = 9.0 if three else 5.0
    gp = _criterion(away, max(least, float(np.sum((mesh.sigma[closest] / cloud.sigma) ** 2))))
    ellipse = describe(points, normals, (1,) * points.shape[1]).ellipse
    fixed = _criterion(distances(ellipse, points), least)
    axes = np.asarray(ellipse.semi_axes)
    if not three:
        return Evidence(fixed, None, gp, axes)
    by_slice = None
    if ellipses is not None:
        fits = ellipses.fits
        row = np.clip(cloud.row - ellipses.first, 0, len(fits.outcome) - 1)
        size = bucket_size(len(points), 512)
        in_plane, leverage = in_slice(fits, pad_to(row, size)[0], pad_to(points[:, 1:].astype(np.float32), size)[0])
        in_plane, leverage = np.asarray(in_plane)[: len(points)], np.asarray(leverage)[: len(points)]
        freedom = float(leverage.mean()) * float(ellipses.fitted)
        by_slice = _criterion(in_plane * np.sqrt(np.maximum(1.0 - normals[:, 0] ** 2, 0.0)), freedom)
    return Evidence(by_slice, fixed, gp, axes)
