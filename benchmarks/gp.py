"""Implicit surface of N noisy points beside SciPy's global cubic RBF, in one run: `python benchmarks/gp.py [N ...]`.

Points on a bumpy closed surface of mean radius 40 voxels with 0.3 voxel of noise, anchors by rays, and the function on the
same grid of 64 cells along the longest side; jaxmem also makes the mesh with error bars and curvatures. Medians of
`--repeats` runs after one that compiles; errors are those of the mesh's vertices along the ray, in voxels.
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from scipy.interpolate import RBFInterpolator
from skimage.measure import marching_cubes

from jaxmem import anchors, gp
from jaxmem.surface import FitConfig, Membrane, extract
from jaxmem.surface.mesh import sample

CELLS, NOISE = 64, 0.3
MIDDLE = np.full(3, 64.0)


def radius(u):
    return 40 * (1 + 0.08 * np.sin(6 * u[:, 0]) + 0.06 * np.cos(4 * u[:, 1] + 1) + 0.05 * u[:, 2] ** 3)


def problem(n: int):
    rng = np.random.default_rng(0)
    u = np.asarray(anchors.sphere_directions(n, 3), float)
    points = u * radius(u)[:, None] + rng.normal(0, NOISE, (n, 3))
    extra = anchors.by_rays(jnp.asarray(points[:: max(1, n // 100)]), jnp.zeros(3))
    x = np.concatenate([points, np.asarray(extra.points)])
    y = np.concatenate([np.zeros(n), np.asarray(extra.values)])
    return points, x, y, np.concatenate([np.full(n, NOISE), np.asarray(extra.sigma)])


def error(vertices) -> tuple[float, float]:
    length = np.linalg.norm(vertices, axis=1)
    off = length - radius(vertices / length[:, None])
    return float(np.sqrt((off**2).mean())), float(np.abs(off).max())


def seconds(function, repeats: int):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return float(np.median(times)), result


fit = jax.jit(gp.fit)


def solve(kernel, x, y, sigma, points, box) -> Membrane:
    posterior = jax.block_until_ready(fit(kernel, x, y, sigma))
    return Membrane(posterior, MIDDLE, points, *box, True, NOISE)


def scipy_grid(x, y, sigma, kernel, nodes):
    # its smoothing is the noise over the kernel's scale: here 2 k(0) / R^3 multiplies r^3
    smoothing = sigma**2 / (2 * float(kernel.variance) / float(kernel.R) ** 3)
    return RBFInterpolator(x, y, kernel="cubic", smoothing=smoothing)(nodes)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sizes", nargs="*", type=int, default=[1000, 2000, 4000])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(
        "| N | jaxmem fit | + grid | + mesh, error bars, curvature | SciPy fit + grid | SciPy / jaxmem, grid | RMS, worst | SciPy |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with jax.enable_x64(True):
        for n in args.sizes:
            points, x, y, sigma = problem(n)
            low, high = x.min(0) - 1.0, x.max(0) + 1.0
            corners = np.stack(np.meshgrid(*np.stack([low, high], 1), indexing="ij"), -1).reshape(-1, 3)
            R = gp.valid_radius(gp.Cubic, np.concatenate([x, corners]))
            kernel = gp.Cubic(jnp.array(float((x**2).sum(1).max())), jnp.array(R))

            box = low + MIDDLE, high + MIDDLE
            fitted = functools.partial(solve, kernel, x, y, sigma, points + MIDDLE, box)
            membrane = fitted()
            field = sample(membrane, CELLS)
            extract(membrane, (128, 128, 128), FitConfig())
            t_fit, membrane = seconds(fitted, args.repeats)
            t_grid, field = seconds(functools.partial(sample, membrane, CELLS), args.repeats)
            t_mesh, found = seconds(functools.partial(extract, membrane, (128, 128, 128), FitConfig()), args.repeats)
            if found is None:
                raise SystemExit(f"N = {n}: no surface")
            ours = error(found[0].vertices - MIDDLE)
            axes = [field.origin[a] - MIDDLE[a] + field.step * np.arange(c) for a, c in enumerate(field.values.shape)]
            nodes = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)

            t_scipy, values = seconds(functools.partial(scipy_grid, x, y, sigma, kernel, nodes), 1)
            vertices = marching_cubes(values.reshape(field.values.shape), 0.0)[0] * field.step + field.origin - MIDDLE
            theirs = error(vertices)
            print(
                f"| {n} | {t_fit:.2f} s | {t_fit + t_grid:.2f} s | {t_fit + t_mesh:.2f} s | {t_scipy:.1f} s | "
                f"{t_scipy / (t_fit + t_grid):.0f} | {ours[0]:.2f}, {ours[1]:.2f} | {theirs[0]:.2f}, {theirs[1]:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
