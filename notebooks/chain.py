# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a loss on the surface to the network's weights
#
# A U-Net learns pixels. What a biologist wants is the surface. Here the loss is the distance of the fitted surface from the truth, and
# its gradient goes back through the whole chain:
#
# image → `unet.probabilities` → `ridges.refine` → `membrane.fit_membrane` → `Surface.locate` → loss
#
# A small network learns pixels first, from labels that lie 1.5 pixels too far out: as labels drawn by hand may. Then it learns from a few
# contours whose place is known, through the surface. The error on contours it never saw is printed before and after.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from jaxmem import ellipse as ell
from jaxmem import unet
from jaxmem.membrane import fit_membrane
from jaxmem.ridges import refine

jax.config.update("jax_enable_x64", True)


SIDE, RAYS, OFF = 32, 20, 1.5
QUICK = os.environ.get("JAXMEM_NOTEBOOK_CASES") == "1"  # as the tests run it
STEPS, TRAINING, HELD_OUT = (4, 2, 2) if QUICK else (80, 8, 16)
TURN = np.linspace(0.0, 2.0 * np.pi, RAYS, endpoint=False)
WAYS = jnp.asarray(np.stack([np.sin(TURN), np.cos(TURN)], 1))

# %% [markdown]
# ## Slices
#
# Each shows one bent contour, r = R (1 + a cos 2t + b sin 3t), dark in noise.


# %%
def contour(rng):
    """Radius as a function of the angle, and the centre."""
    size, bend, centre = rng.uniform(8.0, 10.5), rng.normal(0.0, 0.04, 2), 15.5 + rng.uniform(-1.0, 1.0, 2)
    return lambda t: size * (1.0 + bend[0] * np.cos(2 * t) + bend[1] * np.sin(3 * t)), centre


def simulated(rng):
    """Image, labels that are off, true radius on the rays, centre."""
    radius, centre = contour(rng)
    y, x = np.indices((SIDE, SIDE)) - centre[:, None, None]
    off = np.hypot(y, x) - radius(np.arctan2(y, x))
    image = -2.0 * np.exp(-0.5 * (off / 1.5) ** 2) + 0.5 * rng.normal(size=(SIDE, SIDE))
    return image, np.where(np.abs(off - OFF) < 1.5, 2, 0), radius(TURN), centre


rng = np.random.default_rng(0)
images, labels, radii, centres = (
    jnp.asarray(np.stack(a)) for a in zip(*(simulated(rng) for _ in range(TRAINING + HELD_OUT)))
)

# %% [markdown]
# ## Pixels first

# %%
pixels = jax.jit(
    lambda x, y: unet.fit(
        jax.random.key(0),
        x,
        y.astype(jnp.int32),
        config=unet.UNetConfig(depth=2, width=6),
        steps=200,
        learning_rate=1e-2,
    )
)(images[:TRAINING], labels[:TRAINING])
print(f"pixels: loss {pixels.info.losses[0]:.2f} -> {pixels.info.losses[-1]:.2f}")

# %% [markdown]
# ## Then through the surface
#
# Voxels beside the ridge are given: where the rays of a circle cross it, roughly. `refine` moves them onto the ridge of what the network says,
# `fit_membrane` makes a curve of them, and `locate` finds it on each ray.


# %%
def found_radius(network, image, centre, rough):
    """Radius of the fitted curve on every ray, pixels."""
    probability = unet.probabilities(network, image)[..., 2]
    voxels = jnp.round(centre[None] + rough[:, None] * WAYS).astype(jnp.int32)
    ridge = refine(probability, voxels, sigma=1.2, reach=3.0)
    prior = ell.ball(centre, jnp.mean(rough))
    surface = fit_membrane(ridge.points, ridge.mask, noise=0.4, prior=prior).surface
    places = jax.vmap(lambda way, r: surface.locate(centre + r * way, way))(WAYS, rough)
    return jnp.linalg.norm(places - centre[None], axis=1), ridge.weight


def loss(network, image, centre, radius):
    """Squared distance, and that the network goes on seeing a membrane: where it sees none, there is no ridge and no gradient."""
    found, seen = found_radius(network, image, centre, radius)
    return jnp.mean((found - radius) ** 2) + 0.3 * jnp.mean(-jnp.log(jnp.maximum(seen, 1e-3)))


@jax.jit
def step(network, memory, image, centre, radius):
    value, slope = jax.value_and_grad(loss)(network, image, centre, radius)
    updates, memory = optimiser.update(slope, memory, network)
    return optax.apply_updates(network, updates), memory, value


@jax.jit
def errors(network, images, centres, radii):
    """Mean distance of each curve from the truth, pixels."""

    def one(image, centre, radius):
        return jnp.mean(jnp.abs(found_radius(network, image, centre, radius)[0] - radius))

    return jax.lax.map(lambda a: one(*a), (images, centres, radii))


optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.02, momentum=0.8))
network, memory = pixels.params, optimiser.init(pixels.params)
unseen = images[TRAINING:], centres[TRAINING:], radii[TRAINING:]
before = errors(network, *unseen)
course = []
for i in range(STEPS):
    k = i % TRAINING
    network, memory, value = step(network, memory, images[k], centres[k], radii[k])
    course.append(float(value))
after = errors(network, *unseen)
print(f"distance from the truth on {HELD_OUT} contours never seen: {before.mean():.2f} -> {after.mean():.2f} pixels")

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 4))
for ax, (title, net) in zip(axes, (("pixels only", pixels.params), ("through the surface", network))):
    image, centre, radius = (a[TRAINING] for a in (images, centres, radii))
    ax.imshow(image, cmap="gray")
    for r, style in ((radius, "w:"), (found_radius(net, image, centre, radius)[0], "C1-")):
        y, x = (centre[None] + r[:, None] * WAYS).T
        ax.plot(np.append(x, x[0]), np.append(y, y[0]), style)
    ax.set_title(title)
    ax.set_axis_off()
axes[2].semilogy(course)
axes[2].set(xlabel="step", ylabel="loss")
figure.tight_layout()
