"""One function per stage, and `segment`, which chains them from a tomogram."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import TypeAlias

import jax
import numpy as np
from scipy.spatial import cKDTree

from jaxmem import __version__
from jaxmem.defaults import FROM_NETWORK, decided, known
from jaxmem.grouping import Midline, Region, as_share, members_of, merge_regions, midline, select_membranes
from jaxmem.grouping.rl.slices import link_regions, link_volume
from jaxmem.grouping.rl.weights import load_linker, load_walker
from jaxmem.pipeline.editing.edits import Edit
from jaxmem.pipeline.keeping.packing import (
    pack_grouping,
    pack_lines,
    pack_pruning,
    unpack_grouping,
    unpack_lines,
    unpack_pruning,
)
from jaxmem.pipeline.keeping.pieces import Slabs, key_of
from jaxmem.pipeline.keeping.record import Progress, Run
from jaxmem.pipeline.network import Prediction, predict
from jaxmem.pipeline.placing.refinement import Refined, refine
from jaxmem.pipeline.pruning import Ellipses, prune_and_recover, slice_ellipses
from jaxmem.pipeline.reasons import BRIGHT, looks_bright, why_nothing
from jaxmem.pipeline.surfaces import finish
from jaxmem.pipeline.volume import as_volume, is_flat
from jaxmem.results import Groups, Result
from jaxmem.settings import Config
from jaxmem.surface import Mesh
from jaxmem.types import Tomogram

Volume: TypeAlias = np.ndarray | Slabs

_NEAR = 28.0  # A; so far smoothing may have moved a membrane
_OF_MESHES = ("thickness", "common", "curvature_radius", "draws", "seed")  # settings of the fit that move no point
_SMOOTHING = 20.0  # A; of the midline, about half a bilayer; by hand


def midlines(probability: Volume, sigma: float, config: Config, run: Run, *, faint: bool = True) -> Midline:
    """Midline stage: points on the middle of membranes.

    Arguments:
        probability: (nz, ny, nx), 0...1 or 255ths; few slices count as their mean.
        sigma: smoothing, voxels.
        config: thresholds.
        run: told how long it took; says how many threads are at work.
        faint: keep fainter points, too, which ellipses may ask for.
    """
    flat = is_flat(probability.shape)
    volume = as_share(np.asarray(probability)).mean(0, dtype=np.float32) if flat else probability
    threshold = known(config.midline.threshold)
    wants = faint and config.ellipse.enabled and not flat
    least = min(threshold, config.ellipse.least_probability) if wants else threshold
    with run.stage("midlines", 1):
        return midline(volume, sigma, least, threshold, run.workers)


def group(
    line: Midline, probability: Volume, sigma: float, voxel_size: float, config: Config, run: Run
) -> tuple[list[Region], np.ndarray]:
    """Grouping stage: regions of clear midline points, and membranes (paper, Section 4.2).

    Arguments:
        line: from `midlines`, fainter points included.
        probability: what it was made from.
        sigma: smoothing of the midline, voxels.
        voxel_size: A.
        config: thresholds and method.
        run: told what was decided.

    Returns:
        The membranes, with indices into `line`, and the region of each clear point.
    """
    threshold = known(config.midline.threshold)
    clear = np.flatnonzero(line.weight > threshold)
    bright = Midline(*(a[clear] for a in line))
    region = _regions(bright, probability, sigma, threshold, voxel_size, config, run)
    shape = probability.shape[1:] if is_flat(probability.shape) else probability.shape
    with run.stage("selection", 1):
        regions = select_membranes(bright, region, shape, voxel_size, config.select, run.decide, merge=config.merge)
    run.decide(f"{len(clear)} midline points in {region.max(initial=0)} regions; {len(regions)} membranes")
    return [r._replace(members=clear[r.members]) for r in regions], region


def sharpen(
    line: Midline, regions: list[Region], fine: Midline, voxel_size: float, config: Config, run: Run
) -> list[Region]:
    """Membranes found in smoothed slices take their points from the midline of slices as they are.

    A point is the nearest membrane's if that is within 28 A (two voxels at least) and runs the same way. Membranes of which less than a quarter
    is left were made by the smoothing, and are dropped.

    Arguments:
        line, regions: of smoothed slices.
        fine: the midline of slices as they are.
        voxel_size: A.
        config: thresholds.
        run: told what was dropped.

    Returns:
        The membranes with their points on `fine`.
    """
    if not regions:
        return regions
    with run.stage("sharpening", 1):
        owner = np.repeat(np.arange(len(regions)), [len(r.members) for r in regions])
        members = np.concatenate([r.members for r in regions])
        reach = max(_NEAR / voxel_size, 2.0)
        distance, near = cKDTree(line.points[members]).query(fine.points, distance_upper_bound=reach, workers=-1)
        asked = np.flatnonzero((distance < reach) & (fine.weight > known(config.midline.threshold)))
        near = near[asked]
        along = np.abs((fine.normals[asked] * line.normals[members[near]]).sum(1))
        number = np.zeros(len(fine.points), int)
        number[asked] = np.where(along > 0.7, owner[near] + 1, 0)
        taken = members_of(number, len(regions))
    kept = []
    for region, points in zip(regions, taken):
        if len(points) >= 0.25 * len(region.members):
            kept.append(region._replace(members=points))
        else:
            where = np.round(line.points[region.members].mean(0)).astype(int).tolist()
            run.decide(f"the membrane at {where} was dropped: slices that are not smoothed do not show it")
    return kept


def _regions(
    bright: Midline,
    probability: Volume,
    sigma: float,
    threshold: float,
    voxel_size: float,
    config: Config,
    run: Run,
) -> np.ndarray:
    """Region of each midline point, by the method of `config.grouping`."""
    g = config.grouping
    if g.method != "rl":
        run.decide("grouping: region merging")
        with run.stage("merging", 1):
            return merge_regions(bright.points, bright.normals, voxel_size, config.merge)
    run.decide("grouping: walker and linker in each slice, then across slices")
    linker = load_linker(g.weights or None)
    run.digests |= {"linker": linker.digest, "walker": load_walker().digest}
    flat = is_flat(probability.shape)
    slices = as_share(np.asarray(probability)).mean(0, keepdims=True) if flat else probability
    with run.stage("linking", len(slices)) as step:
        key = jax.random.key(g.seed)
        lines, membrane = link_volume(key, linker, slices, sigma, threshold, voxel_size, g.walks, step)
        run.decide(
            f"{len(np.unique(lines.group))} groups in {len(slices)} slices; {membrane.max(initial=0)} across them"
        )
        return link_regions(bright, lines, membrane, voxel_size, config.merge)


def segment(
    tomogram: Tomogram,
    config: Config | None = None,
    progress: Progress | None = None,
    *,
    keep_surfaces: bool = True,
    edits: Sequence[Edit] = (),
    run: Run | None = None,
) -> Result:
    """Find every membrane of a tomogram.

    Arguments:
        tomogram: membranes dark on a lighter background, as in an uninverted reconstruction.
        config: all settings; the defaults when None.
        progress: told how far each stage is.
        keep_surfaces: keep each membrane's implicit function in the result, so that it can be called: 16 to 32 MB each.
        edits: what is to be changed of the membranes that are found; see `Edit`.
        run: a record to be used in place of a new one, with a `progress` of its own; it says where what is finished is kept, see `segment_file`.
            Volumes and membranes of the result are then read from there when they are asked for, and `keep_surfaces` has no effect.

    Returns:
        Volumes, surfaces and what was decided. No membrane at all is a result with empty labels, not an error.

    Raises:
        JaxmemError: if the data are not a real volume with a positive voxel size, weights cannot be read, or an edit names what is not there.

    Example:
        >>> result = segment(Tomogram(volume, voxel_size=14.0))  # doctest: +SKIP
        >>> result.labels.max(), result.membranes[0].mesh.closed  # doctest: +SKIP
        (6, True)
    """
    tomogram = as_volume(tomogram)
    config = for_tomogram(config or Config(), tomogram.voxel_size)
    run = run or Run(progress)
    if config.grouping.method == "rl":
        load_linker(config.grouping.weights or None)  # before the network has run, what is wrong with the file is said
    seen = predict(tomogram, config, run)
    if seen.shares is not None and looks_bright(seen.shares):
        run.warn(BRIGHT)
    result = assemble(seen, tomogram, config, run, keep_surfaces=keep_surfaces, edits=edits)
    if seen.shares is not None and not result.membranes:
        for k, line in enumerate(why_nothing(tomogram, seen.shares), 1):
            run.warn(f"reason {k}, perhaps: {line}")
    return result


def for_tomogram(config: Config, voxel_size: float) -> Config:
    """The settings with everything decided that is left open, for a tomogram of some voxel size (A)."""
    config = decided(config, midline={"sigma": max(_SMOOTHING, voxel_size)})
    return decided(config, **FROM_NETWORK)


def stage_keys(source: str, config: Config, edits: Sequence[Edit] = ()) -> dict[str, str]:
    """What each stage's pieces are named after: its input, what came before, and the settings that it depends on.

    Arguments:
        source: stands for the input and for the weights.
        config: without anything left open.
        edits: what is changed of the membranes that are found.
    """
    c = {name: asdict(getattr(config, name)) for name in (f.name for f in fields(config))}
    faint = (c["ellipse"]["enabled"], c["ellipse"]["least_probability"])
    name = key_of(source, __version__)
    keys = {"looks": key_of(name, "looks", (c["preprocess"], c["network"]))}
    for stage, settings in (
        ("network", (c["preprocess"], c["network"])),
        ("midlines", (c["midline"], faint)),
        ("regions", (c["grouping"], c["merge"], c["select"])),
        ("ellipses", (c["ellipse"], c["fit"]["inflation"])),
        ("refinement", (c["refine"], {k: v for k, v in c["fit"].items() if k not in _OF_MESHES})),
        ("surfaces", (c["fit"], Mesh._fields)),
    ):
        keys[stage] = name = key_of(name, stage, settings)
    keys["edits"] = key_of(keys["refinement"], [asdict(edit) for edit in edits])
    keys["edited"] = key_of(keys["surfaces"], keys["edits"])
    return keys


def assemble(
    seen: Prediction,
    tomogram: Tomogram,
    config: Config,
    run: Run,
    *,
    keep_surfaces: bool = True,
    edits: Sequence[Edit] = (),
) -> Result:
    """From what the network says to surfaces: all stages after it; `config` without anything left open, the rest as for `segment`."""
    size = tomogram.voxel_size
    sigma = max(1.0, known(config.midline.sigma) / size)

    def points() -> list[Midline]:
        looks = [seen.probability] if seen.sharp is None else [seen.probability, seen.sharp]
        return [midlines(volume, sigma, config, run) for volume in looks]

    lines = run.once("midlines", points, pack_lines, unpack_lines)

    def grouped() -> tuple[list[Region], np.ndarray]:
        regions, region = group(lines[0], seen.probability, sigma, size, config, run)
        if seen.sharp is not None:
            regions = sharpen(lines[0], regions, lines[1], size, config, run)
        return regions, region

    regions, region = run.once("regions", grouped, pack_grouping, unpack_grouping)
    run.groups = Groups(lines[0].points[lines[0].weight > known(config.midline.threshold)], region, [])
    line = lines[-1]
    lines.clear()  # memory: the midline of smoothed slices is not needed any more

    def pruned() -> tuple[dict[int, Ellipses] | None, list[Region]]:
        slices = slice_ellipses(line, regions, config, run)
        return slices, prune_and_recover(line, regions, slices, config, run)

    slices, regions = run.once("ellipses", pruned, pack_pruning, unpack_pruning)
    refined = Refined([None] * len(regions), regions, config, [False] * len(regions))
    if not is_flat(tomogram.data.shape):
        refined = refine(tomogram, line, regions, config, run)
    return finish(
        run, seen.semantic, line, refined, slices, tomogram, tomogram, keep_surfaces=keep_surfaces, edits=edits
    )
