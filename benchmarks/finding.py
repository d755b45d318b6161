"""What the network finds: `python benchmarks/finding.py KINDS [--data FOLDER] [--weights FILE] [--only NAME]`.

KINDS is the folder that `benchmarks/kinds.py` has filled; FOLDER holds the given data (`shared/data` beside the repository when left out).
Each tomogram is looked at by both of the package's networks, or by the one of FILE. Tomograms with a truth: Dice of each slice, precision within two voxels, and the share of true points within two voxels of what was found, by
the angle between the membrane's normal and the beam. Real slices with another network's mask: Dice, precision and recall within two pixels.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from record import recorded
from scipy import ndimage

from jaxmem import Config, Tomogram
from jaxmem.io import read_mrc
from jaxmem.metrics import dice, slice_dice
from jaxmem.pipeline.files import read_truth
from jaxmem.pipeline.keeping.record import Run
from jaxmem.pipeline.network import predict
from jaxmem.types import MEMBRANE

NEAR = 2.0  # voxels
BANDS = ((0, 30), (30, 60), (60, 90))
CHLAMY = 7.64  # A, of the slice of the alga


def found_by(config: Config, tomogram: Tomogram) -> tuple[np.ndarray, float]:
    """Where the network says membrane, and seconds, without compilation."""
    if len(tomogram.data) > 8:
        predict(tomogram._replace(data=tomogram.data[:8]), config, Run(None))
    start = time.perf_counter()
    prediction = predict(tomogram, config, Run(None))
    return np.asarray(prediction.semantic) == MEMBRANE, time.perf_counter() - start


def near(mask: np.ndarray) -> np.ndarray:
    """Voxels within two of a mask."""
    return ndimage.distance_transform_edt(~mask) <= NEAR if mask.any() else mask


def row(name: str, sees: str, config: Config, tomogram: Tomogram, truth: list[Path]) -> str:
    """One line of the table of tomograms."""
    labels, points = read_truth(truth)
    mask, seconds = found_by(config, tomogram)
    of_slices = slice_dice(mask, labels > 0)[(labels > 0).any((1, 2))]
    precision = near(labels > 0)[mask].mean() if mask.any() else 1.0
    reached = near(mask)
    where, normals = (np.concatenate([p[i] for p in (points or {}).values()]) for i in (0, 1))
    index = tuple(np.clip(np.round(where).astype(int), 0, np.array(mask.shape) - 1).T)
    angle = np.degrees(np.arccos(np.clip(np.abs(normals[:, 0]), 0, 1)))
    shares = [reached[index][(angle >= low) & (angle <= high)] for low, high in BANDS]
    cells = [f"{share.mean():.2f}" if len(share) else "-" for share in shares]
    return f"| {name} | {sees} | {of_slices.mean():.3f} | {precision:.3f} | {' | '.join(cells)} | {seconds:.1f} |"


def tomograms(args: argparse.Namespace, config: Config) -> None:
    """The table of tomograms with a truth."""
    print(
        "| tomogram | sees | slice Dice | precision | found below 30 | 30 to 60 | above 60 degrees | s |\n|---|---|---|---|---|---|---|---|"
    )
    package = Path(__file__).resolve().parents[1] / "jaxmem" / "data"
    given = {"phantom": (package / "phantom.mrc.gz", package)}
    given |= {name: (args.data / f"{name}.mrc.gz", args.data) for name in ("clear_public", "cell_public")}
    given |= {
        path.name.removesuffix(".mrc.gz"): (path, args.kinds) for path in sorted(args.kinds.glob("*[0-9]A.mrc.gz"))
    }
    for name, (path, folder) in given.items():
        if args.only in (None, name) and path.exists():
            truth = [folder / f"{name}_labels.mrc.gz", folder / f"{name}_truth.npz"]
            for sees in ("slice", "depth") if not config.network.weights else ("its weights",):
                chosen = (
                    config if config.network.weights else replace(config, network=replace(config.network, sees=sees))
                )
                print(row(name, sees, chosen, read_mrc(path), truth), flush=True)


def real(data: Path, config: Config) -> None:
    """The table of the alga's slice against a published network's mask."""
    folder = data / "real"
    if not (folder / "chlamy_tomo24_raw.mrc.gz").exists():
        return
    mask = np.asarray(read_mrc(folder / "chlamy_tomo24_membrain_mask.mrc.gz", CHLAMY, labels=True).data).squeeze() > 0
    print("\n| real slice | Dice | precision | recall |\n|---|---|---|---|")
    for name, columns in (("raw", slice(2, None)), ("denoised", slice(None))):
        tomogram = read_mrc(folder / f"chlamy_tomo24_{name}.mrc.gz", CHLAMY)
        image = np.asarray(tomogram.data).reshape(1, *np.asarray(tomogram.data).shape[-2:])
        found = found_by(config, tomogram._replace(data=image))[0][0][:, columns]
        truth = mask[:, :-2] if name == "raw" else mask
        print(
            f"| chlamy_tomo24_{name} | {dice(found, truth):.3f} | {near(truth)[found].mean():.3f} | {near(found)[truth].mean():.3f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", type=Path)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--weights", default="", help="instead of those in the package")
    parser.add_argument("--only")
    args = parser.parse_args()
    config = Config()
    config = replace(config, network=replace(config.network, weights=args.weights))
    tomograms(args, config)
    real(args.data, config)


if __name__ == "__main__":
    with recorded("finding"):
        main()
