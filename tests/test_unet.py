import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmem.simulate import SliceModel
from jaxmem.types import JaxmemError, Outcome
from jaxmem.unet import (
    Predictor,
    TrainConfig,
    UNet,
    UNetConfig,
    dice_per_class,
    evaluate,
    fit,
    init,
    load_weights,
    network_of,
    probabilities,
    save_weights,
    segmentation_loss,
    train,
)
from jaxmem.unet.layers import conv3x3, max_pool2, stem3x3, upsample2
from jaxmem.unet.predict import _starts, logits_in_blocks, program
from jaxmem.unet.train import score, simulate_set

SMALL = UNetConfig(depth=2, width=4)


def textbook_conv(x, w):
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def agree(function, reference, *arguments, atol=1e-4):
    out, back = jax.vjp(function, *arguments)
    want, want_back = jax.vjp(reference, *arguments)
    g = jax.random.normal(jax.random.key(9), out.shape)
    assert np.allclose(out, want, atol=atol)
    for got, expected in zip(back(g), want_back(g)):
        assert np.allclose(got, expected, atol=atol)


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 6), (6, 4), (5, 5)])
def test_convolution_equals_the_textbook(inputs, outputs):
    k = jax.random.split(jax.random.key(0))
    agree(
        conv3x3,
        textbook_conv,
        jax.random.normal(k[0], (2, 8, 6, inputs)),
        jax.random.normal(k[1], (3, 3, inputs, outputs)),
    )


def test_stem_equals_the_textbook():
    k = jax.random.split(jax.random.key(1))
    x, w = jax.random.normal(k[0], (2, 8, 6)), jax.random.normal(k[1], (3, 3, 1, 5))
    agree(stem3x3, lambda x, w: textbook_conv(x[..., None], w), x, w)


def test_pooling_equals_the_textbook():
    def reference(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    agree(max_pool2, reference, jax.random.normal(jax.random.key(2), (2, 6, 8, 3)))
    with pytest.raises(ValueError, match="even"):
        max_pool2(jnp.zeros((1, 3, 4, 1)))


def test_pooling_gradient_of_equal_values_goes_to_one():
    slope = jax.grad(lambda x: max_pool2(x).sum())(jnp.ones((1, 4, 4, 2)))
    assert float(slope.sum()) == 8.0


def test_upsampling_equals_the_textbook():
    k = jax.random.split(jax.random.key(3))
    x, w = jax.random.normal(k[0], (2, 3, 4, 5)), jax.random.normal(k[1], (5, 4 * 6))

    def reference(x, w):
        kernel = w.reshape(5, 2, 2, 6).transpose(1, 2, 0, 3)[::-1, ::-1]
        return jax.lax.conv_transpose(x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    agree(upsample2, reference, x, w)


def test_loss_is_small_only_for_the_truth():
    labels = jax.random.randint(jax.random.key(4), (2, 8, 8), 0, 3)
    right = 20.0 * jax.nn.one_hot(labels, 3)
    assert float(segmentation_loss(right, labels)) < 1e-3
    assert float(segmentation_loss(jnp.zeros_like(right), labels)) > 1.0
    assert np.allclose(dice_per_class(jax.nn.one_hot(labels.ravel(), 3), labels.ravel()), 1.0)


def test_the_loss_under_a_mask_is_that_of_what_it_leaves():
    keys = jax.random.split(jax.random.key(4))
    labels, logits = jax.random.randint(keys[0], (2, 8, 8), 0, 3), jax.random.normal(keys[1], (2, 8, 8, 3))
    mask = jnp.ones((2, 8, 8), bool).at[0].set(False).at[1, 5:].set(False)
    want, want_slope = jax.value_and_grad(segmentation_loss)(logits[1:, :5], labels[1:, :5])
    spoilt = jnp.where(mask[..., None], logits, jnp.nan)
    value, slope = jax.value_and_grad(segmentation_loss)(spoilt, jnp.where(mask, labels, -7), mask)
    assert np.allclose(value, want, rtol=1e-6)
    assert np.allclose(slope[1, :5], want_slope[0], atol=1e-7)
    assert not slope[~np.asarray(mask)].any()
    everything = segmentation_loss(logits, labels, jnp.ones(labels.shape, bool))
    assert np.allclose(everything, segmentation_loss(logits, labels), rtol=1e-6)
    value, slope = jax.value_and_grad(segmentation_loss)(spoilt, labels, mask & False)
    assert float(value) == 0.0
    assert not slope.any()
    flat = jax.nn.softmax(logits).reshape(-1, 3)
    dice = dice_per_class(flat[: 8 * 8], labels.ravel()[: 8 * 8])
    assert np.allclose(dice_per_class(flat, labels.ravel(), jnp.arange(128) < 64), dice, rtol=1e-6)


def test_one_image_is_a_row_of_a_batch():
    params = init(jax.random.key(0), SMALL)
    images = jax.random.normal(jax.random.key(1), (3, 8, 12))
    batch = params.model(images)
    one_by_one = jnp.stack([evaluate(params, image) for image in images])
    assert np.allclose(jax.vmap(evaluate, (None, 0))(params, images), one_by_one, atol=1e-6)
    assert np.allclose(one_by_one, batch, atol=1e-6)
    assert np.allclose(probabilities(params, images[0]), jax.nn.softmax(batch[0]), atol=1e-6)
    many = jax.vmap(init, (0, None))(jax.random.split(jax.random.key(2), 2), SMALL)  # networks too
    assert jax.vmap(evaluate, (0, None))(many, images[0]).shape == (2, 8, 12, 3)
    size = evaluate._cache_size()
    evaluate(init(jax.random.key(5), SMALL), images[0])  # another network of the same architecture
    assert evaluate._cache_size() == size
    with pytest.raises(ValueError, match="multiples of 2"):
        evaluate(params, jnp.zeros((7, 8)))


def test_gradients_equal_finite_differences():
    with jax.enable_x64(True):
        params, x = init(jax.random.key(0), SMALL), jax.random.normal(jax.random.key(1), (6, 8))
        weight = jax.random.normal(jax.random.key(2), (6, 8, 3))

        def value(params, x):
            return jnp.sum(weight * probabilities(params, x))

        assert evaluate(params, x).dtype == jnp.float64
        assert evaluate(params, x.astype(jnp.float32)).dtype == jnp.float32
        slopes = jax.grad(value, (0, 1))(params, x)
        for row, column in ((0, 0), (2, 3), (5, 7)):
            step = jnp.zeros_like(x).at[row, column].set(1e-6)
            difference = (value(params, x + step) - value(params, x - step)) / 2e-6
            assert float(slopes[1][row, column]) == pytest.approx(float(difference), rel=1e-5, abs=1e-9)
        along = jax.tree.map(lambda leaf: 1e-6 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), params)
        plus, minus = (jax.tree.map(lambda a, b, s=s: a + s * b, params, along) for s in (1.0, -1.0))
        slope = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(slopes[0]), jax.tree.leaves(along)))
        assert float(2 * slope) == pytest.approx(float(value(plus, x) - value(minus, x)), rel=1e-5)


@pytest.fixture(scope="module")
def marked():
    """Images, and labels that say where they are above zero."""
    images = jax.random.normal(jax.random.key(0), (3, 8, 12))
    return images, (images > 0).astype(jnp.int32)


def test_fitting_lowers_the_loss_and_goes_on_from_where_it_was(marked):
    images, labels = marked
    found = fit(jax.random.key(1), images, labels, config=SMALL, steps=40)
    assert bool(found.success)
    assert found.outcome.dtype == jnp.int32
    assert found.info.losses.shape == (40,)
    assert float(found.info.losses[-1]) < 0.8 * float(found.info.losses[0])
    right = jnp.argmax(jax.vmap(evaluate, (None, 0))(found.params, images), -1) == labels
    assert float(right.mean()) > 0.7
    size = fit._cache_size()
    other = fit(jax.random.key(2), images[::-1], labels[::-1], config=SMALL, steps=40)
    assert fit._cache_size() == size  # nothing was traced again
    assert not np.array_equal(other.info.losses, found.info.losses)
    further = fit(jax.random.key(3), images, labels, init=found.params, steps=10)
    assert float(further.info.losses.max()) < 0.9 * float(found.info.losses[0])


def test_what_the_mask_hides_from_a_fit_does_not_matter(marked):
    images, labels = marked
    mask = jnp.ones(images.shape, bool).at[0, :4].set(False).at[2, :, 5:].set(False)
    start = init(jax.random.key(4), SMALL)

    def last(images, rate, labels=labels):
        return fit(
            jax.random.key(5), images, labels, mask, init=start, steps=4, batch=2, learning_rate=rate
        ).info.losses[-1]

    value, slopes = jax.value_and_grad(last, (0, 1))(images, jnp.float32(2e-3))
    spoilt = jnp.where(mask, images, jnp.nan)
    again, spoilt_slopes = jax.value_and_grad(last, (0, 1))(spoilt, jnp.float32(2e-3), jnp.where(mask, labels, -7))
    assert np.array_equal(value, again)
    assert all(np.array_equal(a, b) and np.isfinite(a).all() for a, b in zip(slopes, spoilt_slopes))
    assert slopes[0].any()
    assert not slopes[0][~np.asarray(mask)].any()


def test_fits_that_fail_say_why_and_leave_the_network_as_it_was(marked):
    images, labels = marked
    start = init(jax.random.key(4), SMALL)
    mask = jnp.ones(images.shape, bool)
    for outcome, x, m in (
        (Outcome.EMPTY, images, mask & False),
        (Outcome.NOT_FINITE, images.at[1, 2, 3].set(jnp.nan), mask),
        (Outcome.NOT_FINITE, images.at[1, 2, 3].set(jnp.inf), None),
    ):
        found = fit(jax.random.key(5), x, labels, m, init=start, steps=4, batch=2)
        assert int(found.outcome) == outcome
        assert not bool(found.success)
        assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(start)))
    with pytest.raises(ValueError, match="got both"):
        fit(jax.random.key(5), images, labels, init=start, config=SMALL)
    with pytest.raises(ValueError, match="expected an image"):
        fit(jax.random.key(5), images, labels, init=start, steps=0)


def test_looking_needs_neither_training_nor_its_libraries():
    """`flax.nnx` imports optax by itself; no module of `jaxmem.unet` does."""
    code = """
import builtins, sys
real, asked = builtins.__import__, set()

def spy(name, globals=None, *rest):
    if name.partition(".")[0] in ("optax", "matplotlib"):
        asked.add((globals or {}).get("__name__", ""))
    return real(name, globals, *rest)

builtins.__import__ = spy
from jaxmem.unet import Predictor, load_weights
print(sorted(name for name in asked if name.startswith("jaxmem.unet")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def compilations():
    """Names of what was compiled since the test began."""
    seen = []

    def listen(event, duration, **_):
        if "backend_compile" in event:
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def test_a_second_predictor_compiles_nothing(tmp_path, compilations):
    save_weights(tmp_path / "w.safetensors", UNet(SMALL, nnx.Rngs(3)), 14.0)
    image = np.asarray(jax.random.normal(jax.random.key(5), (24, 28)))

    def look():
        predict = Predictor(load_weights(tmp_path / "w.safetensors")[0], tile=32, overlap=8, symmetries=2, batch=1)
        return next(iter(predict([image])))

    first, size = look(), program()._cache_size()
    assert compilations
    compilations.clear()
    assert np.array_equal(look(), first)
    assert program()._cache_size() == size
    assert not compilations


@pytest.mark.parametrize("shape", [(50, 70), (96, 40), (24, 24)])
def test_tiles_leave_no_seams(shape):
    model = UNet(SMALL, nnx.Rngs(0))
    image = np.asarray(jax.random.normal(jax.random.key(5), shape))
    whole = np.stack(list(Predictor(model, tile=128, overlap=16, symmetries=1, batch=1)([image])))[0]
    tiled = np.stack(list(Predictor(model, tile=48, overlap=24, symmetries=1, batch=3)([image])))[0]
    assert tiled.shape == (*shape, 3)
    assert np.allclose(tiled.sum(-1), 1.0, atol=1e-5)
    # a pixel reaches about 10 pixels at this depth: where a tile's border is felt its weight is small
    assert np.abs(whole - tiled).max() < 0.02


def test_blank_tiles_are_background_and_not_looked_at(monkeypatch):
    model = UNet(SMALL, nnx.Rngs(0))
    image = np.zeros((24, 96), np.float32)
    image[:, 80:] = np.random.default_rng(0).normal(size=(24, 16))
    predict = Predictor(model, tile=48, overlap=16, symmetries=1, batch=1)
    looks, run = [], predict._run
    monkeypatch.setattr(predict, "_run", lambda tiles: looks.append(len(tiles)) or run(tiles))
    found = next(iter(predict([image])))
    assert len(looks) == 1
    assert (found[:, :40].argmax(-1) == 0).all()
    assert np.allclose(found[:, :40, 0], 1.0)
    assert not np.allclose(found[:, 80:, 0], 1.0)
    blank = next(iter(predict([np.full((24, 96), 3.0, np.float32)])))
    assert len(looks) == 1
    assert (blank[..., 0] == 1.0).all()


@pytest.mark.parametrize(("length", "count", "side"), [(448, 1, 448), (928, 2, 496), (513, 2, 290), (2048, 5, 462)])
def test_tiles_are_no_larger_than_need_be(length, count, side):
    predict = Predictor(UNet(SMALL, nnx.Rngs(0)))
    assert predict._side(length) == side
    assert len(_starts(length, side, predict.overlap)) == count


@pytest.mark.parametrize("count", [3, 4])
def test_blocks_equal_the_whole_batch(count):
    model = UNet(SMALL, nnx.Rngs(0))
    images = jax.random.normal(jax.random.key(6), (count, 16, 24))
    assert np.allclose(logits_in_blocks(model, images), model(images), atol=1e-5)


def test_symmetries_are_undone():
    model = UNet(SMALL, nnx.Rngs(1))
    image = np.asarray(jax.random.normal(jax.random.key(6), (32, 32)))
    predict = Predictor(model, tile=32, overlap=8, symmetries=8, batch=1)
    straight, turned = (next(iter(predict([a]))) for a in (image, image[::-1].T))
    assert np.allclose(straight[::-1].swapaxes(0, 1), turned, atol=1e-5)
    with pytest.raises(ValueError, match="symmetries"):
        Predictor(model, symmetries=3)


def test_odd_sides_are_refused():
    with pytest.raises(ValueError, match="multiples of 2"):
        UNet(SMALL, nnx.Rngs(0))(jnp.zeros((1, 7, 8)))


class Killed(Exception):
    pass


def test_training_learns_and_resumes_after_a_kill(tmp_path):
    config = TrainConfig(
        network=SMALL, slices=SliceModel(size=32), images=16, test_images=4, validation_images=2, epochs=3, batch=4
    )

    def kill(line):
        if line.startswith("epoch 3"):
            raise Killed

    straight = train(config, tmp_path / "straight", lambda _: None)
    with pytest.raises(Killed):
        train(config, tmp_path / "killed", kill)
    lines = []
    resumed = train(config, tmp_path / "killed", lines.append)
    assert any("resuming after step 8" in line for line in lines)
    for a, b in zip(jax.tree.leaves(nnx.state(straight)), jax.tree.leaves(nnx.state(resumed))):
        assert np.allclose(a, b, atol=1e-6)
    rows = (tmp_path / "killed" / "loss.csv").read_text().splitlines()
    assert [r.split(",")[0] for r in rows] == ["epoch", "1", "2", "3"]
    assert float(rows[3].split(",")[1]) < float(rows[1].split(",")[1])
    card = json.loads((tmp_path / "straight" / "card.json").read_text())
    assert 0 <= card["held_out"]["dice_membrane"] <= 1
    other = TrainConfig(network=SMALL, slices=SliceModel(size=32), images=16, epochs=4, batch=4)
    with pytest.raises(JaxmemError, match="another configuration"):
        train(other, tmp_path / "killed", lambda _: None)


def test_weights_round_trip_and_bad_ones(tmp_path):
    model = UNet(SMALL, nnx.Rngs(2))
    save_weights(tmp_path / "w.safetensors", model, 12.0)
    again, pixel_size, digest = load_weights(tmp_path / "w.safetensors")
    assert pixel_size == 12.0
    assert len(digest) == 64
    x = jnp.ones((1, 8, 8))
    assert np.array_equal(model(x), again(x))
    text = tmp_path / "text.safetensors"
    text.write_text("not weights")
    with pytest.raises(JaxmemError, match="cannot be read as weights"):
        load_weights(text)
    with pytest.raises(JaxmemError, match="cannot be read as weights"):
        load_weights(tmp_path / "missing.safetensors")


def test_weights_of_another_architecture(tmp_path):
    from safetensors.numpy import save_file

    header = {"config": json.dumps({"depth": 3, "width": 4, "classes": 3}), "pixel_size": "14.0"}
    save_file({"a": np.zeros(3)}, tmp_path / "w.safetensors", metadata=header)
    with pytest.raises(JaxmemError, match="another architecture"):
        load_weights(tmp_path / "w.safetensors")
    save_file({"a": np.zeros(3)}, tmp_path / "v.safetensors")
    with pytest.raises(JaxmemError, match="another architecture"):
        load_weights(tmp_path / "v.safetensors")


def test_shipped_weights_on_slices_never_seen():
    model, pixel_size, _ = load_weights(flat=True)
    assert pixel_size == 14.0
    held_out = simulate_set(jax.random.key(123), SliceModel(size=192), 8, lambda _: None)
    scores = score(network_of(model), held_out, 4)
    assert scores["accuracy"] > 0.97
    assert scores["dice_membrane"] > 0.7
