"""Results as an OME-Zarr 0.4: an image with labels, their colours and properties."""

import colorsys
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxmem.io.zarr import load_zarr
from jaxmem.types import JaxmemError, Tomogram

_SLAB, _TILE = 16, 256  # voxels of a chunk, along z, and along y and x
_LEVELS = 3  # at most
_TURN = 0.6180339887498949  # golden ratio less one: hues of successive labels lie far apart


def write_zarr(
    path: str | Path,
    image: Any,
    labels: Any,
    tomogram: Tomogram,
    rows: Sequence[dict[str, Any]],
    *,
    name: str = "uncertainty",
) -> None:
    """Write a volume as an OME-Zarr 0.4 with membranes as its labels, in `labels/membranes`.

    Both are read 16 planes at a time and never whole. A volume whose longest side is over 256 voxels also gets a level of every second
    voxel, and one over 512 a level of every fourth. Equal input gives equal bytes. What breaks off leaves a folder that is not whole.

    Arguments:
        path: folder to make; usually ends in .zarr.
        image: (nz, ny, nx) real, such as the uncertainty in A; becomes float32.
        labels: (nz, ny, nx) whole numbers, 0 where there is none. Both need only `shape`, `dtype`, and slices along z.
        tomogram: where they lie: voxel size and origin.
        rows: those of membranes.csv. `membrane` is the label; the rest becomes its properties, where it is not empty.
        name: of the image.

    Raises:
        JaxmemError: if the folder exists, or Zarr is not installed.
        ValueError: if shapes differ or the labels are not whole numbers.
    """
    path = Path(path)
    shape = tuple(image.shape)
    if len(shape) != 3 or tuple(labels.shape) != shape or 0 in shape:
        raise ValueError(f"write_zarr: expected two volumes of one shape, got {shape} and {tuple(labels.shape)}")
    if np.dtype(labels.dtype).kind not in "iu":
        raise ValueError(f"write_zarr: expected labels of whole numbers, got {labels.dtype}")
    zarr = load_zarr(path)
    if path.exists():
        raise JaxmemError(f"{path}: exists already; choose another name")
    factors = [2**k for k in range(_LEVELS) if not k or max(shape) > _TILE * 2 ** (k - 1)]
    root = zarr.open_group(path, mode="w-", zarr_format=2)
    root.attrs.put({"multiscales": [_described(name, factors, tomogram)]})
    _fill(root, image, np.dtype("<f4"), factors)
    root.create_group("labels").attrs.put({"labels": ["membranes"]})
    group = root.create_group("labels/membranes")
    group.attrs.put({"multiscales": [_described("membranes", factors, tomogram)], "image-label": _image_label(rows)})
    _fill(group, labels, np.dtype(labels.dtype).newbyteorder("<"), factors)


def write_zarr_image(path: str | Path, volume: Any, tomogram: Tomogram, name: str) -> None:
    """Write one volume of whole numbers as an OME-Zarr 0.4 of a single level; slab by slab, as `write_zarr`.

    Arguments:
        path: folder to make.
        volume: (nz, ny, nx).
        tomogram: voxel size and origin.
        name: of the image.

    Raises:
        JaxmemError: if the folder exists, or Zarr is not installed.
    """
    path = Path(path)
    zarr = load_zarr(path)
    if path.exists():
        raise JaxmemError(f"{path}: exists already; choose another folder, or remove it")
    root = zarr.open_group(path, mode="w-", zarr_format=2)
    root.attrs.put({"multiscales": [_described(name, [1], tomogram)]})
    _fill(root, volume, np.dtype(volume.dtype).newbyteorder("<"), [1])


def _described(name: str, factors: list[int], tomogram: Tomogram) -> dict[str, Any]:
    """Metadata of a multiscale image. Taking every second voxel leaves the first where it is, so that all share a translation."""
    translation = {"type": "translation", "translation": [float(o) for o in tomogram.origin[::-1]]}
    datasets = [
        {
            "path": str(k),
            "coordinateTransformations": [{"type": "scale", "scale": [float(tomogram.voxel_size * factor)] * 3}, translation],
        }
        for k, factor in enumerate(factors)
    ]  # fmt: skip
    axes = [{"name": axis, "type": "space", "unit": "angstrom"} for axis in "zyx"]
    return {"version": "0.4", "name": name, "axes": axes, "datasets": datasets, "type": "nearest"}


def _fill(group: Any, source: Any, dtype: np.dtype, factors: list[int]) -> None:
    """Write all levels in one pass; each gets a whole row of chunks at a time."""
    from numcodecs import Zlib  # its bytes do not depend on threads, as those of Blosc do

    depth = source.shape[0]
    waiting: list[list[np.ndarray]] = [[] for _ in factors]
    levels = []
    for k, factor in enumerate(factors):
        shape = tuple(-(-n // factor) for n in source.shape)
        levels.append(group.create_array(
            str(k), shape=shape, chunks=tuple(min(n, c) for n, c in zip(shape, (_SLAB, _TILE, _TILE))), dtype=dtype,
            compressors=Zlib(1), fill_value=0, chunk_key_encoding={"name": "v2", "separator": "/"},
        ))  # fmt: skip
    for number, z in enumerate(range(0, depth, _SLAB)):
        slab = np.asarray(source[z : z + _SLAB])
        for factor, level, parts in zip(factors, levels, waiting):
            parts.append(slab[::factor, ::factor, ::factor].astype(dtype))
            if (number + 1) % factor == 0 or z + _SLAB >= depth:
                done, first = np.concatenate(parts), number // factor * _SLAB
                level[first : first + len(done)] = done
                parts.clear()


def _image_label(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Colours and properties of labels; the specification wants neither list to be empty."""
    found: dict[str, Any] = {"version": "0.4"}
    if rows:
        numbers = [int(row["membrane"]) for row in rows]
        found["colors"] = [{"label-value": n, "rgba": _colour(n)} for n in numbers]
        found["properties"] = [
            {"label-value": n} | {k: plain for k, v in row.items() if k != "membrane" and (plain := _plain(v)) is not None}
            for n, row in zip(numbers, rows)
        ]  # fmt: skip
    return found | {"source": {"image": "../../"}}


def _plain(value: Any) -> Any:
    """A value as JSON has it; None for what it has not, and for the empty."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if value == "" or (isinstance(value, float) and not math.isfinite(value)) else value


def _colour(label: int) -> list[int]:
    """Red, green, blue and opacity of a label. The last three bits of each carry its number, so that 15,000 labels have colours of their own."""
    colour = colorsys.hsv_to_rgb(label * _TURN % 1.0, 0.8, 1.0 - 0.15 * (label % 3))
    return [int(255 * c) & ~7 | (label >> 3 * i & 7) for i, c in enumerate(colour)] + [255]
