"""Which of the package's networks looks at a tomogram, and whether its membranes are dark: what networks say of a few slices."""

from typing import Any, NamedTuple

import numpy as np

from jaxmem.io import Negated
from jaxmem.pipeline.keeping.record import Run
from jaxmem.pipeline.slices import Odd, prepared_slices, prepared_stacks
from jaxmem.pipeline.volume import is_flat
from jaxmem.settings import Config
from jaxmem.types import MEMBRANE, Tomogram
from jaxmem.unet import Predictor, UNet, load_weights

_SLICES = 5  # that are looked at
_LEAST = 0.5  # of what single slices show; simulated tomograms of eleven kinds have 0.7 and more, one of thick single bands at 40 A 0.02
_ENOUGH = 0.002  # share of the slices that is membrane, for the comparison to say anything


class Chosen(NamedTuple):
    """A network, the size of its pixels in A, and the digest of its weights."""

    model: UNet
    pixel_size: float
    digest: str


class Shares(NamedTuple):
    """Shares of a few slices that are called membrane.

    Attributes:
        depth: by the package's network that sees depth; NaN where it is not asked.
        single: by the one for single slices, or that of the settings.
        inverted: by the same, with the contrast inverted.
    """

    depth: float
    single: float
    inverted: float


def look(tomogram: Tomogram, config: Config, run: Run) -> Shares:
    """What networks say of a few slices, or what was kept of it.

    Arguments:
        tomogram: (nz, ny, nx).
        config: weights, filters, tiles.
        run: keeps it.
    """

    def compute() -> Shares:
        own = Chosen(*load_weights(config.network.weights or None, flat=True))
        deep = not config.network.weights and not is_flat(tomogram.data.shape) and config.network.sees == "auto"
        inverted: Any = Negated(tomogram.data)
        return Shares(
            membrane_share(tomogram, Chosen(*load_weights()), config) if deep else float("nan"),
            membrane_share(tomogram, own, config),
            membrane_share(tomogram._replace(data=inverted), own, config),
        )

    return run.once(
        "looks", compute, lambda s: {"shares": np.array(s)}, lambda piece: Shares(*piece["shares"].tolist())
    )


def choose(shape: tuple[int, ...], shares: Shares, config: Config, run: Run) -> Chosen:
    """The network of the settings, or the one that suits the tomogram.

    Arguments:
        shape: of the tomogram.
        shares: from `look`.
        config: weights, and what the network is to see.
        run: told what was decided.

    Raises:
        JaxmemError: if the weights cannot be read.
    """
    sees = config.network.sees
    if config.network.weights:
        return Chosen(*load_weights(config.network.weights))
    if is_flat(shape) or sees == "slice":
        return Chosen(*load_weights(flat=True))
    if sees == "auto" and shares.single > _ENOUGH and shares.depth < _LEAST * shares.single:
        run.decide(
            f"the network that sees single slices is used: of its membrane in {_SLICES} slices the one that sees depth finds"
            f" {100 * shares.depth / shares.single:.0f} %"
        )
        return Chosen(*load_weights(flat=True))
    return Chosen(*load_weights())


def membrane_share(tomogram: Tomogram, chosen: Chosen, config: Config) -> float:
    """Share of a few slices that a network calls membrane.

    Arguments:
        tomogram: (nz, ny, nx).
        chosen: the network.
        config: filters and tiles.
    """
    data, n = tomogram.data, config.network
    predictor = Predictor(chosen.model, tile=n.tile, overlap=n.overlap)
    where = np.unique(np.linspace(0, len(data) - 1, min(_SLICES + 2, len(data))).round().astype(int))
    where = where[1:-1] if len(where) > _SLICES else where  # ends are often padded
    sizes = data, tomogram.voxel_size, chosen.pixel_size, config.preprocess, Odd(set(), set(), set())
    many = chosen.model.config.slices
    seen = [
        next(prepared_slices(*sizes, z, z + 1) if many == 1 else prepared_stacks(*sizes, many, z, z + 1))
        for z in where.tolist()
    ]
    return float(np.mean([p.argmax(-1) == MEMBRANE for p in predictor(seen)]))
