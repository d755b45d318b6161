"""Why a run finds nothing, or the wrong things: what the network says of a few slices as they are, and inverted."""

import numpy as np

from jaxmem.pipeline.keeping.record import Run
from jaxmem.pipeline.network import predict
from jaxmem.settings import Config
from jaxmem.types import MEMBRANE, Tomogram

BRIGHT = "membranes look bright; they are taken to be dark: run again with --invert"
"""What is said where they do."""

_LOOKS = 3  # slices
_BRIGHT = 3.0  # times as much membrane in inverted slices as in slices as they are
_LEAST = 0.004  # share of inverted slices that is membrane


def membrane_shares(tomogram: Tomogram, config: Config) -> tuple[float, float]:
    """Shares of a few slices that the network calls membrane: as they are, and with the contrast inverted.

    Arguments:
        tomogram: (nz, ny, nx).
        config: weights and filters.
    """
    depth = len(tomogram.data)
    where = np.unique(np.linspace(0, depth - 1, _LOOKS + 2).round().astype(int)[1:-1])
    slices = np.stack([np.asarray(tomogram.data[int(k)], np.float32) for k in where])
    found = []
    for sign in (1.0, -1.0):
        each = [predict(tomogram._replace(data=sign * one[None]), config, Run(None)).semantic for one in slices]
        found.append(float(np.mean(np.stack(each) == MEMBRANE)))
    return found[0], found[1]


def looks_bright(shares: tuple[float, float]) -> bool:
    """Whether membranes seem to be bright, by what `membrane_shares` gives."""
    return shares[1] > _LEAST and shares[1] > _BRIGHT * shares[0]


def why_nothing(tomogram: Tomogram, shares: tuple[float, float]) -> list[str]:
    """Likely reasons that no membrane was found, the likeliest first.

    Arguments:
        tomogram: (nz, ny, nx).
        shares: from `membrane_shares`.
    """
    lines = []
    if looks_bright(shares):
        lines.append(BRIGHT)
    if shares[0] > _LEAST:
        lines.append(
            "the network sees membranes, but all were dropped: lower `least_area` or `least_points` under [select]"
        )
    lines.append(f"the voxel size of {tomogram.voxel_size:.2f} A is wrong: give --voxel-size in A")
    lines.append(
        "membranes are too faint for the network: smooth with `xy_sigma` under [preprocess], or train it with `jaxmem train --like`"
    )
    return lines
