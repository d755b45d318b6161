"""Membrane masks made by other tools: their midlines, their outlines, and `fit_mask`, which fits surfaces to them."""

from dataclasses import replace

import numpy as np
from scipy import ndimage

from jaxmem.grouping import Midline, Region, midline
from jaxmem.grouping.select import regions_from_instances
from jaxmem.pipeline.config import Config
from jaxmem.pipeline.stages import Progress, Result, Run, as_volume, finish, group
from jaxmem.types import BACKGROUND, MEMBRANE, JaxmemError, Tomogram

_USUAL = 14.0  # A; for thresholds where a mask does not tell its voxel size


def fit_mask(
    mask: Tomogram,
    config: Config | None = None,
    progress: Progress | None = None,
    *,
    instances: bool = False,
    filled: bool = False,
) -> Result:
    """Fit surfaces to a membrane mask made by any other tool.

    Arguments:
        mask: 0 is background. Any other value is membrane, or with `instances` the membrane's number.
        config: as for `segment`; the network's part is not used. The labels are as thick as the mask, unless
            `fit.thickness` says otherwise.
        progress: told how far each stage is.
        instances: keep the mask's own grouping.
        filled: the mask covers whole compartments; their outlines are the membranes.

    Returns:
        As `segment`; `semantic` is the mask (its outline if `filled`).

    Raises:
        JaxmemError: if the data are not a real volume, or with `instances` not of whole numbers.
    """
    config = config or Config()
    mask = as_volume(mask)
    run = Run(progress)
    data = np.nan_to_num(np.asarray(mask.data))
    if instances and not np.array_equal(data, np.round(data)):
        raise JaxmemError(
            "the mask's instance numbers are not whole; leave --instances out for a probability or binary mask"
        )
    if filled:
        data = outline(data)
    thickness = band_thickness(data != 0)
    sigma = float(np.clip(0.45 * thickness, 0.8, 4.0))
    run.decide(f"the mask's membranes are about {thickness:.1f} voxels thick; midlines are smoothed by {sigma:.2f}")
    config = replace(config, midline=replace(config.midline, threshold=0.3 if thickness >= 2 else 0.2))
    # a mask's ridge has no probability to go by
    config = replace(config, select=replace(config.select, least_open_probability=0.0))
    if config.fit.thickness <= 0:
        config = replace(config, fit=replace(config.fit, thickness=thickness * mask.voxel_size))
    flat = data.shape[0] == 1
    if instances:
        line, regions = instance_lines(data[0] if flat else data, sigma, config, run)
    else:
        size = mask.voxel_size if mask.voxel_size != 1.0 else _USUAL  # 1.0 stands for unknown
        line, regions = group((data != 0).astype(np.float32), sigma, size, config, run)
    semantic = np.where(data != 0, MEMBRANE, BACKGROUND).astype(np.int8)
    return finish(run, semantic, line, regions, mask, config, "")


def outline(filled: np.ndarray, half_width: float = 0.0) -> np.ndarray:
    """Voxels of each filled label that touch another value; faces at the volume's border do not count.

    Arguments:
        filled: labels, 0 background.
        half_width: widens the outline to a band of twice this many voxels (to both sides).
    """
    axes = [a for a in range(filled.ndim) if filled.shape[a] > 1]
    edge = np.zeros(filled.shape, bool)
    for axis in axes:
        step = np.diff(filled, axis=axis) != 0
        before = tuple(slice(None, -1) if a == axis else slice(None) for a in range(filled.ndim))
        after = tuple(slice(1, None) if a == axis else slice(None) for a in range(filled.ndim))
        edge[before] |= step
        edge[after] |= step
    line = np.where(edge, filled, 0)
    if half_width <= 0:
        return line
    distance, nearest = ndimage.distance_transform_edt(line == 0, return_indices=True)
    return np.where(distance <= half_width, line[tuple(nearest)], 0)


def fill(labels: np.ndarray) -> np.ndarray:
    """Each instance with its inside, slice by slice; of nested ones the inner keeps its place."""
    out = np.zeros_like(labels)
    for value in sorted(np.unique(labels[labels > 0]), key=lambda v: -int((labels == v).sum())):
        for z in np.flatnonzero((labels == value).any((1, 2))):
            out[z][ndimage.binary_fill_holes(labels[z] == value)] = value
    return out


def band_thickness(mask: np.ndarray) -> float:
    """Thickness in voxels of the bands in a mask, from the distance transform of its middle slice."""
    if not mask.any():
        return 1.0
    planes = np.flatnonzero(mask.any((1, 2)))
    sample = mask[planes[len(planes) // 2]]
    depth = ndimage.distance_transform_edt(np.pad(sample, 1))
    return max(1.0, 2.0 * float(np.percentile(depth[depth > 0], 90)) - 1.0)


def instance_lines(data: np.ndarray, sigma: float, config: Config, run: Run) -> tuple[Midline, list[Region]]:
    """The midline of each instance by itself, in its own box, so that neighbours do not blur together."""
    parts, owner = [], []
    with run.stage("grouping", 1):
        boxes = ndimage.find_objects(data.astype(np.int32))
        for value, box in enumerate(boxes, 1):
            if box is None:
                continue
            low = [max(0, s.start - 4) for s in box]
            inside = tuple(slice(a, s.stop + 4) for a, s in zip(low, box))
            line = midline((data[inside] == value).astype(np.float32), sigma, config.midline.threshold)
            offset = np.array(low)
            parts.append(line._replace(points=line.points + offset.astype(np.float32), voxels=line.voxels + offset))
            owner.append(np.full(len(line.points), value))
        if not parts:
            d = data.ndim
            return Midline(np.zeros((0, d)), np.zeros((0, d)), np.zeros((0, d), int), np.zeros(0)), []
        line = Midline(*(np.concatenate(a) for a in zip(*parts)))
        regions = regions_from_instances(line, np.concatenate(owner), data.shape, config.select)
    run.decide(f"{len(regions)} instances with {len(line.points)} midline points")
    return line, regions


def truth_midlines(truth: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Points on the middle of each instance of a mask, with normals (unknown sign), (n, 3) zyx voxels."""
    sigma = float(np.clip(0.45 * band_thickness(truth != 0), 0.8, 4.0))
    flat = truth.shape[0] == 1
    line, regions = instance_lines(truth[0] if flat else truth, sigma, Config(), Run(None))
    values = truth[0] if flat else truth

    def lift(a: np.ndarray) -> np.ndarray:
        return np.pad(a, ((0, 0), (1, 0))) if flat else a

    out = {}
    for region in regions:
        numbers = values[tuple(line.voxels[region.members].T)]
        value = int(np.bincount(numbers[numbers > 0].astype(int)).argmax())
        out[value] = lift(line.points[region.members]), lift(line.normals[region.members])
    return out
