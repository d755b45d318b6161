"""What goes through the pipeline: a volume, and when it is so thin that it is treated as one slice."""

import mmap
from typing import Any

import numpy as np

from jaxmem.types import JaxmemError, Tomogram


def as_volume(tomogram: Tomogram) -> Tomogram:
    """The tomogram with three axes; a single image becomes one slice.

    Raises:
        JaxmemError: if the data are not real numbers on two or three axes, or the voxel size is not positive.
    """
    data = tomogram.data
    if data.ndim == 2:
        data = data[None]
    if data.ndim != 3 or 0 in data.shape:
        raise JaxmemError(f"expected a volume of shape (nz, ny, nx), got {data.shape}")
    if np.iscomplexobj(data) or not (np.issubdtype(data.dtype, np.number) or data.dtype == bool):
        raise JaxmemError(f"expected real numbers, got {data.dtype}")
    if not (np.isfinite(tomogram.voxel_size) and tomogram.voxel_size > 0):
        raise JaxmemError(f"voxel size must be positive, got {tomogram.voxel_size}")
    return tomogram._replace(data=data)


def is_flat(shape: tuple[int, ...]) -> bool:
    """Volumes of fewer than six slices are fitted as one slice: a surface's course along the beam cannot be told."""
    return shape[0] < 6


def mapped(data: Any) -> np.memmap | None:
    """The file that an array is a view of; None if it is in memory, or something that reads by itself."""
    while data is not None:
        if isinstance(data, np.memmap) and not isinstance(data.base, np.memmap):
            return data
        data = getattr(data, "base", None)
    return None


def let_go(data: Any) -> None:
    """Give back the memory of what has been read of a file that an array is a view of; it is read again when it is asked for.

    Maps that can be written to are left alone: what was changed in a copy-on-write map would be lost.
    """
    file = mapped(data)
    if file is not None and file.mode == "r" and hasattr(mmap, "MADV_DONTNEED") and isinstance(file.base, mmap.mmap):
        file.base.madvise(mmap.MADV_DONTNEED)
