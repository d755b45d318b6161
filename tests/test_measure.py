"""Measurements: thickness, gaps, bending, particles and their patterns; and the command that makes tables of them."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree

from jaxmem import measure
from jaxmem.cli import main
from jaxmem.density import whitening
from jaxmem.pipeline import fit_file
from jaxmem.pipeline.measuring import measure_run
from jaxmem.pipeline.measuring.inputs import open_run
from jaxmem.pipeline.measuring.pairs import widths
from jaxmem.points import sphere_directions

OFFSETS = np.arange(-7.0, 7.5, 0.5, dtype=np.float32)
TRANSFER = measure.Transfer(jnp.array([1.0, -0.7, -0.15, 0.4], jnp.float32))
SIZE = 10.0  # A a voxel, of the run below


@pytest.mark.parametrize("distance", [2.8, 3.6, 4.5])
def test_a_mean_profile_tells_the_distance_and_the_transfer(distance):
    rng = np.random.default_rng(0)
    profile = np.asarray(measure.pair(jnp.asarray(OFFSETS), distance, TRANSFER)) + 0.003 * rng.normal(size=len(OFFSETS))
    found, middle, left = measure.learn_transfer(
        jnp.asarray(profile, jnp.float32), jnp.asarray(OFFSETS), jnp.arange(2.0, 6.0, 0.5)
    )
    assert float(middle) == pytest.approx(distance, abs=0.06)
    assert float(left) < 1e-3
    k = jnp.array([0.1, 0.2], jnp.float32)
    assert np.allclose(found(k), TRANSFER(k), rtol=0.15)


def test_the_posterior_of_a_distance_is_right():
    """Of many noisy profiles, shifted and of other contrast, 95 % intervals hold the truth; a single band is told from two."""
    rng, many = np.random.default_rng(1), 300
    offsets = jnp.asarray(OFFSETS)
    sigma = 0.15 * float(jnp.abs(measure.pair(offsets, 3.6, TRANSFER)).max())
    true = rng.uniform(2.8, 4.5, many)
    parts = jax.vmap(lambda d: measure.changes(offsets, d, TRANSFER))(jnp.asarray(true, jnp.float32))
    factors = np.stack([1.0 + 0.2 * rng.normal(size=many), 0.2 * rng.normal(size=many), 0.2 * rng.normal(size=many)], 1)
    profiles = np.einsum("ntk,nk->nt", np.asarray(parts), factors) + sigma * rng.normal(size=(many, len(OFFSETS)))
    whitener = whitening(sigma**2 * jnp.eye(len(OFFSETS), dtype=jnp.float32))
    asked = jnp.arange(1.6, 6.4, 0.1, dtype=jnp.float32)
    batched = jax.jit(jax.vmap(measure.leaflets, (0, None, None, None, None)))
    found = batched(jnp.asarray(profiles, jnp.float32), offsets, asked, TRANSFER, whitener)
    error = np.asarray(found.distance) - true
    assert abs(error.mean()) < 0.05
    assert 0.9 <= (np.abs(error) < 1.96 * np.asarray(found.sigma)).mean() <= 0.999
    assert np.median(found.log_odds) > 3.0
    band = measure.pair(offsets, 0.0, TRANSFER)[None] + sigma * rng.normal(size=(20, len(OFFSETS))).astype(np.float32)
    assert np.median(batched(band, offsets, asked, TRANSFER, whitener).log_odds) < 0.0


def test_shapes_have_their_indices():
    mean, gauss = jnp.array([0.1, 0.05, 0.0, -0.1, 0.0]), jnp.array([0.01, 0.0, -0.01, 0.01, 0.0])
    index = measure.shape_index(mean, gauss)  # sphere, cylinder, saddle, sphere from within, plane
    assert np.allclose(index, [1.0, 0.5, 0.0, -1.0, 0.0], atol=1e-3)
    assert np.allclose(measure.curvedness(mean, gauss), [0.1, 0.1 / 2**0.5, 0.1, 0.1, 0.0], atol=1e-6)
    area = jnp.full(50, 4 * np.pi * 12.0**2 / 50)
    assert float(measure.willmore(jnp.full(50, 1 / 12.0), area)) == pytest.approx(4 * np.pi, rel=1e-5)
    assert float(measure.willmore(jnp.full(50, 1 / 12.0), area, 1 / 12.0)) == pytest.approx(0.0, abs=1e-9)


def test_contacts_of_planes():
    """Half of one plane lies 3 voxels over the other, half 9; both have moved by a known amount in the draws."""
    gap = jnp.where(jnp.arange(100) < 50, 3.0, 9.0)
    area, mean = measure.contact(gap, jnp.full(100, 2.0), 5.0)
    assert (float(area), float(mean)) == (pytest.approx(100.0, rel=1e-3), pytest.approx(3.0, rel=1e-3))
    moved = measure.moved_gap(gap, jnp.full(100, -1.0), jnp.full(100, 0.5), jnp.full(100, 0.25))
    assert np.allclose(gap - moved, 0.75)
    assert float(measure.contact(gap, jnp.full(100, 2.0), 1.0)[0]) == pytest.approx(0.0, abs=1e-3)


def test_paths_and_patterns_on_a_sphere():
    radius = 20.0
    u = np.asarray(sphere_directions(3000, 3), float)
    graph = measure.graph_of(radius * u, u, 1.2)
    where = np.arange(0, 3000, 150)
    along = measure.along_surface(graph, where)
    true = radius * np.arccos(np.clip(u[where] @ u[where].T, -1, 1))
    far = true > 5.0
    assert np.abs(along[far] / true[far] - 1).max() < 0.04
    areas = np.full(3000, 4 * np.pi * radius**2 / 3000)
    radii = np.array([4.0, 8.0])
    null = measure.ripley_null(graph, areas, 20, radii, seed=3)
    cap = 2 * np.pi * radius**2 * (1 - np.cos(radii / radius))  # of a random pattern
    assert np.allclose(null.mean(0), cap, rtol=0.25)
    crowd = cKDTree(u).query(u[[0]], k=400)[1][0][::20]
    clustered = measure.ripley(measure.along_surface(graph, crowd), radii, areas.sum())
    assert (clustered > null.mean(0) + 5 * null.std(0)).all()


def test_particles_that_touch_are_two():
    z, y, x = np.indices((24, 40, 48), float)
    density = np.random.default_rng(0).normal(0, 0.3, z.shape).astype(np.float32)
    mask = np.zeros(z.shape, bool)
    centres = np.array([[12.0, 14.0, 12.0], [12.0, 14.0, 19.5], [11.0, 30.0, 38.0]])
    for c in centres:
        near = np.linalg.norm(np.stack([z, y, x], -1) - c, axis=-1)
        density -= 2.0 * np.exp(-0.5 * (near / 2.2) ** 2).astype(np.float32)
        mask |= near < 4.0
    mask[2:4, 2:4, 2:4] = True  # too small for one
    found = measure.find_particles(mask, density, 6.0)
    assert len(found.centre) == 3
    gap, match = cKDTree(found.centre).query(centres)
    assert gap.max() < 0.8
    assert sorted(match) == [0, 1, 2]
    assert (found.contrast > 2.0).all()
    assert len(measure.find_particles(np.zeros_like(mask), density, 6.0).centre) == 0
    alone = measure.find_particles(mask, None, 6.0)
    assert 2 <= len(alone.centre) <= 3


@pytest.fixture(scope="module")
def run(shells, tmp_path_factory):
    """A run of the three spheres, and a tomogram of them whose leaflets lie 40 A apart."""
    folder = tmp_path_factory.mktemp("measure")
    volume, radii = shells
    from jaxmem.io import write_mrc
    from jaxmem.types import Tomogram

    write_mrc(folder / "mask.mrc", volume, Tomogram(volume, SIZE))
    fit_file(folder / "mask.mrc", folder / "run", instances=True)
    z, y, x = np.indices(volume.shape, float)
    rng = np.random.default_rng(0)
    density = 0.4 * rng.normal(size=volume.shape)
    for c, r in (((24, 32, 30), radii[1]), ((24, 32, 30), radii[2]), ((24, 30, 72), radii[3])):
        distance = np.sqrt((z - c[0]) ** 2 + (y - c[1]) ** 2 + (x - c[2]) ** 2) - r
        density -= sum(np.exp(-0.5 * ((distance + s * 2.0) / 0.9) ** 2) for s in (-1, 1))
    density = density.astype(np.float32)
    write_mrc(folder / "tomogram.mrc", density, Tomogram(density, SIZE))
    return folder / "run", folder / "tomogram.mrc", radii


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def measured(run):
    folder, tomogram, _ = run
    return measure_run(folder, tomogram, contact=10.0, head=60.0)


def test_pairs_have_their_distances(measured):
    rows = {(int(r["first"]), int(r["second"])): r for r in table(measured / "pairs.csv")}
    nested = rows[1, 2]
    assert nested["relation"] == "around"
    # where the mask ends, midlines bend inwards, so that the closest place is nearer than it should be
    assert 8.0 < float(nested["closest_nm"]) < 9.1
    assert float(nested["gap_nm"]) == pytest.approx(9.0, abs=0.15)
    assert 0 < float(nested["gap_sigma_nm"]) < float(nested["closest_sigma_nm"]) < 0.5
    beside = rows[1, 3]
    apart = np.hypot(42.0, 2.0) - 19.0 - 15.0
    assert beside["relation"] == "beside"
    assert float(beside["closest_nm"]) == pytest.approx(apart, abs=0.25)
    # the part of the first sphere within 10 nm of the third is a cap
    cosine = (19.0**2 + np.hypot(42.0, 2.0) ** 2 - 25.0**2) / (2 * 19.0 * np.hypot(42.0, 2.0))
    cap = 2 * np.pi * 19.0**2 * (1 - cosine)
    assert float(beside["contact_area_nm2"]) == pytest.approx(cap, rel=0.06, abs=3.0)


def test_membranes_have_their_shapes(measured, run):
    rows = table(measured / "membranes.csv")
    radii = run[2]
    for row in rows:
        radius = radii[int(row["membrane"])]
        assert float(row["width_nm"]) == pytest.approx(2 * radius, rel=0.02)
        assert float(row["mean_curvature_per_nm"]) == pytest.approx(1 / radius, rel=0.05)
        assert float(row["willmore"]) == pytest.approx(4 * np.pi, rel=0.05)
        assert float(row["shape_index"]) > 0.9
        assert float(row["willmore_sigma"]) > 0
    assert [row["nearest_membrane"] for row in rows] == ["3", "1", "1"]


def test_thickness_is_measured_in_the_tomogram(measured):
    rows = table(measured / "membranes.csv")
    found = [(float(r["thickness_nm"]), float(r["thickness_sigma_nm"])) for r in rows if r["thickness_nm"]]
    assert len(found) >= 2
    for value, sigma in found:
        assert value == pytest.approx(4.0, abs=max(0.15, 3 * sigma))
        assert sigma < 0.2


def test_everything_is_written_and_can_be_read(measured, run):
    manifest = json.loads((measured / "manifest.json").read_text())
    assert manifest["settings"]["contact"] == 10.0
    assert {"thickness", "distances", "proteins", "membranes"} <= set(manifest["seconds"])
    mesh = (measured / "membrane_001.vtp").read_text()
    for name in ("thickness", "width", "nearest_distance", "shape_index", "angle_to_beam", "kappa_1_sigma"):
        assert f'Name="{name}"' in mesh
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    assert page.count("<h2>Measured</h2>") == 1
    assert (measured / "particles.star").exists()
    assert table(measured / "particles.csv") == []  # a mask has no proteins


def test_a_second_measurement_replaces_the_first(measured, run, capsys):
    """Without a tomogram there is no thickness, and it is said."""
    assert main(["measure", str(run[0]), "--contact", "8", "-o", str(run[0] / "again")]) == 0
    assert "thickness is not measured" in capsys.readouterr().err
    assert all(row["thickness_nm"] == "" for row in table(run[0] / "again" / "membranes.csv"))
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    assert page.count("<h2>Measured</h2>") == 1


def test_widths_of_a_sphere_hold(run):
    skin = open_run(run[0]).skin(3)
    _, width, sigma = widths(skin)
    assert np.isfinite(width).mean() > 0.97
    assert np.nanmedian(np.abs(width - 30.0)) < 0.4
    assert (np.abs(width - 30.0) < 3 * np.hypot(sigma, 0.2))[np.isfinite(width)].mean() > 0.9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["measure", "{run}/surfaces"], "not a finished run"),
        (["measure", "{run}", "--contact", "0"], "--contact: must be positive"),
        (["measure", "{run}", "--tomogram", "missing.mrc"], "missing.mrc"),
        (["measure", "{run}", "--tomogram", "{small}"], "give the tomogram of the run"),
    ],
)
def test_what_cannot_be_measured_is_said(arguments, words, run, mrc, capsys):
    small = mrc(np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32), SIZE, "small.mrc")
    filled = [a.format(run=run[0], small=small) for a in arguments]
    assert main(filled) == 1
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert not list(run[0].glob(".measures-*"))


def test_an_older_run_is_refused_in_one_line(run, tmp_path, capsys):
    import shutil

    shutil.copytree(run[0], tmp_path / "old")
    (tmp_path / "old" / "surfaces" / "membrane_002.npz").unlink()
    assert main(["measure", str(tmp_path / "old")]) == 1
    assert "make the run again" in capsys.readouterr().err
