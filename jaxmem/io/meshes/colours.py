"""Colours of membranes and of values on them, the same in every file and picture."""

import numpy as np
from jaxtyping import Float

MEMBRANES = np.array([
    (0.12, 0.47, 0.71), (1.00, 0.50, 0.05), (0.17, 0.63, 0.17), (0.84, 0.15, 0.16), (0.58, 0.40, 0.74),
    (0.55, 0.34, 0.29), (0.89, 0.47, 0.76), (0.50, 0.50, 0.50), (0.74, 0.74, 0.13), (0.09, 0.75, 0.81),
])  # fmt: skip
"""Red, green and blue of membranes 1, 2, ..., again from the first after the tenth."""

MAPS = {"sigma": "viridis", "seen": "coolwarm", "mean_curvature": "coolwarm", "gaussian_curvature": "coolwarm"}
"""The matplotlib map of each value on a vertex."""


def of_membrane(number: int) -> Float[np.ndarray, " 3"]:
    """The colour of a membrane, from 1."""
    return MEMBRANES[(number - 1) % len(MEMBRANES)]


def limits(name: str, values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Between what a value's colours run: from zero for error bars, 0 to 1 for what is seen, as far on both sides of zero for curvatures."""
    if name == "seen":
        return 0.0, 1.0
    top = float(np.percentile(np.abs(values), 98)) if len(values) else 1.0
    top = max(top, 1e-9)
    return (0.0, top) if name == "sigma" else (-top, top)


def painted(name: str, values: Float[np.ndarray, " n"], between: tuple[float, float]) -> Float[np.ndarray, "n 3"]:
    """Colours of values.

    Arguments:
        name: of the value, one of `MAPS`.
        values: one for each vertex.
        between: the values of the first colour and the last.
    """
    from matplotlib import colormaps

    share = (np.asarray(values, float) - between[0]) / (between[1] - between[0])
    return colormaps[MAPS[name]](np.clip(share, 0.0, 1.0))[:, :3]
