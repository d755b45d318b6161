"""A membrane's density in a cube of the tomogram: distances to its surface, and profiles that follow it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.ndimage import distance_transform_edt
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from jaxmem.density import Bilayer, filtered, profile_along
from jaxmem.numerics import bucket_size, compiled, pad_to

CORE = 96  # voxels of a cube whose points are placed in it
MARGIN = 16  # voxels around it: what the missing wedge smears reaches so far
EDGE = CORE + 2 * MARGIN
_COARSE = 2  # voxels between the places where a distance is measured
_BESIDE = 2.5  # voxels beyond its border at which a membrane has ended


class Outline(NamedTuple):
    """A surface as points one to two voxels apart, with unit normals; (n, 3) zyx, voxels."""

    vertices: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]

    def within(self, low: np.ndarray, high: np.ndarray) -> "Outline":
        """The part inside a box."""
        inside = ((self.vertices >= low) & (self.vertices < high)).all(1)
        return Outline(self.vertices[inside], self.normals[inside])


def distances(outline: Outline, corner: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance to a surface on every second voxel of a cube of `EDGE`, and whether the surface is there and not beside it.

    Arguments:
        outline: all of the surface that is near the cube.
        corner: of the cube, voxels.
        reach: where the distance is known; beyond it is large.

    Returns:
        Two cubes of EDGE / 2, single precision.
    """
    n = EDGE // _COARSE
    far = np.full((n,) * 3, 4.0 * reach, np.float32)
    there = np.zeros((n,) * 3, np.float32)
    local = (outline.vertices - corner) / _COARSE
    cell = np.round(local).astype(int)
    cell = cell[((cell >= 0) & (cell < n)).all(1)]
    if len(cell) == 0:
        return far, there
    free = np.ones((n,) * 3, bool)
    free[tuple(cell.T)] = False
    near = np.argwhere(distance_transform_edt(free) <= reach / _COARSE + 1.5)
    gap, k = cKDTree(local).query(near)
    away = (near - local[k]) * _COARSE
    signed = (away * outline.normals[k]).sum(1)
    beside = np.sqrt(np.maximum((gap * _COARSE) ** 2 - signed**2, 0.0)) > _BESIDE
    known = np.zeros((n,) * 3, bool)
    known[tuple(near.T)] = True
    far[tuple(near.T)] = signed
    there[tuple(near[~beside].T)] = 1.0
    # interpolation must not cross zero where nothing is known
    index = distance_transform_edt(~known, return_distances=False, return_indices=True)
    sign = np.sign(far[tuple(index)])
    return np.where(known, far, sign * 4.0 * reach).astype(np.float32), there


def _finer(values: Array) -> Array:
    """Linear interpolation to twice as many places along every axis; the last one is repeated."""
    for axis in range(3):
        ahead = jnp.concatenate(
            [jax.lax.slice_in_dim(values, 1, None, axis=axis), jax.lax.slice_in_dim(values, -1, None, axis=axis)], axis
        )
        shape = list(values.shape)
        shape[axis] *= 2
        values = jnp.stack([values, 0.5 * (values + ahead)], axis + 1).reshape(shape)
    return values


@compiled
def shown(distance: Array, there: Array, bilayer: Bilayer, gain: Array) -> Array:
    """What a tomogram shows of a surface in a cube.

    Arguments:
        distance, there: from `distances`.
        bilayer, gain: see `density.synthesize`.
    """
    return filtered(_finer(there) * bilayer(_finer(distance)), gain)


@compiled(static=("offsets",))
def profiles(volume: Array, points: Array, normals: Array, offsets: tuple[float, ...]) -> Array:
    """Profiles along many normals, see `density.profile_along`."""
    along = jnp.asarray(offsets, volume.dtype)
    return jax.vmap(profile_along, (None, 0, 0, None))(volume, points, normals, along)


def sampled(volume: np.ndarray, outline: Outline, corner: np.ndarray, reach: float, step: float) -> np.ndarray:
    """(n, t) profiles from -reach to reach through a cube of the volume."""
    size = bucket_size(max(len(outline.vertices), 1), 1024)
    local, normals = (outline.vertices - corner).astype(np.float32), outline.normals.astype(np.float32)
    many = round(reach / step)
    offsets = tuple((step * np.arange(-many, many + 1)).tolist())
    places, along = (jnp.asarray(pad_to(a, size)[0]) for a in (local, normals))
    values = profiles(jnp.asarray(volume), places, along, offsets)
    return np.asarray(values)[: len(local)]


def patches(outline: Outline, chosen: np.ndarray, radius: float) -> csr_array:
    """(k, n) weights with which each of the chosen vertices averages over those about it that face the same way.

    Arguments:
        outline: the surface.
        chosen: (k,) indices.
        radius: of a patch, two standard deviations of its weights, voxels.
    """
    tree = cKDTree(outline.vertices)
    near = cKDTree(outline.vertices[chosen]).sparse_distance_matrix(tree, radius, output_type="coo_matrix")
    row, column, gap = near.row, near.col, near.data
    facing = (outline.normals[chosen][row] * outline.normals[column]).sum(1) > 0.5
    weight = np.exp(-2.0 * (gap / radius) ** 2) * facing
    matrix = csr_array((weight, (row, column)), shape=(len(chosen), len(outline.vertices)))
    return csr_array(matrix / np.asarray(matrix.sum(1)).reshape(-1, 1))
