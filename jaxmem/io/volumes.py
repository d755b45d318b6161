"""Volumes of any kind that can be read."""

from pathlib import Path
from typing import Any

from jaxmem.io.lazy import Negated
from jaxmem.io.mrc import read_mrc
from jaxmem.io.zarr import is_zarr, read_zarr
from jaxmem.types import JaxmemError, Tomogram


def read_volume(
    path: str | Path,
    voxel_size: float | None = None,
    *,
    level: int | None = None,
    pixel_size: float | None = None,
    labels: bool = False,
    unsigned: bool = False,
    invert: bool = False,
) -> Tomogram:
    """Read an MRC file, or open an OME-Zarr; see `read_mrc` and `read_zarr`.

    Arguments:
        path: file or folder.
        voxel_size: A; replaces the file's.
        level: of an OME-Zarr; when None, the one nearest to `pixel_size`.
        pixel_size: the network's, A. An MRC file has one voxel size, whatever this is.
        labels: the volume holds labels: its voxel size may be unknown (1.0 is then returned).
        unsigned: bytes of an MRC file of mode 0 are 0 to 255, though its header does not say so.
        invert: membranes are bright in it: its contrast is inverted as it is read.

    Raises:
        JaxmemError: if it cannot be read, or a level of an MRC file is asked for.

    Example:
        >>> read_volume("missing.mrc", level=1)
        Traceback (most recent call last):
        jaxmem.types.JaxmemError: missing.mrc: only an OME-Zarr has levels; leave --level out
    """
    if invert:
        found = read_volume(path, voxel_size, level=level, pixel_size=pixel_size, labels=labels, unsigned=unsigned)
        inverted: Any = Negated(found.data)
        return found._replace(data=inverted)
    if is_zarr(path):
        return read_zarr(path, voxel_size, level=level, pixel_size=pixel_size, labels=labels)
    if Path(path).is_dir():
        raise JaxmemError(
            f"{path}: a folder that is not a Zarr (no .zattrs or zarr.json in it); give an MRC file or the folder of an OME-Zarr image"
        )
    if level is not None:
        raise JaxmemError(f"{path}: only an OME-Zarr has levels; leave --level out")
    return read_mrc(path, voxel_size, labels=labels, unsigned=unsigned)
