"""Implicit surface of N noisy points beside its peers, in one run: `python benchmarks/gp.py [--sizes N ...] [--cells 64 128]`.

Points on a bumpy closed surface of mean radius 40 voxels with 0.3 voxel of noise, anchors by rays. Every method gets the same
points and anchors, and evaluates on a grid of so many cells along the longest side (jaxmem at every second node near the surface, and interpolates); SciPy's
smoothing is what makes its cubic RBF the same function, and GPyTorch is given the same kernel and noise. Medians of `--repeats`
runs after one that compiles, with one thread for LAPACK, as in the command line; the peers run once, with the threads they take: SciPy's local RBF on the coarse
grid only, scikit-learn and GPyTorch up to 2,000 points. Errors are those of the mesh's vertices along the ray, in voxels. `--batch` fits 100 membranes at once instead, and measures their surfaces;
`--sparse` compares fits through inducing points, and evaluation in single precision, with the exact posterior; `--growth` shows how
times grow with the points (`--sizes`, on the first of `--cells`) and with the membranes (`--counts`), and draws
`docs/images/gp_growth.png` (`--picture` for another place).
"""

import argparse
import contextlib
import functools
import importlib
import resource
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from record import recorded
from scipy.interpolate import RBFInterpolator
from skimage.measure import marching_cubes
from threadpoolctl import threadpool_limits

from jaxmem import anchors, gp
from jaxmem.grouping import describe
from jaxmem.membrane import Surface
from jaxmem.points import sphere_directions
from jaxmem.settings import FitConfig
from jaxmem.surface import Membrane, fit_membranes, fitting
from jaxmem.surface.mesh import Field, sample, triangulate
from jaxmem.surface.uncertainty import position_errors

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "gp_growth.png"
NOISE = 0.3
MIDDLE = np.full(3, 64.0)


def radius(u):
    return 40 * (1 + 0.08 * np.sin(6 * u[:, 0]) + 0.06 * np.cos(4 * u[:, 1] + 1) + 0.05 * u[:, 2] ** 3)


def level(x):
    length = np.linalg.norm(x, axis=1)
    return length - radius(x / length[:, None])


class Problem(NamedTuple):
    """Membrane points, all rows with anchors, the prior, and the box to evaluate in."""

    points: np.ndarray
    x: np.ndarray
    y: np.ndarray
    sigma: np.ndarray
    kernel: gp.Cubic
    low: np.ndarray
    high: np.ndarray


def problem(n: int) -> Problem:
    rng = np.random.default_rng(0)
    u = np.asarray(sphere_directions(n, 3), float)
    points = u * radius(u)[:, None] + rng.normal(0, NOISE, (n, 3))
    extra = anchors.by_rays(jnp.asarray(points[:: max(1, n // 100)]), jnp.zeros(3))
    x = np.concatenate([points, np.asarray(extra.points)])
    y = np.concatenate([np.zeros(n), np.asarray(extra.values)])
    sigma = np.concatenate([np.full(n, NOISE), np.asarray(extra.sigma)])
    low, high = x.min(0) - 1.0, x.max(0) + 1.0
    corners = np.stack(np.meshgrid(*np.stack([low, high], 1), indexing="ij"), -1).reshape(-1, 3)
    R = gp.valid_radius(gp.Cubic, np.concatenate([x, corners]))
    kernel = gp.Cubic(jnp.array(float((x**2).sum(1).max())), jnp.array(R))
    return Problem(points, x, y, sigma, kernel, low, high)


def error(vertices) -> str:
    off = level(vertices)
    return f"{np.sqrt((off**2).mean()):.2f}, {np.abs(off).max():.2f}"


def seconds(function, repeats: int, threads: int | None = 1):
    """Median time and result; LAPACK has one thread, as in the command line, or what it takes by itself when None."""
    times = []
    with threadpool_limits(threads, user_api="blas"):
        for _ in range(repeats):
            start = time.perf_counter()
            result = function()
            times.append(time.perf_counter() - start)
    return float(np.median(times)), result


def solve(p: Problem) -> Membrane:
    """Exact up to 2,048 rows, through 1,024 inducing points beyond, as in `surface.fit_membranes`; nothing is learnt."""
    if len(p.x) <= 2048:
        posterior = gp.fit(p.x, p.y, noise=p.sigma, prior=p.kernel)
    else:
        posterior = gp.fit_sparse(p.x, p.y, p.x[gp.inducing(jnp.asarray(p.x), 1024)], noise=p.sigma, prior=p.kernel)
    posterior = jax.block_until_ready(posterior)
    return Membrane(
        Surface(posterior, jnp.asarray(MIDDLE)), p.points + MIDDLE, p.low + MIDDLE, p.high + MIDDLE, True, NOISE
    )


def mean_surface(p: Problem, cells: int) -> tuple[Membrane, Field, np.ndarray]:
    membrane = solve(p)
    field = sample(membrane, cells, 0.1)
    return membrane, field, triangulate(field)[0]


def with_sigma(p: Problem, cells: int):
    membrane, field, vertices = mean_surface(p, cells)
    return position_errors(membrane, vertices, field.step)


def nodes(field: Field) -> np.ndarray:
    axes = [field.origin[a] - MIDDLE[a] + field.step * np.arange(c) for a, c in enumerate(field.values.shape)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def rbf(p: Problem, field: Field, neighbours: int | None) -> np.ndarray:
    # its smoothing is the noise over the kernel's scale: here 2 k(0) / R^3 multiplies r^3
    smoothing = p.sigma**2 / (2 * float(p.kernel.variance) / float(p.kernel.R) ** 3)
    values = RBFInterpolator(p.x, p.y, kernel="cubic", smoothing=smoothing, neighbors=neighbours)(nodes(field))
    return marching_cubes(values.reshape(field.values.shape), 0.0)[0] * field.step + field.origin - MIDDLE


def scikit_learn(p: Problem, field: Field) -> np.ndarray:
    """A Matern-5/2 process with fixed hyperparameters: the library has no cubic kernel. 10,000 nodes at a time."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    kernel = ConstantKernel(400.0, "fixed") * Matern(30.0, "fixed", nu=2.5)
    process = GaussianProcessRegressor(kernel, alpha=p.sigma**2, optimizer=None).fit(p.x, p.y)
    grid = nodes(field)
    values = np.concatenate([process.predict(grid[i : i + 10000]) for i in range(0, len(grid), 10000)])
    return marching_cubes(values.reshape(field.values.shape), 0.0)[0] * field.step + field.origin - MIDDLE


def gpytorch_exact(p: Problem, field: Field) -> np.ndarray:
    """The same process by GPyTorch, its mean only: same kernel and noise, double precision, Cholesky.

    1,000 nodes at a time: it works out the covariance of the nodes among themselves, asked or not.
    """
    import gpytorch
    import torch

    class Cubic(gpytorch.kernels.Kernel):
        def forward(self, x1, x2, diag=False, **_):
            r = self.covar_dist(x1, x2, diag=diag) / float(p.kernel.R)
            return float(p.kernel.variance) * (1.0 + (2.0 * r - 3.0) * r**2)

    class Process(gpytorch.models.ExactGP):
        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(x.new_zeros(len(x)), Cubic()(x))

    x, y, variance = (torch.from_numpy(np.asarray(a, float)) for a in (p.x, p.y, p.sigma**2))
    process = Process(x, y, gpytorch.likelihoods.FixedNoiseGaussianLikelihood(variance)).eval()
    grid, use = torch.from_numpy(nodes(field)), gpytorch.settings
    exact = use.fast_computations(False, False, False), use.max_cholesky_size(10**6), use.skip_posterior_variances(True)
    with torch.no_grad(), exact[0], exact[1], exact[2]:
        values = torch.cat([process(part).mean for part in torch.split(grid, 1000)]).numpy()
    return marching_cubes(values.reshape(field.values.shape), 0.0)[0] * field.step + field.origin - MIDDLE


def poisson(p: Problem, field: Field) -> np.ndarray:
    """Screened Poisson reconstruction; it is given the true normals, which the others do not need."""
    import pymeshlab

    steps = 1e-4 * np.eye(3)
    slope = np.stack([level(p.points + e) - level(p.points - e) for e in steps], 1)
    meshes = pymeshlab.MeshSet()
    meshes.add_mesh(pymeshlab.Mesh(p.points, v_normals_matrix=slope / np.linalg.norm(slope, axis=1, keepdims=True)))
    meshes.generate_surface_reconstruction_screened_poisson(depth=7)
    del field
    return meshes.current_mesh().vertex_matrix()


def compare(sizes: list[int], grids: list[int], repeats: int) -> None:
    print(
        "| N | cells | jaxmem mean | mean + sigma | SciPy global | SciPy 50 | scikit-learn | GPyTorch | Poisson "
        "| SciPy global / jaxmem |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    kept, errors = {}, []
    for n in sizes:
        p = problem(n)
        for cells in grids:
            mean_surface(p, cells)
            with_sigma(p, cells)
            t_mean, (_, field, vertices) = seconds(functools.partial(mean_surface, p, cells), repeats)
            t_sigma, _ = seconds(functools.partial(with_sigma, p, cells), repeats)
            kept[n, cells] = p, field, t_mean, t_sigma, error(vertices - MIDDLE)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    for library in ("sklearn.gaussian_process", "gpytorch", "pymeshlab"):
        with contextlib.suppress(ImportError):
            importlib.import_module(library)  # so that importing is not timed
    for (n, cells), (p, field, t_mean, t_sigma, ours) in kept.items():
        times, worst = [], [ours]
        for peer in (
            functools.partial(rbf, p, field, None),
            functools.partial(rbf, p, field, 50) if cells <= 64 else None,
            functools.partial(scikit_learn, p, field) if n <= 2000 else None,
            functools.partial(gpytorch_exact, p, field) if n <= 2000 else None,
            functools.partial(poisson, p, field),
        ):
            try:
                t, vertices = seconds(peer, 1, threads=None) if peer else (None, None)
            except ImportError as missing:
                print(f"{missing.name} is not installed: no comparison")
                t, vertices = None, None
            times.append(t)
            worst.append("-" if vertices is None else error(vertices))
        errors.append((n, cells, worst))
        cells_ = ["-" if t is None else f"{t:.2f} s" for t in (t_mean, t_sigma, *times)]
        print(f"| {n} | {cells} | " + " | ".join(cells_) + f" | {times[0] / t_mean:.0f} |", flush=True)
    print(f"\njaxmem's peak memory before any peer ran: {memory:.2f} GiB\n")
    print("| N | cells | jaxmem RMS, worst | SciPy global | SciPy 50 | scikit-learn | GPyTorch | Poisson |")
    print("|---|---|---|---|---|---|---|---|")
    for n, cells, worst in errors:
        print(f"| {n} | {cells} | " + " | ".join(worst) + " |")


def batch() -> None:
    """100 membranes of 500 to 5,000 points: hyperparameters and fit, all at once and one by one."""
    rng = np.random.default_rng(0)
    points, normals = [], []
    for _ in range(100):
        n, size = int(np.exp(rng.uniform(np.log(500), np.log(5000)))), rng.uniform(12, 40)
        u = rng.normal(size=(n, 3))
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        points.append((MIDDLE + size / 40 * radius(u)[:, None] * u + rng.normal(0, NOISE, (n, 3))).astype(np.float32))
        normals.append(u.astype(np.float32))
    shapes = [describe(p, n, (128,) * 3) for p, n in zip(points, normals)]
    config = FitConfig(spacing=2.0, inflation=1.0, least_noise=0.1)

    def together():
        return fit_membranes(points, normals, shapes, [True] * 100, config)

    def alone():
        return [fit_membranes([p], [n], [s], [True], config)[0] for p, n, s in zip(points, normals, shapes)]

    start = time.perf_counter()
    together()
    first = time.perf_counter() - start
    programs = fitting.learn_batch._cache_size() + fitting.solve_batch._cache_size()
    alone()
    t_batch, fitted = seconds(together, 1)
    t_loop, _ = seconds(alone, 1)
    rows = sorted(len(m.posterior.points) for m in fitted if m)
    print(
        f"{len(rows)} of 100 fitted, {rows[0]} to {rows[-1]} padded rows; {programs} programs, {first:.0f} s with compilation"
    )
    print(f"one batch {t_batch:.2f} s, a loop {t_loop:.2f} s: {t_loop / t_batch:.1f} times")

    def measured():
        for m in fitted:
            field = sample(m, 64)
            position_errors(m, triangulate(field)[0], field.step)

    measured()
    print(f"mean surface on 64 cells and sigma at its vertices, one after the other: {seconds(measured, 1)[0]:.2f} s")


def sparse() -> None:
    """Against the exact posterior of 4,000 points: with the amplitude as above, and with what `gp.learn` makes of it."""
    over = jax.jit(gp.map_points, static_argnums=0)
    p = problem(4000)
    u = np.asarray(sphere_directions(1001, 3), float)
    at = jnp.asarray(u * radius(u)[:, None])
    # with few anchors among the rows, zero everywhere is the likeliest function (see `gp.learn`)
    few = np.concatenate([np.arange(0, 4000, 13), np.arange(4000, len(p.x))])
    group = jnp.asarray((p.y[few] != 0).astype(int))
    learnt = gp.learn(p.x[few], p.y[few], noise=p.sigma[few], prior=p.kernel, group=group, floor=jnp.array([0.8 * NOISE, 0.0]), ceiling=jnp.array([1.4, 1.0]), log_sigma=jnp.array([1.5, 1.0, 1.0]))  # fmt: skip
    print("| amplitude | inducing points | mean: RMS, largest difference | sigma over exact sigma: 5 %, median, 95 % |")
    print("|---|---|---|---|")
    for kernel in (p.kernel, learnt.prior.kernel):
        exact = gp.fit(p.x, p.y, noise=p.sigma, prior=kernel)
        mean, variance = over(gp.mean, exact, at), over(gp.variance, exact, at)
        off = gp.means(exact, at) - mean
        for m in (500, 1000, 1500, 2000):
            got = gp.fit_sparse(p.x, p.y, p.x[gp.inducing(jnp.asarray(p.x), m)], noise=p.sigma, prior=kernel)
            difference = over(gp.mean, got, at) - mean
            ratio = np.quantile(np.sqrt(over(gp.variance, got, at) / variance), [0.05, 0.5, 0.95])
            print(
                f"| {float(kernel.variance) ** 0.5:.0f} | {m} | {float(jnp.sqrt((difference**2).mean())):.3f}, "
                f"{float(jnp.abs(difference).max()):.3f} | " + ", ".join(f"{r:.2f}" for r in ratio) + " |",
                flush=True,
            )
        print(
            f"single precision: RMS {float(jnp.sqrt((off**2).mean())):.4f}, largest {float(jnp.abs(off).max()):.4f} voxels"
        )


def growth(sizes: list[int], cells: int, counts: list[int], repeats: int, picture: Path) -> None:
    """Time against the number of points of one membrane, and of `fit_membranes` against that of membranes of 1,000 points."""
    parts = {"fit": solve, "fit, mean surface": mean_surface, "fit, mean surface, sigma": with_sigma}
    print("| N | " + " | ".join(parts) + " |\n|---|---|---|---|")
    one, together = [], []
    for n in sizes:
        p = problem(n)
        calls = [functools.partial(part, p, *[cells] * (part is not solve)) for part in parts.values()]
        calls[-1]()  # compiles all three
        one.append([seconds(call, repeats)[0] for call in calls])
        print(f"| {n} | " + " | ".join(f"{t:.2f} s" for t in one[-1]) + " |", flush=True)

    rng = np.random.default_rng(0)
    u = rng.normal(size=(max(counts), 1000, 3))
    u /= np.linalg.norm(u, axis=2, keepdims=True)
    points = [(MIDDLE + 0.8 * radius(v)[:, None] * v + rng.normal(0, NOISE, v.shape)).astype(np.float32) for v in u]
    normals = list(u.astype(np.float32))
    shapes = [describe(p, v, (128,) * 3) for p, v in zip(points, normals)]
    # at this spacing all points are used, so that all padded sizes are equal
    config = FitConfig(spacing=1.0, inflation=1.0, least_noise=0.1)

    def fit_first(count: int):
        return fit_membranes(points[:count], normals[:count], shapes[:count], [True] * count, config)

    for count in {min(count, 2) for count in counts}:
        fit_first(count)  # one alone has its own programs; two or more share theirs
    print("\n| membranes | fit_membranes | a membrane |\n|---|---|---|")
    for count in counts:
        t, fitted = seconds(functools.partial(fit_first, count), 1)
        together.append(t)
        print(f"| {sum(m is not None for m in fitted)} | {t:.2f} s | {t / count:.2f} s |", flush=True)
    draw_growth(sizes, dict(zip(parts, zip(*one))), counts, together, picture)


def draw_growth(sizes: list[int], one: dict, counts: list[int], together: list[float], picture: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, times in one.items():
        left.loglog(sizes, times, "o-", label=name)
    left.set(title="one membrane", xlabel="points", ylabel="seconds", xticks=sizes, xticklabels=sizes)
    right.loglog(counts, together, "o-", label="fit_membranes, 1,000 points each")
    right.loglog(counts, together[0] / counts[0] * np.array(counts), "k:", label="in proportion")
    right.set(title="many membranes", xlabel="membranes", ylabel="seconds", xticks=counts, xticklabels=counts)
    for axes in (left, right):
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=80)
    print(f"\n{picture}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", nargs="*", type=int)
    parser.add_argument("--cells", nargs="*", type=int, default=[64, 128])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", action="store_true")
    parser.add_argument("--sparse", action="store_true")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--counts", nargs="*", type=int, default=[1, 2, 5, 10, 20, 50, 100])
    parser.add_argument("--picture", type=Path, default=PICTURE)
    args = parser.parse_args()
    with jax.enable_x64(True):
        if args.batch:
            batch()
        elif args.sparse:
            sparse()
        elif args.growth:
            sizes = args.sizes or [250, 500, 1000, 2000, 4000, 8000]
            growth(sizes, args.cells[0], args.counts, args.repeats, args.picture)
        else:
            compare(args.sizes or [1000, 2000, 4000, 8000], args.cells, args.repeats)


if __name__ == "__main__":
    with recorded("gp"):
        main()
