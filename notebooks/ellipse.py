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
# # Ellipses from broken arcs, slice by slice
#
# A slice through a vesicle is nearly an ellipse, of which a tomogram shows a part, among pixels that belong to something else.
#
# 1. A robust fit, with error bars
# 2. What a short arc leaves open, and who may decide it
# 3. All slices of a membrane at once
# 4. Which pixels belong to it
# 5. Gradients
#
# Run it as a script (`python notebooks/ellipse.py`) or open it with jupytext. Lengths are voxels, points are (row, column).

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jaxmem import ellipse as ell
from jaxmem.types import Outcome

rng = np.random.default_rng(3)
SIZE = 64  # points a slice is padded to
bars = jax.jit(jax.vmap(ell.boundary_sigma, (None, 0)))


def arc(shape, n, start, length, noise=0.5):
    """Noisy points on a part of an ellipse."""
    t = start + length * rng.uniform(0, 1, n)
    u = np.stack([np.cos(t), np.sin(t)], 1) * np.asarray(shape.semi_axes)
    return np.asarray(shape.centre) + u @ np.asarray(shape.rotation) + rng.normal(0, noise, (n, 2))


def padded(points):
    rows = np.zeros((SIZE, 2), np.float32)
    rows[: len(points)] = points
    return rows, np.arange(SIZE) < len(points)


def draw(axes, found, color, label):
    rim = np.asarray(ell.boundary(found.ellipse, 200))
    outward = rim - np.asarray(found.ellipse.centre)
    wide = 2 * np.asarray(bars(found, rim))[:, None] * outward / np.linalg.norm(outward, axis=1)[:, None]
    axes.fill(*np.concatenate([rim + wide, (rim - wide)[::-1]])[:, ::-1].T, color=color, alpha=0.2, linewidth=0)
    axes.plot(*rim[:, ::-1].T, color=color, label=label)


# %% [markdown]
# ## 1. A robust fit, with error bars
#
# Two thirds of a contour and eight pixels of something else. The fit minimises orthogonal distances under a loss for which
# pixels farther than 4.7 standard deviations count nothing; the band is two standard deviations wide.

# %%
truth = ell.Ellipse(jnp.array([50.0, 50.0]), jnp.array([30.0, 18.0]), jnp.array(0.5))
points = np.concatenate([arc(truth, 48, 0.0, 4.2), rng.uniform(15, 85, (8, 2))])
found = ell.fit(*padded(points), noise=0.5)
error = ell.errors(found)
print(Outcome(int(found.outcome)).name, "semi-axes", found.ellipse.semi_axes, "+-", error.semi_axes)
print("angle", found.ellipse.angle, "+-", error.angle, " scatter of the pixels", found.sigma)

figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), subplot_kw={"aspect": "equal"})
draw(axes[0], found, "tab:blue", "fit")
axes[0].plot(*np.asarray(ell.boundary(truth, 200))[:, ::-1].T, "k--", linewidth=0.8, label="truth")
axes[0].plot(*points[:, ::-1].T, ".", color="tab:orange")
axes[0].set_title("two thirds of the contour, 8 spurious pixels")
axes[0].legend(fontsize=8)

# %% [markdown]
# ## 2. What a short arc leaves open
#
# A quarter of the contour fixes hardly more than a position and a bend. A prior from the neighbouring slice, which is off by one
# voxel, decides the rest; where there are no pixels the error bar is the prior's.

# %%
short = padded(arc(truth, 40, 0.3, 1.5))
neighbour = ell.from_parameters(ell.parameters(truth) + jnp.array([1.0, -0.5, 0.5, 0.3, -0.7]))
alone, held = ell.fit(*short, noise=0.5), ell.fit(*short, prior=ell.isotropic_prior(neighbour, 1.0, 1.0), noise=0.5)
for name, result in (("alone", alone), ("with a prior", held)):
    print(name, Outcome(int(result.outcome)).name, result.ellipse.semi_axes, "+-", ell.errors(result).semi_axes)
draw(axes[1], held, "tab:blue", "with a prior")
axes[1].plot(*np.asarray(ell.boundary(alone.ellipse, 200))[:, ::-1].T, color="tab:red", label="alone")
axes[1].plot(*np.asarray(ell.boundary(truth, 200))[:, ::-1].T, "k--", linewidth=0.8, label="truth")
axes[1].plot(*short[0][short[1]][:, ::-1].T, ".", color="tab:orange")
axes[1].set(xlim=(15, 85), ylim=(90, 10), title="a quarter of the contour")
axes[1].legend(fontsize=8)
figure.tight_layout()

# %% [markdown]
# ## 3. All slices of a membrane at once
#
# Slices near the middle show the whole contour, those farther out less and less, and some nothing. `fit_sequence` starts where most is
# seen, goes outwards with each ellipse as its neighbour's prior, and then smooths over all slices: every slice learns
# from both sides. A slice without pixels has an ellipse, too, with a wider error bar.

# %%
slices = 24
shapes = [truth._replace(semi_axes=truth.semi_axes - 0.15 * abs(z - 8)) for z in range(slices)]
counts = [0 if z in (14, 15, 16) else 50 if z < 10 else 9 for z in range(slices)]
rows, masks = zip(
    *[padded(arc(s, n, 0.3 * z, 6.2 if n == 50 else 1.3)) for z, (s, n) in enumerate(zip(shapes, counts))]
)
stack, mask = np.stack(rows), np.stack(masks)
sequence = ell.fit_sequence(stack, mask)
spread = jax.jit(jax.vmap(ell.errors))(sequence)
one_by_one = jax.jit(jax.vmap(lambda p, m: ell.fit(p, m, noise=1.0)))(stack, mask)

figure, axes = plt.subplots(figsize=(7, 3.6))
for i, color in enumerate(("tab:blue", "tab:green")):
    axes.errorbar(range(slices), sequence.ellipse.semi_axes[:, i], 2 * spread.semi_axes[:, i], fmt=".", color=color)
    axes.plot(one_by_one.ellipse.semi_axes[:, i], "x", color=color, alpha=0.6)
    axes.plot([float(s.semi_axes[i]) for s in shapes], "k--", linewidth=0.8)
axes.set(ylim=(5, 45), xlabel="slice", ylabel="semi-axes (voxels)")
axes.set_title("dots: all slices together, two standard deviations; crosses: each slice alone")
print("codes:", [Outcome(int(c)).name for c in sequence.outcome[12:18]])

# %% [markdown]
# ## 4. Which pixels belong to it
#
# `select` asks the ellipses of all membranes about all pixels: those far away are let go, and those of nobody that are close and likely
# enough to be membrane are taken.

# %%
strays = 50 + 1.5 * (stack[:, :6] - 50)  # pixels that grouping gave to the membrane by mistake
missed = np.stack([arc(s, 10, 0.0, 6.2) for s in shapes]).astype(np.float32)
pixels = np.concatenate([stack, strays, missed], 1)
owner = np.concatenate([np.where(mask, 1, -1), np.where(mask[:, :6], 1, -1), np.zeros((slices, 10), int)], 1)
new = np.asarray(ell.select(jax.tree.map(lambda a: a[None], sequence), pixels, owner, np.full(owner.shape, 0.8)))
for name, here in (("its own", slice(0, SIZE)), ("strays", slice(SIZE, SIZE + 6)), ("missed", slice(SIZE + 6, None))):
    real = owner[:, here] >= 0
    print(f"{name}: {(new[:, here] == 1)[real].mean():.0%} of {real.sum()} pixels belong to the membrane now")

# %% [markdown]
# ## 5. Gradients
#
# The ellipse is differentiated by the implicit function theorem, not through the iterations: here, how the area changes with each pixel.

# %%
slope = jax.jit(jax.grad(lambda p, m: ell.area(ell.fit(p, m, noise=0.5).ellipse)))(*padded(points))
figure, axes = plt.subplots(figsize=(4.2, 4.2), subplot_kw={"aspect": "equal"})
axes.quiver(*points[:, ::-1].T, *np.asarray(slope)[: len(points), ::-1].T, angles="xy", color="tab:purple")
axes.plot(*points[:, ::-1].T, ".", color="tab:orange")
axes.set_title("what moves the area; spurious pixels do not")
print(
    "largest pull of a spurious pixel:",
    float(jnp.abs(slope[48:56]).max()),
    "of others:",
    float(jnp.abs(slope[:48]).max()),
)
plt.show()
