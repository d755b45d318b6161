"""Layers of a finished run and of the bundled tomogram; napari itself is not needed for that."""

import csv
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from jaxmem.io import read_mrc, read_volume
from jaxmem.io.meshes.colours import of_membrane
from jaxmem.pipeline.export import surfaces_of
from jaxmem.types import JaxmemError, Tomogram

Layer: TypeAlias = tuple[Any, dict[str, Any], str]
"""Data, arguments and kind of a layer, as napari's readers return them."""

VALUES = {
    "error bar (A)": ("sigma", 1.0),
    "seen": ("seen", 1.0),
    "mean curvature (1/nm)": ("mean_curvature", 10.0),
    "Gaussian curvature (1/nm^2)": ("gaussian_curvature", 100.0),
}
"""What surfaces can show: the name in the PLY files, and the factor to the unit."""

SURFACES, SHADED, LABELS = "surfaces", "surfaces by value", "membranes"


def reader(path: str | list[str]) -> Callable[[str], list[Layer]] | None:
    """For napari: what reads a path, or None if it is no run's folder.

    Arguments:
        path: one path; of a list the first counts.
    """
    folder = Path(path[0] if isinstance(path, list) else path)
    if not ((folder / "manifest.json").is_file() and (folder / "surfaces").is_dir()):
        return None
    return lambda _: layers_of(folder)


def layers_of(run: str | Path) -> list[Layer]:
    """The tomogram (if it is where it was), labels, error bars, all surfaces, and proteins if they were measured; in A, zyx.

    Arguments:
        run: folder that `jaxmem segment` or `jaxmem fit` wrote.

    Raises:
        JaxmemError: if the run is not whole.
    """
    run = Path(run)
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    labels, sigma = (read_mrc(run / f"{name}.mrc", manifest["voxel_size_A"]) for name in ("labels", "uncertainty"))
    place = _placed(labels)
    layers: list[Layer] = []
    tomogram = _source(manifest)
    if tomogram is not None and tomogram.data.shape == labels.data.shape:
        layers.append(
            (tomogram.data, {"name": "tomogram", "contrast_limits": _limits(tomogram.data), **place}, "image")
        )
    numbers = range(1, manifest["membranes"] + 1)
    shades = {None: (0, 0, 0, 0), 0: (0, 0, 0, 0)} | {n: (*of_membrane(n).tolist(), 1.0) for n in numbers}
    about = {"name": LABELS, "opacity": 0.6, "colormap": shades, "metadata": {"run": str(run.resolve())}}
    layers.append((np.asarray(labels.data), about | place, "labels"))
    layers.append((sigma.data, {"name": "error bars (A)", "colormap": "viridis", "visible": False, **place}, "image"))
    return layers + surface_layers(run) + _proteins(run)


def surface_layers(run: Path) -> list[Layer]:
    """All surfaces, in the membranes' colours, and once more to show values; the values are in the second one's metadata.

    Arguments:
        run: folder.
    """
    corners, faces, colours, numbers = [], [], [], []
    values: dict[str, list[np.ndarray]] = {name: [] for name in VALUES}
    count = 0
    for number, one in surfaces_of(run):
        corners.append(one.vertices[:, ::-1].astype(np.float32))
        faces.append(one.faces + count)
        colours.append(np.tile(of_membrane(number), (len(one.vertices), 1)))
        numbers.append(np.full(len(one.vertices), number))
        for name, (key, factor) in VALUES.items():
            values[name].append((factor * one.values[key]).astype(np.float32))
        count += len(one.vertices)
    if not corners:
        return []
    vertices, triangles = np.concatenate(corners), np.concatenate(faces)
    shown = {name: np.concatenate(v) for name, v in values.items()}
    metadata = {"run": str(run.resolve()), "values": shown, "membrane": np.concatenate(numbers)}
    first = next(iter(shown))
    shades = {"name": SURFACES, "vertex_colors": np.concatenate(colours), "shading": "smooth"}
    by_value = {"name": SHADED, "colormap": "viridis", "contrast_limits": spread(shown[first]), "shading": "smooth"}
    return [
        ((vertices, triangles), shades, "surface"),
        ((vertices, triangles, shown[first]), by_value | {"visible": False, "metadata": metadata}, "surface"),
    ]


def spread(values: np.ndarray) -> tuple[float, float]:
    """Ends of a colour scale: the middle 96 % of the values, never a single one.

    Arguments:
        values: (n,) any unit.

    Example:
        >>> spread(np.full(5, 2.0))
        (2.0, 3.0)
    """
    low, high = (float(v) for v in np.percentile(values, (2, 98)))
    return (low, high) if high > low else (low, low + 1.0)


def faded(colours: np.ndarray, membrane: np.ndarray, chosen: list[int]) -> np.ndarray:
    """(n, 4) colours of vertices, those of other membranes nearly transparent.

    Arguments:
        colours: (n, 3) or (n, 4).
        membrane: (n,) number of each vertex's.
        chosen: numbers of those that stay.
    """
    return np.hstack([np.asarray(colours)[:, :3], np.where(np.isin(membrane, chosen), 1.0, 0.15)[:, None]])


def sample() -> list[Layer]:
    """The bundled tomogram with its truth."""
    data = Path(str(resources.files("jaxmem") / "data"))
    tomogram = read_mrc(data / "phantom.mrc.gz")
    labels = read_mrc(data / "phantom_labels.mrc.gz")
    place = _placed(tomogram)
    return [
        (tomogram.data, {"name": "tomogram", "contrast_limits": _limits(tomogram.data), **place}, "image"),
        (np.asarray(labels.data), {"name": "true membranes", **place}, "labels"),
    ]


def _source(manifest: dict[str, Any]) -> Tomogram | None:
    """The run's input, if it is a tomogram and still there."""
    if manifest["command"] != "segment" or not manifest["input"]:
        return None
    path = Path(manifest.get("folder", ".")) / manifest["input"]
    try:
        found = read_volume(path, **manifest["reading"])
    except JaxmemError:
        return None
    return found if isinstance(found.data, np.ndarray) else found._replace(data=np.asarray(found.data))


def _placed(tomogram: Tomogram) -> dict[str, Any]:
    return {"scale": (tomogram.voxel_size,) * 3, "translate": tomogram.origin[::-1]}


def _limits(data: Any) -> tuple[float, float]:
    """Contrast limits from the middle slice."""
    values = np.asarray(data[len(data) // 2], np.float32)
    return spread(values[np.isfinite(values)]) if np.isfinite(values).any() else (0.0, 1.0)


def _proteins(run: Path) -> list[Layer]:
    """Single particles that `jaxmem measure` found."""
    table = run / "measures" / "particles.csv"
    if not table.is_file():
        return []
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return []
    places = np.array([[float(row[f"{axis}_A"]) for axis in "zyx"] for row in rows])
    size = np.array([10.0 * float(row["diameter_nm"]) for row in rows])
    features = {"membrane": [row["membrane"] for row in rows], "side": [row["side"] for row in rows]}
    return [(places, {"name": "proteins", "size": size, "features": features, "visible": False}, "points")]
