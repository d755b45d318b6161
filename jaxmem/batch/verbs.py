"""The verbs `batch`, `status` and `validate` of the command line."""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxmem.batch.checking import validate
from jaxmem.batch.planning import plan
from jaxmem.batch.records import DONE, FAILED, INTERRUPTED, RUNNING, STATES, WAITING, Check, Plan, State
from jaxmem.batch.running import describe_state, run
from jaxmem.batch.state import status
from jaxmem.types import JaxmemError


def add_verbs(verbs: Any) -> None:
    """Add the verbs of batches to the command line.

    Arguments:
        verbs: what `ArgumentParser.add_subparsers` returned.
    """
    verb = verbs.add_parser("batch", help="every tomogram of a folder or a list; finished ones are skipped")
    verb.add_argument("source", type=Path, metavar="FOLDER|LIST.txt", help="tomograms, or a list with one path a line")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="RUNS", help="folder for the runs")
    verb.add_argument("--config", type=Path, metavar="FILE.toml", help="settings; jaxmem config prints all")
    verb.add_argument("--voxel-size", type=_positive, metavar="A", help="in A; replaces the headers'")
    verb.add_argument("--pattern", metavar="GLOB", help="names to take from the folder, such as '*_rec.mrc'")
    verb.add_argument("--workers", type=_from(1), metavar="N", help="processes here (default: half of the cores)")
    verb.add_argument("--memory-per-worker", type=_positive, metavar="GB", help="a worker that takes more is stopped")
    verb.add_argument("--scheduler", metavar="ADDRESS", help="use the workers of a Dask scheduler that runs already")
    verb.add_argument("--index", type=_from(0), metavar="I", help="with --of: this job of an array, from 0; no Dask")
    verb.add_argument("--of", type=_from(1), metavar="N", help="with --index: how many jobs the array has")
    verb.add_argument("--retry-failed", action="store_true", help="run again what failed before")
    verb.add_argument("--dry-run", action="store_true", help="say what would run, what is done and what failed")
    verb.add_argument("--quiet", action="store_true", help="failures only")
    verb.set_defaults(run_verb=_guarded(_batch))
    verb = verbs.add_parser("status", help="what is done, running, failed or waiting in a folder of runs")
    verb.add_argument("runs", type=Path, metavar="RUNS")
    verb.add_argument("--json", action="store_true", help="as JSON")
    verb.set_defaults(run_verb=_guarded(_status))
    verb = verbs.add_parser("validate", help="look at tomograms before they run")
    verb.add_argument("source", type=Path, metavar="FOLDER|LIST.txt|FILE")
    verb.add_argument("--pattern", metavar="GLOB", help="names to take from the folder")
    verb.add_argument("--voxel-size", type=_positive, metavar="A", help="in A; replaces the headers'")
    verb.add_argument("--json", action="store_true", help="as JSON")
    verb.set_defaults(run_verb=_guarded(_validate))


def _from(least: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least}, got {text!r}")
        return int(text)

    return whole


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
    return value


def _guarded(verb: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Status 2 for a wrong call, as 1 means that tomograms failed."""

    def run_verb(args: argparse.Namespace) -> int:
        try:
            return verb(args)
        except JaxmemError as error:
            print(f"jaxmem: {error}", file=sys.stderr)
            return 2

    return run_verb


def _batch(args: argparse.Namespace) -> int:
    start = time.perf_counter()
    if (args.index is None) != (args.of is None):
        raise JaxmemError("--index and --of belong together; give both or neither")
    share = None if args.index is None else (args.index, args.of)
    if share is not None and (args.workers or args.scheduler or args.memory_per_worker):
        raise JaxmemError("--index runs in this process; leave --workers, --memory-per-worker and --scheduler out")
    if args.config is not None and not args.config.is_file():
        raise JaxmemError(f"{args.config}: no such file; check the name given with --config")
    planned = plan(args.source, args.output, pattern=args.pattern, retry_failed=args.retry_failed, share=share)
    config = None
    if args.config is not None and (planned.todo or args.dry_run):
        from jaxmem.pipeline import load_config

        config = load_config(args.config)
    if args.dry_run:
        return _dry(planned)

    def tell(line: str) -> None:
        if not args.quiet or ": failed: " in line:
            print(line, file=sys.stderr, flush=True)

    tell(_counts(planned))
    ended = run(
        planned,
        config,
        voxel_size=args.voxel_size,
        arguments=args.arguments,
        workers=args.workers,
        memory_per_worker=args.memory_per_worker,
        scheduler=args.scheduler,
        in_process=share is not None,
        tell=tell,
    )
    return _summary(planned, ended, time.perf_counter() - start)


def _counts(planned: Plan) -> str:
    """How many tomograms there are, and what is to be done with them."""
    parts = [f"{planned.count(DONE)} done before"]
    if count := planned.count(FAILED):
        parts.append(f"{count} failed before (--retry-failed runs them again)")
    if count := planned.count(RUNNING):
        parts.append(f"{count} running in another process")
    return f"{len(planned.todo) + len(planned.skipped)} tomograms: {', '.join(parts)}, {len(planned.todo)} to run"


def _dry(planned: Plan) -> int:
    for item in planned.todo:
        print(f"to run   {item.name}  ({item.source})")
    for state in planned.skipped:
        print(f"{state.state:8s} {describe_state(state)}")
    print(_counts(planned))
    return 0


def _summary(planned: Plan, ended: list[State], seconds: float) -> int:
    failed = planned.count(FAILED) + sum(state.state == FAILED for state in ended)
    done = planned.count(DONE) + sum(state.state == DONE for state in ended)
    elsewhere = len(planned.skipped) + len(ended) - failed - done
    start = f"{len(ended)} run in {seconds:.0f} s" if ended else "nothing to do"
    words = f"{start}: {done} done, {failed} failed" + (f", {elsewhere} running elsewhere" if elsewhere else "")
    why = f"; `jaxmem status {planned.runs}` says why" if failed else ""
    print(f"{words}{why}; tables: {planned.runs / 'tomograms.csv'}, {planned.runs / 'membranes.csv'}")
    return 1 if failed else 0


def _status(args: argparse.Namespace) -> int:
    states = status(args.runs)
    if args.json:
        print(json.dumps([state._asdict() for state in states], indent=2))
        return 0
    for state in states:
        if state.state in (RUNNING, FAILED, INTERRUPTED):
            print(f"{state.state:11s} {_detail(state)}")
    for kind in (WAITING, DONE):
        names = [state.name for state in states if state.state == kind]
        if names:
            print(f"{kind:11s} {_short(names)}")
    counts = [
        f"{sum(s.state == kind for s in states)} {kind}" for kind in STATES if any(s.state == kind for s in states)
    ]
    print(f"{len(states)} tomograms: {', '.join(counts)}" if states else f"{args.runs}: no runs in it yet")
    return 0


def _detail(state: State) -> str:
    line = describe_state(state)
    if state.state == FAILED:
        return line.replace(": failed: ", ": ", 1)
    return line.replace(f": {state.state}", "", 1)


def _short(names: list[str], shown: int = 10) -> str:
    more = f", and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _validate(args: argparse.Namespace) -> int:
    found = validate(args.source, pattern=args.pattern, voxel_size=args.voxel_size)
    if args.json:
        checks = list(found)
        print(json.dumps([check._asdict() for check in checks], indent=2))
        return int(any(check.problems for check in checks))
    form = "{:32s} {:>18s} {:>7s} {:>8s} {:>11s} {:>11s} {:>7s} {:>9s} {:>7s}"
    print(form.format("tomogram", "x y z", "A", "dtype", "mean", "std", "blank", "memory GB", "disk GB"))
    checks = []
    for check in found:  # shown as they are looked at
        checks.append(check)
        print(form.format(*_cells(check)), flush=True)
    for check in checks:
        for problem in check.problems:
            print(problem)
    bad = sum(bool(check.problems) for check in checks)
    disk = sum(check.disk or 0 for check in checks)
    print(f"{len(checks)} tomograms, {bad} with problems; their runs take about {disk / 1e9:.1f} GB of disk")
    return int(bad > 0)


def _cells(check: Check) -> list[str]:
    def number(value: float | int | None, form: str, factor: float = 1.0) -> str:
        return "-" if value is None else format(value * factor, form)

    shape = "-" if check.shape is None else " x ".join(str(n) for n in check.shape[::-1])
    return [
        Path(check.source).name, shape, number(check.voxel_size, ".2f"), check.dtype or "-", number(check.mean, ".4g"),
        number(check.std, ".4g"), number(check.constant, ".0%"), number(check.memory, ".1f", 1e-9), number(check.disk, ".1f", 1e-9),
    ]  # fmt: skip
