"""Analysis by synthesis: the surface under which the computed tomogram is most like the measured one, by Gauss and Newton."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float, Int

from jaxmem.density.bilayer import Bilayer
from jaxmem.density.synthesis import filtered
from jaxmem.numerics import compiled
from jaxmem.types import Scalar


class Box(NamedTuple):
    """A membrane in a box of the tomogram, and the nodes at which it can be moved.

    Attributes:
        distance: (z, y, x) signed distance to the surface at first, voxels; far away anything beyond the bilayer's reach.
        voxels: (v,) flat indices of the voxels near the surface, which its movements reach.
        nodes: (v, k) nodes next to each of these.
        weights: (v, k) how much each of them moves the surface there; rows add up to 1.
    """

    distance: Float[Array, "z y x"]
    voxels: Int[Array, " v"]
    nodes: Int[Array, "v k"]
    weights: Float[Array, "v k"]


class Inversion(NamedTuple):
    """Surfaces found by `invert`.

    Attributes:
        displacement: (m,) of the nodes along the normals, voxels; one for each membrane where there are several.
        amplitude: of the membranes, over that of the bilayer.
        misfit: mean square of what is left of the box, in units of the noise, before each step and after the last.
    """

    displacement: Float[Array, " m"] | tuple[Float[Array, " _"], ...]
    amplitude: Float[Array, ""]
    misfit: Float[Array, " steps"]


@compiled
def moved(displacement: Float[Array, " m"], box: Box) -> Float[Array, "z y x"]:
    """Signed distances to the surface after its nodes have been moved along their normals, to first order."""
    shift = jnp.sum(box.weights * displacement[box.nodes], 1)
    return box.distance.ravel().at[box.voxels].add(-shift).reshape(box.distance.shape)


def _shown(displacements: tuple, boxes: tuple, bilayer: Bilayer, gain: Array) -> Array:
    """What the tomogram would show of all membranes, mean 0."""
    density = jnp.stack([bilayer(moved(d, box)) for d, box in zip(displacements, boxes)]).sum(0)
    model = filtered(density, gain)
    return model - jnp.mean(model)


def _several(box, covariance) -> tuple[tuple, tuple]:
    return ((box,), (covariance,)) if isinstance(box, Box) else (tuple(box), tuple(covariance))


@compiled(static=("steps", "inner"))
def invert(
    volume: Float[Array, "z y x"],
    box: Box | tuple[Box, ...],
    bilayer: Bilayer,
    gain: Float[Array, "z y half"],
    covariance: Float[Array, "m m"] | tuple[Float[Array, "_ _"], ...],
    noise: Scalar,
    steps: int = 3,
    inner: int = 12,
) -> Inversion:
    """Displacements of the largest posterior density, from zero: normal prior, and white noise within what was measured.

    Each step linearises the forward model about the present surfaces and solves for the next ones by conjugate gradients: two transforms
    of the box an iteration. The amplitude is fitted anew in each.

    Arguments:
        volume: the box of the tomogram, mean 0.
        box: the surface and its nodes; a tuple of membranes that lie in one box and touch, or nearly so: their densities add up.
        bilayer: what a membrane looks like across.
        gain: what the missing wedge leaves of the box's waves, from `gain`.
        covariance: (m, m) of the displacements before anything is seen, for instance a posterior's; positive definite, voxels^2. One for each
            membrane where there are several.
        noise: standard deviation of a voxel; much larger than the tomogram's if its noise is coloured, for then fewer voxels count.
        steps: of Gauss and Newton. Static.
        inner: iterations of the conjugate gradients in each. Static.

    Returns:
        Differentiable in volume, bilayer, covariance and noise: through the steps of Gauss and Newton, and as if the conjugate gradients had
        converged: after as many iterations as the root of the ratio between what the tomogram and what the prior says of a node, some 60
        where the noise is that of the membrane's contrast. The surface itself needs a dozen.
    """
    boxes, covariances = _several(box, covariance)
    roots = [jnp.linalg.cholesky(c) for c in covariances]

    def shown(z):
        return _shown(tuple(root @ one for root, one in zip(roots, z)), boxes, bilayer, gain)

    def fitted(model):
        return jnp.vdot(model, volume) / jnp.maximum(jnp.vdot(model, model), jnp.finfo(model.dtype).tiny)

    def step(z, _):
        # in z the prior is standard normal, so that few iterations are needed
        model, back = jax.vjp(shown, z)
        amplitude = fitted(model)
        left = volume - amplitude * model
        scale = amplitude / noise**2

        def normal(d):
            felt = back(jax.jvp(shown, (z,), (d,))[1])[0]
            return jax.tree.map(lambda f, one: scale * amplitude * f + one, felt, d)

        pull = jax.tree.map(lambda b, one: scale * b - one, back(left)[0], z)
        change = cg(normal, pull, tol=0.0, maxiter=inner)[0]
        return jax.tree.map(jnp.add, z, change), jnp.mean((left / noise) ** 2)

    start = tuple(jnp.zeros(len(c), volume.dtype) for c in covariances)
    z, misfits = jax.lax.scan(step, start, length=steps)
    model = shown(z)
    amplitude = fitted(model)
    last = jnp.mean(((volume - amplitude * model) / noise) ** 2)
    found = tuple(root @ one for root, one in zip(roots, z))
    return Inversion(found[0] if isinstance(box, Box) else found, amplitude, jnp.append(misfits, last))


@compiled
def laplace(
    found: Inversion,
    box: Box | tuple[Box, ...],
    bilayer: Bilayer,
    gain: Float[Array, "z y half"],
    covariance: Float[Array, "m m"] | tuple[Float[Array, "_ _"], ...],
    noise: Scalar,
) -> Float[Array, "all all"]:
    """Covariance of the displacements about those of the largest posterior density (Laplace's approximation).

    The curvature of the misfit is that of the linearised forward model, as in `invert`: two transforms of the box for each node.

    Arguments:
        found: of `invert`.
        box, bilayer, gain, covariance, noise: as they were given to it.

    Returns:
        Of all nodes of all membranes, voxels^2; differentiable in gain, covariance, noise and the amplitude. The displacements have no
        gradient: the bilayer is a table whose slope is constant between its entries.
    """
    boxes, covariances = _several(box, covariance)
    at = jax.lax.stop_gradient((found.displacement,) if isinstance(box, Box) else found.displacement)
    flat, unravel = ravel_pytree(at)
    root = jax.scipy.linalg.block_diag(*(jnp.linalg.cholesky(c) for c in covariances))
    _, back = jax.vjp(lambda d: _shown(unravel(d), boxes, bilayer, gain), flat)

    def column(direction):
        """Of the curvature, in units in which the prior is standard normal."""
        change = jax.jvp(lambda d: _shown(unravel(d), boxes, bilayer, gain), (flat,), (root @ direction,))[1]
        return root.T @ back(change)[0]

    curvature = jax.lax.map(column, jnp.eye(len(flat), dtype=flat.dtype))
    precise = jnp.eye(len(flat), dtype=flat.dtype) + (found.amplitude / noise) ** 2 * 0.5 * (curvature + curvature.T)
    half = jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(precise), root.T, lower=True)
    return half.T @ half
