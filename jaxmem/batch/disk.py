"""What a batch leaves on the disk beside its runs: locks, failures and the list of inputs; all written at once or not at all."""

import contextlib
import json
import os
import platform
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from jaxmem.batch.records import DONE, FAILED, INTERRUPTED, RUNNING, WAITING, Item, State
from jaxmem.types import JaxmemError

HOST = platform.node()


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[IO[str]]:
    """A text file that takes the place of `path` when it is complete; nothing is left behind if writing fails."""
    partial = path.with_name(f".{path.name}-{HOST}-{os.getpid()}")
    try:
        with partial.open("w", newline="", encoding="utf-8") as file:
            yield file
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file; empty if the file is missing or holds something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, value: object) -> None:
    """Write a JSON file at once."""
    with replaced(path) as file:
        file.write(json.dumps(value, indent=2) + "\n")


def now() -> str:
    """The time, as it is written to files."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def manifest_of(runs: Path, name: str) -> Path:
    """The file that every finished run has."""
    return runs / name / "manifest.json"


def failure_of(runs: Path, name: str) -> Path:
    """The file that says why a tomogram failed."""
    return runs / f"{name}.failed.json"


def is_alive(pid: int) -> bool:
    """Whether this machine has such a process."""
    if pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def state_of(runs: Path, name: str, source: str = "") -> State:
    """What has become of a tomogram, from what is on the disk.

    A lock of another machine is believed. One of this machine counts while its process lives.

    Arguments:
        runs: folder of the runs.
        name: of the run.
        source: the tomogram's file, to be handed through.
    """
    if manifest_of(runs, name).exists():
        manifest = read_json(manifest_of(runs, name))
        seconds = manifest.get("seconds")
        total = round(sum(seconds.values()), 1) if isinstance(seconds, dict) else None
        memory = manifest.get("peak_memory_bytes")
        return State(name, DONE, source or str(manifest.get("input") or ""), manifest.get("membranes"), total, memory)
    partial = runs / f"{name}.partial"
    lock = read_json(partial / "lock.json")
    host, pid, since = str(lock.get("host", "")), lock.get("pid"), str(lock.get("since", ""))
    pid = pid if isinstance(pid, int) else None
    if pid is not None and (host != HOST or is_alive(pid)):
        return State(name, RUNNING, source, host=host, pid=pid, since=since)
    if failure_of(runs, name).exists():
        failure = read_json(failure_of(runs, name))
        reason, where, when = (str(failure.get(key, "")) for key in ("reason", "host", "date"))
        return State(name, FAILED, source or str(failure.get("source", "")), reason=reason, host=where, since=when)
    return State(name, INTERRUPTED if partial.exists() else WAITING, source, host=host, pid=pid, since=since)


def failed_in(runs: Path, name: str, token: str) -> bool:
    """Whether a tomogram has failed in the batch of this token."""
    return bool(token) and read_json(failure_of(runs, name)).get("batch") == token


def describe(error: BaseException) -> str:
    """One line that says what went wrong."""
    text = str(error).strip()
    line = text.splitlines()[0] if text else ""
    if isinstance(error, JaxmemError):
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def record_failure(runs: Path, item: Item, reason: str, error: BaseException | None = None, token: str = "") -> None:
    """Write down why a tomogram failed; a full disk is no new error.

    Arguments:
        runs: folder of the runs.
        item: the tomogram.
        reason: one line.
        error: if any; its traceback is written unless the input was at fault.
        token: of the batch.
    """
    record = {"reason": reason, "date": now(), "host": HOST, "source": str(item.source), "batch": token}
    if error is not None and not isinstance(error, JaxmemError):
        record["traceback"] = "".join(traceback.format_exception(error))
    with contextlib.suppress(OSError):
        write_json(failure_of(runs, item.name), record)


def recorded_inputs(runs: Path) -> list[Item]:
    """The inputs of all batches that wrote to a folder."""
    entries = read_json(runs / "batch.json").get("inputs")
    pairs = [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
    return [Item(str(e["name"]), Path(e["source"])) for e in pairs if "name" in e and "source" in e]


def record_inputs(runs: Path, inputs: list[Item], arguments: tuple[str, ...]) -> None:
    """Make the folder and write down what belongs to it; inputs of earlier batches stay while they or their runs exist.

    Raises:
        JaxmemError: if the folder cannot be made or written.
    """
    try:
        runs.mkdir(parents=True, exist_ok=True)
        names = {item.name for item in inputs}
        earlier = [item for item in recorded_inputs(runs) if item.name not in names]
        kept = [i for i in earlier if i.source.exists() or state_of(runs, i.name).state != WAITING]
        everything = sorted([*inputs, *kept])
        entries = [{"name": item.name, "source": str(item.source)} for item in everything]
        write_json(runs / "batch.json", {"date": now(), "host": HOST, "arguments": list(arguments), "inputs": entries})
    except OSError as error:
        raise JaxmemError(f"{runs}: cannot be written ({error.strerror}); choose another folder with -o") from None
