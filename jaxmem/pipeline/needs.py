"""What a run needs of memory and disk, before it starts."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmem.grouping.midline import slices_together
from jaxmem.pipeline.network import slab_of

# bytes; of memory from the resident size during `benchmarks/large.py` and `benchmarks/refinement.py`, rounded up
_NETWORK = 0.75e9  # of a process during the network's stage
_SURFACES = 1.1e9  # that refinement, surfaces and report add in the smallest tomogram
_SURFACES_A_VOXEL = 60.0  # that they add besides
_MOST_SURFACES = 2.1e9  # that they add at most: programs of all sizes of membranes
_POINTS_A_VOXEL = 10.0  # that holding and merging the midline's points adds in a crowded tomogram
_SLAB_A_VOXEL = 24  # of a slab in which midlines are sought
_PIECE_A_VOXEL = 16.0  # of a slab that the network looks at
_DISK_A_VOXEL = 9  # semantic 1, labels 2, uncertainty 4, pieces 2
_MARGIN = 12  # slices that a slab's smoothing reaches beyond it, both sides together, at 14 A a voxel


class Estimate(NamedTuple):
    """What a run will need at most, bytes: memory, and disk for its folder while it runs.

    Attributes:
        memory: resident memory of the process.
        disk: pieces and results.
        workers: threads that take slabs side by side.
    """

    memory: int
    disk: int
    workers: int


def estimate(
    shape: tuple[int, ...], *, held: int = 0, memory: int | None = None, workers: int | None = None
) -> Estimate:
    """What a tomogram of some size will need; what does not depend on the data is known, the rest is that of crowded tomograms.

    Arguments:
        shape: (nz, ny, nx).
        held: bytes of the input that are in memory: all of a compressed file.
        memory: bytes that may be used: threads are left out for it.
        workers: threads, if they are not left to this function.
    """
    voxels = int(np.prod(shape))
    plane = shape[1] * shape[2]
    each = _SLAB_A_VOXEL * plane * min(shape[0], slices_together(shape) + _MARGIN)
    base = _NETWORK + held + _PIECE_A_VOXEL * slab_of(shape) * plane
    rest = max(min(_SURFACES + _SURFACES_A_VOXEL * voxels, _MOST_SURFACES), _POINTS_A_VOXEL * voxels)
    if workers is None:
        cores = min(os.cpu_count() or 1, 8)
        workers = cores if memory is None else int(np.clip((memory - base) // each, 1, cores))
    return Estimate(int(base + max(rest, workers * each)), _DISK_A_VOXEL * voxels, workers)


def free_memory() -> int:
    """Bytes that a process may still take: what the system calls available, and no more than a container's limit leaves."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):
            continue
    return max(free, 0)
