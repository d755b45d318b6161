"""Membrane masks made by other tools: their midlines, their outlines, and `fit_mask`, which fits surfaces to them."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from jaxmem.defaults import FROM_MASK, decided, known
from jaxmem.grouping import Midline, Region, midline
from jaxmem.grouping.select import regions_from_instances
from jaxmem.io import as_instances
from jaxmem.pipeline.editing.edits import Edit
from jaxmem.pipeline.keeping.packing import (
    pack_grouping,
    pack_lines,
    pack_pruning,
    unpack_grouping,
    unpack_lines,
    unpack_pruning,
)
from jaxmem.pipeline.keeping.record import Progress, Run
from jaxmem.pipeline.placing.refinement import Refined, refine
from jaxmem.pipeline.pruning import slice_ellipses
from jaxmem.pipeline.stages import group, midlines
from jaxmem.pipeline.surfaces import finish
from jaxmem.pipeline.volume import as_volume, is_flat
from jaxmem.results import Groups, Result
from jaxmem.settings import Config
from jaxmem.types import BACKGROUND, MEMBRANE, JaxmemError, Tomogram


def fit_mask(
    mask: Tomogram,
    config: Config | None = None,
    progress: Progress | None = None,
    *,
    instances: bool = False,
    filled: bool = False,
    tomogram: Tomogram | None = None,
    keep_surfaces: bool = True,
    edits: Sequence[Edit] = (),
    run: Run | None = None,
) -> Result:
    """Fit surfaces to a membrane mask made by any other tool.

    Arguments:
        mask: 0 is background. Any other value is membrane, or with `instances` the membrane's number.
        config: as for `segment`; preprocessing and network are not used, midlines are found by the mask's own thickness,
            and its points count as independent, unless settings say otherwise. The labels are as thick as the mask.
        progress: told how far each stage is.
        instances: keep the mask's own grouping.
        filled: the mask covers whole compartments; their outlines are the membranes.
        tomogram: from which the mask was made: it places the points anew (`config.refine`).
        keep_surfaces, edits, run: see `segment`.

    Returns:
        As `segment`; `semantic` is the mask (its outline if `filled`).

    Raises:
        JaxmemError: if the data are not a real volume, with `instances` not whole numbers from 0, the tomogram is of another size, or an edit names
            what is not there.
    """
    mask = as_volume(mask)
    if tomogram is not None:
        tomogram = as_volume(tomogram)
        if tomogram.data.shape != mask.data.shape:
            raise JaxmemError(
                f"the tomogram has {tomogram.data.shape[::-1]} voxels, the mask {mask.data.shape[::-1]}; give the one the mask was made from"
            )
    run = run or Run(progress)
    data = np.nan_to_num(np.asarray(mask.data), posinf=0.0, neginf=0.0)
    if instances:
        data = as_instances(data, "with --instances")
    if filled:
        data = outline(data)
    thickness = band_thickness(data != 0)
    config = for_mask(config or Config(), mask.voxel_size, thickness)
    sigma = known(config.midline.sigma) / mask.voxel_size
    run.decide(f"the mask's membranes are about {thickness:.1f} voxels thick; midlines are smoothed by {sigma:.2f}")
    run.decide(
        f"the mask's points count as known to {config.fit.least_noise} voxels at best, their errors as shared by {config.fit.inflation:g}"
    )

    def grouped() -> tuple[Midline, list[Region], np.ndarray]:
        if instances:
            return instance_lines(data.max(0) if is_flat(data.shape) else data, sigma, config, run)
        there = np.where(data != 0, np.uint8(255), np.uint8(0))
        line = midlines(there, sigma, config, run, faint=False)
        return line, *group(line, there, sigma, mask.voxel_size, config, run)

    line, regions, region = run.once(
        "regions",
        grouped,
        lambda found: pack_lines([found[0]]) | pack_grouping(found[1:]),
        lambda piece: (unpack_lines(piece)[0], *unpack_grouping(piece)),
    )
    clear = line.points if instances else line.points[line.weight > known(config.midline.threshold)]
    run.groups = Groups(clear, region, [])
    semantic = np.where(data != 0, MEMBRANE, BACKGROUND).astype(np.int8)
    # for the evidence only: what the mask says, stands
    slices, regions = run.once(
        "ellipses", lambda: (slice_ellipses(line, regions, config, run), regions), pack_pruning, unpack_pruning
    )
    refined = Refined([None] * len(regions), regions, config, [False] * len(regions))
    density = None
    if tomogram is not None and not is_flat(data.shape):
        density = tomogram._replace(voxel_size=mask.voxel_size)
        refined = refine(density, line, regions, config, run)
    return finish(run, semantic, line, refined, slices, mask, density, keep_surfaces=keep_surfaces, edits=edits)


def for_mask(config: Config, voxel_size: float, thickness: float) -> Config:
    """The settings with everything decided that is left open, for a mask of some voxel size (A) and thickness (voxels)."""
    own = {
        "sigma": float(np.clip(0.45 * thickness, 0.8, 4.0)) * voxel_size,
        "threshold": 0.3 if thickness >= 2 else 0.2,
    }
    config = decided(config, midline=own, fit={"thickness": thickness * voxel_size})
    return decided(config, **FROM_MASK)


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


def instance_lines(
    data: np.ndarray, sigma: float, config: Config, run: Run
) -> tuple[Midline, list[Region], np.ndarray]:
    """The midline of each instance by itself, in its own box, so that neighbours do not blur together; and each point's instance."""
    with run.stage("grouping", 1):
        line, owner, values = _lines(data, sigma, known(config.midline.threshold))
        regions = regions_from_instances(line, owner, data.shape, config.select)
    kept = {int(owner[r.members[0]]) for r in regions}
    for number, value in enumerate(values, 1):
        if number not in kept:
            run.decide(f"instance {value} was dropped: too few points")
    run.decide(
        f"{len(regions)} instances with {len(line.points)} midline points; in order: {[int(values[k - 1]) for k in sorted(kept)]}"
    )
    return line, regions, owner


def _lines(data: np.ndarray, sigma: float, threshold: float) -> tuple[Midline, np.ndarray, np.ndarray]:
    """Midline points of all instances, the dense number 1...n of each point's instance, and the instances' values."""
    values, dense = np.unique(data, return_inverse=True)
    values = values[values > 0]
    number = dense.reshape(data.shape) + (0 if (data == 0).any() else 1)
    d = data.ndim
    parts = [
        Midline(
            np.zeros((0, d), np.float32), np.zeros((0, d), np.float32), np.zeros((0, d), int), np.zeros(0, np.float32)
        )
    ]
    owner = [np.zeros(0, int)]
    for k, box in enumerate(ndimage.find_objects(number), 1):
        if box is None:
            continue
        low = np.array([max(0, s.start - 4) for s in box])
        inside = tuple(slice(a, s.stop + 4) for a, s in zip(low, box))
        line = midline((number[inside] == k).astype(np.float32), sigma, threshold)
        parts.append(line._replace(points=line.points + low.astype(np.float32), voxels=line.voxels + low))
        owner.append(np.full(len(line.points), k))
    return Midline(*(np.concatenate(a) for a in zip(*parts))), np.concatenate(owner), values


def truth_midlines(truth: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Points on the middle of each instance of a mask, with normals (unknown sign), (n, 3) zyx voxels."""
    thickness = band_thickness(truth != 0)
    sigma = float(np.clip(0.45 * thickness, 0.8, 4.0))
    flat = is_flat(truth.shape)
    line, owner, values = _lines(truth.max(0) if flat else truth, sigma, 0.3 if thickness >= 2 else 0.2)

    def lift(a: np.ndarray) -> np.ndarray:
        return np.pad(a, ((0, 0), (1, 0))) if flat else a

    numbers = [(k, int(value)) for k, value in enumerate(values, 1) if (owner == k).sum() > 4]
    return {value: (lift(line.points[owner == k]), lift(line.normals[owner == k])) for k, value in numbers}
