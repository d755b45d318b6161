import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxmem import preprocess


@pytest.fixture(autouse=True)
def strict():
    """No silent promotion of dtypes or ranks."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield jnp.dtype(request.param)


FILTERS = {
    "robust_normalise": preprocess.robust_normalise,
    "robust_normalise rows": lambda x: preprocess.robust_normalise(x, axis=(1,)),
    "gaussian": lambda x: preprocess.gaussian(x, (1.0, 2.0)),
    "band_pass": lambda x: preprocess.band_pass(x, 0.04, 0.2),
    "enhance_contrast": lambda x: preprocess.enhance_contrast(x, 1.0),
    "rescale": lambda x: preprocess.rescale(x, (6, 10)),
    "safe_std": lambda x: preprocess.safe_std(x, axis=1),
}


@pytest.mark.parametrize("name", FILTERS)
def test_constant_images_have_finite_values_and_gradients(name, dtype):
    @jax.jit
    def both(image):
        value, back = jax.vjp(FILTERS[name], image)
        return value, back(jnp.ones_like(value))[0], jax.jvp(FILTERS[name], (image,), (jnp.ones_like(image),))[1]

    for level in (0.0, 3.0, 1234.567):
        value, slope, forwards = both(jnp.full((12, 16), level, dtype))
        assert value.dtype == dtype
        assert all(np.isfinite(a).all() for a in (value, slope, forwards))
        if name not in ("gaussian", "rescale", "band_pass"):
            assert np.abs(value).max() <= 10 * jnp.finfo(dtype).eps * level
        if name == "robust_normalise":
            assert float(jnp.abs(slope).max()) < value.size  # the median takes what the others lose


@pytest.mark.parametrize("name", FILTERS)
def test_gradients_equal_finite_differences(name):
    @jax.jit
    def along(image, way, weight):
        def value(image):
            out = FILTERS[name](image)
            return jnp.sum(weight.ravel()[: out.size].reshape(out.shape) * out)

        difference = (value(image + 1e-6 * way) - value(image - 1e-6 * way)) / 2e-6
        return difference, jnp.vdot(jax.grad(value)(image), way), jax.jvp(value, (image,), (way,))[1]

    with jax.enable_x64(True):
        difference, backwards, forwards = along(
            *(np.random.default_rng(seed).normal(size=(12, 16)) for seed in (0, 1, 2))
        )
        assert float(backwards) == pytest.approx(float(difference), rel=1e-6, abs=1e-8)
        assert float(forwards) == pytest.approx(float(difference), rel=1e-6, abs=1e-8)


def test_robust_normalise_ignores_a_gold_bead():
    rng = np.random.default_rng(0)
    image = rng.normal(5.0, 2.0, (64, 64)).astype(np.float32)
    image[:6, :6] = -500.0
    out = np.asarray(preprocess.robust_normalise(jnp.asarray(image)))
    rest = out[8:]
    assert abs(rest.mean()) < 0.05
    assert abs(rest.std() - 1.0) < 0.05
    assert out.min() == -6.0


def test_constant_slices_become_zero_without_nan():
    out = preprocess.robust_normalise(jnp.full((2, 8, 8), 3.0), axis=(1, 2))
    assert np.array_equal(out, np.zeros((2, 8, 8)))


def test_gaussian_equals_scipy():
    volume = np.random.default_rng(1).normal(size=(9, 12, 10)).astype(np.float32)
    got = preprocess.gaussian(jnp.asarray(volume), (1.0, 0.0, 1.5))
    want = ndimage.gaussian_filter(volume, (1.0, 0.0, 1.5), mode="reflect")
    assert np.allclose(got, want, atol=1e-5)
    with pytest.raises(ValueError, match="expected 2 axes"):
        preprocess.gaussian(jnp.asarray(volume), (1.0, 1.0))


@pytest.mark.parametrize(("frequency", "kept"), [(0.01, False), (0.1, True), (0.4, False)])
def test_band_pass_keeps_the_band(frequency, kept):
    wave = np.cos(2 * np.pi * frequency * np.arange(200))[None, :].repeat(16, 0).astype(np.float32)
    out = np.asarray(preprocess.band_pass(jnp.asarray(wave), 0.04, 0.2))
    assert (out.std() / wave.std() > 0.7) == kept


def test_enhanced_contrast_is_even():
    rng = np.random.default_rng(2)
    image = rng.normal(size=(64, 64)) * np.linspace(0.2, 5.0, 64) + np.linspace(0, 50, 64)
    out = np.asarray(preprocess.enhance_contrast(jnp.asarray(image, jnp.float32), 6.0))
    left, right = out[:, 8:24], out[:, 40:56]
    assert abs(left.std() / right.std() - 1.0) < 0.2
    assert abs(left.mean() - right.mean()) < 0.2


def test_rescale_and_back_keeps_places():
    y, x = np.indices((60, 80), float)
    blob = np.exp(-((y - 20.5) ** 2 + (x - 50.5) ** 2) / 60.0).astype(np.float32)
    small = preprocess.rescale(jnp.asarray(blob), (30, 40))
    back = np.asarray(preprocess.rescale(small, (60, 80)))
    centre = [(back * a).sum() / back.sum() for a in (y, x)]
    assert np.allclose(centre, [20.5, 50.5], atol=0.1)
