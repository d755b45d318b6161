"""What the functions of a batch pass to each other."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

DONE, RUNNING, FAILED, INTERRUPTED, WAITING = "done", "running", "failed", "interrupted", "waiting"
STATES = (DONE, RUNNING, FAILED, INTERRUPTED, WAITING)
"""What can have become of a tomogram."""


class Item(NamedTuple):
    """One tomogram of a batch.

    Attributes:
        name: of its run: the folder in RUNS.
        source: the tomogram's file, or its Zarr directory.
    """

    name: str
    source: Path


class State(NamedTuple):
    """What has become of one tomogram.

    Attributes:
        name: of its run.
        state: one of `STATES`.
        source: the tomogram's file, as far as it is known.
        membranes: how many were found.
        seconds: that the run took.
        peak_memory: bytes, where the run's manifest has it.
        reason: why it failed.
        host, pid, since: of the process that runs it, or ran it when it was interrupted or failed.
    """

    name: str
    state: str
    source: str = ""
    membranes: int | None = None
    seconds: float | None = None
    peak_memory: int | None = None
    reason: str = ""
    host: str = ""
    pid: int | None = None
    since: str = ""


class Plan(NamedTuple):
    """What a batch would do.

    Attributes:
        runs: folder of the runs.
        inputs: every tomogram of the batch, sorted by name.
        todo: those that are to run here.
        skipped: states of those that are not: done, running in another process, or failed before.
    """

    runs: Path
    inputs: list[Item]
    todo: list[Item]
    skipped: list[State]

    def count(self, state: str) -> int:
        """How many of the skipped are in a state."""
        return sum(one.state == state for one in self.skipped)


class Job(NamedTuple):
    """What is done with each tomogram.

    Attributes:
        task: called as `task(source, target, config, voxel_size=..., arguments=...)`; returns the number of membranes.
        config: settings; the defaults when None.
        voxel_size: A; replaces the headers'.
        arguments: of the command, for the manifests.
        token: of this batch: what failed under it is not tried again when Dask repeats a task whose result was lost.
    """

    task: Callable[..., int]
    config: object = None
    voxel_size: float | None = None
    arguments: tuple[str, ...] = ()
    token: str = ""


class Check(NamedTuple):
    """What can be said about a tomogram before it runs.

    Attributes:
        source: the file.
        shape: voxels, zyx.
        voxel_size: A.
        dtype: of the voxels.
        mean, std: over a few slices.
        constant: share of these slices that hold one value only.
        nan: share of their voxels that are not finite.
        memory: bytes that a run needs, roughly.
        disk: bytes that its files need, roughly.
        problems: one line each; none if the tomogram can run.
    """

    source: str
    shape: tuple[int, int, int] | None = None
    voxel_size: float | None = None
    dtype: str = ""
    mean: float | None = None
    std: float | None = None
    constant: float | None = None
    nan: float | None = None
    memory: int | None = None
    disk: int | None = None
    problems: tuple[str, ...] = ()
