import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from jaxmem import gp


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


def test_radius_needs_two_points():
    with pytest.raises(ValueError, match="two distinct"):
        gp.valid_radius(gp.Cubic, np.ones((3, 3)))


@pytest.mark.parametrize(("kernel", "d"), KERNELS)
def test_posterior_equals_the_textbook(kernel, d):
    k, x, y = make(kernel, d)
    noise = jnp.full(len(y), 0.5)
    posterior = gp.fit(k, x, y, noise)
    q = x[:5] * 1.1 + 0.3
    gram = np.array([[float(k(a, b)) for b in x] for a in x]) + (0.25 + 1e-8) * np.eye(len(y))
    cross = np.array([[float(k(a, b)) for b in x] for a in q])
    mean = cross @ np.linalg.solve(gram, y)
    variance = [float(k(a, a)) for a in q] - np.einsum("ij,ji->i", cross, np.linalg.solve(gram, cross.T))
    assert np.allclose(jax.vmap(gp.mean, (None, 0))(posterior, q), mean, atol=1e-5)
    assert np.allclose(jax.vmap(gp.variance, (None, 0))(posterior, q), variance, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("kernel", "d"), KERNELS)
def test_masked_equals_unmasked_and_batched_equals_single(kernel, d):
    k, x, y = make(kernel, d)
    noise = jnp.full(len(y), 0.5)
    alone = gp.fit(k, x[:30], y[:30], noise[:30])
    masked = jax.jit(gp.fit)(k, x, y, noise, jnp.arange(len(y)) < 30)
    q = jnp.ones(d)
    assert np.allclose(gp.mean(alone, q), gp.mean(masked, q), atol=1e-8)
    assert np.allclose(gp.variance(alone, q), gp.variance(masked, q), atol=1e-8)
    batch = jax.vmap(gp.fit, (None, 0, 0, None))(k, jnp.stack([x, 2 * x]), jnp.stack([y, y]), noise)
    assert np.allclose(batch.weights[0], gp.fit(k, x, y, noise).weights, atol=1e-8)


@pytest.mark.parametrize(("kernel", "d"), KERNELS)
def test_derivatives_equal_automatic_ones_and_differences(kernel, d):
    k, x, y = make(kernel, d)
    posterior = gp.fit(k, x, y, jnp.full(len(y), 0.5))
    q = jnp.full(d, 3.3)
    value, slope, bend = gp.derivatives(posterior, q)
    assert np.allclose(value, gp.mean(posterior, q))
    assert np.allclose(slope, jax.grad(gp.mean, 1)(posterior, q), atol=1e-8)
    assert np.allclose(bend, jax.hessian(gp.mean, 1)(posterior, q), atol=1e-8)
    step = 1e-5 * np.eye(d)
    differences = [(gp.mean(posterior, q + e) - gp.mean(posterior, q - e)) / 2e-5 for e in step]
    assert np.allclose(slope, differences, atol=1e-5)
    assert np.array_equal(gp.gradient(posterior, q), slope)
    assert np.array_equal(gp.hessian(posterior, q), bend)
    at_data = gp.derivatives(posterior, x[0])
    assert all(np.isfinite(a).all() for a in at_data)


def test_gradient_through_the_fit():
    k, x, y = make(gp.Cubic, 3)

    def value(noise):
        return gp.mean(gp.fit(k, x, y, jnp.full(len(y), noise)), jnp.ones(3))

    difference = (value(0.5 + 1e-5) - value(0.5 - 1e-5)) / 2e-5
    assert np.allclose(jax.grad(value)(0.5), difference, rtol=1e-4)


def test_level_set_density_integrates_to_one():
    """Equation (5), mended: a normal density in the value at zero."""
    v = np.linspace(-30, 30, 6001)
    assert abs(float(np.trapezoid(gp.level_set_density(jnp.asarray(v), jnp.full(6001, 2.0)), v)) - 1.0) < 1e-6


def test_failure_is_a_code_and_shapes_are_checked():
    k, x, y = make(gp.Cubic, 3)
    bad = gp.fit(k, x.at[0, 0].set(jnp.nan), y, jnp.ones(len(y)))
    assert not bool(bad.success)
    with pytest.raises((ValueError, TypeCheckError)):
        gp.fit(k, x, y[:5], jnp.ones(len(y)))


def test_variance_beyond_the_valid_ball_is_the_priors():
    k, x, y = make(gp.Cubic, 3)
    posterior = gp.fit(k, x, y, jnp.ones(len(y)))
    assert float(gp.variance(posterior, jnp.full(3, 500.0))) == pytest.approx(100.0)
    assert float(gp.variance(posterior, x[0])) < 2.0


def test_dtype_follows_the_input():
    k, x, y = make(gp.Cubic, 3)
    single = jax.tree.map(lambda a: a.astype(jnp.float32), (k, x, y))
    posterior = gp.fit(*single, jnp.ones(len(y), jnp.float32))
    assert posterior.weights.dtype == jnp.float32
    assert gp.mean(posterior, jnp.ones(3, jnp.float32)).dtype == jnp.float32


def test_hot_functions_do_not_recompile():
    k, x, y = make(gp.Cubic, 3)
    traces = []

    @jax.jit
    def fitted(k, x, y, noise):
        traces.append(1)
        return gp.fit(k, x, y, noise)

    for scale in (1.0, 2.0, 3.0):
        fitted(gp.Cubic(jnp.array(scale), k.R * scale), x * scale, y, jnp.full(len(y), scale))
    assert len(traces) == 1
