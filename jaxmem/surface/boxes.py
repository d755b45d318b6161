"""A membrane in a box of the tomogram, ready for analysis by synthesis."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from jaxmem.density.inversion import Box
from jaxmem.points import first_of_each
from jaxmem.surface.tiles import Outline

_NEXT = 4  # nodes that move a voxel's piece of surface
_FAR = 50.0  # voxels; distance that is given to what is not near


class Boxed(NamedTuple):
    """A box about a membrane.

    Attributes:
        box: what `density.invert` takes.
        corner: (3,) of the box, voxels of the tomogram.
        nodes: (m, 3) where the surface can be moved, voxels of the tomogram.
        spread: distance over which a node's movement fades, voxels.
    """

    box: Box
    corner: np.ndarray
    nodes: Float[np.ndarray, "m 3"]
    spread: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the box, voxels."""
        return self.box.distance.shape  # type: ignore[return-value]

    def cut(self, volume: np.ndarray) -> Float[np.ndarray, "z y x"]:
        """This part of a volume; beyond its border the border goes on."""
        index = [np.clip(np.arange(c, c + n), 0, m - 1) for c, n, m in zip(self.corner, self.shape, volume.shape)]
        return np.asarray(volume[np.ix_(*index)], np.float32)

    def distance(self, outline: Outline, reach: float) -> Float[np.ndarray, "z y x"]:
        """Signed distance to another surface, on the box's voxels; far away it is large."""
        return _distance(outline, self.corner, self.shape, reach)[0]

    def at(self, points: Float[np.ndarray, "n 3"], displacement: Float[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
        """How far the surface moves at points of it, when its nodes have moved by `displacement`, voxels."""
        near, weights = _weights(self.nodes, points, self.spread)
        return (weights * np.asarray(displacement)[near]).sum(1)


def box_about(
    outline: Outline, reach: float, spacing: float = 5.0, margin: int = 14, *, frame: Boxed | None = None
) -> Boxed:
    """The box of a membrane, and nodes spread over it.

    Arguments:
        outline: the membrane.
        reach: of the bilayer, voxels; at most `margin` less what the surface may move.
        spacing: of the nodes, voxels.
        margin: voxels about the membrane; sides are multiples of 16, for fast transforms and few programs.
        frame: a box that is used instead of the membrane's own: that of several membranes together.
    """
    corner = np.floor(outline.vertices.min(0) - margin).astype(int)
    extent = np.ceil(outline.vertices.max(0) + margin).astype(int) - corner
    shape = tuple((-(-extent // 16) * 16).tolist())
    if frame is not None:
        corner, shape = frame.corner, frame.shape
    nodes = outline.vertices[first_of_each(np.floor(outline.vertices / spacing).astype(int))]
    distance, near = _distance(outline, corner, shape, reach + 2.0)
    places = np.stack(np.unravel_index(near, shape), 1) + corner
    spread = 0.7 * spacing
    index, weights = _weights(nodes, places, spread)
    box = Box(jnp.asarray(distance), jnp.asarray(near), jnp.asarray(index), jnp.asarray(weights, jnp.float32))
    return Boxed(box, corner, nodes, spread)


def _distance(
    outline: Outline, corner: np.ndarray, shape: tuple[int, ...], reach: float
) -> tuple[np.ndarray, np.ndarray]:
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1).reshape(-1, 3) + corner
    gap, k = cKDTree(outline.vertices).query(grid, distance_upper_bound=reach)
    near = np.flatnonzero(np.isfinite(gap))
    distance = np.full(len(grid), _FAR, np.float32)
    distance[near] = ((grid[near] - outline.vertices[k[near]]) * outline.normals[k[near]]).sum(1)
    return distance.reshape(shape), near


def _weights(nodes: np.ndarray, places: np.ndarray, spread: float) -> tuple[np.ndarray, np.ndarray]:
    count = min(_NEXT, len(nodes))
    gap, near = (a.reshape(len(places), -1) for a in cKDTree(nodes).query(places, k=count))
    # relative to the nearest, so that far from all nodes there is a weight as well
    weights = np.exp((gap[:, :1] ** 2 - gap**2) / spread**2)
    return near, weights / weights.sum(1, keepdims=True)
