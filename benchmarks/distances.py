"""Distances and contacts of membranes: `python benchmarks/distances.py [OUT]`.

First masks whose gaps are known: two spheres, two planes, and a sphere within another, 5 to 40 nm apart, three voxels of 10 A thick, fitted by
`jaxmem fit --instances` and measured. Then all pairs of membranes that come within 50 nm of one another in the simulated tomograms of
`thickness.py`. Printed are bias and root mean square of the closest distance and of the mean gap over the contact (30 nm), how many 95 %
intervals hold the truth, and the error of the contact area.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
from record import recorded
from scipy.spatial import cKDTree
from thickness import TOMOGRAMS, add_folder, matched, run_of

from jaxmem.io import read_mrc, write_mrc
from jaxmem.pipeline import fit_file
from jaxmem.pipeline.measuring import measure_run
from jaxmem.types import Tomogram

GAPS = (5.0, 8.0, 12.0, 20.0, 30.0, 40.0)  # nm
CONTACT, REACH = 30.0, 50.0  # nm
VOXEL = 10.0  # A, of the masks


def spheres(gap: float) -> tuple[np.ndarray, float]:
    """Two spheres side by side, and the true area of the first that lies within the contact distance of the second, voxels^2."""
    first, second = 18.0, 14.0
    apart = first + second + gap
    middle = np.array([24.3, 24.6])
    grid = np.stack(np.indices((50, 50, int(apart + 50))), -1).astype(float)
    a = np.linalg.norm(grid - [*middle, 24.2], axis=-1) - first
    b = np.linalg.norm(grid - [*middle, 24.2 + apart], axis=-1) - second
    within = second + CONTACT * 10 / VOXEL
    cosine = np.clip((first**2 + apart**2 - within**2) / (2 * first * apart), -1, 1)
    return np.where(np.abs(a) <= 1.5, 1, np.where(np.abs(b) <= 1.5, 2, 0)), 2 * np.pi * first**2 * (1 - cosine)


def planes(gap: float) -> tuple[np.ndarray, float]:
    """Two parallel planes that lie askew in the volume; all of each is in contact, or nothing."""
    normal = np.array([0.35, 0.2, 1.0]) / np.linalg.norm([0.35, 0.2, 1.0])
    grid = np.stack(np.indices((48, 56, int(gap + 60))), -1).astype(float)
    height = (grid - [24.0, 28.0, 28.3]) @ normal
    return np.where(np.abs(height) <= 1.5, 1, np.where(np.abs(height - gap) <= 1.5, 2, 0)), np.nan


def nested(gap: float) -> tuple[np.ndarray, float]:
    """A sphere within another about the same centre; all of the inner one is in contact, or nothing."""
    inner = 12.0
    size = int(2 * (inner + gap) + 14)
    distance = np.linalg.norm(np.stack(np.indices((size,) * 3), -1) - (size / 2 + 0.2), axis=-1)
    area = 4 * np.pi * inner**2 if gap * VOXEL / 10 <= CONTACT else 0.0
    return np.where(np.abs(distance - inner) <= 1.5, 1, np.where(np.abs(distance - inner - gap) <= 1.5, 2, 0)), area


def rows_of(run: Path) -> list[dict[str, str]]:
    with open(run / "measures" / "pairs.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def of_masks(folder: Path) -> None:
    """Print a row for each shape."""
    for name, shape in (("spheres", spheres), ("planes", planes), ("nested spheres", nested)):
        errors, sigmas, areas = [], [], []
        for gap in GAPS:
            if shape is nested and gap > 20:
                continue  # a mask of 100^3 voxels and more says nothing else
            mask, area = shape(gap * 10 / VOXEL)
            stem = folder / f"{name.replace(' ', '_')}_{gap:.0f}"
            write_mrc(stem.with_suffix(".mrc"), mask.astype(np.int8), Tomogram(mask.astype(np.int8), VOXEL))
            fit_file(stem.with_suffix(".mrc"), stem, instances=True, overwrite=True)
            measure_run(stem, contact=CONTACT, reach=REACH)
            row = rows_of(stem)[0]
            errors.append((float(row["closest_nm"]) - gap) * 10 / VOXEL)
            sigmas.append(float(row["closest_sigma_nm"]) * 10 / VOXEL)
            true = area * (VOXEL / 10) ** 2
            if area > 20:
                # membranes keep the order of the mask's values
                areas.append(float(row["contact_area_nm2"]) / true - 1)
        errors_, sigmas_ = np.array(errors), np.array(sigmas)
        cells = [
            f"{len(errors_)}", f"{errors_.mean():+.2f}", f"{np.sqrt((errors_**2).mean()):.2f}", f"{100 * (np.abs(errors_) < 1.96 * sigmas_).mean():.0f}",
            "-", "-", f"{100 * np.mean(areas):+.1f}, {100 * np.abs(areas).max():.1f}" if areas else "-",
        ]  # fmt: skip
        print(f"| masks: {name} | " + " | ".join(cells) + " |", flush=True)


def of_tomogram(name: str, folder: Path) -> list[str]:
    """Cells of the table for one simulated tomogram."""
    path, stem, truth = run_of(name, folder)
    measure_run(stem, path, contact=CONTACT, reach=REACH)
    like = read_mrc(path)
    true_of = matched(stem, like, truth)
    voxel = like.voxel_size
    closest, gaps = [], []
    for row in rows_of(stem):
        one, other = (true_of.get(int(row[k])) for k in ("first", "second"))
        if one is None or other is None or one == other:
            continue
        true = cKDTree(truth[f"points_{other}"]).query(truth[f"points_{one}"])[0]
        scale = 10 / voxel
        closest.append((float(row["closest_nm"]) * scale - true.min(), float(row["closest_sigma_nm"]) * scale))
        near = true <= CONTACT * scale
        if row["gap_nm"] and near.sum() > 100:
            gaps.append((float(row["gap_nm"]) * scale - true[near].mean(), float(row["gap_sigma_nm"]) * scale))
    cells = [f"{len(closest)}"]
    for some in (closest, gaps):
        error, sigma = np.array(some).reshape(-1, 2).T
        if len(error):
            rms = np.sqrt((error**2).mean())
            cells += [f"{error.mean():+.2f}", f"{rms:.2f}", f"{100 * (np.abs(error) < 1.96 * sigma).mean():.0f}"][
                : 3 if some is closest else 2
            ]
        else:
            cells += ["-"] * (3 if some is closest else 2)
    return [*cells, "-"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folder(parser)
    args = parser.parse_args()
    print(
        "| what | pairs | closest: bias, voxels | RMS | in 95 % bars, % | mean gap: bias | RMS | contact area off, %: mean, most |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        of_masks(folder)
        for name in TOMOGRAMS:
            print(f"| {name} | " + " | ".join(of_tomogram(name, folder)) + " |", flush=True)


if __name__ == "__main__":
    with recorded("distances"):
        main()
