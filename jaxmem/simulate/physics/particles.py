"""What a scene holds besides membranes: proteins on them, ribosomes, smaller particles, gold, carbon film.

Coordinates are zyx, lengths voxels unless named.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmem.numerics import safe_norm
from jaxmem.simulate.noise import log_uniform, uniform
from jaxmem.simulate.ranges import Range

_HALF = 12  # voxels: half the side of the box that a particle lies in, 168 A of 14
_KINDS = 8  # random particles of each class in a scene, which are turned and mirrored
_LOBES = 20  # Gaussians of which a particle is made
_SHOWN = 0.4  # of a particle's highest density, above which a voxel is labelled protein
_PROTEIN = 28.0  # A, least radius of what is labelled


@dataclass(frozen=True)
class ParticleModel:
    """Ranges, in A, and numbers of particles that are tried.

    Attributes:
        ribosomes, small, studs: how many places are tried, at most; each scene has a share of its own of them.
        ribosome_radius, small_radius: of particles.
        density: of a particle, a leaflet's is 1.
        stalk: from the mid-surface to the middle of a protein's head, beyond its radius.
        gold, gold_radius, gold_density: share of the scenes that have beads, and theirs.
        film, film_thickness, film_radius, film_density: share of the scenes with the edge of a holey carbon film, and of the film: its
            thickness, its hole's radius, its density.
    """

    ribosomes: int = 900
    small: int = 700
    studs: int = 500
    ribosome_radius: Range = (95.0, 125.0)
    small_radius: Range = (24.0, 70.0)
    density: Range = (0.35, 1.0)
    stalk: Range = (10.0, 70.0)
    gold: float = 0.25
    gold_radius: Range = (40.0, 80.0)
    gold_density: Range = (6.0, 15.0)
    film: float = 0.12
    film_thickness: Range = (120.0, 260.0)
    film_radius: Range = (1500.0, 9000.0)
    film_density: Range = (0.3, 1.2)


def _particle(key: Key[Array, ""], radius: Array, voxel_size: float) -> Float[Array, "side side side"]:
    """A lumpy particle of a mean density of about 1 within an ellipsoid of so many A."""
    keys = jax.random.split(key, 4)
    side = jnp.arange(-_HALF, _HALF + 1.0)
    way = jax.random.normal(keys[0], (_LOBES, 3))
    far = jax.random.uniform(keys[1], (_LOBES,)) ** (1.0 / 3.0)
    axes = uniform(keys[2], (0.7, 1.15), (3,))
    lobe = 0.42 * radius
    place = (radius - lobe) / voxel_size * way / safe_norm(way)[:, None] * far[:, None] * axes[None]
    sigma = jnp.hypot(0.6 * lobe / voxel_size, 0.4)
    each = jnp.exp(-0.5 * ((side[None, None] - place[..., None]) / sigma) ** 2)
    weight = uniform(keys[3], (0.3, 1.0), (_LOBES,))
    total = jnp.einsum("l,li,lj,lk->ijk", weight, each[:, 0], each[:, 1], each[:, 2])
    return jnp.minimum(total / (0.5 * total.max()), 1.0)


def _stamped(
    density: Array, protein: Array, particle: Array, centre: Array, height: Array, shown: Array
) -> tuple[Array, Array]:
    """Fields with a particle whose middle lies at a voxel well within them."""
    start = tuple(jnp.round(c).astype(int) for c in centre)
    size = particle.shape
    here = jax.lax.dynamic_slice(density, start, size)
    label = jax.lax.dynamic_slice(protein, start, size)
    label = label | ((particle > _SHOWN) & shown)
    return (
        jax.lax.dynamic_update_slice(density, here + height * particle, start),
        jax.lax.dynamic_update_slice(protein, label, start),
    )


def add_particles(
    key: Key[Array, ""],
    model: ParticleModel,
    voxel_size: float,
    density: Float[Array, "nz ny nx"],
    distance: Float[Array, "nz ny nx"],
    normal: Float[Array, "3 nz ny nx"],
    number: Int[Array, "nz ny nx"],
) -> tuple[Float[Array, "nz ny nx"], Bool[Array, "nz ny nx"]]:
    """The density with proteins on membranes and free particles, and where those that are large enough to be told lie.

    Arguments:
        key: random key.
        model: ranges; static under jit.
        voxel_size: A.
        density: of a scene.
        distance, normal, number: of the nearest shape, and its number, 0 of what is no membrane.
    """
    keys = jax.random.split(key, 13)
    extent = density.shape
    wide = [(_HALF, _HALF)] * 3
    padded, protein = jnp.pad(density, wide), jnp.pad(jnp.zeros(extent, bool), wide)
    big = uniform(keys[0], model.ribosome_radius, (_KINDS,))
    small = uniform(keys[1], model.small_radius, (_KINDS,))
    radii = jnp.concatenate([big, small])
    particles = jax.vmap(lambda k, r: _particle(k, r, voxel_size))(jax.random.split(keys[2], 2 * _KINDS), radii)

    on = (jnp.abs(distance) < 0.6) & (number > 0)
    chosen = jax.random.uniform(keys[3], (4 * model.studs, 3))
    place = (chosen * jnp.array(extent, float)[None]).astype(int)
    # each is pulled onto the nearest mid-surface, if there is one near
    way = normal[:, place[:, 0], place[:, 1], place[:, 2]].T
    pulled = jnp.round(place.astype(float) - distance[place[:, 0], place[:, 1], place[:, 2]][:, None] * way).astype(int)
    pulled = jnp.clip(pulled, 0, jnp.array(extent)[None] - 1)
    stands = on[pulled[:, 0], pulled[:, 1], pulled[:, 2]]
    outward = normal[:, pulled[:, 0], pulled[:, 1], pulled[:, 2]].T
    kind = jax.random.randint(keys[4], (len(place),), _KINDS, 2 * _KINDS)
    reach = (radii[kind] + uniform(keys[5], model.stalk, (len(place),))) / voxel_size
    inward = jnp.where(jax.random.bernoulli(keys[6], 0.15, (len(place),)), -1.0, 1.0)
    heads = pulled.astype(float) + (inward * reach)[:, None] * outward
    stand_share = uniform(keys[7], (0.0, 1.0))

    free = model.ribosomes + model.small
    crowd = jnp.stack([log_uniform(keys[8], (0.02, 1.0)), log_uniform(keys[12], (0.05, 1.0))])
    class_ = (jnp.arange(free) >= model.ribosomes).astype(int)
    anywhere = jax.random.uniform(keys[9], (free, 3)) * jnp.array(extent, float)[None]
    own = jax.random.randint(keys[10], (free,), 0, _KINDS) + _KINDS * class_

    place = jnp.concatenate([heads, anywhere])
    kind = jnp.concatenate([kind, own])
    loose = jnp.arange(len(place)) >= len(heads)
    chance = jax.random.uniform(keys[11], (len(place), 6))
    wanted = jnp.concatenate(
        [stands & (chance[: len(heads), 0] < stand_share), chance[len(heads) :, 0] < crowd[class_]]
    )
    height = model.density[0] + (model.density[1] - model.density[0]) * chance[:, 1]
    nearest = jnp.abs(distance)

    def add(i, state):
        centre = place[i]
        voxel = jnp.clip(jnp.round(centre).astype(int), 0, jnp.array(extent) - 1)
        reach = radii[kind[i]] / voxel_size
        within = ((centre > 0) & (centre < jnp.array(extent, float) - 1.0)).all()
        clear = jnp.where(loose[i], nearest[voxel[0], voxel[1], voxel[2]] > reach + 3.0, True)
        empty = state[0][voxel[0] + _HALF, voxel[1] + _HALF, voxel[2] + _HALF] < 0.2
        particle = particles[kind[i]]
        for axis in range(3):
            particle = jnp.where(chance[i, 2 + axis] < 0.5, jnp.flip(particle, axis), particle)
        particle = jnp.where(chance[i, 5] < 0.5, particle.swapaxes(1, 2), particle)
        shown = radii[kind[i]] >= _PROTEIN
        return jax.lax.cond(
            wanted[i] & within & clear & empty,
            lambda fields: _stamped(fields[0], fields[1], particle, centre, height[i], shown),
            lambda fields: fields,
            state,
        )

    padded, protein = jax.lax.fori_loop(0, len(place), add, (padded, protein))
    inside = tuple(slice(_HALF, _HALF + n) for n in extent)
    return padded[inside], protein[inside]


def add_gold(
    key: Key[Array, ""], model: ParticleModel, voxel_size: float, density: Float[Array, "nz ny nx"], most: int = 12
) -> Float[Array, "nz ny nx"]:
    """The density with gold beads in some of the scenes.

    Arguments:
        key: random key.
        model: ranges; static under jit.
        voxel_size: A.
        density: of a scene, a leaflet's is 1.
        most: beads, at most.
    """
    keys = jax.random.split(key, 5)
    side = jnp.arange(-_HALF, _HALF + 1.0)
    distance = safe_norm(jnp.stack(jnp.meshgrid(side, side, side, indexing="ij"), -1))
    some = jax.random.bernoulli(keys[0], model.gold)
    radius = uniform(keys[1], model.gold_radius) / voxel_size  # one size in a scene
    height = uniform(keys[2], model.gold_density)
    place = jax.random.uniform(keys[3], (most, 3)) * jnp.array(density.shape, float)[None]
    there = jax.random.bernoulli(keys[4], 0.5, (most,)) & some
    bead = height * jax.nn.sigmoid((radius - distance) / 0.4)
    padded = jnp.pad(density, [(_HALF, _HALF)] * 3)
    nowhere = jnp.zeros(padded.shape, bool)

    def add(i, field):
        return _stamped(field, nowhere, bead, place[i], there[i].astype(field.dtype), jnp.array(False))[0]

    padded = jax.lax.fori_loop(0, most, add, padded)
    return padded[tuple(slice(_HALF, _HALF + n) for n in density.shape)]


def add_film(
    key: Key[Array, ""], model: ParticleModel, voxel_size: float, density: Float[Array, "nz ny nx"]
) -> Float[Array, "nz ny nx"]:
    """The density with a piece of a carbon film around a round hole, in some of the scenes: a grainy layer with a sharp edge.

    Arguments:
        key: random key.
        model: ranges; static under jit.
        voxel_size: A.
        density: of a scene, a leaflet's is 1.
    """
    keys = jax.random.split(key, 8)
    depth, height, width = density.shape
    z, y, x = jnp.meshgrid(*(jnp.arange(n, dtype=float) for n in density.shape), indexing="ij", sparse=True)
    radius = log_uniform(keys[0], model.film_radius) / voxel_size
    edge = jax.random.uniform(keys[1], (2,)) * jnp.array([height, width], float)  # the edge runs through here
    angle = uniform(keys[2], (0.0, 2.0 * jnp.pi))
    centre = edge - radius * jnp.stack([jnp.sin(angle), jnp.cos(angle)])
    out = jnp.hypot(y - centre[0], x - centre[1]) - radius
    thick = uniform(keys[3], model.film_thickness) / voxel_size
    # films lie at the top or at the bottom of the ice, or in its middle
    middle = uniform(keys[4], (0.15, 0.85)) * depth
    layer = jax.nn.sigmoid((0.5 * thick - jnp.abs(z - middle)) / 0.7) * jax.nn.sigmoid(out / 0.8)
    grain = 1.0 + 0.4 * jax.random.normal(keys[5], density.shape)
    there = jax.random.bernoulli(keys[6], model.film).astype(density.dtype)
    return density + there * uniform(keys[7], model.film_density) * layer * grain
