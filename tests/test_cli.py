"""What a user sees: exit codes, one line for a problem, nothing half-written."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from jaxmem import cli
from jaxmem.cli import main
from jaxmem.pipeline import stages


@pytest.fixture(scope="module")
def mask(shells):
    return (shells[0] == 3).astype(np.int8)


def fails(capsys, arguments, *words):
    assert main([str(a) for a in arguments]) == 1
    captured = capsys.readouterr()
    line = captured.err.strip().splitlines()[-1]
    assert line.startswith("jaxmem: ")
    for word in words:
        assert word in line, line


def test_fit_then_evaluate(mrc, shells, mask, tmp_path, capsys):
    source, run = mrc(mask), tmp_path / "run"
    assert main(["fit", str(source), "-o", str(run)]) == 0
    captured = capsys.readouterr()
    assert "1 membranes" in captured.out
    for stage in ("midlines", "merging", "selection", "surfaces"):
        assert stage in captured.err
    assert "grouping: region merging" in (run / "report.html").read_text()
    truth = mrc(np.where(shells[0] == 3, 3, 0).astype(np.int8), name="truth.mrc")
    assert main(["evaluate", str(run), "--truth", str(truth)]) == 0
    assert "1 of 1 found" in capsys.readouterr().out
    scores = json.loads((run / "scores.json").read_text())
    assert scores["instances"]["matched"] == 1
    assert scores["neighbouring_slices"]["surfaces"]["largest"] < 6
    page = (run / "report.html").read_text()
    assert page.count("<h2>Against the truth</h2>") == 1
    classes = mrc(np.where(shells[0] == 3, 2, 0).astype(np.int8), name="classes.mrc")
    assert main(["evaluate", str(run), "--truth", str(truth), "--classes", str(classes)]) == 0
    assert "100.00% of pixels are right" in capsys.readouterr().out
    assert (run / "report.html").read_text().count("<h2>Against the truth</h2>") == 1
    losses = tmp_path / "loss.csv"
    losses.write_text("epoch,train_loss,loss\n1,0.4,0.5\n2,0.2,0.3\n")
    assert main(["evaluate", str(run), "--truth", str(truth), "--losses", str(losses)]) == 0
    assert json.loads((run / "scores.json").read_text())["losses"]["loss"] == [0.5, 0.3]
    assert "after each epoch" in (run / "report.html").read_text()
    fails(capsys, ["evaluate", run, "--truth", truth, "--losses", classes], "classes.mrc", "loss.csv")
    before = (run / "labels.mrc").read_bytes()
    fails(capsys, ["fit", source, "-o", run], str(run), "--overwrite")
    assert (run / "labels.mrc").read_bytes() == before
    assert main(["fit", str(source), "-o", str(run), "--overwrite", "--quiet", "--obj", "--instances"]) == 0
    assert capsys.readouterr().err == ""
    other = mrc(np.ones((2, 4, 4), np.int8), name="other.mrc")
    fails(capsys, ["evaluate", run, "--truth", other], "other.mrc", "shape")
    fails(capsys, ["evaluate", run, "--truth", truth, "--classes", other], "other.mrc", "classes")
    fails(capsys, ["fit", source, "-o", tmp_path / "with", "--tomogram", other], "other.mrc", "mask")
    fails(capsys, ["evaluate", run, "--truth", truth, other], "exactly one")
    (tmp_path / "bad.npz").write_text("x")
    fails(capsys, ["evaluate", run, "--truth", truth, tmp_path / "bad.npz"], "bad.npz")


def test_problems_with_the_input(mrc, tmp_path, capsys):
    run = tmp_path / "run"
    fails(capsys, ["segment", tmp_path / "none.mrc", "-o", run], "none.mrc", "no such file")
    text = tmp_path / "text.mrc"
    text.write_text("hello")
    fails(capsys, ["segment", text, "-o", run], "text.mrc", "not an MRC")
    unknown = mrc(np.zeros((2, 8, 8), np.float32), 1.0)
    fails(capsys, ["segment", unknown, "-o", run], "--voxel-size")
    fails(capsys, ["segment", unknown, "-o", run, "--voxel-size", "-3"], "positive")
    (tmp_path / "c.toml").write_text("[fit]\nx = 1")
    good = mrc(np.zeros((2, 8, 8), np.float32), name="good.mrc")
    fails(capsys, ["segment", good, "-o", run, "--config", tmp_path / "c.toml"], "c.toml", "fit.x")
    (tmp_path / "w.safetensors").write_text("x")
    (tmp_path / "w.toml").write_text(f'[network]\nweights = "{tmp_path / "w.safetensors"}"')
    fails(capsys, ["segment", good, "-o", run, "--config", tmp_path / "w.toml"], "w.safetensors")
    (tmp_path / "g.toml").write_text('[grouping]\nmethod = "guess"')
    fails(capsys, ["segment", good, "-o", run, "--config", tmp_path / "g.toml"], "grouping.method", "auto, merge, rl")
    (tmp_path / "l.toml").write_text(f'[grouping]\nweights = "{tmp_path / "w.safetensors"}"')
    fails(capsys, ["fit", good, "-o", run, "--config", tmp_path / "l.toml", "--grouping", "rl"], "w.safetensors")
    fails(capsys, ["segment", good, "-o", text / "run"], "cannot be written")
    fails(capsys, ["evaluate", tmp_path, "--truth", good], "not a finished run")
    assert not run.exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_demo_is_the_readmes_promise(tmp_path, capsys, monkeypatch):
    """The main job on the bundled tomogram, with its bar: all found, none invented, Dice, distance, watertight."""
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "6 of 6 found; missed none, invented none" in out
    assert "report.html" in out
    scores = json.loads((tmp_path / "jaxmem-demo" / "scores.json").read_text())
    assert scores["dice"]["mean_slice"] >= 0.75
    assert scores["distance_voxels"]["mean"] <= 1.0
    assert all(m["closed"] for m in scores["membranes"])


def test_train_from_the_command_line(tmp_path, capsys):
    arguments = ["--epochs", "1", "--images", "4", "--width", "2", "--depth", "2", "--seed", "3"]
    assert main(["train", "-o", str(tmp_path / "t"), *arguments]) == 0
    assert "weights: " in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "t").iterdir()} == {
        "checkpoint.safetensors",
        "loss.csv",
        "unet.safetensors",
        "card.json",
    }


def test_trainings_on_tomograms_that_cannot_begin(tmp_path, capsys):
    arguments = ["train", "-o", tmp_path / "t", "--tomograms", 2]
    fails(capsys, [*arguments, "--slices", 4], "--slices 4", "odd")
    fails(capsys, [*arguments, "--width", 2], "the package's weights", "--start none")
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("option", ["--epochs", "--images", "--batch", "--width", "--depth"])
def test_numbers_of_a_training_are_counts(option, tmp_path, capsys):
    for value in ("0", "-1", "2.5", "many"):
        with pytest.raises(SystemExit) as stopped:
            main(["train", "-o", str(tmp_path / "t"), option, value])
        assert stopped.value.code == 2
        assert f"argument {option}: expected a whole number from 1, got {value!r}" in capsys.readouterr().err


def test_a_reader_that_has_gone(monkeypatch, capfd):
    """As in `jaxmem demo | head`: no traceback, neither now nor when what is left is written."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setitem(cli._VERBS, "demo", lambda args: print("report: somewhere") or 0)
        assert main(["demo"]) == 141
    assert capfd.readouterr().err == ""


def test_weights_of_the_linker_are_looked_at_before_the_network_runs(mrc, tmp_path, capsys, monkeypatch):
    source, bad, settings = mrc(np.zeros((8, 32, 32), np.float32)), tmp_path / "w.safetensors", tmp_path / "c.toml"
    bad.write_text("not weights")
    settings.write_text(f'[grouping]\nmethod = "rl"\nweights = "{bad}"\n')
    monkeypatch.setattr(stages, "predict", None)
    fails(capsys, ["segment", source, "-o", tmp_path / "run", "--config", settings], str(bad), "cannot be read")
    assert not (tmp_path / "run").exists()


def test_a_linker_is_not_like_a_tomogram(mrc, tmp_path, capsys):
    source = mrc(np.zeros((2, 8, 8), np.float32))
    arguments = ["train", "--linker", "-o", tmp_path / "t", "--like", source, "--membranes", source]
    fails(capsys, arguments, "--linker", "leave --like")
    assert not (tmp_path / "t").exists()


def test_filled_masks_and_their_scores(mrc, tmp_path, capsys):
    z, y, x = np.indices((30, 40, 40), float)
    filled = (np.sqrt((z - 15) ** 2 + (y - 20) ** 2 + (x - 20) ** 2) < 11).astype(np.float32) * 2
    source = mrc(filled)
    assert main(["fit", str(source), "-o", str(tmp_path / "run"), "--instances", "--filled", "--quiet"]) == 0
    out = tmp_path / "s.json"
    assert main(["evaluate", str(tmp_path / "run"), "--truth", str(source), "--filled", "--json", str(out)]) == 0
    assert "1 of 1 found" in capsys.readouterr().out
    assert json.loads(out.read_text())["membranes"][0]["dice"] > 0.85


def test_wrong_words_are_argparse_business(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["segmnt"])
    assert caught.value.code == 2
    assert "segment" in capsys.readouterr().err


def test_a_log_in_json_has_messages_steps_and_what_failed(mrc, shells, tmp_path, capsys):
    source, log = mrc((shells[0] == 3).astype(np.int8)), tmp_path / "log.jsonl"
    command = ["fit", str(source), "-o", str(tmp_path / "run"), "--quiet", "--log-json", str(log)]
    assert main(command) == 0
    assert main(command) == 1
    assert "exists already" in capsys.readouterr().err
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["event"] for line in lines} == {"info", "step", "failed"}
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    steps = [(line["stage"], line["done"], line["total"]) for line in lines if line["event"] == "step"]
    assert ("surfaces", 1, 1) in steps
    assert "exists already" in lines[-1]["message"]
    assert main([*command[:-1], str(tmp_path)]) == 1
    assert "--log-json" in capsys.readouterr().err


def test_without_a_terminal_progress_is_plain_lines(capsys, monkeypatch):
    from jaxmem import console

    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    shown = console.Bars(quiet=False)
    for done in range(0, 101):
        now[0] += 1.0
        shown("network", done, 100)
    shown("midlines", 0, 1)
    shown("midlines", 1, 1)
    shown.close()
    err = capsys.readouterr().err
    assert "\r" not in err
    lines = err.splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("network: ")
    assert lines[3].startswith("network: 100 of 100")
    assert lines[4] == "midlines: 1 of 1, 0 s"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_verbs_options_and_files(tmp_path, capsys):
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(
        capsys.readouterr().out
        + """
        complete_line() {
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            _shtab_jaxmem jaxmem "${COMP_WORDS[$COMP_CWORD]}" "${COMP_WORDS[$((COMP_CWORD - 1))]}"
            echo "${COMPREPLY[*]}"
        }
        complete_line jaxmem se
        complete_line jaxmem segment --grouping ""
        complete_line jaxmem segment cell
        complete_line jaxmem segment cell.mrc --output r
        """
    )
    (tmp_path / "cell.mrc").touch()
    (tmp_path / "run").mkdir()
    said = subprocess.run(["bash", "script"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == ["segment", "auto merge rl", "cell.mrc", "run"]
