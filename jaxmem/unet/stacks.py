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


def resampling(
    places: Float[np.ndarray, " m"], depth: int, spacing: float, phase: float = 0.0, averaged: bool = False
) -> Float[np.ndarray, "m depth"]:
    """What a sequence becomes at some places if it is first sampled farther apart, and then interpolated.

    Arguments:
        places: in samples of the sequence.
        depth: length of the sequence, which is mirrored at its ends.
        spacing: between the samples that are taken.
        phase: one of them lies here.
        averaged: over a spacing, as larger voxels are; otherwise they are read off between their neighbours.

    Returns:
        A matrix; each row adds up to one.

    Example:
        >>> resampling(np.array([0.0, 1.0, 2.0]), 4, 2.0).tolist()
        [[1.0, 0.0, 0.0, 0.0], [0.5, 0.0, 0.5, 0.0], [0.0, 0.0, 1.0, 0.0]]
    """
    along = (places - phase) / spacing
    first = int(np.floor(along.min()))
    taken = np.arange(first, int(np.ceil(along.max())) + 1)
    at, between = interpolation(along - first, len(taken) + 1)
    many = max(2, round(4 * spacing)) if averaged else 1
    within = ((np.arange(many) + 0.5) / many - 0.5) * spacing
    number, weights = interpolation(((phase + spacing * taken)[:, None] + within[None]).ravel(), depth)
    weights = weights.reshape(len(taken), many, -1).mean(1)
    matrix = np.zeros((len(places), depth))
    for k, column in zip(number, (between @ weights[at]).T):
        matrix[:, k] += column
    return matrix
