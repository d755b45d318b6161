"""Tables over all runs of a folder, written row by row."""

import contextlib
import csv
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxmem.batch.disk import HOST, replaced
from jaxmem.batch.records import DONE
from jaxmem.batch.state import status
from jaxmem.types import JaxmemError

TOMOGRAMS = ("tomogram", "status", "membranes", "seconds", "peak_memory_bytes", "reason", "source")
"""Columns of `tomograms.csv`."""

_WORDS = ("tomogram", "model", "status", "reason", "source")  # columns of text; the others are numbers


def write_tables(runs: str | Path) -> list[Path]:
    """Write `membranes.csv` and `tomograms.csv` of a folder of runs, and the same as Parquet where pyarrow is installed.

    A row of `membranes.csv` is one membrane: the tomogram's name, and the columns of its run. A row of `tomograms.csv` is
    one tomogram.

    Arguments:
        runs: folder of the runs.

    Returns:
        The files.

    Raises:
        JaxmemError: if the folder cannot be read or written.
    """
    runs = Path(runs)
    states = status(runs)
    try:
        with _alone(runs):
            files = [
                _csv(runs / "membranes.csv", *_membranes(runs, [s.name for s in states if s.state == DONE])),
                _csv(runs / "tomograms.csv", TOMOGRAMS, (_row(state) for state in status(runs))),
            ]
            if importlib.util.find_spec("pyarrow") is not None:
                files += [_parquet(path) for path in list(files)]
    except OSError as error:
        raise JaxmemError(
            f"{runs}: the tables cannot be written ({error.strerror}); make room or mend its permissions"
        ) from None
    return files


@contextlib.contextmanager
def _alone(runs: Path) -> Iterator[None]:
    """Jobs of an array write one after the other, so that the last one sees all runs; without locks, all the same."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (runs / ".tables.lock").open("w") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _row(state: Any) -> dict[str, Any]:
    values = (state.name, state.state, state.membranes, state.seconds, state.peak_memory, state.reason, state.source)
    return {name: "" if value is None else value for name, value in zip(TOMOGRAMS, values)}


def _membranes(runs: Path, names: list[str]) -> tuple[list[str], Iterator[dict[str, Any]]]:
    """Columns of all runs, in the order in which they first appear, and the rows."""
    tables = [(name, path) for name in names if (path := runs / name / "membranes.csv").exists()]
    columns = ["tomogram"]
    for _, path in tables:
        with path.open(newline="", encoding="utf-8") as file:
            columns += [column for column in next(csv.reader(file), []) if column not in columns]

    def rows() -> Iterator[dict[str, Any]]:
        for name, path in tables:
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    yield {"tomogram": name} | {key: value for key, value in row.items() if key is not None}

    return columns, rows()


def _csv(path: Path, columns: Any, rows: Iterator[dict[str, Any]]) -> Path:
    with replaced(path) as file:
        writer = csv.DictWriter(file, list(columns), restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _parquet(path: Path) -> Path:
    """The same table as Parquet, a block at a time."""
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    with path.open(newline="", encoding="utf-8") as file:
        columns = next(csv.reader(file))
    kinds = {c: pyarrow.string() if c in _WORDS else pyarrow.float64() for c in columns}
    target = path.with_suffix(".parquet")
    partial = target.with_name(f".{target.name}-{HOST}-{os.getpid()}")
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    converting = pyarrow.csv.ConvertOptions(column_types=kinds, strings_can_be_null=False)
    try:
        with (
            pyarrow.csv.open_csv(path, parse_options=parsing, convert_options=converting) as blocks,
            pyarrow.parquet.ParquetWriter(partial, blocks.schema) as writer,
        ):
            for block in blocks:
                writer.write_batch(block)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target
