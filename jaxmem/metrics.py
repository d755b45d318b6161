"""How good a result is: Dice slice by slice, distances between surfaces, matching of instances (paper, Section 6.3)."""

import itertools
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.spatial import cKDTree


def dice(found: Bool[np.ndarray, "*shape"], truth: Bool[np.ndarray, "*shape"]) -> float:
    """Dice-Sorensen coefficient (paper, equation 8); 1 if both are empty.

    Example:
        >>> dice(np.array([True, False]), np.array([True, True]))
        0.6666666666666666
    """
    total = int(found.sum()) + int(truth.sum())
    return 2.0 * int((found & truth).sum()) / total if total else 1.0


def slice_dice(found: Bool[np.ndarray, "nz ny nx"], truth: Bool[np.ndarray, "nz ny nx"]) -> Float[np.ndarray, " nz"]:
    """Dice of every slice (paper, Fig. 21); NaN where neither has a voxel."""
    empty = np.logical_not(found.any((1, 2)) | truth.any((1, 2)))
    return np.array([np.nan if empty[z] else dice(found[z], truth[z]) for z in range(len(found))])


def steps_between_slices(mask: Bool[np.ndarray, "nz ny nx"]) -> Float[np.ndarray, " pairs"]:
    """The largest distance, in pixels, between a pixel of a slice and the nearest one of the next (paper, Fig. 13).

    Returns:
        One for each pair of neighbouring slices that both have pixels.

    Example:
        >>> steps_between_slices(np.eye(4, dtype=bool)[:, None]).tolist()
        [1.0, 1.0, 1.0]
    """
    out = []
    for one, other in itertools.pairwise(mask):
        if one.any() and other.any():
            out.append(float(ndimage.distance_transform_edt(np.logical_not(other))[one].max()))
    return np.array(out)


def class_scores(found: Int[np.ndarray, "*shape"], truth: Int[np.ndarray, "*shape"]) -> dict[str, Any]:
    """How well pixels are classified (paper, Section 6.1): the share of right ones, and the Dice of each class in the truth.

    Arguments:
        found, truth: class of each pixel.

    Example:
        >>> class_scores(np.array([0, 0, 2, 2]), np.array([0, 2, 2, 2]))
        {'accuracy': 0.75, 'dice': {0: 0.6666666666666666, 2: 0.8}}
    """
    numbers = np.unique(truth).tolist()
    return {"accuracy": float((found == truth).mean()), "dice": {k: dice(found == k, truth == k) for k in numbers}}


class Matching(NamedTuple):
    """Instances of the truth and of the result that belong together.

    Attributes:
        pairs: (n, 2) truth and found instance numbers.
        dice: (n,) of each pair.
        missed: truth instances without a partner.
        invented: found instances without a partner.
    """

    pairs: Int[np.ndarray, "n 2"]
    dice: Float[np.ndarray, " n"]
    missed: list[int]
    invented: list[int]


def match_instances(found: np.ndarray, truth: np.ndarray, least: float = 0.2) -> Matching:
    """One-to-one matching of instances that maximises the sum of their Dice coefficients; pairs below `least` do not count."""
    found_ids, found_size = np.unique(found[found > 0], return_counts=True)
    truth_ids, truth_size = np.unique(truth[truth > 0], return_counts=True)
    both = (found > 0) & (truth > 0)
    overlap = np.zeros((len(truth_ids), len(found_ids)))
    np.add.at(overlap, (np.searchsorted(truth_ids, truth[both]), np.searchsorted(found_ids, found[both])), 1.0)
    score = 2 * overlap / (truth_size[:, None] + found_size[None, :]) if overlap.size else overlap
    rows, columns = linear_sum_assignment(-score)
    good = score[rows, columns] >= least
    rows, columns = rows[good], columns[good]
    return Matching(
        np.stack([truth_ids[rows], found_ids[columns]], 1),
        score[rows, columns],
        [int(i) for i in truth_ids if i not in truth_ids[rows]],
        [int(i) for i in found_ids if i not in found_ids[columns]],
    )


class Grouping(NamedTuple):
    """How the points of true instances are spread over found ones.

    Attributes:
        adjusted_rand: 1 for the same groups, 0 for as much agreement as chance gives (Hubert & Arabie 1985).
        splits: pieces of true instances in found ones beyond the first of each.
        false_merges: true instances in found ones beyond the first of each.
    """

    adjusted_rand: float
    splits: int
    false_merges: int


def compare_groups(found: Int[np.ndarray, " n"], truth: Int[np.ndarray, " n"], share: float = 0.1) -> Grouping:
    """Compare two groupings of the same points or voxels.

    Arguments:
        found, truth: group of each point, any whole numbers; all of them count.
        share: a piece counts as a split if it has this share of the true instance's points, as a false merge if it has this
            share of them and the found instance has such shares of several.

    Example:
        >>> compare_groups(np.array([1, 1, 2, 2]), np.array([1, 1, 1, 1])).splits
        1
    """
    _, f = np.unique(found, return_inverse=True)
    _, t = np.unique(truth, return_inverse=True)
    shape = (t.max(initial=-1) + 1, f.max(initial=-1) + 1)
    both = coo_matrix((np.ones(len(f)), (t.ravel(), f.ravel())), shape).tocsr()  # repeated entries are added
    true_size, found_size = np.asarray(both.sum(1)).ravel(), np.asarray(both.sum(0)).ravel()

    def pairs(count: np.ndarray) -> float:
        return float((count * (count - 1.0) / 2.0).sum())

    together, true, ours = pairs(both.data), pairs(true_size), pairs(found_size)
    chance = true * ours / max(len(f) * (len(f) - 1.0) / 2.0, 1.0)
    spare = 0.5 * (true + ours) - chance
    entries = both.tocoo()
    large = entries.data >= share * true_size[entries.row]
    splits = np.bincount(entries.row[large], minlength=1)
    merges = np.bincount(entries.col[large], minlength=1)
    return Grouping(
        (together - chance) / spare if spare > 0 else 1.0,
        int(np.maximum(splits - 1, 0).sum()),
        int(np.maximum(merges - 1, 0).sum()),
    )


def distance_to_surface(
    points: Float[np.ndarray, "n 3"], vertices: Float[np.ndarray, "v 3"], normals: Float[np.ndarray, "v 3"]
) -> Float[np.ndarray, " n"]:
    """Unsigned distance of points to a densely sampled surface, in the units given.

    The distance to the tangent plane at the nearest vertex where the point lies over it, else to that vertex less the
    plane's reach (the vertices' spacing); so the spacing does not put a floor under the result.

    Raises:
        ValueError: if the surface has no vertices.
    """
    if len(vertices) == 0:
        raise ValueError("distance_to_surface: the surface has no vertices")
    tree = cKDTree(vertices)
    sample = vertices[:: max(1, len(vertices) // 2000)]
    spacing = float(np.median(tree.query(sample, k=2)[0][:, 1])) if len(vertices) > 1 else 0.0
    gap, nearest = tree.query(points)
    across = np.abs(((points - vertices[nearest]) * normals[nearest]).sum(1))
    along = np.sqrt(np.maximum(gap**2 - across**2, 0.0))
    return np.hypot(across, np.maximum(along - 1.5 * spacing, 0.0))


def signed_distance(
    points: Float[np.ndarray, "n 3"],
    facing: Float[np.ndarray, "n 3"],
    vertices: Float[np.ndarray, "v 3"],
    normals: Float[np.ndarray, "v 3"],
) -> Float[np.ndarray, " n"]:
    """`distance_to_surface`, positive where the surface lies on the side to which the points' own normals face.

    Arguments:
        points, facing: on a true surface, and its unit normals.
        vertices, normals: of the surface that is compared with it.

    Raises:
        ValueError: if the surface has no vertices.
    """
    away = distance_to_surface(points, vertices, normals)
    side = ((vertices[cKDTree(vertices).query(points)[1]] - points) * facing).sum(1)
    return np.where(side < 0, -away, away)


def reliability(
    error: Float[np.ndarray, " n"], sigma: Float[np.ndarray, " n"], levels: tuple[float, ...]
) -> list[float]:
    """Share of errors within the central interval of each level: equal to the level where error bars are normal and right.

    Example:
        >>> reliability(np.array([0.1, -0.9]), np.ones(2), (0.5, 0.9))
        [0.5, 1.0]
    """
    return [coverage(error, sigma, NormalDist().inv_cdf(0.5 + 0.5 * level)) for level in levels]


def surface_dice(truth: Float[np.ndarray, "n 3"], found: Float[np.ndarray, "m 3"], tolerance: float) -> float:
    """Share of the points of two surfaces, sampled alike, that lie within a tolerance of the other (Nikolov et al. 2021).

    Arguments:
        truth, found: points of the surfaces; no points at all is a surface that is not there.
        tolerance: in their unit.
    """
    if len(truth) == 0 or len(found) == 0:
        return float(len(truth) == len(found))
    there = (cKDTree(found).query(truth)[0] <= tolerance).mean()
    back = (cKDTree(truth).query(found)[0] <= tolerance).mean()
    return float(0.5 * (there + back))


def coverage(error: Float[np.ndarray, " n"], sigma: Float[np.ndarray, " n"], deviations: float = 1.96) -> float:
    """Share of errors within `deviations` standard deviations: 0.95 for calibrated normal error bars; NaN for no errors."""
    return float((np.abs(error) <= deviations * sigma).mean()) if len(error) else float("nan")
