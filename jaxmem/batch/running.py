"""Running a batch: workers or this process, a line for each tomogram, and the tables at the end."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jaxmem.batch.cluster import on_dask
from jaxmem.batch.disk import record_inputs
from jaxmem.batch.records import DONE, FAILED, Job, Plan, State
from jaxmem.batch.tables import write_tables
from jaxmem.batch.working import attempt, segment_quietly


def run(
    planned: Plan,
    config: Any = None,
    *,
    voxel_size: float | None = None,
    arguments: Sequence[str] = (),
    workers: int | None = None,
    memory_per_worker: float | None = None,
    scheduler: str | None = None,
    in_process: bool = False,
    task: Callable[..., int] = segment_quietly,
    tell: Callable[[str], None] | None = None,
) -> list[State]:
    """Run what a plan has to do; a tomogram that fails is recorded and does not stop the rest.

    Beside the runs it writes `batch.json` with the inputs, `NAME.failed.json` for each failure, and the tables over all
    runs. Calling it again with a new plan goes on where it was stopped.

    Arguments:
        planned: from `plan`.
        config: settings; the defaults when None.
        voxel_size: A; replaces the headers'.
        arguments: of the command, for the manifests.
        workers: processes on this machine; decided from cores and memory when None.
        memory_per_worker: GB; estimated when None. A worker that takes more is stopped.
        scheduler: address of a Dask scheduler whose workers are used instead of this machine.
        in_process: run one tomogram after the other in this process, without Dask.
        task: what is done with each; called like `pipeline.segment_file`, and importable by the workers.
        tell: called with a line for each thing that is worth one.

    Returns:
        The state of each tomogram that was to do, in the order in which they ended.

    Raises:
        JaxmemError: if the folder cannot be written, Dask is not installed, or the scheduler is not there or goes away.
    """
    say = tell or (lambda line: None)
    job = Job(task, config, voxel_size, tuple(arguments))
    record_inputs(planned.runs, planned.inputs, tuple(arguments))
    ended: list[State] = []
    states: Iterator[State] = iter(())
    if planned.todo and in_process:
        states = (attempt(job, item, planned.runs.absolute()) for item in planned.todo)
    elif planned.todo:
        states = on_dask(
            planned, job, workers=workers, memory_per_worker=memory_per_worker, scheduler=scheduler, tell=say
        )
    for state in states:
        ended.append(state)
        say(f"[{len(ended)}/{len(planned.todo)}] {describe_state(state)}")
    write_tables(planned.runs)
    return ended


def describe_state(state: State) -> str:
    """One line about a tomogram.

    Example:
        >>> describe_state(State("TS_01", "done", membranes=14, seconds=31.2))
        'TS_01: 14 membranes, 31 s'
    """
    if state.state == DONE:
        time = "" if state.seconds is None else f", {state.seconds:.0f} s"
        return f"{state.name}: {'?' if state.membranes is None else state.membranes} membranes{time}"
    if state.state == FAILED:
        return f"{state.name}: failed: {state.reason}"
    where = f" ({state.host}, process {state.pid}, since {state.since})" if state.pid is not None else ""
    return f"{state.name}: {state.state}{where}"
