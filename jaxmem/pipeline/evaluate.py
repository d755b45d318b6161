"""Scores of a result against a truth: Dice, instances, distances between surfaces (paper, Section 6.3)."""

import itertools
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from jaxmem.metrics import (
    Matching,
    class_scores,
    coverage,
    dice,
    match_instances,
    reliability,
    signed_distance,
    slice_dice,
    steps_between_slices,
    surface_dice,
)
from jaxmem.pipeline.masks import truth_midlines
from jaxmem.pipeline.volume import is_flat
from jaxmem.results import Found, Result
from jaxmem.types import MEMBRANE

_CAP = 0.75  # |component along the beam| of a normal above which a point lies on a cap
_ANGLES = (0.0, 30.0, 60.0, 90.0)  # degrees between normal and beam: borders of the bands
_FOUND = 2.0  # voxels from the surface within which a true point counts as found
_BESIDE = 4  # voxels from a surface's label within which the network's pixels are that membrane's
_TOLERANCE = 1.0  # voxels, of the surface Dice
_LEVELS = (0.1, 0.3, 0.5, 0.68, 0.8, 0.9, 0.95, 0.99)  # of intervals in the reliability curve


def evaluate(
    result: Result | Found,
    truth: np.ndarray,
    truth_points: dict[int, tuple[np.ndarray, np.ndarray]] | None = None,
    *,
    matching: Matching | None = None,
    classes: np.ndarray | None = None,
    angles: tuple[float, ...] = _ANGLES,
) -> dict[str, Any]:
    """Compare a result with a truth.

    Arguments:
        result: of `segment` or `fit_mask`, or what `read_run` has read.
        truth: (nz, ny, nx) true instances, 0 background; a binary mask is one instance.
        truth_points: for each true instance, points on its mid-surface and their normals, zyx voxels; from the mask's
            midline when None.
        matching: which instances belong together, where their labels' overlap is not the way to tell; from
            `match_instances` of filled shapes for instance, whose Dice the membranes' rows then show.
        classes: (nz, ny, nx) true classes of the network: 0 background, 1 protein, 2 membrane.
        angles: between a true normal and the beam, degrees: borders of the bands for which errors are told apart.

    Returns:
        A dictionary of plain numbers for JSON. The mean slice-wise Dice is over slices with truth, as in the paper
        (None if there are none). Distances are from the truth to the surface, in voxels; caps, where the
        membrane faces the beam (|normal_z| > 0.75) and the missing wedge hides it, apart. In `angles` and `seen` the bias is
        positive where the surface lies outside the true one, and `found` is the share of true points within two voxels of a surface,
        those of missed membranes included. `reliability` is the share of points within intervals of each level, `surface_dice` at one voxel.
        `neighbouring_slices` has the largest distance between a membrane's pixel and the next slice, for each pair of slices, of what the
        network says beside the surfaces and of the surfaces' labels (paper, Fig. 13); `classes` the network's accuracy and Dice (Section 6.1).

    Raises:
        ValueError: if the volumes' shapes differ.
    """
    labels, semantic, surfaces, voxel_size = result.found() if isinstance(result, Result) else result
    if truth.shape != labels.shape:
        raise ValueError(f"truth has shape {truth.shape}, the result {labels.shape}")
    if classes is not None and classes.shape != labels.shape:
        raise ValueError(f"classes have shape {classes.shape}, the result {labels.shape}")
    points = truth_points if truth_points is not None else truth_midlines(truth)
    matching = match_instances(labels, truth) if matching is None else matching
    per_slice, network = slice_dice(labels > 0, truth > 0), slice_dice(semantic == MEMBRANE, truth > 0)
    with_truth = (truth > 0).any((1, 2))
    rows, everything = [], []
    for (true, found), score in zip(matching.pairs.astype(int).tolist(), matching.dice.tolist()):
        row: dict[str, Any] = {"truth": true, "found": found, "dice": score}
        if found in surfaces and true in points:
            surface, (where, normals) = surfaces[found], points[true]
            where = where * [0, 1, 1] if is_flat(labels.shape) else where
            error = signed_distance(where, normals, surface.vertices, surface.normals)
            nearest = cKDTree(surface.vertices).query(where)[1]
            upward = np.abs(normals[:, 0])
            everything.append((error, upward, surface.sigma[nearest], surface.seen[nearest]))
            row |= {"closed": surface.closed, **_distances(*everything[-1][:3])}
            row["surface_dice"] = surface_dice(where, surface.vertices, _TOLERANCE)
        rows.append(row)
    pooled = [np.concatenate(a) for a in zip(*everything)] if everything else None
    lost = [np.abs(points[i][1][:, 0]) for i in matching.missed if i in points]
    return {
        "instances": {
            "truth": len(np.unique(truth[truth > 0])),
            "found": len(np.unique(labels[labels > 0])),
            "matched": len(rows),
            "missed": matching.missed,
            "invented": matching.invented,
        },
        "dice": {
            "mean_slice": _mean(per_slice[with_truth]),
            "overall": dice(labels > 0, truth > 0),
            "network_mean_slice": _mean(network[with_truth]),
            "network_overall": dice(semantic == MEMBRANE, truth > 0),
        },
        "distance_voxels": _distances(*pooled[:3]) if pooled else None,
        "angles": _by_angle(pooled, np.concatenate([np.zeros(0), *lost]), angles) if pooled else [],
        "seen": {
            name: _errors(*(a[pooled[3] == there] for a in pooled[:3:2]))
            for name, there in (("seen", True), ("inferred", False))
        }
        if pooled
        else None,
        "reliability": dict(zip(map(str, _LEVELS), reliability(pooled[0], pooled[2], _LEVELS))) if pooled else None,
        "neighbouring_slices": _neighbouring(labels, semantic),
        "classes": None if classes is None else class_scores(semantic, classes),
        "voxel_size": voxel_size,
        "membranes": rows,
        "slices": [
            {"slice": int(z), "dice": float(per_slice[z]), "network_dice": float(network[z])}
            for z in np.flatnonzero(~np.isnan(per_slice))
        ],
    }


def _neighbouring(labels: np.ndarray, semantic: np.ndarray) -> dict[str, Any]:
    """Largest distances between neighbouring slices, before surfaces were fitted and after."""
    beside = np.zeros(labels.shape, bool)
    for z in range(len(labels)):
        near = ndimage.distance_transform_cdt(labels[z] == 0) <= _BESIDE if labels[z].any() else False
        beside[z] = near & (semantic[z] == MEMBRANE)
    out = {}
    for name, mask in (("network", beside), ("surfaces", labels > 0)):
        steps = steps_between_slices(mask)
        median, largest = (float(f(steps)) if len(steps) else None for f in (np.median, np.max))
        out[name] = {"median": median, "largest": largest, "distances": np.round(steps, 2).tolist()}
    return out


def _mean(values: np.ndarray) -> float | None:
    return float(np.nanmean(values)) if len(values) else None


def _by_angle(pooled: list[np.ndarray], lost: np.ndarray, borders: tuple[float, ...]) -> list[dict[str, Any]]:
    """Errors in bands of the angle between normal and beam; `lost` are the upward components of missed membranes' normals."""
    error, upward, sigma = pooled[:3]
    rows = []
    for low, high in itertools.pairwise(borders):
        within, missed = (_angle_in(a, low, high) for a in (upward, lost))
        many = int(within.sum() + missed.sum())
        found = int((np.abs(error[within]) <= _FOUND).sum())
        row = {"from": low, "to": high, "points": many, "found": found / many if many else None}
        rows.append(row | _errors(error[within], sigma[within]))
    return rows


def _angle_in(upward: np.ndarray, low: float, high: float) -> np.ndarray:
    angle = np.degrees(np.arccos(np.clip(upward, 0.0, 1.0)))
    return (angle >= low) & ((angle < high) | (high >= 90.0))


def _errors(error: np.ndarray, sigma: np.ndarray) -> dict[str, float | None]:
    """Mean absolute error, bias and coverage; None of no points."""
    if len(error) == 0:
        return dict.fromkeys(("mean", "bias", "within_68_interval", "within_95_interval"))
    return {
        "mean": float(np.abs(error).mean()),
        "bias": float(error.mean()),
        "within_68_interval": coverage(error, sigma, 1.0),
        "within_95_interval": coverage(error, sigma),
    }


def _distances(error: np.ndarray, upward: np.ndarray, sigma: np.ndarray) -> dict[str, float | None]:
    def mean(of: np.ndarray) -> float | None:
        return float(of.mean()) if len(of) else None

    distance, cap = np.abs(error), upward > _CAP
    return {
        "mean": mean(distance),
        "sides": mean(distance[~cap]),
        "caps": mean(distance[cap]),
        "percentile_95": float(np.percentile(distance, 95)),
        "within_95_interval": coverage(error, sigma),
    }
