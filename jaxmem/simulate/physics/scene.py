"""Scenes for simulated tomograms: membranes that do not cut one another, and what is not one, with their truth.

Coordinates are zyx, lengths voxels unless named.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxmem.numerics import compiled
from jaxmem.simulate.noise import log_uniform, uniform
from jaxmem.simulate.physics.particles import ParticleModel, add_film, add_gold, add_particles
from jaxmem.simulate.physics.shapes import Shape, ShapeModel, bent_space, draw_shape, no_shape, signed_distance_to, wall

PIXEL_BLUR = 0.4
"""Standard deviation, in voxels, of what a voxel averages: 1 / sqrt(12) and a little for the interpolation."""

_FAR = 1e3  # voxels: farther than anything
_EDGE = 3  # voxels above and below that stay free in a scene that lies within the ice
_LEAST = 150  # voxels of a mid-surface in the volume


@dataclass(frozen=True)
class SceneModel:
    """What a scene holds; lengths in A unless named.

    Attributes:
        shape: (nz, ny, nx) of the tomogram, voxels.
        margin: voxels that the scene reaches beyond it, so that tilted images are full.
        voxel_size: A.
        shapes, particles: what is drawn.
        compact, through: shapes that are tried, of limited extent and through the volume.
        box: voxels along y and x within which a compact shape lies; larger ones are left out.
        cut: share of the scenes whose membranes are cut above and below, as a lamella's are; in others they lie within the ice.
        membranes: share of the scenes that have any.
        thickness: of the labels.
    """

    shape: tuple[int, int, int] = (72, 256, 256)
    margin: tuple[int, int, int] = (0, 4, 56)
    voxel_size: float = 14.0
    shapes: ShapeModel = field(default_factory=ShapeModel)
    particles: ParticleModel = field(default_factory=ParticleModel)
    compact: int = 160
    through: int = 4
    box: int = 144
    cut: float = 0.5
    membranes: float = 0.92
    thickness: float = 50.0

    @property
    def extent(self) -> tuple[int, int, int]:
        """Of the whole scene, voxels."""
        nz, ny, nx = (n + 2 * m for n, m in zip(self.shape, self.margin))
        return nz, ny, nx


class Scene(NamedTuple):
    """A scene, of the model's `extent`.

    Attributes:
        density: a leaflet's is about 1.
        semantic: 0 background, 1 protein, 2 membrane.
        instances: 1, 2, ... where a membrane's mid-surface is within half the thickness.
        distance: signed, to the nearest membrane, positive outside; large where there is none near.
        normal: (3, ...) of the nearest membrane, zyx.
    """

    density: Float[Array, "nz ny nx"]
    semantic: Int[Array, "nz ny nx"]
    instances: Int[Array, "nz ny nx"]
    distance: Float[Array, "nz ny nx"]
    normal: Float[Array, "3 nz ny nx"]


class _Fields(NamedTuple):
    """What has been put so far: density, signed distance to the nearest shape, its normal, and its number, 0 of what is no membrane."""

    density: Array
    distance: Array
    normal: Array
    number: Array


def _put(
    fields: _Fields, shape: Shape, space: Array, number: Array, cut: Array, corner: Array
) -> tuple[_Fields, Array]:
    """The fields with a shape, if there is room for it; of the piece of a volume that begins at `corner`."""
    distance, normal = signed_distance_to(shape, space)
    on = jnp.abs(distance) < 1.0
    free = jnp.where(on, jnp.abs(fields.distance), _FAR).min() >= shape.gap
    free = free & (on.sum() >= _LEAST) & (cut | ~(on[:_EDGE].any() | on[-_EDGE:].any()))
    closer = jnp.abs(distance) < jnp.abs(fields.distance)
    new = _Fields(
        fields.density + wall(shape, distance, PIXEL_BLUR),
        jnp.where(closer, distance, fields.distance),
        jnp.where(closer[None], normal, fields.normal),
        jnp.where(closer, jnp.where(shape.membrane, number, 0), fields.number),
    )
    inside = jnp.array(True)
    for axis, first in ((1, corner[1] > 0), (2, corner[2] > 0)):
        low, high = on.take(0, axis).any(), on.take(-1, axis).any()
        inside = inside & ~(first & low) & ~((corner[axis] < corner[axis + 2]) & high)
    free = free & inside
    return jax.tree.map(lambda a, b: jnp.where(free, a, b), new, fields), free


def _corner(centre: Array, extent: tuple[int, int, int], box: tuple[int, int, int]) -> Array:
    """Where a box about a place begins, and for y and x where it would begin at the latest."""
    start = [jnp.clip(jnp.round(c - 0.5 * b).astype(int), 0, n - b) for c, n, b in zip(centre, extent, box)]
    return jnp.stack([*start, jnp.asarray(extent[1] - box[1]), jnp.asarray(extent[2] - box[2])])


@compiled(static=("model",))
def draw_scene(key: Key[Array, ""], model: SceneModel) -> Scene:
    """A random scene.

    Shapes are tried one after another and put where they keep their gap from all that are there: within and beside others, too.
    Proteins stand on membranes; ribosomes and other particles fill what is free; gold and a carbon film come now and then.

    Arguments:
        key: random key.
        model: ranges; static under jit, so that nothing here is differentiated.
    """
    keys = jax.random.split(key, 8)
    extent = model.extent
    space = bent_space(keys[0], model.shapes, model.voxel_size, extent)
    cut = jax.random.bernoulli(keys[1], model.cut)
    some = jax.random.bernoulli(keys[2], model.membranes)
    share = log_uniform(keys[3], (0.15, 1.0))  # of the candidates: scenes are crowded or nearly empty
    nothing = jnp.full(extent, _FAR)
    fields = _Fields(jnp.zeros(extent), nothing, jnp.zeros((3, *extent)), jnp.zeros(extent, jnp.int32))

    def run(fields, before, first, count, through, box):
        key = keys[4 if through else 5]

        def step(state, i):
            fields, before = state
            one = jax.random.fold_in(key, i)
            shape_key, chance_key = jax.random.split(one)
            shape = draw_shape(shape_key, model.shapes, model.voxel_size, extent, before, through)
            corner = _corner(shape.centre, extent, box)
            start, size = (corner[0], corner[1], corner[2]), box
            wanted = jax.random.bernoulli(chance_key, share) & (some | ~shape.membrane)

            def cutout(a):
                lead = a.ndim - 3
                return jax.lax.dynamic_slice(a, (0,) * lead + start, a.shape[:lead] + size)

            def attempt(fields):
                piece, done = _put(jax.tree.map(cutout, fields), shape, cutout(space), first + i, cut | through, corner)
                back = jax.tree.map(
                    lambda a, b: jax.lax.dynamic_update_slice(a, b, (0,) * (a.ndim - 3) + start), fields, piece
                )
                return back, done

            fields, done = jax.lax.cond(wanted, attempt, lambda fields: (fields, jnp.array(False)), fields)
            return (fields, jax.tree.map(lambda a, b: jnp.where(done, a, b), shape, before)), None

        return jax.lax.scan(step, (fields, before), jnp.arange(count))[0]

    fields, before = run(fields, no_shape(), 1, model.through, True, extent)
    box = (extent[0], min(model.box, extent[1]), min(model.box, extent[2]))
    fields, _ = run(fields, before, 1 + model.through, model.compact, False, box)

    half = 0.5 * model.thickness / model.voxel_size
    instances = jnp.where(jnp.abs(fields.distance) <= half, fields.number, 0)
    density, protein = add_particles(
        keys[6], model.particles, model.voxel_size, fields.density, fields.distance, fields.normal, fields.number
    )
    semantic = jnp.where(instances > 0, 2, jnp.where(protein, 1, 0))
    rare = jax.random.split(keys[7], 3)
    density = add_gold(rare[0], model.particles, model.voxel_size, density)
    density = add_film(rare[1], model.particles, model.voxel_size, density)
    membrane = fields.number > 0
    distance = jnp.where(membrane, fields.distance, _FAR)
    contrast = uniform(rare[2], (0.8, 1.2))
    return Scene(contrast * density, semantic, instances, distance, fields.normal)
