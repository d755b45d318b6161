import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from jaxmem import gp
from jaxmem.ellipse import from_stretch
from jaxmem.types import Outcome


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def make(kernel, d, n=40, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    x = 10 * x / np.linalg.norm(x, axis=1, keepdims=True) + rng.normal(0, 0.3, (n, d))
    R = gp.valid_radius(kernel, x)
    return kernel(jnp.array(100.0), jnp.array(R)), jnp.asarray(x), jnp.asarray(rng.normal(0, 1, n))


KERNELS = [(gp.ThinPlate, 2), (gp.Cubic, 3)]


@pytest.mark.parametrize(("kernel", "d"), KERNELS)
def test_kernels_are_the_papers_up_to_scale(kernel, d):
    """Equations (6) and (7), the latter with its sign mended."""
    R, r = 7.0, np.linspace(0.1, 7.0, 20)
    k = kernel(jnp.array(R**d), jnp.array(R))
    got = [float(k(jnp.zeros(d), jnp.zeros(d).at[0].set(v))) for v in r]
    paper = 2 * r**2 * np.log(r) - (1 + 2 * np.log(R)) * r**2 + R**2 if d == 2 else 2 * r**3 - 3 * R * r**2 + R**3
    assert np.allclose(got, paper, atol=1e-9)


@pytest.mark.parametrize(("kernel", "d"), KERNELS)
def test_kernels_at_distance_zero(kernel, d):
    k = kernel(jnp.array(3.0), jnp.array(2.0))
    x = jnp.ones(d)
    assert float(k(x, x)) == 3.0
    assert np.array_equal(jax.grad(k)(x, x), np.zeros(d))
    assert np.isfinite(jax.hessian(k)(x, x)).all()


@pytest.mark.parametrize(("kernel", "d"), KERNELS)
@pytest.mark.parametrize("shape", ["shell", "ball", "line", "clusters"])
def test_kernels_are_positive_definite_within_their_radius(kernel, d, shape):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(250, d))
    if shape == "shell":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    elif shape == "ball":
        x = x / np.linalg.norm(x, axis=1, keepdims=True) * rng.uniform(size=(250, 1)) ** (1 / d)
    elif shape == "line":
        x = x * np.array([1.0] + [1e-3] * (d - 1))
    else:
        x = np.round(x) + 0.01 * x
    k = kernel(jnp.array(1.0), jnp.array(gp.valid_radius(kernel, x)))
    gram = jax.vmap(lambda a: jax.vmap(lambda b: k(a, b))(jnp.asarray(x)))(jnp.asarray(x))
    assert np.linalg.eigvalsh(gram).min() > -1e-10


def test_radius_needs_two_points_and_a_kernel_that_has_one():
    with pytest.raises(ValueError, match="two distinct"):
        gp.valid_radius(gp.Cubic, np.ones((3, 3)))
    with pytest.raises(ValueError, match="length scale"):
        gp.valid_radius(gp.Matern52, np.eye(3))


@pytest.mark.parametrize(
    ("kernel", "formula"),
    [
        (gp.Matern32, lambda p: (1 + np.sqrt(3) * p) * np.exp(-np.sqrt(3) * p)),
        (gp.Matern52, lambda p: (1 + np.sqrt(5) * p + 5 * p**2 / 3) * np.exp(-np.sqrt(5) * p)),
        (gp.SquaredExponential, lambda p: np.exp(-0.5 * p**2)),
    ],
)
def test_kernels_for_comparison(kernel, formula):
    """Rasmussen & Williams (2006), equations 4.9 and 4.17; slopes at distance zero are those of the limit."""
    k, r = kernel(jnp.array(2.0), jnp.array(3.0)), np.linspace(0, 9, 30)
    got = jax.vmap(lambda v: k(jnp.zeros(3), jnp.zeros(3).at[1].set(v)))(jnp.asarray(r))
    assert np.allclose(got, 2.0 * formula(r / 3.0))
    slope = float(jax.grad(k.profile)(jnp.array(0.0)))
    assert slope == pytest.approx((formula(1e-4) - 1) / 1e-8, rel=1e-2)
    assert np.array_equal(jax.grad(k)(jnp.ones(3), jnp.ones(3)), np.zeros(3))
    assert np.isfinite(gp.hessian(gp.fit(jnp.eye(3), jnp.ones(3), noise=jnp.ones(3), prior=k), jnp.eye(3)[0])).all()


@pytest.mark.parametrize(("kernel", "d"), KERNELS)
def test_posterior_equals_the_textbook(kernel, d):
    k, x, y = make(kernel, d)
    noise = jnp.full(len(y), 0.5)
    posterior = gp.fit(x, y, noise=noise, prior=k)
    q = x[:5] * 1.1 + 0.3
    table = jax.jit(jax.vmap(jax.vmap(k, (None, 0)), (0, None)))
    gram = np.asarray(table(x, x)) + (0.25 + 1e-8) * np.eye(len(y))
    cross = np.asarray(table(q, x))
    mean = cross @ np.linalg.solve(gram, y)
    variance = [float(k(a, a)) for a in q] - np.einsum("ij,ji->i", cross, np.linalg.solve(gram, cross.T))
    assert np.allclose(jax.vmap(gp.mean, (None, 0))(posterior, q), mean, atol=1e-5)
    assert np.allclose(jax.vmap(gp.variance, (None, 0))(posterior, q), variance, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("kernel", "d"), KERNELS)
def test_masked_equals_unmasked_and_batched_equals_single(kernel, d):
    k, x, y = make(kernel, d)
    noise = jnp.full(len(y), 0.5)
    alone = gp.fit(x[:30], y[:30], noise=noise[:30], prior=k)
    masked = jax.jit(gp.fit)(x, y, jnp.arange(len(y)) < 30, noise=noise, prior=k)
    q = jnp.ones(d)
    assert np.allclose(gp.mean(alone, q), gp.mean(masked, q), atol=1e-8)
    assert np.allclose(gp.variance(alone, q), gp.variance(masked, q), atol=1e-8)
    batch = jax.vmap(lambda x, y: gp.fit(x, y, noise=noise, prior=k))(jnp.stack([x, 2 * x]), jnp.stack([y, y]))
    assert np.allclose(batch.weights[0], gp.fit(x, y, noise=noise, prior=k).weights, atol=1e-8)


@pytest.mark.parametrize(("kernel", "d"), KERNELS)
def test_derivatives_equal_automatic_ones_and_differences(kernel, d):
    k, x, y = make(kernel, d)
    posterior = gp.fit(x, y, noise=jnp.full(len(y), 0.5), prior=k)
    q = jnp.full(d, 3.3)
    value, slope, bend = gp.derivatives(posterior, q)

    @jax.jit
    def automatic(q):
        steps = 1e-5 * jnp.concatenate([jnp.eye(d), -jnp.eye(d)])
        near = jax.vmap(lambda e: gp.mean(posterior, q + e))(steps)
        return gp.mean(posterior, q), *(way(gp.mean, 1)(posterior, q) for way in (jax.grad, jax.hessian)), near

    mean, gradient, hessian, near = automatic(q)
    assert np.allclose(value, mean)
    assert np.allclose(slope, gradient, atol=1e-8)
    assert np.allclose(bend, hessian, atol=1e-8)
    assert np.allclose(slope, (near[:d] - near[d:]) / 2e-5, atol=1e-5)
    assert np.array_equal(gp.gradient(posterior, q), slope)
    assert np.array_equal(gp.hessian(posterior, q), bend)
    at_data = gp.derivatives(posterior, x[0])
    assert all(np.isfinite(a).all() for a in at_data)


def test_gradient_through_the_fit():
    k, x, y = make(gp.Cubic, 3)

    def value(noise):
        return gp.mean(gp.fit(x, y, noise=jnp.full(len(y), noise), prior=k), jnp.ones(3))

    @jax.jit
    def both(noise):
        return jax.grad(value)(noise), jax.lax.map(value, noise + jnp.array([-1e-5, 1e-5]))

    slope, (below, above) = both(0.5)
    assert np.allclose(slope, (above - below) / 2e-5, rtol=1e-4)


def test_level_set_density_integrates_to_one():
    """Equation (5), mended: a normal density in the value at zero."""
    v = np.linspace(-30, 30, 6001)
    assert abs(float(np.trapezoid(gp.level_set_density(jnp.asarray(v), jnp.full(6001, 2.0)), v)) - 1.0) < 1e-6


def test_level_set_density_is_that_of_sampled_functions():
    """Equation (5) by hand at mean 1 and variance 4, and against the share of drawn functions that are nearly zero there."""
    assert float(gp.level_set_density(jnp.array(1.0), jnp.array(2.0))) == pytest.approx(0.17603, abs=1e-5)
    k, x, y = make(gp.Cubic, 3)
    posterior, q = gp.fit(x, y, noise=jnp.full(len(y), 0.5), prior=k), jnp.array([[1.0, 8.0, 3.0]])
    expansion, weights = gp.sample(jax.random.key(3), posterior, q, 20000)
    values = jax.vmap(lambda w: gp.mean(gp.with_weights(expansion, w), q[0]))(weights)
    density = gp.level_set_density(gp.mean(posterior, q[0]), jnp.sqrt(gp.variance(posterior, q[0])))
    assert float((jnp.abs(values) < 0.05).mean() / 0.1) == pytest.approx(float(density), rel=0.15)


def test_failures_are_codes_and_shapes_are_checked():
    k, x, y = make(gp.Cubic, 3)
    noise = jnp.ones(len(y))
    assert int(gp.fit(x, y, noise=noise, prior=k).outcome) == Outcome.OK
    bad = jax.jit(gp.fit)(x.at[0, 0].set(jnp.nan), y, noise=noise, prior=k)
    assert int(bad.outcome) == Outcome.NOT_FINITE
    assert not bool(bad.success)
    assert int(gp.fit(x, y, noise=noise, prior=gp.Cubic(k.variance, k.R / 3)).outcome) == Outcome.RADIUS
    assert int(gp.fit(x, y, jnp.zeros(len(y), bool), noise=noise, prior=k).outcome) == Outcome.EMPTY
    assert int(gp.fit_sparse(x, y.at[0].set(jnp.nan), x[:9], noise=noise, prior=k).outcome) == Outcome.NOT_FINITE
    with pytest.raises((ValueError, TypeCheckError)):
        gp.fit(x, y[:5], noise=jnp.ones(len(y)), prior=k)


@pytest.mark.parametrize("shape", ["duplicates", "plane", "line", "three"])
def test_degenerate_points_end_well(shape):
    k, x, _ = make(gp.Cubic, 3)
    x = {
        "duplicates": jnp.repeat(x[:10], 4, 0),
        "plane": x * jnp.array([[0.0, 1.0, 1.0]]),
        "line": x * jnp.array([[0.0, 0.0, 1.0]]),
        "three": x[:3],
    }[shape]
    posterior = gp.fit(x, jnp.zeros(len(x)), noise=jnp.full(len(x), 0.1), prior=k)
    assert bool(posterior.success)
    assert np.isfinite(gp.variance(posterior, x[0] + 0.5))


def test_variance_beyond_the_valid_ball_is_the_priors():
    k, x, y = make(gp.Cubic, 3)
    posterior = gp.fit(x, y, noise=jnp.ones(len(y)), prior=k)
    assert float(gp.variance(posterior, jnp.full(3, 500.0))) == pytest.approx(100.0)
    assert float(gp.variance(posterior, x[0])) < 2.0


def test_dtype_follows_the_input():
    k, x, y = make(gp.Cubic, 3)
    k, x, y = jax.tree.map(lambda a: a.astype(jnp.float32), (k, x, y))
    posterior = gp.fit(x, y, noise=0.5, prior=k)
    assert posterior.weights.dtype == jnp.float32
    assert gp.mean(posterior, jnp.ones(3, jnp.float32)).dtype == jnp.float32


def test_hot_functions_do_not_recompile():
    k, x, y = make(gp.Cubic, 3)
    traces = []

    @jax.jit
    def fitted(k, x, y, noise):
        traces.append(1)
        return gp.fit(x, y, noise=noise, prior=k)

    for scale in (1.0, 2.0, 3.0):
        fitted(gp.Cubic(jnp.array(scale), k.R * scale), x * scale, y, jnp.full(len(y), scale))
    assert len(traces) == 1


def test_means_and_slopes_in_single_precision_lose_nothing_that_matters():
    k, x, _ = make(gp.Cubic, 3, n=600)
    posterior = gp.fit(x, jnp.sin(x[:, 0] / 4.0), noise=jnp.full(600, 0.3), prior=k)
    q = x[:200] * 1.07
    value, slope = gp.slopes(posterior, q)
    exact = gp.map_points(gp.derivatives, posterior, q)
    assert np.abs(gp.means(posterior, q) - exact.value).max() < 2e-3
    assert np.abs(value - exact.value).max() < 2e-3
    assert np.abs(slope - exact.gradient).max() < 2e-3
    assert value.dtype == jnp.float64
    assert np.allclose(gp.map_points(gp.mean, posterior, q), exact.value)


def test_samples_have_the_posteriors_mean_and_covariance():
    k, x, y = make(gp.Cubic, 3)
    posterior = gp.fit(x, y, noise=jnp.full(len(y), 0.5), prior=k)
    support = x[:6] * 1.2 + 0.5
    expansion, weights = gp.sample(jax.random.key(0), posterior, support, 4000)
    values = jax.vmap(lambda w: gp.map_points(gp.mean, gp.with_weights(expansion, w), support))(weights)
    sigma = np.sqrt(gp.map_points(gp.variance, posterior, support))
    assert np.abs((values.mean(0) - gp.map_points(gp.mean, posterior, support)) / sigma).max() < 0.08
    assert np.allclose(values.std(0), sigma, rtol=0.05)
    full = gp.gram(k, support, support) - gp.gram(k, support, x) @ np.linalg.solve(
        gp.gram(k, x, x) + 0.25 * np.eye(len(y)), gp.gram(k, x, support)
    )
    assert np.abs(np.cov(values.T) - full).max() < 0.1 * np.diag(full).max()
    assert np.allclose(gp.map_points(gp.mean, expansion, support), gp.map_points(gp.mean, posterior, support))
    together = gp.derivatives_of(expansion, weights[:3], support[0] + 0.4)
    one = jax.vmap(lambda w: gp.derivatives(gp.with_weights(expansion, w), support[0] + 0.4))(weights[:3])
    assert all(np.allclose(a, b, atol=1e-7) for a, b in zip(together, one))


def test_sparse_equals_exact_where_all_points_are_inducing_and_nears_it_otherwise():
    k, x, y = make(gp.Cubic, 3, n=300)
    k, y, noise = gp.Cubic(jnp.array(9.0), k.R), jnp.sin(x[:, 0] / 4.0), jnp.full(300, 0.3)
    exact = gp.fit(x, y, noise=noise, prior=k)
    q = x[::7] * 1.05
    same = gp.fit_sparse(x, y, x, noise=noise, prior=k)
    assert float(same.log_likelihood) == pytest.approx(float(exact.log_likelihood), rel=1e-3)
    assert np.allclose(gp.map_points(gp.mean, same, q), gp.map_points(gp.mean, exact, q), atol=1e-4)
    assert np.allclose(gp.map_points(gp.variance, same, q), gp.map_points(gp.variance, exact, q), rtol=1e-3)
    few = jax.jit(gp.fit_sparse)(x, y, x[gp.inducing(x, 100)], noise=noise, prior=k)
    assert float(few.log_likelihood) <= float(exact.log_likelihood) + 1e-6  # a lower bound (Titsias 2009)
    assert np.abs(gp.map_points(gp.mean, few, q) - gp.map_points(gp.mean, exact, q)).max() < 0.15
    ratio = np.sqrt(gp.map_points(gp.variance, few, q) / gp.map_points(gp.variance, exact, q))
    assert ratio.min() > 0.85
    assert 0.97 < np.median(ratio) < 1.1
    expansion, weights = gp.sample(jax.random.key(0), few, q, 4000)
    spread = jax.vmap(lambda w: gp.map_points(gp.mean, gp.with_weights(expansion, w), q))(weights).std(0)
    assert np.allclose(spread, np.sqrt(gp.map_points(gp.variance, few, q)), rtol=0.06)


def test_sparse_masks_and_pads():
    k, x, y = make(gp.Cubic, 3)
    noise, z = jnp.full(len(y), 0.5), x[:12]
    alone = gp.fit_sparse(x[:30], y[:30], z, noise=noise[:30], prior=k)
    masked = gp.fit_sparse(x.at[30:].set(99.0), y, z, jnp.arange(len(y)) < 30, noise=noise, prior=k)
    assert np.allclose(alone.weights, masked.weights, atol=1e-8)
    with pytest.raises((ValueError, TypeCheckError)):
        gp.fit_sparse(x, y[:3], z, noise=noise, prior=k)


def test_inducing_points_cover_the_set():
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(2000, 3)))
    chosen = gp.inducing(x, 60, jnp.arange(2000) < 1500)
    assert len(np.unique(chosen)) == 60
    assert int(chosen.max()) < 1500
    nearest = np.linalg.norm(x[:1500, None] - x[chosen][None], axis=-1).min(1)
    apart = np.linalg.norm(x[chosen, None] - x[chosen][None], axis=-1) + np.eye(60)
    assert nearest.max() <= apart.min()


def ellipsoid(d):
    centre = jnp.arange(1.0, d + 1)
    return from_stretch(centre, jnp.diag(8.0 + jnp.arange(d, dtype=float)))


@pytest.mark.parametrize("d", [2, 3])
def test_the_ellipsoids_trend_is_a_distance_with_its_derivatives(d):
    trend = gp.Ellipsoid(ellipsoid(d), jnp.array(0.3))
    q = trend.ellipse.centre + jnp.zeros(d).at[0].set(8.5)
    assert float(trend.value(q)) == pytest.approx(0.5)
    # at the centre itself as beside it: about a semi-axis
    assert -8.0 - d < float(trend.value(trend.ellipse.centre)) < -8.0 + 1e-6
    coefficients = jnp.linspace(-0.01, 0.01, d + d * (d + 1) // 2)
    assert np.allclose(trend.moved(coefficients, q), trend.value(q) + trend.features(q) @ coefficients)
    turned = gp.Ellipsoid(trend.ellipse._replace(centre=trend.ellipse.centre + 1e-5), jnp.array(0.3))
    size = float(jnp.prod(trend.ellipse.semi_axes)) ** (1 / d)
    change = trend.features(q)[:d].sum() / 0.3 / size * 1e-5
    assert float(turned.value(q) - trend.value(q)) == pytest.approx(float(change), rel=1e-3)


def test_a_trend_is_a_prior_mean_with_uncertain_parameters():
    """Against the textbook with the covariance of the parameters added to the kernel's."""
    k, x, y = make(gp.Cubic, 3)
    trend, noise = gp.Ellipsoid(ellipsoid(3), jnp.array(0.3)), jnp.full(len(y), 0.5)
    posterior = gp.fit(x, y, noise=noise, prior=gp.Prior(k, trend))
    q = x[:7] * 1.1 + 0.2

    @jax.jit
    def textbook(x, y, q):
        fx, fq = jax.vmap(trend.features)(x), jax.vmap(trend.features)(q)
        covariance = gp.gram(k, x, x) + fx @ fx.T + 0.25 * jnp.eye(len(y))
        cross = gp.gram(k, q, x) + fq @ fx.T
        mean = jax.vmap(trend.value)(q) + cross @ jnp.linalg.solve(covariance, y - jax.vmap(trend.value)(x))
        prior = jax.vmap(lambda p: k(p, p))(q) + (fq**2).sum(1)
        return mean, prior - jnp.einsum("ij,ji->i", cross, jnp.linalg.solve(covariance, cross.T))

    mean, variance = textbook(x, y, q)
    assert np.allclose(gp.map_points(gp.mean, posterior, q), mean, atol=1e-6)
    assert np.allclose(gp.map_points(gp.variance, posterior, q), variance, rtol=1e-4, atol=1e-6)
    derivatives = gp.map_points(gp.derivatives, posterior, q)
    slope, bend = jax.jit(lambda p: (jax.grad(gp.mean, 1)(posterior, p), jax.hessian(gp.mean, 1)(posterior, p)))(q[0])
    assert np.allclose(derivatives.gradient[0], slope, atol=1e-7)
    assert np.allclose(derivatives.hessian[0], bend, atol=1e-7)
    assert np.abs(gp.slopes(posterior, q)[1] - derivatives.gradient).max() < 1e-3
    # every deviation smaller by the same factor, the prior's as well: the mean stays, and sigma is smaller by it
    smaller = gp.Ellipsoid(trend.ellipse, 0.9 * trend.sigma)
    less = gp.fit(x, y, noise=0.9 * noise, prior=gp.Prior(gp.Cubic(0.81 * k.variance, k.R), smaller))
    assert np.allclose(gp.map_points(gp.mean, less, q), mean, atol=1e-6)
    assert np.allclose(gp.map_points(gp.variance, less, q), 0.81 * variance, rtol=1e-4, atol=1e-6)
    same = gp.fit_sparse(x, y, x, noise=noise, prior=gp.Prior(k, trend))
    assert np.allclose(gp.map_points(gp.mean, same, q), mean, atol=1e-3)
    assert np.allclose(gp.map_points(gp.variance, same, q), variance, rtol=1e-2, atol=1e-4)


def drawn_from_the_prior(n, amplitude, noise, seed=0):
    k, x, _ = make(gp.Cubic, 3, n=n, seed=seed)
    k = gp.Cubic(jnp.array(amplitude**2), k.R)
    rng = np.random.default_rng(seed)
    f = np.linalg.cholesky(np.asarray(gp.gram(k, x, x)) + 1e-8 * np.eye(n)) @ rng.normal(size=n)
    return k, x, jnp.asarray(f + noise * rng.normal(size=n))


def learn(k, x, y, **changes):
    n = len(y)
    options = {
        "floor": jnp.array([0.01, 0.0]),
        "ceiling": jnp.array([50.0, 50.0]),
        "log_sigma": jnp.array([3.0, 3.0, 3.0]),
    }
    group = jnp.where(jnp.arange(n) < n // 2, 0, 1)
    return gp.learn(x, y, noise=jnp.ones(n), prior=k, group=group, **options | changes)


def test_hyperparameters_are_found_again():
    k, x, y = drawn_from_the_prior(200, 5.0, 0.3)
    y = y.at[100:].add(jnp.asarray(np.random.default_rng(9).normal(0, 0.6, 100)))
    start = gp.Cubic(jnp.array(1.0), k.R)
    found = jax.jit(learn)(start, x, y)
    assert np.sqrt(found.prior.kernel.variance) == pytest.approx(5.0, rel=0.35)
    assert float(found.scales[0]) == pytest.approx(0.3, rel=0.25)
    assert float(found.scales[1]) == pytest.approx(0.67, rel=0.25)
    assert (found.error[1:] < 0.2).all()
    noise = jnp.where(jnp.arange(200) < 100, found.scales[0], found.scales[1])

    def evidence(theta):
        kernel = gp.Cubic(found.prior.kernel.variance * jnp.exp(2 * theta[0]), k.R)
        scaled = noise * jnp.exp(jnp.where(jnp.arange(200) < 100, theta[1], theta[2]))
        return gp.fit(x, y, noise=scaled, prior=kernel).log_likelihood

    prior = jnp.array([jnp.log(found.prior.kernel.variance) / 2, *jnp.log(found.scales)]) / 9.0
    slope = jax.grad(evidence)(jnp.zeros(3)) - prior
    assert np.abs(slope).max() < 0.05


def test_noise_has_a_floor_a_ceiling_and_a_prior():
    k, x, y = drawn_from_the_prior(60, 5.0, 0.0)
    assert float(learn(k, x, y, floor=jnp.array([0.2, 0.0])).scales[0]) == pytest.approx(0.2, rel=1e-6)
    assert float(learn(k, x, 100 * y, ceiling=jnp.array([50.0, 1.0])).scales[1]) <= 1.0 + 1e-9
    tiny = learn(k, x[:20], y[:20], log_sigma=jnp.array([1.0, 1.0, 1.0]))
    assert np.isfinite(tiny.log_posterior)
    noisy = y + jnp.asarray(np.random.default_rng(1).normal(0, 0.3, 60))
    bound = {"floor": jnp.array([1.0, 0.0]), "log_sigma": jnp.array([1.5, 1.0, 1.0])}
    dozen, many = (learn(k, x, noisy / 3.0, steps=steps, **bound).prior.kernel.variance for steps in (12, 60))
    assert float(dozen) == pytest.approx(float(many), rel=0.05)  # a scale at its floor does not hold the others up
    bad = learn(k, x, y.at[0].set(jnp.nan))
    assert np.isnan(bad.log_posterior)
    with pytest.raises(ValueError, match="log_sigma"):
        learn(k, x, y, log_sigma=jnp.ones(2))


def test_leaving_one_out_is_what_the_others_predict():
    k, x, y = make(gp.Cubic, 3)
    noise = jnp.full(len(y), 0.5)
    expected, sigma = gp.leave_one_out(gp.fit(x, y, noise=noise, prior=k), y)
    others = gp.fit(x[1:], y[1:], noise=noise[1:], prior=k)
    assert float(expected[0]) == pytest.approx(float(gp.mean(others, x[0])), abs=1e-5)
    assert float(sigma[0]) == pytest.approx(float(jnp.sqrt(gp.variance(others, x[0]) + 0.25)), rel=1e-5)


def test_gradients_of_fit_and_evaluation_with_respect_to_everything():
    """Data, targets, noise and hyperparameters, batched and compiled, against finite differences."""
    k, x, y = make(gp.Cubic, 3, n=20)

    def value(variance, R, x, y, noise):
        posterior = gp.fit(x, y, noise=noise, prior=gp.Cubic(variance, R))
        q = jnp.array([2.0, 7.0, -3.0])
        return gp.mean(posterior, q) + gp.variance(posterior, q)

    arguments = (k.variance, k.R * 1.1, x, y, jnp.full(20, 0.5))
    batch = jax.tree.map(lambda a: jnp.stack([a, a * 1.01]), arguments)
    slopes = jax.jit(jax.vmap(jax.grad(value, (0, 1, 2, 3, 4))))(*batch)
    rng = np.random.default_rng(0)
    for i, (argument, slope) in enumerate(zip(arguments, slopes)):
        way = jnp.asarray(rng.normal(size=argument.shape)) * 1e-5 * (1 + jnp.abs(argument).max())
        changed = [value(*arguments[:i], argument + s * way, *arguments[i + 1 :]) for s in (1, -1)]
        assert float((changed[0] - changed[1]) / 2) == pytest.approx(float(jnp.vdot(slope[0], way)), rel=1e-3)


def shared_case(rng):
    """Values on points of the plane with errors of their own and one that fades with the distance between them."""
    x = rng.uniform(-20.0, 20.0, (40, 2))
    alike = 0.4 * np.exp(-(((x[:, None] - x[None, ::5]) / 10.0) ** 2).sum(-1))
    return x, rng.normal(size=40), rng.uniform(0.2, 0.5, 40), alike


def test_shared_errors_are_those_of_the_textbook():
    """Mean and variance with the errors' whole covariance, by numpy; the sparse fit agrees where all points are inducing."""
    with jax.enable_x64(True):
        x, y, noise, alike = (jnp.asarray(a) for a in shared_case(np.random.default_rng(5)))
        prior = gp.ThinPlate(jnp.asarray(9.0), jnp.asarray(80.0))
        exact = jax.jit(lambda s: gp.fit(x, y, noise=noise, prior=prior, shared=s))(alike)
        sparse = jax.jit(lambda s: gp.fit_sparse(x, y, x, noise=noise, prior=prior, shared=s))(alike)
        q = jnp.array([[1.0, 2.0], [-7.0, 12.0]])
        covariance = np.asarray(gp.gram(prior, x, x)) + np.diag(np.asarray(noise) ** 2) + np.asarray(alike @ alike.T)
        cross = np.asarray(gp.gram(prior, q, x))
        solved = np.linalg.solve(covariance, cross.T)
        mean, variance = solved.T @ np.asarray(y), 9.0 - (cross * solved.T).sum(1)
        likelihood = -0.5 * (y @ np.linalg.solve(covariance, y) + np.linalg.slogdet(2 * np.pi * covariance)[1])
        for posterior in (exact, sparse):
            assert np.allclose(gp.map_points(gp.mean, posterior, q), mean, rtol=1e-5)
            assert np.allclose(gp.map_points(gp.variance, posterior, q), variance, rtol=1e-4)
            assert float(posterior.log_likelihood) == pytest.approx(float(likelihood), rel=1e-4)


def test_what_rows_share_is_not_learnt_twice_and_masked_rows_share_nothing():
    rng = np.random.default_rng(6)
    x, y, noise, alike = (jnp.asarray(a, float) for a in shared_case(rng))
    prior = gp.ThinPlate(jnp.asarray(9.0), jnp.asarray(80.0))
    mask = jnp.arange(40) < 30
    spoilt = jnp.where(mask[:, None], alike, jnp.nan)
    hidden = gp.fit(x, y, mask, noise=noise, prior=prior, shared=spoilt)
    alone = gp.fit(x[:30], y[:30], noise=noise[:30], prior=prior, shared=alike[:30])
    q = jnp.array([1.0, 2.0])
    assert float(gp.mean(hidden, q)) == pytest.approx(float(gp.mean(alone, q)), abs=1e-3)
    bounds = {"floor": jnp.array([0.01]), "ceiling": jnp.array([10.0]), "log_sigma": jnp.ones(2)}
    group = jnp.zeros(40, int)
    with_it = gp.learn(x, y, mask, noise=noise, group=group, prior=prior, shared=spoilt, **bounds)
    assert bool(with_it.success)
    plain = gp.learn(x, y, mask, noise=noise, group=group, prior=prior, **bounds)
    assert float(with_it.scales[0]) < float(plain.scales[0])
