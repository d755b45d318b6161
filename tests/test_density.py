"""What a membrane looks like in a tomogram, and points placed by it: wedge, bilayer, profiles, the whole stage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree

from jaxmem import fit_mask
from jaxmem.density import (
    FULL,
    OFFSETS,
    SHIFTS,
    Bilayer,
    Placed,
    Wedge,
    estimate_wedge,
    filtered,
    gain,
    invert,
    laplace,
    learn_bilayer,
    local_information,
    moved,
    place,
    profile_along,
    synthesize,
    two_leaflets,
    whitening,
)
from jaxmem.numerics import unit_rows
from jaxmem.settings import Config, RefineConfig
from jaxmem.surface import Boxed, Outline, box_about
from jaxmem.surface.tiles import EDGE, distances, patches
from jaxmem.types import JaxmemError, Tomogram

VOXEL = 13.0
TILTS = Wedge(-60.0, 60.0, 0.0)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(64, 72, 80)).astype(np.float32)


@pytest.mark.parametrize("wedge", [Wedge(-60.0, 60.0, 0.0), Wedge(-45.0, 57.0, 90.0), Wedge(-51.0, 51.0, 30.0)])
def test_tilts_are_read_from_the_spectrum(noise, wedge):
    shown = np.asarray(filtered(jnp.asarray(noise), gain(noise.shape, wedge)))
    found = estimate_wedge(shown + 0.02 * np.roll(noise, 7))
    assert found is not None
    assert abs(found.low - wedge.low) < 2.0
    assert abs(found.high - wedge.high) < 2.0
    turned = (found.azimuth - wedge.azimuth + 90.0) % 180.0 - 90.0
    assert abs(turned) < 3.0


def test_a_spectrum_without_a_wedge_has_none(noise):
    assert estimate_wedge(noise) is None
    assert estimate_wedge(np.zeros((64, 64, 64))) is None
    assert estimate_wedge(noise[:3]) is None


def test_a_plane_within_the_wedge_is_not_seen():
    """One whose normal was measured stays as it is, one that faces the beam vanishes but for its mean."""
    bilayer = two_leaflets(VOXEL, 6.0)
    z = jnp.arange(32.0) - 15.6
    upright = jnp.broadcast_to(z, (32, 32, 32))
    passed = gain((32, 32, 32), TILTS)
    assert np.abs(synthesize(upright, bilayer, passed) - bilayer(upright)).max() < 1e-5
    flat = synthesize(jnp.moveaxis(upright, 2, 0), bilayer, passed)
    assert float(jnp.std(flat)) < 1e-4
    assert float(jnp.mean(flat)) == pytest.approx(float(jnp.mean(bilayer(upright))), rel=1e-3)


def test_what_a_patch_tells_falls_within_the_wedge():
    bilayer = two_leaflets(VOXEL, 6.0)

    def share(angle, patch=3.0, wedge=TILTS):
        tilt = jnp.deg2rad(angle)
        return float(local_information(jnp.stack([jnp.sin(tilt), 0.0 * tilt, jnp.cos(tilt)]), bilayer, patch, wedge))

    assert share(0.0) > 0.97
    assert share(90.0) < 0.1 < share(62.0) < 0.7
    assert share(75.0, patch=1.0) > share(75.0) > share(75.0, patch=10.0)
    assert share(90.0, wedge=FULL) == pytest.approx(1.0)
    # about a normal along the axis itself waves lie at all tilts, of which two thirds were measured
    assert share(0.0, wedge=Wedge(-60.0, 60.0, 90.0)) == pytest.approx(2 / 3, abs=0.05)


@pytest.mark.parametrize("middle", [-0.8, 0.0, 0.37])
def test_a_bilayer_is_learnt_with_its_middle(middle):
    true = two_leaflets(VOXEL, 6.0)
    offsets = jnp.arange(-8.0, 8.25, 0.5)
    profile = 3.0 * true(offsets - middle) + 10.0 + 0.05 * jnp.sign(offsets - middle)
    found, where = learn_bilayer(profile, offsets, 6.0)
    assert float(where) == pytest.approx(middle, abs=0.05)
    t = jnp.linspace(-4.0, 4.0, 33)
    assert float(jnp.abs(found(t) - 3.0 * true(t)).max()) < 0.25


@pytest.fixture(scope="module")
def profiles() -> tuple[np.ndarray, np.ndarray, Placed]:
    """Profiles in coloured noise, a quarter of them without a membrane: true shifts, whether there is one, what is found."""
    rng = np.random.default_rng(1)
    bilayer = two_leaflets(VOXEL, 6.0)
    offsets, margin = OFFSETS * (np.arange(25) - 12), SHIFTS * (np.arange(25 * 2 - 1 + 2 * 12) - 24 - 12)
    covariance = 0.02 * np.exp(-0.5 * ((offsets[:, None] - offsets[None]) / 0.8) ** 2) + 1e-4 * np.eye(25)
    shifts = rng.uniform(-2.0, 2.0, 800)
    there = np.arange(800) % 4 != 0
    clean = np.asarray(bilayer(jnp.asarray(offsets[None] - shifts[:, None])))
    amplitude = rng.normal(1.0, 0.2, 800) * there
    data = amplitude[:, None] * clean + rng.multivariate_normal(np.zeros(25), covariance, 800)
    data += rng.normal(size=(800, 1)) + rng.normal(size=(800, 1)) * offsets[None]
    template = jnp.broadcast_to(bilayer(jnp.asarray(margin, jnp.float32)), (800, len(margin)))
    many = jax.jit(jax.vmap(place, (0, 0, None, None, None)))
    white = whitening(jnp.asarray(covariance, jnp.float32))
    found = many(jnp.asarray(data, jnp.float32), template, white, 1.0, 0.3)
    return shifts, there, jax.tree.map(np.asarray, found)


def test_shifts_and_their_errors_hold(profiles):
    shifts, there, found = profiles
    off = np.abs(found.shift - shifts)[there]
    assert np.median(off) < 0.2
    held = (off < 1.96 * found.sigma[there]).mean()
    assert 0.93 < held <= 1.0
    assert (off < found.sigma[there]).mean() < 0.92  # nor are they far too wide


def test_odds_tell_membranes_from_noise(profiles):
    _, there, found = profiles
    assert (found.log_odds[there] > 2.0).mean() > 0.95
    assert (found.log_odds[~there] > 2.0).mean() < 0.02
    assert np.median(found.amplitude[there]) == pytest.approx(1.0, abs=0.1)


def test_a_gradient_goes_from_a_voxel_to_where_a_point_is_placed():
    """Against differences, in double precision."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(2)
        bilayer = two_leaflets(VOXEL, 6.0)
        x = jnp.arange(24.0) - 11.7
        volume = jnp.broadcast_to(bilayer(x), (24, 24, 24)) + jnp.asarray(0.05 * rng.normal(size=(24, 24, 24)))
        along = OFFSETS * (jnp.arange(17.0) - 8.0)
        template = bilayer(SHIFTS * (jnp.arange(33.0 + 8.0) - 20.0))
        white = whitening(0.02 * jnp.eye(17))

        def where(volume):
            profile = profile_along(volume, jnp.array([12.0, 12.0, 12.0]), jnp.array([0.0, 0.6, 0.8]), along)
            return place(profile, template, white, 1.0, 0.3).shift

        slope = jax.jit(jax.grad(where))(volume)
        way = jnp.asarray(rng.normal(size=volume.shape))
        step = jax.jit(lambda h: where(volume + h * way))
        assert float(jnp.vdot(slope, way)) == pytest.approx(float(step(1e-4) - step(-1e-4)) / 2e-4, rel=1e-5)


def ball(radius: float, many: int = 6000) -> tuple[np.ndarray, np.ndarray]:
    """Points of a sphere about the origin, about a voxel apart, and their normals."""
    height = 1.0 - 2.0 * (np.arange(many) + 0.5) / many
    turn = np.pi * (3.0 - 5.0**0.5) * np.arange(many)
    normals = np.stack([height, np.sqrt(1 - height**2) * np.sin(turn), np.sqrt(1 - height**2) * np.cos(turn)], 1)
    return radius * normals, normals


def test_distances_in_a_cube_are_those_to_the_surface():
    points, normals = ball(30.0)
    centre = np.array([70.0, 60.0, 64.0])
    corner = np.array([7, -3, 1])
    found, there = distances(Outline(points + centre, normals), corner, 6.0)
    place_ = 2.0 * np.stack(np.meshgrid(*(np.arange(EDGE // 2),) * 3, indexing="ij"), -1) + corner
    true = np.linalg.norm(place_ - centre, axis=-1) - 30.0
    near = np.abs(true) < 5.0
    assert np.abs(found - true)[near].max() < 0.1
    assert there[near].all()
    assert (found[true > 12.0] > 12.0).all()
    assert (found[true < -12.0] < -12.0).all()


def test_a_sheet_ends_at_its_border():
    y, x = np.meshgrid(np.arange(30.0, 60.0), np.arange(30.0, 60.0), indexing="ij")
    sheet = np.stack([np.full(y.size, 50.0), y.ravel(), x.ravel()], 1)
    found, there = distances(Outline(sheet, np.tile([1.0, 0.0, 0.0], (len(sheet), 1))), np.zeros(3, int), 6.0)
    assert there[25, 22, 22]
    assert not there[25, 22, 40]
    assert found[26, 22, 22] == pytest.approx(2.0)


def test_patches_do_not_reach_through_a_thin_sac():
    """Two sheets four voxels apart that face away from one another are averaged apart."""
    y, x = np.meshgrid(np.arange(20.0), np.arange(20.0), indexing="ij")
    sheets = [np.stack([np.full(y.size, h), y.ravel(), x.ravel()], 1) for h in (10.0, 14.0)]
    normals = np.repeat([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], y.size, 0)
    weights = patches(Outline(np.concatenate(sheets), normals), np.array([210]), 6.0)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[:, y.size :].sum() == 0.0


@pytest.fixture(scope="module")
def vesicle() -> tuple[Tomogram, Tomogram, np.ndarray, np.ndarray]:
    """A bumpy vesicle seen through the wedge, in noise; a mask of it that is too large where it is slanted; its points and normals."""
    rng = np.random.default_rng(3)
    centre, shape = np.array([47.3, 48.2, 48.8]), (96, 96, 96)
    direction = ball(1.0, 20000)[0]

    def radius(d):
        return 26.0 + 1.5 * d[..., 1] * d[..., 2] + 2.0 * d[..., 0] ** 2

    points = radius(direction)[:, None] * direction
    # normals of the level set |x| - r(x / |x|)
    step = 1e-4 * np.eye(3)
    level = lambda p: np.linalg.norm(p, axis=-1) - radius(unit_rows(p))  # noqa: E731
    normals = unit_rows(np.stack([level(points + s) - level(points - s) for s in step], 1))
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1).reshape(-1, 3) - centre
    near, k = cKDTree(points).query(grid, distance_upper_bound=12.0)
    distance = np.full(len(grid), 50.0)
    found = np.isfinite(near)
    distance[found] = ((grid[found] - points[k[found]]) * normals[k[found]]).sum(1)
    distance = distance.reshape(shape)
    clean = np.asarray(
        synthesize(jnp.asarray(distance, jnp.float32), two_leaflets(VOXEL, 6.0), gain(shape, Wedge(-60.0, 60.0, 0.0)))
    )
    grain = jnp.asarray(0.5 * rng.normal(size=shape), jnp.float32)
    tomogram = clean + np.asarray(filtered(grain, gain(shape, TILTS)))
    steep = np.zeros(len(grid))
    steep[found] = np.abs(normals[k[found], 0])
    steep = steep.reshape(shape)
    mask = (np.abs(distance - 1.5 * steep) < 1.2) & (steep < 0.75)
    return Tomogram(mask.astype(np.int8), VOXEL), Tomogram(tomogram, VOXEL), points + centre, normals


def errors_of(result, points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mesh = result.membranes[0].mesh
    k = cKDTree(mesh.vertices).query(points)[1]
    return ((mesh.vertices[k] - points) * normals).sum(1), mesh.sigma[k]


def test_the_tomogram_mends_a_mask(vesicle):
    """Points a voxel and a half outside where the membrane is slanted go where it is, and their error bars hold."""
    mask, tomogram, points, normals = vesicle
    before, _ = errors_of(fit_mask(mask, instances=True), points, normals)
    result = fit_mask(mask, instances=True, tomogram=tomogram)
    after, sigma = errors_of(result, points, normals)
    slanted = (np.abs(normals[:, 0]) > 0.5) & (np.abs(normals[:, 0]) < 0.8)
    assert before[slanted].mean() > 0.6
    assert np.abs(after[slanted].mean()) < 0.15
    assert np.abs(after[slanted]).mean() < 0.25
    assert np.abs(after[np.abs(normals[:, 0]) < 0.5]).mean() < 0.15
    assert 0.9 < (np.abs(after) < 1.96 * sigma).mean() <= 1.0
    assert result.membranes[0].mesh.closed
    assert any("tilts: -6" in text for text in result.decisions)
    assert any("places the points of 1 of 1 membranes" in text for text in result.decisions)


def test_where_the_tomogram_shows_nothing_the_mask_stands(vesicle):
    mask, tomogram, *_ = vesicle
    config = Config(refine=RefineConfig(tilt_low=-60.0, tilt_high=60.0, tilt_axis=0.0))
    noise = np.random.default_rng(5).normal(size=tomogram.data.shape).astype(np.float32)
    lost = fit_mask(mask, config, instances=True, tomogram=tomogram._replace(data=noise))
    plain = fit_mask(mask, config, instances=True)
    assert any("places the points of 0 of 1 membranes" in text for text in lost.decisions)
    assert np.array_equal(lost.membranes[0].mesh.vertices, plain.membranes[0].mesh.vertices)


@pytest.fixture(scope="module")
def boxed() -> tuple[Boxed, Bilayer, jax.Array, jax.Array, np.ndarray]:
    """A sphere whose nodes have moved: its box, bilayer, what passes, the tomogram of the moved sphere, and the movements."""
    points, normals = ball(12.0, 2500)
    about = box_about(Outline(points + 40.0, normals), 5.0, margin=8)
    bilayer, passed = two_leaflets(VOXEL, 5.0), gain(about.shape, TILTS)
    true = 0.8 * np.sin((about.nodes - 40.0) @ np.array([0.2, 0.1, 0.15]))
    volume = synthesize(moved(jnp.asarray(true, jnp.float32), about.box), bilayer, passed)
    return about, bilayer, passed, 2.0 * volume - 2.0 * volume.mean(), true


def test_synthesis_finds_how_a_surface_has_moved(boxed):
    about, bilayer, passed, volume, true = boxed
    square = ((about.nodes[:, None] - about.nodes[None]) ** 2).sum(-1)
    prior = jnp.asarray(np.exp(-0.5 * square / 8.0**2) + 1e-3 * np.eye(len(square)), jnp.float32)
    found = invert(volume, about.box, bilayer, passed, prior, 0.05, 4, 20)
    upright = np.abs(about.nodes[:, 0] - 40.0) < 6.0
    assert np.abs(np.asarray(found.displacement) - true)[upright].mean() < 0.05 < np.abs(true[upright]).mean()
    assert np.abs(np.asarray(found.displacement) - true).mean() < 0.15
    assert float(found.amplitude) == pytest.approx(2.0, rel=0.05)
    assert float(found.misfit[-1]) < 0.1 * float(found.misfit[0])


def test_error_bars_of_synthesis_hold(boxed):
    """Of surfaces drawn from the prior and seen in white noise; more is known of upright nodes than of caps."""
    about, bilayer, passed, *_ = boxed
    square = ((about.nodes[:, None] - about.nodes[None]) ** 2).sum(-1)
    prior = jnp.asarray(0.25 * np.exp(-0.5 * square / 8.0**2) + 1e-3 * np.eye(len(square)), jnp.float32)
    root, rng, noise = np.linalg.cholesky(np.asarray(prior)), np.random.default_rng(2), 1.0

    @jax.jit
    def tried(volume):
        found = invert(volume, about.box, bilayer, passed, prior, noise, 3, 20)
        return found.displacement, laplace(found, about.box, bilayer, passed, prior, noise)

    ratio, sigma = [], np.zeros(0)
    for _ in range(6):
        true = (root @ rng.normal(size=len(root))).astype(np.float32)
        clean = np.asarray(synthesize(moved(jnp.asarray(true), about.box), bilayer, passed))
        # noise that the wedge has filtered: what it hides tells nothing
        seen = np.asarray(filtered(jnp.asarray(rng.normal(size=clean.shape), jnp.float32), passed)) * noise
        found, covariance = (np.asarray(a) for a in tried(jnp.asarray(clean - clean.mean() + seen - seen.mean())))
        sigma = np.sqrt(np.diag(covariance))
        ratio.append((found - true) / sigma)
    ratio = np.concatenate(ratio)
    assert 0.8 < np.sqrt((ratio**2).mean()) < 1.25
    assert 0.9 < (np.abs(ratio) < 1.96).mean() < 0.99
    up = np.abs(about.nodes[:, 0] - 40.0) / 12.0
    assert sigma[up > 0.9].mean() > 1.5 * sigma[up < 0.5].mean()


def test_two_membranes_in_one_box_are_found_together():
    """Two spheres whose bilayers overlap where they touch: together they are found, one by one they hold each other's density for their own."""
    points, normals = ball(8.0, 1200)
    one, other = (
        Outline(points + np.array([40.0, 40.0, 31.0]), normals),
        Outline(points + np.array([40.0, 40.0, 50.0]), normals),
    )
    whole = Outline(np.concatenate([one.vertices, other.vertices]), np.concatenate([one.normals, other.normals]))
    frame = box_about(whole, 5.0, margin=8)
    about = [box_about(o, 5.0, frame=frame) for o in (one, other)]
    bilayer, passed = two_leaflets(VOXEL, 5.0), gain(frame.shape, TILTS)
    true = [0.6 * np.sin(a.nodes @ np.array([0.15, 0.2, 0.1])).astype(np.float32) for a in about]
    volume = filtered(sum(bilayer(moved(jnp.asarray(t), a.box)) for t, a in zip(true, about)), passed)
    volume = volume - volume.mean()
    square = [((a.nodes[:, None] - a.nodes[None]) ** 2).sum(-1) for a in about]
    prior = [jnp.asarray(np.exp(-0.5 * q / 8.0**2) + 1e-3 * np.eye(len(q)), jnp.float32) for q in square]
    together = invert(volume, tuple(a.box for a in about), bilayer, passed, tuple(prior), 0.05, 3, 16)
    alone = invert(volume, about[0].box, bilayer, passed, prior[0], 0.05, 3, 16)
    near = np.linalg.norm(about[0].nodes - np.array([40.0, 40.0, 40.5]), axis=1) < 6.0
    error = np.abs(np.asarray(together.displacement[0]) - true[0])
    assert error[near].mean() < 0.5 * np.abs(np.asarray(alone.displacement) - true[0])[near].mean()
    assert error.mean() < 0.15


def test_a_gradient_goes_from_a_voxel_to_the_shape(boxed):
    """Of the enclosed volume, to first order, with respect to the tomogram; against differences in double precision."""
    about, _, _, volume, _ = boxed
    with jax.enable_x64(True):
        bilayer, passed = two_leaflets(VOXEL, 5.0), gain(about.shape, TILTS)
        box = jax.tree.map(lambda a: a.astype(float) if a.dtype == jnp.float32 else a, about.box)
        square = ((about.nodes[:, None] - about.nodes[None]) ** 2).sum(-1)
        prior = jnp.asarray(np.exp(-0.5 * square / 8.0**2) + 1e-3 * np.eye(len(square)))

        def growth(v):
            return invert(v, box, bilayer, passed, prior, 2.0, 1, 100).displacement.mean()

        start = volume.astype(float)
        way = jnp.asarray(np.random.default_rng(0).normal(size=volume.shape))
        slope = jax.jit(jax.grad(growth))(start)
        step = jax.jit(lambda h: growth(start + h * way))
        assert float(jnp.vdot(slope, way)) == pytest.approx(float(step(1e-3) - step(-1e-3)) / 2e-3, rel=1e-3)


def test_a_tomogram_of_another_size_is_refused(vesicle):
    mask, tomogram, *_ = vesicle
    with pytest.raises(JaxmemError, match="96"):
        fit_mask(mask, instances=True, tomogram=tomogram._replace(data=tomogram.data[:-1]))


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(JaxmemError, match="belong together"):
        RefineConfig(tilt_low=-60.0)
    with pytest.raises(JaxmemError, match="less than tilt_high"):
        RefineConfig(tilt_low=60.0, tilt_high=-60.0)
    with pytest.raises(JaxmemError, match="rounds"):
        RefineConfig(rounds=-1)
