"""Batches: nothing is lost, nothing is done twice, and every failure has its reason. Tasks are fakes; nothing compiles."""

import csv
import gzip
import json
import logging
import os
import subprocess
import sys

import batch_tasks
import numpy as np
import pytest
from conftest import PACKAGE

import jaxmem
from jaxmem import batch, pipeline
from jaxmem.batch import cluster, disk, tables
from jaxmem.batch.inputs import find_inputs
from jaxmem.cli import main
from jaxmem.types import JaxmemError


@pytest.fixture
def folder(tmp_path):
    """Make a folder of tomograms: names, and what the fake task does with each."""

    def make(**words):
        (tmp_path / "in").mkdir(exist_ok=True)
        for name, text in words.items():
            (tmp_path / "in" / f"{name}.mrc").write_text(text)
        return tmp_path / "in"

    return make


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def faked(monkeypatch):
    """The command line with the fake in place of `segment_file`."""
    monkeypatch.setattr(pipeline, "segment_file", batch_tasks.fake)
    log = logging.getLogger("jaxmem")
    before = log.handlers, log.level, log.propagate
    yield
    log.handlers, log.propagate = before[0], before[2]
    log.setLevel(before[1])


def here(planned, **options):
    return batch.run(planned, task=batch_tasks.fake, in_process=True, **options)


def call(capsys, *words):
    """Exit status, standard output and standard error of a command."""
    code = main([str(word) for word in words])
    return code, *capsys.readouterr()


def made(runs):
    return sorted((runs / "log").read_text().split())


def lock(runs, name, pid, host=disk.HOST):
    partial = runs / f"{name}.partial"
    partial.mkdir(parents=True)
    (partial / "lock.json").write_text(json.dumps({"host": host, "pid": pid, "since": "2026-01-01"}))


def gone():
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_inputs_of_folders_and_lists(tmp_path):
    kept = ["a.mrc", "b.rec", "c.MAP", "d.mrc.gz", "e.st"]
    for name in [*kept, "notes.txt", ".f.mrc", "g.png", "h.gz"]:
        (tmp_path / name).write_text("")
    (tmp_path / "i.zarr").mkdir()
    (tmp_path / "j").mkdir()
    (tmp_path / "j" / "k.mrc").write_text("")
    assert [p.name for p in find_inputs(tmp_path)] == [*kept, "i.zarr"]
    assert [p.name for p in find_inputs(tmp_path, "[ab].*")] == ["a.mrc", "b.rec"]
    assert find_inputs(tmp_path / "a.mrc") == [tmp_path / "a.mrc"]
    (tmp_path / "list.txt").write_text(
        f"# two\nj/k.mrc  # relative to the list\n\n{tmp_path}/missing.mrc\nj/../j/k.mrc\n"
    )
    assert find_inputs(tmp_path / "list.txt") == [tmp_path / "j" / "k.mrc", tmp_path / "missing.mrc"]


def test_wrong_calls_are_one_line_and_status_2(tmp_path, folder, runs, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "list.bin").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "c.toml").write_text("[fit]\nx = 1")
    good = folder(a="1")
    for words, expected in (
        ((tmp_path / "none",), "no such folder"),
        ((tmp_path / "none.txt",), "no such folder, list"),
        ((tmp_path / "empty",), "no .mrc"),
        ((good, "--pattern", "*.rec"), "nothing named '*.rec'"),
        ((tmp_path / "empty.txt",), "no path"),
        ((tmp_path / "list.bin",), "not a text list"),
        ((good, "--config", tmp_path / "none.toml"), "none.toml: no such file"),
        ((good, "--config", tmp_path / "c.toml"), "fit.x"),
        ((good, "--index", 2, "--of", 2), "from 0 to 1"),
        ((good, "--index", 0), "belong together"),
        ((good, "--index", 0, "--of", 2, "--workers", 2), "leave --workers"),
        ((good, "-o", tmp_path / "c.toml"), "a file, but"),
        ((good, "-o", tmp_path / "c.toml" / "runs"), "cannot be written"),
    ):
        out = () if "-o" in words else ("-o", runs)
        code, _, err = call(capsys, "batch", *words, *out)
        assert code == 2, words
        assert err.strip().splitlines()[-1].startswith("jaxmem: ")
        assert expected in err, err
        assert not runs.exists()
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, _, err = call(capsys, "batch", good, "-o", runs)
    assert (code, "pip install 'jaxmem[batch]'" in err) == (2, True)
    assert call(capsys, "status", tmp_path / "none")[0] == 2
    assert call(capsys, "validate", tmp_path / "none")[0] == 2
    for option in ("--workers", "--voxel-size", "--of"):
        with pytest.raises(SystemExit, match="2"):
            main(["batch", str(good), "-o", str(runs), option, "0"])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(folder, tmp_path, capsys):
    (tmp_path / "closed").mkdir(mode=0o500)
    code, _, err = call(capsys, "batch", folder(a="1"), "-o", tmp_path / "closed" / "runs")
    assert (code, "cannot be written" in err) == (2, True)


def test_names_of_runs(tmp_path, folder, runs):
    good = folder(a="1", b="1")
    (good / "a.rec").write_text("1")
    with pytest.raises(JaxmemError, match=r"a\.(mrc|rec): would get the same run as .*--pattern"):
        batch.plan(good, runs)
    (good / "a.rec").unlink()
    for name in ("p1", "p2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tomo.mrc").write_text("1")
    (tmp_path / "one.txt").write_text("p1/tomo.mrc")
    (tmp_path / "two.txt").write_text("p1/tomo.mrc\np2/tomo.mrc")
    assert [i.name for i in batch.plan(tmp_path / "two.txt", runs).inputs] == ["p1_tomo", "p2_tomo"]
    here(batch.plan(tmp_path / "one.txt", runs))
    later = batch.plan(tmp_path / "two.txt", runs)
    assert [i.name for i in later.inputs] == ["p2_tomo", "tomo"]  # what has a run keeps it
    assert [i.name for i in later.todo] == ["p2_tomo"]
    (tmp_path / "other.txt").write_text("p2/tomo.mrc")
    assert [i.name for i in batch.plan(tmp_path / "other.txt", runs).todo] == ["p2_tomo"]  # not the run of p1


def test_failures_are_recorded_and_skipped_until_asked_for(folder, runs):
    good = folder(a="1", b="broken", c="bug", d="exit", e="3")
    lines = []
    states = {s.name: s for s in here(batch.plan(good, runs), tell=lines.append)}
    assert [states[n].state for n in "abcde"] == ["done", "failed", "failed", "failed", "done"]
    assert "[1/5] a: 1 membranes, 2 s" in lines
    assert any(line.startswith("[2/5] b: failed: ") and "not an MRC" in line for line in lines)
    why = {n: json.loads((runs / f"{n}.failed.json").read_text()) for n in "bcd"}
    assert "traceback" not in why["b"]
    assert why["c"]["reason"] == "ValueError: two"
    assert "batch_tasks.py" in why["c"]["traceback"]
    assert why["d"]["host"] == disk.HOST
    assert not [p.name for p in runs.iterdir() if p.name.startswith(".") and p.name != ".tables.lock"]
    again = batch.plan(good, runs)
    assert (again.todo, again.count("failed"), again.count("done")) == ([], 3, 2)
    folder(b="5", c="1", d="1")
    assert {s.state for s in here(batch.plan(good, runs, retry_failed=True))} == {"done"}
    assert not list(runs.glob("*.failed.json"))
    assert made(runs) == list("abcde")


def test_an_entry_of_a_list_that_is_missing_is_a_failure(folder, runs, tmp_path):
    folder(a="1")
    (tmp_path / "list.txt").write_text("in/a.mrc\nin/b.mrc\n")
    states = here(batch.plan(tmp_path / "list.txt", runs))
    assert [(s.name, s.state) for s in states] == [("a", "done"), ("b", "failed")]
    assert "no such file" in states[1].reason


def test_an_array_of_jobs_covers_everything_once(folder, runs, faked, capsys):
    good = folder(**{f"t{i:02d}": "1" for i in range(11)})
    for index in range(4):
        code, out, _ = call(capsys, "batch", good, "-o", runs, "--index", index, "--of", 4)
        assert (code, "0 failed" in out) == (0, True)
    assert made(runs) == [f"t{i:02d}" for i in range(11)]
    assert call(capsys, "batch", good, "-o", runs)[1].startswith("nothing to do: 11 done")


def test_what_others_run_is_left_to_them(folder, runs, monkeypatch):
    good = folder(a="1", b="1", c="1", d="1")
    lock(runs, "a", os.getppid())
    lock(runs, "b", gone())
    lock(runs, "c", 1, "elsewhere")
    (runs / "d.partial").mkdir()
    planned = batch.plan(good, runs)
    assert [s.name for s in planned.skipped] == ["a"]
    assert [i.name for i in planned.todo] == ["b", "c", "d"]
    assert [s.state for s in batch.status(runs)] == ["running", "interrupted", "running", "interrupted"]

    def held(source, target, config=None, **_):
        if target.name == "c":
            raise JaxmemError(f"{target}: another process runs it")
        return batch_tasks.finish(target)

    states = batch.run(planned, task=held, in_process=True)
    assert [(s.name, s.state) for s in states] == [("b", "done"), ("c", "running"), ("d", "done")]
    assert not list(runs.glob("*.failed.json"))


def test_a_lock_that_is_left_by_a_failure_is_no_running_process(folder, runs):
    def leaves(source, target, config=None, **_):
        lock(target.parent, target.name, os.getpid())
        raise ValueError("x")

    batch.run(batch.plan(folder(a="1"), runs), task=leaves, in_process=True)
    assert [s.state for s in batch.status(runs)] == ["failed"]


def test_a_task_that_leaves_no_manifest_has_failed(folder, runs):
    [state] = batch.run(batch.plan(folder(a="1"), runs), task=lambda *a, **k: 1, in_process=True)
    assert (state.state, "without a manifest" in state.reason) == ("failed", True)


def test_workers_that_are_killed(folder, runs, capsys):
    """One is killed once, one tomogram kills every worker: the former is done once, the latter fails, the rest is done."""
    good = folder(a="2", b="kill once", c="kill", d="broken", e="1", f="1", g="settings")
    lines = []
    states = batch.run(
        batch.plan(good, runs), jaxmem.Config(), task=batch_tasks.fake, workers=2, voxel_size=9.0, arguments=["x"],
        tell=lines.append,
    )  # fmt: skip
    assert sorted(s.name for s in states) == list("abcdefg")
    failed = {s.name: s.reason for s in states if s.state == "failed"}
    assert failed.keys() == {"c", "d"}
    assert failed["c"] == "killed its worker 3 times (out of memory?)"
    assert (runs / "c.marker").read_text() == "xxx"
    assert made(runs) == list("abefg")
    assert lines[0].startswith(("2 workers of", "1 worker of"))
    assert "9.0 ('x',)" in (runs / "settings").read_text()
    assert "Config(" in (runs / "settings").read_text()
    assert [s.state for s in batch.status(runs)] == ["done", "done", "failed", "failed", "done", "done", "done"]
    code, out, err = call(capsys, "batch", good, "-o", runs)
    assert (code, out.startswith("nothing to do: 5 done, 2 failed")) == (1, True)
    assert "2 failed before" in err


def test_processes_that_are_being_started_are_closed_a_little_later(monkeypatch):
    class Processes:
        def __init__(self, failures):
            self.failures, self.tried = failures, 0

        def close(self):
            self.tried += 1
            assert self.tried > self.failures, "can only join a started process"

    monkeypatch.setattr(cluster, "_PAUSE", 0.0)
    for failures, tried in ((0, 1), (1, 2), (9, 3)):
        processes = Processes(failures)
        cluster._close(processes)
        assert processes.tried == tried


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_each_worker_has_its_own_cores(folder, runs):
    batch.run(batch.plan(folder(a="1", b="1", c="1"), runs), task=batch_tasks.cores, workers=2)
    seen = {tuple((runs / f"{n}.cores").read_text().split(" ", 1)) for n in "abc"}
    sets = {cores: set(json.loads(cores)) for _, cores in seen}
    assert set.union(*sets.values()) <= os.sched_getaffinity(0)
    if len(os.sched_getaffinity(0)) >= 2 and len({pid for pid, _ in seen}) == 2:
        one, two = sets.values()
        assert not one & two


def test_a_scheduler_that_runs_already(folder, runs, faked):
    distributed = pytest.importorskip("distributed")
    good = folder(a="1", b="broken")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, dashboard_address=":0", host="127.0.0.1"
    ) as workers:
        address = workers.scheduler_address
        states = batch.run(batch.plan(good, runs), task=batch_tasks.fake, scheduler=address)
    assert sorted((s.name, s.state) for s in states) == [("a", "done"), ("b", "failed")]


def test_a_scheduler_that_is_not_there(folder, runs, capsys, monkeypatch):
    monkeypatch.setattr(cluster, "_PATIENCE", 0.5)
    for address in ("tcp://127.0.0.1:9", "127.0.0.1:9", "nonsense"):
        code, _, err = call(capsys, "batch", folder(a="1"), "-o", runs, "--scheduler", address)
        assert (code, f"{address}: no Dask scheduler answers" in err) == (2, True), err


def test_dry_run_writes_nothing(folder, runs, faked, capsys):
    good = folder(a="1", b="broken", c="1")
    code, out, _ = call(capsys, "batch", good, "-o", runs, "--dry-run")
    assert (code, out.count("to run   "), runs.exists()) == (0, 3, False)
    call(capsys, "batch", good, "-o", runs, "--index", 0, "--of", 1, "--quiet")
    folder(d="1")
    _, out, _ = call(capsys, "batch", good, "-o", runs, "--dry-run")
    assert "done     a: 1 membranes" in out
    assert "failed   b: failed: " in out
    assert "to run   d" in out
    assert "4 tomograms: 2 done before, 1 failed before (--retry-failed runs them again), 1 to run" in out


def test_quiet_shows_failures_only(folder, runs, faked, capsys):
    words = ("batch", folder(a="1", b="broken"), "-o", runs, "--index", 0, "--of", 1, "--quiet")
    code, out, err = call(capsys, *words)
    assert code == 1
    assert [line.split(": failed: ")[0] for line in err.splitlines()] == ["[2/2] b"]
    assert "1 done, 1 failed; `jaxmem status" in out


def test_status_is_quick_and_needs_no_jax(folder, runs, capsys):
    good = folder(a="1", b="broken", **{f"w{i:02d}": "1" for i in range(12)})
    here(batch.plan(good, runs, share=(0, 14)))
    here(batch.plan(good, runs, share=(1, 14)))
    lock(runs, "w00", os.getppid())
    lock(runs, "w01", gone())
    code, out, _ = call(capsys, "status", runs)
    assert code == 0
    assert f"running     w00 ({disk.HOST}, process {os.getppid()}, since 2026-01-01)" in out
    assert "failed      b: " in out
    assert "interrupted w01 (" in out
    assert "and 0 more" not in out
    assert out.splitlines()[-1] == "14 tomograms: 1 done, 1 running, 1 failed, 1 interrupted, 10 waiting"
    found = {s["name"]: s for s in json.loads(call(capsys, "status", runs, "--json")[1])}
    assert (found["a"]["membranes"], found["a"]["seconds"], found["a"]["peak_memory"]) == (1, 1.5, 7)
    assert found["w11"]["source"] == str(good / "w11.mrc")
    code = (
        f"import sys; from jaxmem.cli import main; main(['status', {str(runs)!r}]); "
        f"main(['batch', {str(good)!r}, '-o', {str(runs)!r}, '--dry-run']); "
        "print(*(name for name in ('jax', 'distributed', 'mrcfile') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


def test_runs_without_a_batch_have_a_status(runs):
    runs.mkdir()
    (runs / "other").mkdir()
    assert batch.status(runs) == []
    batch_tasks.finish(runs / "single")
    (runs / "batch.json").write_text("[")
    assert [(s.name, s.state) for s in batch.status(runs)] == [("single", "done")]
    (runs / "single" / "manifest.json").write_text("{broken")
    assert batch.status(runs)[0].state == "done"


def test_tables_over_all_runs(folder, runs):
    here(batch.plan(folder(a="2", b="broken", c="0", d="1"), runs))
    (runs / "d" / "membranes.csv").write_text("membrane,volume_A3\n1,5.0\n")
    files = batch.write_tables(runs)
    with (runs / "membranes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["tomogram", "membrane", "area_A2", "volume_A3"]
    assert [tuple(r.values()) for r in rows] == [("a", "1", "10.5", ""), ("a", "2", "21.0", ""), ("d", "1", "", "5.0")]
    with (runs / "tomograms.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == tables.TOMOGRAMS
    assert [(r["tomogram"], r["status"], r["membranes"]) for r in rows] == [
        ("a", "done", "2"), ("b", "failed", ""), ("c", "done", "0"), ("d", "done", "1")
    ]  # fmt: skip
    assert "not an MRC" in rows[1]["reason"]
    if any(path.suffix == ".parquet" for path in files):
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(runs / "membranes.parquet")
        assert table.column("area_A2").to_pylist() == [10.5, 21.0, None]


def test_a_file_that_cannot_be_replaced_stays(tmp_path):
    path = tmp_path / "x.json"
    disk.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        disk.write_json(path, {"a": object()})
    assert disk.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_workers_that_fit():
    choose = cluster.choose_workers
    assert choose(None, 8, 1e12, 1e9, 100)[0] == 4
    assert choose(None, 1, 1e12, 1e9, 100)[0] == 1
    assert choose(6, 8, 1e12, 1e9, 100)[0] == 6
    assert choose(6, 8, 1e12, 1e9, 2)[0] == 2
    assert choose(6, 8, 3.5e9, 1e9, 100)[0] == 3
    number, line = choose(6, 8, 0.5e9, 1e9, 100)
    assert (number, line.endswith("may not be enough")) == (1, True)


def test_validate(mrc, tmp_path, capsys):
    values = np.random.default_rng(0).normal(5.0, 2.0, (16, 20, 24)).astype(np.float32)
    mrc(values, name="a_good.mrc")
    mrc(values, name="b_packed.mrc.gz")
    assert call(capsys, "validate", tmp_path)[0] == 0
    mrc(np.ones_like(values), name="c_blank.mrc")
    mrc(np.where(values > 9.0, np.nan, values), name="d_nan.mrc")
    mrc(values, 1.0, name="e_unknown.mrc")
    mrc(np.where(np.arange(16)[:, None, None] < 6, 0.0, values).astype(np.float32), name="f_padded.mrc")
    whole = mrc(values, name="g_truncated.mrc")
    whole.write_bytes(whole.read_bytes()[:-100])
    packed = tmp_path / "h_packed.mrc.gz"
    packed.write_bytes(gzip.compress(b"x" * 9000)[:-20])
    (tmp_path / "i_text.mrc").write_text("hello")
    checks = {c.source.rsplit("/", 1)[-1].split(".")[0][2:]: c for c in batch.validate(tmp_path, pattern="[a-g]*.mrc")}
    good = checks["good"]
    assert (good.shape, good.voxel_size, good.dtype, good.problems) == ((16, 20, 24), 14.0, "float32", ())
    assert abs(good.mean - 5.0) < 0.2
    assert abs(good.std - 2.0) < 0.2
    assert (good.constant, good.nan) == (0.0, 0.0)
    assert good.memory > good.disk > 0
    assert "blank" in checks["blank"].problems[0]
    assert "not finite" in checks["nan"].problems[0]
    assert checks["nan"].mean is not None
    assert "--voxel-size" in checks["unknown"].problems[0]
    assert (checks["unknown"].shape, checks["unknown"].voxel_size) == ((16, 20, 24), None)
    assert "2 of 5 slices" in checks["padded"].problems[0]
    assert "truncated" in checks["truncated"].problems[0]
    code, out, _ = call(capsys, "validate", tmp_path)
    assert code == 1
    assert "9 tomograms, 7 with problems" in out
    assert "24 x 20 x 16" in out
    code, out, _ = call(capsys, "validate", tmp_path, "--json")
    found = json.loads(out)
    assert (code, len(found), found[-1]["problems"][0].count("not an MRC")) == (1, 9, 1)
    assert call(capsys, "validate", tmp_path / "e_unknown.mrc", "--voxel-size", 9)[0] == 0


def test_needs_are_read_from_headers(mrc, tmp_path):
    from jaxmem.batch.needs import most_memory, needs, peek

    small, large = np.zeros((2, 3, 4), np.int8), np.zeros((20, 30, 40), np.int8)
    paths = [mrc(small, name="a.mrc"), mrc(large, name="b.mrc.gz"), tmp_path / "none.mrc", tmp_path]
    assert [peek(p) for p in paths] == [(4, 3, 2), (40, 30, 20), None, None]
    assert most_memory(paths) == needs(paths[1], large.shape).memory > most_memory([]) > 0
    assert (
        needs(paths[1], large.shape).memory > needs(paths[0], large.shape).memory
    )  # unpacked, it is in memory as a whole
