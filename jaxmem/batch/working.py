"""What happens with one tomogram, in the process that works on it."""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from jaxmem.batch.disk import HOST, describe, failed_in, failure_of, manifest_of, record_failure, state_of
from jaxmem.batch.records import DONE, FAILED, RUNNING, Item, Job, State
from jaxmem.types import JaxmemError

_ONE = threading.Lock()  # a worker with more threads still takes one tomogram at a time
_MOST = 2e9  # bytes that a worker may hold between tomograms; compiled programs take megabytes each


def dask_setup(worker: Any) -> None:
    """Called by Dask in each worker of this machine: an interruption is for the command alone, which then ends its workers."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def segment_quietly(
    source: Path, target: Path, config: Any = None, *, voxel_size: float | None = None, arguments: Sequence[str] = ()
) -> int:
    """`pipeline.segment_file` without bars and log lines, which would mix with those of other workers.

    Arguments:
        source, target, config: tomogram, the run's folder, settings.
        voxel_size: A; replaces the header's.
        arguments: of the command, for the manifest.

    Returns:
        The number of membranes.
    """
    from jaxmem.console import prepare
    from jaxmem.pipeline import segment_file

    prepare(quiet=True)
    logging.getLogger("jaxmem").setLevel(logging.ERROR)  # warnings are in the manifest
    try:
        return segment_file(source, target, config, voxel_size=voxel_size, arguments=arguments)
    finally:
        _tidy()


def _tidy() -> None:
    """Drop compiled programs where they have filled the memory; the compilation cache keeps their files."""
    pages = Path("/proc/self/statm")
    if pages.exists() and int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > _MOST:
        import jax

        jax.clear_caches()


def attempt(job: Job, item: Item, runs: Path) -> State:
    """Run one tomogram; whatever goes wrong is recorded and returned, not raised.

    Arguments:
        job: what to do.
        item: the tomogram.
        runs: folder of the runs.

    Returns:
        Done, failed, or running in another process, which this one then leaves to it.
    """
    with _ONE:
        return _attempt(job, item, runs)


def _attempt(job: Job, item: Item, runs: Path) -> State:
    source = str(item.source)
    if not runs.is_dir():
        reason = f"{runs}: not there on {HOST}; workers need the same folders under the same names"
        return State(item.name, FAILED, source, reason=reason)
    before = state_of(runs, item.name, source)
    if before.state == DONE or (before.state == RUNNING and before.host == HOST and before.pid != os.getpid()):
        return before  # done by a worker that was lost before it could say so
    if failed_in(runs, item.name, job.token):
        return before
    start = time.perf_counter()
    try:
        # JAX's own threads are enough, see `cli.main`
        with threadpool_limits(1, user_api="blas"):
            count = job.task(
                item.source, runs / item.name, job.config, voxel_size=job.voxel_size, arguments=job.arguments
            )
    except (Exception, SystemExit) as error:
        after = state_of(runs, item.name, source)
        if isinstance(error, JaxmemError) and (
            after.state == DONE or (after.state == RUNNING and (after.host, after.pid) != (HOST, os.getpid()))
        ):
            return after  # another process holds the lock
        if after.state == RUNNING:  # the lock is ours, and this process lives on
            with contextlib.suppress(OSError):
                (runs / f"{item.name}.partial" / "lock.json").unlink()
        reason = describe(error)
        record_failure(runs, item, reason, error, job.token)
        return State(item.name, FAILED, source, reason=reason, host=HOST)
    with contextlib.suppress(OSError):
        failure_of(runs, item.name).unlink(missing_ok=True)
    if not manifest_of(runs, item.name).exists():
        reason = f"{runs / item.name}: the run ended without a manifest; run it again"
        record_failure(runs, item, reason, token=job.token)
        return State(item.name, FAILED, source, reason=reason, host=HOST)
    state = state_of(runs, item.name, source)
    seconds = round(time.perf_counter() - start, 1) if state.seconds is None else state.seconds
    return state._replace(membranes=int(count), seconds=seconds)
