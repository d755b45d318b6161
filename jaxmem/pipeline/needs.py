"""What a run needs of memory and disk, before it starts."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmem.pipeline.network import slab_of

# Bytes, measured by `benchmarks/large.py`: what a process takes before and during the network's stage; what surfaces and the report add in a
# small tomogram, and at most; what holding and merging the midline's points adds, a voxel of a crowded tomogram; what a voxel of a slab takes
# where midlines are sought; what a voxel needs on the disk (semantic 1, labels 2, uncertainty 4, pieces 2).
_NETWORK, _SURFACES, _MOST_SURFACES, _A_VOXEL, _OF_A_SLAB, _DISK = 0.75e9, 0.6e9, 1.6e9, 8.0, 24, 9


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
    each = _OF_A_SLAB * plane * min(shape[0], 24 + 12, max(4, 2**24 // plane) + 12)
    base = _NETWORK + held + 16.0 * slab_of(shape) * plane
    rest = max(min(_SURFACES + 60.0 * voxels, _MOST_SURFACES), _A_VOXEL * voxels)
    if workers is None:
        cores = min(os.cpu_count() or 1, 8)
        workers = cores if memory is None else int(np.clip((memory - base) // each, 1, cores))
    return Estimate(int(base + max(rest, workers * each)), _DISK * voxels, workers)


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
