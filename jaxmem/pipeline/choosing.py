"""Which of the package's networks looks at a tomogram."""

from typing import NamedTuple

import numpy as np

from jaxmem.pipeline.keeping.record import Run
from jaxmem.pipeline.slices import Odd, prepared_slices, prepared_stacks
from jaxmem.pipeline.volume import is_flat
from jaxmem.settings import Config
from jaxmem.types import MEMBRANE, Tomogram
from jaxmem.unet import Predictor, UNet, load_weights

_SLICES = 5  # that both look at
_LEAST = 0.5  # of what single slices show; simulated tomograms of eleven kinds have 0.7 and more, one of thick single bands at 40 A 0.02
_ENOUGH = 0.002  # share of the slices that is membrane, for the comparison to say anything


class Chosen(NamedTuple):
    """A network, the size of its pixels in A, and the digest of its weights."""

    model: UNet
    pixel_size: float
    digest: str


def choose(tomogram: Tomogram, config: Config, run: Run) -> Chosen:
    """The network of the settings, or the one that suits the tomogram.

    Arguments:
        tomogram: (nz, ny, nx).
        config: weights, and what the network is to see.
        run: told what was decided.

    Raises:
        JaxmemError: if the weights cannot be read.
    """
    flat, sees = is_flat(tomogram.data.shape), config.network.sees
    if config.network.weights:
        return Chosen(*load_weights(config.network.weights))
    if flat or sees == "slice":
        return Chosen(*load_weights(flat=True))
    deep = Chosen(*load_weights())
    if sees == "depth":
        return deep
    single = Chosen(*load_weights(flat=True))
    shares = [membrane_share(tomogram, one, config) for one in (deep, single)]
    if shares[1] > _ENOUGH and shares[0] < _LEAST * shares[1]:
        run.decide(
            f"the network that sees single slices is used: of its membrane in {_SLICES} slices the one that sees depth finds"
            f" {100 * shares[0] / shares[1]:.0f} %"
        )
        return single
    return deep


def membrane_share(tomogram: Tomogram, chosen: Chosen, config: Config) -> float:
    """Share of a few slices that a network calls membrane.

    Arguments:
        tomogram: (nz, ny, nx).
        chosen: the network.
        config: filters and tiles.
    """
    data, n = tomogram.data, config.network
    predictor = Predictor(chosen.model, tile=n.tile, overlap=n.overlap)
    where = np.unique(np.linspace(0, len(data) - 1, _SLICES + 2).round().astype(int)[1:-1]).tolist()
    sizes = data, tomogram.voxel_size, chosen.pixel_size, config.preprocess, Odd(set(), set(), set())
    many = chosen.model.config.slices
    seen = [
        next(prepared_slices(*sizes, z, z + 1) if many == 1 else prepared_stacks(*sizes, many, z, z + 1)) for z in where
    ]
    return float(np.mean([p.argmax(-1) == MEMBRANE for p in predictor(seen)]))
