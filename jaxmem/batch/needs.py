"""What a run needs; to be replaced by `pipeline.estimate`, which knows the stages."""

import bz2
import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from jaxmem.types import JaxmemError

_PROGRAM = 1.3e9  # bytes: libraries, weights, compiled programs
_VOXEL = 100.0  # bytes a voxel, from the peak of the bundled tomogram
_FILES = 7  # bytes a voxel: semantic, labels and uncertainty


class Needs(NamedTuple):
    """Bytes of memory and of disk."""

    memory: int
    disk: int


def needs(shape: tuple[int, ...]) -> Needs:
    """Roughly what a run of such a shape takes at its peak.

    Arguments:
        shape: voxels, in any order.
    """
    voxels = math.prod(shape)
    return Needs(int(_PROGRAM + _VOXEL * voxels), int(5e7 + _FILES * voxels))


def peek(path: Path) -> tuple[int, int, int] | None:
    """Columns, rows and sections from an MRC header; None where it cannot be read: the run will say why."""
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open}
    try:
        if path.is_dir():
            return _folder(path)
        with openers.get(path.suffix.lower(), open)(path, "rb") as file:
            raw = file.read(216)
    except (OSError, EOFError, zlib.error, JaxmemError):
        return None
    if len(raw) < 216:
        return None
    order = ">" if raw[212:214] == b"\x11\x11" else "<"
    columns, rows, sections = struct.unpack(order + "3i", raw[:12])
    sane = all(0 < n < 200_000 for n in (columns, rows, sections))
    return (columns, rows, sections) if sane else None


def _folder(path: Path) -> tuple[int, int, int] | None:
    """Columns, rows and sections of a Zarr, where there is a reader for it."""
    from jaxmem import io

    if not hasattr(io, "read_volume"):
        return None
    sections, rows, columns = io.read_volume(path, 1.0).data.shape
    return columns, rows, sections


def most_memory(paths: list[Path]) -> int:
    """Bytes that the largest of some tomograms needs; that of an empty one where no header can be read."""
    return max((needs(shape).memory for path in paths if (shape := peek(path)) is not None), default=int(_PROGRAM))
