import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmem.simulate import SliceModel
from jaxmem.types import JaxmemError
from jaxmem.unet import Predictor, TrainConfig, UNet, UNetConfig, load_weights, save_weights, train
from jaxmem.unet.layers import conv3x3, max_pool2, stem3x3, upsample2
from jaxmem.unet.model import dice_per_class, segmentation_loss
from jaxmem.unet.predict import logits_in_blocks
from jaxmem.unet.train import evaluate, simulate_set

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
    model, pixel_size, _ = load_weights()
    assert pixel_size == 14.0
    held_out = simulate_set(jax.random.key(123), SliceModel(size=192), 8, lambda _: None)
    graph, params = nnx.split(model, nnx.Param)
    scores = evaluate(graph, params, held_out, 4)
    assert scores["accuracy"] > 0.97
    assert scores["dice_membrane"] > 0.7
