"""Scores of a result against a truth: Dice, instances, distances between surfaces (paper, Section 6.3)."""

from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from jaxmem.metrics import Matching, coverage, dice, distance_to_surface, match_instances, slice_dice
from jaxmem.pipeline.masks import truth_midlines
from jaxmem.pipeline.volume import is_flat
from jaxmem.results import Found, Result
from jaxmem.types import MEMBRANE

_CAP = 0.75  # |component along the beam| of a normal above which a point lies on a cap


def evaluate(
    result: Result | Found,
    truth: np.ndarray,
    truth_points: dict[int, tuple[np.ndarray, np.ndarray]] | None = None,
    *,
    matching: Matching | None = None,
) -> dict[str, Any]:
    """Compare a result with a truth.

    Arguments:
        result: of `segment` or `fit_mask`, or what `read_run` has read.
        truth: (nz, ny, nx) true instances, 0 background; a binary mask is one instance.
        truth_points: for each true instance, points on its mid-surface and their normals, zyx voxels; from the mask's
            midline when None.
        matching: which instances belong together, where their labels' overlap is not the way to tell; from
            `match_instances` of filled shapes for instance, whose Dice the membranes' rows then show.

    Returns:
        A dictionary of plain numbers for JSON. The mean slice-wise Dice is over slices with truth, as in the paper
        (None if there are none). Distances are from the truth to the surface, in voxels; caps, where the
        membrane faces the beam (|normal_z| > 0.75) and the missing wedge hides it, apart.

    Raises:
        ValueError: if the volumes' shapes differ.
    """
    labels, semantic, surfaces, voxel_size = result.found() if isinstance(result, Result) else result
    if truth.shape != labels.shape:
        raise ValueError(f"truth has shape {truth.shape}, the result {labels.shape}")
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
            distance = distance_to_surface(where, surface.vertices, surface.normals)
            cap = np.abs(normals[:, 0]) > _CAP
            sigma = surface.sigma[cKDTree(surface.vertices).query(where)[1]]
            everything.append((distance, cap, sigma))
            row |= {"closed": surface.closed, **_distances(distance, cap, sigma)}
        rows.append(row)
    pooled = [np.concatenate(a) for a in zip(*everything)] if everything else None
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
        "distance_voxels": _distances(*pooled) if pooled else None,
        "voxel_size": voxel_size,
        "membranes": rows,
        "slices": [
            {"slice": int(z), "dice": float(per_slice[z]), "network_dice": float(network[z])}
            for z in np.flatnonzero(~np.isnan(per_slice))
        ],
    }


def _mean(values: np.ndarray) -> float | None:
    return float(np.nanmean(values)) if len(values) else None


def _distances(distance: np.ndarray, cap: np.ndarray, sigma: np.ndarray) -> dict[str, float | None]:
    def mean(of: np.ndarray) -> float | None:
        return float(of.mean()) if len(of) else None

    return {
        "mean": mean(distance),
        "sides": mean(distance[~cap]),
        "caps": mean(distance[cap]),
        "percentile_95": float(np.percentile(distance, 95)),
        "within_95_interval": coverage(distance, sigma),
    }


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def format_scores(scores: dict[str, Any]) -> str:
    """The scores as a table for people."""
    i, d = scores["instances"], scores["dice"]
    lines = [
        f"membranes      {i['matched']} of {i['truth']} found; missed {i['missed'] or 'none'}, invented {i['invented'] or 'none'}",
        f"slice-wise Dice {_number(d['mean_slice'])} (network alone {_number(d['network_mean_slice'])});"
        f" overall {d['overall']:.3f} ({d['network_overall']:.3f})",
    ]
    columns = ("mean", "sides", "caps", "percentile_95", "within_95_interval")
    if scores["distance_voxels"]:
        lines += ["", "truth found   dice  closed  distance in voxels: mean  sides   caps    95 %  in 95 % interval"]

        def cells(row: dict[str, Any]) -> str:
            return "  ".join(f"{row[c]:6.2f}" if row.get(c) is not None else "     -" for c in columns)

        for row in scores["membranes"]:
            closed = {True: "yes", False: "no"}.get(row.get("closed"), "-")
            lines.append(f"{row['truth']:5d} {row['found']:5d} {row['dice']:6.3f}  {closed:>6s}{'':22s}{cells(row)}")
        lines.append(f"{'all':>5s} {'':5s} {'':6s}  {'':6s}{'':22s}{cells(scores['distance_voxels'])}")
    slices = scores["slices"]
    if slices:
        lines += ["", "slice   Dice  network"]
        lines += [
            f"{s['slice']:5d}  {s['dice']:.3f}    {s['network_dice']:.3f}" for s in slices[:: max(1, len(slices) // 12)]
        ]
    return "\n".join(lines)
