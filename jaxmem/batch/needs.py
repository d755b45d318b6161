"""What runs need, from the headers of their tomograms."""

import bz2
import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxmem.types import JaxmemError

if TYPE_CHECKING:
    from jaxmem.pipeline.needs import Estimate


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


def _folder(path: Path) -> tuple[int, int, int]:
    """Columns, rows and sections of a Zarr."""
    from jaxmem.io import read_volume

    sections, rows, columns = read_volume(path, 1.0).data.shape
    return columns, rows, sections


def needs(path: Path, shape: tuple[int, ...]) -> "Estimate":
    """What a run needs at most, with one thread; a compressed file is in memory as a whole.

    Arguments:
        path: of the tomogram.
        shape: (nz, ny, nx).
    """
    from jaxmem.pipeline.needs import estimate

    return estimate(shape, held=4 * math.prod(shape) if path.suffix.lower() in (".gz", ".bz2") else 0, workers=1)


def most_memory(paths: list[Path]) -> int:
    """Bytes that the largest of some tomograms needs; that of an empty one where no header can be read."""
    shapes = [(path, shape[::-1]) for path in paths if (shape := peek(path))]
    return max(needs(path, shape).memory for path, shape in [(Path(), (1, 1, 1)), *shapes])
