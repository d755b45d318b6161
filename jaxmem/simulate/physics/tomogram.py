"""Training tomograms by physics: a scene, its tilt series, and its reconstruction, with the truth.

Signal and noise are reconstructed apart, which adds up because reconstruction is linear: one scene serves all strengths of noise.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmem.numerics import compiled
from jaxmem.simulate.noise import log_uniform, uniform
from jaxmem.simulate.physics.microscope import Filter, back_project, contrast_transfer, project
from jaxmem.simulate.physics.scene import SceneModel, draw_scene
from jaxmem.simulate.ranges import Range

_UPRIGHT = 0.35  # component along the beam of a normal: membranes as steep as that are seen whichever way they face
_BULK = 0.97  # share of the pixels whose signal tells how strong the noise is
_BLURRED = 8.0  # degrees beyond the recorded tilts within which a curved membrane is still seen


@dataclass(frozen=True)
class OpticsModel:
    """Ranges of a tilt series and of its reconstruction; tilts are about y.

    Attributes:
        tilt: degrees, of either end.
        views: number of images.
        missing: as many of them, at most, are left out.
        defocus: A.
        b_factor: A^2, of the transfer's envelope.
        phase_flipped: share of the series whose images' signs were corrected.
        shift: standard deviation of an image's misalignment, voxels.
        cutoff: of the reconstruction's filter, cycles per voxel.
    """

    tilt: Range = (46.0, 66.0)
    views: int = 41
    missing: int = 4
    defocus: Range = (18000.0, 62000.0)
    b_factor: Range = (400.0, 5000.0)
    phase_flipped: float = 0.5
    shift: Range = (0.0, 0.4)
    cutoff: Range = (0.3, 0.5)


@dataclass(frozen=True)
class PhysicalModel:
    """Ranges of scenes and optics, and the reconstruction's filter."""

    scene: SceneModel = field(default_factory=SceneModel)
    optics: OpticsModel = field(default_factory=OpticsModel)
    filter: Filter = "ramp"


class PhysicalTomogram(NamedTuple):
    """A tomogram before signal and noise are added, (nz, ny, nx) of the scene's `shape`.

    Attributes:
        signal: of the scene, dark where it is dense, of a standard deviation of 1 where it is not empty.
        noise: as strong as it is in the tomogram where a projection's signal and noise have the same variance.
        semantic: 0 background, 1 protein, 2 membrane.
        instances: 1, 2, ... within half a label's thickness of a membrane's mid-surface.
        distance: signed, voxels, to the nearest membrane; large where there is none near.
        normal: (3, ...) of the nearest membrane, zyx.
        visible: where the normal of the nearest membrane lies within the recorded tilts.
    """

    signal: Float[Array, "nz ny nx"]
    noise: Float[Array, "nz ny nx"]
    semantic: Int[Array, "nz ny nx"]
    instances: Int[Array, "nz ny nx"]
    distance: Float[Array, "nz ny nx"]
    normal: Float[Array, "3 nz ny nx"]
    visible: Bool[Array, "nz ny nx"]


def is_visible(normal: Float[Array, "3 nz ny nx"], low: Array, high: Array) -> Bool[Array, "nz ny nx"]:
    """Where a membrane shows in a tomogram: upright, or facing a direction that was recorded.

    Arguments:
        normal: of unit length, zyx.
        low, high: tilts about y, degrees.
    """
    z, _, x = normal
    angle = jnp.rad2deg(jnp.arctan2(jnp.where(x < 0, -z, z), jnp.abs(x)))
    return (jnp.abs(z) < _UPRIGHT) | ((angle > low - _BLURRED) & (angle < high + _BLURRED))


@compiled(static=("model",))
def physical_tomogram(key: Key[Array, ""], model: PhysicalModel) -> PhysicalTomogram:
    """A scene, projected tilt by tilt, seen through the contrast transfer, and reconstructed.

    Arguments:
        key: random key.
        model: ranges; static under jit, so that nothing here is differentiated.
    """
    keys = jax.random.split(key, 12)
    shape, optics = model.scene.shape, model.optics
    scene = draw_scene(keys[0], model.scene)
    low, high = -uniform(keys[1], optics.tilt), uniform(keys[2], optics.tilt)
    angles = low + (high - low) * jnp.linspace(0.0, 1.0, optics.views)
    images = project(scene.density, angles)
    defocus, b_factor = log_uniform(keys[3], optics.defocus), log_uniform(keys[4], optics.b_factor)
    sides = images.shape[1], images.shape[2]
    flipped = jax.random.bernoulli(keys[5], optics.phase_flipped)
    plain, corrected = (
        contrast_transfer(sides, model.scene.voxel_size, defocus, b_factor=b_factor, phase_flipped=p)
        for p in (False, True)
    )
    transfer = jnp.where(flipped, corrected, plain)
    spread = uniform(keys[6], optics.shift)
    move = spread * jax.random.normal(keys[7], (2, optics.views))
    ky, kx = (jnp.fft.fftfreq(n) for n in sides)
    turn = ky[None, :, None] * move[0][:, None, None] + kx[None, None] * move[1][:, None, None]
    shifted = jax.lax.complex(
        transfer[None] * jnp.cos(2.0 * jnp.pi * turn), -transfer[None] * jnp.sin(2.0 * jnp.pi * turn)
    )
    spectrum = jnp.fft.fft2(images) * shifted
    images = jnp.fft.ifft2(spectrum).real
    most = jnp.quantile(jnp.abs(images[:: max(1, optics.views // 5)]), _BULK)  # gold is no measure of the noise
    strength = jnp.sqrt(jnp.clip(images, -most, most).var((1, 2)).mean())
    noise = strength * jax.random.normal(keys[8], images.shape)
    left_out = jax.random.permutation(keys[9], optics.views) < jax.random.randint(keys[10], (), 0, optics.missing + 1)
    cutoff = uniform(keys[11], optics.cutoff)

    def reconstructed(images):
        kept = jnp.where(left_out[:, None, None], 0.0, images)
        margin = model.scene.margin
        kept = kept[:, margin[1] : margin[1] + shape[1]]
        return back_project(kept, angles, shape, filter=model.filter, cutoff=cutoff)

    signal, static = reconstructed(images), reconstructed(noise)
    scale = jnp.maximum(signal.std(), 1e-6)
    inside = tuple(slice(m, m + n) for m, n in zip(model.scene.margin, shape))
    semantic, instances, distance = (a[inside] for a in (scene.semantic, scene.instances, scene.distance))
    normal = scene.normal[(slice(None), *inside)]
    return PhysicalTomogram(
        signal / scale, static / scale, semantic, instances, distance, normal, is_visible(normal, low, high)
    )
