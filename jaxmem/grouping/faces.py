"""The two faces of a lying sac of which only the rim is seen."""

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage
from scipy.spatial import Delaunay, cKDTree

from jaxmem.points import evenly

LYING = 0.6
"""Component along the beam of the thin axis of a lying sac, at least."""

_OPPOSITE = 0.95  # least cos between the way across and the normal
_ASKED = 256  # points at a time, for the memory
_FACES = 64  # points on each face
_ROUNDS = 5  # of least squares with less weight for what is far off: the sheet between the faces
_STIFF = np.diag([0.0, 1.0, 1.0, 10.0, 10.0, 30.0, 30.0])  # against waves of the sheet
_SOME = 8  # neighbours from which the points' density is taken
_FLAT = 0.5  # its extent along that axis over the next, at most
_INNER = 0.1  # share of points on an inner wall, at most, or on the faces
_SECTORS, _AROUND = 36, 0.6  # of a rim with gaps, and the share of them that must have points
_WIDE = 0.05  # share of its outline that its faces must take, at least


def spacing_of(tree: cKDTree) -> float:
    """Root of the area for each of some points on a surface: that of a disc which holds some of them, over their number."""
    some = min(_SOME, tree.n - 1)
    reach = tree.query(tree.data, k=[some + 1])[0]
    return float(np.sqrt(np.pi / some) * np.median(reach))


def widths(
    points: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"], which: Int[np.ndarray, " k"]
) -> Float[np.ndarray, " k"]:
    """Distance from some points straight inwards to the other side, voxels; infinite where there is none.

    Arguments:
        points: spread over the surface, voxels.
        normals: unit normals, outwards.
        which: indices of the points that are asked.
    """
    found = [np.zeros(0)]
    for start in range(0, len(which), _ASKED):
        some = which[start : start + _ASKED]
        away = points[None] - points[some][:, None]
        distance = np.linalg.norm(away, axis=-1)
        inward = -np.einsum("ijk,ik->ij", away, normals[some])
        opposite = (inward > _OPPOSITE * distance) & (normals[some] @ normals.T < -0.3) & (distance > 0)
        found.append(np.where(opposite, distance, np.inf).min(1))
    return np.concatenate(found)


def faces_of(
    points: np.ndarray, normals: np.ndarray, size: float, *, convex: bool = False
) -> tuple[np.ndarray, np.ndarray] | None:
    """Points on the two faces of a lying sac of which only the rim is seen, and normals, outwards; None of anything else.

    Quadrics go round the rim and back through the middle, as if it were a ring. A ring has a wall on its inner side, which would be seen; a sac
    has none. As far within the rim's points as it is thick lies the border of the sheet in its middle, which is as flat as this border lets it
    be; the faces lie as far on both sides.

    Arguments:
        points, normals: evenly spread; unit normals, outwards.
        size: half the thickness, voxels.
        convex: the rim may have gaps, and goes straight over them.
    """
    middle = points.mean(0)
    spread, axes = np.linalg.eigh(np.cov((points - middle).T))
    thin, plane = axes[:, 0], axes[:, 1:]
    if abs(thin[0]) < LYING or spread[0] > _FLAT**2 * spread[1]:
        return None
    flat = (points - middle) @ plane
    if (((normals @ plane) * flat).sum(1) < -0.3 * np.linalg.norm(flat, axis=1)).mean() > _INNER:
        return None
    reach = np.abs(flat).max(0) + 1.0
    step = max(1.0, float(reach.max()) / 40.0)
    grid = np.stack(np.meshgrid(*(np.arange(-r - 2 * step, r + 3 * step, step) for r in reach), indexing="ij"), -1)
    near = cKDTree(flat).query(grid.reshape(-1, 2))[0].reshape(grid.shape[:2])
    within = _hull(flat, grid) if convex else ndimage.binary_fill_holes(near < 2.0 * step)
    deep = within & (near > 1.2 * size)
    if deep.sum() < _WIDE * len(deep) * deep.shape[1]:
        return None
    cell = np.round((flat + reach + 2 * step) / step).astype(int)
    if deep[tuple(np.clip(cell, 0, np.array(deep.shape) - 1).T)].mean() > _INNER:
        return None  # something of the faces is seen
    border = points - middle - size * normals
    scale = float(np.abs(border @ plane).max())
    heights, slopes = _waves(border @ plane / scale)
    coefficients, weight = np.zeros(heights.shape[1]), np.ones(len(border))
    for _ in range(_ROUNDS):
        weighted = heights.T * weight
        coefficients = np.linalg.solve(weighted @ heights + 1e-3 * len(border) * _STIFF, weighted @ (border @ thin))
        off = np.abs(border @ thin - heights @ coefficients)
        weight = 1.0 / np.maximum(off, 1.0)
    target = grid[deep][evenly(grid[deep], _FACES)]
    heights, slopes = _waves(target / scale)
    sheet, slope = heights @ coefficients, np.einsum("nij,i->nj", slopes, coefficients) / scale
    up = thin - slope @ plane.T
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    centre = middle + target @ plane.T + sheet[:, None] * thin
    return np.concatenate([centre + size * up, centre - size * up]), np.concatenate([up, -up])


def _waves(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, 7) heights of a plane and of saddles of two and three valleys, which bend no more than their border; and their (n, 7, 2) slopes."""
    x, y = flat.T
    one, none = np.ones(len(x)), np.zeros(len(x))
    heights = np.stack([one, x, y, x * x - y * y, 2 * x * y, x**3 - 3 * x * y * y, 3 * x * x * y - y**3], 1)
    along = np.stack([none, one, none, 2 * x, 2 * y, 3 * (x * x - y * y), 6 * x * y], 1)
    across = np.stack([none, none, one, -2 * y, 2 * x, -6 * x * y, 3 * (x * x - y * y)], 1)
    return heights, np.stack([along, across], -1)


def _hull(flat: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Places of a grid within the convex hull of points in a plane, nowhere if these do not go round."""
    way = flat - 0.5 * (flat.min(0) + flat.max(0))
    turn = np.floor((np.arctan2(*way.T) + np.pi) * _SECTORS / (2.0 * np.pi)).astype(int) % _SECTORS
    if len(np.unique(turn)) < _AROUND * _SECTORS:
        return np.zeros(grid.shape[:2], bool)
    return (Delaunay(flat).find_simplex(grid.reshape(-1, 2)) >= 0).reshape(grid.shape[:2])
