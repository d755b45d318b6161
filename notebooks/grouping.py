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
# # Which pixels belong to the same membrane
#
# A slice shows pieces of membranes: some are broken, some touch, some belong to nothing. Two ways lead from pixels to membranes.
#
# 1. The walker: labelled pixels become ordered lines
# 2. The linker: lines become membranes, by many walks and the best set of chains
# 3. Learning on the slice itself
# 4. Regions merged in three dimensions, and cut where membranes touch
# 5. Groups of slices become membranes
#
# Run it as a script (`python notebooks/grouping.py`) or open it with jupytext. Lengths are pixels, points are (row, column).

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matching import best_matching, gain_from_cost, nearest_ends
from scipy import ndimage
from scipy.spatial import cKDTree

from jaxmem.grouping import MergeConfig, merge_regions, midline
from jaxmem.grouping.rl.learning import LearningConfig
from jaxmem.grouping.rl.linker.chains import best_set, sample_chains
from jaxmem.grouping.rl.linker.environment import agreement, link_task
from jaxmem.grouping.rl.linker.linking import learn_and_link
from jaxmem.grouping.rl.linker.policy import link_gains
from jaxmem.grouping.rl.linker.segments import summarise
from jaxmem.grouping.rl.slices import link_regions, link_volume
from jaxmem.grouping.rl.tracing import trace
from jaxmem.grouping.rl.weights import load_linker
from jaxmem.simulate import ContourModel, draw_contours, rasterise

STEPS = 20 * int(os.environ.get("JAXMEM_NOTEBOOK_CASES", "6")) // 6  # of learning on the slice
CAPACITY = 32  # segments of a slice
COLOURS = plt.colormaps["tab10"].colors


def draw(axes, paths, group, title):
    """Lines in the colour of their group; a group of one line is grey."""
    names, size = np.unique(group, return_counts=True)
    colour = {g: COLOURS[k % 10] for k, g in enumerate(names[size > 1])}
    for path, g in zip(paths, group):
        axes.plot(path[:, 1], path[:, 0], color=colour.get(g, "0.6"), linewidth=1.6)
    axes.set(xlim=(0, 255), ylim=(255, 0), aspect="equal", xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)


# %% [markdown]
# ## 1. The walker
#
# Four pixels of every contour in ten are missing here. The mask, three pixels thick, is thinned, and an agent walks over what is left, pixel by pixel and never
# twice over the same one. At a junction it looks ahead along each branch and keeps to the membrane it is on.

# %%
model = ContourModel(membranes=(5, 6), gap_fraction=(0.35, 0.45), stray_fraction=(0.1, 0.1))
contours = jax.jit(lambda key: draw_contours(key, model))(jax.random.key(12))
truth = np.asarray(rasterise(contours, model, 3))  # membrane 1, 2, ...; strays below 0
paths, closed = trace(truth != 0)
print(f"{(truth != 0).sum()} labelled pixels, {len(paths)} lines, {sum(closed)} of them loops")

figure, axes = plt.subplots(1, 2, figsize=(9, 4.5))
axes[0].imshow(truth != 0, cmap="gray_r")
axes[0].set(title="labelled pixels", xticks=[], yticks=[])
draw(axes[1], paths, np.zeros(len(paths)), "lines in order, the walker's heading at their ends")
for path in paths:
    for end, inner in ((path[0], path[min(4, len(path) - 1)]), (path[-1], path[max(-5, -len(path))])):
        axes[1].annotate("", end[::-1], inner[::-1], arrowprops={"arrowstyle": "->", "color": "tab:red"})
figure.tight_layout()

# %% [markdown]
# ## 2. The linker
#
# A second agent leaves a line at its end and chooses the next one and which of its ends to enter, or gives up, or takes a link back. It plays
# thirteen episodes; a judge that has seen many simulated chains says of each chain how likely it is to be one whole membrane, and the best
# chains that share no line win (Fig. 4 of the paper). Two classical methods stand beside it.

# %%
segments = summarise(paths, truth.shape, CAPACITY, closed)
owner = np.full(CAPACITY, -1000)
for k, path in enumerate(paths):  # what most of a line's pixels are
    rows, columns = np.round(path).astype(int).T
    values, counts = np.unique(truth[rows, columns], return_counts=True)
    owner[k] = values[np.argmax(counts)]
task = link_task(segments, owner=jnp.asarray(owner))
linker = load_linker()
walking, learning = jax.random.split(jax.random.key(0))


@jax.jit
def episodes(key, task):
    chains = sample_chains(key, linker.policy, task, 12)
    worth = linker.judge(chains.features)
    return chains, worth, best_set(chains, worth), link_gains(linker.policy, task)


chains, worth, found, gain = episodes(walking, task)
walked = jnp.argmax(chains.members.reshape(13, CAPACITY, CAPACITY), 1) + 1  # of each walk, the chain of each line
ways = {
    "walk 1 (greedy)": walked[0],
    "walk 2": walked[1],
    "walk 3": walked[2],
    "best set of 13 walks": found,
    "nearest ends": jnp.asarray(nearest_ends(jax.tree.map(np.asarray, task), 40.0)),
    "matching of least cost": jnp.asarray(best_matching(task, gain_from_cost(task, 60.0))),
    "matching on the policy's gains": jnp.asarray(best_matching(task, np.asarray(gain))),
    "truth": jnp.asarray(owner),
}
figure, axes = plt.subplots(2, 4, figsize=(14, 7))
for (name, group), panel in zip(ways.items(), axes.flat):
    score = f": {float(agreement(task, group)):.3f}" if name != "truth" else ""
    draw(panel, paths, np.asarray(group)[: len(paths)], name + score)
    print(name + score)
figure.suptitle("adjusted Rand index of pixels; grey lines are alone", fontsize=10)
figure.tight_layout()

# %% [markdown]
# What the judge makes of the chains: the odds that each is a whole membrane, and whether it is.

# %%
right = np.zeros(len(worth), bool)
members = np.asarray(chains.members)
for k in np.flatnonzero(chains.present):
    first = owner[np.argmax(members[k])]
    right[k] = np.array_equal(members[k, : len(paths)], owner[: len(paths)] == first)
present = np.asarray(chains.present)
figure, axes = plt.subplots(figsize=(5, 3.2))
bins = np.linspace(-8, 8, 25)
for shown, label in ((present & right, "whole membranes"), (present & ~right, "others")):
    axes.hist(np.clip(np.asarray(worth)[shown], -8, 8), bins, alpha=0.6, label=label)
axes.set(xlabel="log odds by the judge", ylabel="chains of 13 walks", yscale="log")
axes.legend(fontsize=8)
figure.tight_layout()

# %% [markdown]
# ## 3. Learning on the slice itself
#
# The policy may go on learning on the slice, without labels: an episode earns the share of pixels that the judge expects in whole
# membranes. What that is worth on the average stands in `benchmarks/RESULTS.md`.

# %%
learnt = jax.jit(
    lambda key, task: learn_and_link(key, linker.policy, linker.judge, task, 12, LearningConfig(3e-4), max(STEPS, 1))
)(learning, task)
print(
    f"before learning {float(agreement(task, found)):.3f}, after {max(STEPS, 1)} steps {float(agreement(task, learnt)):.3f}"
)

# %% [markdown]
# ## 4. Regions in three dimensions
#
# Two vesicles that touch, caps missing, one of them with a gap, as a probability volume. Connected components make one object of them. Regions are cut
# where little holds their halves together, and joined across gaps where points agree on the surface between them.

# %%
z, y, x = np.indices((40, 64, 110), float)
volume = np.zeros(z.shape, np.float32)
labels = np.zeros(z.shape, int)
for number, (centre, radius) in enumerate((((20, 32, 33), 24.0), ((20, 32, 81), 22.5)), 1):
    r = np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
    shell = (np.abs(r - radius) < 1.6) & (np.abs(z - centre[0]) < 0.7 * radius)
    labels[shell] = number
    volume = np.maximum(volume, np.where(shell, 0.9, 0.0))
gap = (np.abs(np.arctan2(y - 32, x - 33) - 2.0) < 0.25) & (x < 50)
volume[gap], labels[gap] = 0.0, 0

components, _ = ndimage.label(volume > 0.5, np.ones((3, 3, 3)))
line = midline(volume, 1.4, 0.3)
region = merge_regions(line.points, line.normals, 14.0, MergeConfig())
print(f"{components.max()} connected components, {(np.bincount(region)[1:] > 50).sum()} regions of more than 50 points")
figure, axes = plt.subplots(1, 3, figsize=(13, 3.2))
here = np.abs(line.points[:, 0] - 20) < 0.6
axes[0].imshow(volume[20], cmap="gray_r")
axes[0].set_title("probability, middle slice", fontsize=9)
axes[1].imshow(np.ma.masked_equal(components[20], 0), cmap="tab10", vmin=0, vmax=9)
axes[1].set_title("connected components", fontsize=9)
axes[2].scatter(line.points[here, 2], line.points[here, 1], c=region[here] % 10, cmap="tab10", vmin=0, vmax=9, s=4)
axes[2].set(xlim=(0, 109), ylim=(63, 0), aspect="equal")
axes[2].set_title("merged regions", fontsize=9)

# %% [markdown]
# ## 5. Across slices
#
# The other way to the same end: walker and linker in each slice, and groups of neighbouring slices that lie over each other become one
# membrane (Fig. 6 of the paper). Points of caps, which no slice shows as a line, belong to the membrane they hang together with.

# %%
lines, membrane = link_volume(jax.random.key(1), linker, volume, 1.4, 0.3, 14.0)
region = link_regions(line, lines, membrane, 14.0, MergeConfig())
truth_near = labels[labels > 0][cKDTree(np.argwhere(labels)).query(line.points)[1]]
print(f"{membrane.max()} membranes across {len(np.unique(lines.points[:, 0]))} slices")
for number in (1, 2):
    names, counts = np.unique(region[truth_near == number], return_counts=True)
    print(f"vesicle {number}: {counts.max() / counts.sum():.1%} of its points are in one region")
figure = plt.figure(figsize=(9, 4.5))
axes = figure.add_subplot(projection="3d")
for number in range(1, min(membrane.max(), 4) + 1):
    mine = lines.points[membrane == number]
    axes.scatter(mine[:, 2], mine[:, 1], mine[:, 0], s=1, color=COLOURS[number % 10])
axes.set(xlabel="x", ylabel="y", zlabel="z", title="groups of all slices, coloured by membrane")
axes.set_box_aspect((110, 64, 40))
plt.show()
