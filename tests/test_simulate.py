from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from jaxmem.simulate import (
    NoiseSpectrum,
    SliceModel,
    VolumeModel,
    coloured_noise,
    measure_noise,
    simulate_tomogram,
    training_slice,
)

MODEL = SliceModel(size=96)


@pytest.fixture(scope="module")
def slices():
    draw = jax.jit(jax.vmap(lambda key: training_slice(key, MODEL)))
    return draw(jax.random.split(jax.random.key(0), 12))


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
    one, two = (jax.jit(lambda k: training_slice(k, MODEL))(jax.random.key(3)) for _ in range(2))
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1], two[1])


def test_gaps_leave_less_membrane():
    def share(gap):
        model = replace(MODEL, gap_fraction=gap, tilt_range=(89.0, 89.5))
        keys = jax.random.split(jax.random.key(1), 12)
        return float((jax.jit(jax.vmap(lambda k: training_slice(k, model)[1]))(keys) == 2).mean())

    assert share(1.0) < 0.9 * share(0.0)


def test_noise_follows_a_measured_spectrum():
    frequency = jnp.linspace(0, 0.5, 40)
    spectrum = NoiseSpectrum(frequency, jnp.exp(-(((frequency - 0.2) / 0.05) ** 2)))
    keys = jax.random.split(jax.random.key(2), 16)
    noise = jax.vmap(lambda k: coloured_noise(k, 96, spectrum))(keys)
    measured = measure_noise(noise)
    peak = float(measured.frequency[jnp.argmax(measured.radial)])
    assert abs(peak - 0.2) < 0.02
    assert abs(float(noise.std()) - 1.0) < 0.02
    with pytest.raises((ValueError, TypeCheckError)):
        measure_noise(noise[0])


def test_tomogram_and_truth_agree():
    model = VolumeModel(shape=(40, 64, 64), radius_voxels=(10.0, 16.0), candidates=4, truth_points=500)
    sim = simulate_tomogram(jax.random.key(5), model)
    data, labels = np.asarray(sim.data), np.asarray(sim.labels)
    assert sim.present.any()
    for number in np.flatnonzero(sim.present):
        where = np.round(np.asarray(sim.points[number])).astype(int)
        inside = ((where >= 0) & (where < labels.shape)).all(1)
        assert (labels[tuple(where[inside].T)] == number + 1).mean() > 0.98
        assert np.allclose(np.linalg.norm(sim.normals[number], axis=1), 1.0, atol=1e-3)
    # the wedge: no power along the beam
    power = np.abs(np.fft.fftn(data)) ** 2
    assert power[10:30, 0, 0].mean() < 0.05 * power[0, 0, 4:12].mean()
    assert data[labels > 0].mean() < data[labels == 0].mean()
