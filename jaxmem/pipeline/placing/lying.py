"""Sacs that lie across the beam, of which the rim is all that is seen."""

import numpy as np

from jaxmem.grouping import Midline, Region
from jaxmem.grouping.closing import lying_sac
from jaxmem.pipeline.keeping.record import Run

STEEP = 0.7
"""Component along the beam, at most, of the normals of a lying sac's points."""

_FEWEST = 50  # points of a rim


def lying_form(line: Midline, region: Region, run: Run) -> Region:
    """The region as a sac if only the rim of something lying and flat is seen; the same region otherwise.

    Arguments:
        line: the midline.
        region: a membrane on it.
        run: told of a sac.
    """
    if not region.closed or region.blend is not None:
        return region
    points = line.points[region.members]
    blend = lying_sac(points, line.normals[region.members], region.shape)
    if blend is None:
        return region
    # the network draws the rim out along the beam
    steep = region.members[np.abs(line.normals[region.members, 0]) < STEEP]
    if len(steep) < _FEWEST:
        return region
    where = np.round(points.mean(0)).astype(int).tolist()
    run.decide(
        f"of the membrane at {where} the rim is seen: it is taken for a sac, {2 * float(blend.size):.0f} voxels thick"
    )
    return region._replace(blend=blend, members=steep)
