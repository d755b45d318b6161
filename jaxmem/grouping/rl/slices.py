"""Grouping by reinforcement learning, slice by slice: lines are traced and linked, and groups joined across slices."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int, Key
from scipy import ndimage

from jaxmem.grouping.merging import MergeConfig, neighbours, relabel_by_size
from jaxmem.grouping.midline import Midline, as_share
from jaxmem.grouping.rl.across import Lines, join_slices, propagate_labels, tangents_of
from jaxmem.grouping.rl.linker.linking import MOST, link_segments
from jaxmem.grouping.rl.tracing import resample, trace
from jaxmem.grouping.rl.weights import Linker

PIXEL = 14.0  # A; the linker's pixel, at which its simulated membranes have the size of real ones (model card)


def link_volume(
    key: Key[Array, ""],
    linker: Linker,
    probability: Any,
    sigma: float,
    threshold: float,
    voxel_size: float,
    walks: int = 12,
    step: Callable[[int], None] = lambda _: None,
) -> tuple[Lines, Int[np.ndarray, " n"]]:
    """Lines of every slice, and the membrane of each of their points.

    Arguments:
        key: random key of the sampled walks.
        linker: from `weights.load_linker`.
        probability: (nz, ny, nx) of membrane, as for `midline`; read slice by slice.
        sigma: smoothing, voxels.
        threshold: pixels whose smoothed probability is higher are traced.
        voxel_size: A.
        walks: sampled walks of the linker in each slice.
        step: told how many slices are done.

    Returns:
        Lines in voxels, and the membrane of each of their points, 1...m by falling size.
    """
    scale = voxel_size / PIXEL
    shape = probability.shape[1], probability.shape[2]
    traced = []
    for z in range(len(probability)):
        traced.append(trace(_smoothed(probability, z, sigma) > threshold))
        step(z // 2)
    most = min(max((len(paths) for paths, _ in traced), default=0), MOST)
    size = round(shape[0] * scale), round(shape[1] * scale)
    points, tangents, group, many = [], [], [], 0
    for z, (paths, closed) in enumerate(traced):
        if paths:
            found = link_segments(
                jax.random.fold_in(key, z),
                linker.policy,
                linker.judge,
                [resample(p, scale) for p in paths],
                size,
                closed,
                walks,
                most,
            )
            points += [np.insert(p, 0, float(z), axis=1) for p in paths]
            tangents += [tangents_of(p) for p in paths]
            group += [np.full(len(p), g + many) for p, g in zip(paths, found)]
            many += int(found.max()) + 1
        step((len(probability) + z + 1) // 2)
    if not points:
        lines = Lines(np.zeros((0, 3)), np.zeros((0, 2)), np.zeros(0, int))
    else:
        lines = Lines(np.concatenate(points), np.concatenate(tangents), np.concatenate(group))
    return lines, join_slices(lines)


def _smoothed(probability: Any, z: int, sigma: float) -> np.ndarray:
    """One slice of the smoothed volume."""
    reach = int(3.0 * sigma + 0.5) if len(probability) > 1 else 0
    index = np.clip(np.arange(z - reach, z + reach + 1), 0, len(probability) - 1)
    weight = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    near = as_share(probability[index[0] : index[-1] + 1])
    mean = np.tensordot(weight / weight.sum(), near[index - index[0]], 1)
    return ndimage.gaussian_filter(mean, sigma, mode="nearest", truncate=3.0)


def link_regions(
    line: Midline, lines: Lines, membrane: Int[np.ndarray, " n"], voxel_size: float, config: MergeConfig
) -> Int[np.ndarray, " m"]:
    """The region of each midline point, 1...m by falling size, as from `merge_regions`.

    Points that hang together with no line become regions of their own.

    Arguments:
        line: the midline, in two dimensions or three.
        lines: from `link_volume`.
        membrane: of each of their points.
        voxel_size: A.
        config: how far neighbours are.
    """
    points = line.points.astype(float)
    if points.shape[1] == 2:
        points = np.insert(points, 0, 0.0, axis=1)
    pairs, alone = neighbours(line.points, line.normals, voxel_size, config)
    region = propagate_labels(points, pairs, lines, membrane)
    region = np.where(region > 0, region, alone + 1 + region.max(initial=0))
    return relabel_by_size(region)
