"""Keep what a benchmark measured: `python benchmarks/NAME.py ... --record` writes `benchmarks/results/NAME.json`.

A benchmark prints Markdown tables and lines of text. `recorded` reads them while they are printed, finds in `claims.py` what
each is the measure of, and adds the command, commit, date and machine. Without `--record` nothing is written. `page.py` makes the
page of all results.
"""

import contextlib
import datetime
import io
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from claims import CLAIMS, Table

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
FIELDS = ("claim", "command", "commit", "date", "machine", "number", "bar", "verdict", "note")


class _Both(io.StringIO):
    """What is written goes to another stream as well."""

    def __init__(self, other: Any):
        super().__init__()
        self.other = other

    def write(self, text: str) -> int:
        self.other.write(text)
        return super().write(text)

    def flush(self) -> None:
        self.other.flush()


@contextlib.contextmanager
def recorded(name: str) -> Iterator[None]:
    """Record what is printed within, if `--record` is among the arguments; the argument is taken away."""
    if "--record" not in sys.argv:
        yield
        return
    sys.argv.remove("--record")
    command = " ".join(["python", f"benchmarks/{name}.py", *sys.argv[1:]])
    with contextlib.redirect_stdout(_Both(sys.stdout)) as printed:
        yield
    rows = judged(name, printed.getvalue())
    record(name, rows, command, RESULTS)
    print(f"{len(rows)} claims recorded in {RESULTS / name}.json; now run benchmarks/page.py")


def tables_of(text: str) -> list[Table]:
    """The Markdown tables in a text; rows without a heading of their own go on with the table before."""
    found: list[Table] = []
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.splitlines()]
        if len(rows) > 1 and set("".join(rows[1])) <= set("-: "):
            found.append(Table(rows[0], rows[2:]))
        elif found:
            found[-1].rows.extend(rows)
    return found


def judged(name: str, text: str) -> list[dict[str, Any]]:
    """The claims of a benchmark that a printed text measures: number, bar and verdict."""
    rows = []
    for claim in CLAIMS[name].claims:
        number: str | Table | None = None
        for table in tables_of(text):
            if re.search(claim.shows, table.markdown(), re.MULTILINE):
                number = table
        if number is None and (line := re.search(claim.shows, text, re.MULTILINE)):
            number = line[1]
        if number is None:
            continue
        value = number if isinstance(number, str) else number._asdict()
        bar, verdict = claim.bar, "none"
        if claim.on_gpu and not is_gpu(machine()):
            bar = ""
        elif claim.holds is not None:
            verdict = "met" if claim.holds(number) else "missed"
        rows.append({"claim": claim.text, "number": value, "bar": bar, "verdict": verdict, "note": claim.note})
    return rows


def record(name: str, rows: list[dict[str, Any]], command: str, folder: Path) -> None:
    """Add records to a benchmark's file; those of the same claim, command and kind of processor are replaced.

    Arguments:
        name: of the benchmark.
        rows: claim, number (a text or a table of columns and rows), bar, verdict (met, missed or none) and note of each.
        command: that printed the numbers.
        folder: of the JSON files.
    """
    path = folder / f"{name}.json"
    old = json.loads(path.read_text()) if path.exists() else []
    where = {"command": command, "commit": commit(), "date": datetime.date.today().isoformat(), "machine": machine()}
    new = [{field: (row | where)[field] for field in FIELDS} for row in rows]
    kept = [one for one in old if _key(one) not in {_key(other) for other in new}]
    path.write_text(as_json(kept + new), encoding="utf-8")


def as_json(records: list[dict[str, Any]]) -> str:
    """JSON with a line for each field and each row of a table."""
    text = json.dumps(records, indent=1, ensure_ascii=False)
    one_list = r'\[\s+((?:"(?:[^"\\]|\\.)*",?\s*)+)\]'
    return re.sub(one_list, lambda found: f"[{re.sub(chr(10) + ' *', ' ', found[1]).strip()}]", text) + "\n"


def _key(one: dict[str, Any]) -> tuple[str, str, bool]:
    return one["claim"], one["command"], is_gpu(one["machine"])


def is_gpu(machine: str) -> bool:
    """Whether a machine's description, as `machine` gives it, begins with an accelerator."""
    return machine.startswith(("NVIDIA", "AMD Instinct"))


def commit() -> str:
    """The commit that is checked out, with a plus where files were changed since."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--abbrev=7", "--dirty=+", "--exclude=*"],
            cwd=HERE, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> str:
    """Processor cores and memory, an accelerator if JAX uses one, versions of Python and JAX."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [f"{len(os.sched_getaffinity(0))} cores of {name}, {memory:.0f} GiB"]
    if "jax" in sys.modules and (device := sys.modules["jax"].devices()[0]).platform != "cpu":
        parts.insert(0, device.device_kind)
    return "; ".join([*parts, f"Python {platform.python_version()}, JAX {version('jax')}"])
