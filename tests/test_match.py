"""Training slices measured from a tomogram: profile, noise and contrast come back as they were put in."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from jaxmem.cli import main
from jaxmem.pipeline import match_tomogram
from jaxmem.settings import PreprocessConfig
from jaxmem.simulate.profile import STEP
from jaxmem.types import JaxmemError, Tomogram

PLAIN = PreprocessConfig(z_sigma=0.0)
RADIUS, LEAFLET = 50.0, 21.0  # voxels; A from the mid-surface


def upright_cylinder(voxel_size=14.0, shape=(16, 200, 200)):
    """A membrane that stands upright in every slice, in white noise: tomogram and mask."""
    y, x = np.indices(shape[1:], float)
    d = (np.hypot(y - shape[1] / 2, x - shape[2] / 2) - RADIUS) * voxel_size
    leaflets = sum(np.exp(-0.5 * ((d - s * LEAFLET) / 9.0) ** 2) for s in (-1, 1))
    noise = np.random.default_rng(0).normal(0, 1, shape)
    data = (10.0 + 5.0 * (noise - 2.0 * leaflets)).astype(np.float32)
    return Tomogram(data, voxel_size), np.broadcast_to(np.abs(d) <= 25.0, shape).astype(np.int8)


@pytest.fixture(scope="module")
def like():
    return match_tomogram(*upright_cylinder(), config=PLAIN)


def test_profile_contrast_and_noise_come_back(like):
    # two standard deviations deep, against noise smoothed by a pixel (0.28 of it is left); a range around it
    smoothed = gaussian_filter(np.random.default_rng(1).normal(0, 1, (400, 400)), 1.0).std()
    assert np.mean(like.contrast) == pytest.approx(2.0 / smoothed, rel=0.15)
    assert like.contrast[0] < np.mean(like.contrast) < like.contrast[1]
    darkest = int(np.argmin(like.profile))
    assert darkest * STEP == pytest.approx(LEAFLET / 14.0, abs=0.3)
    assert like.profile[darkest] == -1.0
    assert like.profile[0] > -0.75
    assert np.abs(like.profile[20:]).max() < 0.15
    power = np.array(like.noise)
    assert power[3:].std() < 0.15 * power[3:].mean()  # white


def test_lengths_are_the_networks_pixels():
    scaled = match_tomogram(*upright_cylinder(10.0), config=PLAIN)
    assert int(np.argmin(scaled.profile)) * STEP == pytest.approx(LEAFLET / 14.0, abs=0.4)


def test_two_slices_marked_by_hand_are_enough(like):
    tomogram, mask = upright_cylinder()
    few = np.where(np.isin(np.arange(16), (4, 11))[:, None, None], mask, 0)
    found = match_tomogram(tomogram, few, config=PLAIN)
    assert np.mean(found.contrast) == pytest.approx(np.mean(like.contrast), rel=0.15)
    assert int(np.argmin(found.profile)) * STEP == pytest.approx(LEAFLET / 14.0, abs=0.4)


def test_what_cannot_be_matched_is_said():
    tomogram, mask = upright_cylinder(shape=(4, 200, 200))
    with pytest.raises(JaxmemError, match="shape"):
        match_tomogram(tomogram, mask[:, :-1])
    with pytest.raises(JaxmemError, match="no membrane"):
        match_tomogram(tomogram, np.zeros_like(mask))
    with pytest.raises(JaxmemError, match="not darker"):
        match_tomogram(tomogram._replace(data=-tomogram.data), mask, config=PLAIN)
    with pytest.raises(JaxmemError, match="too little"):
        match_tomogram(tomogram, mask * (np.indices(mask.shape)[1] < 52), config=PLAIN)
    grid = np.zeros_like(mask)
    grid[:, ::20] = 1
    with pytest.raises(JaxmemError, match="background"):
        match_tomogram(tomogram, grid, config=PLAIN)


def test_train_like_a_tomogram(mrc, tmp_path, capsys):
    tomogram, mask = upright_cylinder(shape=(8, 200, 200))
    source, marked = mrc(tomogram.data, name="t.mrc"), mrc(mask, name="m.mrc")
    tiny = ["--epochs", "1", "--images", "4", "--width", "2", "--depth", "2"]
    arguments = ["train", "-o", str(tmp_path / "t"), *tiny, "--like", str(source)]
    assert main(arguments) == 1
    assert "--membranes" in capsys.readouterr().err
    other = mrc(mask[:, :-1], name="other.mrc")
    assert main([*arguments, "--membranes", str(other)]) == 1
    assert "other.mrc: the mask has shape" in capsys.readouterr().err
    (tmp_path / "text.mrc").write_text("hello")
    assert main([*arguments, "--membranes", str(tmp_path / "text.mrc")]) == 1
    assert capsys.readouterr().err.splitlines()[-1].count("text.mrc") == 1
    assert not (tmp_path / "t").exists()
    assert main([*arguments, "--membranes", str(marked)]) == 0
    captured = capsys.readouterr()
    assert "contrast of" in captured.err
    assert '"profile": [\n' in (tmp_path / "t" / "card.json").read_text()
