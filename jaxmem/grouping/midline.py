"""Thinning a membrane's band of pixels to its middle, with sub-voxel positions and normals."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.spatial import cKDTree


class Midline(NamedTuple):
    """Points on the middle of membranes.

    Attributes:
        points: (n, d) positions in voxels, zyx (or yx).
        normals: (n, d) unit normals; the sign is arbitrary.
        voxels: (n, d) the voxels they were found in.
        weight: (n,) smoothed membrane probability there.
    """

    points: Float[np.ndarray, "n d"]
    normals: Float[np.ndarray, "n d"]
    voxels: Int[np.ndarray, "n d"]
    weight: Float[np.ndarray, " n"]


def midline(probability: Float[np.ndarray, "*shape"], sigma: float, threshold: float, clear: float = 0.0) -> Midline:
    """Ridges of a smoothed membrane probability (Steger 1998): where the gradient vanishes along the principal curvature.

    Arguments:
        probability: two- or three-dimensional, values 0...1.
        sigma: smoothing in voxels; about half the membrane's thickness.
        threshold: ridges whose smoothed probability is lower are left out.
        clear: from ridges whose smoothed probability is higher the bending is measured, for fainter ones, too.

    Returns:
        At most one point for each voxel, moved by less than a voxel to the ridge, and from there to where the band's middle was
        before the smoothing (see `bending`), by a voxel at most.
    """
    d = probability.ndim
    smooth = ndimage.gaussian_filter(np.asarray(probability, np.float32), sigma, mode="nearest", truncate=3.0)
    voxels = np.argwhere(smooth > threshold)
    weight = smooth[tuple(voxels.T)]
    padded = np.pad(smooth, 1, mode="edge")

    def at(offset: np.ndarray) -> np.ndarray:
        return padded[tuple((voxels + 1 + offset).T)]

    unit = np.eye(d, dtype=int)
    gradient = np.stack([(at(unit[a]) - at(-unit[a])) / 2 for a in range(d)], -1)
    hessian = np.empty((len(voxels), d, d), np.float32)
    for a in range(d):
        hessian[:, a, a] = at(unit[a]) - 2 * weight + at(-unit[a])
        for b in range(a):
            plus, minus = unit[a] + unit[b], unit[a] - unit[b]
            hessian[:, a, b] = hessian[:, b, a] = (at(plus) + at(-plus) - at(minus) - at(-minus)) / 4
    values, vectors = np.linalg.eigh(hessian)
    bend, normal = values[:, 0], vectors[:, :, 0]  # the most negative curvature is across the membrane
    with np.errstate(divide="ignore", invalid="ignore"):
        step = -np.einsum("na,na->n", gradient, normal) / bend
    # a band of any thickness bends at least this much at its middle; elsewhere the strongest bend is along the membrane
    ridge = (-bend > 0.2 * weight / sigma**2) & (-bend >= np.abs(values[:, -1]))
    keep = ridge & (np.abs(step)[:, None] * np.abs(normal) <= 0.6).all(1)
    points = voxels[keep] + step[keep, None] * normal[keep]
    back = np.clip(0.5 * sigma**2 * bending(points, normal[keep], weight[keep] > clear), -1.0, 1.0)
    points = points + back[:, None] * normal[keep]
    return Midline(points.astype(np.float32), normal[keep], voxels[keep], weight[keep])


def bending(
    points: Float[np.ndarray, "n d"],
    normals: Float[np.ndarray, "n d"],
    among: Bool[np.ndarray, " n"] | None = None,
    neighbours: int = 24,
) -> np.ndarray:
    """Divergence of the normals at each point, 1/voxel: the sum of the principal curvatures, positive if they spread.

    From a linear fit to the normals of the nearest neighbours (`among` all or some), each turned to the point's own side. A band that has been
    smoothed by a Gaussian of width s has its ridge s^2 / 2 times this too far on the inside of the bend: on a sphere of
    radius R the smoothed density is exp(-(r - R)^2 / 2 s^2) / r, which is largest at R - s^2 / R.
    """
    n, d = points.shape
    source = np.arange(n) if among is None else np.flatnonzero(among)
    k = min(neighbours, len(source) - 1)
    if k < 3 * d:
        return np.zeros(n)
    total = np.zeros(n)
    tree = cKDTree(points[source])
    for start in range(0, n, 50000):  # in parts, so that memory does not grow with the volume
        part = slice(start, min(start + 50000, n))
        near = source[
            tree.query(points[part], k=k + 1, workers=-1)[1]
        ]  # the point itself says nothing: it has no offset
        own = normals[part]
        offset = points[near] - points[part, None]
        turned = normals[near] * np.sign(np.einsum("nkd,nd->nk", normals[near], own))[..., None]
        change = turned - own[:, None]
        spread = np.einsum("nki,nkj->nij", offset, offset)
        # neighbours say nothing about the direction across the membrane
        scale = np.trace(spread, axis1=1, axis2=2)[:, None, None]
        spread = spread + scale * (own[:, :, None] * own[:, None, :] + 1e-3 * np.eye(d))
        total[part] = np.trace(np.einsum("nki,nkj->nij", change, offset) @ np.linalg.inv(spread), axis1=1, axis2=2)
    return np.clip(total, -0.5, 0.5)
