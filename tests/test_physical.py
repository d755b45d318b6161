"""Tomograms simulated by physics: scenes whose truth is right, flavours, and networks that see depth and learn from them."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from skimage.transform import radon

from jaxmem import JaxmemError, Tomogram
from jaxmem.pipeline.slices import Odd, prepared_stacks
from jaxmem.preprocess import normalised_stack
from jaxmem.settings import Config, PreprocessConfig
from jaxmem.simulate import FlavourModel, OpticsModel, PhysicalModel, SceneModel, flavoured, physical_tomogram, project
from jaxmem.simulate.physics.particles import ParticleModel
from jaxmem.simulate.physics.shapes import no_shape, signed_distance_to
from jaxmem.simulate.physics.tomogram import is_visible
from jaxmem.types import MEMBRANE, PROTEIN
from jaxmem.unet import UNetConfig, evaluate, init, interpolation, load_weights
from jaxmem.unet.depth import IGNORED, DepthTraining, Volumes, draw_batch, shown, simulate_volumes, train_on_tomograms
from jaxmem.unet.functional import averaged, widened
from jaxmem.unet.stacks import resampling

SMALL = PhysicalModel(
    SceneModel(
        (24, 64, 64), (0, 4, 24), compact=40, box=64, cut=1.0, membranes=1.0,
        particles=ParticleModel(ribosomes=30, small=30, studs=60, gold=0.0, film=0.0),
    ),
    OpticsModel(views=21),
)  # fmt: skip


@pytest.fixture(scope="module")
def tomogram():
    return jax.tree.map(np.asarray, physical_tomogram(jax.random.key(3), SMALL))


def grid(*shape):
    return jnp.stack(jnp.meshgrid(*(jnp.arange(n, dtype=float) for n in shape), indexing="ij"))


def test_membranes_keep_apart_and_their_truth_is_on_them(tomogram):
    numbers = np.unique(tomogram.instances)[1:]
    assert len(numbers) >= 2
    half = 0.5 * SMALL.scene.thickness / SMALL.scene.voxel_size
    assert (np.abs(tomogram.distance[tomogram.instances > 0]) <= half + 1e-4).all()
    assert ((tomogram.semantic == MEMBRANE) == (tomogram.instances > 0)).all()
    assert (tomogram.semantic == PROTEIN).any()
    on = np.where(np.abs(tomogram.distance) < 0.75, tomogram.instances, 0)  # thin, so that gaps of 3.6 voxels stay
    for number in numbers:
        reach = ndimage.distance_transform_edt(~((on > 0) & (on != number)))[on == number]
        assert reach.min() > 1.5
    length = np.linalg.norm(tomogram.normal, axis=0)[tomogram.instances > 0]
    assert np.median(length) > 0.5
    assert length.max() < 1.01


def test_membranes_that_show_are_dark_and_noise_is_like_nothing(tomogram):
    seen = (tomogram.instances > 0) & tomogram.visible
    assert tomogram.signal[seen].mean() < -0.5
    assert abs(np.corrcoef(tomogram.signal.ravel(), tomogram.noise.ravel())[0, 1]) < 0.05
    assert tomogram.signal.std() == pytest.approx(1.0, abs=1e-3)
    again = physical_tomogram(jax.random.key(3), SMALL)
    assert np.array_equal(again.signal, tomogram.signal)


def test_distances_from_a_sphere_a_tube_and_a_sac():
    middle = jnp.array([12.0, 16.0, 16.0])
    shape = no_shape()._replace(centre=middle, radius=jnp.array(8.0))
    space = grid(24, 32, 32)
    offset = np.asarray(space) - np.asarray(middle)[:, None, None, None]
    distance, normal = signed_distance_to(shape, space)
    exact = np.linalg.norm(offset, axis=0) - 8.0
    near = np.abs(exact) < 2.0
    assert np.abs(np.asarray(distance) - exact)[near].max() < 0.15
    outward = (np.asarray(normal) * offset).sum(0) / np.linalg.norm(offset, axis=0).clip(1e-6)
    assert outward[near].min() > 0.95
    tube = shape._replace(core=jnp.array([9.0, 0.0]), radius=jnp.array(4.0))  # along the frame's first axis, z
    exact = np.sqrt(np.maximum(np.abs(offset[0]) - 9.0, 0.0) ** 2 + offset[1] ** 2 + offset[2] ** 2) - 4.0
    near = (np.abs(exact) < 1.5) & (np.abs(offset[0]) < 11.0)
    assert np.abs(np.asarray(signed_distance_to(tube, space)[0]) - exact)[near].max() < 0.4
    sac = shape._replace(core=jnp.array([9.0, 9.0]), radius=jnp.array(3.0), disc=jnp.array(True))
    flat = np.hypot(offset[0], offset[1])
    exact = np.hypot(np.maximum(flat - 9.0, 0.0), offset[2]) - 3.0
    near = np.abs(exact) < 1.5
    assert np.abs(np.asarray(signed_distance_to(sac, space)[0]) - exact)[near].max() < 0.4


@pytest.mark.parametrize(
    ("normal", "seen"), [((0, 0, 1), True), ((1, 0, 0), False), ((0.7, 0, 0.7), True), ((0.7, 0.7, 0), False)]
)
def test_what_the_wedge_hides(normal, seen):
    normals = jnp.broadcast_to(jnp.array(normal, float)[:, None, None, None], (3, 1, 1, 1))
    assert bool(is_visible(normals, jnp.array(-60.0), jnp.array(60.0))[0, 0, 0]) == seen


def test_the_projector_agrees_with_radon():
    size = 41
    z, _, x = np.indices((size, 1, size)) - (size - 1) / 2
    disc = np.exp(-0.5 * ((np.hypot(z - 4, x + 6) - 5.0) / 1.2) ** 2)
    disc = np.where(disc > 1e-6, disc, 0.0)
    angles = np.array([-50.0, -20.0, 0.0, 33.0, 45.0])
    ours = np.asarray(project(jnp.asarray(disc, jnp.float32), jnp.asarray(angles, jnp.float32)))[:, 0]
    theirs = radon(disc[:, 0], theta=-angles, circle=True, preserve_range=True)
    assert np.abs(ours - theirs.T).max() < 0.03 * theirs.max()


def test_a_projections_spectrum_is_a_slice_of_the_densitys():
    size = 48
    z, x = np.indices((size, size)) - (size - 1) / 2
    density = np.exp(-0.5 * (((z - 3) / 3.0) ** 2 + ((x + 4) / 5.0) ** 2))
    angle = 30.0
    image = np.asarray(project(jnp.asarray(density[:, None], jnp.float32), jnp.array([angle])))[0, 0]
    frequency = np.arange(1, 6) / size
    way = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    wave = [np.exp(-2j * np.pi * f * (x * way[0] + z * way[1])) for f in frequency]
    expected = [(density * w).sum() for w in wave]
    found = [(image * np.exp(-2j * np.pi * f * (np.arange(size) - (size - 1) / 2))).sum() for f in frequency]
    assert np.abs(np.array(found) - expected).max() < 0.02 * np.abs(density.sum())


def test_flavours_differ_and_are_normalised(tomogram):
    stacks = [np.moveaxis(a[10:13], 0, -1) for a in (tomogram.signal, tomogram.noise)]
    one, other = (flavoured(jax.random.key(k), *map(jnp.asarray, stacks), FlavourModel()) for k in (0, 1))
    assert np.isfinite(one).all()
    assert not np.allclose(one, other)
    for image in (one, other):
        assert abs(float(jnp.median(image[..., 1]))) < 1e-3
        assert float(jnp.abs(image).max()) <= 6.0
    clear = flavoured(jax.random.key(0), *map(jnp.asarray, stacks), FlavourModel(snr=(100.0, 100.1), denoised=0.0))
    faint = flavoured(jax.random.key(0), *map(jnp.asarray, stacks), FlavourModel(snr=(0.01, 0.0101), denoised=0.0))
    truth = tomogram.signal[11].ravel()
    like = [np.corrcoef(np.asarray(image[..., 1]).ravel(), truth)[0, 1] for image in (clear, faint)]
    assert like[0] > 0.6 > 0.4 > like[1]


def test_stacks_are_normalised_by_their_middle():
    stack = (
        jnp.asarray(np.random.default_rng(0).normal(3.0, 2.0, (16, 16, 3)), jnp.float32)
        * jnp.array([1.0, 1.0, 4.0])[None, None]
    )
    out = normalised_stack(stack)
    assert abs(float(jnp.median(out[..., 1]))) < 1e-5
    assert float(out[..., 2].std()) > 2.0 * float(out[..., 1].std())


def test_places_between_slices():
    number, weights = interpolation(np.array([7.75, 8.0, 8.25]), 9)
    assert number.tolist() == [7, 8, 7]  # mirrored at the last
    assert np.allclose(weights, [[0.25, 0.75, 0.0], [0.0, 1.0, 0.0], [0.0, 0.75, 0.25]])
    number, weights = interpolation(np.zeros(3), 1)
    assert number.tolist() == [0]
    assert np.allclose(weights, 1.0)


def test_stacks_of_a_volume_are_its_slices_one_pixel_apart():
    data = np.random.default_rng(0).normal(size=(9, 16, 16)).astype(np.float32)
    made = list(prepared_stacks(data, 14.0, 14.0, PreprocessConfig(), Odd(set(), set(), set()), 3))
    assert len(made) == 9
    assert made[0].shape == (16, 16, 3)
    expected = normalised_stack(jnp.asarray(np.moveaxis(data[3:6], 0, -1)))
    assert np.allclose(made[4], expected, atol=1e-5)
    assert np.allclose(made[0][..., 0], made[0][..., 2], atol=1e-5)
    fine = list(
        prepared_stacks(data, 7.0, 14.0, PreprocessConfig(rescale_above=9.0), Odd(set(), set(), set()), 3, 4, 5)
    )
    expected = normalised_stack(jnp.asarray(np.moveaxis(data[[2, 4, 6]], 0, -1)))
    assert np.allclose(fine[0], expected, atol=1e-5)


def test_a_network_that_sees_more_begins_where_the_other_is():
    few = init(jax.random.key(0), UNetConfig(depth=2, width=4))
    many = widened(few, UNetConfig(depth=2, width=4, slices=3))
    image = jax.random.normal(jax.random.key(1), (8, 8, 3))
    assert np.allclose(evaluate(many, image), evaluate(few, image[..., 1]), atol=1e-5)
    assert np.allclose(evaluate(many, image[..., 1]), evaluate(few, image[..., 1]), atol=1e-5)
    half = averaged(many, jax.tree.map(jnp.zeros_like, many), 0.25)
    assert all(np.allclose(a, 0.75 * b) for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(many)))
    with pytest.raises(ValueError, match="widened"):
        widened(few, UNetConfig(depth=2, width=8, slices=3))
    with pytest.raises(ValueError, match="stacks"):
        evaluate(many, image[..., :2])


def test_training_on_tomograms_learns_goes_on_and_is_used(tmp_path):
    config = DepthTraining(
        network=UNetConfig(depth=2, width=4, slices=3), physics=SMALL, tomograms=2, held_out=1, plain=10, side=48, start="none",
        steps=60, every=20, learning_rate=1e-2, batch=2,
    )  # fmt: skip
    said: list[str] = []
    train_on_tomograms(config, tmp_path, said.append)
    rows = (tmp_path / "loss.csv").read_text().splitlines()
    assert len(rows) == 4
    losses = [float(row.split(",")[2]) for row in rows[1:]]
    assert losses[-1] < losses[0]
    model, pixel, _ = load_weights(tmp_path / "unet.safetensors")
    assert (model.config.slices, pixel) == (3, 14.0)
    assert json.loads((tmp_path / "card.json").read_text())["steps"] == 60
    train_on_tomograms(config, tmp_path, said.append)
    assert any("resuming after step 60" in line for line in said)
    with pytest.raises(JaxmemError, match="another configuration"):
        train_on_tomograms(replace(config, batch=3), tmp_path, said.append)
    from jaxmem.pipeline.keeping.record import Run
    from jaxmem.pipeline.network import predict

    noise = np.random.default_rng(0).normal(size=(8, 40, 40)).astype(np.float32)
    settings = replace(Config(), network=replace(Config().network, weights=str(tmp_path / "unet.safetensors")))
    found = predict(Tomogram(noise, 14.0), settings, Run(None))
    assert found.sharp is None
    assert found.probability.shape == noise.shape


def test_larger_voxels_are_averages_seen_finer():
    """A wave that such voxels cannot hold is gone, one that they can is there, and the slice that is spoken of is in the middle."""
    x = np.arange(96.0)
    matrix = resampling(x, 96, 3.0, 1.3, averaged=True)
    assert np.allclose(matrix.sum(1), 1.0)
    slow, fast = np.sin(2 * np.pi * x / 32.0), np.sin(2 * np.pi * x / 3.0)
    assert np.corrcoef(matrix @ slow, slow)[0, 1] > 0.99
    assert np.abs(matrix @ fast).max() < 0.2
    middle = resampling(np.array([10.0]), 40, 2.5, 10.0, averaged=True)[0]
    assert middle @ np.arange(40.0) == pytest.approx(10.0)
    one = Volumes(*(np.random.default_rng(k).integers(-99, 99, (24, 64, 64)).astype(np.int8) for k in (0, 1)), 1.0, np.zeros((24, 64, 64), np.int8))  # fmt: skip
    config = DepthTraining(network=UNetConfig(slices=3), side=48, plain_share=0.0, batch=3)
    fine, coarse = (draw_batch(np.random.default_rng(0), replace(config, coarse=c), [one], None) for c in (0.0, 1.0))
    assert coarse.signal.shape == (3, 48, 48, 3)
    assert np.abs(np.diff(coarse.signal, axis=1)).mean() < 0.5 * np.abs(np.diff(fine.signal, axis=1)).mean()


def test_hidden_membranes_do_not_count(tmp_path):
    (one,) = simulate_volumes(0, SMALL, 1, tmp_path, lambda _: None)
    assert set(np.unique(one.labels)) <= {0, PROTEIN, MEMBRANE, IGNORED}
    assert (one.labels == IGNORED).any()
    config = DepthTraining(network=UNetConfig(slices=3), side=48, plain_share=0.0)
    batch = draw_batch(np.random.default_rng(0), config, [one], None)
    x, y = jax.jit(jax.vmap(lambda k, *b: shown(k, FlavourModel(), *b)))(
        jax.random.split(jax.random.key(0), config.batch), *batch
    )
    assert x.shape == (4, 48, 48, 3)
    assert y.shape == (4, 48, 48)
    assert np.isfinite(x).all()
