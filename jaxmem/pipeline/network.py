"""What the network says of a tomogram, slab by slab."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy import ndimage

from jaxmem import preprocess
from jaxmem.pipeline.choosing import Shares, choose, look
from jaxmem.pipeline.keeping.pieces import Slabs
from jaxmem.pipeline.keeping.record import Run
from jaxmem.pipeline.slices import Odd, blank_of, network_shape, prepared_slices, prepared_stacks
from jaxmem.pipeline.volume import is_flat, let_go
from jaxmem.settings import Config
from jaxmem.types import BACKGROUND, MEMBRANE, PROTEIN, Tomogram
from jaxmem.unet import Predictor

_EDGE = 80.0  # A; from a blank area, within which nothing is looked for
_BATCH = 4  # slices, a multiple of which a slab has; as many as the network's tiles in a call
_SLAB_VOXELS = 2**23  # of a slab, for the memory
_MOST_SLICES = 32  # in a slab, so that a killed run loses little


@functools.partial(jax.jit, static_argnums=1)
def _back(probability: Array, shape: tuple[int, int]) -> Array:
    """Class probabilities at the input's pixels."""
    return jnp.stack([preprocess.rescale(probability[..., c], shape) for c in range(probability.shape[-1])], -1)


class Prediction(NamedTuple):
    """What the network says, at the input's voxels; volumes that lie on disk are read slab by slab.

    Attributes:
        probability: uint8, 255ths, of membrane; of slices smoothed along the beam, if they are.
        semantic: int8 labels.
        sharp: the probability in slices as they are; None if those are the same, there are too few to be smoothed, or the network sees depth.
        shares: what networks say of a few slices.
    """

    probability: np.ndarray | Slabs
    semantic: np.ndarray | Slabs
    sharp: np.ndarray | Slabs | None
    shares: Shares | None = None


def predict(tomogram: Tomogram, config: Config, run: Run) -> Prediction:
    """Network stage, slab by slab: one look at each slice with its neighbours, or, by a network that sees single slices, one at slices
    smoothed along the beam and one at slices as they are.

    Arguments:
        tomogram: (nz, ny, nx), from `as_volume`.
        config: weights, tiling and filters.
        run: told of the resampling, of constant slices and of those that hold NaN; keeps the slabs if it keeps anything.

    Raises:
        JaxmemError: if the weights cannot be read.
    """
    shape = tomogram.data.shape
    shares = look(tomogram, config, run)
    model, pixel_size, digest = choose(shape, shares, config, run)
    depth = model.config.slices > 1
    twice = config.preprocess.z_sigma > 0 and not is_flat(shape) and not depth
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
                    sizes = tomogram.voxel_size, pixel_size, filters, odd
                    slices = (
                        prepared_stacks(tomogram.data, *sizes, model.config.slices, start, stop)
                        if depth
                        else prepared_slices(tomogram.data, *sizes, start, stop)
                    )
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

    return Prediction(volume("probability"), volume("semantic"), volume("sharp") if twice else None, shares)


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
