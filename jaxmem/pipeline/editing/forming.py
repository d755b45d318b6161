"""What becomes of a membrane's points when they are joined, split or given by hand."""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from jaxmem.defaults import known
from jaxmem.grouping import Midline, Region, describe
from jaxmem.grouping.hypotheses import closure_of
from jaxmem.grouping.resolving import improves, thinner
from jaxmem.grouping.select import regions_from_instances
from jaxmem.pipeline.placing.refinement import Points
from jaxmem.settings import Config
from jaxmem.surface.preparing import thinned


def formed(line: Midline, members: np.ndarray, closed: bool | None, shape: tuple[int, ...], config: Config) -> Region:
    """A membrane through some of the midline's points.

    Arguments:
        line: the midline.
        members: indices of the points.
        closed: whether it is to close; decided from its points when None.
        shape: of the volume.
        config: thresholds.
    """
    if closed is None:
        owner = np.zeros(len(line.points), int)
        owner[members] = 1
        return regions_from_instances(line, owner, shape, config.select)[0]
    points, normals = line.points[members], line.normals[members]
    ellipsoid = describe(points, normals, shape)
    if not closed:
        return Region(members, ellipsoid, False)
    closure = closure_of(points, normals, shape, config.select) if points.shape[1] == 3 else None
    if closure is not None and (improves(closure, ellipsoid) or thinner(closure, ellipsoid)):
        return Region(members, ellipsoid, True, closure.blend)
    return Region(members, ellipsoid, True)


def nearest_along(points: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """(n,) the number of the seed from which the way along the points is shortest; where none leads, the nearest one.

    Arguments:
        points: (n, d) voxels.
        seeds: (k, d) voxels.
    """
    tree = cKDTree(points)
    distance, near = tree.query(points, k=min(9, len(points)))
    n = len(points)
    rows = np.repeat(np.arange(n), near.shape[1])
    graph = coo_matrix((np.maximum(distance.ravel(), 1e-3), (rows, near.ravel())), (n, n)).tocsr()
    ways = dijkstra(graph, directed=False, indices=tree.query(seeds)[1])
    straight = np.linalg.norm(points[None] - seeds[:, None], axis=-1)
    reached = np.isfinite(ways).any(0)
    return np.where(reached, np.argmin(np.where(np.isfinite(ways), ways, np.inf), 0), np.argmin(straight, 0))


def as_placed(line: Midline, members: np.ndarray, config: Config) -> Points:
    """Midline points with the errors that a fit to them would take them to have.

    Arguments:
        line: the midline.
        members: indices of the points.
        config: settings of the fit.
    """
    points, normals, noise = thinned(
        line.points[members].astype(float), line.normals[members].astype(float), config.fit
    )
    nothing = np.zeros(len(points))
    return Points(points, normals, known(config.fit.inflation) * noise, nothing, nothing)
