import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmem import ellipse as ell


def on_ellipse(n, centre, axes, angle, rng, noise=0.0, arc=(0.0, 2 * np.pi)):
    t = rng.uniform(*arc, n)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.array(centre) + (np.stack([axes[0] * np.cos(t), axes[1] * np.sin(t)], 1)) @ turn.T
    return (points + rng.normal(0, noise, points.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def fit():
    return jax.jit(lambda p, m: ell.fit(p, m, ell.moments(p, m), prior_sigma=10.0, noise=1.0))


def test_recovers_an_ellipse_with_spurious_points(fit):
    rng = np.random.default_rng(0)
    points = on_ellipse(100, (40, 50), (30, 18), 0.5, rng, noise=0.5)
    points = np.concatenate([points, rng.uniform(0, 100, (10, 2)).astype(np.float32), np.zeros((18, 2), np.float32)])
    result = fit(points, np.arange(128) < 110)
    lengths, _ = ell.semi_axes(result.ellipse)
    assert bool(result.success)
    assert np.allclose(result.ellipse.centre, (40, 50), atol=0.4)
    assert np.allclose(lengths, (18, 30), atol=0.6)


def test_masked_equals_unmasked(fit):
    points = on_ellipse(64, (10, 12), (9, 7), 0.2, np.random.default_rng(1), noise=0.2)
    padded = np.concatenate([points, np.full((64, 2), 1e3, np.float32)])
    every = jnp.ones(64, bool)
    alone = ell.fit(jnp.asarray(points), every, ell.moments(jnp.asarray(points), every), prior_sigma=10.0)
    masked = fit(padded, np.arange(128) < 64)
    assert np.allclose(alone.ellipse.centre, masked.ellipse.centre, atol=1e-2)
    assert np.allclose(alone.ellipse.shape, masked.ellipse.shape, atol=1e-3)


def test_distance_is_that_of_a_circle_and_finite_at_its_centre():
    circle = ell.Ellipse(jnp.zeros(2), jnp.eye(2) / 10.0)
    assert abs(float(ell.distance(circle, jnp.array([10.5, 0.0]))) - 0.5) < 0.02
    value, slope = jax.value_and_grad(ell.distance, 1)(circle, jnp.zeros(2))
    assert np.isfinite(value)
    assert float(value) < -1.0
    assert np.isfinite(slope).all()


def test_gradient_of_a_fit_against_differences():
    points = jnp.asarray(on_ellipse(40, (0, 0), (8, 6), 0.3, np.random.default_rng(2), noise=0.1))
    mask = jnp.ones(40, bool)
    init = ell.moments(points, mask)

    def width(shift):
        moved = points.at[:, 0].add(shift)
        return ell.fit(moved, mask, init, prior_sigma=100.0, iterations=20).ellipse.centre[0]

    assert abs(float(jax.jacfwd(width)(0.0)) - 1.0) < 0.02


def test_too_few_points_is_a_code_not_a_crash(fit):
    result = fit(np.zeros((128, 2), np.float32), np.arange(128) < 2)
    assert not bool(result.success)


def test_three_dimensions():
    rng = np.random.default_rng(3)
    u = rng.normal(size=(400, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    u = u[np.abs(u[:, 0]) < 0.7]  # caps are missing
    points = jnp.asarray(np.array([30, 40, 50]) + u * np.array([12, 15, 20]), jnp.float32)
    mask = jnp.ones(len(points), bool)
    result = ell.fit(points, mask, ell.moments(points, mask), prior_sigma=3.0, iterations=60)
    lengths, _ = ell.semi_axes(result.ellipse)
    assert np.allclose(lengths, (12, 15, 20), atol=0.3)
    assert np.allclose(result.ellipse.centre, (30, 40, 50), atol=0.2)


def test_warm_start_keeps_the_shape_where_few_points_are_left():
    """Fig. 14 of the paper: a short arc alone gives a small ellipse, the neighbour's ellipse the right one."""
    rng = np.random.default_rng(4)
    rows, counts = 8, [60, 60, 60, 40, 20, 12, 8, 8]
    points, mask = np.zeros((rows, 64, 2), np.float32), np.zeros((rows, 64), bool)
    for z, n in enumerate(counts):
        arc = (0.0, 2 * np.pi) if n >= 40 else (0.2, 1.4)
        points[z, :n] = on_ellipse(n, (50, 50), (25, 20), 0.0, rng, noise=0.4, arc=arc)
        mask[z, :n] = True
    fits = jax.jit(ell.fit_sequence)(points, mask)
    lengths = np.asarray(jax.vmap(lambda e: ell.semi_axes(e)[0])(fits.ellipse))
    assert np.allclose(lengths[-1], (20, 25), atol=3.0)
    last, there = jnp.asarray(points[-1]), jnp.asarray(mask[-1])
    cold = ell.fit(last, there, ell.moments(last, there), prior_sigma=10.0)
    cold_error = np.abs(np.asarray(ell.semi_axes(cold.ellipse)[0]) - (20, 25)).max()
    assert np.abs(lengths[-1] - (20, 25)).max() < cold_error
