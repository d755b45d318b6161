"""Inputs that are odd: what is said of them, and what a user can do."""

import re
import subprocess
import sys
from importlib import resources

import mrcfile
import numpy as np
import pytest

from jaxmem import Config, Tomogram, load_config
from jaxmem.cli import main
from jaxmem.io import Negated, oddities, read_mrc, read_volume
from jaxmem.pipeline.choosing import Shares, choose, look
from jaxmem.pipeline.info import describe_file
from jaxmem.pipeline.keeping.record import Run
from jaxmem.pipeline.reasons import looks_bright, why_nothing
from jaxmem.pipeline.stages import for_tomogram
from jaxmem.settings import SelectConfig

NOISE = np.random.default_rng(0).normal(size=(12, 40, 40)).astype(np.float32)
GREY = np.clip(np.round(128 + 30 * NOISE), 0, 255).astype(np.uint8)


def said(data, size=14.0):
    return oddities(Tomogram(data, size), "t.mrc")


@pytest.mark.parametrize(
    ("data", "size", "words"),
    [
        (NOISE, 1.37, ("1.37 A", "--voxel-size 13.7", "bin it")),
        (NOISE, 137.0, ("137 A", "--voxel-size", "13.7")),
        (np.zeros_like(NOISE), 14.0, ("blank",)),
        (np.full_like(NOISE, np.nan), 14.0, ("no voxel",)),
        (np.full((12, 40, 40), 7, np.int8), 14.0, ("blank",)),
    ],
    ids=["nm", "ten times", "zeros", "NaN", "one value"],
)
def test_what_makes_no_sense_is_refused(data, size, words, mrc, tmp_path, capsys):
    first = said(data, size)[0]
    assert first.fatal
    source = mrc(data)
    with mrcfile.open(source, "r+") as file:
        file.voxel_size = size
    assert main(["segment", str(source), "-o", str(tmp_path / "run")]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    for word in words:
        assert word in first.line
        assert word in line
    assert not list(tmp_path.glob("run*"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (GREY.view(np.int8), ("unsigned", "--unsigned")),
        (np.clip(NOISE, -0.8, 0.8), ("lowest or highest value",)),
        (np.where(NOISE.max() == NOISE, 500.0, NOISE).astype(np.float32), ("hot pixels",)),
    ],
    ids=["unsigned", "cut off", "hot"],
)
def test_what_is_odd_is_said(data, words):
    if "hot pixels" in words:
        data[0, 0, 0] = 500.0  # in a slice that is read
    found = [one.line for one in said(data) if not one.fatal]
    assert len(found) == 1
    for word in words:
        assert word in found[0]


@pytest.mark.parametrize("data", [NOISE, GREY, (40 * NOISE).astype(np.int8), np.round(100 * NOISE).astype(np.int16)])
def test_of_an_ordinary_volume_nothing_is_said(data):
    assert not said(data)
    assert not said(data[0])


def test_bytes_are_read_as_they_were_meant(mrc):
    source = mrc(GREY.view(np.int8))
    assert read_mrc(source).data.dtype == np.int8
    assert np.array_equal(read_mrc(source, unsigned=True).data, GREY)


def test_an_inverted_volume_is_the_negative(mrc):
    volume = read_volume(mrc(NOISE), invert=True).data
    assert isinstance(volume, Negated)
    assert (volume.shape, volume.ndim, volume.dtype, len(volume)) == (NOISE.shape, 3, np.float32, 12)
    assert np.array_equal(volume[3], -NOISE[3])
    assert np.array_equal(volume[2:5, 1], -NOISE[2:5, 1])
    assert np.array_equal(np.asarray(volume), -NOISE)
    assert np.array_equal(1.0 + volume, 1.0 - NOISE)
    with pytest.raises(ValueError, match="copy"):
        np.asarray(volume, copy=False)


def test_the_header_of_an_image_stack_is_understood(mrc):
    source = mrc(NOISE)
    with mrcfile.open(source, "r+") as file:
        file.header.ispg, file.header.mz = 0, 1
        file.header.cella.z = 12 * file.header.cella.x / 40
    assert read_mrc(source).voxel_size == pytest.approx(read_mrc(mrc(NOISE, name="volume.mrc")).voxel_size)


def test_bright_membranes_are_told(tmp_path, capsys):
    source = resources.files("jaxmem") / "data" / "phantom.mrc.gz"
    tomogram = read_mrc(str(source))
    config = for_tomogram(Config(), tomogram.voxel_size)
    shares = look(tomogram, config, Run(None))
    assert not looks_bright(shares)
    inverted = shares._replace(single=shares.inverted, inverted=shares.single)
    assert looks_bright(inverted)
    assert "--invert" in why_nothing(tomogram, inverted)[0]
    assert "voxel size" in why_nothing(tomogram, Shares(0.0, 0.0, 0.0))[0]
    named = re.findall(r"`(least_\w+)`", why_nothing(tomogram, shares)[0])
    assert named
    assert set(named) <= set(SelectConfig.__dataclass_fields__)
    shape = tomogram.data.shape
    for seen, sizes in ((shares, 5), (shares._replace(depth=0.0), 1)):
        run = Run(None)
        assert choose(shape, seen, config, run).model.config.slices == sizes
        assert len(run.decisions) == (sizes == 1)
    assert choose((1, *shape[1:]), shares, config, Run(None)).model.config.slices == 1
    lines = "\n".join(describe_file(str(source), invert=True))
    for words in ("192 x 192 x 96", "histogram", "bright", "GB of memory"):
        assert words in lines
    assert main(["info", str(source)]) == 0
    assert "bright" not in capsys.readouterr().out


def test_info_says_what_stops_a_run(mrc, capsys):
    assert main(["info", str(mrc(np.zeros((8, 20, 20), np.float32)))]) == 0
    assert "stops a run" in capsys.readouterr().out


def test_nothing_found_has_reasons(mrc, tmp_path, capsys):
    noise = np.random.default_rng(0).normal(size=(24, 80, 80)).astype(np.float32)
    assert main(["segment", str(mrc(noise)), "-o", str(tmp_path / "run")]) == 0
    captured = capsys.readouterr()
    assert "0 membranes" in captured.out
    assert "no membrane was found" in captured.err
    assert "reason 1, perhaps" in captured.err
    assert (tmp_path / "run" / "manifest.json").exists()


def test_all_settings_are_printed_and_can_be_set(capsys, tmp_path):
    assert main(["config"]) == 0
    text = capsys.readouterr().out
    kept = [line.removeprefix("# ") for line in text.splitlines() if re.match(r"# \w+ = \S|\[", line)]
    path = tmp_path / "all.toml"
    path.write_text("\n".join(kept))
    assert load_config(path) == Config()
    assert sum(line.startswith("# ") and " = " in line for line in text.splitlines()) >= 60
    for section in Config.__dataclass_fields__:
        for name in getattr(Config(), section).__dataclass_fields__:
            assert re.search(rf"^# {name} = ", text, re.MULTILINE), name
    changed = load_config(path, ["fit.alpha=1.3", "grouping.method=rl", "network.symmetries = 2"])
    assert (changed.fit.alpha, changed.grouping.method, changed.network.symmetries) == (1.3, "rl", 2)


@pytest.mark.parametrize(
    "change", ["fit.alpha", "alpha=1", "fit.beta=1", "fit.alpha=green", "fit.alpha=-1", "fit.alpha="]
)
def test_settings_that_make_no_sense(change, mrc, tmp_path, capsys):
    assert main(["segment", str(mrc(NOISE)), "-o", str(tmp_path / "run"), "--set", change]) == 1
    assert f"--set {change}" in capsys.readouterr().err


def test_python_m_jaxmem(capsys):
    done = subprocess.run([sys.executable, "-m", "jaxmem", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("jaxmem ")
