"""Scenes of membranes and proteins for simulated tomograms: dense points on mid-surfaces, and the density around them.

Lengths are voxels and coordinates zyx, from the first voxel of the tomogram; the scene reaches `margin` voxels farther.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

SPACING = 0.6  # voxels between points of a surface, about
SPARSE = 9  # one point out of so many is asked how far it is from another surface
LEAFLET = 18.0  # A from the mid-surface to the middle of a leaflet
LEAFLET_SIGMA = 7.0  # A
PIXEL_SIGMA = 0.4  # voxels that a pixel blurs what it averages, about
NEAR = 25.0  # A from the mid-surface that is labelled


class Surface(NamedTuple):
    """Points (m, 3) on a mid-surface and the unit normals there, outward where there is an outside."""

    points: np.ndarray
    normals: np.ndarray


class Blob(NamedTuple):
    """A Gaussian of density: centre, standard deviation in voxels, and height over a leaflet's."""

    centre: np.ndarray
    sigma: float
    height: float


def _grid(*lengths: float, spacing: float = SPACING) -> np.ndarray:
    """Coordinates in 0 ... 1 along each length, in steps of the spacing."""
    return np.stack(
        np.meshgrid(*((np.arange(n := int(np.ceil(a / spacing))) + 0.5) / n for a in lengths), indexing="ij"), -1
    )


def _directions(n: int) -> np.ndarray:
    z = 1.0 - 2.0 * (np.arange(n) + 0.5) / n
    angle = np.pi * (3.0 - 5.0**0.5) * np.arange(n)
    return np.stack([z, np.sqrt(1 - z**2) * np.sin(angle), np.sqrt(1 - z**2) * np.cos(angle)], -1)


def ellipsoid(axes: np.ndarray) -> Surface:
    """An ellipsoid with semi-axes zyx about the origin."""
    axes = np.asarray(axes, float)
    u = _directions(int(4 * np.pi * np.sort(axes)[1:].prod() / SPACING**2))
    normals = u / axes
    return Surface(u * axes, normals / np.linalg.norm(normals, axis=1, keepdims=True))


def sac(radius: float, half: float) -> Surface:
    """All points at a distance from a disc that lies across z: two flat faces joined by a round rim."""
    ring = _grid(np.pi * half, 2 * np.pi * (radius + half)).reshape(-1, 2)
    height, turn = np.pi * (ring[:, 0] - 0.5), 2 * np.pi * ring[:, 1]
    out = np.stack([np.sin(height), np.cos(height) * np.sin(turn), np.cos(height) * np.cos(turn)], -1)
    rim = Surface(out * half + radius * np.stack([0 * turn, np.sin(turn), np.cos(turn)], -1), out)
    flat = (_grid(2 * radius, 2 * radius).reshape(-1, 2) - 0.5) * 2 * radius
    flat = flat[np.hypot(*flat.T) < radius]
    faces = [Surface(np.insert(flat, 0, s * half, 1), np.insert(0 * flat, 0, s, 1)) for s in (-1.0, 1.0)]
    return Surface(*(np.concatenate(parts) for parts in zip(rim, *faces)))


def tube(length: float, radius: float) -> Surface:
    """An open tube along x about the origin."""
    at = _grid(length, 2 * np.pi * radius).reshape(-1, 2)
    turn = 2 * np.pi * at[:, 1]
    normals = np.stack([np.sin(turn), np.cos(turn), 0 * turn], -1)
    return Surface(radius * normals + np.array([0.0, 0.0, length]) * (at[:, :1] - 0.5), normals)


def sheet(length: float, width: float) -> Surface:
    """A flat piece across z about the origin, along x and y."""
    at = (_grid(width, length).reshape(-1, 2) - 0.5) * [width, length]
    return Surface(np.insert(at, 0, 0.0, 1), np.insert(0 * at, 0, 1.0, 1))


def bent(rng: np.random.Generator, surface: Surface, wavelength: float, amplitude: float, waves: int = 4) -> Surface:
    """The surface in space moved by a few long waves, whose displacements have that root mean square in all.

    Normals turn by the inverse transpose of the derivative.
    """
    points, slope = surface.points.copy(), np.broadcast_to(np.eye(3), (len(surface.points), 3, 3)).copy()
    for k in 2 * np.pi / wavelength * _unit(rng.normal(size=(waves, 3))) * rng.uniform(0.6, 1.0, (waves, 1)):
        size, phase = amplitude * (2.0 / waves) ** 0.5 * _unit(rng.normal(size=3)), rng.uniform(0, 2 * np.pi)
        angle = surface.points @ k + phase
        points += np.sin(angle)[:, None] * size
        slope += np.cos(angle)[:, None, None] * (size[:, None] * k)
    return Surface(points, _unit(np.linalg.solve(np.swapaxes(slope, 1, 2), surface.normals[..., None])[..., 0]))


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _tree(points: np.ndarray) -> cKDTree:
    return cKDTree(points, balanced_tree=False, compact_nodes=False)  # points in order take quadratic time otherwise


def placed(surface: Surface, centre: np.ndarray, turn: np.ndarray | None = None) -> Surface:
    """The surface turned by a matrix and moved."""
    points, normals = surface if turn is None else (surface.points @ turn.T, surface.normals @ turn.T)
    return Surface(points + centre, normals)


def about_z(angle: float) -> np.ndarray:
    """Rotation by an angle in radians that leaves z as it is."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def any_way(rng: np.random.Generator) -> np.ndarray:
    """A random rotation."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.linalg.det(q)


class Scene:
    """Surfaces that do not cut one another, and blobs of protein.

    Arguments:
        rng: of all that is drawn.
        shape: of the tomogram, voxels.
        voxel_size: A.
        margin: zyx, voxels that the scene reaches beyond the tomogram.
    """

    def __init__(self, rng, shape, voxel_size, margin):
        self.rng, self.shape, self.voxel_size, self.margin = rng, np.array(shape), voxel_size, np.array(margin)
        self.surfaces: list[Surface] = []
        self.trees: list[cKDTree] = []
        self.blobs: list[Blob] = []

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

    def add(self, surface: Surface, gap: float = 6.0) -> bool:
        """Add a surface if it keeps away from all others, does not leave through z and does not just graze the tomogram."""
        z, seen = surface.points[:, 0], self.within(surface.points).mean()
        fits = z.min() > 3 and z.max() < self.shape[0] - 4 and (seen == 0 or seen > 0.25)
        if fits and self.gap(surface.points[::SPARSE], gap + 1.0) >= gap:
            self._keep(surface)
            return True
        return False

    def _keep(self, surface: Surface) -> None:
        self.surfaces.append(surface)
        self.trees.append(_tree(surface.points))

    def anywhere(self) -> np.ndarray:
        """A place in the scene."""
        return self.rng.uniform(-0.6 * self.margin, self.shape + 0.6 * self.margin)

    def scatter(self, make, tries: int, gap: float = 6.0) -> None:
        """Try to put what `make` gives, about the origin, at random places."""
        for _ in range(tries):
            self.add(placed(make(), self.anywhere()), gap)

    def pair(self, make, tries: int, gap: tuple[float, float]) -> None:
        """Put surfaces so close to earlier ones, gaps in voxels."""
        for _ in range(tries):
            surface, wanted = make(), self.rng.uniform(*gap)
            host = self.surfaces[self.rng.integers(len(self.surfaces))]
            way = _unit(self.rng.normal(size=3) * [0.4, 1.0, 1.0])
            far = placed(surface, host.points.mean(0) + way * 3 * np.ptp(host.points, axis=0).max())
            tree = _tree(host.points[::SPARSE])
            for _ in range(12):
                distance = tree.query(far.points[:: 4 * SPARSE])[0].min()
                far = placed(far, -(distance - wanted) * way)
            self.add(far, 0.9 * gap[0])

    def nest(self, make, inner: float) -> None:
        """Put one of the shapes that `make(size)` gives into each surface, `inner` of its size."""
        for host in list(self.surfaces):
            size = inner * np.ptp(host.points, axis=0).min() / 2
            for _ in range(10):
                if self.add(placed(make(size), host.points.mean(0) + self.rng.uniform(-0.15, 0.15, 3) * size), 4.0):
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
        half, own = LEAFLET / self.voxel_size, LEAFLET_SIGMA / self.voxel_size
        sigma = np.hypot(own, PIXEL_SIGMA)
        for surface, tree in zip(self.surfaces, self.trees):
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
        # beyond the end of a piece there is nothing
        kept = (distance < reach + 1) & (distance**2 - signed**2 < 1.5)
        return tuple(voxels[kept].T), signed[kept]

    def truth(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Labels (int8) of the tomogram, and points and normals of each membrane in it."""
        labels, best = np.zeros(self.shape, np.int8), np.full(self.shape, np.inf)
        found: dict[str, np.ndarray] = {}
        for surface, tree in zip(self.surfaces, self.trees):
            inside = self.within(surface.points)
            if not inside.any():
                continue
            number = len(found) // 2 + 1
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
        return labels, found
