"""Labels of equal thickness from implicit functions (paper, Section 6.2, without its thinning and dilation)."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from jaxmem.surface.mesh import Field, Mesh


class Paint(NamedTuple):
    """The voxels that a membrane claims.

    Attributes:
        voxels: (n, d) ascending along axis 0.
        distance: (n,) from the surface, voxels.
        sigma: (n,) standard deviation of the surface's position at the nearest vertex, voxels.
    """

    voxels: Int[np.ndarray, "n d"]
    distance: Float[np.ndarray, " n"]
    sigma: Float[np.ndarray, " n"]


def paint(mesh: Mesh, field: Field, half_thickness: float, volume_shape: tuple[int, ...]) -> Paint:
    """The voxels of one membrane.

    A voxel belongs to the membrane if |f| / |grad f|, its first-order distance from the surface, is at most half the
    thickness, and the mesh passes nearby (where an open surface has ended, nothing is painted).

    Arguments:
        mesh, field: from `mesh.extract`.
        half_thickness: voxels.
        volume_shape: of the volume, voxels.
    """
    shape = np.array(volume_shape)
    parts = [Paint(np.zeros((0, len(shape)), np.int32), np.zeros(0, np.float32), np.zeros(0, np.float32))]
    reach = half_thickness + 1.0
    low = np.maximum(np.floor(mesh.vertices.min(0) - reach).astype(int), 0)
    high = np.minimum(np.ceil(mesh.vertices.max(0) + reach).astype(int) + 1, shape)
    if (high <= low).any():
        return parts[0]
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
        parts.append(
            Paint(voxels[found].astype(np.int32), distance[found], mesh.sigma[vertex[found]].astype(np.float32))
        )
    return Paint(*(np.concatenate(a) for a in zip(*parts)))


class Canvas:
    """Labels and uncertainty of all membranes, made slab by slab: a voxel that several claim is the nearest one's.

    Arguments:
        shape: of the volume.
        thickness: slices of a slab.
    """

    def __init__(self, shape: tuple[int, ...], thickness: int = 16):
        self.shape, self.thickness = shape, thickness
        self._parts: list[list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]] = [
            [] for _ in range(0, shape[0], thickness)
        ]

    def add(self, number: int, paint: Paint) -> None:
        """Take up a membrane's voxels; of two that are equally near, the one added first has a voxel."""
        rows = paint.voxels[:, 0]
        cuts = np.searchsorted(rows, np.arange(0, self.shape[0], self.thickness)[1:])
        for k, (voxels, distance, sigma) in enumerate(zip(*(np.split(a, cuts) for a in paint))):
            if len(voxels):
                place = voxels - np.array([k * self.thickness] + [0] * (len(self.shape) - 1), np.int32)
                within = (self.thickness, *self.shape[1:])
                index = np.ravel_multi_index(tuple(place.T), within).astype(
                    np.int32 if np.prod(within) < 2**31 else int
                )
                self._parts[k].append((number, index, distance, sigma))

    def slab(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """int16 labels and float32 uncertainty (voxels) of the k-th slab."""
        shape = (min(self.thickness, self.shape[0] - k * self.thickness), *self.shape[1:])
        labels, sigma = np.zeros(shape, np.int16), np.zeros(shape, np.float32)
        closest = np.full(shape, np.inf, np.float32)
        for number, index, distance, error in self._parts[k]:
            wins = distance < closest.reshape(-1)[index]
            closest.reshape(-1)[index[wins]] = distance[wins]
            labels.reshape(-1)[index[wins]] = number
            sigma.reshape(-1)[index[wins]] = error[wins]
        return labels, sigma
