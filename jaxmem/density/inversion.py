"""Analysis by synthesis: the surface under which the computed tomogram is most like the measured one, by Gauss and Newton."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float, Int

from jaxmem.density.bilayer import Bilayer
from jaxmem.density.synthesis import synthesize
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
    """A surface found by `invert`.

    Attributes:
        displacement: (m,) of the nodes along the normals, voxels.
        amplitude: of the membrane, over that of the bilayer.
        misfit: mean square of what is left of the box, in units of the noise, before each step and after the last.
    """

    displacement: Float[Array, " m"]
    amplitude: Float[Array, ""]
    misfit: Float[Array, " steps"]


@compiled
def moved(displacement: Float[Array, " m"], box: Box) -> Float[Array, "z y x"]:
    """Signed distances to the surface after its nodes have been moved along their normals, to first order."""
    shift = jnp.sum(box.weights * displacement[box.nodes], 1)
    return box.distance.ravel().at[box.voxels].add(-shift).reshape(box.distance.shape)


@compiled(static=("steps", "inner"))
def invert(
    volume: Float[Array, "z y x"],
    box: Box,
    bilayer: Bilayer,
    gain: Float[Array, "z y half"],
    covariance: Float[Array, "m m"],
    noise: Scalar,
    steps: int = 3,
    inner: int = 12,
) -> Inversion:
    """Displacements of the largest posterior density, from zero: normal prior, and white noise within what was measured.

    Each step linearises the forward model about the present surface and solves for the next one by conjugate gradients: two transforms
    of the box an iteration. The amplitude is fitted anew in each.

    Arguments:
        volume: the box of the tomogram, mean 0.
        box: the surface and its nodes.
        bilayer: what the membrane looks like across.
        gain: what the missing wedge leaves of the box's waves, from `gain`.
        covariance: (m, m) of the displacements before anything is seen, for instance a posterior's; positive definite, voxels^2.
        noise: standard deviation of a voxel; much larger than the tomogram's if its noise is coloured, for then fewer voxels count.
        steps: of Gauss and Newton. Static.
        inner: iterations of the conjugate gradients in each. Static.

    Returns:
        Differentiable in volume, bilayer, covariance and noise: through the steps of Gauss and Newton, and as if the conjugate gradients had
        converged: after as many iterations as the root of the ratio between what the tomogram and what the prior says of a node, some 60
        where the noise is that of the membrane's contrast. The surface itself needs a dozen.
    """
    root = jnp.linalg.cholesky(covariance)

    def shown(z):
        model = synthesize(moved(root @ z, box), bilayer, gain)
        return model - jnp.mean(model)

    def step(z, _):
        # in z the prior is standard normal, so that few iterations are needed
        model, back = jax.vjp(shown, z)
        amplitude = jnp.vdot(model, volume) / jnp.maximum(jnp.vdot(model, model), jnp.finfo(model.dtype).tiny)
        left = volume - amplitude * model
        scale = amplitude / noise**2

        def normal(d):
            return scale * amplitude * back(jax.jvp(shown, (z,), (d,))[1])[0] + d

        change = cg(normal, scale * back(left)[0] - z, tol=0.0, maxiter=inner)[0]
        return z + change, jnp.mean((left / noise) ** 2)

    z, misfits = jax.lax.scan(step, jnp.zeros(len(covariance), volume.dtype), length=steps)
    model = shown(z)
    amplitude = jnp.vdot(model, volume) / jnp.maximum(jnp.vdot(model, model), jnp.finfo(model.dtype).tiny)
    last = jnp.mean(((volume - amplitude * model) / noise) ** 2)
    return Inversion(root @ z, amplitude, jnp.append(misfits, last))
