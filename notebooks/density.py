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
# # From voxels to a shape
#
# A tomogram shows a membrane through the missing wedge. The forward model is short: the signed distance to a surface, the density of
# a bilayer at that distance, and a filter that takes away what was not measured. It can be run, compared with a tomogram, inverted and
# differentiated.
#
# 1. What the wedge leaves of a vesicle
# 2. One point, placed by the density along its normal
# 3. The whole surface, by analysis by synthesis
# 4. The gradient of the shape with respect to the tomogram
#
# Run it as a script (`python notebooks/density.py`) or as a notebook (open it with jupytext). Lengths are voxels, points are zyx.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jaxmem import density
from jaxmem.points import sphere_directions
from jaxmem.surface import Outline, box_about

PICTURES = os.environ.get("JAXMEM_NOTEBOOK_PICTURES", "")  # folder to save the pictures in; empty saves none
VOXEL = 13.0  # A
RADIUS, CENTRE = 13.0, np.array([32.3, 31.6, 32.1])
NOISE = 1.0  # of a voxel, for the inversion: what is seen through the wedge is coloured, so that fewer voxels count


def finish(name: str) -> None:
    """Lay the picture out, and save it if a folder is given."""
    plt.tight_layout()
    if PICTURES:
        plt.savefig(os.path.join(PICTURES, f"density_{name}.png"), dpi=110)


# %% [markdown]
# ## 1. What the wedge leaves of a vesicle
#
# The true vesicle is not round. Tilts from -60 to 60 degrees about y leave out a third of all directions, those about z. Upright membrane
# is seen whole; where it faces the beam there is next to nothing, and in between it is a smear.

# %%
directions = np.asarray(sphere_directions(3000, 3))
sphere = Outline(CENTRE + RADIUS * directions, directions)
bilayer = density.two_leaflets(VOXEL, 6.0)
about = box_about(sphere, bilayer.reach, spacing=4.0)
wedge = density.Wedge(-60.0, 60.0, 0.0)
passed = density.gain(about.shape, wedge)

facing = (about.nodes - CENTRE) / RADIUS
truth = (
    1.2 * facing[:, 1] * facing[:, 2] + 0.9 * facing[:, 0] ** 2
)  # how far the nodes of the sphere are from the true surface
distance = density.moved(jnp.asarray(truth, jnp.float32), about.box)
clean = density.synthesize(distance, bilayer, passed)
grain = jax.random.normal(jax.random.key(0), clean.shape)
tomogram = clean + 0.35 * density.filtered(grain, passed)
tomogram = tomogram - tomogram.mean()

middle = clean.shape[1] // 2
figure, axes = plt.subplots(1, 3, figsize=(11, 3.8))
for axis, picture, title in zip(
    axes, (bilayer(distance), clean, tomogram), ("density", "through the wedge", "with noise")
):
    axis.imshow(picture[:, middle], cmap="gray")
    axis.set(title=f"{title} (xz)", xticks=[], yticks=[])
finish("wedge")

# %% [markdown]
# ## 2. One point, placed by the density along its normal
#
# The density along a normal is compared with what the present surface, here the sphere, would show along the same line. `place` tries all
# shifts, and answers with a mean, an error bar, and the odds that there is a membrane at all. The template is of the sphere seen through
# the wedge: it is lopsided where the tomogram is.

# %%
expected = density.synthesize(about.box.distance, bilayer, passed)
along = density.OFFSETS * jnp.arange(-10.0, 11.0)
wide = density.SHIFTS * jnp.arange(-28.0, 29.0)
whitener = density.whitening(0.35**2 * jnp.eye(len(along)))


def placed(point, normal):
    profile = density.profile_along(tomogram, point - about.corner, normal, along)
    template = density.profile_along(expected, point - about.corner, normal, wide)
    return density.place(profile, template, whitener, 1.0, 0.3), profile, template


points, normals = jnp.asarray(about.nodes, jnp.float32), jnp.asarray(facing, jnp.float32)
found, profiles, templates = jax.jit(jax.vmap(placed))(points, normals)
tilt = np.abs(np.asarray(density.tilt_of(normals, 0.0)))
figure, axes = plt.subplots(1, 2, figsize=(11, 3.8))
shown = int(np.argmin(np.abs(tilt - 40.0)))
axes[0].plot(along, profiles[shown], label="tomogram")
axes[0].plot(wide, templates[shown], label="what the sphere would show")
axes[0].plot(wide + found.shift[shown], templates[shown], "--", label="the same, shifted")
axes[0].set(
    xlabel="along the normal, voxels", ylabel="density", title=f"a point at a tilt of {tilt[shown]:.0f} degrees"
)
axes[0].legend()
good = np.asarray(found.log_odds) > 2.0
axes[1].errorbar(truth[good], found.shift[good], found.sigma[good], fmt=".", alpha=0.4)
axes[1].plot([-1, 2], [-1, 2], "k-", lw=0.8)
axes[1].set(xlabel="true shift, voxels", ylabel="found", title="single lines, not averaged along the surface")
finish("profiles")
print(
    f"{good.sum()} of {len(good)} points; mean error {np.abs(found.shift[good] - truth[good]).mean():.2f} voxel, of the sphere {np.abs(truth).mean():.2f}"
)

# %% [markdown]
# ## 3. The whole surface, by analysis by synthesis
#
# `invert` moves all nodes at once, so that the computed tomogram is most like the measured one, with a smooth prior for what nobody sees.
# It is Gauss and Newton's method; each step costs two Fourier transforms an iteration of conjugate gradients.

# %%
square = ((about.nodes[:, None] - about.nodes[None]) ** 2).sum(-1)
prior = jnp.asarray(np.exp(-0.5 * square / 8.0**2) + 1e-3 * np.eye(len(square)), jnp.float32)
result = density.invert(tomogram, about.box, bilayer, passed, prior, NOISE)
error = np.abs(np.asarray(result.displacement) - truth)
print(
    f"mean error {error.mean():.2f} voxel; upright {error[tilt < 50].mean():.2f}, hidden by the wedge {error[tilt > 60].mean():.2f}"
)

figure, axes = plt.subplots(1, 2, figsize=(11, 3.8))
axes[0].plot(result.misfit, "o-")
axes[0].set(xlabel="step", ylabel="mean square of what is left, in units of the noise")
axes[1].scatter(tilt, error, s=6)
axes[1].axvline(60.0, color="k", lw=0.8)
axes[1].set(xlabel="tilt of the normal, degrees", ylabel="error, voxels")
finish("synthesis")

# %% [markdown]
# ## 4. The gradient of the shape with respect to the tomogram
#
# The inversion is differentiable. Here is how the enclosed volume would change if a voxel were brighter: darker inside
# the outer edge, lighter outside, and nothing where the wedge leaves no information.

# %%
area = 4.0 * np.pi * RADIUS**2 / len(about.nodes)


def enclosed(volume):
    """Enclosed volume beyond that of the sphere, to first order, voxel^3."""
    return area * density.invert(volume, about.box, bilayer, passed, prior, NOISE, 2, 60).displacement.sum()


slope = jax.jit(jax.grad(enclosed))(tomogram)
way = jax.random.normal(jax.random.key(1), tomogram.shape)
differences = (enclosed(tomogram + 0.01 * way) - enclosed(tomogram - 0.01 * way)) / 0.02
print(
    f"along a random direction: by the gradient {float(jnp.vdot(slope, way)):.3f}, by differences {float(differences):.3f}"
)

limit = float(jnp.abs(slope).max())
figure, axes = plt.subplots(1, 2, figsize=(8, 3.8))
for axis, picture, title in zip(axes, (slope[:, middle], slope[middle]), ("xz", "xy")):
    axis.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axis.set(title=f"d volume / d voxel ({title})", xticks=[], yticks=[])
finish("gradient")
plt.show()
