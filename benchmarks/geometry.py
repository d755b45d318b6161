"""Principal curvatures from voxelised hollow masks against analytic shapes: `python benchmarks/geometry.py`.

Spheres (radius 10 and 30 voxels), a cylinder (radius 10), and a torus (25 / 10), three voxels thick, off the grid's centre,
as another tool's segmentation would give them. Each is fitted as `jaxmem fit --instances` fits it; errors of its curvatures are over all
vertices (the cylinder's over those at least 15 voxels from its open ends), relative to the true value, or to 1/50 per voxel where
that is smaller. Coverage counts the vertices whose true value lies within 1.96 of its own error bars.
"""

import argparse
import time

import numpy as np
from record import recorded

from jaxmem import Config, fit_mask
from jaxmem.types import Tomogram


def shell(distance):
    return (np.abs(distance) <= 1.5).astype(np.int8)


def sphere(radius):
    size = int(2 * radius + 16)
    middle = size / 2 + np.array([0.2, -0.3, 0.4])
    grid = np.stack(np.indices((size,) * 3), -1) - middle
    return shell(np.linalg.norm(grid, axis=-1) - radius), middle, lambda p: (np.full(len(p), 1 / radius),) * 2


def cylinder(radius=10.0, length=80):
    middle = np.array([length / 2, radius + 8.3, radius + 7.6])
    grid = np.stack(np.indices((length, 38, 38)), -1) - middle
    return (
        shell(np.linalg.norm(grid[..., 1:], axis=-1) - radius),
        middle,
        lambda p: (np.full(len(p), 1 / radius), np.zeros(len(p))),
    )


def torus(big=25.0, small=10.0):
    middle = np.array([18.2, 42.6, 43.3])
    grid = np.stack(np.indices((36, 86, 86)), -1) - middle
    ring = np.hypot(grid[..., 1], grid[..., 2]) - big

    def truth(p):
        ring = np.hypot(p[:, 1], p[:, 2])
        cos = (ring - big) / np.hypot(ring - big, p[:, 0])
        return np.full(len(p), 1 / small), cos / (big + small * cos)

    return shell(np.hypot(ring, grid[..., 0]) - small), middle, truth


def main() -> None:
    argparse.ArgumentParser().parse_args()
    print(
        "| shape | kappa 1 error | kappa 2 error | in 95 % bars of H, K | area error (sigma) | volume error (sigma) | seconds |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, (mask, middle, truth), area, volume in (
        ("sphere, r = 10", sphere(10.0), 4 * np.pi * 100, 4 / 3 * np.pi * 1000),
        ("sphere, r = 30", sphere(30.0), 4 * np.pi * 900, 4 / 3 * np.pi * 27000),
        ("cylinder, r = 10", cylinder(), None, None),
        ("torus, 25 / 10", torus(), 4 * np.pi**2 * 250, 2 * np.pi**2 * 2500),
    ):
        for _ in range(2):  # the first compiles
            start = time.perf_counter()
            mesh = fit_mask(Tomogram(mask, 10.0), Config(), instances=True).membranes[0].mesh
            seconds = time.perf_counter() - start
        inner = np.abs(mesh.vertices[:, 0] - middle[0]) < 25 if area is None else np.ones(len(mesh.vertices), bool)
        big, small = truth(mesh.vertices - middle)
        mean, gauss = mesh.mean_curvature, mesh.gaussian_curvature
        root = np.sqrt(np.maximum(mean**2 - gauss, 0))
        # the larger curvature belongs to the larger true one
        first, second = (np.abs(mean + root - big) / big)[inner], np.abs(mean - root - small)[inner]
        second = second / np.maximum(np.abs(small[inner]), 0.02)
        bars = [
            (np.abs(value - true) <= 1.96 * sigma)[inner].mean()
            for value, true, sigma in (
                (mean, (big + small) / 2, mesh.mean_curvature_sigma),
                (gauss, big * small, mesh.gaussian_curvature_sigma),
            )
        ]
        extra = ["-", "-"]
        if area is not None:
            extra = [f"{100 * (mesh.area / area - 1):+.2f} % ({100 * mesh.area_sigma / area:.2f} %)"]
            extra += [f"{100 * (mesh.volume / volume - 1):+.2f} % ({100 * mesh.volume_sigma / volume:.2f} %)"]
        cells = [
            f"{100 * first.mean():.1f} %",
            f"{100 * second.mean():.1f} %",
            f"{100 * bars[0]:.0f}, {100 * bars[1]:.0f} %",
        ]
        print(f"| {name} | " + " | ".join([*cells, *extra, f"{seconds:.1f}"]) + " |", flush=True)


if __name__ == "__main__":
    with recorded("geometry"):
        main()
