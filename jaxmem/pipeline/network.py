"""Slices as the network is to see them, and what it says of them."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy import ndimage

from jaxmem import preprocess
from jaxmem.pipeline.keeping.pieces import Slabs
from jaxmem.pipeline.keeping.record import Run
from jaxmem.pipeline.volume import is_flat, let_go
from jaxmem.settings import Config, PreprocessConfig
from jaxmem.types import BACKGROUND, MEMBRANE, PROTEIN, Tomogram
from jaxmem.unet import Predictor, load_weights

_CONSTANT = 5  # pixels of a square all of whose values are equal in a blank area
_LEAST_BLANK = 200  # pixels of a blank area
_EDGE = 80.0  # A; from a blank area, within which nothing is looked for
_BATCH = 4  # slices, a multiple of which a slab has; as many as the network's tiles in a call
_SLAB_VOXELS = 2**23  # of a slab, for the memory
_MOST_SLICES = 32  # in a slab, so that a killed run loses little


class Odd(NamedTuple):
    """Slices that are constant, slices that hold NaN or infinity, and slices with blank corners or strips."""

    flat: set[int]
    broken: set[int]
    blank: set[int]

    def tell(self, warn: Callable[[str], None]) -> None:
        """What the user should know of them."""
        if self.flat:
            warn(
                f"{len(self.flat)} constant slices ({_span(self.flat)}): what is found there comes from their neighbours"
            )
        if self.broken:
            warn(
                f"{len(self.broken)} slices hold NaN or infinity ({_span(self.broken)}): replaced by the slice's median"
            )
        if self.blank:
            warn(
                f"{len(self.blank)} slices have blank corners or strips ({_span(self.blank)}), as a rotated tomogram has: "
                "nothing is looked for there"
            )


def prepared_slices(
    data: Any,
    voxel_size: float,
    pixel_size: float,
    config: PreprocessConfig,
    odd: Odd,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[np.ndarray]:
    """Filtered, normalised slices at the network's pixel size, one after another from a volume that may be on disk.

    Arguments:
        data: (nz, ny, nx), an array or what can be indexed like one.
        voxel_size, pixel_size: of the volume and of the network, A.
        config: filters.
        odd: receives the numbers of slices that are constant or hold NaN.
        start, stop: first slice, and the one after the last; all when left out.
    """
    sigma = config.z_sigma / voxel_size
    reach = min(int(3 * sigma + 0.5), len(data) - 1)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-6)) ** 2)
    shape = network_shape(data.shape[1:], voxel_size, pixel_size, config)

    plain = replace(config, z_sigma=0.0)  # what is smoothed along the beam and what is not share a program
    cache: dict[int, np.ndarray] = {}
    for z in range(start, len(data) if stop is None else stop):
        for k in range(max(0, z - reach), min(len(data), z + reach + 1)):
            if k not in cache:
                cache[k] = _finite(np.asarray(data[k], np.float32), k, odd)
        cache.pop(z - reach - 1, None)
        # the filter is mirrored at the top and the bottom of the volume
        index = np.abs(np.arange(z - reach, z + reach + 1))
        index = np.where(index >= len(data), 2 * len(data) - 2 - index, index)
        total = sum(w * cache[int(k)] for w, k in zip(weights, index))
        yield np.asarray(_finished(jnp.asarray(total / weights.sum()), shape, plain, voxel_size))


def _finite(image: np.ndarray, k: int, odd: Odd) -> np.ndarray:
    """A slice without NaN and infinity."""
    bad = ~np.isfinite(image)
    if bad.any():
        odd.broken.add(k)
        image = np.where(bad, np.median(image[~bad]) if not bad.all() else 0.0, image)
    if np.ptp(image) == 0:
        odd.flat.add(k)
        return image
    blank = blank_of(image)
    if blank is not None:
        odd.blank.add(k)
        # with pixels of the rest, so that it has no edge, and does not count where brightness and noise are measured
        image = image.copy()
        image[blank] = np.random.default_rng(k).choice(image[~blank], int(blank.sum()))
    return image


def blank_of(image: Float[np.ndarray, "ny nx"]) -> Bool[np.ndarray, "ny nx"] | None:
    """Where a slice was filled up: large constant areas at its border; None where there is none.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=(64, 64))
        >>> noise[:, :12] = 0.0
        >>> int(blank_of(noise).sum()), blank_of(noise[:, 12:]) is None
        (768, True)
    """
    same = ndimage.maximum_filter(image, _CONSTANT) == ndimage.minimum_filter(image, _CONSTANT)
    if not same.any():
        return None
    area = ndimage.binary_dilation(same, np.ones((_CONSTANT, _CONSTANT)))
    piece, _ = ndimage.label(area)
    border = np.unique(np.concatenate([piece[0], piece[-1], piece[:, 0], piece[:, -1]]))
    size = np.bincount(piece.ravel())
    chosen = border[(border > 0) & (size[border] >= _LEAST_BLANK)]
    blank = np.isin(piece, chosen)
    return blank if blank.any() and not blank.all() else None


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _finished(image: Array, shape: tuple[int, int], config: PreprocessConfig, voxel_size: float) -> Array:
    """A slice filtered, resampled and normalised."""
    if config.xy_sigma > 0:
        image = preprocess.gaussian(image, (config.xy_sigma / voxel_size,) * 2)
    if config.low > 0 or config.high > 0:
        image = preprocess.band_pass(image, config.low * voxel_size, config.high * voxel_size)
    if config.contrast_window > 0:
        image = preprocess.enhance_contrast(image, config.contrast_window / voxel_size)
    if shape != image.shape:
        image = preprocess.rescale(image, shape)
    return preprocess.robust_normalise(image)


@functools.partial(jax.jit, static_argnums=1)
def _back(probability: Array, shape: tuple[int, int]) -> Array:
    """Class probabilities at the input's pixels."""
    return jnp.stack([preprocess.rescale(probability[..., c], shape) for c in range(probability.shape[-1])], -1)


def _span(slices: set[int]) -> str:
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


class Prediction(NamedTuple):
    """What the network says, at the input's voxels; volumes that lie on disk are read slab by slab.

    Attributes:
        probability: uint8, 255ths, of membrane; of slices smoothed along the beam, if they are.
        semantic: int8 labels.
        sharp: the probability in slices as they are; None if those are the same, or there are too few to be smoothed.
    """

    probability: np.ndarray | Slabs
    semantic: np.ndarray | Slabs
    sharp: np.ndarray | Slabs | None


def predict(tomogram: Tomogram, config: Config, run: Run) -> Prediction:
    """Network stage: one look at slices smoothed along the beam, and one at slices as they are, slab by slab.

    Arguments:
        tomogram: (nz, ny, nx), from `as_volume`.
        config: weights, tiling and filters.
        run: told of the resampling, of constant slices and of those that hold NaN; keeps the slabs if it keeps anything.

    Raises:
        JaxmemError: if the weights cannot be read.
    """
    model, pixel_size, digest = load_weights(config.network.weights or None)
    shape = tomogram.data.shape
    twice = config.preprocess.z_sigma > 0 and not is_flat(shape)
    n = config.network
    predictor = Predictor(model, tile=n.tile, overlap=n.overlap, symmetries=n.symmetries)
    seen = network_shape(shape[1:], tomogram.voxel_size, pixel_size, config.preprocess)
    run.decide(
        f"slices are resampled from {tomogram.voxel_size:.2f} to {pixel_size:.2f} A per pixel ({seen[1]} x {seen[0]})"
        if seen != shape[1:]
        else f"slices are used at {tomogram.voxel_size:.2f} A per pixel (the network's is {pixel_size:.2f})"
    )
    slab = slab_of(shape)
    odd = Odd(set(), set(), set())
    looks = {"probability": config.preprocess}
    if twice:
        looks["sharp"] = replace(config.preprocess, z_sigma=0.0)
    kinds = dict.fromkeys(looks, np.uint8) | {"semantic": np.int8}
    whole = {} if run.pieces else {name: np.empty(shape, kind) for name, kind in kinds.items()}
    with run.stage("network", len(looks) * shape[0]) as step:
        for k, start in enumerate(range(0, shape[0], slab)):
            stop = min(start + slab, shape[0])
            piece = run.pieces.get(run.name("network", k)) if run.pieces else None
            if piece is None:
                piece = {}
                for number, (name, filters) in enumerate(looks.items()):
                    done = len(looks) * start + number * (stop - start)
                    slices = prepared_slices(tomogram.data, tomogram.voxel_size, pixel_size, filters, odd, start, stop)
                    found = _look(slices, predictor, shape[1:], seen, lambda i, done=done: step(done + i))
                    piece[name] = np.stack([one[0] for one in found])
                    if name == "probability":
                        piece["semantic"] = np.stack([one[1] for one in found])
                own = range(start, stop)
                _hide(piece, tomogram.data, start, sorted(odd.blank & set(own)), _EDGE / tomogram.voxel_size)
                piece |= {name: np.array(sorted(getattr(odd, name) & set(own)), int) for name in Odd._fields}
                if run.pieces:
                    run.pieces.put(run.name("network", k), piece)
            for name in Odd._fields:
                getattr(odd, name).update(piece[name].tolist())
            for name in whole:
                whole[name][start:stop] = piece[name]
            let_go(tomogram.data)
            step(len(looks) * stop)
    odd.tell(run.warn)
    run.digests["network"] = digest

    def volume(name: str) -> np.ndarray | Slabs:
        if run.pieces is None:
            return whole[name]
        pieces = run.pieces
        return Slabs(lambda k: pieces.take(run.name("network", k))[name], shape, kinds[name], slab)

    return Prediction(volume("probability"), volume("semantic"), volume("sharp") if twice else None)


def _hide(piece: dict[str, np.ndarray], data: Any, start: int, slices: list[int], reach: float) -> None:
    """Take away what was found in blank areas of some slices and so many pixels about them: their edge looks like a membrane."""
    for z in slices:
        blank = blank_of(np.nan_to_num(np.asarray(data[z], np.float32)))
        if blank is not None:
            near = ndimage.distance_transform_edt(~blank) <= reach
            for name in piece:
                piece[name][z - start][near] = 0


def slab_of(shape: tuple[int, ...]) -> int:
    """Slices that are written together: a multiple of the network's batch, of 8 million voxels or less where that can be."""
    return int(np.clip(_SLAB_VOXELS // (_BATCH * shape[1] * shape[2]), 1, _MOST_SLICES // _BATCH)) * _BATCH


def _look(
    slices: Iterator[np.ndarray],
    predictor: Predictor,
    shape: tuple[int, ...],
    seen: tuple[int, ...],
    step: Callable[[int], None],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Probability of membrane (255ths) and semantic labels of some slices."""
    found = []
    for p in predictor(slices):
        p = np.asarray(_back(p, shape)) if seen != shape else p
        best = p.argmax(-1)
        semantic = np.select([best == MEMBRANE, best == PROTEIN], [MEMBRANE, PROTEIN], BACKGROUND).astype(np.int8)
        found.append((np.round(255.0 * np.clip(p[..., MEMBRANE], 0.0, 1.0)).astype(np.uint8), semantic))
        step(len(found))
    return found
