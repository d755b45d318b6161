import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.stats import t as student

from jaxmem import ellipse as ell
from jaxmem.types import Outcome


def rotation(angle):
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def on_ellipse(rng, n, centre, axes, angle, noise=0.0, arc=(0.0, 2 * np.pi)):
    t = rng.uniform(*arc, n)
    points = np.array(centre) + np.stack([axes[0] * np.cos(t), axes[1] * np.sin(t)], 1) @ rotation(angle)
    return (points + rng.normal(0, noise, points.shape)).astype(np.float32)


def padded(points, size=128):
    out = np.full((size, points.shape[1]), 1e3, np.float32)
    out[: len(points)] = points
    return out, np.arange(size) < len(points)


def ellipse(centre, axes, angle, dtype=jnp.float32):
    return ell.Ellipse(jnp.asarray(centre, dtype), jnp.asarray(axes, dtype), jnp.asarray(angle, dtype))


fit = jax.jit(ell.fit)
fits = jax.jit(jax.vmap(ell.fit))
SHAPES = [((3, 4), (30, 3), 0.7), ((0, 0), (12, 12), 0.0), ((-5, 90), (8, 7.9), 2.0), ((10, 10), (50, 5), 1.5)]


@pytest.mark.parametrize(("centre", "axes", "angle"), SHAPES)
def test_distance_is_that_to_the_nearest_boundary_point(centre, axes, angle):
    shape = ellipse(centre, axes, angle)
    dense = np.asarray(ell.boundary(shape, 100_000), float)
    rng = np.random.default_rng(0)
    ray = np.linspace(-60, 60, 41)[:, None]
    points = np.concatenate(
        [
            rng.uniform(-70, 70, (200, 2)) + centre,
            dense[rng.integers(0, len(dense), 50)],
            np.array([centre], float),
            centre + ray * rotation(angle)[0],
            centre + ray * rotation(angle)[1],
        ]
    ).astype(np.float32)
    value, slope = jax.vmap(jax.value_and_grad(ell.distance, 1), (None, 0))(shape, points)
    apart = np.array([np.linalg.norm(dense - p, axis=1).min() for p in points])
    inside = np.asarray((((points - centre) @ rotation(angle).T / axes) ** 2).sum(1) < 1)
    expected = np.where(inside, -apart, apart)
    assert np.abs(value - expected).max() < 3e-3
    assert np.allclose(np.linalg.norm(slope, axis=1), 1.0, atol=1e-4)  # at the centre and on the axes, too
    changes = jax.vmap(jax.grad(ell.distance), (None, 0))(shape, points)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(changes))
    feet = jax.vmap(ell.foot, (None, 0))(shape, points)
    assert np.abs(jax.vmap(ell.distance, (None, 0))(shape, feet)).max() < 2e-3


def test_derivatives_of_the_distance_against_differences():
    with jax.enable_x64():
        shape = ellipse((10.0, 20.0), (30.0, 12.0), 0.7, jnp.float64)
        check_grads(jax.jit(ell.distance), (shape, jnp.array([25.0, 3.0])), order=2, modes=["fwd", "rev"])
        solid = ell.Ellipsoid(jnp.zeros(3), jnp.array([9.0, 7.0, 4.0]), jnp.eye(3))
        check_grads(
            jax.jit(lambda p: ell.distance(solid, p)), (jnp.array([3.0, 9.0, 1.0]),), order=2, modes=["fwd", "rev"]
        )


@pytest.mark.parametrize(("centre", "axes", "angle"), SHAPES)
def test_there_and_back(centre, axes, angle):
    shape = ellipse(centre, axes, angle)
    for back in (ell.from_conic(-2.0 * ell.conic(shape)), ell.from_parameters(ell.parameters(shape))):
        assert np.allclose(back.centre, shape.centre, atol=0.02)
        assert np.allclose(back.semi_axes, shape.semi_axes, rtol=5e-3)
        if axes[0] > 1.1 * axes[1]:
            assert abs(np.sin(back.angle - shape.angle)) < 1e-3
    lower = ell.triangular(shape)
    points = ell.boundary(shape, 16)
    assert np.allclose(np.linalg.norm((points - shape.centre[None]) @ lower.T, axis=1), 1.0, atol=1e-4)
    assert lower[0, 1] == 0.0


def test_a_conic_that_is_no_ellipse_is_nan():
    hyperbola = jnp.diag(jnp.array([1.0, -1.0, -1.0]))
    assert np.isnan(ell.from_conic(hyperbola).semi_axes).all()


def test_area_perimeter_and_raster_agree_with_sampling():
    shape = ellipse((40.0, 50.0), (30.0, 6.0), 0.4)
    outline = np.asarray(ell.boundary(shape, 20_000), float)
    length = np.linalg.norm(np.diff(outline, axis=0, append=outline[:1]), axis=1).sum()
    assert np.isclose(ell.perimeter(shape), length, rtol=1e-5)
    assert np.isclose(ell.raster(shape, (100, 100)).sum(), ell.area(shape), rtol=0.01)
    assert np.isclose(ell.raster(shape, (100, 100), 2.0).sum(), 2.0 * length, rtol=0.02)
    solid = ell.Ellipsoid(jnp.array([16.0, 16.0, 16.0]), jnp.array([14.0, 9.0, 5.0]), jnp.eye(3))
    assert np.isclose(ell.raster(solid, (32, 32, 32)).sum(), ell.volume(solid), rtol=0.01)
    oblate = ell.Ellipsoid(jnp.zeros(3), jnp.array([10.0, 10.0, 1.0]), jnp.eye(3))
    e = np.sqrt(0.99)
    assert np.isclose(ell.area(oblate), 2 * np.pi * 100 * (1 + (1 - e**2) / e * np.arctanh(e)), rtol=1e-3)


def test_recovers_an_ellipse_with_spurious_points():
    rng = np.random.default_rng(0)
    points = on_ellipse(rng, 100, (40, 50), (30, 18), 0.5, noise=0.5)
    result = fit(*padded(np.concatenate([points, rng.uniform(0, 100, (10, 2)).astype(np.float32)])), noise=0.5)
    assert Outcome(int(result.outcome)) is Outcome.OK
    assert np.allclose(result.ellipse.centre, (40, 50), atol=0.3)
    assert np.allclose(result.ellipse.semi_axes, (30, 18), atol=0.4)
    assert 0.4 < float(result.sigma) < 0.65


def test_recovery_is_flat_over_angles_and_axis_ratios():
    """180 angles at axis ratio 3, and ratios 1 to 10 at many angles: no direction and no shape is worse than its error bar."""
    rng = np.random.default_rng(1)
    by_angle = [((60, 60), (30, 10), a) for a in np.linspace(0, np.pi, 180, endpoint=False)]
    by_ratio = [((60, 60), (40, 40 / q), a) for q in np.linspace(1, 10, 19) for a in np.linspace(0, np.pi, 10)]
    cases = by_angle + by_ratio
    points, mask = map(np.stack, zip(*[padded(on_ellipse(rng, 120, *case, noise=0.5)) for case in cases]))
    result = jax.jit(jax.vmap(lambda p, m: ell.fit(p, m, noise=0.5)))(points, mask)
    assert (np.asarray(result.outcome) == 0).mean() > 0.99
    truth = jax.vmap(ell.parameters)(jax.tree.map(lambda *a: jnp.stack(a), *[ellipse(*case) for case in cases]))
    miss = np.asarray(jax.vmap(ell.parameters)(result.ellipse) - truth)
    error = np.abs(miss).max(1)
    turned = error[:180].reshape(12, 15).mean(1)
    assert turned.max() < 1.6 * turned.mean()  # 15 angles' mean varies by a fifth
    assert error[180:].max() < 1.0
    expected = np.sqrt(np.einsum("nii->ni", np.asarray(result.covariance)))
    z = (miss / expected).reshape(-1)
    assert 0.6 < (np.abs(z) < 1.0).mean() < 0.76
    assert 0.9 < (np.abs(z) < 1.96).mean() < 0.98


def test_masked_equals_unmasked():
    rng = np.random.default_rng(1)
    alone, mask = padded(on_ellipse(rng, 60, (10, 12), (9, 7), 0.2, noise=0.2))
    order = rng.permutation(len(mask))
    scattered = np.where(mask[:, None], alone, rng.uniform(-20, 20, alone.shape).astype(np.float32))[order]
    first, second = fit(alone, mask), fit(scattered, mask[order])
    assert np.allclose(ell.parameters(first.ellipse), ell.parameters(second.ellipse), atol=2e-3)
    assert np.allclose(first.covariance, second.covariance, rtol=0.02, atol=1e-5)


@pytest.mark.parametrize("loss", ["squares", "huber", "cauchy", "biweight"])
def test_losses(loss):
    points = on_ellipse(np.random.default_rng(2), 100, (20, 20), (15, 9), 1.0, noise=0.3)
    points[:5] += 12.0
    result = jax.jit(lambda p, m: ell.fit(p, m, loss=loss, noise=0.3))(*padded(points))
    off = np.abs(np.asarray(result.ellipse.semi_axes) - (15, 9)).max()
    assert off < {"squares": 6.0, "huber": 1.0, "cauchy": 0.4, "biweight": 0.2}[loss]
    assert loss != "squares" or off > 0.4


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="expected points"):
        ell.fit(jnp.zeros((5, 4)), jnp.ones(5, bool))
    with pytest.raises(ValueError, match="one of the losses"):
        ell.fit(jnp.zeros((5, 2)), jnp.ones(5, bool), loss="l1")


def codes_of(points):
    return Outcome(int(fit(*padded(np.asarray(points, np.float32))).outcome))


def test_degenerate_points_end_with_a_code():
    line = np.stack([np.linspace(0, 40, 50), np.linspace(0, 20, 50)], 1)
    rng = np.random.default_rng(3)
    assert codes_of(np.zeros((3, 2))) is Outcome.TOO_FEW
    assert codes_of(np.zeros((50, 2))) is Outcome.TOO_SMALL
    assert codes_of(line) in (Outcome.TOO_SMALL, Outcome.UNDETERMINED)
    t = rng.uniform(0, 0.3, 60)  # a twentieth of a circle: hardly bent
    arc = np.stack([100 * np.cos(t), 100 * np.sin(t)], 1) + rng.normal(0, 0.5, (60, 2))
    assert codes_of(arc) in (Outcome.TOO_SMALL, Outcome.UNDETERMINED)
    for points in (line, arc, np.zeros((50, 2)), np.zeros((3, 2)), np.array([[1.0, 2.0]] * 4 + [[5.0, 5.0]])):
        result = fit(*padded(np.asarray(points, np.float32)))
        assert all(np.isfinite(a).all() for a in jax.tree.leaves((result.ellipse, result.sigma)))


def test_a_circle_has_an_angle_of_which_nothing_is_known():
    points = on_ellipse(np.random.default_rng(4), 120, (0, 0), (20, 20), 0.0, noise=0.3)
    result = fit(*padded(points), noise=0.3)
    error = ell.errors(result)
    assert result.success
    assert np.abs(result.ellipse.semi_axes - 20.0).max() < 0.3
    assert 0.2 < float(error.angle) <= np.pi / np.sqrt(12) + 1e-5
    assert (np.asarray(error.semi_axes) < 0.1).all()
    slope = jax.jit(jax.grad(lambda p, m: ell.fit(p, m, noise=0.3).ellipse.semi_axes.sum()))(*padded(points))
    assert np.isfinite(slope).all()


def test_derivatives_of_a_fit_against_differences():
    with jax.enable_x64():
        points = jnp.asarray(on_ellipse(np.random.default_rng(5), 40, (0, 0), (8, 6), 0.3, noise=0.1), jnp.float64)
        prior = ell.isotropic_prior(ellipse((0, 0), (8, 6), 0.3, jnp.float64), 1.0, 1.0)

        @jax.jit
        def found(points, centre):
            given = prior._replace(ellipse=prior.ellipse._replace(centre=centre))
            result = ell.fit(points, jnp.ones(40, bool), prior=given, noise=0.2, iterations=60)
            return ell.parameters(result.ellipse)

        check_grads(found, (points, jnp.zeros(2)), order=1, modes=["fwd", "rev"], atol=2e-4, rtol=2e-3, eps=1e-4)


def test_a_prior_decides_what_a_short_arc_leaves_open():
    rng = np.random.default_rng(6)
    cases = [(rng.uniform(50, 70, 2), (rng.uniform(25, 35), rng.uniform(15, 22)), rng.uniform(0, 3)) for _ in range(64)]
    arcs = [padded(on_ellipse(rng, 40, *case, noise=1.0, arc=(0.4, 0.4 + 0.25 * 2 * np.pi))) for case in cases]
    points, mask = map(np.stack, zip(*arcs))
    truth = jax.tree.map(lambda *a: jnp.stack(a), *[ellipse(*case) for case in cases])
    shift = rng.normal(0, 0.8, (64, 5)).astype(np.float32) * np.array([1, 1, 1, 0.7, 1], np.float32)
    neighbour = jax.vmap(ell.from_parameters)(jax.vmap(ell.parameters)(truth) + shift)
    held = jax.jit(jax.vmap(lambda p, m, e: ell.fit(p, m, prior=ell.isotropic_prior(e, 0.8, 0.8))))(
        points, mask, neighbour
    )

    @jax.jit
    @jax.vmap
    def misfit(found, true):
        return jnp.sqrt(jnp.mean(jax.vmap(lambda p: ell.distance(found, p))(ell.boundary(true, 64)) ** 2))

    cold = misfit(fits(points, mask).ellipse, truth)
    assert np.median(cold) > 2.0
    with_prior = np.asarray(misfit(held.ellipse, truth))
    assert (with_prior < 3.0).all()
    assert np.median(with_prior) < np.median(misfit(neighbour, truth))
    # the error bar of the boundary, where there are no points, is as large as the error
    far = jax.vmap(lambda e: ell.boundary(e, 64)[40])(truth)
    bar = jax.jit(jax.vmap(ell.boundary_sigma))(held, far)
    off = jax.vmap(ell.distance)(held.ellipse, far)
    assert 0.7 < np.sqrt(np.mean((off / bar) ** 2)) < 1.4


def test_bounds_hold():
    points = on_ellipse(np.random.default_rng(7), 60, (30, 30), (20, 12), 0.0, noise=0.3)
    bounds = ell.Bounds(jnp.array([3.0, 15.0]), jnp.array([[0.0, 0.0], [28.0, 60.0]]))
    result = fit(*padded(points), bounds=bounds)
    assert float(result.ellipse.semi_axes.max()) < 15.01
    assert float(result.ellipse.centre[0]) < 28.01
    assert not result.success


def test_three_dimensions():
    rng = np.random.default_rng(8)
    u = rng.normal(size=(400, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    u = u[np.abs(u[:, 0]) < 0.7]  # caps are missing
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    points = jnp.asarray(np.array([30, 40, 50]) + (u @ turn * np.array([20, 15, 12])) @ turn.T, jnp.float32)
    result = fit(points, jnp.ones(len(points), bool), noise=0.1)
    assert result.success
    assert np.allclose(result.ellipse.semi_axes, (20, 15, 12), atol=0.05)
    assert np.allclose(result.ellipse.centre, (30, 40, 50), atol=0.05)
    assert np.allclose(np.abs(np.asarray(result.ellipse.rotation) @ turn), np.eye(3), atol=0.02)
    assert ell.errors(result).angle.shape == (3,)
    back = ell.from_conic(ell.conic(result.ellipse))
    assert np.allclose(back.semi_axes, result.ellipse.semi_axes, rtol=1e-3)


def vesicle(rng, counts, axes, missing=()):
    """Slices of a vesicle around (50, 50): points all around where there are many, on a short arc where there are few."""
    rows = [np.zeros((0, 2), np.float32)] * 24  # all of one shape, compiled once
    for z, n in enumerate(counts):
        if z not in missing:
            arc = (0.0, 2 * np.pi) if n >= 40 else (0.2, 1.4)
            rows[z] = on_ellipse(rng, n, (50, 50), np.asarray(axes[z]), 0.3, noise=0.5, arc=arc)
    points, mask = zip(*[padded(row, 64) for row in rows])
    return np.stack(points), np.stack(mask)


sequence = jax.jit(lambda p, m, change=0.02: ell.fit_sequence(p, m, change=change))


def test_a_few_pixels_on_one_slice_and_many_twenty_slices_away():
    """The paper's Fig. 14: cold, the few give a wrong ellipse; from the neighbours they give the right one."""
    rng = np.random.default_rng(9)
    counts = [60, 60, 50, 40, *[8] * 20]
    axes = [(25 - 0.1 * z, 20 - 0.1 * z) for z in range(24)]
    points, mask = vesicle(rng, counts, axes, missing=(10, 17))
    found = sequence(points, mask)
    last = np.asarray(found.ellipse.semi_axes)[-1]
    cold = np.asarray(fit(*padded(points[-1, :8])).ellipse.semi_axes)
    assert np.abs(last - axes[-1]).max() < 2.0
    assert np.abs(cold - axes[-1]).max() > 4.0
    assert int(found.outcome[10]) == Outcome.EMPTY
    assert np.abs(np.asarray(found.ellipse.semi_axes)[10] - axes[10]).max() < 2.0
    size = np.sqrt(np.einsum("nii->n", np.asarray(found.covariance)))
    assert size[-1] > size[0]


def test_the_smoother_uses_both_neighbours():
    rng = np.random.default_rng(10)
    counts = [60, 60, 60, *[8] * 8, 60, 60]
    axes = [(25, 20)] * 13
    errors = []
    for _ in range(6):
        points, mask = vesicle(rng, counts, axes)
        for several in (outwards, sequence):
            ellipses = several(points, mask)
            errors.append(np.abs(np.asarray(ellipses.ellipse.semi_axes)[3:11] - (25, 20)).mean())
    assert np.mean(errors[1::2]) < 0.9 * np.mean(errors[0::2])


outwards = jax.jit(lambda p, m: ell.fit_sequence(p, m, rounds=0))


def test_nested_membranes_keep_their_order():
    """An inner vesicle whose few points would let it out through the outer one."""
    rng = np.random.default_rng(11)
    outer = vesicle(rng, [60] * 6, [(25, 20)] * 6)
    inner = vesicle(rng, [60, 60, 8, 8, 8, 8], [(20, 15)] * 6)
    inner[0][2:, :8] += np.array([4.5, 3.0], np.float32)  # misplaced
    points, mask = (np.stack(pair) for pair in zip(inner, outer))
    apart = jax.jit(lambda p, m, change: ell.fit_nested(p, m, gap=2.0, change=change))(points, mask, 0.1)
    alone = jax.tree.map(lambda *a: jnp.stack(a), *[sequence(p, m, change=0.1) for p, m in (inner, outer)])

    @jax.jit
    def least_gap(result):
        inside, outside = (jax.tree.map(lambda a, i=i: a[i, :6], result.ellipse) for i in range(2))
        rim = jax.vmap(lambda e: ell.boundary(e, 90))(inside)
        return -jax.vmap(jax.vmap(ell.distance, (None, 0)))(outside, rim).max()

    assert least_gap(alone) < 0.5
    assert least_gap(apart) > 1.0


def test_pixels_are_dropped_kept_and_recovered():
    rng = np.random.default_rng(12)
    points, mask = vesicle(rng, [60] * 24, [(25, 20)] * 24)
    result = jax.tree.map(lambda a: a[None], sequence(points, mask))
    astray = 50 + 1.4 * (points[:, :8] - 50)
    grid = np.concatenate([points[:, :60], astray, np.zeros((24, 2, 2), np.float32)], 1)
    owner = np.repeat([1, 0, 1, 0, -1], [40, 20, 4, 4, 2])[None].repeat(24, 0)
    chance = np.full(owner.shape, 0.9, np.float32)
    chance[:, 40] = 0.05
    new = np.asarray(jax.jit(ell.select)(result, grid, owner, chance))
    assert (new[:, :40] == 1).mean() > 0.98
    assert (new[:, 41:60] == 1).mean() > 0.98
    assert (new[:, 40] == 0).all()  # not likely to be membrane
    assert (new[:, 60:68] == 0).all()
    assert (new[:, 68:] == -1).all()


def test_bic_weighs_misfit_against_parameters():
    rng = np.random.default_rng(14)
    off, mask = rng.normal(0, 1, 200).astype(np.float32), np.ones(200, bool)
    criterion = jax.jit(ell.bic)
    # of the same misfit, each parameter costs log n; half the misfit is worth many parameters
    assert np.isclose(criterion(off, mask, 9.0) - criterion(off, mask, 5.0), 4 * np.log(200), atol=1e-2)
    assert criterion(0.5 * off, mask, 30.0) < criterion(off, mask, 5.0)
    wild = off.copy()
    wild[:10] = 40.0  # ten spurious points: normal errors would add 870
    assert criterion(wild, mask, 5.0) - criterion(off, mask, 5.0) < 350
    padded = np.concatenate([off, np.full(56, 99.0, np.float32)])
    assert np.isclose(criterion(padded, np.arange(256) < 200, 5.0), criterion(off, mask, 5.0), atol=1e-2)
    # the constant is that of Student's t
    density = student.logpdf(off, 4, scale=student.fit(off, f0=4, floc=0)[2]).sum()
    assert np.isclose(criterion(off, mask, 0.0), -2 * density, rtol=1e-3)


def test_nothing_compiles_twice():
    traces = []

    @jax.jit
    def counted(points, mask, prior_sigma):
        traces.append(1)
        return ell.fit(
            points, mask, prior=ell.isotropic_prior(ellipse((0, 0), (9, 7), 0.0), prior_sigma, prior_sigma)
        ).outcome

    points, mask = padded(on_ellipse(np.random.default_rng(13), 30, (0, 0), (9, 7), 0.0))
    for sigma in (0.5, 1.0):
        counted(points, mask, sigma)
    assert len(traces) == 1
