"""Shapes of a scene: vesicles, tubes, flattened sacs, sheets, microtubules and filaments, as one implicit function.

A shape is all points at a distance from its core, a point, a segment or a disc, that may be bowed and stretched; space itself is bent by a few
long waves. Coordinates are zyx, lengths voxels unless named.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxmem.numerics import safe_norm, unit
from jaxmem.simulate.noise import log_uniform, uniform
from jaxmem.simulate.ranges import Range

_FAR = 400.0  # voxels: half the length of what goes through the volume
_WAVES = 4  # of which space is bent
_STEEPEST = 0.35  # of the implicit function's slope: where it is less, distances are not scaled any further


@dataclass(frozen=True)
class ShapeModel:
    """Ranges from which shapes are drawn, in A. Probabilities of each kind need not sum to one.

    Attributes:
        vesicle, tube, sac: probabilities of a compact shape's kind.
        inner, beside: probabilities that a shape is a smaller copy within the one before, or a copy that lies against it.
        sheet, long_tube, microtubule, filament: probabilities of the kind of what goes through the volume.
        radius, stretch: of vesicles, and along each axis.
        tube_radius, tube_length: of tubes; the length is that of half the axis.
        sac_thickness, sac_radius: between the two faces' mid-surfaces, and of the disc.
        bow: of sacs, standard deviation of the curvature, 1/A.
        gap: between neighbours, or between two membranes that go along with one another.
        leaflets, leaflet_sigma: distance of a bilayer's two leaflets, and width of each.
        contrast: density of a leaflet.
        wavelength, bend: of the waves that bend space, and their root mean square.
    """

    vesicle: float = 0.5
    tube: float = 0.25
    sac: float = 0.25
    inner: float = 0.2
    beside: float = 0.2
    sheet: float = 0.3
    long_tube: float = 0.3
    microtubule: float = 0.15
    filament: float = 0.25
    radius: Range = (110.0, 560.0)
    stretch: Range = (0.75, 1.2)
    tube_radius: Range = (80.0, 240.0)
    tube_length: Range = (200.0, 900.0)
    sac_thickness: Range = (70.0, 300.0)
    sac_radius: Range = (150.0, 750.0)
    bow: float = 4e-4
    gap: Range = (50.0, 300.0)
    leaflets: Range = (26.0, 42.0)
    leaflet_sigma: Range = (6.0, 12.0)
    contrast: Range = (0.6, 1.3)
    wavelength: Range = (700.0, 3000.0)
    bend: Range = (0.0, 60.0)


class Shape(NamedTuple):
    """A shape, a pytree; lengths are voxels.

    Attributes:
        centre: zyx.
        turn: rows are the shape's own axes: along, across, and normal to the core.
        stretch: along each of them.
        core: half lengths along and across.
        disc: whether the core is an ellipse rather than a rectangle.
        plane: whether it is a plane, whose offset along its normal is the radius.
        radius: distance from the core.
        bow: curvature of the core.
        half, sigma, contrast: of a bilayer: half the distance of its leaflets, 0 for a single wall, their width, and their density.
        membrane: whether it is one.
        gap: at least so far from all others.
    """

    centre: Float[Array, "*n 3"]
    turn: Float[Array, "*n 3 3"]
    stretch: Float[Array, "*n 3"]
    core: Float[Array, "*n 2"]
    disc: Array
    plane: Array
    radius: Float[Array, "*n"]
    bow: Float[Array, "*n"]
    half: Float[Array, "*n"]
    sigma: Float[Array, "*n"]
    contrast: Float[Array, "*n"]
    membrane: Array
    gap: Float[Array, "*n"]


def any_turn(key: Key[Array, ""]) -> Float[Array, "3 3"]:
    """A random orthogonal matrix, uniform: a rotation, or one with a mirroring."""
    q, r = jnp.linalg.qr(jax.random.normal(key, (3, 3)))
    return q * jnp.sign(jnp.diagonal(r))[None]


def draw_shape(
    key: Key[Array, ""], model: ShapeModel, voxel_size: float, extent: tuple[int, ...], before: Shape, through: bool
) -> Shape:
    """One shape of a scene.

    Arguments:
        key: random key.
        model: ranges; static under jit, as the rest but the key and the shape before.
        voxel_size: A.
        extent: of the volume.
        before: the shape that was put last, of which this may be a copy.
        through: whether it goes through the volume.
    """
    k = jax.random.split(key, 16)
    size = voxel_size
    names = ("sheet", "long_tube", "microtubule", "filament") if through else ("vesicle", "tube", "sac")
    kind = jax.random.categorical(k[0], jnp.log(jnp.array([getattr(model, n) + 1e-9 for n in names])))
    centre = jax.random.uniform(k[1], (3,)) * (jnp.array(extent, float) - 1.0)
    turn = any_turn(k[2])
    tube_radius = log_uniform(k[3], model.tube_radius) / size
    gap = log_uniform(k[4], model.gap) / size
    fine = uniform(k[5], model.leaflets) / (2.0 * size), uniform(k[6], model.leaflet_sigma) / size
    nothing, single = jnp.zeros(()), jnp.ones(3)
    if through:
        # sheets and tubes may lie; microtubules and filaments run along the layer, as most do
        lying = turn.at[0].set(unit(turn[0] * jnp.array([0.2, 1.0, 1.0])))
        wall = jnp.select([kind == 2, kind == 3], [jnp.full((), 110.0 / size), nothing], tube_radius)
        shape = Shape(
            centre, _frame(lying[0], turn[1]), single, jnp.array([_FAR, 0.0]), jnp.array(False), kind == 0,
            jnp.where(kind == 0, 0.0, wall), nothing,
            jnp.where(kind >= 2, 0.0, fine[0]), jnp.select([kind == 2, kind == 3], [18.0 / size, 28.0 / size], fine[1]),
            uniform(k[7], model.contrast), kind < 2, gap,
        )  # fmt: skip
    else:
        radius = jnp.select(
            [kind == 0, kind == 1],
            [log_uniform(k[8], model.radius) / size, tube_radius],
            log_uniform(k[9], model.sac_thickness) / (2.0 * size),
        )
        disc = log_uniform(k[10], model.sac_radius) / size
        core = jnp.select(
            [kind == 0, kind == 1],
            [jnp.zeros(2), jnp.stack([uniform(k[11], model.tube_length) / size, nothing])],
            disc * jnp.stack([jnp.ones(()), uniform(k[12], (0.6, 1.0))]),
        )
        stretch = jnp.where(kind == 0, uniform(k[13], model.stretch, (3,)), 1.0)
        bow = jnp.where(kind == 2, model.bow * size * jax.random.normal(k[14]), 0.0)
        shape = Shape(
            centre, turn, stretch, core, kind == 2, jnp.array(False), radius, bow, *fine,
            uniform(k[7], model.contrast), jnp.array(True), gap,
        )  # fmt: skip
    chance = jax.random.uniform(k[15])
    inside = before._replace(radius=before.radius - gap, gap=0.9 * gap)
    step = (2.0 * before.radius * before.stretch[2] + gap) * before.turn[2]
    against = before._replace(centre=before.centre + step, gap=0.9 * gap)
    allowed = before.membrane & (before.gap > 0)  # there is one
    use_inside = allowed & (chance < model.inner) & (before.plane | (inside.radius > 4.0))
    use_against = allowed & (chance > 1.0 - model.beside) & ~before.plane
    shape = jax.tree.map(lambda a, b: jnp.where(use_inside, a, b), inside, shape)
    return jax.tree.map(lambda a, b: jnp.where(use_against, a, b), against, shape)


def no_shape() -> Shape:
    """What stands before the first."""
    zero, no = jnp.zeros(()), jnp.array(False)
    return Shape(
        jnp.zeros(3), jnp.eye(3), jnp.ones(3), jnp.zeros(2), no, no, zero, zero, zero, zero + 1.0, zero, no, zero
    )


def _frame(along: Float[Array, " 3"], other: Float[Array, " 3"]) -> Float[Array, "3 3"]:
    """A rotation whose first row is `along`."""
    normal = unit(jnp.cross(along, other))
    return jnp.stack([along, jnp.cross(normal, along), normal])


def bent_space(
    key: Key[Array, ""], model: ShapeModel, voxel_size: float, extent: tuple[int, ...]
) -> Float[Array, "3 nz ny nx"]:
    """Where each voxel lies in unbent space: its own place, moved by a few waves."""
    k = jax.random.split(key, 5)
    grid = jnp.stack(jnp.meshgrid(*(jnp.arange(n, dtype=float) for n in extent), indexing="ij"))
    amplitude = uniform(k[4], model.bend) / voxel_size * (2.0 / _WAVES) ** 0.5

    def add(place, wave):
        way, move, length, phase = wave
        angle = jnp.tensordot(2.0 * jnp.pi / length * way, grid, 1) + phase
        return place + (amplitude * move)[:, None, None, None] * jnp.sin(angle)[None], None

    waves = (
        unit(jax.random.normal(k[0], (_WAVES, 3))),
        unit(jax.random.normal(k[1], (_WAVES, 3))),
        uniform(k[2], model.wavelength, (_WAVES,)) / voxel_size,
        uniform(k[3], (0.0, 2.0 * jnp.pi), (_WAVES,)),
    )
    return jax.lax.scan(add, grid, waves)[0]


def signed_distance_to(
    shape: Shape, space: Float[Array, "3 nz ny nx"]
) -> tuple[Float[Array, "nz ny nx"], Float[Array, "3 nz ny nx"]]:
    """Signed distance of voxels from a shape, to first order, positive outside, and the unit normals there, zyx.

    Arguments:
        shape: one.
        space: from `bent_space`, or a piece of it.
    """
    offset = space - shape.centre[:, None, None, None]
    along, across, height = jnp.tensordot(shape.turn, offset, 1) / shape.stretch[:, None, None, None]
    height = height - 0.5 * shape.bow * (along**2 + across**2)
    ratio = shape.core[0] / jnp.maximum(shape.core[1], 1e-3)
    out = jnp.maximum(jnp.abs(along) - shape.core[0], 0.0), jnp.maximum(jnp.abs(across) - shape.core[1], 0.0)
    round_ = jnp.maximum(safe_norm(jnp.stack([along, across * ratio], -1)) - shape.core[0], 0.0)
    planar = jnp.where(shape.disc, round_, safe_norm(jnp.stack(out, -1)))
    level = jnp.where(shape.plane, height, safe_norm(jnp.stack([planar, height], -1))) - shape.radius
    slope = jnp.stack(jnp.gradient(level))
    steepness = safe_norm(jnp.moveaxis(slope, 0, -1))
    scaled = jnp.maximum(steepness, _STEEPEST)
    return level / scaled, slope / scaled[None]


def wall(shape: Shape, distance: Float[Array, "nz ny nx"], blur: float) -> Float[Array, "nz ny nx"]:
    """Density of a shape's wall at distances from it, each voxel averaged over about `blur` voxels."""
    sigma = jnp.hypot(shape.sigma, blur)
    leaflets = sum(jnp.exp(-0.5 * ((distance + side * shape.half) / sigma) ** 2) for side in (-1.0, 1.0))
    return shape.contrast * shape.sigma / sigma * leaflets / jnp.where(shape.half > 0, 1.0, 2.0)
