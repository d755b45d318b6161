"""Write the page of all results: `python benchmarks/page.py` makes `benchmarks/RESULTS.md` of the JSON files in `benchmarks/results`."""

import json
from pathlib import Path
from typing import Any

from claims import CLAIMS, Table
from record import RESULTS

PAGE = Path(__file__).resolve().parent / "RESULTS.md"
LIMITS = PAGE.with_name("limits.md")
INTRO = """# Results

`python benchmarks/page.py` writes this page from `benchmarks/results/*.json`; a benchmark writes its file when `--record` is among its
arguments. A claim has a bar where one was asked for. Numbers that are tables stand below the claims. Commits are those
that were checked out, with a plus where files had been changed since. Most settings were chosen between a few: see `docs/decisions.md`.
"""


def render(folder: Path = RESULTS) -> str:
    """The page as Markdown."""
    found = {
        name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in CLAIMS
        if (folder / f"{name}.json").exists()
    }
    machines = list(dict.fromkeys(one["machine"] for records in found.values() for one in records))
    parts = [INTRO, "Machines:\n"]
    parts += [f"- {_letter(machines, machine)}: {machine}" for machine in machines]
    for name, records in found.items():
        parts += [f"\n## {CLAIMS[name].title}\n", CLAIMS[name].about, ""]
        parts += _claims(records, machines)
        parts += [text for one in records for text in _detail(one, machines)]
    missed = [
        f"- {one['claim']} (`{one['command']}`): missed; the bar is {one['bar']}."
        for records in found.values()
        for one in records
        if one["verdict"] == "missed"
    ]
    parts += ["\n## Known limits\n", *missed, LIMITS.read_text(encoding="utf-8").strip()]
    return "\n".join(parts) + "\n"


def _letter(machines: list[str], machine: str) -> str:
    return chr(ord("A") + machines.index(machine))


def _claims(records: list[dict[str, Any]], machines: list[str]) -> list[str]:
    """The table of a benchmark's claims."""
    head = ["claim", "number", "bar", "verdict", "command", "commit, date", "machine"]
    rows = []
    for one in records:
        number = one["number"] if isinstance(one["number"], str) else "table below"
        verdict = {"none": "-"}.get(one["verdict"], one["verdict"])
        rows.append([one["claim"], number, one["bar"] or "-", verdict, f"`{one['command']}`", f"{one['commit']}, {one['date']}",
                     _letter(machines, one["machine"])])  # fmt: skip
    return [Table(head, rows).markdown()]


def _detail(one: dict[str, Any], machines: list[str]) -> list[str]:
    """A claim's table and note, if it has any."""
    if isinstance(one["number"], str):
        return [f"\n{one['claim']} ({_letter(machines, one['machine'])}): {one['note']}"] if one["note"] else []
    title = f"\n**{one['claim']}** (`{one['command']}`, {_letter(machines, one['machine'])})"
    return [" ".join(filter(None, [f"{title}.", one["note"]])), "", Table(**one["number"]).markdown()]


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    print(PAGE)
