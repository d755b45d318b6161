"""Instances in volumes, beside connected components: `python benchmarks/merging.py` (`masks`, `volumes`, `speed`, `picture` for a part).

`masks`: three real segmentations with their labels removed; which voxels of the mask belong together, by connected components
(26 neighbours), by region merging, and after the selection of membranes that `jaxmem fit` makes; compared with the labels, and with
the connected components of each label (what can be known without joining anything that does not touch).
`volumes`: the phantom and three simulated tomograms full of touching vesicles (`VolumeModel.touching_fraction`); instances of connected
components of the network's mask, and of `jaxmem segment` with `--grouping merge` and `rl`; intersection over union with the truth.
`speed`: midline and merging of more than a million labelled voxels, seconds and peak memory. `picture`: `docs/images/touching.png`.
"""

import argparse
import resource
import time
from dataclasses import replace
from importlib import resources
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure
from record import recorded
from scipy import ndimage
from scipy.spatial import cKDTree

from jaxmem.grouping import MergeConfig, merge_regions, midline
from jaxmem.io import read_mrc
from jaxmem.metrics import compare_groups, match_instances
from jaxmem.pipeline import Config, stages
from jaxmem.pipeline.keeping.record import Run
from jaxmem.pipeline.masks import band_thickness
from jaxmem.pipeline.network import Prediction, predict
from jaxmem.simulate import VolumeModel, simulate_tomogram
from jaxmem.types import MEMBRANE, Tomogram

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "touching.png"
MASKS = ("AP_autophagosome", "Phagophore", "TE1_mito")
TOUCHING = VolumeModel(candidates=150, radius_voxels=(12.0, 22.0), touching_fraction=0.9)
SEEDS = (201, 202, 203)
ALL = np.ones((3, 3, 3))


def settings(mask: np.ndarray) -> tuple[float, float]:
    """Smoothing and threshold of a mask's midline, as `fit_mask` chooses them."""
    thickness = band_thickness(mask)
    return float(np.clip(0.45 * thickness, 0.8, 4.0)), 0.3 if thickness >= 2 else 0.2


def masks() -> None:
    print("| mask | method | index: labels | splits | false merges | index: pieces | splits | false merges | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in MASKS:
        given = read_mrc(DATA / f"{name}.mrc.gz")
        labels, size = np.asarray(given.data).astype(int), float(given.voxel_size)
        mask = labels > 0
        voxels = np.argwhere(mask)
        pieces = np.zeros(labels.shape, int)
        for value in np.unique(labels[mask]):
            part, _ = ndimage.label(labels == value, ALL)
            pieces[labels == value] = part[labels == value] + pieces.max()

        def show(method: str, found: np.ndarray, seconds: float) -> None:
            scores = [compare_groups(found, truth[mask]) for truth in (labels, pieces)]  # noqa: B023
            cells = " | ".join(f"{s.adjusted_rand:.3f} | {s.splits} | {s.false_merges}" for s in scores)
            print(f"| {name} | {method} | {cells} | {seconds:.0f} |", flush=True)  # noqa: B023

        begin = time.perf_counter()
        components = ndimage.label(mask, ALL)[0][mask]
        show("connected components", components, time.perf_counter() - begin)
        begin = time.perf_counter()
        line = midline(mask, *settings(mask))
        nearest = cKDTree(line.points).query(voxels, workers=-1)[1]
        show(
            "region merging",
            merge_regions(line.points, line.normals, size, MergeConfig())[nearest],
            time.perf_counter() - begin,
        )
        begin = time.perf_counter()
        sigma, threshold = settings(mask)
        config = Config()
        config = replace(
            config,
            midline=replace(config.midline, threshold=threshold),
            select=replace(config.select, least_open_probability=0.0),
        )
        there, run = mask.astype(np.float32), Run(None)
        line = stages.midlines(there, sigma, config, run, faint=False)
        regions, _ = stages.group(line, there, sigma, size, config, run)
        number = np.zeros(len(line.points), int)
        for k, region in enumerate(regions, 1):
            number[region.members] = k
        kept = number > 0
        distance, nearest = cKDTree(line.points[kept]).query(voxels, workers=-1)
        found = np.where(distance < 5.0, number[kept][nearest], 0)
        seconds = time.perf_counter() - begin
        show(f"... and selection ({len(regions)} membranes, {(found > 0).mean():.0%} of voxels)", found, seconds)


def compare(method: str, name: str, found: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> None:
    """One row: instances against the truth, and groups of the network's voxels that lie on true membranes."""
    matching, count = match_instances(found, truth, 0.05), len(np.unique(truth)) - 1
    overlap = matching.dice / (2.0 - matching.dice)
    both = mask & (truth > 0)
    nearest = ndimage.distance_transform_edt(found == 0, return_distances=False, return_indices=True)
    groups = compare_groups(found[tuple(nearest)][both], truth[both])
    print(
        f"| {name} | {method} | {overlap.sum() / count:.3f} | {(overlap >= 0.5).sum()} of {count} | {len(matching.invented)} "
        f"| {groups.adjusted_rand:.3f} | {groups.splits} | {groups.false_merges} |",
        flush=True,
    )


def components_of(mask: np.ndarray) -> np.ndarray:
    """Connected components of at least 200 voxels."""
    number, _ = ndimage.label(mask, ALL)
    return np.where((np.bincount(number.ravel()) >= 200)[number], number, 0)


def segmented(tomogram: Tomogram, seen: Prediction, method: str) -> np.ndarray:
    """Labels that `segment --grouping METHOD` makes of the network's output."""
    config = replace(Config(), grouping=replace(Config().grouping, method=method))
    return stages.assemble(seen, tomogram, config, Run(None)).labels.astype(int)


def drawn(seed: int) -> tuple[Tomogram, np.ndarray]:
    """A tomogram full of touching vesicles, and its labels."""
    made = simulate_tomogram(jax.random.key(seed), TOUCHING)
    return Tomogram(np.asarray(made.data), TOUCHING.voxel_size), np.asarray(made.labels).astype(int)


def volumes() -> None:
    print("| tomogram | method | mean IoU | IoU of half or more | invented | index of voxels | splits | false merges |")
    print("|---|---|---|---|---|---|---|---|")
    package = Path(str(resources.files("jaxmem"))) / "data"
    phantom = read_mrc(package / "phantom.mrc.gz"), np.asarray(read_mrc(package / "phantom_labels.mrc.gz").data)
    for seed in (None, *SEEDS):
        name = "phantom" if seed is None else f"touching, seed {seed}"
        tomogram, truth = phantom if seed is None else drawn(seed)
        truth = truth.astype(int)
        seen = predict(tomogram, Config(), Run(None))
        mask = seen.semantic == MEMBRANE
        compare("connected components", name, components_of(mask), truth, mask)
        for method in ("merge", "rl"):
            compare(f"segment --grouping {method}", name, segmented(tomogram, seen, method), truth, mask)


def picture() -> None:
    """A slice of the first touching tomogram: as it is, connected components, `segment`, and the truth."""
    tomogram, truth = drawn(SEEDS[0])
    seen = predict(tomogram, Config(), Run(None))
    components = components_of(seen.semantic == MEMBRANE)
    found = segmented(tomogram, seen, "merge")
    z = int(np.argmax([len(np.unique(plane)) for plane in truth]))
    panels = [("connected components", components), ("jaxmem segment", found), ("truth", truth)]
    figure = Figure(figsize=(14, 4))
    for k, (title, labels) in enumerate([("tomogram", None), *panels]):
        axes = figure.add_subplot(1, 4, k + 1)
        axes.imshow(tomogram.data[z], cmap="gray", vmin=-3, vmax=3)
        if labels is not None:
            colours = np.random.default_rng(4).permutation(20)[labels[z] % 20]
            axes.imshow(np.ma.masked_where(labels[z] == 0, colours), cmap="tab20", vmin=0, vmax=19, alpha=0.8)
        axes.set_title(title)
        axes.set_axis_off()
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=80)
    print(PICTURE)


def speed() -> None:
    given = read_mrc(DATA / "AP_autophagosome.mrc.gz")
    mask = np.tile(np.asarray(given.data) > 0, (1, 1, 3))[:, :, :1300]
    sigma, threshold = settings(mask)
    begin = time.perf_counter()
    line = midline(mask, sigma, threshold)
    middle = time.perf_counter()
    region = merge_regions(line.points, line.normals, float(given.voxel_size), MergeConfig())
    end = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(
        f"{mask.sum()} labelled voxels, {len(line.points)} midline points: midline {middle - begin:.1f} s, merging "
        f"{end - middle:.1f} s, {region.max()} regions, peak {peak:.2f} GiB"
    )


def main() -> None:
    parts = {"speed": speed, "masks": masks, "volumes": volumes, "picture": picture}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="all when none is named")
    for name in parser.parse_args().parts or parts:
        print(f"\n## {name}\n", flush=True)
        parts[name]()


if __name__ == "__main__":
    with recorded("merging"):
        main()
