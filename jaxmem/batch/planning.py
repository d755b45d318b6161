"""What a batch has to do, from the names of its inputs and what lies in its folder; JAX is not needed for it."""

from pathlib import Path

from jaxmem.batch.disk import HOST, recorded_inputs, state_of
from jaxmem.batch.inputs import find_inputs, name_runs
from jaxmem.batch.records import DONE, FAILED, RUNNING, Item, Plan, State
from jaxmem.types import JaxmemError


def plan(
    source: str | Path,
    runs: str | Path,
    *,
    pattern: str | None = None,
    retry_failed: bool = False,
    share: tuple[int, int] | None = None,
) -> Plan:
    """Find the tomograms of a batch and say which of them are still to run; nothing is written.

    Finished tomograms are skipped, those that failed as well unless they are to be tried again, and those that another
    process of this machine is at. A run that another machine has locked is tried: the lock itself decides then.

    Arguments:
        source: folder, list or tomogram; see `inputs.find_inputs`.
        runs: folder of the runs; it may be missing.
        pattern: names to take from a folder.
        retry_failed: run again what failed before.
        share: (i, n) takes the tomograms i, i + n, i + 2n, ... of the sorted list, from 0.

    Raises:
        JaxmemError: if nothing is found, two tomograms would get the same run, or the share is none.
    """
    runs = Path(runs)
    if runs.exists() and not runs.is_dir():
        raise JaxmemError(f"{runs}: a file, but the runs need a folder; choose another one with -o")
    inputs = name_runs(find_inputs(source, pattern), recorded_inputs(runs))
    mine = inputs
    if share is not None:
        index, of = share
        if not 0 <= index < of:
            raise JaxmemError(f"--index {index} --of {of}: the index counts from 0 to {of - 1}; mend it")
        mine = inputs[index::of]
    todo: list[Item] = []
    skipped: list[State] = []
    for item in mine:
        state = state_of(runs, item.name, str(item.source))
        busy = state.state == RUNNING and state.host == HOST
        if state.state == DONE or busy or (state.state == FAILED and not retry_failed):
            skipped.append(state)
        else:
            todo.append(item)
    return Plan(runs, inputs, todo, skipped)
