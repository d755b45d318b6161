"""The folder of an unfinished run: one process at a time works there."""

import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from jaxmem.types import JaxmemError


@contextmanager
def working_folder(target: Path) -> Iterator[Path]:
    """`TARGET.partial`, locked for this process; it goes when the run is complete, and stays when it is not.

    Raises:
        JaxmemError: if another process holds it, or it cannot be written.
    """
    partial = target.with_name(target.name + ".partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        file = open(partial / "lock.json", "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise JaxmemError(f"{partial}: cannot be written ({error.strerror}); choose another folder") from None
    with file:
        if not _locked(file):
            file.seek(0)
            try:
                holder = json.loads(file.read())
            except ValueError:
                holder = {"pid": "unknown", "host": "an unknown host", "since": "just now"}
            raise JaxmemError(
                f"{target}: process {holder['pid']} on {holder['host']} is at work there since {holder['since']}; wait for it or choose another folder"
            )
        file.truncate(0)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        json.dump({"host": platform.node(), "pid": os.getpid(), "since": since}, file)
        file.flush()
        try:
            yield partial
        except BaseException:
            if not (partial / "pieces").exists():
                shutil.rmtree(partial, ignore_errors=True)  # nothing was finished
            raise
        shutil.rmtree(partial, ignore_errors=True)


def _locked(file: IO[str]) -> bool:
    """Lock a file until it is closed or the process ends; False if another process holds it. Windows has no such lock: True."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
