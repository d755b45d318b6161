"""Scenes of membranes and proteins for simulated tomograms: where they lie, their density, and the truth.

Lengths are voxels unless named, coordinates zyx from the first voxel of the tomogram; a scene reaches farther than that.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree
from shapes import SPACING, Surface, moved, unit

SPARSE = 9  # one point out of so many is asked how far it is from another surface
LEAFLET = 18.0  # A from the mid-surface to the middle of a leaflet, where a scene does not say otherwise
LEAFLET_SIGMA = 7.0  # A
PIXEL_SIGMA = 0.4  # voxels that a pixel blurs what it averages, about
NEAR = 25.0  # A from the mid-surface that is labelled


class Blob(NamedTuple):
    """A Gaussian of density: centre, standard deviation in voxels, and height over a leaflet's."""

    centre: np.ndarray
    sigma: float
    height: float


def _tree(points: np.ndarray) -> cKDTree:
    return cKDTree(points, balanced_tree=False, compact_nodes=False)  # points in order take quadratic time otherwise


class Scene:
    """Surfaces that do not cut one another, and blobs of protein.

    Arguments:
        rng: of all that is drawn.
        shape: of the tomogram, voxels.
        voxel_size: A.
        margin: zyx, voxels that the scene reaches beyond the tomogram.
        cut: whether membranes may be cut above and below, as in a lamella; else they lie in the ice.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        shape: tuple[int, int, int],
        voxel_size: float,
        margin: tuple[int, int, int],
        cut: bool,
    ):
        self.rng, self.voxel_size, self.cut = rng, voxel_size, cut
        self.shape, self.margin = np.array(shape), np.array(margin)
        self.surfaces: list[Surface] = []
        self.trees: list[cKDTree] = []
        self.blobs: list[Blob] = []
        self.leaflets: dict[int, float] = {}  # of surfaces, A from the mid-surface, where that is not `LEAFLET`

    def within(self, points: np.ndarray) -> np.ndarray:
        """Which points lie in the tomogram."""
        return ((points >= 0) & (points <= self.shape - 1)).all(1)

    def gap(self, points: np.ndarray, most: float) -> float:
        """Smallest distance from any surface, voxels; infinite if it is more than the most."""
        low, high = points.min(0) - most, points.max(0) + most
        return min(
            (
                tree.query(points, distance_upper_bound=most)[0].min()
                for tree in self.trees
                if (tree.maxes > low).all() and (tree.mins < high).all()
            ),
            default=np.inf,
        )

    def add(self, surface: Surface, gap: float) -> bool:
        """Add a surface if it keeps away from all others by a gap in voxels, does not just graze the tomogram, and fits in depth."""
        z, seen = surface.points[:, 0], self.within(surface.points).mean()
        fits = (self.cut or (z.min() > 3 and z.max() < self.shape[0] - 4)) and (seen == 0 or seen > 0.2)
        if fits and self.gap(surface.points[::SPARSE], gap + 1.0) >= gap:
            self.put(surface)
            return True
        return False

    def put(self, surface: Surface) -> None:
        """Add a surface wherever it lies."""
        self.surfaces.append(surface)
        self.trees.append(_tree(surface.points))

    def anywhere(self) -> np.ndarray:
        """A place in the scene."""
        return self.rng.uniform(-0.6 * self.margin, self.shape + 0.6 * self.margin)

    def scatter(self, make: Callable[[], Surface], tries: int, gap: float = 6.0) -> None:
        """Try to put what `make` gives, about the origin, at random places."""
        for _ in range(tries):
            self.add(moved(make(), self.anywhere()), gap)

    def pair(self, make: Callable[[], Surface], tries: int, gap: tuple[float, float]) -> None:
        """Put surfaces so close to earlier ones, gaps in voxels."""
        for _ in range(tries):
            surface, wanted = make(), self.rng.uniform(*gap)
            host = self.surfaces[self.rng.integers(len(self.surfaces))]
            way = unit(self.rng.normal(size=3) * [0.4, 1.0, 1.0])
            far = moved(surface, host.points.mean(0) + way * 3 * np.ptp(host.points, axis=0).max())
            tree = _tree(host.points[::SPARSE])
            for _ in range(12):
                distance = tree.query(far.points[:: 4 * SPARSE])[0].min()
                far = moved(far, -(distance - wanted) * way)
            self.add(far, 0.9 * gap[0])

    def nest(self, make: Callable[[float], Surface], inner: float) -> None:
        """Put one of the shapes that `make(size)` gives into each surface, `inner` of its size."""
        for host in list(self.surfaces):
            size = inner * np.ptp(host.points, axis=0).min() / 2
            for _ in range(10):
                if self.add(moved(make(size), host.points.mean(0) + self.rng.uniform(-0.15, 0.15, 3) * size), 4.0):
                    break

    def stud(self, share: float, size: float) -> None:
        """Put proteins on the outside of membranes, so many for each 100 voxels of area; size in A."""
        for surface in self.surfaces:
            count = self.rng.poisson(share * len(surface.points) * SPACING**2 / 100)
            for k in self.rng.integers(len(surface.points), size=count):
                away = (LEAFLET + self.rng.uniform(1.2, 2.0) * size) / self.voxel_size
                self._blob(surface.points[k] + away * surface.normals[k], 0.6 * size)

    def dissolve(self, count: int, size: tuple[float, float], away: float = 60.0) -> None:
        """Put particles of a few blobs where no membrane is within so many A; sizes in A."""
        for _ in range(count):
            centre, reach = self.anywhere(), self.rng.uniform(*size)
            free = (away + reach) / self.voxel_size
            if self.gap(centre[None], free) > free and 2 < centre[0] < self.shape[0] - 3:
                for _ in range(self.rng.integers(2, 6)):
                    self._blob(centre + 0.6 * reach * self.rng.normal(size=3) / self.voxel_size, 0.5 * reach)

    def _blob(self, centre: np.ndarray, sigma: float, height: float = 1.0) -> None:
        self.blobs.append(
            Blob(centre, np.hypot(sigma / self.voxel_size, PIXEL_SIGMA), height * self.rng.uniform(0.7, 1.2))
        )

    def density(self) -> np.ndarray:
        """The density of membranes and proteins, of the scene's shape; a leaflet's is 1 where no pixel blurs it."""
        volume = np.zeros(self.shape + 2 * self.margin, np.float32)
        own = LEAFLET_SIGMA / self.voxel_size
        sigma = np.hypot(own, PIXEL_SIGMA)
        for number, (surface, tree) in enumerate(zip(self.surfaces, self.trees)):
            half = self.leaflets.get(number, LEAFLET) / self.voxel_size
            index, distance = self._around(surface, tree, half + 4 * sigma)
            leaflets = sum(np.exp(-0.5 * ((distance + s * half) / sigma) ** 2) for s in (-1, 1))
            volume[index] += (own / sigma) * leaflets
        for blob in self.blobs:
            low = np.clip(np.floor(blob.centre + self.margin - 4 * blob.sigma).astype(int), 0, volume.shape)
            high = np.clip(np.ceil(blob.centre + self.margin + 4 * blob.sigma).astype(int) + 1, 0, volume.shape)
            z, y, x = (
                np.exp(-0.5 * ((np.arange(a, b) - c) / blob.sigma) ** 2)
                for a, b, c in zip(low, high, blob.centre + self.margin)
            )
            part = tuple(slice(a, b) for a, b in zip(low, high))
            volume[part] += blob.height * z[:, None, None] * y[:, None] * x
        return volume

    def _around(self, surface: Surface, tree: cKDTree, reach: float) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """Voxels of the scene within reach of a surface, and their signed distances: positive outside."""
        full = self.shape + 2 * self.margin
        where = np.round(surface.points).astype(int) + self.margin
        where = where[((where >= 0) & (where < full)).all(1)]
        if not len(where):
            return (np.zeros(0, int),) * 3, np.zeros(0)
        low = np.maximum(where.min(0) - int(reach) - 2, 0)
        high = np.minimum(where.max(0) + int(reach) + 3, full)
        empty = np.ones(high - low, bool)
        empty[tuple((where - low).T)] = False
        voxels = np.argwhere(distance_transform_edt(empty) < reach + 2) + low
        distance, nearest = tree.query(voxels - self.margin, distance_upper_bound=reach + 3)
        found = np.isfinite(distance)
        voxels, distance, nearest = voxels[found], distance[found], nearest[found]
        offset = voxels - self.margin - surface.points[nearest]
        signed = (offset * surface.normals[nearest]).sum(1)
        # those whose nearest point is not below them lie beyond the end of an open piece
        kept = (distance < reach + 1) & (distance**2 - signed**2 < 1.5)
        return tuple(voxels[kept].T), signed[kept]

    def truth(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Labels (int8) of the tomogram, points and normals of each membrane in it, and the distance of its leaflets, A."""
        labels, best = np.zeros(self.shape, np.int8), np.full(self.shape, np.inf)
        found: dict[str, np.ndarray] = {}
        distances: list[float] = []
        for k, (surface, tree) in enumerate(zip(self.surfaces, self.trees)):
            inside = self.within(surface.points)
            if not inside.any():
                continue
            distances.append(2.0 * self.leaflets.get(k, LEAFLET))
            number = len(distances)
            chosen = np.flatnonzero(inside)
            found[f"points_{number}"] = surface.points[chosen].astype(np.float32)
            found[f"normals_{number}"] = surface.normals[chosen].astype(np.float32)
            index, distance = self._around(surface, tree, NEAR / self.voxel_size + 1)
            place = np.stack(index, 1) - self.margin
            near = self.within(place) & (np.abs(distance) <= NEAR / self.voxel_size)
            where, distance = tuple(place[near].T), np.abs(distance[near])
            closer = distance < best[where]
            labels[where] = np.where(closer, number, labels[where])
            best[where] = np.minimum(best[where], distance)
        return labels, {**found, "leaflets": np.array(distances)}
