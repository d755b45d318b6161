"""One tomogram from file to folder."""

import json
import os
import platform
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jaxmem.io import OutputFolder, read_mrc
from jaxmem.pipeline.files import write_run
from jaxmem.pipeline.stages import segment
from jaxmem.settings import Config


def segment_file(
    source: str | Path,
    target: str | Path,
    config: Config | None = None,
    *,
    voxel_size: float | None = None,
    overwrite: bool = False,
    progress: Any = None,
    arguments: Sequence[str] = (),
) -> int:
    """Find the membranes of a file and write the run's folder.

    Arguments:
        source: the tomogram's file.
        target: the run's folder.
        config: all settings; the defaults when None.
        voxel_size: A; replaces the header's.
        overwrite: replace an earlier run.
        progress: told how far each stage is.
        arguments: of the command, for the manifest.

    Returns:
        The number of membranes.

    Raises:
        JaxmemError: if the file cannot be read or the folder cannot be written.
    """
    target = Path(target)
    OutputFolder(target, overwrite).check()
    tomogram = read_mrc(source, voxel_size)
    partial = target.with_name(target.name + ".partial")
    partial.mkdir(exist_ok=True)
    lock = {"host": platform.node(), "pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    (partial / "lock.json").write_text(json.dumps(lock), encoding="utf-8")
    result = segment(tomogram, config, progress, keep_surfaces=False)
    write_run(target, result, tomogram, source=source, overwrite=overwrite, arguments=arguments)
    shutil.rmtree(partial, ignore_errors=True)
    return len(result.membranes)
