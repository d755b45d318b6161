"""From a probability to points, with a gradient: given voxels move onto the ridge that they lie beside.

`grouping.midline` finds the voxels of all ridges on the host; here their places become differentiable functions of the probability, so
that a loss on the surface reaches the network that made it.
"""

from itertools import combinations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmem.ellipse.geometry import eigen
from jaxmem.numerics import compiled
from jaxmem.preprocess import gaussian
from jaxmem.types import Scalar


class Ridge(NamedTuple):
    """Points on ridges.

    Attributes:
        points: (n, d) voxels, zyx (yx in two dimensions).
        normals: (n, d) unit vectors across the ridge; the sign is arbitrary.
        weight: (n,) smoothed probability at the voxels.
        mask: (n,) where there is a ridge within `reach` of the voxel; the other points stay on their voxels.
    """

    points: Float[Array, "n d"]
    normals: Float[Array, "n d"]
    weight: Float[Array, " n"]
    mask: Bool[Array, " n"]


@compiled(static=("sigma",))
def refine(
    probability: Float[Array, "*shape"],
    voxels: Int[Array, "n d"],
    mask: Bool[Array, " n"] | None = None,
    *,
    sigma: float = 1.5,
    reach: Scalar = 1.0,
) -> Ridge:
    """Move voxels onto the ridge of a smoothed membrane probability (Steger 1998): where its gradient across the membrane vanishes.

    Along the direction n of the most negative second derivative b the ridge lies -(g . n) / b away, where g is the gradient.

    Arguments:
        probability: of membrane, two- or three-dimensional.
        voxels: beside the ridge; those of `grouping.midline`, for instance. Ones outside the volume are moved to its border.
        mask: rows that count; all when None.
        sigma: standard deviation of the smoothing, voxels; about half the membrane's thickness. Static under jit.
        reach: farthest move, voxels.

    Returns:
        Differentiable in the probability. A bent ridge lies too far on the inside of the bend by sigma^2 / 2 times its curvature (see
        `grouping.midline.bending`); that is not taken back here.

    Raises:
        ValueError: at trace, if voxels and probability differ in dimension.

    Example:
        >>> row = jnp.exp(-0.5 * ((jnp.arange(16.0) - 7.3) / 1.5) ** 2)
        >>> found = refine(jnp.broadcast_to(row, (16, 16)), jnp.array([[8, 7]])).points[0]
        >>> round(float(found[0]), 1), round(float(found[1]), 1)
        (8.0, 7.3)
    """
    d = probability.ndim
    if d not in (2, 3) or voxels.shape[1:] != (d,):
        raise ValueError(
            f"refine: expected voxels (n, {d}) for a probability of shape {probability.shape}, got {voxels.shape}"
        )
    mask = jnp.ones(len(voxels), bool) if mask is None else mask
    last = jnp.array(probability.shape) - 1
    voxels = jnp.where(mask[:, None], jnp.clip(voxels, 0, last.astype(voxels.dtype)[None]), 0)
    smooth = jnp.pad(gaussian(probability, (sigma,) * d), 1, mode="edge")

    def at(offset: np.ndarray) -> Array:
        return smooth[tuple((voxels + (1 + offset).astype(voxels.dtype)[None]).T)]

    unit = np.eye(d, dtype=int)
    weight = at(0 * unit[0])
    ahead, behind = ([at(sign * u) for u in unit] for sign in (1, -1))
    slope = jnp.stack([(a - b) / 2 for a, b in zip(ahead, behind)], -1)
    entry = {(a, a): ahead[a] - 2.0 * weight + behind[a] for a in range(d)}
    for a, b in combinations(range(d), 2):
        plus, minus = unit[a] + unit[b], unit[a] - unit[b]
        entry[a, b] = (at(plus) + at(-plus) - at(minus) - at(-minus)) / 4
    bends = jnp.stack([jnp.stack([entry[min(a, b), max(a, b)] for b in range(d)], -1) for a in range(d)], -2)
    values, rows = jax.vmap(eigen)(bends)  # descending: the last one is the most negative
    bend, normal = values[:, -1], rows[:, -1]
    down = bend < 0
    step = -jnp.sum(slope * normal, -1) / jnp.where(down, bend, -1.0)
    found = down & (jnp.abs(step) <= reach) & mask
    points = voxels.astype(probability.dtype) + jnp.where(found, step, 0.0)[:, None] * normal
    return Ridge(points, normal, weight, found)
