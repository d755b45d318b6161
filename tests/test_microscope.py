import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmem.simulate import Microscope, back_project, contrast_transfer, project, record, take_tomogram

SHAPE = (20, 16, 24)
FULL = np.arange(-90.0, 90.0, 3.0)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield jnp.dtype(request.param)


def blob(centre, sigma, shape=SHAPE):
    """A Gaussian of integral 1."""
    offset = np.indices(shape) - np.reshape(centre, (3, 1, 1, 1))
    density = np.exp(-0.5 * (offset**2).sum(0) / sigma**2)
    return density / density.sum()


def middle_of(values):
    """Centre of mass."""
    values = np.asarray(values, float)
    return [float((index * values).sum() / values.sum()) for index in np.indices(values.shape)]


def ball(shape=SHAPE, radius=6.0):
    """A ball with soft edges."""
    middle = (np.reshape(shape, (3, 1, 1, 1)) - 1) / 2
    distance = np.sqrt(((np.indices(shape) - middle) ** 2).sum(0))
    return 1.0 / (1.0 + np.exp((distance - radius) / 0.5))


def both(axis, volume):
    """The volume for tilts about y, turned for those about x."""
    return volume if axis == "y" else np.swapaxes(volume, 1, 2)


@pytest.mark.parametrize("axis", ["y", "x"])
def test_a_projection_at_zero_is_the_sum(dtype, axis):
    density = jax.random.normal(jax.random.key(0), SHAPE, dtype)
    image = project(density, jnp.zeros(1), axis)
    assert image.dtype == dtype
    assert np.allclose(image[0], density.sum(0), atol=1e-5)


@pytest.mark.parametrize("axis", ["y", "x"])
@pytest.mark.parametrize("angle", [-60.0, 30.0, 44.0, 46.0, 90.0])
def test_a_point_lies_where_it_should(axis, angle):
    z, y, x = 12.0, 6.0, 14.0
    image = project(jnp.asarray(both(axis, blob((z, y, x), 1.2)), jnp.float32), jnp.array([angle]), axis)[0]
    image = image if axis == "y" else image.T
    tilt = np.deg2rad(angle)
    expected = 11.5 + (x - 11.5) * np.cos(tilt) + (z - 9.5) * np.sin(tilt)
    assert np.allclose(middle_of(image), [y, expected], atol=0.01)
    assert float(image.sum()) == pytest.approx(1.0, rel=0.01)


def test_gradients_equal_finite_differences():
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 4)
        density = jax.random.normal(keys[0], (6, 5, 8))
        angles, tilts = jnp.array([-50.0, 0.0, 20.0]), jax.random.normal(keys[1], (3, 5, 8))
        weight = jax.random.normal(keys[2], (6 * 5 * 8,))
        transfer = contrast_transfer((5, 8), 10.0, 30000.0)
        for function, x, step in (
            (lambda d: project(d, angles), density, 1e-5),
            (lambda a: project(density, a + 0.7), angles, 1e-6),
            (lambda i: back_project(i, angles, (6, 5, 8), filter="sirt"), tilts, 1e-5),
            (lambda p: record(jax.random.key(3), p, 0.3, transfer), tilts, 1e-5),
            (lambda d: contrast_transfer((5, 8), 10.0, d), jnp.asarray(30000.0), 1e-1),
        ):

            @jax.jit
            def along(x, function=function, step=step):
                def value(x):
                    out = function(x).ravel()
                    return jnp.vdot(weight[: out.size], out)

                way = jnp.sin(jnp.arange(x.size, dtype=float)).reshape(x.shape) + 0.3
                difference = (value(x + step * way) - value(x - step * way)) / (2 * step)
                return difference, jnp.vdot(jax.grad(value)(x), way)

            difference, slope = along(x)
            assert float(slope) == pytest.approx(float(difference), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("kind", ["ramp", "hamming", "sirt"])
def test_half_a_turn_gives_the_density_back(kind):
    truth = ball()
    images = project(jnp.asarray(truth, jnp.float32), jnp.asarray(FULL))
    found = np.asarray(back_project(images, jnp.asarray(FULL), SHAPE, filter=kind, cutoff=0.5))
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.97
    inside = truth > 0.99
    assert found[inside].mean() - found[truth < 0.01].mean() == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("axis", ["y", "x"])
def test_what_is_reconstructed_lies_where_it_was(axis):
    at = (12.0, 6.0, 14.0)
    images = project(jnp.asarray(both(axis, blob(at, 1.5)), jnp.float32), jnp.asarray(FULL), axis)
    found = np.asarray(back_project(images, jnp.asarray(FULL), both(axis, np.zeros(SHAPE)).shape, axis))
    found = both(axis, found)
    assert np.allclose(middle_of(np.where(found > 0.2 * found.max(), found, 0.0)), at, atol=0.02)


def test_no_power_in_the_missing_wedge():
    """Tilts of up to 60 degrees leave directions within 30 degrees of the beam empty."""
    angles = jnp.arange(-60.0, 61.0, 3.0)
    images = jax.random.normal(jax.random.key(0), (len(angles), 4, 48))
    volume = np.asarray(back_project(images, angles, (48, 4, 48), cutoff=0.5))
    window = np.hanning(48)
    power = (np.abs(np.fft.fftn(volume * window[:, None, None] * window)) ** 2).sum(1)
    kz, kx = np.fft.fftfreq(48)[:, None], np.fft.fftfreq(48)[None]
    tilt = np.rad2deg(np.arctan2(np.abs(kz), np.abs(kx)))
    ring = (np.hypot(kz, kx) > 0.15) & (np.hypot(kz, kx) < 0.45)
    assert power[ring & (tilt > 68)].mean() < 0.01 * power[ring & (tilt < 52)].mean()


def test_transfer_has_the_zeros_and_signs_it_should(dtype):
    transfer = contrast_transfer((4, 400), 4.0, jnp.asarray(30000.0, dtype), b_factor=0.0, amplitude_contrast=0.0)
    assert transfer.dtype == dtype
    row = np.asarray(transfer)[0, :200]
    first = np.flatnonzero(np.diff(np.sign(row[1:])))[0] + 1
    wave = 0.0196875  # A, of electrons of 300 kV
    assert first / 1600 == pytest.approx((wave * 30000.0) ** -0.5, abs=1 / 1600)
    assert (row[1:first] < 0).all()
    assert row[first + 2] > 0
    flipped = contrast_transfer((4, 400), 4.0, 30000.0, phase_flipped=True)
    assert (np.asarray(flipped) <= 0).all()


def test_noise_is_as_strong_as_was_asked():
    projections = jnp.asarray(np.stack([ball((1, 64, 64), 9.0)[0]] * 3), jnp.float32)
    transfer = contrast_transfer((64, 64), 10.0, jnp.float32(30000.0))
    clean = record(jax.random.key(0), projections, jnp.inf, transfer)
    noise = record(jax.random.key(0), projections, 0.1, transfer) - clean
    assert float(clean.var((1, 2)).mean() / noise.var()) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("flipped", [False, True])
def test_membranes_are_dark(dtype, flipped):
    """A hollow shell: where it is steep it is darker than what lies around it; a wider density gives the same place."""
    shape, margin = (24, 20, 28), ((0, 0), (2, 2), (6, 6))
    shell = ball(shape, 8.0) - ball(shape, 6.0)
    microscope = Microscope(snr=1e6, defocus=30000.0, phase_flipped=flipped)
    density = jnp.asarray(np.pad(shell, margin), dtype)
    tomogram = take_tomogram(jax.random.key(0), density, 14.0, microscope, shape)
    assert tomogram.dtype == dtype
    row = np.asarray(tomogram)[11:13, 9:11].mean((0, 1))
    assert row[6:8].max() < row.mean() - 0.5 * row.std()
    assert np.allclose(row, row[::-1], atol=0.05 * row.std())


def test_microscopes_know_their_tilts():
    assert np.allclose(Microscope(tilt_low=-48.0, tilt_high=66.0, step=2.0).angles[[0, -1]], [-48.0, 66.0])
    assert len(Microscope(step=2.0).angles) == 61
