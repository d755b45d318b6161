"""Proteins on membranes, found and placed: `python benchmarks/proteins.py DATA [OUT]`.

On three tomograms of `shared/data` whose protein heads are given as masks, and on four of another simulator whose heads, 80 to 110 A wide, are known.
They are segmented and measured as `jaxmem segment` and `jaxmem measure` do it. Counted are heads that stand on membranes that were found, and
particles that `measure` says stand on a membrane; the two match if their centres are within 50 A of each other. Printed are recall and precision, the
distance between a head's true foot and the measured one, the angle between the normals there, and how many are on the right side.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
from kinds import Kind, bodies, make, put_sheet
from record import recorded
from scenes import Scene
from scipy import ndimage
from scipy.spatial import cKDTree
from thickness import add_folder, files_of, matched

from jaxmem.io import read_mrc, write_mrc
from jaxmem.pipeline import segment_file
from jaxmem.pipeline.measuring import measure_run
from jaxmem.simulate import Microscope
from jaxmem.types import Tomogram

NEAR = 50.0  # A
FOOT = 200.0  # A; heads farther from every membrane stand on none


def studded(size: float, sheet: bool):
    """Fills a scene with bodies that carry heads of so many A, and with free particles."""

    def fill(scene: Scene) -> None:
        scale = 14.0 / scene.voxel_size
        if sheet:
            put_sheet(scene, 1.3)
        scene.scatter(bodies(scene, 14 * scale, 26 * scale), 40)
        scene.stud(0.15 / scale**2, size)
        scene.heads = scene.blobs.copy()
        scene.dissolve(150, (40.0, 70.0), 120.0)

    return fill


KINDS = {
    "10 A, SNR 0.2": (studded(55.0, False), Kind(61, 10.0, Microscope(defocus=30000.0, snr=0.2, b_factor=1200.0, phase_flipped=True), None)),
    "12 A, SNR 0.1": (studded(60.0, False), Kind(62, 12.0, Microscope(step=2.0, defocus=40000.0, snr=0.1, b_factor=1500.0), None)),
    "14 A, SNR 0.06": (studded(60.0, True), Kind(63, 14.0, Microscope(step=2.0, defocus=50000.0, snr=0.06, b_factor=2000.0), None, True)),
    "14 A, SNR 0.1, SIRT-like": (studded(65.0, False), Kind(64, 14.0, Microscope(
        tilt_low=-54.0, tilt_high=60.0, defocus=35000.0, snr=0.1, filter="sirt", b_factor=2000.0), None)),
}  # fmt: skip


def heads_of_mask(path: Path, voxel_size: float) -> np.ndarray:
    """Centres of the pieces of a mask that are large enough for a head of 80 A to be one, or nearly."""
    piece, _ = ndimage.label(np.asarray(read_mrc(path, labels=True).data) > 0, np.ones((3, 3, 3)))
    size = np.bincount(piece.ravel())[1:]
    large = 1 + np.flatnonzero(size * voxel_size**3 > 0.8 * np.pi / 6 * 80.0**3)
    return np.array(ndimage.center_of_mass(piece > 0, piece, large))


def one(path: Path, run: Path, truth: dict[str, np.ndarray], heads: np.ndarray) -> list[str]:
    """Cells of the table for one tomogram."""
    if not (run / "manifest.json").exists():
        segment_file(path, run)
    like = read_mrc(path)
    size = like.voxel_size
    measure_run(run, path)
    true_of = matched(run, like, truth)
    found = sorted(set(true_of.values()))
    points = np.concatenate([truth[f"points_{n}"] for n in found])
    normals = np.concatenate([truth[f"normals_{n}"] for n in found])
    gap, foot = cKDTree(points).query(heads)
    heads, foot = heads[gap * size < FOOT], foot[gap * size < FOOT]
    with open(run / "measures" / "particles.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["membrane"]]
    place = like.to_voxels(np.array([[float(row[f"{a}_A"]) for a in "xyz"] for row in rows]))
    near, of = cKDTree(place).query(heads)
    hit = near * size < NEAR
    right = cKDTree(heads).query(place)[0] * size < NEAR
    mine = [rows[k] for k in of[hit]]
    feet = like.to_voxels(np.array([[float(row[f"foot_{a}_A"]) for a in "xyz"] for row in mine]))
    away = np.linalg.norm(feet - points[foot[hit]], axis=1)
    ways = np.array([[float(row[f"normal_{a}"]) for a in "zyx"] for row in mine])
    true_way = normals[foot[hit]]
    angle = np.degrees(np.arccos(np.abs((ways * true_way).sum(1)).clip(0, 1)))
    side = ((heads[hit] - points[foot[hit]]) * true_way).sum(1)
    said = np.array([float(row["distance_nm"]) for row in mine]) * np.sign((ways * true_way).sum(1))
    return [
        f"{len(heads)}", f"{100 * hit.mean():.0f}", f"{100 * right.mean():.0f}",
        f"{np.median(away):.2f}, {np.percentile(away, 90):.2f}", f"{np.median(angle):.1f}, {np.percentile(angle, 90):.1f}",
        f"{100 * (np.sign(side) == np.sign(said)).mean():.0f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA", help="folder shared/data")
    add_folder(parser)
    args = parser.parse_args()
    print(
        "| tomogram | heads | recall, % | precision, % | foot off, voxels: median, 90 % | normal off, degrees: median, 90 % | right side, % |"
    )
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("phantom", "clear_public", "cell_public"):
            path = next(
                args.data / f"{name}{end}" for end in (".mrc", ".mrc.gz") if (args.data / f"{name}{end}").exists()
            )
            with np.load(args.data / f"{name}_truth.npz") as file:
                truth = dict(file)
            heads = heads_of_mask(args.data / f"{name}_proteins.mrc.gz", read_mrc(path).voxel_size)
            print(f"| {name} | " + " | ".join(one(path, folder / name, truth, heads)) + " |", flush=True)
        for name, (fill, kind) in KINDS.items():
            path, stem = files_of(name, folder)
            grey, truth, heads = made(kind, fill)
            write_mrc(path, grey, Tomogram(grey, kind.voxel_size))
            print(f"| {name} | " + " | ".join(one(path, stem, truth, heads)) + " |", flush=True)


def made(kind: Kind, fill) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """A tomogram, its truth, and the heads' centres within it."""
    scenes: list[Scene] = []

    def filled(scene: Scene) -> None:
        fill(scene)
        scenes.append(scene)

    grey, _, truth = make(kind._replace(fill=filled))
    centres = np.array([blob.centre for blob in scenes[0].heads])
    return grey, truth, centres[scenes[0].within(centres)]


if __name__ == "__main__":
    with recorded("proteins"):
        main()
