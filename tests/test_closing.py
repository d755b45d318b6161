"""Closed surfaces of any shape: which way is out, what closes and what does not, and where the surface goes on unseen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree

from jaxmem import gp, levelset
from jaxmem.grouping import Midline, Region, select_membranes
from jaxmem.grouping.closing import close, half_across, outwards, values_of
from jaxmem.grouping.closing import lying_sac as rim_as_sac
from jaxmem.grouping.hypotheses import closure_of, is_shut
from jaxmem.grouping.select import regions_from_instances
from jaxmem.grouping.shape import describe
from jaxmem.grouping.vaults import vaults
from jaxmem.pipeline.keeping.packing import pack_regions, unpack_regions
from jaxmem.points import evenly, sphere_directions
from jaxmem.settings import FitConfig, SelectConfig
from jaxmem.surface import extract, fit_membranes

SHAPE = (60, 110, 90)
VOXEL = 14.0


def bent_tube(radius: float, n: int = 9000) -> tuple[np.ndarray, np.ndarray]:
    """Points on a lying tube that bends and leaves the volume, and their normals, outwards."""
    rng = np.random.default_rng(0)
    along, turn = rng.uniform(-60, 60, n), rng.uniform(0, 2 * np.pi, n)
    axis = np.stack([0 * along, along**2 / 300.0, along], 1)
    tangent = np.stack([0 * along, along / 150.0, 0 * along + 1], 1)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    up = np.tile([1.0, 0.0, 0.0], (n, 1))
    normals = np.cos(turn)[:, None] * np.cross(tangent, up) + np.sin(turn)[:, None] * up
    points = axis + radius * normals + np.array([30.0, 45.0, 45.0])
    inside = ((points >= 0) & (points <= np.array(SHAPE) - 1)).all(1)
    return points[inside], normals[inside]


def seen(points: np.ndarray, normals: np.ndarray, most: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """What the missing wedge leaves: noisy points that do not face the beam, with normals of any sign."""
    rng = np.random.default_rng(1)
    there = np.abs(normals[:, 0]) < most
    p, n = points[there], normals[there]
    return p + rng.normal(0, 0.3, (len(p), 1)) * n, n * rng.choice([-1.0, 1.0], (len(p), 1))


@pytest.fixture(scope="module")
def tube() -> tuple[np.ndarray, np.ndarray]:
    return bent_tube(11.0)


def sheet(height: float) -> tuple[np.ndarray, np.ndarray]:
    yx = np.random.default_rng(2).uniform(15, 75, (4000, 2))
    return np.stack([yx[:, 0] * 0.6, np.full(4000, height), yx[:, 1]], 1), np.tile([0.0, 1.0, 0.0], (4000, 1))


def test_which_way_is_out_of_two_walls(tube):
    points, normals = tube
    there = np.abs(normals[:, 0]) < 0.7
    chosen = np.flatnonzero(there)[evenly(points[there], 800)]
    signs = np.random.default_rng(3).choice([-1.0, 1.0], (len(chosen), 1))
    out, turned = outwards(points[chosen], signs * normals[chosen])
    assert ((out * normals[chosen]).sum(1) > 0).all()
    assert 0.3 < turned < 0.5  # its ends are open, its top and bottom are not seen
    assert half_across(points[chosen], out) == pytest.approx(11.0, rel=0.1)


def test_a_tube_without_top_and_bottom_closes(tube):
    closure = close(*seen(*tube), SHAPE)
    assert is_shut(closure, SelectConfig())
    assert closure.expected > 0.95
    assert closure.seen < 0.8
    value = jax.vmap(closure.blend.value)(jnp.asarray(tube[0], jnp.float32))
    hidden = np.abs(tube[1][:, 0]) > 0.8
    assert np.abs(value[hidden]).mean() < 0.3  # where nothing was seen


def upright_tube(closed: bool = True, n: int = 14000) -> tuple[np.ndarray, np.ndarray]:
    """A tube with round ends as the missing wedge shows it: walls that stand upright, as high as the tube is wide, and go on straight where it bends inwards."""
    rng = np.random.default_rng(3)
    radius, half = 14.0, 50.0
    along, turn = rng.uniform(-half, half, n), rng.uniform(0, 2 * np.pi, n)
    normals = np.stack([np.sin(turn), np.cos(turn), 0 * turn], 1)
    points = radius * normals + along[:, None] * [0.0, 0.0, 1.0]
    ends = rng.normal(size=(n // 3, 3))
    ends /= np.linalg.norm(ends, axis=1, keepdims=True)
    if closed:
        points = np.concatenate([points, radius * ends + np.sign(ends[:, 2:]) * [0.0, 0.0, half]])
        normals = np.concatenate([normals, ends])
    there = np.abs(normals[:, 0]) < 0.85
    points, normals = points[there], normals[there]
    # what bends inwards is drawn as if it stood upright
    drawn = (np.abs(points[:, 2]) < 0.8 * half) & (np.abs(normals[:, 0]) > 0.3)
    normals[drawn] = np.sign(normals[drawn, 1:2]) * [0.0, 1.0, 0.0]
    points[drawn, 1] = np.sign(points[drawn, 1]) * 0.96 * radius
    return points + rng.normal(0, 0.3, points.shape) + [30.0, 40.0, 80.0], normals * rng.choice(
        [-1.0, 1.0], (len(normals), 1)
    )


LONG = (60, 80, 160)


def test_walls_that_look_upright_are_those_of_a_round_tube():
    points, normals = upright_tube()
    plain = close(points, normals, LONG)
    assert plain is not None
    assert not is_shut(plain, SelectConfig())
    closure = closure_of(points, normals, LONG, SelectConfig())
    assert closure is not None
    assert is_shut(closure, SelectConfig())
    assert closure.blend.vaulted == 1.0
    # top and bottom of the tube, where nothing is seen: within a seventh of its radius
    tops = np.array([[30.0 + up * 14.0, 40.0, x] for up in (-1, 1) for x in range(50, 111, 10)])
    assert np.abs(values_of(closure.blend, tops)).max() < 2.0
    assert np.abs(values_of(plain.blend, tops)).max() > 4.0


def test_plates_that_are_open_at_their_ends_are_no_tube():
    """The same walls without ends: what would be seen of the ends is missing."""
    points, normals = upright_tube(closed=False)
    closure = closure_of(points, normals, LONG, SelectConfig())
    assert closure is None or not is_shut(closure, SelectConfig())


def test_tall_walls_are_not_vaulted():
    rng = np.random.default_rng(4)
    height, along, side = rng.uniform(0, 50, 3000), rng.uniform(0, 80, 3000), rng.choice([-1.0, 1.0], 3000)
    points = np.stack([height, 8.0 * side, along], 1)
    normals = side[:, None] * [0.0, 1.0, 0.0]
    assert vaults(points[:800], normals[:800], np.ones(800), 8.0, 1.0) is None
    there = np.abs(points[:, 0] - 25.0) < 8.0
    found = vaults(points[there], normals[there], np.ones(there.sum()), 8.0, 1.0)
    assert found is not None
    assert np.abs(np.abs(found.tops[:, 0] - 25.0) - 8.0).max() < 1.5
    assert np.abs(found.tops[:, 1]).max() < 1.0
    extra = found.points[there.sum() :] - [25.0, 0.0, 0.0]
    assert (found.normals[there.sum() :] * extra).sum(1).min() > 0.0  # outwards


def test_what_does_not_close():
    one, other = sheet(40.0), sheet(56.0)
    assert close(*seen(*one), SHAPE) is None
    two = close(*(np.concatenate(a) for a in zip(seen(*one), seen(*other))), SHAPE)
    assert not is_shut(two, SelectConfig())  # their rims would be seen
    u = np.asarray(sphere_directions(6000, 3), float)
    bowl = close(*seen(20.0 * u[u[:, 1] > 0] + np.array([30.0, 50.0, 45.0]), u[u[:, 1] > 0]), SHAPE)
    assert not is_shut(bowl, SelectConfig())
    assert close(np.random.default_rng(0).uniform(0, 50, (30, 3)), u[:30], SHAPE) is None


def as_line(points, normals) -> Midline:
    points = points.astype(np.float32)
    return Midline(
        points, normals.astype(np.float32), np.round(points).astype(int), np.full(len(points), 0.8, np.float32)
    )


def test_two_walls_of_a_tube_are_one_membrane_and_two_sheets_are_two(tube):
    points, normals = seen(*tube)
    middle = 45.0 + (points[:, 2] - 45.0) ** 2 / 300.0
    wall = np.where(points[:, 1] > middle, 1, 2)
    told = []
    found = select_membranes(as_line(points, normals), wall, SHAPE, VOXEL, SelectConfig(), told.append)
    assert len(found) == 1
    assert found[0].closed
    assert found[0].blend is not None
    assert any("sides of one closed membrane" in text for text in told)
    again = unpack_regions(pack_regions([*found, Region(found[0].members[:50], found[0].shape, True)]))
    assert np.array_equal(again[0].blend.coefficients, found[0].blend.coefficients)
    assert again[1].blend is None
    (p, n), (q, m) = seen(*sheet(40.0)), seen(*sheet(56.0))
    both = as_line(np.concatenate([p, q]), np.concatenate([n, m]))
    number = np.repeat([1, 2], [len(p), len(q)])
    apart = select_membranes(both, number, SHAPE, VOXEL, SelectConfig(least_open_area=1e4))
    assert [r.closed for r in apart] == [False, False]


def test_the_surface_goes_on_where_nothing_is_seen(tube):
    points, normals = seen(*tube)
    closure = close(points, normals, SHAPE)
    config = FitConfig(inflation=1.0, least_noise=0.3)
    membrane = fit_membranes([points], [normals], [closure.blend], [True], config)[0]
    mesh, _ = extract(membrane, SHAPE, config)
    assert mesh.cut  # by the volume's border, and there alone
    true, facing = tube
    within = ((true > 2) & (true < np.array(SHAPE) - 3)).all(1)
    gap, nearest = cKDTree(mesh.vertices).query(true[within])
    off = np.abs(((mesh.vertices[nearest] - true[within]) * facing[within]).sum(1))
    hidden = np.abs(facing[within, 0]) > 0.8
    assert gap.max() < 2.0
    assert off[~hidden].mean() < 0.15
    assert off[hidden].mean() < 0.4
    sigma = mesh.sigma[nearest]
    assert sigma[hidden].mean() > 1.3 * sigma[~hidden].mean()
    assert (off < 1.96 * sigma).mean() > 0.85


def test_a_blend_is_a_trend():
    """A sphere's quadrics are the sphere; a process about them has their shape where there are no data."""
    with jax.enable_x64(True):
        u = sphere_directions(200, 3)
        blend = gp.fit_blend(10.0 * u, u, 10.0 * u[::20], 12.0, 0.2, 10.0)
        at = 10.5 * u[7]
        assert float(blend.value(at)) == pytest.approx(0.5, abs=0.03)
        assert float(jnp.linalg.norm(jax.grad(blend.value)(at))) == pytest.approx(1.05, abs=0.03)
        coefficients = jnp.linspace(-1.0, 1.0, 10 + gp.BUMPS)
        assert float(blend.moved(coefficients, at)) == pytest.approx(
            float(blend.value(at) + blend.features(at) @ coefficients)
        )
        half = 10.0 * u[u[:, 0] < 0]
        prior = gp.Prior(gp.Cubic(jnp.asarray(0.5), jnp.asarray(80.0)), blend)
        posterior = gp.fit(half, jnp.zeros(len(half)), noise=0.1, prior=prior)
        top = jnp.array([10.0, 0.0, 0.0])
        assert abs(float(gp.mean(posterior, top))) < 0.3
        assert float(gp.variance(posterior, top)) > 4.0 * float(gp.variance(posterior, -top))


def test_winding_numbers():
    u = sphere_directions(500, 3)
    area = jnp.full(500, 4 * jnp.pi * 100.0 / 500)
    assert float(levelset.winding(jnp.zeros(3), 10.0 * u, u, area)) == pytest.approx(1.0, abs=1e-3)
    assert float(levelset.winding(jnp.full(3, 20.0), 10.0 * u, u, area)) == pytest.approx(0.0, abs=1e-3)
    assert float(levelset.winding(10.0 * u[3], 10.0 * u, u, area, 1.0)) == pytest.approx(0.5, abs=0.1)
    v = sphere_directions(100, 2)
    assert float(levelset.winding(jnp.zeros(2), 3.0 * v, v, jnp.full(100, 6 * jnp.pi / 100))) == pytest.approx(
        1.0, abs=1e-3
    )


def test_an_ellipsoid_is_left_to_its_ellipsoid():
    u = np.asarray(sphere_directions(5000, 3), float)
    points, normals = seen(15.0 * u + np.array([30.0, 50.0, 45.0]), u)
    found = select_membranes(as_line(points, normals), np.ones(len(points), int), SHAPE, VOXEL, SelectConfig())
    assert [r.closed for r in found] == [True]
    assert found[0].blend is None
    assert found[0].form is found[0].shape
    assert describe(points, normals, SHAPE).sigma < 1.0


def lying_sac(radius: float = 24.0, half: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """All points at a distance from a disc that lies across the beam, and their normals."""
    rng = np.random.default_rng(5)
    way, height = rng.uniform(0, 2 * np.pi, 6000), rng.uniform(-np.pi / 2, np.pi / 2, 6000)
    out = np.stack([0 * way, np.cos(way), np.sin(way)], 1)
    round_ = np.cos(height)[:, None] * out + np.sin(height)[:, None] * np.array([1.0, 0.0, 0.0])
    rim = radius * out + half * round_
    flat = rng.uniform(-radius, radius, (6000, 2))
    flat = flat[np.hypot(*flat.T) < radius]
    sides = [np.insert(flat, 0, s * half, 1) for s in (-1.0, 1.0)]
    normals = [np.tile([s, 0.0, 0.0], (len(flat), 1)) for s in (-1.0, 1.0)]
    return np.concatenate([rim, *sides]) + np.array([30.0, 50.0, 45.0]), np.concatenate([round_, *normals])


def test_of_a_lying_sac_the_rim_tells_how_thick_it_is():
    points, normals = lying_sac()
    closure = close(*seen(points, normals), SHAPE)
    assert is_shut(closure, SelectConfig())
    assert closure.across == pytest.approx(6.0, rel=0.15)
    value = jax.vmap(closure.blend.value)(jnp.asarray(points, jnp.float32))
    face = np.abs(normals[:, 0]) > 0.99
    assert np.abs(value[face]).mean() < 1.5  # an ellipsoid through the rim is 7 voxels too thick there
    p, n = seen(points, normals)
    found = regions_from_instances(as_line(p, n), np.ones(len(p), int), SHAPE, SelectConfig())
    assert found[0].blend is not None


def test_a_rim_that_an_ellipsoid_fits_as_well_is_a_sac():
    """With gaps in the rim; its faces lie where they are expected, and are known less well than the rim."""
    points, normals = seen(*lying_sac())
    turn = np.arctan2(points[:, 1] - points[:, 1].mean(), points[:, 2] - points[:, 2].mean())
    there = (np.abs(turn) > 0.35) & (np.abs(np.abs(turn) - np.pi / 2) > 0.2)
    points, normals = points[there], normals[there]
    shape = describe(points, normals, SHAPE)
    blend = rim_as_sac(points, normals, shape)
    assert blend is not None
    assert 4.0 < float(blend.size) < 9.0
    fitted = fit_membranes([points], [normals], [blend], [True], FitConfig(inflation=1.0))[0]
    mesh = extract(fitted, SHAPE, FitConfig())[0]
    middle = points.mean(0)
    away = np.linalg.norm(mesh.vertices[:, 1:] - middle[1:], axis=1)
    face = away < 12.0
    height = np.abs(mesh.vertices[face, 0] - middle[0])
    assert np.median(np.abs(height - 6.0)) < 2.5
    assert np.median(mesh.sigma[face]) > 2.0 * np.median(mesh.sigma[~face])
    ball = 20.0 * np.asarray(sphere_directions(800, 3), float)
    round_ = describe(ball + 40.0, ball / 20.0, SHAPE)
    assert rim_as_sac(ball + 40.0, ball / 20.0, round_) is None
