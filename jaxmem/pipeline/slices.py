"""Slices of a tomogram as the network is to see them: finite, filtered, resampled, normalised."""

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
from jaxmem.settings import PreprocessConfig
from jaxmem.unet import interpolation, offsets

_CONSTANT = 5  # pixels of a square all of whose values are equal in a blank area
_LEAST_BLANK = 200  # pixels of a blank area


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


def prepared_stacks(
    data: Any,
    voxel_size: float,
    pixel_size: float,
    config: PreprocessConfig,
    odd: Odd,
    slices: int,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[np.ndarray]:
    """The same for a network that sees depth: each slice with its neighbours (height, width, slices), one network's pixel apart.

    Slices are not smoothed along the beam, and are normalised with their neighbours.

    Arguments:
        data, voxel_size, pixel_size, config, odd, start, stop: as in `prepared_slices`.
        slices: of a stack.
    """
    shape = network_shape(data.shape[1:], voxel_size, pixel_size, config)
    cache: dict[int, Array] = {}
    for z in range(start, len(data) if stop is None else stop):
        number, weights = interpolation(z + offsets(slices) * pixel_size / voxel_size, len(data))
        cache = {k: image for k, image in cache.items() if k in number}
        for k in set(number.tolist()) - cache.keys():
            image = _finite(np.asarray(data[k], np.float32), k, odd)
            cache[k] = _filtered(jnp.asarray(image), shape, config, voxel_size)
        stack = jnp.stack([cache[int(k)] for k in number], -1)
        yield np.asarray(_stacked(stack, jnp.asarray(weights, stack.dtype)))


@jax.jit
def _stacked(stack: Array, weights: Array) -> Array:
    """Slices between some, normalised."""
    return preprocess.normalised_stack(stack @ weights.T)


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
    return preprocess.robust_normalise(_filtered(image, shape, config, voxel_size))


@functools.partial(jax.jit, static_argnums=(1, 2, 3), inline=True)
def _filtered(image: Array, shape: tuple[int, int], config: PreprocessConfig, voxel_size: float) -> Array:
    """A slice filtered and resampled."""
    if config.xy_sigma > 0:
        image = preprocess.gaussian(image, (config.xy_sigma / voxel_size,) * 2)
    if config.low > 0 or config.high > 0:
        image = preprocess.band_pass(image, config.low * voxel_size, config.high * voxel_size)
    if config.contrast_window > 0:
        image = preprocess.enhance_contrast(image, config.contrast_window / voxel_size)
    if shape != image.shape:
        image = preprocess.rescale(image, shape)
    return image


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
