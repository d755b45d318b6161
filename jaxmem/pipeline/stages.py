"""One function per stage, and `segment`, which chains them from a tomogram."""

import jax
import numpy as np
from scipy.spatial import cKDTree

from jaxmem.defaults import FROM_NETWORK, decided, known
from jaxmem.grouping import Midline, Region, merge_regions, midline, select_membranes
from jaxmem.grouping.rl.slices import link_regions, link_volume
from jaxmem.grouping.rl.weights import load_linker, load_walker
from jaxmem.pipeline.evidence import weigh
from jaxmem.pipeline.network import Prediction, predict
from jaxmem.pipeline.pruning import Slices, prune_and_recover, slice_ellipses
from jaxmem.pipeline.record import Progress, Run
from jaxmem.pipeline.volume import as_volume, is_flat
from jaxmem.results import Groups, MembraneResult, Result
from jaxmem.settings import Config
from jaxmem.surface import extract, fit_membranes, paint
from jaxmem.types import Tomogram

_NEAR = 28.0  # A; so far smoothing may have moved a membrane
_SMOOTHING = 20.0  # A; of the midline, about half a bilayer; by hand


def group(
    probability: np.ndarray, sigma: float, voxel_size: float, config: Config, run: Run, *, faint: bool = True
) -> tuple[Midline, list[Region]]:
    """Grouping stage: midline points, regions, membranes (paper, Section 4.2).

    With `faint` the midline holds fainter points, too, which ellipses may ask for; regions are made without those.
    """
    volume = probability.mean(0, dtype=np.float32) if is_flat(probability.shape) else probability
    threshold = known(config.midline.threshold)
    with run.stage("midlines", 1):
        line = _line(volume, sigma, config, faint and not is_flat(probability.shape))
        clear = np.flatnonzero(line.weight > threshold)
        bright = Midline(*(a[clear] for a in line))
    region = _regions(bright, volume, sigma, threshold, voxel_size, config, run)
    run.groups = Groups(bright.points, region, [])
    with run.stage("selection", 1):
        regions = select_membranes(bright, region, volume.shape, voxel_size, config.select, run.decide)
    run.decide(f"{len(clear)} midline points in {region.max(initial=0)} regions; {len(regions)} membranes")
    return line, [r._replace(members=clear[r.members]) for r in regions]


def _line(volume: np.ndarray, sigma: float, config: Config, faint: bool) -> Midline:
    """The midline, with the points that ellipses may ask for if `faint`."""
    threshold = known(config.midline.threshold)
    least = min(threshold, config.ellipse.least_probability) if faint and config.ellipse.enabled else threshold
    return midline(volume, sigma, least, threshold)


def sharpen(
    line: Midline, regions: list[Region], sharp: np.ndarray, sigma: float, voxel_size: float, config: Config, run: Run
) -> tuple[Midline, list[Region]]:
    """Membranes found in smoothed slices take their points from the midline of slices as they are.

    A point is the nearest membrane's if that is within 28 A (two voxels at least) and runs the same way. Membranes of which less than a quarter
    is left were made by the smoothing, and are dropped.

    Arguments:
        line, regions: from `group`, of smoothed slices.
        sharp: (nz, ny, nx) probability of membrane in slices as they are.
        sigma: smoothing of the midline, voxels.
        voxel_size: A.
        config: thresholds.
        run: told what was dropped.

    Returns:
        The midline of slices as they are, and the membranes with their points on it.
    """
    if not regions:
        return line, regions
    with run.stage("sharpening", 1):
        fine = _line(sharp, sigma, config, faint=True)
        owner = np.concatenate([np.full(len(r.members), k) for k, r in enumerate(regions)])
        members = np.concatenate([r.members for r in regions])
        distance, near = cKDTree(line.points[members]).query(fine.points, workers=-1)
        along = np.abs((fine.normals * line.normals[members[near]]).sum(1))
        mine = (
            (distance < max(_NEAR / voxel_size, 2.0)) & (along > 0.7) & (fine.weight > known(config.midline.threshold))
        )
        taken = [np.flatnonzero(mine & (owner[near] == k)) for k in range(len(regions))]
    kept = []
    for region, points in zip(regions, taken):
        if len(points) >= 0.25 * len(region.members):
            kept.append(region._replace(members=points))
        else:
            where = np.round(line.points[region.members].mean(0)).astype(int).tolist()
            run.decide(f"the membrane at {where} was dropped: slices that are not smoothed do not show it")
    return fine, kept


def _regions(
    bright: Midline,
    volume: np.ndarray,
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
    slices = volume[None] if volume.ndim == 2 else volume
    with run.stage("linking", len(slices)) as step:
        key = jax.random.key(g.seed)
        lines, membrane = link_volume(key, linker, slices, sigma, threshold, voxel_size, g.walks, step)
        run.decide(
            f"{len(np.unique(lines.group))} groups in {len(slices)} slices; {membrane.max(initial=0)} across them"
        )
        return link_regions(bright, lines, membrane, voxel_size, config.merge)


def surfaces(
    line: Midline,
    regions: list[Region],
    slices: Slices | None,
    shape: tuple[int, ...],
    voxel_size: float,
    config: Config,
    run: Run,
    keep: bool = True,
) -> tuple[list[MembraneResult], np.ndarray, np.ndarray]:
    """Surface stage: implicit functions, meshes, labels of equal thickness and the uncertainty volume (A).

    With `keep` the result's membranes hold their implicit functions.
    """
    flat = is_flat(shape)
    volume_shape = shape[1:] if flat else shape
    with run.stage("gaussian process", 1):
        members = [r.members for r in regions]
        fitted = fit_membranes(
            [line.points[i] for i in members],
            [line.normals[i] for i in members],
            [r.shape for r in regions],
            [r.closed for r in regions],
            config.fit,
        )
    labels = np.zeros(volume_shape, np.int16)
    sigma = np.zeros(volume_shape, np.float32)
    closest = np.full(volume_shape, np.inf, np.float32)
    found: list[MembraneResult] = []
    # thinner than a voxel's diagonal in the slice, labels would fall to pieces
    half = max(0.5 * known(config.fit.thickness) / voxel_size, 0.75)
    with run.stage("surfaces", len(fitted)) as step:
        for i in range(len(fitted)):
            membrane, fitted[i] = fitted[i], None  # factors are large: what is not kept is freed
            where = np.round(line.points[regions[i].members].mean(0)).astype(int).tolist()
            extracted = extract(membrane, volume_shape, config.fit) if membrane is not None else None
            if membrane is None or extracted is None:
                run.warn(f"the membrane at {where} was dropped: no surface fits its {len(regions[i].members)} points")
                continue
            mesh, field = extracted
            evidence = weigh(line, regions[i], i, slices, mesh, membrane.noise, config.fit)
            run.groups.members.append(membrane.points)
            surface = membrane.surface if keep else None
            found.append(MembraneResult(mesh, len(membrane.points), membrane.noise, evidence, surface))
            number = len(found)
            paint(labels, sigma, number, mesh, field, half, closest)
            kind = "closed" if mesh.closed else "cut by the volume's border" if mesh.cut else "open"
            run.decide(
                f"membrane {number} at {where}: {kind}, {len(mesh.vertices)} vertices, noise {membrane.noise:.2f} voxels"
            )
            step(i + 1)
    sigma *= voxel_size
    if flat:
        labels, sigma = (np.ascontiguousarray(np.broadcast_to(a, shape)) for a in (labels, sigma))
    return found, labels, sigma


def finish(
    run: Run,
    semantic: np.ndarray,
    line: Midline,
    regions: list[Region],
    slices: Slices | None,
    tomogram: Tomogram,
    config: Config,
    keep_surfaces: bool = True,
) -> Result:
    """Surface stage and the record of the run; `keep_surfaces` as for `segment`."""
    if not regions:
        run.warn("no membrane was found: the labels are empty")
    shape = tomogram.data.shape
    if shape[0] > 1 and is_flat(shape):
        run.decide(f"{shape[0]} slices are too few for surfaces: their mean is fitted with curves")
    found, labels, sigma = surfaces(line, regions, slices, shape, tomogram.voxel_size, config, run, keep_surfaces)
    return Result(
        semantic, labels, sigma, found, config, tomogram.voxel_size, tomogram.origin,
        run.decisions, run.warnings, run.seconds, run.digests, run.groups,
    )  # fmt: skip


def segment(
    tomogram: Tomogram, config: Config | None = None, progress: Progress | None = None, *, keep_surfaces: bool = True
) -> Result:
    """Find every membrane of a tomogram.

    Arguments:
        tomogram: membranes dark on a lighter background, as in an uninverted reconstruction.
        config: all settings; the defaults when None.
        progress: told how far each stage is.
        keep_surfaces: keep each membrane's implicit function in the result, so that it can be called: 16 to 32 MB each.

    Returns:
        Volumes, surfaces and what was decided. No membrane at all is a result with empty labels, not an error.

    Raises:
        JaxmemError: if the data are not a real volume with a positive voxel size, or weights cannot be read.

    Example:
        >>> result = segment(Tomogram(volume, voxel_size=14.0))  # doctest: +SKIP
        >>> result.labels.max(), result.membranes[0].mesh.closed  # doctest: +SKIP
        (6, True)
    """
    tomogram = as_volume(tomogram)
    config = for_tomogram(config or Config(), tomogram.voxel_size)
    run = Run(progress)
    if config.grouping.method == "rl":
        load_linker(config.grouping.weights or None)  # before the network has run, what is wrong with the file is said
    return assemble(predict(tomogram, config, run), tomogram, config, run, keep_surfaces)


def for_tomogram(config: Config, voxel_size: float) -> Config:
    """The settings with everything decided that is left open, for a tomogram of some voxel size (A)."""
    config = decided(config, midline={"sigma": max(_SMOOTHING, voxel_size)})
    return decided(config, **FROM_NETWORK)


def assemble(seen: Prediction, tomogram: Tomogram, config: Config, run: Run, keep_surfaces: bool = True) -> Result:
    """From what the network says to surfaces: all stages after it; `config` without anything left open, `keep_surfaces` as for `segment`."""
    size = tomogram.voxel_size
    sigma = max(1.0, known(config.midline.sigma) / size)
    line, regions = group(seen.probability, sigma, size, config, run)
    if seen.sharp is not None:
        line, regions = sharpen(line, regions, seen.sharp, sigma, size, config, run)
    slices = slice_ellipses(line, regions, config, run)
    regions = prune_and_recover(line, regions, slices, config, run)
    return finish(run, seen.semantic, line, regions, slices, tomogram, config, keep_surfaces)
