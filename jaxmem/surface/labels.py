"""Labels of equal thickness from implicit functions (paper, Section 6.2, without its thinning and dilation)."""

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from jaxmem.surface.mesh import Field, Mesh


def paint(
    labels: np.ndarray,
    sigma: np.ndarray,
    instance: int,
    mesh: Mesh,
    field: Field,
    half_thickness: float,
    closest: np.ndarray,
) -> None:
    """Write one membrane into the label and uncertainty volumes, in place.

    A voxel belongs to the membrane if |f| / |grad f|, its first-order distance from the surface, is at most half the
    thickness, and the mesh passes nearby (where an open surface has ended, nothing is painted). Where two membranes claim
    a voxel the nearer one has it.

    Arguments:
        labels: int16 volume, 0 where free.
        sigma: float32 volume; receives the position error in voxels of the nearest vertex.
        instance: number to write.
        mesh, field: from `mesh.extract`.
        half_thickness: voxels.
        closest: float32 volume, distance of the present owner, infinite where free.
    """
    shape = np.array(labels.shape)
    reach = half_thickness + 1.0
    low = np.maximum(np.floor(mesh.vertices.min(0) - reach).astype(int), 0)
    high = np.minimum(np.ceil(mesh.vertices.max(0) + reach).astype(int) + 1, shape)
    if (high <= low).any():
        return
    slopes = np.gradient(field.values, field.step)
    slope = np.sqrt(sum(g**2 for g in slopes)).astype(np.float32)
    tree = cKDTree(mesh.vertices)
    for start in range(low[0], high[0], 16):  # in slabs, so that memory does not grow with the membrane
        axes = [np.arange(start, min(start + 16, high[0])), *(np.arange(a, b) for a, b in zip(low[1:], high[1:]))]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"))
        place = (grid - field.origin.reshape(-1, *[1] * (grid.ndim - 1))) / field.step
        inside = (place >= 0).all(0)
        for axis, size in enumerate(field.values.shape):
            inside &= place[axis] <= size - 1
        value = map_coordinates(field.values, place[:, inside], order=1, mode="nearest")
        steep = map_coordinates(slope, place[:, inside], order=1, mode="nearest")
        near = np.abs(value) <= half_thickness * np.maximum(steep, 1e-3)
        voxels = grid[:, inside][:, near].T
        distance = (np.abs(value[near]) / np.maximum(steep[near], 1e-3)).astype(np.float32)
        gap, vertex = tree.query(voxels, distance_upper_bound=half_thickness + 1.5 * field.step, workers=-1)
        found = np.isfinite(gap)
        at = tuple(voxels[found].T)
        wins = distance[found] < closest[at]
        at = tuple(a[wins] for a in at)
        closest[at] = distance[found][wins]
        labels[at] = instance
        sigma[at] = mesh.sigma[vertex[found][wins]]
