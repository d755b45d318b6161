"""One function per stage, and `segment`, which chains them from a tomogram."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import cKDTree

from jaxmem import preprocess
from jaxmem.grouping import Midline, Region, merge_regions, midline, select_membranes
from jaxmem.grouping.slicewise import link_regions, link_volume
from jaxmem.grouping.weights import load_linker
from jaxmem.pipeline.config import Config, PreprocessConfig
from jaxmem.pipeline.evidence import weigh
from jaxmem.pipeline.pruning import Slices, prune_and_recover, slice_ellipses
from jaxmem.pipeline.record import Groups, MembraneResult, Progress, Result, Run
from jaxmem.surface import extract, fit_membranes, paint
from jaxmem.types import BACKGROUND, MEMBRANE, PROTEIN, JaxmemError, Tomogram
from jaxmem.unet import Predictor, load_weights

_NEAR = 28.0  # A; so far smoothing may have moved a membrane
_BILAYER = 50.0  # A; thickness of the labels where nothing else is said


def prepared_slices(
    data: np.ndarray, voxel_size: float, pixel_size: float, config: PreprocessConfig, warn: Callable[[str], None]
) -> Iterator[np.ndarray]:
    """Filtered, normalised slices at the network's pixel size, one after another from a volume that may be on disk.

    Arguments:
        data: (nz, ny, nx).
        voxel_size, pixel_size: of the volume and of the network, A.
        config: filters.
        warn: told of slices that are constant or hold NaN.
    """
    sigma = config.z_sigma / voxel_size
    reach = min(int(3 * sigma + 0.5), len(data) - 1)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-6)) ** 2)
    shape = network_shape(data.shape[1:], voxel_size, pixel_size, config)
    scale = shape[0] / data.shape[1]

    @jax.jit
    def finish(image):
        if config.xy_sigma > 0:
            image = preprocess.gaussian(image, (config.xy_sigma / voxel_size,) * 2)
        if config.low > 0 or config.high > 0:
            image = preprocess.band_pass(image, config.low * voxel_size, config.high * voxel_size)
        if config.contrast_window > 0:
            image = preprocess.enhance_contrast(image, config.contrast_window / voxel_size)
        if scale != 1.0:
            image = preprocess.rescale(image, shape)
        return preprocess.robust_normalise(image)

    cache: dict[int, np.ndarray] = {}
    flat, broken = [], []
    for z in range(len(data)):
        for k in range(max(0, z - reach), min(len(data), z + reach + 1)):
            if k not in cache:
                image = np.asarray(data[k], np.float32)
                bad = ~np.isfinite(image)
                if bad.any():
                    broken.append(k)
                    image = np.where(bad, np.median(image[~bad]) if not bad.all() else 0.0, image)
                if np.ptp(image) == 0:
                    flat.append(k)
                cache[k] = image
        cache.pop(z - reach - 1, None)
        # the filter is mirrored at the top and the bottom of the volume
        index = np.abs(np.arange(z - reach, z + reach + 1))
        index = np.where(index >= len(data), 2 * len(data) - 2 - index, index)
        total = sum(w * cache[int(k)] for w, k in zip(weights, index))
        yield np.asarray(finish(jnp.asarray(total / weights.sum())))
    if flat:
        warn(f"{len(flat)} constant slices ({_span(flat)}): what is found there comes from their neighbours")
    if broken:
        warn(f"{len(broken)} slices hold NaN or infinity ({_span(broken)}): replaced by the slice's median")


def _span(slices: list[int]) -> str:
    return f"{min(slices)}" if len(slices) == 1 else f"{min(slices)} to {max(slices)}"


def network_shape(
    shape: tuple[int, ...], voxel_size: float, pixel_size: float, config: PreprocessConfig
) -> tuple[int, int]:
    """Size of a slice as the network sees it."""
    scale = voxel_size / pixel_size
    if abs(scale - 1.0) <= config.rescale_above:
        scale = 1.0
    height, width = shape
    return max(8, round(height * scale)), max(8, round(width * scale))


class Looks(NamedTuple):
    """What the network says, at the input's voxels.

    Attributes:
        probability: float16, of membrane; of slices smoothed along the beam, if they are.
        semantic: int8 labels.
        digest: SHA-256 of the weights.
        sharp: the probability in slices as they are; None if those are the same, or there are too few to be smoothed.
    """

    probability: np.ndarray
    semantic: np.ndarray
    digest: str
    sharp: np.ndarray | None


def predict(tomogram: Tomogram, config: Config, run: Run) -> Looks:
    """Network stage: one look at slices smoothed along the beam, and one at slices as they are."""
    model, pixel_size, digest = load_weights(config.network.weights or None)
    twice = config.preprocess.z_sigma > 0 and not is_flat(tomogram.data.shape)
    n = config.network
    predictor = Predictor(model, tile=n.tile, overlap=n.overlap, symmetries=n.symmetries)
    shape = network_shape(tomogram.data.shape[1:], tomogram.voxel_size, pixel_size, config.preprocess)
    run.decide(
        f"slices are resampled from {tomogram.voxel_size:.2f} to {pixel_size:.2f} A per pixel ({shape[1]} x {shape[0]})"
        if shape != tomogram.data.shape[1:]
        else f"slices are used at {tomogram.voxel_size:.2f} A per pixel (the network's is {pixel_size:.2f})"
    )
    many = len(tomogram.data)
    with run.stage("network", 2 * many if twice else many) as step:
        probability, semantic = _look(tomogram, predictor, pixel_size, config.preprocess, run.warn, step)
        sharp = None
        if twice:
            plain = replace(config.preprocess, z_sigma=0.0)
            sharp, _ = _look(tomogram, predictor, pixel_size, plain, lambda _: None, lambda done: step(many + done))
    return Looks(probability, semantic, digest, sharp)


def _look(
    tomogram: Tomogram,
    predictor: Predictor,
    pixel_size: float,
    config: PreprocessConfig,
    warn: Callable[[str], None],
    step: Callable[[int], None],
) -> tuple[np.ndarray, np.ndarray]:
    """Probability of membrane and semantic labels of all slices."""
    data = tomogram.data
    rescaled = network_shape(data.shape[1:], tomogram.voxel_size, pixel_size, config) != data.shape[1:]
    probability = np.empty(data.shape, np.float16)
    semantic = np.empty(data.shape, np.int8)
    back = jax.jit(lambda p: jnp.stack([preprocess.rescale(p[..., c], data.shape[1:]) for c in range(p.shape[-1])], -1))
    for z, p in enumerate(predictor(prepared_slices(data, tomogram.voxel_size, pixel_size, config, warn))):
        p = np.asarray(back(p)) if rescaled else p
        probability[z] = p[..., MEMBRANE]
        semantic[z] = np.select([p.argmax(-1) == MEMBRANE, p.argmax(-1) == PROTEIN], [MEMBRANE, PROTEIN], BACKGROUND)
        step(z + 1)
    return probability, semantic


def group(
    probability: np.ndarray, sigma: float, voxel_size: float, config: Config, run: Run, *, faint: bool = True
) -> tuple[Midline, list[Region]]:
    """Grouping stage: midline points, regions, membranes (paper, Section 4.2).

    With `faint` the midline holds fainter points, too, which ellipses may ask for; regions are made without those.
    """
    volume = probability.mean(0, dtype=np.float32) if is_flat(probability.shape) else probability
    threshold = config.midline.threshold
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
    threshold = config.midline.threshold
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
        mine = (distance < max(_NEAR / voxel_size, 2.0)) & (along > 0.7) & (fine.weight > config.midline.threshold)
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
        run.decide("grouping: region merging" + (" (auto)" if g.method == "auto" else ""))
        with run.stage("merging", 1):
            return merge_regions(bright.points, bright.normals, voxel_size, config.merge)
    run.decide("grouping: walker and linker in each slice, then across slices")
    linker = load_linker(g.weights or None)
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
) -> tuple[list[MembraneResult], np.ndarray, np.ndarray]:
    """Surface stage: implicit functions, meshes, labels of equal thickness and the uncertainty volume (A)."""
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
    half = max(0.5 * (config.fit.thickness or _BILAYER) / voxel_size, 0.75)
    with run.stage("surfaces", len(fitted)) as step:
        for i, membrane in enumerate(fitted):
            where = np.round(line.points[regions[i].members].mean(0)).astype(int).tolist()
            extracted = extract(membrane, volume_shape, config.fit) if membrane is not None else None
            if membrane is None or extracted is None:
                run.warn(f"the membrane at {where} was dropped: no surface fits its {len(regions[i].members)} points")
                continue
            mesh, field = extracted
            evidence = weigh(line, regions[i], i, slices, mesh, membrane.noise, config.fit)
            run.groups.members.append(membrane.points)
            found.append(MembraneResult(mesh, len(membrane.points), membrane.noise, evidence))
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


def is_flat(shape: tuple[int, ...]) -> bool:
    """Volumes of fewer than six slices are fitted as one slice: a surface's course along the beam cannot be told."""
    return shape[0] < 6


def finish(
    run: Run,
    semantic: np.ndarray,
    line: Midline,
    regions: list[Region],
    slices: Slices | None,
    tomogram: Tomogram,
    config: Config,
    digest: str,
) -> Result:
    """Surface stage and the record of the run."""
    if not regions:
        run.warn("no membrane was found: the labels are empty")
    shape = tomogram.data.shape
    if shape[0] > 1 and is_flat(shape):
        run.decide(f"{shape[0]} slices are too few for surfaces: their mean is fitted with curves")
    found, labels, sigma = surfaces(line, regions, slices, shape, tomogram.voxel_size, config, run)
    return Result(semantic, labels, sigma, found, run.decisions, run.warnings, run.seconds, digest, run.groups)


def as_volume(tomogram: Tomogram) -> Tomogram:
    """The tomogram with three axes; a single image becomes one slice.

    Raises:
        JaxmemError: if the data are not real numbers on two or three axes, or the voxel size is not positive.
    """
    data = tomogram.data
    if data.ndim == 2:
        data = data[None]
    if data.ndim != 3 or 0 in data.shape:
        raise JaxmemError(f"expected a volume of shape (nz, ny, nx), got {data.shape}")
    if np.iscomplexobj(data) or not (np.issubdtype(data.dtype, np.number) or data.dtype == bool):
        raise JaxmemError(f"expected real numbers, got {data.dtype}")
    if not (np.isfinite(tomogram.voxel_size) and tomogram.voxel_size > 0):
        raise JaxmemError(f"voxel size must be positive, got {tomogram.voxel_size}")
    return tomogram._replace(data=data)


def segment(tomogram: Tomogram, config: Config | None = None, progress: Progress | None = None) -> Result:
    """Find every membrane of a tomogram.

    Arguments:
        tomogram: membranes dark on a lighter background, as in an uninverted reconstruction.
        config: all settings; the defaults when None.
        progress: told how far each stage is.

    Returns:
        Volumes, surfaces and what was decided. No membrane at all is a result with empty labels, not an error.

    Raises:
        JaxmemError: if the data are not a real volume with a positive voxel size, or weights cannot be read.

    Example:
        >>> result = segment(Tomogram(volume, voxel_size=14.0))  # doctest: +SKIP
        >>> result.labels.max(), result.membranes[0].mesh.closed  # doctest: +SKIP
        (6, True)
    """
    config = config or Config()
    tomogram = as_volume(tomogram)
    run = Run(progress)
    if config.grouping.method == "rl":
        load_linker(config.grouping.weights or None)  # before the network has run, what is wrong with the file is said
    return assemble(predict(tomogram, config, run), tomogram, config, run)


def assemble(looks: Looks, tomogram: Tomogram, config: Config, run: Run) -> Result:
    """From what the network says to surfaces: all stages after it."""
    size = tomogram.voxel_size
    sigma = max(1.0, config.midline.sigma / size)
    line, regions = group(looks.probability, sigma, size, config, run)
    if looks.sharp is not None:
        line, regions = sharpen(line, regions, looks.sharp, sigma, size, config, run)
    slices = slice_ellipses(line, regions, config, run)
    regions = prune_and_recover(line, regions, slices, config, run)
    return finish(run, looks.semantic, line, regions, slices, tomogram, config, looks.digest)
