"""Surfaces of real membranes where they were not shown: `python benchmarks/heldout.py [--data FOLDER]`.

Of each labelled membrane, 30 % of the midline's points are held out, in contiguous patches (balls of a twentieth of its extent, at
least 6 voxels). A surface is fitted to the rest; the error is the distance of the held-out points from it, and "in 95 %" the
share within 1.96 of its standard deviations (the points' own noise included), both of those that an open surface reaches before it
ends: it comes within 5 voxels of "reached" of them.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from record import recorded
from scipy.spatial import cKDTree

from jaxmem.grouping import describe, is_closed, midline
from jaxmem.io import as_instances, read_mrc
from jaxmem.metrics import distance_to_surface
from jaxmem.pipeline.masks import band_thickness
from jaxmem.settings import FitConfig, SelectConfig
from jaxmem.surface import extract, fit_membranes

NAMES = ("AP_autophagosome", "Phagophore", "t74_vesicle3", "thylakoid_T1S2M15", "thylakoid_T1S4M8")


def hold_out(points: np.ndarray, rng: np.random.Generator, share: float = 0.3) -> np.ndarray:
    """True for points in patches around random ones, until so many are in them."""
    held, radius = np.zeros(len(points), bool), max(6.0, 0.05 * np.linalg.norm(np.ptp(points, axis=0)))
    while held.mean() < share:
        held |= np.linalg.norm(points - points[rng.integers(len(points))], axis=1) < radius
    return held


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    args = parser.parse_args()
    config = FitConfig(inflation=1.0, least_noise=0.3, max_sigma=5.0, inducing=1024)
    print("| membrane | closed | points | held out | median error | 90 % | reached | in 95 % | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in NAMES:
        data = as_instances(read_mrc(args.data / f"{name}.mrc.gz", labels=True).data, name)
        sigma = float(np.clip(0.45 * band_thickness(data != 0), 0.8, 4.0))
        for value in np.unique(data[data > 0]):
            line = midline((data == value).astype(np.float32), sigma, 0.3)
            if len(line.points) < 300:
                continue
            held = hold_out(line.points, np.random.default_rng(0))
            points, normals = line.points[~held], line.normals[~held]
            start = time.perf_counter()
            shape = describe(points, normals, data.shape)
            closed = is_closed(shape, SelectConfig())
            membrane = fit_membranes([points], [normals], [shape], [closed], config)[0]
            found = extract(membrane, data.shape, config) if membrane else None
            seconds = time.perf_counter() - start
            if found is None:
                print(
                    f"| {name} {value} | - | {len(points)} | {held.sum()} | no surface | | | | {seconds:.0f} |",
                    flush=True,
                )
                continue
            mesh, _ = found
            gap, near = cKDTree(mesh.vertices).query(line.points[held])
            # an open surface ends where it is known no better than max_sigma: what lies beyond has no error
            reached = gap < 5.0
            error = distance_to_surface(line.points[held][reached], mesh.vertices, mesh.normals)
            bound = 1.96 * np.hypot(mesh.sigma[near[reached]], membrane.noise)
            row = [f"{np.median(error):.2f}", f"{np.quantile(error, 0.9):.2f}", f"{100 * reached.mean():.0f} %"]
            row += [f"{100 * (error <= bound).mean():.0f} %", f"{seconds:.0f}"]
            print(
                f"| {name} {value} | {'yes' if closed else 'no'} | {len(points)} | {held.sum()} | "
                + " | ".join(row)
                + " |",
                flush=True,
            )


if __name__ == "__main__":
    with recorded("heldout"):
        main()
