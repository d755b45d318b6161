"""Thickness of membranes whose leaflets lie at known distances: `python benchmarks/thickness.py [OUT]`.

Six simulated tomograms of vesicles, in each of which every membrane has one of three leaflet distances 3 A apart. They are segmented and
measured as `jaxmem segment` and `jaxmem measure` do it. Printed for each: bias and root mean square of the membranes' thickness, how many of
their 95 % intervals hold the truth, the share of pairs of membranes of different thickness whose order is right, and the share of the area where
it is measured. Nothing here was used to choose a setting.
"""

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np
from kinds import Kind, body, make
from record import recorded
from scenes import Scene
from scipy.spatial import cKDTree

from jaxmem.io import read_mrc, read_ply, write_mrc
from jaxmem.pipeline import segment_file
from jaxmem.pipeline.measuring import measure_run
from jaxmem.simulate import Microscope
from jaxmem.types import Tomogram


def vesicles(distances: tuple[float, float, float]):
    """Fills a scene with bodies whose leaflets lie at one of some distances (A), in turn."""

    def fill(scene: Scene) -> None:
        scale = min(14.0 / scene.voxel_size, 1.2)
        scene.scatter(lambda: body(scene, scale * scene.rng.uniform(14, 28), 0.05), 60)
        scene.stud(0.3 / scale, 30.0)
        scene.dissolve(300, (30.0, 60.0))
        scene.leaflets = {k: 0.5 * distances[k % 3] for k in range(len(scene.surfaces))}

    return fill


TOMOGRAMS = {
    "8 A, SNR 0.1, flipped": ((28.0, 31.0, 34.0), Kind(51, 8.0, Microscope(defocus=30000.0, snr=0.1, b_factor=900.0, phase_flipped=True), None)),
    "10 A, SNR 0.3": ((39.0, 42.0, 45.0), Kind(52, 10.0, Microscope(step=2.0, defocus=40000.0, snr=0.3, b_factor=1200.0), None)),
    "13 A, SNR 0.02": ((34.0, 37.0, 40.0), Kind(53, 13.0, Microscope(step=2.0, defocus=30000.0, snr=0.02, b_factor=1800.0), None)),
    "12 A, SNR 0.06, SIRT-like": ((36.0, 39.0, 42.0), Kind(54, 12.0, Microscope(
        tilt_low=-54.0, tilt_high=60.0, defocus=25000.0, snr=0.06, filter="sirt", b_factor=1500.0), None)),
    "14 A, SNR 0.1": ((32.0, 35.0, 38.0), Kind(55, 14.0, Microscope(defocus=50000.0, snr=0.1, filter="hamming", cutoff=0.5, b_factor=2000.0), None)),
    "16 A, SNR 0.2, flipped": ((38.0, 41.0, 44.0), Kind(56, 16.0, Microscope(
        tilt_low=-66.0, tilt_high=66.0, defocus=60000.0, snr=0.2, b_factor=3000.0, phase_flipped=True), None)),
}  # fmt: skip


def matched(run: Path, like: Tomogram, truth: dict[str, np.ndarray]) -> dict[int, int]:
    """The true membrane of each surface: whose points lie nearest to most of its vertices, half a voxel's width apart at most."""
    numbers = sorted(int(name.split("_")[1]) for name in truth if name.startswith("points_"))
    owner = np.concatenate([np.full(len(truth[f"points_{n}"]), n) for n in numbers])
    tree = cKDTree(np.concatenate([truth[f"points_{n}"] for n in numbers]))
    found = {}
    for path in sorted((run / "surfaces").glob("membrane_*.ply")):
        gap, near = tree.query(like.to_voxels(read_ply(path)[0]))
        votes = np.bincount(owner[near[gap < 2.0]], minlength=max(numbers) + 1)
        if votes.max() > 0.5 * len(gap):
            found[int(path.stem.split("_")[1])] = int(votes.argmax())
    return found


def files_of(name: str, folder: Path) -> tuple[Path, Path]:
    """The files of a tomogram and of its run."""
    run = folder / "".join(c if c.isalnum() else "_" for c in name)
    return run.with_suffix(".mrc"), run


def run_of(name: str, folder: Path) -> tuple[Path, Path, dict[str, np.ndarray]]:
    """One of the tomograms, its run, which is made if it is not there, and the truth."""
    distances, kind = TOMOGRAMS[name]
    path, run = files_of(name, folder)
    grey, _, truth = make(kind._replace(fill=vesicles(distances)))
    write_mrc(path, grey, Tomogram(grey, kind.voxel_size))
    if not (run / "manifest.json").exists():
        segment_file(path, run)
    return path, run, truth


def add_folder(parser: argparse.ArgumentParser) -> None:
    """The argument that says where tomograms and runs lie."""
    what = "where tomograms and runs are kept; a temporary folder when left out"
    parser.add_argument("out", type=Path, nargs="?", metavar="OUT", help=what)


def one(name: str, folder: Path) -> list[str]:
    """Cells of the table for one tomogram."""
    path, run, truth = run_of(name, folder)
    start = time.perf_counter()
    measure_run(run, path)
    seconds = time.perf_counter() - start
    true_of = matched(run, read_mrc(path), truth)
    with open(run / "measures" / "membranes.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["thickness_nm"] and int(row["membrane"]) in true_of]
    # surfaces keep their order in the scene; those outside the tomogram have no number
    value, sigma = (np.array([10.0 * float(row[k]) for row in rows]) for k in ("thickness_nm", "thickness_sigma_nm"))
    true = np.array([float(truth["leaflets"][true_of[int(row["membrane"])] - 1]) for row in rows])
    if not len(rows):
        return [f"{len(true_of)}, 0", *6 * ["-"]]
    error = value - true
    i, j = np.triu_indices(len(true), 1)
    differ = true[i] != true[j]
    right = (np.sign(value[i] - value[j]) == np.sign(true[i] - true[j]))[differ]
    held = np.abs(error) <= 1.96 * sigma
    share = np.mean([float(row["thickness_share"]) for row in rows])
    return [
        f"{len(true_of)}, {len(rows)}", f"{error.mean():+.2f}", f"{np.sqrt((error**2).mean()):.2f}", f"{100 * held.mean():.0f}",
        f"{100 * right.mean():.0f} of {len(right)}", f"{100 * share:.0f}", f"{seconds:.1f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folder(parser)
    args = parser.parse_args()
    print(
        "| tomogram | membranes found, measured | bias, A | RMS, A | in 95 % bars, % | ordered right, % of pairs | area measured, % | seconds |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in TOMOGRAMS:
            print(f"| {name} | " + " | ".join(one(name, folder)) + " |", flush=True)


if __name__ == "__main__":
    with recorded("thickness"):
        main()
