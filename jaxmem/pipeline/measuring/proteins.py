"""Proteins of a run: single particles from the network's map, and where on which membrane each stands."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from jaxmem.measure import Particles, along_surface, find_particles, graph_of, ripley, ripley_null
from jaxmem.pipeline.measuring.inputs import Skin
from jaxmem.types import PROTEIN

_SLOPE = 6.0  # voxels about a foot over which a normal's direction is taken
_CONTRAST = 0.6  # of the median of particles on membranes, at least
_TILE = 96  # slices in which particles are looked for at a time
EMBEDDED = 25.0
"""A from the mid-surface; a particle whose centre lies nearer is within the membrane."""
RADII = np.arange(50.0, 501.0, 50.0)
"""A; of Ripley's K."""


class Foot(NamedTuple):
    """Where a particle stands.

    Attributes:
        membrane: number of the nearest one; 0 if none is near enough.
        vertex: of its mesh.
        distance: of the particle's centre from the surface, along the normal, voxels; positive outside.
        sigma: its standard deviation, that of the surface's place.
    """

    membrane: int
    vertex: int
    distance: float
    sigma: float


def particles_of(semantic: Any, density: Any, voxel_size: float, diameter: float) -> Particles:
    """Particles of a map of classes, a slab at a time: those whose centre lies in the slab's own slices.

    Arguments:
        semantic: (nz, ny, nx) classes, indexed like an array.
        density: of the tomogram, or None.
        voxel_size: A.
        diameter: least of a particle, A.
    """
    size = diameter / voxel_size
    overlap = int(np.ceil(3 * size))
    found = []
    for start in range(0, semantic.shape[0], _TILE):
        low, high = max(0, start - overlap), min(semantic.shape[0], start + _TILE + overlap)
        mask = np.asarray(semantic[low:high]) == PROTEIN
        some = find_particles(
            mask, None if density is None else np.nan_to_num(np.asarray(density[low:high], np.float32)), size
        )
        place = some.centre[:, 0] + low
        own = (place >= start) & (place < start + _TILE)
        found.append(Particles(some.centre[own] + [low, 0, 0], some.volume[own], some.contrast[own]))
    return Particles(*(np.concatenate(a) for a in zip(*found)))


def clear_ones(found: Particles, stand: list[Foot]) -> tuple[Particles, list[Foot]]:
    """Particles without those on membranes whose contrast is much less than that of most there."""
    on = np.array([f.membrane > 0 for f in stand], bool)
    if not on.any():
        return found, stand
    kept = ~on | (found.contrast >= _CONTRAST * np.median(found.contrast[on]))
    return Particles(*(a[kept] for a in found)), [f for f, good in zip(stand, kept) if good]


def feet(centres: np.ndarray, membranes: Iterable[tuple[Skin, cKDTree]], reach: float) -> list[Foot]:
    """Where each of some particles stands.

    Arguments:
        centres: (n, 3) voxels.
        membranes: with trees of their vertices, one after another.
        reach: of the surface, voxels; particles farther away are free.
    """
    best = np.full(len(centres), np.inf)
    out = [Foot(0, -1, np.nan, np.nan)] * len(centres)
    for skin, tree in membranes:
        gap, near = tree.query(centres, distance_upper_bound=reach)
        for i in np.flatnonzero(gap < best):
            best[i] = gap[i]
            k = int(near[i])
            distance = float((centres[i] - skin.vertices[k]) @ skin.normals[k])
            out[i] = Foot(skin.number, k, distance, float(skin.values["sigma"][k]))
    return out


def normal_error(skin: Skin, vertex: int) -> float:
    """Standard deviation of the normal's direction at a vertex, degrees: slope of what drawn surfaces do about it."""
    place = skin.vertices[vertex]
    own = np.flatnonzero(np.linalg.norm(skin.vertices - place, axis=1) < _SLOPE)
    offset = skin.vertices[own] - place
    flat = offset - (offset @ skin.normals[vertex])[:, None] * skin.normals[vertex]
    if len(own) < 6:
        return np.nan
    # a plane through the displacements of each drawn surface
    s, v = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[1:]
    moved = skin.drawn("displacement", own)
    slopes = (v[:2] @ (flat - flat.mean(0)).T @ (moved - moved.mean(0))) / np.maximum(s[:2, None] ** 2, 1e-9)
    return float(np.degrees(np.sqrt((slopes**2).sum(0).mean())))


def clustering(skin: Skin, where: np.ndarray, voxel_size: float, seed: int = 0) -> dict[str, Any]:
    """How particles lie on one membrane: their density, nearest neighbours along the surface, and Ripley's K with what chance gives.

    Arguments:
        skin: the membrane.
        where: (k,) vertices at the particles' feet, two at least.
        voxel_size: A.
        seed: of the random patterns.

    Returns:
        `density` per nm^2, `nearest_nm`, and for the radius where K departs most from chance `cluster_radius_nm`, `cluster_k`: K over
        the mean of random patterns, and `cluster_z`: in their standard deviations.
    """
    edge = float(np.median(np.linalg.norm(skin.vertices[skin.faces[:, 0]] - skin.vertices[skin.faces[:, 1]], axis=1)))
    graph = graph_of(skin.vertices, skin.normals, edge)
    area = float(skin.area.sum())
    distance = along_surface(graph, where)
    near = (distance + np.diag(np.full(len(where), np.inf))).min(1)
    radii = RADII / voxel_size
    radii = radii[np.pi * radii**2 < 0.5 * area]
    out = {
        "density": 100.0 * len(where) / (area * voxel_size**2),
        "nearest_nm": 0.1 * voxel_size * float(np.median(near)),
    }
    if not len(radii) or len(where) < 5:
        return out
    k, null = ripley(distance, radii, area), ripley_null(graph, skin.area, len(where), radii, seed)
    mean, spread = null.mean(0), null.std(0)
    z = (k - mean) / np.maximum(spread, 1e-9)
    best = int(np.argmax(np.abs(np.where(mean > 0, z, 0.0))))
    return out | {
        "cluster_radius_nm": 0.1 * voxel_size * float(radii[best]), "cluster_k": float(k[best] / max(mean[best], 1e-9)), "cluster_z": float(z[best]),
    }  # fmt: skip
