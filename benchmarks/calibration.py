"""How often the error bars hold, on simulated membranes: `python benchmarks/calibration.py [--cases N] [--seed S]`.

Each case draws a shape (ellipsoid, bumpy closed surface, torus, folded sheet), cuts caps as the missing wedge does, removes
patches, and adds noise and spurious points. A surface is fitted, and every vertex whose true distance from the surface is
within k standard deviations counts as covered: 68.3 % should be for k = 1, 95.4 % for k = 2 (1.96 gives 95). The inferred part,
where no point lies within three voxels, is counted by itself. Each case counts alike. Points are independent here, so
that the settings are those for masks, not the defaults for a network: inflation 1, least noise 0.1, spacing 3.
"""

import argparse
import time
from typing import NamedTuple

import numpy as np
from record import recorded
from scipy.spatial import cKDTree

from jaxmem.grouping import describe
from jaxmem.settings import FitConfig
from jaxmem.surface import extract, fit_membranes

SHAPE, MIDDLE = (128, 128, 128), np.full(3, 64.0)


class Truth(NamedTuple):
    """A surface: points on it with unit normals, evenly dense, and whether rays from the centre serve it."""

    points: np.ndarray
    normals: np.ndarray
    closed: bool


def star(radius, n=60000):
    """Points evenly spread on the surface |x| = radius(x / |x|) and their outward normals."""
    rng = np.random.default_rng(0)
    u = rng.normal(size=(n, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    r, step = radius(u), 1e-4

    def level(x):
        length = np.linalg.norm(x, axis=1)
        return length - radius(x / length[:, None])

    x = u * r[:, None]
    slope = np.stack([(level(x + step * e) - level(x - step * e)) / (2 * step) for e in np.eye(3)], 1)
    normal = slope / np.linalg.norm(slope, axis=1, keepdims=True)
    density = r**2 / np.abs((normal * u).sum(1))  # area that a direction stands for
    kept = rng.uniform(size=n) < density / density.max()
    return Truth(x[kept] + MIDDLE, normal[kept], True)


def draw_shape(rng: np.random.Generator) -> tuple[str, Truth]:
    kind = rng.choice(["ellipsoid", "bumpy", "torus", "sheet"], p=[0.4, 0.3, 0.15, 0.15])
    if kind == "ellipsoid":
        axes = rng.uniform(14, 34) * np.array([1.0, rng.uniform(0.6, 1), rng.uniform(0.6, 1)])
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        return kind, star(lambda u: 1 / np.linalg.norm((u @ turn) / axes, axis=1))
    if kind == "bumpy":
        size, waves = rng.uniform(18, 32), rng.normal(size=(6, 3)) * 1.6
        phase, height = rng.uniform(0, 6.28, 6), rng.normal(0, 0.035, 6)
        return kind, star(lambda u: size * (1 + (height * np.sin(u @ waves.T + phase)).sum(1)))
    if kind == "torus":
        big, small = rng.uniform(22, 30), rng.uniform(8, 11)
        a, b = rng.uniform(0, 2 * np.pi, (2, 60000))
        kept = rng.uniform(size=60000) < (big + small * np.cos(b)) / (big + small)
        ring = np.stack([0 * a, np.sin(a), np.cos(a)], 1)
        normal = ring * np.cos(b)[:, None] + np.stack([np.sin(b), 0 * b, 0 * b], 1)
        points = MIDDLE + big * ring + small * normal
        return kind, Truth(points[kept], normal[kept], False)
    side, height, wave = rng.uniform(40, 70), rng.uniform(2, 8), rng.uniform(40, 90)
    yx = rng.uniform(-side / 2, side / 2, (30000, 2))
    turn = rng.uniform(0, 6.28)
    along = yx @ np.array([np.sin(turn), np.cos(turn)]) * 2 * np.pi / wave
    slope = (height * 2 * np.pi / wave * np.cos(along))[:, None] * np.array([np.sin(turn), np.cos(turn)])
    normal = np.concatenate([np.ones((len(yx), 1)), -slope], 1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return kind, Truth(np.c_[height * np.sin(along), yx] + MIDDLE, normal, False)


class Case(NamedTuple):
    name: str
    truth: Truth
    points: np.ndarray
    normals: np.ndarray
    noise: float


def draw_case(rng: np.random.Generator) -> Case:
    kind, truth = draw_shape(rng)
    noise, spurious, gaps = rng.uniform(0.3, 1.5), rng.choice([0.0, 0.02, 0.05]), rng.choice([0.0, 0.3, 0.6])
    cap = rng.choice([0.5, 0.7, 0.85, 1.0]) if kind in ("ellipsoid", "bumpy") else 1.0
    area = 4 * np.pi * np.ptp(truth.points, axis=0).mean() ** 2 / 4 if kind != "sheet" else 60**2
    take = rng.permutation(len(truth.points))[: int(area * 0.8)]
    points, normals = truth.points[take], truth.normals[take]
    height = np.abs(points[:, 0] - MIDDLE[0])
    kept = height <= cap * height.max() if cap < 1 else np.ones(len(points), bool)
    reach = 0.25 * np.ptp(points, axis=0).max()
    while kept.sum() > (1 - gaps) * len(points) * (1 if cap == 1 else cap):
        kept &= np.linalg.norm(points - points[rng.integers(len(points))], axis=1) > rng.uniform(0.3, 1) * reach
    points, normals = points[kept], normals[kept]
    points = points + normals * rng.normal(0, noise, (len(points), 1))
    normals = normals + rng.normal(0, 0.15, normals.shape)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) * rng.choice([-1, 1], (len(points), 1))
    stray = rng.uniform(size=len(points)) < spurious
    points[stray] += normals[stray] * rng.uniform(-10, 10, (stray.sum(), 1))
    name = f"{kind} cap {cap} gaps {gaps} noise {noise:.1f} spurious {spurious}"
    return Case(name, truth, points.astype(np.float32), normals.astype(np.float32), noise)


def signed_error(truth: Truth, vertices: np.ndarray) -> np.ndarray:
    """Distance along the true normal, from the plane through the nearest of many true points."""
    near = cKDTree(truth.points).query(vertices, workers=-1)[1]
    return ((vertices - truth.points[near]) * truth.normals[near]).sum(1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    config = FitConfig(spacing=3.0, inflation=1.0, least_noise=0.1, inducing=1024)
    rows, start, lost = [], time.perf_counter(), 0
    for i in range(args.cases):
        case = draw_case(np.random.default_rng((args.seed, i)))
        shape = describe(case.points, case.normals, SHAPE)
        membrane = fit_membranes([case.points], [case.normals], [shape], [case.truth.closed], config)[0]
        found = extract(membrane, SHAPE, config) if membrane else None
        if found is None:
            lost += 1
            continue
        mesh = found[0]
        # what lies beyond an open surface's points has no truth
        known = np.ones(len(mesh.vertices), bool)
        if "sheet" in case.name:
            known = cKDTree(case.truth.points[:, 1:]).query(mesh.vertices[:, 1:])[0] < 1.5
        error, sigma, seen = (a[known] for a in (signed_error(case.truth, mesh.vertices), mesh.sigma, mesh.seen))
        z = np.abs(error) / sigma
        rows.append((case.name.split()[0], z, seen, error, sigma, membrane.noise / case.noise))
        if args.verbose:
            part = [f"{100 * (z[s] < k).mean():3.0f}" if s.any() else "  -" for s in (seen, ~seen) for k in (1, 1.96)]
            size = [
                f"{np.sqrt((error[s] ** 2).mean()):.2f}/{sigma[s].mean():.2f}" if s.any() else "-"
                for s in (seen, ~seen)
            ]
            print(
                f"{i:3d} {case.name:58s} seen {part[0]} {part[1]} inferred {part[2]} {part[3]} rms/sigma {size} noise x{rows[-1][-1]:.2f}",
                flush=True,
            )
    print(
        f"{args.cases} cases in {time.perf_counter() - start:.0f} s, {lost} without a surface; learnt / true noise {np.median([r[-1] for r in rows]):.2f}"
    )
    print("| shapes | part | within 1 sigma | within 1.96 sigma | RMS error | mean sigma |")
    print("|---|---|---|---|---|---|")
    for kind in ("all", "ellipsoid", "bumpy", "torus", "sheet"):
        some = [r for r in rows if kind in ("all", r[0])]
        for part in ("whole", "seen", "inferred"):
            z, e, s = [], [], []
            for r in some:
                choose = {"whole": np.ones(len(r[1]), bool), "seen": r[2], "inferred": ~r[2]}[part]
                if choose.sum() >= 20:
                    z.append([(r[1][choose] < k).mean() for k in (1, 1.96)])
                    e.append((r[3][choose] ** 2).mean())
                    s.append(r[4][choose].mean())
            if z:
                share = 100 * np.mean(z, 0)
                print(
                    f"| {kind} | {part} ({len(z)}) | {share[0]:.0f} % | {share[1]:.0f} % | {np.sqrt(np.mean(e)):.2f} | {np.mean(s):.2f} |"
                )


if __name__ == "__main__":
    with recorded("calibration"):
        main()
