"""The tomograms of a batch on the workers of Dask: some processes of this machine, or those of a scheduler that runs already."""

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from jaxmem.batch.disk import describe, failed_in, record_failure, state_of
from jaxmem.batch.needs import most_memory
from jaxmem.batch.records import DONE, FAILED, Item, Job, Plan, State
from jaxmem.batch.working import attempt
from jaxmem.types import JaxmemError

log = logging.getLogger("jaxmem")

_TRIES = 3  # workers that one tomogram may take with it
_PATIENCE = 10  # seconds for a scheduler to answer
_STARTING = "only join a started process"  # what distributed says then
_CLOSINGS, _PAUSE = 3, 1.0  # how often closing is tried, and seconds in between
_LOCAL = {
    "distributed.scheduler.allowed-failures": _TRIES - 1,
    "distributed.scheduler.worker-saturation": 1.0,  # a tomogram waits for a worker, not at one that may be killed
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.worker-ttl": None,  # compilation can keep a worker from answering for minutes
    # nothing can be moved to the disk, and a paused worker would never go on
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.preload": ["jaxmem.batch.working"],  # calls its `dask_setup`
}


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise JaxmemError(
            "Dask is not installed, which runs batches; pip install 'jaxmem[batch]', or give --index 0 --of 1 to do without"
        ) from None
    return distributed


def cores_of_this_process() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def choose_workers(
    asked: int | None, cores: int, free: float | int, needed: float | int, tomograms: int
) -> tuple[int, str]:
    """How many workers this machine gets, and a line that says so.

    Arguments:
        asked: by the user; half of the cores when None.
        cores: of this machine.
        free: bytes of memory.
        needed: bytes for one tomogram.
        tomograms: that are to run.

    Returns:
        At least one worker, and the line.

    Example:
        >>> choose_workers(None, 8, 20e9, 6e9, 100)
        (3, '3 workers of 2 cores each (20.0 GB of memory are free, a tomogram needs about 6.0 GB)')
    """
    wanted = asked or max(1, cores // 2)
    fitting = int(free // needed)
    number = max(1, min(wanted, fitting, tomograms))
    each = max(1, cores // number)
    line = f"{number} worker{'s' * (number > 1)} of {each} core{'s' * (each > 1)} each"
    line += f" ({free / 1e9:.1f} GB of memory are free, a tomogram needs about {needed / 1e9:.1f} GB)"
    return number, line + ("; this may not be enough" if fitting < 1 else "")


def _settle(cores: list[list[int]]) -> None:
    """Give this worker its own cores: JAX makes as many threads as its first caller may use cores."""
    name = _distributed().get_worker().name
    if cores and isinstance(name, int) and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cores[name % len(cores)])


def _work(job: Job, item: Item, runs: Any, cores: list[list[int]]) -> State:
    _settle(cores)
    return attempt(job, item, runs)


def on_dask(
    planned: Plan,
    job: Job,
    *,
    workers: int | None = None,
    memory_per_worker: float | None = None,
    scheduler: str | None = None,
    tell: Callable[[str], None],
) -> Iterator[State]:
    """Run what is to do, and yield the state of each tomogram as it ends.

    A tomogram whose worker is killed is run again by another; after three workers it has failed.

    Arguments:
        planned: what is to run, and where.
        job: what is done with each tomogram.
        workers: processes on this machine; decided when None.
        memory_per_worker: GB; estimated when None. A worker that takes more is stopped.
        scheduler: address of a scheduler whose workers are used instead.
        tell: called with a line about the workers.

    Raises:
        JaxmemError: if Dask is not installed, or the scheduler is not there or goes away.
    """
    distributed = _distributed()
    runs = planned.runs.absolute()
    with contextlib.ExitStack() as stack:
        cores: list[list[int]] = []
        if scheduler is None:
            needed = memory_per_worker * 1e9 if memory_per_worker else most_memory([i.source for i in planned.todo])
            from jaxmem.pipeline.needs import free_memory

            here = cores_of_this_process()
            number, line = choose_workers(workers, len(here), free_memory(), needed, len(planned.todo))
            each = max(1, len(here) // number)
            cores = [[here[(k * each + j) % len(here)] for j in range(each)] for k in range(number)]
            tell(line)
            client = stack.enter_context(_local(distributed, number, memory_per_worker))
        else:
            client = stack.enter_context(_remote(distributed, scheduler))
            count = len(client.nthreads())
            tell(
                f"{scheduler}: {count} worker{'s' * (count != 1)}" + ("; waiting until one comes" if not count else "")
            )
        job = job._replace(token=uuid.uuid4().hex[:8])
        futures = {
            client.submit(_work, job, item, runs, cores, key=f"jaxmem-{job.token}-{item.name}", pure=False): item
            for item in planned.todo
        }
        for future in distributed.as_completed(futures):
            yield _ended(distributed, future, futures[future], planned, job, scheduler or "Dask")
            future.release()


@contextlib.contextmanager
def _local(distributed: Any, number: int, memory: float | None) -> Iterator[Any]:
    """A client of processes on this machine; each is started again when it dies."""
    import dask

    limit = int(memory * 1e9) if memory else 0
    with dask.config.set(_LOCAL), contextlib.ExitStack() as stack:
        try:
            cluster = distributed.LocalCluster(
                n_workers=number,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=":0",
                memory_limit=limit,
                silence_logs=logging.CRITICAL,
            )
            stack.callback(_close, cluster)
            client = distributed.Client(cluster)
        except (OSError, RuntimeError) as error:
            raise JaxmemError(
                f"Dask: the workers cannot be started ({describe(error)}); try --workers 1, or --index 0 --of 1 to do without"
            ) from None
        yield stack.enter_context(client)


def _close(cluster: Any) -> None:
    """End the processes; one that is just being started again cannot be joined yet, which is an assertion of distributed's."""
    for _ in range(_CLOSINGS):
        try:
            cluster.close()
            return
        except AssertionError as error:
            if _STARTING not in str(error):
                raise
            time.sleep(_PAUSE)
    log.warning("Dask: a process that was being started could not be closed; it ends with this one")


@contextlib.contextmanager
def _remote(distributed: Any, address: str) -> Iterator[Any]:
    """A client of a scheduler that runs already."""
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what goes wrong is said in one line here
    try:
        client = distributed.Client(address, timeout=_PATIENCE)
    except (OSError, ValueError, TypeError):
        raise JaxmemError(f"{address}: no Dask scheduler answers; check the address, and that it runs") from None
    with client:
        yield client


def _ended(distributed: Any, future: Any, item: Item, planned: Plan, job: Job, scheduler: str) -> State:
    """The state of a tomogram whose task has ended; what its worker could not record is recorded here.

    The disk is asked first: a result is lost when its worker is killed by a later tomogram.
    """
    runs, source = planned.runs, str(item.source)
    found = state_of(runs, item.name, source)
    if found.state == DONE or failed_in(runs, item.name, job.token):
        return found
    try:
        state: State = future.result()
    except (asyncio.CancelledError, concurrent.futures.CancelledError):
        raise JaxmemError(
            f"{scheduler}: the scheduler has gone; what is finished stays, run the same command again to go on"
        ) from None
    except distributed.scheduler.KilledWorker as error:
        reason = f"killed its worker {error.allowed_failures + 1} times (out of memory?)"
        state, cause = State(item.name, FAILED, source, reason=reason), None
    except Exception as error:
        state, cause = State(item.name, FAILED, source, reason=describe(error)), error
    else:
        cause = None
    if state.state == FAILED and not failed_in(runs, item.name, job.token):
        record_failure(runs, item, state.reason, cause, job.token)
    return state
