from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from jaxmem.simulate import (
    MembraneProfile,
    NoiseSpectrum,
    SliceModel,
    VolumeModel,
    coloured_noise,
    detectability,
    matched,
    measure_noise,
    measure_profile,
    noise_power,
    simulate_tomogram,
    training_slice,
)
from jaxmem.simulate.noise import log_uniform, uniform
from jaxmem.simulate.profile import STEP, bilayer, blurred, sampled

MODEL = SliceModel(size=96)
draw = jax.jit(jax.vmap(training_slice, (0, None)))  # one compiled program for every range


@pytest.fixture(autouse=True, scope="module")
def strict():
    """No silent promotion of dtypes or ranks, and no key used twice."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"), jax.debug_key_reuse(True):
        yield


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield jnp.dtype(request.param)


@pytest.fixture(scope="module")
def slices():
    return draw(jax.random.split(jax.random.key(0), 12), MODEL)


def test_slices_have_every_class_and_are_normalised(slices):
    images, labels = (np.asarray(a) for a in slices)
    assert set(np.unique(labels)) == {0, 1, 2}
    share = (labels == 2).mean()
    assert 0.01 < share < 0.2
    assert np.isfinite(images).all()
    assert np.abs(np.median(images, axis=(1, 2))).max() < 1e-3


def test_membranes_are_darker_than_background(slices):
    images, labels = (np.asarray(a) for a in slices)
    assert images[labels == 2].mean() < images[labels == 0].mean() - 0.5


def test_same_key_same_slice():
    images, labels = draw(jnp.repeat(jax.random.split(jax.random.key(3), 6), 2), MODEL)
    assert np.array_equal(images[::2], images[1::2])
    assert np.array_equal(labels[::2], labels[1::2])
    assert not np.array_equal(images[0], images[2])


def test_gaps_leave_less_membrane():
    def share(gap):
        model = replace(MODEL, gap_fraction=gap, tilt_range=(89.0, 89.5))
        keys = jax.random.split(jax.random.key(1), 12)
        return float((draw(keys, model)[1] == 2).mean())

    assert share(1.0) < 0.9 * share(0.0)


def test_noise_follows_a_measured_spectrum():
    frequency = jnp.linspace(0, 0.5, 40)
    spectrum = NoiseSpectrum(frequency, jnp.exp(-(((frequency - 0.2) / 0.05) ** 2)))
    keys = jax.random.split(jax.random.key(2), 16)
    power = noise_power(jax.random.key(0), 96, spectrum)
    noise = jax.vmap(coloured_noise, (0, None))(keys, power)
    measured = measure_noise(noise)
    peak = float(measured.frequency[jnp.argmax(measured.radial)])
    assert abs(peak - 0.2) < 0.02
    assert abs(float(noise.std()) - 1.0) < 0.02
    with pytest.raises((ValueError, TypeCheckError)):
        measure_noise(noise[0])


def test_an_ideal_observer_sees_long_dark_lines_best():
    """In white noise d'^2 of a line of depth a is the integral of a^2 over the window; coloured noise hides what looks like it."""
    size = 96
    line = jnp.zeros((size, size)).at[48].set(-0.5)
    white = jnp.ones((size, size))
    index = detectability(line, white, 4.0)
    assert float(index[48, 48]) == pytest.approx(0.5 * (4.0 * np.sqrt(2 * np.pi)) ** 0.5, rel=0.01)
    assert float(index[20, 48]) < 0.01
    frequency = np.abs(np.fft.fftfreq(size))[:, None] * np.ones(size)
    low, high = (jnp.asarray(p / p.mean(), jnp.float32) for p in (np.exp(-8 * frequency), np.exp(8 * frequency)))
    wide = jnp.zeros((size, size)).at[44:53].set(-0.2)
    assert detectability(wide, high, 4.0)[48, 48] > 2 * detectability(wide, low, 4.0)[48, 48]


def test_what_cannot_be_seen_is_not_labelled():
    """A higher bar leaves fewer pixels, all of them labelled under the lower one."""
    low, high = (
        np.asarray(draw(jax.random.split(jax.random.key(3), 12), replace(MODEL, visible=visible))[1])
        for visible in (0.5, 6.0)
    )
    assert 0 < (high == 2).sum() < 0.9 * (low == 2).sum()
    assert not ((high == 2) & (low != 2)).any()


def two_leaflets(d):
    return -np.exp(-(((d - 1.5) / 0.7) ** 2)) - np.exp(-(((d + 1.5) / 0.7) ** 2))


def test_profile_is_measured_through_noise():
    rng = np.random.default_rng(0)
    d = rng.uniform(-9, 9, 40000).astype(np.float32)
    values = 3.0 + 2.0 * two_leaflets(d) + rng.normal(0, 1, len(d))
    profile = measure_profile(jnp.asarray(values, jnp.float32), jnp.asarray(d), jnp.float32(3.0))
    at = np.arange(len(profile.density)) * STEP
    assert float(profile.depth) == pytest.approx(2.0, abs=0.15)
    assert np.abs(profile.density * profile.depth - 2.0 * two_leaflets(at)).max() < 0.2
    assert float(profile.density[-1]) == 0.0


def test_bright_membranes_have_no_depth():
    d = jnp.linspace(-8.0, 8.0, 500)
    profile = measure_profile(jnp.exp(-(d**2)), d, jnp.float32(0.0))
    assert float(profile.depth) == 0.0
    assert not profile.density.any()
    with pytest.raises(ValueError, match="darker"):
        matched(MODEL, profile, NoiseSpectrum(jnp.ones(4), jnp.ones(4)), 0.0)


def test_blurring_a_profile_equals_convolution():
    at = np.arange(48) * STEP
    profile = jnp.asarray(np.exp(-0.5 * (at / 1.5) ** 2), jnp.float32)
    expected = 1.5 / 2.5 * np.exp(-0.5 * (at / 2.5) ** 2)
    assert np.allclose(blurred(profile, jnp.float32(2.0))[:30], expected[:30], atol=2e-3)
    assert np.allclose(blurred(profile, jnp.float32(0.0))[:40], profile[:40], atol=2e-2)
    assert np.allclose(sampled(profile, jnp.array([-1.0, 1.0])), np.exp(-0.5 / 1.5**2), atol=1e-3)
    assert float(sampled(profile, jnp.float32(100.0))) == 0.0


def test_matched_slices_have_the_profile_they_were_given():
    at = np.arange(33) * STEP
    profile = MembraneProfile(jnp.asarray(two_leaflets(at), jnp.float32), jnp.float32(2.0))
    spectrum = NoiseSpectrum(jnp.linspace(0.01, 0.49, 24), jnp.ones(24))
    like = matched(replace(MODEL, gap_fraction=0.0), profile, spectrum, 30.0)
    assert like.contrast == pytest.approx((18.0, 42.0))
    images, labels = draw(jax.random.split(jax.random.key(9), 12), like)
    images, labels = np.asarray(images), np.asarray(labels)
    edge = np.stack([distance_transform_edt(m) for m in labels == 2])
    middle, leaflet = (images[(edge > a) & (edge <= b)].mean() for a, b in ((1.7, 3.0), (0.5, 1.2)))
    assert leaflet < middle - 0.5  # two leaflets with a gap between them


def test_tomogram_and_truth_agree():
    model = VolumeModel(
        (40, 64, 64), candidates=16, radius_voxels=(10.0, 13.0), truth_points=500, touching_fraction=0.9
    )
    sim = simulate_tomogram(jax.random.key(5), model)
    data, labels = np.asarray(sim.data), np.asarray(sim.labels)
    found = [np.asarray(sim.points[k]) for k in np.flatnonzero(sim.present)]
    assert len(found) >= 2
    apart = [cKDTree(a).query(b)[0].min() for i, a in enumerate(found) for b in found[:i]]
    assert 2.0 < min(apart) < 6.5  # vesicles touch, and none cuts another
    for number in np.flatnonzero(sim.present):
        where = np.round(np.asarray(sim.points[number])).astype(int)
        inside = ((where >= 0) & (where < labels.shape)).all(1)
        assert (labels[tuple(where[inside].T)] == number + 1).mean() > 0.98
        assert np.allclose(np.linalg.norm(sim.normals[number], axis=1), 1.0, atol=1e-3)
    # the wedge: no power along the beam
    power = np.abs(np.fft.fftn(data)) ** 2
    assert power[10:30, 0, 0].mean() < 0.05 * power[0, 0, 4:12].mean()
    assert data[labels > 0].mean() < data[labels == 0].mean()


def finite_gradients(function, *arguments):
    """The value of a function that is finite with its gradients, backwards and forwards."""

    @jax.jit
    def both(*arguments):
        value, back = jax.vjp(function, *arguments)
        ones = jax.tree.map(jnp.ones_like, arguments)
        return value, (back(jax.tree.map(jnp.ones_like, value)), jax.jvp(function, arguments, ones)[1])

    value, slopes = both(*arguments)
    for leaf in jax.tree.leaves((value, slopes)):
        assert np.isfinite(leaf).all()
        assert leaf.dtype == jax.tree.leaves(arguments)[0].dtype
    return value


def test_noise_without_power_has_finite_gradients(dtype):
    none = jnp.zeros((16, 16), dtype)
    some = none.at[3].set(1.0)
    assert not finite_gradients(lambda p: coloured_noise(jax.random.key(0), p), none).any()
    assert float(finite_gradients(lambda p: coloured_noise(jax.random.key(0), p), some).std()) == pytest.approx(
        1.0, rel=1e-5
    )
    assert not finite_gradients(lambda d, p: detectability(d, p, 1.0), none, none + 1.0).any()
    assert finite_gradients(lambda d, p: detectability(d, p, 1.0), some, some).any()
    frequency = jnp.linspace(0.0, 0.5, 8, dtype=dtype)
    assert not finite_gradients(
        lambda s: noise_power(jax.random.key(0), 16, s), NoiseSpectrum(frequency, 0.0 * frequency)
    ).any()
    assert finite_gradients(lambda s: noise_power(jax.random.key(0), 16, s), NoiseSpectrum(frequency, frequency)).any()
    assert not finite_gradients(measure_noise, jnp.full((2, 16, 16), 3.0, dtype)).radial.any()


def test_profiles_have_finite_gradients_where_they_are_singular(dtype):
    d = jnp.linspace(-8.0, 8.0, 65, dtype=dtype)
    level = jnp.asarray(2.0, dtype)
    for values, distance, depth in (
        (jnp.full_like(d, 2.0), d, 0.0),  # nothing to be seen
        (2.0 + jnp.exp(-(d**2)), d, 0.0),  # bright
        (jnp.ones_like(d), 0.0 * d, 1.0),  # all at the mid-surface
        (jnp.ones_like(d), 0.0 * d + 100.0, 0.0),  # none within reach
    ):
        assert float(finite_gradients(measure_profile, values, distance, level).depth) == depth
    density = jnp.exp(-(d[32:] ** 2))
    for sigma in (0.0, 2.0):
        finite_gradients(blurred, density, jnp.asarray(sigma, dtype))
    far = finite_gradients(sampled, density, jnp.array([0.0, STEP, 1e9, jnp.inf], dtype))
    assert np.allclose(far, [density[0], density[1], 0.0, 0.0])
    for half in (0.0, 1.0):
        finite_gradients(bilayer, d, *(jnp.asarray(v, dtype) for v in (half, 0.5, 0.2)))
    for draw_one in (uniform, log_uniform):
        assert (
            finite_gradients(lambda a, b, f=draw_one: f(jax.random.key(0), (a, b)), *2 * [jnp.ones((), dtype)]) == 1.0
        )


def test_gradients_of_noise_and_profiles_equal_finite_differences():
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 4)
        power = 0.5 + jax.random.uniform(keys[0], (12, 12))
        density = jax.random.normal(keys[1], (12, 12))
        d = jax.random.uniform(keys[2], (40,), minval=-7.0, maxval=7.0)
        profile, half = jnp.exp(-jnp.linspace(0.0, 3.0, 33)), jnp.asarray(1.3)
        weight = jax.random.normal(keys[3], (144,))
        for function, x in (
            (lambda p: coloured_noise(jax.random.key(1), p), power),
            (lambda p: detectability(density, p, 1.0), power),
            (lambda s: detectability(s, power, 1.0), density),
            (lambda s: measure_noise(s[None], bins=8).radial, density),
            (lambda v: measure_profile(v, d, half).density, -jnp.cos(d)),
            (lambda x: measure_profile(-jnp.cos(x), x, half).density, d),
            (lambda p: blurred(p, half), profile),
            (lambda sigma: blurred(profile, sigma), half),
            (lambda x: sampled(profile, x), d),
        ):

            @jax.jit
            def along(x, function=function):
                def value(x):
                    out = function(x).ravel()
                    return jnp.vdot(weight[: out.size], out)

                way = jnp.sin(jnp.arange(x.size, dtype=float)).reshape(x.shape) + 0.3
                difference = (value(x + 1e-6 * way) - value(x - 1e-6 * way)) / 2e-6
                return difference, jnp.vdot(jax.grad(value)(x), way)

            difference, slope = along(x)
            assert float(slope) == pytest.approx(float(difference), rel=1e-5, abs=1e-8)


def test_slices_are_differentiable_in_their_ranges():
    model = jax.tree.map(jnp.asarray, SliceModel(size=64))
    weight = jax.random.normal(jax.random.key(1), (64, 64))

    def value(model, key):
        return jnp.sum(weight * training_slice(key, model)[0])

    slope = jax.jit(jax.grad(value))
    for key in jax.random.split(jax.random.key(2), 3):
        slopes = slope(model, key)
        assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(slopes))
        assert float(slopes.contrast[0]) != 0.0
        assert float(slopes.z_blur) != 0.0
        assert float(slopes.gap_fraction) == 0.0  # it decides, and nothing else


def test_simulations_are_double_where_doubles_are_the_default():
    with jax.enable_x64(True):
        image, labels = training_slice(jax.random.key(0), SliceModel(size=64))
        assert (image.dtype, labels.dtype) == (jnp.float64, jnp.int32)
        small = VolumeModel((16, 24, 24), candidates=2, radius_voxels=(6.0, 7.0), truth_points=20)
        made = simulate_tomogram(jax.random.key(0), small)
        assert made.data.dtype == made.points.dtype == made.normals.dtype == jnp.float64
        assert made.labels.dtype == jnp.int32
