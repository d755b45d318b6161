"""Stacks of neighbouring slices: which slices of a volume a network sees that looks at several."""

import numpy as np
from jaxtyping import Float, Int


def interpolation(
    places: Float[np.ndarray, " m"], depth: int
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, "m k"]]:
    """Which slices of a volume lie beside some places between slices, and how much of each makes the slice there.

    Arguments:
        places: along the beam, slices; in any order.
        depth: number of the volume's slices, which is mirrored at its first and last.

    Returns:
        The numbers of the slices, one for each of a range, and the weights of a linear interpolation.

    Example:
        >>> number, weights = interpolation(np.array([-0.5, 0.0, 0.5]), 9)
        >>> number.tolist(), weights.tolist()
        ([1, 0, 1], [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]])
    """
    below = np.floor(places).astype(int)
    share = places - below
    first, last = below.min(), (below + (share > 0)).max()
    weights = np.zeros((len(places), last - first + 1))
    rows = np.arange(len(places))
    weights[rows, below - first] = 1.0 - share
    between = share > 0
    weights[rows[between], below[between] - first + 1] = share[between]
    period = max(2 * (depth - 1), 1)
    number = np.arange(first, last + 1) % period
    return np.where(number >= depth, period - number, number), weights


def offsets(slices: int) -> Float[np.ndarray, " slices"]:
    """Places of a stack's slices about the middle one, in pixels."""
    return np.arange(slices) - slices // 2.0
