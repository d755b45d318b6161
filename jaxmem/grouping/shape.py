"""What kind of surface a set of membrane points is: closed around a centre, or open; and which way its normals point."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import cKDTree

from jaxmem import ellipse as ell
from jaxmem.numerics import bucket_size, pad_to
from jaxmem.points import evenly, sphere_directions


class Shape(NamedTuple):
    """An ellipsoid through the points and how much of it they cover.

    Attributes:
        ellipse: the fitted ellipsoid (or ellipse).
        sigma: robust standard deviation of the points about it, voxels.
        seen: share of all its directions that have a point.
        expected: the same, over directions where the membrane ought to show: inside the volume and not facing the beam.
        radial: median |cos| between the points' normals and the ellipsoid's.
    """

    ellipse: ell.Quadric
    sigma: float
    seen: float
    expected: float
    radial: float


@jax.jit
def _fit(points, mask):
    """The better of two starts: with the caps missing, elongated ellipsoids are local minima."""
    starts = jax.tree.map(lambda *a: jnp.stack(a), ell.moments(points, mask), ell.sphere_through(points, mask))

    def from_start(start):
        size = start.semi_axes.mean()
        prior = ell.isotropic_prior(start, 3.0 * size, 3.0 * size)  # hardly a prior: it keeps what is not seen finite
        # a residual of 2 voxels counts half
        return ell.fit(points, mask, prior=prior, loss="cauchy", noise=0.85, iterations=30)

    results = jax.vmap(from_start)(starts)
    return jax.tree.map(lambda a: a[jnp.argmin(results.cost)], results)


_SIZES = 1024, 4  # smallest number of points of a program, and growth, so that few are compiled

_distances = jax.jit(jax.vmap(ell.distance, (None, 0)))
_slopes = jax.jit(jax.vmap(jax.grad(ell.distance, 1), (None, 0)))


def distances(ellipse: ell.Quadric, points: np.ndarray) -> np.ndarray:
    """Signed distances of many points to an ellipse, voxels."""
    padded, mask = pad_to(np.asarray(points, np.float32), bucket_size(len(points), *_SIZES))
    return np.asarray(_distances(ellipse, padded))[mask]


def directions(ellipse: ell.Quadric, points: np.ndarray) -> np.ndarray:
    """Unit normals of the ellipse's level sets at many points."""
    padded, mask = pad_to(np.asarray(points, np.float32), bucket_size(len(points), *_SIZES))
    slope = np.asarray(_slopes(ellipse, padded))[mask]
    return slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-9)


def describe(points: np.ndarray, normals: np.ndarray, volume_shape: tuple[int, ...], beam_cut: float = 0.75) -> Shape:
    """Fit an ellipsoid and measure how much of it the points cover.

    Arguments:
        points: (n, d) membrane points, voxels; n > d.
        normals: (n, d) unit normals, any sign.
        volume_shape: of the volume, to tell what lies outside it.
        beam_cut: directions whose normal has a larger component along the beam (axis 0 of three) need not show.
    """
    d = points.shape[1]
    chosen = evenly(points, 1024)
    padded, mask = pad_to(points[chosen].astype(np.float32), 1024)
    result = _fit(padded, mask)
    ellipse = jax.tree.map(np.asarray, result.ellipse)
    directions_ = np.asarray(sphere_directions(60 if d == 2 else 400, d))
    surface = ellipse.centre + (directions_ * ellipse.semi_axes) @ np.asarray(ellipse.rotation)
    reach = 2.0 * float(result.sigma) + 2.5
    covered = np.isfinite(cKDTree(points).query(surface, distance_upper_bound=reach)[0])
    inside = ((surface >= 1) & (surface <= np.array(volume_shape) - 2)).all(1)
    facing = directions(ellipse, surface)
    visible = inside & ((np.abs(facing[:, 0]) <= beam_cut) if d == 3 else True)
    expected = covered[visible].mean() if visible.sum() >= 10 else 0.0
    agree = np.abs((directions(ellipse, points[chosen]) * normals[chosen]).sum(1))
    return Shape(ellipse, float(result.sigma), float(covered.mean()), float(expected), float(np.median(agree)))
