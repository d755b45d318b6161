"""The labelled pixels of a slice as ordered lines: thinning, walking, and lines as the linker knows them (paper, Section 4.1)."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt
from skimage.morphology import skeletonize

from jaxmem.grouping.rl.environment import Policy
from jaxmem.grouping.rl.walker.policy import paths_of, walk_lines
from jaxmem.grouping.rl.walker.state import walk_task
from jaxmem.grouping.rl.weights import load_walker

_SHORTEST = 4  # pixels; shorter lines are specks; as few as the linker learnt from
_LOOP = 16  # pixels from which on a line whose ends meet is a loop: about 5 across, smaller ones are holes of the mask; by hand
_MEET = 2.0  # pixels along an axis between ends that meet: neighbours, or with one pixel left out


@functools.lru_cache(maxsize=4)
def _compiled(policy: Policy) -> Callable:
    return jax.jit(functools.partial(walk_lines, policy))


@functools.cache
def _shipped() -> Policy:
    return load_walker().policy


def trace(
    mask: Bool[np.ndarray, "height width"], policy: Policy | None = None
) -> tuple[list[Float[np.ndarray, "_ 2"]], list[bool]]:
    """Lines of pixels in order, and which of them are loops.

    Arguments:
        mask: membrane pixels.
        policy: of the walker, the package's own when None; compiled once for each policy.

    Returns:
        y, x of each line's pixels; lines of fewer than four pixels are left out.
    """
    line = skeletonize(mask)
    if not line.any():
        return [], []
    walk, order = _compiled(policy or _shipped())(walk_task(line, distance_transform_edt(mask)))
    paths = [p for p in paths_of(np.asarray(walk), np.asarray(order)) if len(p) >= _SHORTEST]
    return paths, [len(p) >= _LOOP and bool(np.abs(p[0] - p[-1]).max() <= _MEET) for p in paths]


def resample(path: Float[np.ndarray, "_ 2"], scale: float) -> Float[np.ndarray, "_ 2"]:
    """The path's points times `scale`, and a pixel apart again; four points at least."""
    points = path * scale
    at = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    new = np.linspace(0.0, at[-1], max(_SHORTEST, round(float(at[-1])) + 1))
    return np.stack([np.interp(new, at, points[:, a]) for a in range(2)], -1)
