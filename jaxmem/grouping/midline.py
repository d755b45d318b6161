"""Thinning a membrane's band of pixels to its middle, with sub-voxel positions and normals."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.spatial import cKDTree

_SLAB = 24  # slices whose ridges are sought together, at most, for the memory; without influence on the result
_VOXELS = 2**24  # of such a slab, at most
_PART = 20000  # points whose bending is measured together, for the memory; without influence on the result
_LEAST_BEND = 0.2  # of the smoothed probability / sigma^2: a band of any thickness bends more at its middle; by hand
_OFF_VOXEL = 0.6  # voxels along an axis from a voxel to its ridge: half a voxel, and room for rounding (Steger 1998)
_MOST_BENDING = 0.5  # 1/voxel: a sphere of 4 voxels' radius; what is measured beyond is noise


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


def midline(
    probability: Any, sigma: float, threshold: float, clear: float = 0.0, workers: int | None = None
) -> Midline:
    """Ridges of a smoothed membrane probability (Steger 1998): where the gradient vanishes along the principal curvature.

    Arguments:
        probability: two- or three-dimensional, values 0...1, or whole numbers of so many 255ths. Three-dimensional, it is read slab by
            slab along axis 0, so that it may lie on disk.
        sigma: smoothing in voxels; about half the membrane's thickness.
        threshold: ridges whose smoothed probability is lower are left out.
        clear: from ridges whose smoothed probability is higher the bending is measured, for fainter ones, too.
        workers: threads, each of which takes a slab's memory; as many as there are cores, but 8 at most, when None.

    Returns:
        At most one point for each voxel, moved by less than a voxel to the ridge, and from there to where the band's middle was
        before the smoothing (see `bending`), by a voxel at most.
    """
    found = _ridges(probability, sigma, threshold, workers)
    points, normals, voxels, weight = (np.concatenate(a) for a in zip(*found))
    back = np.clip(0.5 * sigma**2 * bending(points, normals, weight > clear, workers=workers), -1.0, 1.0)
    points = points + back[:, None] * normals
    return Midline(points.astype(np.float32), normals, voxels, weight)


def _ridges(probability: Any, sigma: float, threshold: float, workers: int | None) -> list[tuple[np.ndarray, ...]]:
    """Points, normals, voxels and smoothed probability on the ridges, slab by slab: memory does not grow with the volume."""
    reach = int(3.0 * sigma + 0.5) + 1
    shape = probability.shape
    slab = slices_together(shape)

    def one(start: int) -> tuple[np.ndarray, ...]:
        low, high = max(0, start - reach), min(shape[0], start + slab + reach)
        smooth = ndimage.gaussian_filter(as_share(probability[low:high]), sigma, mode="nearest", truncate=3.0)
        own = slice(start - low, min(start + slab, shape[0]) - low)
        points, normals, voxels, weight = _ridge_points(smooth, own, sigma, threshold)
        voxels[:, 0] += low
        points[:, 0] += low
        return points, normals, voxels, weight

    return _in_threads(one, range(0, shape[0], slab), workers)


def slices_together(shape: tuple[int, ...]) -> int:
    """Slices of a volume (rows of an image) whose ridges are sought together."""
    return int(np.clip(_VOXELS // int(np.prod(shape[1:])), 1, _SLAB)) if len(shape) == 3 else _SLAB


def as_share(probability: np.ndarray) -> Float[np.ndarray, "*shape"]:
    """A probability in single precision, 0...1; whole numbers are 255ths."""
    scale = 255.0 if probability.dtype.kind in "iu" else 1.0
    return np.asarray(probability, np.float32) / np.float32(scale)


def _ridge_points(smooth: np.ndarray, own: slice, sigma: float, threshold: float) -> tuple[np.ndarray, ...]:
    """Ridge points in the slices `own` of a smoothed slab."""
    d = smooth.ndim
    voxels = np.argwhere(smooth[own] > threshold)
    voxels[:, 0] += own.start
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
    # elsewhere the strongest bend is along the membrane
    ridge = (-bend > _LEAST_BEND * weight / sigma**2) & (-bend >= np.abs(values[:, -1]))
    keep = ridge & (np.abs(step)[:, None] * np.abs(normal) <= _OFF_VOXEL).all(1)
    where = voxels[keep]
    return where + step[keep, None] * normal[keep], normal[keep], where.astype(np.int32), weight[keep]


def bending(
    points: Float[np.ndarray, "n d"],
    normals: Float[np.ndarray, "n d"],
    among: Bool[np.ndarray, " n"] | None = None,
    *,
    neighbours: int = 24,
    workers: int | None = None,
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
    tree = cKDTree(points[source])

    def one(start: int) -> np.ndarray:
        own_points, own = points[start : start + _PART], normals[start : start + _PART]
        near = source[tree.query(own_points, k=k + 1)[1]]  # the point itself says nothing: it has no offset
        offset = points[near] - own_points[:, None]
        turned = normals[near] * np.sign(np.einsum("nkd,nd->nk", normals[near], own))[..., None]
        change = turned - own[:, None]
        spread = np.einsum("nki,nkj->nij", offset, offset)
        # neighbours say nothing about the direction across the membrane
        scale = np.trace(spread, axis1=1, axis2=2)[:, None, None]
        spread = spread + scale * (own[:, :, None] * own[:, None, :] + 1e-3 * np.eye(d))
        return np.trace(np.einsum("nki,nkj->nij", change, offset) @ np.linalg.inv(spread), axis1=1, axis2=2)

    # in parts, so that memory does not grow with the volume
    return np.clip(np.concatenate(_in_threads(one, range(0, n, _PART), workers)), -_MOST_BENDING, _MOST_BENDING)


def _in_threads(task: Callable[[int], Any], starts: range, workers: int | None) -> list:
    """Results of a task for each start, in order."""
    workers = min(os.cpu_count() or 1, 8) if workers is None else workers
    with ThreadPoolExecutor(max(1, min(len(starts), workers))) as pool:
        return list(pool.map(task, starts))
