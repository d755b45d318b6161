"""From a file to a run's folder, in little memory: what is finished is kept, and a killed run goes on where it was."""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmem.grouping.rl.weights import load_linker
from jaxmem.io import OutputFolder, is_zarr, oddities, read_volume, sha256
from jaxmem.pipeline.editing.edits import Edit, EditError, read_edits
from jaxmem.pipeline.files import KEPT, write_run
from jaxmem.pipeline.keeping.folder import working_folder
from jaxmem.pipeline.keeping.pieces import Pieces
from jaxmem.pipeline.keeping.record import Progress, Run
from jaxmem.pipeline.masks import fit_mask
from jaxmem.pipeline.needs import Estimate, estimate, free_memory
from jaxmem.pipeline.stages import for_tomogram, segment, stage_keys
from jaxmem.pipeline.volume import as_volume, mapped
from jaxmem.results import Result
from jaxmem.settings import Config
from jaxmem.types import JaxmemError, Tomogram
from jaxmem.unet import load_weights

log = logging.getLogger("jaxmem")

_METADATA = (".zattrs", ".zgroup", ".zarray", ".zmetadata", "zarr.json")
_KEEP = 0.1  # share of the tomogram's size up to which pieces are kept in a finished run
_SMALL = 50e6  # bytes up to which they are kept however small the tomogram is


def segment_file(
    source: str | Path,
    target: str | Path,
    config: Config | None = None,
    *,
    edits: str | Path | Sequence[Edit] = (),
    voxel_size: float | None = None,
    level: int | None = None,
    overwrite: bool = False,
    keep: bool | None = None,
    memory: float | None = None,
    obj: bool = False,
    zarr: bool = False,
    invert: bool = False,
    unsigned: bool = False,
    progress: Progress | None = None,
    arguments: Sequence[str] = (),
) -> int:
    """From a tomogram's file to a run's folder, in memory that does not grow with the tomogram but for its points.

    What is finished lies in `TARGET.partial`. If the process ends before the run does, the same call goes on after the last finished
    piece, and ends with the same surfaces, labels and table. A finished run keeps its pieces if they are small; then a call with
    other settings and `overwrite` redoes only the stages that depend on them.

    Arguments:
        source: MRC file or OME-Zarr.
        target: the run's folder.
        config: all settings; the defaults when None.
        edits: what is to be changed of the membranes that are found (see `Edit`), or the TOML file that says so. Only what they change is done again.
        voxel_size: A; replaces the file's.
        level: of an OME-Zarr; the one that suits the network when None.
        overwrite: replace an earlier run.
        keep: keep pieces in the finished run; when None, those that take less than 50 MB, or than a tenth of the tomogram's size.
        memory: bytes that may be used; half of what is free when None.
        obj: write OBJ meshes, too.
        zarr: write labels and uncertainty as OME-Zarr, too.
        invert: membranes are bright in the tomogram.
        unsigned: the file's bytes are 0 to 255, though its header does not say so.
        progress: told how far each stage is.
        arguments: for the manifest.

    Returns:
        The number of membranes.

    Raises:
        JaxmemError: if the input, the settings or the output folder is at fault, another process works on the same run, `memory` is
            too little, or the disk is full.
    """

    config = config or Config()
    own = config.network.weights or None
    pixel_size = load_weights(own)[1]
    weights = [load_weights(own, flat)[2] for flat in (False, True)]
    linker = load_linker(config.grouping.weights or None).digest if config.grouping.method == "rl" else ""
    task = _Task(
        {"voxel_size": voxel_size, "level": level, "pixel_size": pixel_size, "invert": invert, "unsigned": unsigned},
        {"obj": obj, "zarr": zarr, "arguments": arguments, "command": "segment"},
        (level, *weights, linker, invert, unsigned),
        lambda tomogram: for_tomogram(config, tomogram.voxel_size),
        lambda tomogram, some, run: segment(tomogram, config, edits=some, run=run),
        edits,
        look=True,
    )
    return _run(source, target, task, overwrite=overwrite, keep=keep, memory=memory, progress=progress)


def fit_file(
    source: str | Path,
    target: str | Path,
    config: Config | None = None,
    *,
    instances: bool = False,
    filled: bool = False,
    tomogram: str | Path | None = None,
    edits: str | Path | Sequence[Edit] = (),
    voxel_size: float | None = None,
    level: int | None = None,
    overwrite: bool = False,
    keep: bool | None = None,
    memory: float | None = None,
    obj: bool = False,
    zarr: bool = False,
    progress: Progress | None = None,
    arguments: Sequence[str] = (),
) -> int:
    """The same from a mask's file, by `fit_mask`; the mask itself is in memory.

    Arguments:
        source: MRC file or OME-Zarr.
        instances, filled: see `fit_mask`.
        tomogram: MRC file or OME-Zarr from which the mask was made; places the points anew.
        target, config, edits, voxel_size, level, overwrite, keep, memory, obj, zarr, progress, arguments: see `segment_file`.

    Returns:
        The number of membranes.

    Raises:
        JaxmemError: as `segment_file`.
    """

    config = config or Config()
    # its voxel size is the mask's: whatever the header says
    density = None if tomogram is None else read_volume(tomogram, voxel_size=1.0, level=level)

    def find(mask: Tomogram, some: Sequence[Edit], run: Run) -> Result:
        if density is not None and density.data.shape != mask.data.shape:
            raise JaxmemError(
                f"{tomogram}: has {density.data.shape[::-1]} voxels, the mask {mask.data.shape[::-1]}; give the one the mask was made from"
            )
        return fit_mask(mask, config, instances=instances, filled=filled, tomogram=density, edits=some, run=run)

    task = _Task(
        {"voxel_size": voxel_size, "level": level},
        {"obj": obj, "zarr": zarr, "arguments": arguments, "command": "fit"},
        (level, instances, filled, tomogram and digest_of(tomogram)),
        lambda mask: config,
        find,
        edits,
    )
    return _run(source, target, task, overwrite=overwrite, keep=keep, memory=memory, progress=progress)


class _Task(NamedTuple):
    """What is particular to a command.

    Attributes:
        reading, writing: arguments of `read_volume` and of `write_run`.
        depends: on what the result depends besides the file, its voxel size and the settings.
        settings: those that pieces are named after, for a volume.
        find: the command itself.
        edits: what is to be changed, or the file that says so.
        look: the input is a tomogram, which is looked at first.
    """

    reading: dict[str, Any]
    writing: dict[str, Any]
    depends: tuple[object, ...]
    settings: Callable[[Tomogram], Config]
    find: Callable[[Tomogram, Sequence[Edit], Run], Result]
    edits: str | Path | Sequence[Edit]
    look: bool = False


def _run(
    source: str | Path,
    target: str | Path,
    task: _Task,
    *,
    overwrite: bool,
    keep: bool | None,
    memory: float | None,
    progress: Progress | None,
) -> int:
    target = Path(os.path.abspath(target))
    edits = read_edits(task.edits) if isinstance(task.edits, str | Path) else list(task.edits)
    OutputFolder(target, overwrite).check()
    with working_folder(target) as partial:
        tomogram = as_volume(read_volume(source, **task.reading))
        log.info("%s: %s voxels (x, y, z) of %.2f A", source, tomogram.data.shape[::-1], tomogram.voxel_size)
        odd = oddities(tomogram, str(source)) if task.look else []
        for one in odd[:1]:
            if one.fatal:
                raise JaxmemError(one.line)
        digest = digest_of(source)
        keys = stage_keys(str((digest, tomogram.voxel_size, *task.depends)), task.settings(tomogram), edits)
        needs = _checked(source, target, tomogram, memory)
        pieces = Pieces(partial / "pieces", target / KEPT)
        run = Run(progress, pieces, keys, needs.workers, partial / "seconds.json")
        for one in odd:
            run.warn(one.line)
        try:
            result = task.find(tomogram, edits, run)
        except EditError as error:
            raise JaxmemError(f"{task.edits}: {error}" if isinstance(task.edits, str | Path) else str(error)) from None
        most = {
            None: max(_SMALL, _KEEP * tomogram.data.size * tomogram.data.dtype.itemsize),
            True: np.inf,
            False: -1.0,
        }[keep]
        write_run(
            target, result, tomogram, source=source, overwrite=overwrite, digest=digest, pieces=(pieces, most),
            work=partial / "output", reading=task.reading, edits=edits, **task.writing,
        )  # fmt: skip
        return len(result.membranes)


def _checked(source: str | Path, target: Path, tomogram: Tomogram, memory: float | None) -> Estimate:
    """The estimate, told before the work starts, and what does not fit."""
    data = tomogram.data
    held = data.nbytes if isinstance(data, np.ndarray) and mapped(data) is None else 0
    limit = free_memory() // 2 if memory is None else int(memory)
    needs = estimate(data.shape, held=held, memory=limit)
    room = shutil.disk_usage(target.parent).free
    log.info(
        "needs about %.1f GB of memory (%.1f allowed) and at most %.1f GB of disk (%.1f free)",
        *(n / 1e9 for n in (needs.memory, limit, needs.disk, room)),
    )
    if needs.memory > limit and memory is not None:
        raise JaxmemError(
            f"{source}: needs about {needs.memory / 1e9:.1f} GB of memory, --memory allows {limit / 1e9:.1f}; allow more, bin it or cut it"
        )
    if needs.memory > limit:
        log.warning("%s may need more memory than half of what is free", source)
    if needs.disk > room:
        log.warning("%s may fill the disk of %s", source, target.parent)
    return needs


def digest_of(source: str | Path) -> str:
    """SHA-256 of a file; of a Zarr, which may hold a hundred times what is read of it, of its metadata, and of its chunks' names, sizes and times."""
    source = Path(source)
    if not is_zarr(source):
        return sha256(source)
    total = hashlib.sha256()
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        described = path.name in _METADATA
        state = path.stat()
        what = sha256(path) if described else f"{state.st_size} {state.st_mtime_ns}"
        total.update(f"{path.relative_to(source).as_posix()} {what}\n".encode())
    return total.hexdigest()
