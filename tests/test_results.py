"""The page of results is what its files say, and their verdicts are what the bars say of their numbers."""

import json
import re
import sys
from pathlib import Path

import page
import pytest
import record
from claims import CLAIMS, Table

ROOT = Path(__file__).parents[1]
RECORDS = [(path.stem, one) for path in sorted(record.RESULTS.glob("*.json")) for one in json.loads(path.read_text())]
TABLE = "| imported | median |\n|---|---|\n| pass | 0.03 s |\n| import jaxmem | {} s |\n"


def test_the_page_is_that_of_the_files():
    assert page.PAGE.read_text(encoding="utf-8") == page.render(), "run benchmarks/page.py"


def test_every_file_belongs_to_a_benchmark():
    assert {path.stem for path in record.RESULTS.glob("*.json")} == set(CLAIMS)
    for name in CLAIMS:
        assert f'recorded("{name}")' in (ROOT / "benchmarks" / f"{name}.py").read_text()


@pytest.mark.parametrize(("name", "one"), RECORDS, ids=lambda v: v if isinstance(v, str) else v["claim"][:20])
def test_a_record_is_complete(name, one):
    assert tuple(one) == record.FIELDS
    assert one["command"].split()[:2] == ["python", f"benchmarks/{name}.py"]
    assert re.fullmatch(r"[0-9a-f]{7}\+?( or before)?", one["commit"])
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", one["date"])
    claim = next(c for c in CLAIMS[name].claims if c.text == one["claim"])
    assert one["note"].startswith(claim.note)
    if claim.holds is None or (claim.on_gpu and not record.is_gpu(one["machine"])):
        assert (one["bar"], one["verdict"]) == ("", "none")
    else:
        number = one["number"] if isinstance(one["number"], str) else Table(**one["number"])
        assert (one["bar"], one["verdict"]) == (claim.bar, "met" if claim.holds(number) else "missed")


def measure(monkeypatch, folder, seconds, *options):
    monkeypatch.setattr(record, "RESULTS", folder)
    monkeypatch.setattr(sys, "argv", ["imports.py", *options])
    with record.recorded("imports"):
        print("JAX\n" + TABLE.format(seconds))
    path = folder / "imports.json"
    return json.loads(path.read_text()) if path.exists() else []


def test_what_is_printed_is_recorded(monkeypatch, tmp_path, capsys):
    assert measure(monkeypatch, tmp_path, 0.9) == []
    [one] = measure(monkeypatch, tmp_path, 0.9, "--repeats", "3", "--record")
    assert sys.argv == ["imports.py", "--repeats", "3"]
    assert one["command"] == "python benchmarks/imports.py --repeats 3"
    assert one["number"] == {
        "columns": ["imported", "median"],
        "rows": [["pass", "0.03 s"], ["import jaxmem", "0.9 s"]],
    }
    assert one["verdict"] == "met"
    assert "import jaxmem | 0.9 s" in capsys.readouterr().out
    [again] = measure(monkeypatch, tmp_path, 1.3, "--repeats", "3", "--record")
    assert again["verdict"] == "missed"
    assert len(measure(monkeypatch, tmp_path, 0.9, "--record")) == 2
    assert "missed; the bar is 1.2 s" in page.render(tmp_path)


def test_rows_after_a_line_of_text_go_on_with_the_table():
    [table] = record.tables_of("| a | b |\n|---|---|\n| 1 | 2 |\nsingle precision: 0.1\n| 3 | 4 |\n")
    assert table == Table(["a", "b"], [["1", "2"], ["3", "4"]])
    assert table.numbers("b", "^3") == [4.0]


def test_a_line_is_recorded_by_its_group():
    rows = record.judged(
        "merging", "900000 labelled voxels, 9 midline points: midline 8.0 s, merging 9.0 s, peak 1.50 GiB"
    )
    assert [(row["verdict"], row["number"][:6]) for row in rows] == [("met", "900000")]


def test_decisions_say_what_between_what_and_by_which_script():
    entries = re.split(r"^### ", (ROOT / "docs" / "decisions.md").read_text(), flags=re.MULTILINE)[1:]
    for entry in entries:
        title, body = entry.split("\n", 1)
        kinds = re.findall(r"^- (\w+(?: \w+)?): \S", body, re.MULTILINE)
        assert kinds == ["Decided", "Between", "Shown by"], title
        for path in re.findall(r"`((?:benchmarks|tests|jaxmem)/[\w/.]+)", body):
            assert (ROOT / path).exists(), f"{title}: {path}"
