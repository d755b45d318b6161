"""Top and bottom of a tube that lies across the beam, of which the walls are all that is seen."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxmem.grouping.faces import widths
from jaxmem.points import evenly

UNSEEN = 4.0
"""How many times less well it is known where a surface lies that no point tells of."""

_UPRIGHT = 0.5  # |component along the beam| of a wall's normals
_FEWEST = 20  # points that have others across
_PLACES = 48  # along the tube
_HIGH = 1.25  # of half the width, the half height up to which walls are a tube's; taller ones are those of something standing
_SEEN = 0.7  # of half the height, beyond which walls are the smear of what bends inwards
_ANGLES = np.radians([45.0, 90.0, 135.0])  # on the vault, from one wall to the other


class Vaults(NamedTuple):
    """Points of walls, and of the half circles over and under them.

    Attributes:
        points, normals: (n, 3) voxels; normals point outwards.
        noise: (n,) the points' standard deviations, voxels; larger where a round tube has bent inwards and a wall has not.
        tops: (m, 3) highest and lowest places of the half circles.
    """

    points: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    noise: Float[np.ndarray, " n"]
    tops: Float[np.ndarray, "m 3"]


def vaults(
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    noise: Float[np.ndarray, " n"],
    across: float,
    guess: float,
) -> Vaults | None:
    """Half circles over and under pairs of upright walls; None where there are no such pairs.

    The missing wedge draws walls out along the beam, and takes away what faces it: a tube's walls then look like two upright plates, about as high as
    the tube is wide. Nothing in them says that the tube closes. That it is about as high as wide does.

    Arguments:
        points: spread over the surface, voxels.
        normals: unit normals, outwards.
        noise: standard deviations of the points, voxels.
        across: half the median distance across, voxels.
        guess: standard deviation of the half circles, voxels.

    Returns:
        The points given, and those of the half circles after them.
    """
    upright = np.flatnonzero(np.abs(normals[:, 0]) < _UPRIGHT)
    width = widths(points, normals, upright)
    paired = np.isfinite(width) & (width < 4.0 * across)
    if paired.sum() < _FEWEST:
        return None
    own, half = upright[paired], 0.5 * width[paired]
    middle = points[own] - half[:, None] * normals[own]
    beyond = np.zeros(len(points), bool)
    places, ways, tops = [], [], []
    for k in evenly(middle[:, 1:], _PLACES):
        near = np.linalg.norm(middle[:, 1:] - middle[k, 1:], axis=1) < across
        if near.sum() < 4:
            continue
        radius, height = float(np.median(half[near])), points[own[near], 0]
        low, high = np.percentile(height, (5, 95))
        if 0.5 * (high - low) > _HIGH * radius:
            continue
        centre = np.array([0.5 * (low + high), *np.median(middle[near, 1:], 0)])
        facing = normals[own[near]] * np.sign(normals[own[near]] @ normals[own[near][0]])[:, None]
        side = np.array([0.0, *facing[:, 1:].mean(0)])
        side /= max(float(np.linalg.norm(side)), 1e-9)
        for up in (1.0, -1.0):
            way = np.cos(_ANGLES)[:, None] * side + up * np.sin(_ANGLES)[:, None] * [1.0, 0.0, 0.0]
            places.append(centre + radius * way)
            ways.append(way)
            tops.append(centre + radius * up * np.array([1.0, 0.0, 0.0]))
        beyond[own[near]] |= np.abs(height - centre[0]) > _SEEN * radius
    if not places:
        return None
    extra = np.concatenate(places)
    return Vaults(
        np.concatenate([points, extra]),
        np.concatenate([normals, *ways]),
        np.concatenate([np.where(beyond, UNSEEN, 1.0) * noise, np.full(len(extra), guess)]),
        np.array(tops),
    )
