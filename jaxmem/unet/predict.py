"""Streaming prediction: any slice size, in overlapping tiles whose borders are blended away."""

import functools
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmem.numerics import compiler_options
from jaxmem.unet.functional import Network, network_of
from jaxmem.unet.model import UNet

_BLANK = 1e-4  # of the slice's standard deviation: what a tile of one value varies by when it has been resampled

Slice = Float[np.ndarray, "height width *slices"]


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    if length <= tile:
        return [0]
    count = -(-(length - overlap) // (tile - overlap))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def _window(length: int, start: int, tile: int, overlap: int) -> np.ndarray:
    """Weights of a tile along one axis: nothing in the outer quarter of an overlap, then a ramp; all at the slice's border."""
    ramp = np.ones(tile, np.float32)
    rise = np.clip(2.0 * (np.arange(overlap, dtype=np.float32) + 0.5) / overlap - 0.5, 0.0, 1.0)
    if start > 0:
        ramp[:overlap] = rise
    if start + tile < length:
        ramp[-overlap:] = rise[::-1]
    return ramp


def logits_in_blocks(
    net: Callable, images: Float[Array, "b h w *slices"], block: int = 2
) -> Float[Array, "b h w classes"]:
    """`net(images)`, on a CPU `block` images at a time: what a layer leaves then stays in the cache for the next.

    Elsewhere, or where `block` does not divide the batch, all at once.

    Arguments:
        net: maps images (b, h, w) or stacks (b, h, w, slices) to logits (b, h, w, classes), each image by itself.
        images: sides as `net` demands them.
        block: images at a time.
    """
    if jax.default_backend() != "cpu" or images.shape[0] % block:
        return net(images)
    out = jax.lax.map(net, images.reshape(-1, block, *images.shape[1:]))
    return out.reshape(images.shape[0], *out.shape[2:])


def _turned(images: Float[Array, "b h w *slices"], k: int) -> Array:
    """Images under the k-th symmetry of the square."""
    images = images.swapaxes(1, 2) if k & 4 else images
    images = images[:, ::-1] if k & 2 else images
    return images[:, :, ::-1] if k & 1 else images


def _back(images: Float[Array, "b h w classes"], k: int) -> Array:
    """The inverse of `_turned`, for what the network says of each pixel."""
    images = images[:, :, ::-1] if k & 1 else images
    images = images[:, ::-1] if k & 2 else images
    return images.swapaxes(1, 2) if k & 4 else images


def averaged(params: Network, images: Float[Array, "b h w *slices"], symmetries: int) -> Float[Array, "b h w classes"]:
    """Class probabilities averaged over the first `symmetries` of the square's symmetries, which are undone.

    Arguments:
        params: the network.
        images: sides as the network demands them.
        symmetries: 1, 2 or 4, or 8 for square images; static under jit.
    """
    net = params.model
    each = (_back(jax.nn.softmax(logits_in_blocks(net, _turned(images, k))), k) for k in range(symmetries))
    return functools.reduce(jnp.add, each) / symmetries


@functools.cache
def program() -> Callable:
    """`averaged`, compiled: one function for all predictors, so that a second one of the same network compiles nothing."""
    return jax.jit(averaged, static_argnames="symmetries", compiler_options=compiler_options())


class Predictor:
    """A network that looks at slices of any size, tile by tile.

    Arguments:
        model: the network.
        tile: longest side of a tile; smaller slices are one tile, larger ones as few as can be, no larger than need be.
        overlap: pixels shared by neighbouring tiles; at least the network's reach for results free of seams.
        symmetries: 1, 2, 4 or 8 of the square's symmetries over which probabilities are averaged.
        batch: tiles per call.
    """

    def __init__(self, model: UNet, *, tile: int = 512, overlap: int = 64, symmetries: int = 1, batch: int = 4):
        if symmetries not in (1, 2, 4, 8):
            raise ValueError(f"Predictor: symmetries must be 1, 2, 4 or 8, got {symmetries}")
        if tile % model.config.multiple or not 0 < overlap < tile:
            raise ValueError(
                f"Predictor: tile must be a multiple of {model.config.multiple} and larger than the overlap"
            )
        self.tile, self.overlap, self.batch, self.multiple = tile, overlap, batch, model.config.multiple
        self._params, self._symmetries, self._classes = network_of(model), symmetries, model.config.classes

    def _run(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(program()(self._params, jnp.asarray(images), self._symmetries))

    def _side(self, length: int) -> int:
        count = max(1, -(-(length - self.overlap) // (self.tile - self.overlap)))
        needed = -(-(length + (count - 1) * self.overlap) // count)
        return -(-needed // self.multiple) * self.multiple

    def __call__(self, slices: Iterable[Slice]) -> Iterator[Float[np.ndarray, "height width classes"]]:
        """Class probabilities of one slice after another, all of one size, or of stacks; nothing but a batch is held in memory.

        A tile of one value is background, and not looked at.
        """
        pending: list[np.ndarray] = []
        for image in slices:
            pending.append(np.asarray(image, np.float32))
            rows, columns = (len(_starts(n, self._side(n), self.overlap)) for n in image.shape[:2])
            if len(pending) * rows * columns >= self.batch:
                yield from self._flush(pending)
                pending = []
        if pending:
            yield from self._flush(pending)

    def _flush(self, images: list[np.ndarray]) -> Iterator[np.ndarray]:
        height, width = images[0].shape[:2]
        sides = self._side(height), self._side(width)
        padding = [(0, max(0, s - n)) for s, n in zip(sides, (height, width))]
        padding += [(0, 0)] * (images[0].ndim - 2)
        padded = [
            np.pad(image, padding, mode="symmetric" if max(p[1] for p in padding) < min(height, width) else "edge")
            for image in images
        ]
        full = padded[0].shape[:2]
        rows, columns = (_starts(n, s, self.overlap) for n, s in zip(full, sides))
        places = [(i, r, c) for i in range(len(images)) for r in rows for c in columns]
        tiles = np.stack([padded[i][r : r + sides[0], c : c + sides[1]] for i, r, c in places])
        seen = np.flatnonzero(np.ptp(tiles.reshape(len(tiles), -1), axis=1) > _BLANK)
        answer = np.zeros((*tiles.shape[:3], self._classes), np.float32)
        answer[..., 0] = 1.0
        for start in range(0, len(seen), self.batch):
            some = seen[start : start + self.batch]
            call = np.concatenate([tiles[some], np.repeat(tiles[some[-1:]], self.batch - len(some), 0)])
            answer[some] = self._run(call)[: len(some)]
        total = np.zeros((len(images), *full, answer.shape[-1]), np.float32)
        weight = np.zeros(full, np.float32)
        for k, (i, r, c) in enumerate(places):
            window = np.outer(
                _window(full[0], r, sides[0], self.overlap),
                _window(full[1], c, sides[1], self.overlap),
            )
            total[i, r : r + sides[0], c : c + sides[1]] += window[..., None] * answer[k]
            if i == 0:
                weight[r : r + sides[0], c : c + sides[1]] += window
        for i in range(len(images)):
            yield (total[i] / weight[..., None])[:height, :width]
