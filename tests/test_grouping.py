import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree

from jaxmem.grouping import MergeConfig, Midline, SelectConfig, describe, merge_regions, midline, select_membranes
from jaxmem.grouping.merging import regions
from jaxmem.grouping.merging.regions import near_pairs
from jaxmem.grouping.midline import bending
from jaxmem.grouping.select import regions_from_instances
from jaxmem.points import Cells, evenly, orient, roughness

VOXEL = 14.0


@pytest.fixture(scope="module")
def lines(shells):
    volume, _ = shells
    return midline((volume > 0).astype(np.float32), 1.3, 0.3), volume


def test_midline_is_in_the_middle_with_normals_across(shells, lines):
    line, _ = lines
    outer = line.points[np.linalg.norm(line.points - (24, 30, 72), axis=1) < 20]
    offset = outer - (24, 30, 72)
    r = np.linalg.norm(offset, axis=1)
    normals = line.normals[np.linalg.norm(line.points - (24, 30, 72), axis=1) < 20]
    sides = np.abs(offset[:, 0]) < 8
    assert abs(np.mean(r[sides]) - 15.0) < 0.05
    assert np.abs(r[sides] - 15.0).max() < 0.6
    assert np.mean(np.abs((offset * normals).sum(1) / r)[sides]) > 0.98


@pytest.mark.parametrize("radius", [7.0, 10.0, 20.0])
def test_smoothing_a_curved_band_does_not_move_its_middle(radius):
    """Without the correction a smoothed shell's ridge lies 1.35^2 / radius too far inside."""
    grid = np.stack(np.indices((int(2 * radius) + 14,) * 3), -1) - (radius + 6.8)
    mask = np.abs(np.linalg.norm(grid, axis=-1) - radius) <= 1.5
    line = midline(mask.astype(np.float32), 1.35, 0.3)
    assert abs(np.linalg.norm(line.points - (radius + 6.8), axis=1).mean() - radius) < 0.3 * 1.35**2 / radius
    away = line.points - (radius + 6.8)
    outward = line.normals * np.sign((line.normals * away).sum(1))[:, None]
    assert abs(np.median(bending(line.points, outward)) * radius / 2 - 1) < 0.1


def test_faint_points_do_not_move_clear_ones():
    z, y, x = np.indices((40, 40, 40), float)
    r = np.sqrt((z - 20) ** 2 + (y - 20) ** 2 + (x - 20) ** 2)
    volume = np.where(np.abs(r - 12) < 1.5, np.where(x < 20, 1.0, 0.42), 0.0).astype(np.float32)
    alone = midline(volume, 1.3, 0.3)
    with_faint = midline(volume, 1.3, 0.15, clear=0.3)
    assert len(with_faint.points) > len(alone.points)
    assert np.allclose(with_faint.points[with_faint.weight > 0.3], alone.points, atol=1e-5)


def test_nested_and_neighbouring_spheres_stay_apart(lines):
    line, volume = lines
    region = merge_regions(line.points, line.normals, VOXEL, MergeConfig())
    truth = volume[tuple(line.voxels.T)]
    for k in (1, 2, 3):
        mine = truth[region == k]
        mine = mine[mine > 0]
        assert (mine == np.bincount(mine).argmax()).all()
    assert {np.bincount(t[t > 0]).argmax() for t in (truth[region == k] for k in (1, 2, 3))} == {1, 2, 3}


def test_merging_crosses_gaps_along_the_curve_only():
    """Two arcs of a circle join over a gap; the circle inside, which is nearer, does not."""
    angle = np.deg2rad(np.r_[0:160:2, 180:340:2])
    arcs = np.stack([30 * np.sin(angle), 30 * np.cos(angle)], 1)
    inside = np.stack([22 * np.sin(angle), 22 * np.cos(angle)], 1)
    points = np.concatenate([arcs, inside])
    normals = points / np.linalg.norm(points, axis=1, keepdims=True)
    region = merge_regions(points, normals, VOXEL, MergeConfig(gap=230.0))
    assert len(np.unique(region[: len(arcs)])) == 1
    assert len(np.unique(region)) == 2
    assert len(np.unique(merge_regions(points, normals, VOXEL, MergeConfig(gap=60.0)))) == 4


def test_equation_1_is_the_distance_of_the_nearest_pair():
    """Equation (1): whether two regions join is decided by the nearest pair, here along a straight line with two gaps."""
    x = np.r_[0:40, 47:80, 92:120].astype(float)
    points = np.stack([np.zeros_like(x), x], 1)
    normals = np.tile([1.0, 0.0], (len(x), 1))
    count = [
        len(np.unique(merge_regions(points, normals, 1.0, MergeConfig(2.0, gap, support=1))))
        for gap in (5.0, 9.0, 14.0)
    ]
    assert count == [3, 2, 1]


@pytest.mark.parametrize(("n", "d"), [(0, 3), (1, 3), (400, 3), (400, 2)])
def test_pairs_do_not_depend_on_the_blocks(n, d, monkeypatch):
    points = np.random.default_rng(n).uniform(0, 20, (n, d))

    def pairs():
        found = near_pairs(points, 2.5, lambda pairs: np.ones(len(pairs), bool))
        assert len(np.unique(found, axis=0)) == len(found)
        return set(map(tuple, found.tolist()))

    whole = cKDTree(points).query_pairs(2.5)
    assert pairs() == whole
    monkeypatch.setattr(regions, "_BLOCK", 37)
    assert pairs() == whole


def test_so_many_regions_that_their_pairs_exceed_32_bits():
    """A hundred thousand stray points, and a line of two pieces among them."""
    x = np.arange(0.0, 120.0)
    line = np.stack([np.full(len(x), 50.0), np.full(len(x), 50.0), x], 1)[(x < 55) | (x > 58)]
    grid = np.stack(np.meshgrid(*[np.arange(46) * 25.0] * 3, indexing="ij"), -1).reshape(-1, 3) + 1000.0
    points = np.concatenate([grid, line])
    normals = np.tile([1.0, 0.0, 0.0], (len(points), 1))
    region = merge_regions(points, normals, VOXEL, MergeConfig(bridge=0.0))
    assert region.max() > 2**16
    assert (region[len(grid) :] == 1).all()
    assert (np.bincount(region)[2:] == 1).all()


@pytest.mark.parametrize("d", [2, 3])
def test_cells_find_what_is_in_a_box(d):
    rng = np.random.default_rng(d)
    points = rng.uniform(-30, 70, (500, d))
    cells = Cells(points, 9.0)
    for _ in range(20):
        low = rng.uniform(-60, 80, d)
        high = low + rng.uniform(0, 60, d)
        inside = ((points >= low) & (points <= high)).all(1)
        assert np.array_equal(cells.within(low, high), np.flatnonzero(inside))
    assert len(Cells(np.zeros((0, d))).within(np.zeros(d), np.ones(d))) == 0


def test_no_points_no_regions():
    assert len(merge_regions(np.zeros((0, 3)), np.zeros((0, 3)), VOXEL, MergeConfig())) == 0
    line = midline(np.zeros((8, 8, 8), np.float32), 1.0, 0.3)
    assert select_membranes(line, np.zeros(0, int), (8, 8, 8), VOXEL, SelectConfig()) == []


def test_selection_finds_the_spheres_and_drops_noise(lines):
    line, volume = lines
    rng = np.random.default_rng(0)
    stray = rng.uniform((0, 0, 0), volume.shape, (300, 3)).astype(np.float32)
    normals = rng.normal(size=(300, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    noisy = line._replace(
        points=np.concatenate([line.points, stray]),
        normals=np.concatenate([line.normals, normals]),
        voxels=np.concatenate([line.voxels, stray.astype(int)]),
        weight=np.concatenate([line.weight, np.full(300, 0.4, np.float32)]),
    )
    region = merge_regions(noisy.points, noisy.normals, VOXEL, MergeConfig())
    told = []
    found = select_membranes(noisy, region, volume.shape, VOXEL, SelectConfig(), told.append)
    assert len(found) == 3
    assert all(r.closed for r in found)
    radii = sorted(float(np.mean(r.shape.ellipse.semi_axes)) for r in found)
    assert np.allclose(radii, [10, 15, 19], atol=0.5)


def test_touching_spheres_are_split():
    """One region of two spheres that touch: no ellipsoid fits both, two do."""
    rng = np.random.default_rng(1)
    u = rng.normal(size=(9000, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    u = u[np.abs(u[:, 0]) < 0.75]
    half = len(u) // 2
    points = np.concatenate([(30, 30, 30) + 15 * u[:half], (30, 30, 60) + 15 * u[half:]]).astype(np.float32)
    from jaxmem.grouping import Midline

    line = Midline(points, u.astype(np.float32), points.astype(int), np.ones(len(points), np.float32))
    found = select_membranes(line, np.ones(len(points), int), (60, 60, 90), VOXEL, SelectConfig())
    assert len(found) == 2
    assert sorted(round(float(r.shape.ellipse.centre[2])) for r in found) == [30, 60]


def test_describe_tells_closed_from_open(lines):
    line, volume = lines
    sphere = np.linalg.norm(line.points - (24, 30, 72), axis=1) < 20
    shape = describe(line.points[sphere], line.normals[sphere], volume.shape)
    assert shape.expected > 0.9
    assert shape.radial > 0.95
    half = sphere & (line.points[:, 2] > 72)
    cup = describe(line.points[half], line.normals[half], (48, 64, 128))
    assert cup.expected < 0.75


def test_orientation_is_consistent_on_a_sphere():
    rng = np.random.default_rng(2)
    u = rng.normal(size=(400, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    flipped = u * rng.choice([-1.0, 1.0], (400, 1))
    out = orient(20 * u, flipped)
    side = (out * u).sum(1)
    assert (side > 0).all() or (side < 0).all()


def test_orientation_agrees_across_gaps():
    rng = np.random.default_rng(4)
    yx = rng.uniform(0, 100, (1500, 2))
    yx = yx[(np.abs(yx[:, 0] - 40) > 9) & (np.abs(yx[:, 1] - 65) > 9)]  # four pieces, farther apart than neighbours
    slope = 0.5 * np.cos(yx[:, 1] / 20)
    normals = np.c_[np.ones(len(yx)), 0 * slope, -slope] * rng.choice([-1.0, 1.0], (len(yx), 1))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    out = orient(np.c_[10 * np.sin(yx[:, 1] / 20), yx], normals)
    assert abs(np.sign(out[:, 0]).sum()) == len(yx)


def test_even_thinning():
    points = np.random.default_rng(3).uniform(0, 50, (5000, 3))
    chosen = evenly(points, 300)
    assert 150 < len(chosen) <= 300
    assert cKDTree(points[chosen]).query(points)[0].max() < 15
    assert len(evenly(points[:10], 300)) == 10


def test_roughness_is_the_noise_about_a_curved_surface():
    rng = np.random.default_rng(0)
    u = rng.normal(size=(3000, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    stray = rng.uniform(size=3000) < 0.05
    noise = np.where(stray, rng.uniform(-8, 8, 3000), 0.5 * rng.normal(size=3000))
    assert roughness(u * (20 + noise)[:, None]) == pytest.approx(0.5, rel=0.15)
    angle = np.linspace(0, 6, 200)
    circle = (15 + 0.4 * rng.normal(size=200))[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
    assert roughness(circle) == pytest.approx(0.4, rel=0.25)
    assert np.isnan(roughness(u[:8]))


@pytest.mark.parametrize("ring", [True, False], ids=["ring", "pancake"])
def test_a_ring_closes_but_not_around_its_centre(ring):
    """Both look like a flat ellipsoid; through one of them one can see: it is a torus."""
    t, s = np.random.default_rng(0).uniform(0, 2 * np.pi, (2, 4000))
    if ring:
        normal = np.stack([np.sin(s), np.cos(s) * np.cos(t), np.cos(s) * np.sin(t)], 1)
        points = 10 * normal + 25 * np.stack([0 * t, np.cos(t), np.sin(t)], 1)
    else:
        u = np.stack([np.sin(s), np.cos(s) * np.cos(t), np.cos(s) * np.sin(t)], 1)
        points, normal = u * np.array([12, 36, 36]), u / np.array([12, 36, 36])
        normal = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    points = points + np.array([30, 50, 50])
    line = Midline(points.astype(np.float32), normal, points.astype(int), np.ones(len(points)))
    (region,) = regions_from_instances(line, np.ones(len(points), int), (60, 100, 100), SelectConfig())
    assert region.closed != ring  # points all around a ring say all
    assert region.blend is None
    seen = np.abs(normal[:, 0]) < 0.8
    line = Midline(*(np.asarray(a)[seen] for a in line))
    (region,) = regions_from_instances(line, np.ones(seen.sum(), int), (60, 100, 100), SelectConfig())
    assert region.closed
    assert (region.blend is not None) == ring
    if ring:
        assert float(region.blend.value(jnp.array([30.0, 50.0, 50.0]))) > 3.0
