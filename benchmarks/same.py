"""How far apart the surfaces of two runs of one tomogram are: `python benchmarks/same.py RUN OTHER`.

Each vertex of the first run is held against the plane of the nearest vertex of the membrane of the same number in the other.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from jaxmem.io import read_mrc, read_ply


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("other", type=Path)
    args = parser.parse_args()
    labels = [read_mrc(run / "labels.mrc") for run in (args.run, args.other)]
    print("| membrane | RMS, voxels | largest, voxels |\n|---|---|---|")
    for path in sorted((args.run / "surfaces").glob("*.ply")):
        here, (vertices, _, values) = read_ply(path)[0], read_ply(args.other / "surfaces" / path.name)
        near = cKDTree(vertices).query(here)[1]
        normals = np.stack([values[f"n{axis}"] for axis in "xyz"], 1)[near]
        away = np.abs(((here - vertices[near]) * normals).sum(1)) / labels[0].voxel_size
        print(f"| {path.stem.split('_')[1]} | {np.sqrt((away**2).mean()):.4f} | {away.max():.3f} |")
    one, other = (np.asarray(volume.data) for volume in labels)
    both = ((one == other) & (one > 0)).sum()
    print(f"\nDice coefficient of the labels: {2 * both / ((one > 0).sum() + (other > 0).sum()):.4f}")


if __name__ == "__main__":
    main()
