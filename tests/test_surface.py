import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmem import ellipse as ell
from jaxmem import gp
from jaxmem.grouping import describe
from jaxmem.levelset import content, curvatures, locate
from jaxmem.settings import FitConfig
from jaxmem.surface import Canvas, Paint, extract, fit_membranes, fitting, is_watertight, paint

SHAPE = (64, 80, 80)
CENTRE = np.array([32.0, 40.0, 40.0])


def sphere(radius, cap=0.8, noise=0.4, spurious=0.0, seed=0, n=6000, centre=CENTRE):
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(n, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    u = u[np.abs(u[:, 0]) < cap]
    r = radius + rng.normal(0, noise, len(u))
    wrong = rng.uniform(size=len(u)) < spurious
    r[wrong] += rng.uniform(-8, 8, wrong.sum())
    return (centre + r[:, None] * u).astype(np.float32), u.astype(np.float32)


def surface(points, normals, closed, config=None, shape=SHAPE):
    config = config or FitConfig()
    membranes = fit_membranes([points], [normals], [describe(points, normals, shape)], [closed], config)
    return membranes[0], extract(membranes[0], shape, config)


@pytest.fixture(scope="module")
def ball():
    return surface(*sphere(20.0), True)


def test_a_sphere_without_caps_closes_where_it_should(ball):
    _, (mesh, _) = ball
    error = np.linalg.norm(mesh.vertices - CENTRE, axis=1) - 20.0
    assert mesh.closed
    assert not mesh.cut
    assert is_watertight(mesh.faces)
    assert np.abs(error).mean() < 0.2
    assert np.abs(error).max() < 1.2


def test_vertices_lie_on_the_level_set(ball):
    membrane, (mesh, _) = ball
    with jax.enable_x64(True):
        values = jax.vmap(gp.mean, (None, 0))(membrane.posterior, mesh.vertices[::50] - membrane.centre)
    assert np.abs(values).max() < 1e-3


def test_faces_and_normals_point_outwards(ball):
    _, (mesh, _) = ball
    corners = mesh.vertices[mesh.faces][:, :, ::-1]  # xyz
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outward = corners.mean(1) - CENTRE[::-1]
    assert ((mesh.normals * (mesh.vertices - CENTRE)).sum(1) > 0).all()
    assert ((across * outward).sum(1) > 0).mean() > 0.99


def test_error_bars_grow_where_nothing_was_seen(ball):
    _, (mesh, _) = ball
    height = np.abs(mesh.vertices[:, 0] - CENTRE[0]) / 20.0
    assert mesh.seen[height < 0.6].all()
    assert not mesh.seen[height > 0.97].any()
    assert mesh.sigma[height > 0.97].mean() > 1.3 * mesh.sigma[height < 0.5].mean()


def test_curvatures_of_a_sphere(ball):
    _, (mesh, _) = ball
    assert abs(np.median(mesh.mean_curvature) * 20.0 - 1.0) < 0.05
    assert abs(np.median(mesh.gaussian_curvature) * 400.0 - 1.0) < 0.1


def test_spurious_points_are_outvoted():
    _, (mesh, _) = surface(*sphere(20.0, spurious=0.05, seed=1), True)
    error = np.linalg.norm(mesh.vertices - CENTRE, axis=1) - 20.0
    assert np.abs(error).mean() < 0.35


def test_many_membranes_in_one_batch_equal_each_alone(monkeypatch):
    monkeypatch.setattr(fitting, "_slots", lambda size: 4)  # as where there is an accelerator
    cases = [sphere(r, seed=i) for i, r in enumerate((12.0, 18.0, 20.0))]
    points, normals = [c[0] for c in cases], [c[1] for c in cases]
    shapes = [describe(p, n, SHAPE) for p, n in cases]
    together = fit_membranes(points, normals, shapes, [True] * 3, FitConfig())
    for i in range(3):
        alone = fit_membranes([points[i]], [normals[i]], [shapes[i]], [True], FitConfig())[0]
        one, other = (m.posterior for m in (alone, together[i]))
        # learning ends before its last digits, so that rounding shows in them
        assert float(one.kernel.variance) == pytest.approx(float(other.kernel.variance), rel=0.05)
        with jax.enable_x64(True):
            assert np.abs(gp.means(one, one.points) - gp.means(other, one.points)).max() < 0.01
        assert alone.noise == pytest.approx(together[i].noise, rel=0.01)


def test_an_open_sheet_stays_open_and_ends_with_its_points():
    rng = np.random.default_rng(2)
    yx = rng.uniform(15, 65, (4000, 2))
    z = 30 + 3 * np.sin(yx[:, 0] / 12)
    points = np.c_[z + rng.normal(0, 0.3, len(z)), yx].astype(np.float32)
    slope = 3 / 12 * np.cos(yx[:, 0] / 12)
    normals = np.c_[np.ones(len(z)), -slope, np.zeros(len(z))]
    normals = (normals / np.linalg.norm(normals, axis=1, keepdims=True) * rng.choice([-1, 1], (len(z), 1))).astype(
        np.float32
    )
    _, (mesh, _) = surface(points, normals, False)
    assert not mesh.closed
    error = mesh.vertices[:, 0] - (30 + 3 * np.sin(mesh.vertices[:, 1] / 12))
    inner = ((mesh.vertices[:, 1:] > 18) & (mesh.vertices[:, 1:] < 62)).all(1)
    assert np.abs(error[inner]).mean() < 0.3
    assert mesh.vertices[:, 1:].min() > 5
    assert mesh.vertices[:, 1:].max() < 75


def test_a_sphere_cut_by_the_volume_is_not_continued_outside():
    shape = (20, 80, 80)
    points, normals = sphere(20.0, cap=1.0, centre=np.array([8.0, 40.0, 40.0]))
    inside = (points[:, 0] >= 0) & (points[:, 0] < 20)
    _, (mesh, _) = surface(points[inside], normals[inside], True, shape=shape)
    assert mesh.cut
    assert not mesh.closed
    assert mesh.vertices[:, 0].min() >= -0.5
    assert mesh.vertices[:, 0].max() <= 19.5


def test_labels_have_equal_thickness(ball):
    _, (mesh, field) = ball
    canvas = Canvas(SHAPE)
    canvas.add(3, paint(mesh, field, 2.0, SHAPE))
    slabs = [canvas.slab(k) for k in range(-(-SHAPE[0] // canvas.thickness))]
    labels, sigma = (np.concatenate(a) for a in zip(*slabs))
    assert labels.shape == SHAPE
    r = np.linalg.norm(np.stack(np.indices(SHAPE), -1) - CENTRE, axis=-1)
    assert set(np.unique(labels)) == {0, 3}
    assert (labels[np.abs(r - 20) < 1.3] == 3).mean() > 0.98
    assert (labels[np.abs(r - 20) > 2.7] == 0).mean() > 0.999
    assert (sigma[labels == 3] > 0).all()
    assert (sigma[labels == 0] == 0).all()


def test_a_voxel_is_the_nearest_membranes():
    canvas = Canvas((5, 4, 4), thickness=2)
    here, there = np.array([[0, 1, 1], [3, 2, 2]], np.int32), np.array([[3, 2, 2], [4, 0, 0]], np.int32)
    canvas.add(1, Paint(here, np.float32([0.5, 0.5]), np.float32([0.1, 0.2])))
    canvas.add(2, Paint(there, np.float32([0.4, 0.9]), np.float32([0.3, 0.4])))
    labels, sigma = (np.concatenate(a) for a in zip(*(canvas.slab(k) for k in range(3))))
    assert labels.shape == (5, 4, 4)
    assert labels[0, 1, 1] == 1
    assert labels[3, 2, 2] == 2
    assert labels[4, 0, 0] == 2
    assert (labels > 0).sum() == 3
    assert np.isclose(sigma[3, 2, 2], 0.3)


def test_a_curve_in_one_slice():
    rng = np.random.default_rng(3)
    angle = rng.uniform(0.0, 5.0, 400)
    normals = np.stack([np.sin(angle), np.cos(angle)], 1).astype(np.float32)
    points = ((50, 60) + (25 + rng.normal(0, 0.3, 400))[:, None] * normals).astype(np.float32)
    _, (mesh, _) = surface(points, normals, True, shape=(100, 120))
    error = np.linalg.norm(mesh.vertices - (50, 60), axis=1) - 25
    assert mesh.closed
    assert np.abs(error).mean() < 0.4
    assert abs(np.median(mesh.mean_curvature) * 25 - 1) < 0.1
    sides = np.diff(mesh.vertices[mesh.faces], axis=1)
    y, x = (mesh.vertices[mesh.faces] - (50, 60)).transpose(2, 0, 1)
    assert 1.0 < mesh.area / np.linalg.norm(sides, axis=2).sum() < 1.002  # an arc is longer than its chord
    assert 1.0 < mesh.volume / abs(0.5 * (y[:, 0] * x[:, 1] - y[:, 1] * x[:, 0]).sum()) < 1.004


def test_watertightness():
    tetrahedron = np.array([[0, 1, 2], [0, 3, 1], [1, 3, 2], [2, 3, 0]])
    assert is_watertight(tetrahedron)
    assert not is_watertight(tetrahedron[:3])
    assert not is_watertight(np.zeros((0, 3), int))
    assert is_watertight(np.array([[0, 1], [1, 2], [2, 0]]))
    assert not is_watertight(np.array([[0, 1], [1, 2]]))


def test_points_that_are_not_finite_give_none_not_nan():
    points, normals = sphere(20.0)
    shape = describe(points, normals, SHAPE)
    bad = points.copy()
    bad[:, 0] = np.nan
    with np.errstate(all="ignore"):
        assert fit_membranes([bad], [normals], [shape], [True], FitConfig()) == [None]


def test_error_bars_of_curvature_area_and_volume_hold(ball):
    _, (mesh, _) = ball
    for value, true, sigma in (
        (mesh.mean_curvature, 1 / 20, mesh.mean_curvature_sigma),
        (mesh.gaussian_curvature, 1 / 400, mesh.gaussian_curvature_sigma),
    ):
        assert (sigma > 0).all()
        assert (np.abs(value - true) <= 2 * sigma).mean() > 0.9
    area, volume = 4 * np.pi * 400, 4 / 3 * np.pi * 8000
    assert abs(mesh.area - area) < 3 * mesh.area_sigma < 0.1 * area
    assert abs(mesh.volume - volume) < 3 * mesh.volume_sigma < 0.1 * volume


def test_area_and_volume_are_those_of_the_curved_surface():
    """Flat triangles between the same vertices enclose 0.2 % less, and have 0.1 % less area."""
    mesh = surface(*sphere(20.0, cap=1.0, noise=0.0), True)[1][0]
    radius = np.linalg.norm(mesh.vertices - CENTRE, axis=1)
    assert abs(mesh.volume / (4 / 3 * np.pi * (radius**3).mean()) - 1.0) < 1e-4
    assert abs(mesh.area / (4 * np.pi * (radius**2).mean()) - 1.0) < 3e-4
    with jax.enable_x64(True):
        inwards = content(mesh.vertices, mesh.faces[:, ::-1], -mesh.mean_curvature, mesh.gaussian_curvature)
    assert list(map(float, inwards)) == pytest.approx([mesh.area, mesh.volume])


def test_points_facing_the_beam_can_count_less():
    """With larger errors along the beam the surface is known less well where it faces it, and no less well on its sides."""
    points, normals = sphere(15.0, cap=1.0, n=4000)
    plain, wedge = (surface(points, normals, True, FitConfig(inflation=1.0, beam=b))[1][0] for b in (1.0, 4.0))
    top, side = (
        [m.sigma[where(np.abs(m.normals[:, 0]))].mean() for m in (plain, wedge)]
        for where in (lambda z: z > 0.9, lambda z: z < 0.2)
    )
    assert top[1] > 1.2 * top[0]
    assert side[1] < 1.1 * side[0]


def test_small_membranes_end_well():
    points, normals = sphere(8.0, n=60)
    _, (mesh, _) = surface(points[:20], normals[:20], True)
    assert np.isfinite(mesh.sigma).all()
    assert abs(np.linalg.norm(mesh.vertices - CENTRE, axis=1).mean() - 8.0) < 1.0
    assert fit_membranes([points[:3]], [normals[:3]], [describe(points, normals, SHAPE)], [True], FitConfig()) == [None]


def test_a_large_membrane_is_fitted_through_inducing_points():
    shape, centre = (160, 160, 160), np.full(3, 80.0)
    points, normals = sphere(60.0, n=60000, centre=centre)
    membrane, (mesh, _) = surface(points, normals, True, FitConfig(spacing=3.0, inflation=1.0), shape)
    assert isinstance(membrane.posterior, gp.SparsePosterior)
    error = np.linalg.norm(mesh.vertices - centre, axis=1) - 60.0
    assert np.abs(error).mean() < 0.15
    assert mesh.closed


def test_a_torus_from_offset_anchors():
    rng = np.random.default_rng(4)
    a, b = rng.uniform(0, 2 * np.pi, (2, 9000))
    ring = np.stack([0 * a, np.sin(a), np.cos(a)], 1)
    normals = ring * np.cos(b)[:, None] + np.sin(b)[:, None] * [1.0, 0.0, 0.0]
    points = (CENTRE + 22 * ring + 9 * normals + 0.3 * normals * rng.normal(size=(9000, 1))).astype(np.float32)
    _, (mesh, _) = surface(points, normals.astype(np.float32), False, FitConfig(inflation=1.0, least_noise=0.3))
    p = mesh.vertices - CENTRE
    error = np.hypot(np.hypot(p[:, 1], p[:, 2]) - 22, p[:, 0]) - 9
    assert mesh.closed
    assert np.abs(error).mean() < 0.25
    assert len(mesh.vertices) - len(mesh.faces) / 2 == 0  # Euler characteristic of a torus


def test_curvatures_of_a_quadric():
    """x^2 / a^2 + y^2 / b^2 + z^2 / c^2 = 1 at (a, 0, 0): principal curvatures a / b^2 and a / c^2."""
    a, b, c = 3.0, 2.0, 5.0
    mean, gauss = curvatures(jnp.array([2 / a, 0.0, 0.0]), 2 * jnp.diag(jnp.array([a, b, c]) ** -2.0))
    assert float(mean) == pytest.approx((a / b**2 + a / c**2) / 2, rel=1e-5)
    assert float(gauss) == pytest.approx(a**2 / (b * c) ** 2, rel=1e-5)


def test_a_loss_on_the_surface_reaches_the_data_and_the_hyperparameters():
    """The batch function theorem against finite differences, through the fit, compiled and batched."""
    with jax.enable_x64(True):
        points, _ = sphere(10.0, n=60, centre=np.zeros(3), noise=0.2)
        x = jnp.asarray(points, jnp.float64)
        trend = gp.Ellipsoid(ell.ball(jnp.zeros(3), 9.5), jnp.array(0.2))
        R, start = gp.valid_radius(gp.Cubic, 1.5 * points), jnp.array([[0.0, 7.0, 6.5], [9.5, 0.0, 1.0]])

        def radius(x, variance, noise):
            posterior = gp.fit(
                x,
                jnp.zeros(len(x)),
                noise=jnp.full(len(x), noise),
                prior=gp.Prior(gp.Cubic(variance, jnp.array(R)), trend),
            )
            return jnp.linalg.norm(jax.vmap(lambda p: locate(posterior, p, p / 10))(start), axis=1).sum()

        arguments = x, jnp.array(4.0), jnp.array(0.4)
        assert float(radius(*arguments)) == pytest.approx(20.0, abs=0.5)
        slopes = jax.jit(jax.grad(radius, (0, 1, 2)))(*arguments)
        assert float(jnp.abs(slopes[0]).sum()) > 0.5
        rng = np.random.default_rng(0)
        for i, slope in enumerate(slopes):
            way = jnp.asarray(rng.normal(size=slope.shape)) * 1e-5
            values = [radius(*arguments[:i], arguments[i] + s * way, *arguments[i + 1 :]) for s in (1, -1)]
            assert float(values[0] - values[1]) / 2 == pytest.approx(float(jnp.vdot(slope, way)), rel=2e-3)
