"""OME-Zarr 0.4 and 0.5, opened without being loaded (Moore et al. 2023)."""

import importlib
import json
import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from jaxmem.io.lazy import LazyArray, reason
from jaxmem.io.mrc import cubic_size
from jaxmem.types import JaxmemError, Tomogram

_MARKS = (".zgroup", ".zattrs", ".zarray", "zarr.json")
_UNITS = {"": 1.0, "angstrom": 1.0, "nanometer": 10.0, "micrometer": 1e4}  # A
_COARSEST = 1.5  # of the network's pixel: beyond that, detail it was trained on is gone


class _Level(NamedTuple):
    """One resolution: where its array is, and voxel size and place of the first voxel's centre, A, zyx."""

    path: str
    scale: np.ndarray
    translation: np.ndarray

    @property
    def cubic(self) -> bool:
        return bool(np.ptp(self.scale) <= 0.01 * self.scale.mean())

    def __str__(self) -> str:
        sizes = self.scale[:1] if self.cubic else self.scale[::-1]
        return " x ".join(f"{size:.2f}" for size in sizes) + " A"


def is_zarr(path: str | Path) -> bool:
    """Whether a path looks like a Zarr: its name ends in .zarr, or it is a folder with Zarr's metadata.

    Example:
        >>> is_zarr("tomogram.zarr"), is_zarr("tomogram.mrc")
        (True, False)
    """
    path = Path(path)
    return path.suffix == ".zarr" or any((path / mark).is_file() for mark in _MARKS)


def read_zarr(
    path: str | Path,
    voxel_size: float | None = None,
    *,
    level: int | None = None,
    pixel_size: float | None = None,
    labels: bool = False,
) -> Tomogram:
    """Open a volume of an OME-Zarr 0.4 or 0.5 without loading it.

    Axes are put into zyx order; others (time, channel) may have one entry only. Scale and translation are those of the level and of the
    whole image, in A; a unit that is not given is A. Chunks that are missing count as the fill value, as Zarr has it.

    Arguments:
        path: local folder of the image, that is, of the group with `multiscales`.
        voxel_size: A; replaces the file's, at the level that is read. Needed where level 0 has 1.0, which counts as unknown.
        level: which resolution. When None, the one nearest to `pixel_size`, or 0 if that or the file's voxel size is not known or replaced.
        pixel_size: the network's, A. A level of more than 1.5 times that is taken only if there is none finer.
        labels: the volume holds labels: its voxel size may be unknown (1.0 is then returned).

    Returns:
        A tomogram whose `data` is a `LazyArray`.

    Raises:
        JaxmemError: not an OME-Zarr of these versions, no such level, axes that are no volume's, numbers that are not real,
            unknown or non-cubic voxel size, or Zarr is not installed. Indexing the data raises it for a broken chunk.

    Example:
        >>> read_zarr("missing.zarr")
        Traceback (most recent call last):
        jaxmem.types.JaxmemError: missing.zarr: no such folder; check the name
    """
    path = Path(path)
    try:
        form, multiscale = _multiscale(path)
        names = [str(axis["name"]).lower() for axis in multiscale["axes"]]
        if not set("zyx") <= set(names):
            raise JaxmemError(f"{path}: has axes {', '.join(names)}; give a volume with z, y and x")
        order = (names.index("z"), names.index("y"), names.index("x"))
        levels = _levels(path, multiscale, order)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise JaxmemError(f"{path}: broken OME-Zarr metadata ({reason(error)}); check that the copy is whole") from None
    known = not np.allclose(levels[0].scale, 1.0)
    if level is None:
        level = _nearest(levels, pixel_size) if pixel_size and known and voxel_size is None else 0
    if not 0 <= level < len(levels):
        listed = ", ".join(f"{i} ({one if known else 'voxel size unknown'})" for i, one in enumerate(levels))
        raise JaxmemError(f"{path}: no level {level}; give one of these: {listed}")
    chosen = levels[level]
    stored = _open(path, chosen.path, form)
    if len(stored.shape) != len(names):
        raise JaxmemError(f"{path}: level {level} has {len(stored.shape)} axes, the metadata {len(names)}; mend them")
    for axis, (name, entries) in enumerate(zip(names, stored.shape)):
        if axis not in order and entries != 1:
            raise JaxmemError(f"{path}: axis {name} has {entries} entries; write the one you need to a file of its own")
    if stored.dtype.kind not in "biuf":
        raise JaxmemError(f"{path}: {stored.dtype} is not a density; convert it to whole or real numbers")
    size = cubic_size(path, chosen.scale[::-1] if known else np.ones(3), voxel_size, labels)
    z, y, x = (float(t) if np.isfinite(t) else 0.0 for t in chosen.translation)
    data = cast(np.ndarray, LazyArray(stored, order, str(path)))
    return Tomogram(data, size, (x, y, z), header_origin=(x, y, z))


def load_zarr(path: Path) -> Any:
    """The package zarr, which jaxmem does not always install.

    Arguments:
        path: for what, in the message.

    Raises:
        JaxmemError: if it is missing or too old.
    """
    try:
        zarr: Any = importlib.import_module("zarr")
    except ImportError:
        zarr = None
    if zarr is None or int(zarr.__version__.split(".")[0]) < 3:
        raise JaxmemError(f"{path}: OME-Zarr needs the package zarr, 3 or newer: pip install 'jaxmem[zarr]'")
    return zarr


def _open(path: Path, array: str, form: int) -> Any:
    """One level's array."""
    zarr = load_zarr(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about types and codecs that other programs may not know
            return zarr.open_array(path / array, mode="r", zarr_format=form)
    except Exception as error:  # of many kinds: metadata are checked by zarr, numcodecs and NumPy
        raise JaxmemError(
            f"{path}: array {array} cannot be opened ({reason(error)}); check that the copy is whole"
        ) from None


def _attributes(path: Path) -> tuple[int, dict[str, Any]]:
    """The Zarr format of a folder, 0 if it is none, and its OME attributes."""
    form, found = 0, {}
    for name, number in ((".zattrs", 2), ("zarr.json", 3)):
        file = path / name
        if not file.is_file():
            continue
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            here = content.get("attributes", {}).get("ome", {}) if number == 3 else content
            if not isinstance(here, dict):
                raise TypeError("not a JSON object")
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise JaxmemError(f"{file}: cannot be read ({reason(error)}); check that the copy is whole") from None
        if not form or "multiscales" in here:
            form, found = number, here
    return form, found


def _multiscale(path: Path) -> tuple[int, dict[str, Any]]:
    """The Zarr format and the first multiscale image of a group."""
    if not path.exists():
        raise JaxmemError(f"{path}: no such folder; check the name")
    if not path.is_dir():
        raise JaxmemError(f"{path}: a file, where a Zarr is a folder; unpack it, or rename it if it is no Zarr")
    form, found = _attributes(path)
    if "multiscales" not in found:
        if not any((path / mark).is_file() for mark in _MARKS):
            raise JaxmemError(f"{path}: not a Zarr (no .zattrs or zarr.json); give the folder that holds one of them")
        inside = sorted(p for p in path.iterdir() if p.is_dir() and "multiscales" in _attributes(p)[1])
        hint = f", such as {inside[0].name} in it" if inside else "; that of an array is usually the one above it"
        raise JaxmemError(f"{path}: a Zarr without multiscales; give the folder of an OME-Zarr image{hint}")
    multiscale = found["multiscales"][0]
    # 0.4 need not be said
    version = found.get("version", "missing") if form == 3 else multiscale.get("version", "0.4")
    if version != {2: "0.4", 3: "0.5"}[form]:
        raise JaxmemError(f"{path}: version {version} of OME-Zarr (Zarr {form}) is not read; convert it to 0.4 or 0.5")
    return form, multiscale


def _levels(path: Path, multiscale: dict[str, Any], order: tuple[int, int, int]) -> list[_Level]:
    """All resolutions, in A, zyx; what a level's own transformations give is transformed by the image's."""
    axes = multiscale["axes"]
    units = [str(axes[i].get("unit") or "").lower() for i in order]
    for unit in units:
        if unit not in _UNITS:
            raise JaxmemError(f"{path}: unit {unit} is not known; mend it to angstrom, nanometer or micrometer")
    unit_sizes = np.array([_UNITS[unit] for unit in units])
    levels = []
    for dataset in multiscale["datasets"]:
        scale, translation = np.ones(len(axes)), np.zeros(len(axes))
        every = [*dataset.get("coordinateTransformations", []), *multiscale.get("coordinateTransformations", [])]
        for one in every:
            values = np.ones(len(axes)) if one["type"] == "identity" else np.array(one[one["type"]], float)
            if values.shape != (len(axes),) or one["type"] not in ("identity", "scale", "translation"):
                raise ValueError(f"a {one['type']} of {values.size} values for {len(axes)} axes")
            if one["type"] == "translation":
                translation = translation + values
            else:
                scale, translation = scale * values, translation * values
        pick = list(order)
        levels.append(_Level(str(dataset["path"]), scale[pick] * unit_sizes, translation[pick] * unit_sizes))
    if not levels:
        raise ValueError("no datasets")
    return levels


def _nearest(levels: list[_Level], pixel_size: float) -> int:
    """The level whose voxels are nearest in ratio to the network's pixels, without losing detail if that can be helped."""
    usable = [i for i, one in enumerate(levels) if one.cubic and 0 < one.scale.mean() < math.inf]
    fine = [i for i in usable if levels[i].scale.mean() <= _COARSEST * pixel_size]
    return min(fine or usable, key=lambda i: abs(math.log(levels[i].scale.mean() / pixel_size)), default=0)
