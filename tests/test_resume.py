"""A run that is killed goes on where it was and ends with the same bytes; a changed setting redoes only what depends on it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from jaxmem.io import read_mrc, read_ply, write_mrc
from jaxmem.pipeline import Edit, command, estimate, fit_file, segment, segment_file
from jaxmem.pipeline import network as network_stage
from jaxmem.pipeline import surfaces as surface_stage
from jaxmem.pipeline.keeping.folder import working_folder
from jaxmem.pipeline.keeping.pieces import Pieces, Slabs
from jaxmem.pipeline.stages import for_tomogram, stage_keys
from jaxmem.settings import Config, RefineConfig
from jaxmem.types import JaxmemError, Tomogram

CONFIG = Config(refine=RefineConfig(rounds=1))  # one round is as many kinds of pieces as two
DATED = {"manifest.json", "report.html"}  # hold dates and times


run_file = partial(segment_file, config=CONFIG)


def contents(run: Path) -> dict[str, bytes]:
    """The bytes of a run's files, but for those that hold a date."""
    return {
        str(p.relative_to(run)): p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file() and p.name not in DATED
    }


@pytest.fixture(scope="module")
def small(phantom, tmp_path_factory) -> Path:
    """A file with a part of the phantom, of forty slices: two slabs."""
    tomogram, _ = phantom
    path = tmp_path_factory.mktemp("resume") / "small.mrc"
    data = np.ascontiguousarray(tomogram.data[24:64, :112])
    write_mrc(path, data, Tomogram(data, 14.0))
    return path


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory) -> Path:
    """The run of that file, without a break; it keeps its pieces."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert run_file(small, run, keep=True) >= 2
    return run


def test_a_run_in_pieces_is_that_in_memory(small, whole):
    result = segment(read_mrc(small), CONFIG, keep_surfaces=False)
    assert np.array_equal(read_mrc(whole / "labels.mrc").data, result.labels)
    assert np.array_equal(read_mrc(whole / "semantic.mrc").data, result.semantic)
    assert np.array_equal(read_mrc(whole / "uncertainty.mrc").data, result.uncertainty)
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["decisions"] == result.decisions
    assert manifest["warnings"] == result.warnings
    assert manifest["weights_sha256"] == result.digests
    assert manifest["peak_memory_bytes"] > 1e8
    assert {"network", "midlines", "merging", "selection", "ellipses", "refinement", "surfaces"} <= set(
        manifest["seconds"]
    )
    assert not whole.with_name("run.partial").exists()


class _Stop(BaseException):
    """Ends a run in the middle, as a signal would."""


@pytest.mark.parametrize(("stage", "after"), [("network", 30), ("refinement", 3), ("surfaces", 1)])
def test_a_broken_run_goes_on(small, whole, tmp_path, stage, after):
    def stop(name, done, total):
        if name == stage and done >= after:
            raise _Stop

    run = tmp_path / "run"
    with pytest.raises(_Stop):
        run_file(small, run, keep=True, progress=stop)
    assert not run.exists()
    assert (tmp_path / "run.partial" / "pieces").is_dir()
    steps: dict[str, list[int]] = {}
    run_file(small, run, keep=True, progress=lambda name, done, total: steps.setdefault(name, []).append(done))
    assert contents(run) == contents(whole)
    assert not (tmp_path / "run.partial").exists()
    if stage != "network":
        assert len(steps["network"]) <= 5  # slabs that are read, not slices that are looked at


def test_damaged_pieces_are_made_again(small, whole, tmp_path):
    def stop(name, done, total):
        if name == "surfaces":
            raise _Stop

    run = tmp_path / "run"
    with pytest.raises(_Stop):
        run_file(small, run, keep=True, progress=stop)
    pieces = sorted((tmp_path / "run.partial" / "pieces").rglob("*.npz"))
    assert len(pieces) >= 4
    for k, path in enumerate(pieces):
        raw = bytearray(path.read_bytes())
        if k % 2:
            raw = raw[: len(raw) // 2]
        else:
            raw[len(raw) // 3] ^= 255
        path.write_bytes(raw)
    run_file(small, run, keep=True)
    assert contents(run) == contents(whole)


def test_settings_redo_what_depends_on_them(small, whole, tmp_path, monkeypatch):
    run = tmp_path / "run"
    looked, fitted = [], []
    look, fit = network_stage._look, surface_stage.extract
    monkeypatch.setattr(network_stage, "_look", lambda *a: looked.append(1) or look(*a))
    monkeypatch.setattr(surface_stage, "extract", lambda *a: fitted.append(1) or fit(*a))
    subprocess.run(["cp", "-r", str(whole), str(run)], check=True)
    run_file(small, run, keep=True, overwrite=True)
    assert not looked
    assert not fitted
    assert contents(run) == contents(whole)
    thicker = replace(CONFIG, fit=replace(CONFIG.fit, thickness=70.0))
    keys = [stage_keys("", for_tomogram(c, 14.0)) for c in (CONFIG, thicker)]
    assert keys[0]["refinement"] == keys[1]["refinement"]
    assert keys[0]["surfaces"] != keys[1]["surfaces"]
    count = segment_file(small, run, thicker, keep=True, overwrite=True)
    assert not looked
    assert len(fitted) >= count
    assert (read_mrc(run / "labels.mrc").data > 0).sum() > 1.2 * (read_mrc(whole / "labels.mrc").data > 0).sum()
    run_file(small, run, keep=False, overwrite=True)
    assert not (run / "kept").exists()


def test_an_edit_redoes_what_it_names(small, whole, tmp_path, monkeypatch):
    run = tmp_path / "run"
    fitted = []
    fit = surface_stage.extract
    monkeypatch.setattr(surface_stage, "extract", lambda *a: fitted.append(1) or fit(*a))
    subprocess.run(["cp", "-r", str(whole), str(run)], check=True)
    top = read_ply(whole / "surfaces" / "membrane_002.ply")[0].max(0)
    edits = [Edit("add", (2,), points=(tuple(top.tolist()),))]
    count = run_file(small, run, keep=True, overwrite=True, edits=edits)
    assert len(fitted) == 1
    before, after = contents(whole), contents(run)
    same = [f"surfaces/membrane_{k:03d}.ply" for k in range(1, count + 1)]
    assert [name for name in same if before[name] != after[name]] == ["surfaces/membrane_002.ply"]
    assert json.loads((run / "manifest.json").read_text())["edits"][0]["verb"] == "add"
    run_file(small, run, keep=True, overwrite=True, edits=edits)
    assert len(fitted) == 1
    assert {k: v for k, v in contents(run).items() if not k.startswith("kept")} == {
        k: v for k, v in after.items() if not k.startswith("kept")
    }
    run_file(small, run, keep=True, overwrite=True)
    assert len(fitted) == 1
    assert (run / "labels.mrc").read_bytes() == (whole / "labels.mrc").read_bytes()
    with pytest.raises(JaxmemError, match=r"edit 1 \(drop 99\): there is no membrane 99"):
        run_file(small, run, keep=True, overwrite=True, edits=[Edit("drop", (99,))])


def test_small_pieces_are_kept_without_asking(small, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "_SMALL", 0.0)
    run_file(small, tmp_path / "run", overwrite=True)
    kept = sum(p.stat().st_size for p in (tmp_path / "run" / "kept").rglob("*.npz"))
    everything = sum(p.stat().st_size for p in (whole / "kept").rglob("*.npz"))
    assert 0 < kept <= 0.1 * small.stat().st_size
    assert everything > kept


def test_a_second_process_is_refused(small, tmp_path):
    with working_folder(tmp_path / "run") as partial:
        assert partial == tmp_path / "run.partial"
        with pytest.raises(JaxmemError, match=f"process {os.getpid()} on .* is at work"):
            run_file(small, tmp_path / "run")
    assert not partial.exists()


def test_what_does_not_fit_is_said_before_the_work(small, tmp_path):
    with pytest.raises(JaxmemError, match=r"needs about .* GB of memory, --memory allows 0\.1"):
        run_file(small, tmp_path / "run", memory=1e8)
    assert not any(tmp_path.iterdir())
    one, many = estimate((300, 928, 928), workers=1), estimate((300, 928, 928), workers=8)
    assert one.memory < many.memory
    assert estimate((300, 928, 928), memory=many.memory).workers >= min(4, os.cpu_count())
    assert estimate((600, 928, 928)).memory < 2.2 * estimate((300, 928, 928)).memory


def test_a_full_disk_is_one_line_and_the_run_goes_on(small, tmp_path):
    settings = tmp_path / "settings.toml"
    settings.write_text("[refine]\nrounds = 0\n")
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    code += "import sys; from jaxmem.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "segment", str(small), "-o", str(tmp_path / "run"), "--quiet"]
    command += ["--config", str(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("jaxmem: ")]
    assert len(errors) == 1
    assert "cannot be written" in errors[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
    assert segment_file(small, tmp_path / "run", Config(refine=RefineConfig(rounds=0))) >= 2


def test_a_killed_process_goes_on(small, whole, tmp_path):
    run = tmp_path / "run"
    code = "import sys; from jaxmem.cli import main; sys.exit(main())"
    settings = tmp_path / "settings.toml"
    settings.write_text("[refine]\nrounds = 1\n")
    command = [sys.executable, "-c", code, "segment", str(small), "-o", str(run), "--quiet", "--keep"]
    command += ["--config", str(settings)]
    process = subprocess.Popen(command)
    pieces = tmp_path / "run.partial" / "pieces"
    end = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < end and not list(pieces.rglob("*.npz")):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not run.exists()
    subprocess.run(command, check=True)
    assert contents(run) == contents(whole)


def test_a_mask_is_fitted_in_pieces(mrc, shells, tmp_path):
    source = mrc((shells[0] == 3).astype(np.int8))
    assert fit_file(source, tmp_path / "run", keep=True) == 1
    assert fit_file(source, tmp_path / "run", keep=True, overwrite=True) == 1
    assert (tmp_path / "run" / "kept").is_dir()


def test_slabs_are_an_array():
    volume = np.arange(7 * 4 * 5).reshape(7, 4, 5)
    slabs = Slabs(lambda k: volume[3 * k : 3 * k + 3], volume.shape, volume.dtype, 3)
    assert len(slabs) == 7
    assert np.array_equal(np.asarray(slabs), volume)
    for key in (0, -1, 5, slice(2, 7), slice(0, 0), slice(None, None, 2), (slice(1, 5), 2), (3, slice(None), 1)):
        assert np.array_equal(slabs[key], volume[key])
    with pytest.raises(IndexError):
        slabs[7]


def test_pieces_are_equal_files_for_equal_arrays(tmp_path):
    one, other = Pieces(tmp_path / "a"), Pieces(tmp_path / "b", earlier=tmp_path / "a")
    piece = {"x": np.arange(1000.0), "empty": np.zeros((0, 3)), "number": np.array(2)}
    one.put("stage-1/00001", piece)
    found = other.get("stage-1/00001")
    assert found is not None
    assert all(np.array_equal(found[k], piece[k]) for k in piece)
    other.put("stage-1/00001", piece)
    files = [(tmp_path / f / "stage-1" / "00001.npz").read_bytes() for f in "ab"]
    assert files[0] == files[1]
    assert other.get("stage-2") is None
