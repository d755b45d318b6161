"""The whole chain has a gradient: image, network, ridge, surface, loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmem import ellipse as ell
from jaxmem import levelset, unet
from jaxmem.grouping import midline
from jaxmem.membrane import fit_membrane
from jaxmem.ridges import refine

SIDE, CENTRE, RADIUS = 32, 15.6, 9.0
TURN = np.linspace(0.0, 2.0 * np.pi, 20, endpoint=False)
WAYS = np.stack([np.sin(TURN), np.cos(TURN)], 1)
STEPS = np.array([1e-6, 1.5e-6, 2e-6])  # within larger ones rectifiers switch, over smaller ones rounding shows
VOXELS = np.round(CENTRE + RADIUS * WAYS).astype(int)


def ring(rng):
    """A dark ring in noise."""
    r = np.hypot(*(np.indices((SIDE, SIDE)) - CENTRE))
    return -2.0 * np.exp(-0.5 * ((r - RADIUS) / 1.5) ** 2) + 0.3 * rng.normal(size=(SIDE, SIDE))


@pytest.fixture(scope="module")
def trained():
    """A small network that knows rings a little, in double precision, and a slice."""
    rng = np.random.default_rng(0)
    images = np.stack([ring(rng) for _ in range(2)])
    r = np.hypot(*(np.indices((SIDE, SIDE)) - CENTRE))
    labels = np.where(np.abs(r - RADIUS) < 2.0, 2, 0)
    with jax.enable_x64(True):
        fit = jax.jit(lambda x, y: unet.fit(jax.random.key(0), x, y, config=unet.UNetConfig(depth=2, width=4), steps=40, learning_rate=1e-2))  # fmt: skip
        found = fit(jnp.asarray(images), jnp.asarray(np.broadcast_to(labels, images.shape), jnp.int32))
        assert bool(found.success)
        return found.params, jnp.asarray(images[0])


def loss(network, image):
    """How far the fitted curve is from a circle a little larger than the true one, and its curvature and its length."""
    probability = unet.probabilities(network, image)[..., 2]
    points = refine(probability, jnp.asarray(VOXELS), sigma=1.2, reach=2.0)
    prior = ell.ball(jnp.full(2, CENTRE, image.dtype), RADIUS)
    surface = fit_membrane(points.points, points.mask, noise=0.4, prior=prior, steps=(60, 60)).surface
    ways = jnp.asarray(WAYS, image.dtype)
    places = jax.vmap(lambda way: surface.locate(CENTRE + RADIUS * way, way))(ways)
    bends = jax.vmap(surface.curvatures)(places)
    faces = jnp.stack([jnp.arange(20), jnp.roll(jnp.arange(20), -1)], 1)
    length, area = levelset.content(places, faces, bends[:, 0], bends[:, 1])
    radius = jnp.linalg.norm(places - CENTRE, axis=1)
    return jnp.mean((radius - RADIUS - 0.5) ** 2) + bends[:, 0].mean() + 0.01 * length + 0.001 * area


def test_a_loss_on_the_surface_reaches_the_networks_weights(trained):
    """Against finite differences in double precision, along random directions in the space of all weights."""
    network, image = trained
    rng = np.random.default_rng(3)
    with jax.enable_x64(True):
        value, slope = jax.jit(jax.value_and_grad(loss))(network, image)
        assert jnp.isfinite(value)
        leaves, structure = jax.tree.flatten(network)
        assert sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(slope)) > 1e-3

        @jax.jit
        def along(way):
            def moved(h):
                return loss(jax.tree.map(lambda a, b: a + h * b, network, way), image)

            return jax.lax.map(moved, jnp.concatenate([STEPS, -STEPS]))

        for _ in range(2):
            way = structure.unflatten(
                [jnp.asarray(rng.normal(size=leaf.shape)) * jnp.abs(leaf).mean() for leaf in leaves]
            )
            ahead, behind = np.split(np.asarray(along(way)), 2)
            measured = np.sum(STEPS * (ahead - behind)) / (2.0 * np.sum(STEPS**2))
            predicted = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(way)))
            assert float(predicted) == pytest.approx(measured, rel=1e-4)


def test_refined_voxels_lie_on_the_midline():
    """Where the host finds the ridge of a band, before it takes back what smoothing moved."""
    z, y, x = np.indices((24, 24, 24))
    band = np.exp(-0.5 * ((np.sqrt((z - 11.7) ** 2 + (y - 12.2) ** 2 + (x - 11.9) ** 2) - 8.0) / 1.2) ** 2)
    line = midline(band.astype(np.float32), 1.5, 0.2)
    found = refine(jnp.asarray(band, jnp.float32), jnp.asarray(line.voxels))
    assert bool(found.mask.all())
    assert np.abs((np.asarray(found.normals) * line.normals).sum(1)).min() > 0.99
    radius = np.linalg.norm(np.asarray(found.points) - [11.7, 12.2, 11.9], axis=1)
    assert radius.std() < 0.05
    assert 7.0 < radius.mean() < 8.0  # a bent ridge lies too far in (Steger 1998)
    assert np.linalg.norm(found.points - line.points, axis=1).max() < 0.6
