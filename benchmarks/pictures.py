"""The README's pictures: `python benchmarks/pictures.py DEMO_RUN VIRION_RUN TOMOGRAM VIRION_SLICE VIRION_MASK`.

Takes the runs of `jaxmem demo` and of `jaxmem segment virion_slice.mrc.gz --voxel-size 5`, and the files they came from.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from jaxmem.io import read_mrc
from jaxmem.types import MEMBRANE

OUT = Path(__file__).resolve().parents[1] / "docs" / "images"
COLOURS = matplotlib.colormaps["tab10"]


def grey(axes, image, title):
    low, high = np.percentile(image, [0.5, 99.5])
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, fontsize=9)


def outlines(axes, labels):
    for value in np.unique(labels[labels > 0]):
        axes.contour(labels == value, levels=[0.5], colors=[COLOURS((int(value) - 1) % 10)], linewidths=0.9)


def demo(run: Path, source: Path) -> None:
    data = np.asarray(read_mrc(source).data, np.float32)
    labels, semantic = (np.asarray(read_mrc(run / name).data) for name in ("labels.mrc", "semantic.mrc"))
    figure = Figure(figsize=(10, 7.2))
    for column, z in enumerate((28, 48, 66)):
        image = data[z - 1 : z + 2].mean(0)
        axes = figure.add_subplot(2, 3, column + 1)
        grey(axes, image, f"slice {z}; network")
        axes.contour(semantic[z] == MEMBRANE, levels=[0.5], colors=["#ffb000"], linewidths=0.8)
        axes = figure.add_subplot(2, 3, column + 4)
        grey(axes, image, "fitted membranes")
        outlines(axes, labels[z])
    figure.tight_layout(pad=0.4)
    figure.savefig(OUT / "demo.png", dpi=80)


def virion(run: Path, source: Path, mask: Path) -> None:
    image = np.asarray(read_mrc(source, 5.0).data, np.float32)[0]
    labels, semantic = (np.asarray(read_mrc(run / name, 5.0).data)[0] for name in ("labels.mrc", "semantic.mrc"))
    truth = np.asarray(read_mrc(mask, labels=True).data)[0]
    figure = Figure(figsize=(10, 4.6))
    axes = figure.add_subplot(1, 2, 1)
    grey(axes, image, "network")
    axes.contour(semantic == MEMBRANE, levels=[0.5], colors=["#ffb000"], linewidths=0.8)
    axes = figure.add_subplot(1, 2, 2)
    grey(axes, image, "fitted membrane (blue), outline of the published mask (red)")
    outlines(axes, labels)
    axes.contour(truth, levels=[0.5], colors=["red"], linewidths=0.6)
    figure.tight_layout(pad=0.4)
    figure.savefig(OUT / "virion.png", dpi=80)


if __name__ == "__main__":
    demo_run, virion_run, tomogram, virion_slice, virion_mask = map(Path, sys.argv[1:])
    OUT.mkdir(parents=True, exist_ok=True)
    demo(demo_run, tomogram)
    virion(virion_run, virion_slice, virion_mask)
