"""Why a run finds nothing, or the wrong things."""

from jaxmem.pipeline.choosing import Shares
from jaxmem.types import Tomogram

BRIGHT = "membranes look bright; they are taken to be dark: run again with --invert"
"""What is said where they do."""

_BRIGHT = 3.0  # times as much membrane in inverted slices as in slices as they are
_LEAST = 0.004  # share of inverted slices that is membrane


def looks_bright(shares: Shares) -> bool:
    """Whether membranes seem to be bright."""
    return shares.inverted > _LEAST and shares.inverted > _BRIGHT * shares.single


def why_nothing(tomogram: Tomogram, shares: Shares) -> list[str]:
    """Likely reasons that no membrane was found, the likeliest first.

    Arguments:
        tomogram: (nz, ny, nx).
        shares: what networks say of a few slices.
    """
    lines = []
    if looks_bright(shares):
        lines.append(BRIGHT)
    if shares.single > _LEAST:
        lines.append(
            "the network sees membranes, but all were dropped: lower `least_area` or `least_open_area` under [select]"
        )
    lines.append(f"the voxel size of {tomogram.voxel_size:.2f} A is wrong: give --voxel-size in A")
    lines.append(
        "membranes are too faint for the network: smooth with `xy_sigma` under [preprocess], or train it with `jaxmem train --like`"
    )
    return lines
