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
# # A surface with error bars from a Gaussian process
#
# A membrane is the zero level of a function $f$: negative inside, positive outside, in voxels. A Gaussian process is conditioned
# on $f = 0$ at the membrane's points, and on signed distances at a few *anchors* beside it. Its mean gives the surface, its
# variance says how well each piece of it is known, and gradients pass through all of it.
#
# 1. A curve in two dimensions, step by step
# 2. A closed membrane with gaps and missing caps
# 3. Do the error bars hold?
# 4. Gradients of the surface
# 5. Real shapes
#
# Run it from the repository's root or from `notebooks/`, as a script (`python notebooks/gp.py`) or as a notebook (open it with
# jupytext). Lengths are voxels, points are zyx (yx in two dimensions).

# %%
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.collections import LineCollection
from matplotlib.patches import Patch
from scipy.spatial import cKDTree
from scipy.stats import norm
from skimage.measure import find_contours

from jaxmem import anchors, gp, levelset, surface
from jaxmem.grouping import describe, is_closed, midline
from jaxmem.io import as_instances, read_mrc
from jaxmem.metrics import distance_to_surface
from jaxmem.pipeline.masks import band_thickness
from jaxmem.points import sphere_directions
from jaxmem.settings import FitConfig, SelectConfig

CASES = int(os.environ.get("JAXMEM_NOTEBOOK_CASES", "6"))  # of section 3
DATA = os.environ.get("JAXMEM_NOTEBOOK_DATA", "")  # folder of section 5; "none" skips it; empty looks for it
PICTURES = os.environ.get("JAXMEM_NOTEBOOK_PICTURES", "")  # folder to save the pictures in; empty saves none

START = Path(globals().get("__file__", Path.cwd() / "notebook")).resolve()
ROOT = next((f for f in START.parents if (f / "benchmarks" / "calibration.py").is_file()), None)
if ROOT is None:
    raise SystemExit("run this from the repository: it uses the shapes of benchmarks/calibration.py")
sys.path.append(str(ROOT / "benchmarks"))

from calibration import SHAPE, draw_case, signed_error, star  # noqa: E402
from heldout import hold_out  # noqa: E402

if "get_ipython" not in globals():
    plt.switch_backend("Agg")
jax.config.update("jax_enable_x64", True)  # the solves need double precision
plt.rcParams.update({"figure.dpi": 90, "font.size": 9, "legend.fontsize": 8})


def keep(figure, name):
    if PICTURES:
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        figure.savefig(Path(PICTURES) / f"{name}.png")


# %% [markdown]
# ## 1. A curve in two dimensions
#
# Forty noisy points on a closed curve, none of them in a quarter of it. On rays through some of them, `anchors.by_rays` puts one
# anchor outside and one inside, whose values are distances from the curve (paper, Section 5.2).


# %%
def curve(angle):
    """The true curve, (n, 2)."""
    reach = 20.0 * (1.0 + 0.12 * np.sin(3 * angle) + 0.08 * np.cos(2 * angle))
    return reach[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)


rng = np.random.default_rng(1)
around = np.linspace(0, 2 * np.pi, 400)
points = curve(rng.uniform(0.5, 0.5 + 1.5 * np.pi, 40)) + rng.normal(0, 0.5, (40, 2))
extra = anchors.by_rays(jnp.asarray(points[::3]), jnp.zeros(2), alpha=1.3)
x = jnp.concatenate([points, extra.points])
y = jnp.concatenate([jnp.zeros(len(points)), extra.values])
noise = jnp.concatenate([jnp.full(len(points), 0.5), extra.sigma])

# %% [markdown]
# The thin plate kernel is a covariance only up to the distance $R$, which `gp.valid_radius` takes from every point at which the
# kernel will be evaluated, the grid's corners included. `gp.learn` finds the prior's amplitude, and a factor on the noise of each
# group (points, anchors), by marginal likelihood; `log_sigma` says how far each may move. The points' noise is known here and may hardly
# move. Left free it would come out too small: where the prior mean is zero the amplitude has to explain the whole shape, and explains
# some of the noise as well. Section 2 has a better prior mean. `gp.fit` then solves once.

# %%
LOW, HIGH, STEP = -34.0, 34.0, 0.5
axis = jnp.arange(LOW, HIGH + STEP, STEP)
grid = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij"), -1)
R = gp.valid_radius(gp.ThinPlate, np.concatenate([x, np.array([[LOW, LOW], [LOW, HIGH], [HIGH, LOW], [HIGH, HIGH]])]))
group = jnp.asarray(np.arange(len(x)) >= len(points), int)
learnt = gp.learn(x, y, noise=noise, prior=gp.ThinPlate(jnp.array(20.0**2), jnp.array(R)), group=group, floor=jnp.zeros(2), ceiling=jnp.array([2.0, 1.0]), log_sigma=jnp.array([1.5, 0.05, 1.0]))  # fmt: skip
kernel, noise = learnt.prior.kernel, noise * learnt.scales[group]
posterior = gp.fit(x, y, noise=noise, prior=kernel)
assert posterior.success
print(
    f"R {R:.0f}, amplitude {float(kernel.variance) ** 0.5:.1f} voxels, anchors' noise x {float(learnt.scales[1]):.2f}"
)

# %% [markdown]
# Everything is written for one point; `gp.means` and `gp.map_points` take many. `gp.level_set_density` is the density of $f = 0$ at
# each place (paper, equation 5). `gp.sample` draws whole functions: correlated along the curve, as a band of error bars cannot be.

# %%
deviations = jax.jit(lambda posterior, points: jnp.sqrt(gp.map_points(gp.variance, posterior, points)))
many = grid.reshape(-1, 2)
mean, sigma = (f(posterior, many).reshape(grid.shape[:2]) for f in (gp.means, deviations))
density = gp.level_set_density(mean, sigma)

support = grid[::6, ::6].reshape(-1, 2)  # three voxels apart, about as far as the points are
expansion, weights = gp.sample(jax.random.key(0), posterior, support, 6)
samples = [gp.means(gp.with_weights(expansion, w), many).reshape(grid.shape[:2]) for w in weights]


def zero_lines(values, low=LOW, step=STEP):
    """The zero level of values on a grid, as lines (n, 2)."""
    return [line * step + low for line in find_contours(np.asarray(values), 0.0)]


def plot(axes, lines, *style, label=None, **options):
    for i, line in enumerate(lines):
        axes.plot(line[:, 1], line[:, 0], *style, label=label if i == 0 else None, **options)


figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 4.3), layout="constrained")
extent = (LOW - STEP / 2, HIGH + STEP / 2) * 2
image = left.imshow(mean, extent=extent, origin="lower", cmap="RdBu", vmin=-20, vmax=20)
figure.colorbar(image, ax=left, label="mean of f (voxels)", shrink=0.7)
left.plot(extra.points[:, 1], extra.points[:, 0], "k+", ms=5, label="anchors")
left.set_title("mean")
image = middle.imshow(density, extent=extent, origin="lower", cmap="magma", vmin=0, vmax=0.8)
figure.colorbar(image, ax=middle, label="density of f = 0 (1/voxel)", shrink=0.7, extend="max")
middle.set_title("where the curve is")
plot(middle, [curve(around)], ":", color="tab:green", lw=1.2)
right.set_title("six curves drawn from the posterior")
for values in samples:
    plot(right, zero_lines(values), color="tab:purple", lw=0.7, label="drawn" if values is samples[0] else None)
for axes in (left, right):
    plot(axes, zero_lines(mean), "k", lw=1.3, label="zero level of the mean")
    plot(axes, [curve(around)], ":", color="tab:green", lw=1.5, label="truth")
    axes.plot(points[:, 1], points[:, 0], "o", color="tab:orange", mec="k", mew=0.4, ms=4, label="points")
for axes in (left, middle, right):
    axes.set(xlim=(-32, 32), ylim=(-32, 32), aspect="equal", xlabel="x (voxels)", ylabel="y (voxels)")
entries = {label: h for axes in (left, right) for h, label in zip(*axes.get_legend_handles_labels())}
figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=len(entries))
keep(figure, "curve")

# %% [markdown]
# Where points are missing the density spreads out, and the drawn curves part: each is a curve that the points allow.
#
# ## 2. A closed membrane with gaps and missing caps
#
# `surface.fit_membranes` does for a membrane of many points what was done by hand above: it chooses points, adds anchors, learns the
# amplitude and the noise, and outvotes stray points. A closed membrane is expected to be near an ellipsoid, whose parameters are
# uncertain (`gp.Ellipsoid`). The truth here is a bumpy surface; caps are cut off as the missing wedge does, and holes are torn.


# %%
def reach(u):
    """Distance of the true surface from the middle in direction u."""
    return 22.0 * (
        1 + 0.04 * jnp.sin(2 * u[..., 0]) + 0.06 * jnp.sin(3 * u[..., 1] + 1) + 0.05 * jnp.cos(3 * u[..., 2])
    )


def level(p):
    """A function of one point whose zero level is the true surface."""
    length = jnp.linalg.norm(p)
    return length - reach(p / length)


MIDDLE = np.array(SHAPE) / 2
truth = star(lambda u: np.asarray(reach(u)))
rng = np.random.default_rng(3)
chosen = rng.permutation(len(truth.points))[:5000]
cloud, normals = truth.points[chosen], truth.normals[chosen]
seen = np.abs(cloud[:, 0] - MIDDLE[0]) < 15
for hole in ([64, 64, 86], [56, 44, 64], [70, 80, 52]):
    seen &= np.linalg.norm(cloud - hole, axis=1) > 11
cloud, normals = cloud[seen], normals[seen]
cloud = cloud + rng.normal(0, 0.8, (len(cloud), 1)) * normals

config = FitConfig(spacing=3.0, inflation=1.0, least_noise=0.1)  # the points' errors are independent here
shape = describe(cloud, normals, SHAPE)
membrane = surface.fit_membranes([cloud], [normals], [shape], [True], config)[0]
mesh, _ = surface.extract(membrane, SHAPE, config)

even = sphere_directions(20000, 3)
volume = 4 * np.pi / 3 * float(jnp.mean(reach(even) ** 3))
print(
    f"{len(cloud)} points; noise {membrane.noise:.2f} voxels (true: 0.8); the mesh is {'' if mesh.closed else 'not '}closed"
)
print(f"volume {mesh.volume:.0f} +- {mesh.volume_sigma:.0f} voxels (true: {volume:.0f})")

# %% [markdown]
# A plane through the middle, along the beam (z, upwards). The band is where $|f| < 2\sigma$. The curvature is measured by the
# mesh at every vertex, averaged over `FitConfig.curvature_radius` voxels; that of the truth comes from `levelset.curvatures`, which
# takes a function's first and second derivatives. One picture proves little; the next section counts.

# %%
low, step = 34.0, 0.6
axis = np.arange(low, 128 - low, step)
plane = np.stack([*np.meshgrid(axis, axis, indexing="ij"), np.full((len(axis),) * 2, MIDDLE[2])], -1) - membrane.centre
value = np.asarray(gp.means(membrane.posterior, plane.reshape(-1, 3))).reshape(plane.shape[:2])
deviant = np.full(value.shape, np.inf)  # |f| / sigma, near the surface
near = np.abs(value) < 4
deviant[near] = np.abs(value[near]) / deviations(membrane.posterior, plane[near])

turn = np.linspace(-np.pi, np.pi, 361)  # angle from z
ways = jnp.stack([jnp.cos(turn), jnp.sin(turn), 0 * turn], 1)
outline = np.asarray(reach(ways)[:, None] * ways)


@jax.jit
@jax.vmap
def true_curvature(p):
    return levelset.curvatures(jax.grad(level)(p), jax.hessian(level)(p))[0]


close = np.flatnonzero(np.abs(mesh.vertices[:, 2] - MIDDLE[2]) < 0.5)
offset = mesh.vertices[close] - MIDDLE
angle = np.degrees(np.arctan2(offset[:, 1], offset[:, 0]))
close, angle = close[np.argsort(angle)], np.sort(angle)

figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained", width_ratios=(1, 1.25))
left.contourf(axis, axis, np.minimum(deviant, 9.0), levels=[0, 2], colors=["tab:blue"], alpha=0.3)
plot(left, [outline[:, :2] + MIDDLE[:2]], "k--", lw=1.2, label="truth")
plot(left, zero_lines(value, low, step), color="tab:blue", lw=1.2, label="mean")
slab = np.abs(cloud[:, 2] - MIDDLE[2]) < 1.0
left.plot(cloud[slab, 1], cloud[slab, 0], ".", color="tab:orange", ms=5, label="points within a voxel")
handles, _ = left.get_legend_handles_labels()
left.legend(handles=[*handles, Patch(color="tab:blue", alpha=0.3, label=r"$\pm 2 \sigma$")], loc="center")
left.set(aspect="equal", xlabel="y (voxels)", ylabel="z (voxels)", title="a slice along the beam")
right.plot(np.degrees(turn), true_curvature(jnp.asarray(outline)), "k--", lw=1.2, label="truth")
for part, colour, label in ((mesh.seen[close], "tab:blue", "seen"), (~mesh.seen[close], "tab:red", "inferred")):
    some = close[part][::2]
    height, bar = mesh.mean_curvature[some], 2 * mesh.mean_curvature_sigma[some]
    right.errorbar(
        angle[part][::2], height, bar, fmt=".", color=colour, ms=4, lw=0.6, label=rf"{label}, $\pm 2 \sigma$"
    )
right.set(xticks=range(-180, 181, 45), xlabel="angle from z (degrees)", ylabel="mean curvature (1/voxel)")
right.set_title("its curvature along the slice")
right.margins(y=0.1)
right.legend(loc="upper center", ncols=3)
keep(figure, "membrane")

# %% [markdown]
# ## 3. Do the error bars hold?
#
# An interval of nominal coverage $p$ should hold the truth with probability $p$. Below, the cases that
# `benchmarks/calibration.py` draws (ellipsoids, bumpy surfaces, tori, folded sheets, with noise, gaps, missing caps and stray
# points) are fitted, and the share of vertices is counted whose distance from the truth lies within the interval: where points
# were seen, and where the surface is inferred. Cases differ a lot, and six are few: **the figures over 80 cases are in
# `benchmarks/RESULTS.md`**. `JAXMEM_NOTEBOOK_CASES` sets their number here.

# %%
levels = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.683, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98])
bounds = norm.ppf(0.5 + levels / 2)
shares = {"seen": [], "inferred": []}
for i in range(CASES):
    case = draw_case(np.random.default_rng((1000, i)))  # the benchmark's seed: these are the first of its 80
    form = describe(case.points, case.normals, SHAPE)
    fitted = surface.fit_membranes([case.points], [case.normals], [form], [case.truth.closed], config)[0]
    found = surface.extract(fitted, SHAPE, config) if fitted else None
    if found is None:
        print(f"{case.name}: no surface")
        continue
    skin, known = found[0], np.ones(len(found[0].vertices), bool)
    if case.name.startswith("sheet"):  # what lies beyond its outline has no truth
        known = cKDTree(case.truth.points[:, 1:]).query(skin.vertices[:, 1:])[0] < 1.5
    z = np.abs(signed_error(case.truth, skin.vertices)) / skin.sigma
    for part, where in (("seen", skin.seen), ("inferred", ~skin.seen)):
        if (where & known).sum() >= 20:
            shares[part].append((z[where & known, None] < bounds).mean(0))

figure, pair = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained", sharey=True)
for axes, (part, rows), colour in zip(pair, shares.items(), ("tab:blue", "tab:red")):
    axes.plot([0, 1], [0, 1], "k:", lw=1, label="as it should be")
    for k, row in enumerate(rows):
        axes.plot(levels, row, color=colour, lw=0.7, alpha=0.4, label="one case" if k == 0 else None)
    if rows:
        axes.plot(levels, np.mean(rows, 0), "o-", color=colour, ms=4, label=f"mean of {len(rows)} cases")
        at_95 = np.mean(rows, 0)[levels == 0.95][0]
        print(f"{part}: 95 % intervals hold {100 * at_95:.0f} % of the time, over {len(rows)} cases")
    axes.set(aspect="equal", xlim=(0, 1), ylim=(0, 1.01), xlabel="nominal coverage", title=part)
    axes.legend(loc="lower right")
pair[0].set_ylabel("share of vertices within the interval")
keep(figure, "calibration")

# %% [markdown]
# ## 4. Gradients of the surface
#
# `levelset.locate` finds where a line meets the surface. Its derivative is that of the implicit function theorem,
# $\mathrm{d}t = -\mathrm{d}f / (\nabla f \cdot n)$, and reaches through `gp.fit` to whatever the posterior was made of. Here, the position of the curve of
# section 1 along its normal at one place in the gap, against the points, their values and their noise, beside central differences.

# %%
start = jnp.asarray(curve(np.array([6.0]))[0])
start = levelset.locate(posterior, start, start)
normal = gp.gradient(posterior, start)
normal /= jnp.linalg.norm(normal)


@jax.jit
def position(x, y, noise):
    """Of the curve on a line, in voxels along the line."""
    return (levelset.locate(gp.fit(x, y, noise=noise, prior=kernel), start, normal) - start) @ normal


slopes = jax.jit(jax.grad(position, (0, 1, 2)))(x, y, noise)
for i, (name, slope) in enumerate(zip(("points", "values", "noise"), slopes)):
    direction = jnp.asarray(np.random.default_rng(i).normal(size=slope.shape))
    changed = [[a + s * 1e-5 * direction if i == j else a for j, a in enumerate((x, y, noise))] for s in (1, -1)]
    difference = float(position(*changed[0]) - position(*changed[1])) / 2e-5
    exact = float(jnp.vdot(slope, direction))
    print(f"d position / d {name}: {exact:.6f} by the theorem, {difference:.6f} by differences")
    assert np.isclose(exact, difference, rtol=1e-3, atol=1e-6)

# %%
figure, axes = plt.subplots(figsize=(5.5, 5), layout="constrained")
plot(axes, zero_lines(mean), "k", lw=1.2, label="zero level of the mean")
axes.plot(points[:, 1], points[:, 0], "o", color="tab:orange", mec="k", mew=0.4, ms=4, label="points")
axes.plot(start[1], start[0], "*", color="tab:red", ms=12, label="place")
pull, options = (
    np.asarray(slopes[0])[: len(points)],
    {"angles": "xy", "scale_units": "xy", "scale": 1 / 6, "width": 0.005},
)
axes.quiver(points[:, 1], points[:, 0], pull[:, 1], pull[:, 0], color="tab:red", zorder=3, **options)
axes.set_title("what the place feels of each point\n(arrows: d position / d point, six times enlarged)")
axes.set(xlim=(-32, 32), ylim=(-32, 32), aspect="equal", xlabel="x (voxels)", ylabel="y (voxels)")
axes.legend(loc="upper right")
keep(figure, "gradients")

# %% [markdown]
# An optimisation through the fit. Of sixty points a fifth is stray, and each point comes with a score, as a network would give it: lower
# for stray points, but not reliably. What noise does a score stand for? It is taken to be exp(a + b score), and a and b are
# found by gradient descent on the distance of the curve from eight places where it is known; the distance from the truth all
# around is printed. In the same way a loss on the surface reaches the weights of a network.

# %%
rng = np.random.default_rng(5)
count, stray = 60, np.arange(60) % 5 == 2
angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
wrong = np.where(stray, rng.choice([-0.2, 0.25], count), 0.0)
noisy = curve(angles) * (1.0 + wrong[:, None]) + rng.normal(0, 0.4, (count, 2))
score = jnp.asarray(rng.normal(0, 1, count) - 3.0 * stray)
sides = anchors.by_rays(jnp.asarray(noisy[::4]), jnp.zeros(2), alpha=1.3)
places = jnp.concatenate([noisy, sides.points])
values = jnp.concatenate([jnp.zeros(count), sides.values])
known, checks = jnp.asarray(curve(np.linspace(0.3, 6.0, 8))), jnp.asarray(curve(around))


def curve_given(a, b):
    return gp.fit(places, values, noise=jnp.concatenate([jnp.exp(a + b * score), sides.sigma]), prior=kernel)


@jax.jit
def distance(parameters, targets):
    """Root mean square distance of the curve from places where it should be, along rays."""
    function = curve_given(*parameters)
    off = jax.vmap(lambda p: levelset.locate(function, p, p))(targets) - targets
    return jnp.sqrt(jnp.mean(jnp.sum(off**2, 1)))


first = parameters = jnp.array([0.0, 0.0])  # a noise of one voxel, whatever the score
optimiser = optax.adam(0.05)
state, slope = optimiser.init(parameters), jax.jit(jax.grad(distance))
for _ in range(100):
    update, state = optimiser.update(slope(parameters, known), state)
    parameters = optax.apply_updates(parameters, update)
for name, theta in (("before", first), ("after", parameters)):
    print(
        f"{name}: noise exp({theta[0]:.2f} {theta[1]:+.2f} score); "
        f"{distance(theta, known):.2f} voxels from the known places, {distance(theta, checks):.2f} from the truth"
    )

figure, axes = plt.subplots(figsize=(6.8, 5), layout="constrained")
for theta, colour, label in ((first, "tab:gray", "before"), (parameters, "tab:blue", "after")):
    plot(
        axes, zero_lines(gp.means(curve_given(*theta), many).reshape(grid.shape[:2])), color=colour, lw=1.4, label=label
    )
plot(axes, [curve(around)], ":", color="tab:green", lw=1.5, label="truth")
learnt_noise = np.exp(parameters[0] + parameters[1] * score)
options = {"c": np.log10(learnt_noise), "cmap": "YlOrRd", "s": 22, "ec": "k", "lw": 0.4, "zorder": 3}
dots = axes.scatter(noisy[:, 1], noisy[:, 0], label="points", **options)
figure.colorbar(dots, ax=axes, label="log10 of the noise found (voxels)", shrink=0.8)
axes.plot(known[:, 1], known[:, 0], "kx", ms=7, mew=1.5, label="known places", zorder=4)
axes.set_title("what noise a point's score stands for,\nfound from a loss on the curve")
axes.set(xlim=(-32, 32), ylim=(-32, 32), aspect="equal", xlabel="x (voxels)", ylabel="y (voxels)")
axes.legend(loc="upper right")
keep(figure, "optimisation")

# %% [markdown]
# ## 5. Real shapes
#
# Membranes segmented in real tomograms, as masks. Of the points on a mask's midline 30 % are held out in patches, as in
# `benchmarks/heldout.py`; a surface is fitted to the rest. Each picture is the central slice: the mask in grey, the points that
# were held out, and the surface, coloured by its standard deviation. The held-out points' distances are printed, and the share
# of them in the 95 % interval (the points' own noise included); `benchmarks/RESULTS.md` has the table of all membranes.
#
# Open surfaces end where they are known no better than to five voxels (`max_sigma`; the pipeline's default is two).


# %%
def section(mesh, z):
    """Where a mesh crosses the plane at z: line segments (n, 2, yx) and the standard deviation on each."""
    height = mesh.vertices[:, 0] - z
    above = height[mesh.faces] > 0
    faces = mesh.faces[above.any(1) & ~above.all(1)]
    segments, bars = [], []
    for face in faces:
        alone = face[(height[face] > 0) == ((height[face] > 0).sum() == 1)][0]  # this one on its side, two on the other
        ends = face[face != alone]
        share = (height[alone] / (height[alone] - height[ends]))[:, None]
        segments.append((mesh.vertices[alone] + share * (mesh.vertices[ends] - mesh.vertices[alone]))[:, 1:])
        bars.append(mesh.sigma[face].mean())
    return np.array(segments), np.array(bars)


def data_folder():
    if DATA == "none":
        return None
    return next((f for f in (Path(DATA or "?"), ROOT / "shared/data", ROOT.parent / "shared/data") if f.is_dir()), None)


def show_real(axes, file, value):
    """Fit one membrane of a mask without some of its points, and draw its central slice."""
    labels = as_instances(read_mrc(file, labels=True).data, file.name)
    thickness = float(np.clip(0.45 * band_thickness(labels != 0), 0.8, 4.0))
    line = midline((labels == value).astype(np.float32), thickness, 0.3)
    held = hold_out(line.points, np.random.default_rng(0))
    rest, normals = line.points[~held], line.normals[~held]
    config = FitConfig(inflation=1.0, least_noise=0.3, max_sigma=5.0, draws=2)
    shape = describe(rest, normals, labels.shape)
    membrane = surface.fit_membranes([rest], [normals], [shape], [is_closed(shape, SelectConfig())], config)[0]
    found = surface.extract(membrane, labels.shape, config) if membrane else None
    name = file.name.removesuffix(".mrc.gz")
    if found is None:
        print(f"{name}: no surface")
        return None
    z = labels.shape[0] // 2
    segments, bars = section(found[0], z)
    here = np.abs(line.points[:, 0] - z) < 0.5
    axes.imshow(labels[z] == value, cmap="Greys", vmax=4, interpolation="nearest")
    for part, colour, label in ((here & ~held, "0.7", "midline"), (here & held, "tab:orange", "midline, held out")):
        axes.plot(line.points[part, 2], line.points[part, 1], ".", color=colour, ms=8, mew=0, label=label)
    lines = axes.add_collection(LineCollection(segments[:, :, ::-1], array=bars, cmap="viridis", lw=1.4, zorder=3))
    lines.set_clim(0, np.quantile(bars, 0.98))
    error = distance_to_surface(line.points[held], found[0].vertices, found[0].normals)
    nearest = cKDTree(found[0].vertices).query(line.points[held])[1]
    inside = error <= 1.96 * np.hypot(found[0].sigma[nearest], membrane.noise)
    print(
        f"{name}: median error of {held.sum()} held-out points {np.median(error):.2f} voxels, {100 * inside.mean():.0f} % in 95 %"
    )
    axes.set(title=f"{name}, slice {z}", xlabel="x (voxels)", ylabel="y (voxels)")
    return lines


folder = data_folder()
if folder is None:
    print(
        "Real shapes are left out: "
        + ("as asked" if DATA == "none" else "there is no folder shared/data by the repository")
    )
else:
    figure, four = plt.subplots(2, 2, figsize=(11, 8.4), layout="constrained")
    shown = (("AP_autophagosome", 2), ("Phagophore", 2), ("t74_vesicle3", 1), ("thylakoid_T1S4M8", 1))
    for axes, (name, value) in zip(four.flat, shown):
        file = folder / f"{name}.mrc.gz"
        lines = show_real(axes, file, value) if file.is_file() else print(f"{name} is left out: {file} is missing")
        if lines is None:
            axes.set_axis_off()
        else:
            figure.colorbar(lines, ax=axes, label="sigma (voxels)", shrink=0.8)
    entries = {label: h for axes in four.flat for h, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=2)
    keep(figure, "real")
