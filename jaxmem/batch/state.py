"""What has become of each tomogram of a batch, from what is on the disk alone."""

import os
from pathlib import Path

from jaxmem.batch.disk import recorded_inputs, state_of
from jaxmem.batch.records import State
from jaxmem.types import JaxmemError


def status(runs: str | Path) -> list[State]:
    """What is done, running, failed, interrupted or waiting in a folder of runs.

    Arguments:
        runs: folder that `jaxmem batch -o` wrote; single runs in it count as well.

    Returns:
        A state for each tomogram, sorted by name. Waiting ones are known from `batch.json`.

    Raises:
        JaxmemError: if the folder is missing or cannot be read.
    """
    runs = Path(runs)
    sources = {item.name: str(item.source) for item in recorded_inputs(runs)}
    names = set(sources)
    try:
        for entry in os.scandir(runs):
            if entry.name.startswith("."):
                continue
            if entry.name.endswith(".failed.json"):
                names.add(entry.name.removesuffix(".failed.json"))
            elif entry.is_dir() and entry.name.endswith(".partial"):
                names.add(entry.name.removesuffix(".partial"))
            elif entry.is_dir() and os.path.exists(os.path.join(entry.path, "manifest.json")):
                names.add(entry.name)
    except OSError as error:
        raise JaxmemError(f"{runs}: cannot be read ({error.strerror}); give the folder of `jaxmem batch -o`") from None
    return [state_of(runs, name, sources.get(name, "")) for name in sorted(names)]
