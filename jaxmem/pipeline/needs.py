"""What a run needs of memory and disk, before it starts."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmem.pipeline.network import slab_of

_BASE = 900_000_000  # bytes of a process with all its programs, measured
_DISK = 9  # bytes a voxel: semantic 1, labels 2, uncertainty 4, pieces 2 at most
_POINTS = 0.02  # midline points a voxel in a crowded tomogram
_BYTES_A_POINT = 350  # of the stages that hold all points


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
    slab = min(shape[0], 32, max(4, 2**24 // (shape[1] * shape[2])) + 12) * shape[1] * shape[2]
    points = _POINTS * voxels
    fixed = _BASE + held + points * _BYTES_A_POINT + 16 * slab_of(shape) * shape[1] * shape[2]
    cores = min(os.cpu_count() or 1, 8)
    each = 24 * slab
    if workers is None:
        workers = cores if memory is None else int(np.clip((memory - fixed) // each, 1, cores))
    return Estimate(int(fixed + workers * each), _DISK * voxels, workers)


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
