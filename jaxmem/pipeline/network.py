"""Slices as the network is to see them, and what it says of them."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxmem import preprocess
from jaxmem.pipeline.record import Run
from jaxmem.pipeline.volume import is_flat
from jaxmem.settings import Config, PreprocessConfig
from jaxmem.types import BACKGROUND, MEMBRANE, PROTEIN, Tomogram
from jaxmem.unet import Predictor, load_weights


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

    plain = replace(config, z_sigma=0.0)  # what is smoothed along the beam and what is not share a program
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
        yield np.asarray(_finished(jnp.asarray(total / weights.sum()), shape, plain, voxel_size))
    if flat:
        warn(f"{len(flat)} constant slices ({_span(flat)}): what is found there comes from their neighbours")
    if broken:
        warn(f"{len(broken)} slices hold NaN or infinity ({_span(broken)}): replaced by the slice's median")


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


class Prediction(NamedTuple):
    """What the network says, at the input's voxels.

    Attributes:
        probability: float16, of membrane; of slices smoothed along the beam, if they are.
        semantic: int8 labels.
        sharp: the probability in slices as they are; None if those are the same, or there are too few to be smoothed.
    """

    probability: np.ndarray
    semantic: np.ndarray
    sharp: np.ndarray | None


def predict(tomogram: Tomogram, config: Config, run: Run) -> Prediction:
    """Network stage: one look at slices smoothed along the beam, and one at slices as they are.

    Arguments:
        tomogram: (nz, ny, nx), from `as_volume`.
        config: weights, tiling and filters.
        run: told of the resampling, of constant slices and of those that hold NaN.

    Raises:
        JaxmemError: if the weights cannot be read.
    """
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
    run.digests["network"] = digest
    return Prediction(probability, semantic, sharp)


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
    for z, p in enumerate(predictor(prepared_slices(data, tomogram.voxel_size, pixel_size, config, warn))):
        p = np.asarray(_back(p, data.shape[1:])) if rescaled else p
        probability[z] = p[..., MEMBRANE]
        semantic[z] = np.select([p.argmax(-1) == MEMBRANE, p.argmax(-1) == PROTEIN], [MEMBRANE, PROTEIN], BACKGROUND)
        step(z + 1)
    return probability, semantic
