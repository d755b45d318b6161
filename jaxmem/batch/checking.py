"""Looking at tomograms before they run: headers, a few slices, and what a run will need."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxmem.batch.disk import describe
from jaxmem.batch.inputs import find_inputs
from jaxmem.batch.needs import needs
from jaxmem.batch.records import Check
from jaxmem.types import JaxmemError, Tomogram

_SLICES = 5  # that are read of each tomogram


def validate(source: str | Path, *, pattern: str | None = None, voxel_size: float | None = None) -> Iterator[Check]:
    """Check each tomogram of a folder or a list, or the one that is named; a few slices of each are read.

    Whether membranes are dark cannot be told from a few numbers. What can: no values, one value, not finite, no voxel size.

    Arguments:
        source: folder, list or tomogram; see `inputs.find_inputs`.
        pattern: names to take from a folder.
        voxel_size: A; replaces the headers'.

    Returns:
        A record for each, as it is looked at; `problems` is empty where nothing stands in the way.

    Raises:
        JaxmemError: if the source is missing or holds nothing.
    """
    return (check(path, voxel_size) for path in find_inputs(source, pattern))


def check(path: Path, voxel_size: float | None = None) -> Check:
    """Look at one tomogram; nothing is raised, what is wrong is among the problems.

    Arguments:
        path: of the tomogram.
        voxel_size: A; replaces the header's.
    """
    problems = []
    try:
        try:
            tomogram, known = _read(path, voxel_size), True
        except JaxmemError as error:
            if voxel_size is not None:
                raise
            tomogram, known = _read(path, 1.0), False  # if only the voxel size was wrong, the rest can be looked at
            problems.append(describe(error))
        found = _look(path, tomogram)
        if known and found.constant != 1.0:
            problems += [one.line for one in _oddities(tomogram, str(path))]
    except Exception as error:
        return Check(str(path), problems=(problems[0] if problems else describe(error),))
    return found._replace(voxel_size=tomogram.voxel_size if known else None, problems=(*problems, *found.problems))


def _read(path: Path, voxel_size: float | None) -> Tomogram:
    from jaxmem.io import read_volume

    return read_volume(path, voxel_size)


def _oddities(tomogram: Tomogram, name: str) -> list:
    from jaxmem.io import oddities

    return oddities(tomogram, name)


def _look(path: Path, tomogram: Tomogram) -> Check:
    data = tomogram.data
    problems = []
    if data.ndim != 3:
        raise JaxmemError(f"{path}: has {data.ndim} axes, a tomogram has 3; take one volume out of it")
    shape = (int(data.shape[0]), int(data.shape[1]), int(data.shape[2]))
    where = np.unique(np.linspace(0, shape[0] - 1, _SLICES + 2).round().astype(int)[1:-1])  # ends are often padded
    slices = [np.asarray(data[k], np.float64) for k in where]
    finite = [s[np.isfinite(s)] for s in slices]
    values = np.concatenate(finite)
    nan = 1.0 - values.size / max(1, sum(s.size for s in slices))
    constant = sum(not f.size or float(np.ptp(f)) == 0.0 for f in finite) / len(slices)
    if nan:
        problems.append(f"{path}: {100 * nan:.2g} % of the voxels are not finite; mend them, or reconstruct it again")
    if constant == 1.0:
        problems.append(f"{path}: the slices that were read hold one value each; the volume is blank")
    elif constant:
        problems.append(
            f"{path}: {constant * len(slices):.0f} of {len(slices)} slices hold one value only; cut them off"
        )
    need = needs(path, shape)
    mean, std = (float(values.mean()), float(values.std())) if values.size else (None, None)
    return Check(
        str(path), shape, None, str(data.dtype), mean, std, constant, nan, need.memory, need.disk, tuple(problems)
    )
