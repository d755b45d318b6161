from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import label

from jaxmem.simulate import ContourModel, draw_contours, rasterise

MODEL = ContourModel(size=160, wobble=0.0)
_DRAW = jax.jit(draw_contours)  # one program for all ranges


@pytest.fixture(autouse=True, scope="module")
def strict():
    """No silent promotion of dtypes or ranks, and no key used twice."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"), jax.debug_key_reuse(True):
        yield


def _draw(model, count):
    slices = [_DRAW(key, model) for key in jax.random.split(jax.random.key(0), count)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *slices)


def _one(slices, k):
    return jax.tree.map(lambda leaf: leaf[k], slices)


@pytest.fixture(scope="module")
def slices():
    return _draw(MODEL, 24)


def test_pieces_and_gaps_have_the_share_that_was_drawn(slices):
    shares = slices.visible.sum(-1) / np.maximum(slices.within.sum(-1), 1)
    wanted = np.broadcast_to(1 - slices.gap_fraction[:, None], shares.shape)
    ends = 13 / np.maximum(slices.within.sum(-1), 1)  # of the pieces, each to a point
    assert (np.abs(shares - wanted) <= ends)[slices.present].all()
    assert slices.gap_fraction.min() < 0.1
    assert slices.gap_fraction.max() > 0.5
    assert not slices.visible[~slices.present].any()
    starts = (slices.visible & ~np.roll(slices.visible, 1, -1)).sum(-1)[slices.present]
    assert starts.min() >= 1
    assert starts.max() <= 13
    assert len(np.unique(starts)) > 8


def test_points_are_dense_and_open_membranes_are_one_run(slices):
    step = np.linalg.norm(np.diff(slices.points, axis=2), axis=-1)[slices.present]
    assert step.max() < 0.75
    assert np.ptp(step, axis=1).max() < 0.05
    borders = (slices.within != np.roll(slices.within, 1, -1)).sum(-1)
    assert set(borders[slices.present & ~slices.closed]) == {2}
    assert (slices.closed & slices.present).any()
    closing = np.linalg.norm(slices.points[:, :, 0] - slices.points[:, :, -1], axis=-1)
    assert closing[slices.closed].max() < 0.75


def test_membranes_keep_apart_unless_they_are_to_touch():
    apart = _draw(replace(MODEL, touching_fraction=0.0, parallel_fraction=0.0, gap_fraction=(0.0, 0.0)), 6)
    together = _draw(replace(MODEL, touching_fraction=0.6, parallel_fraction=0.0, gap_fraction=(0.0, 0.0)), 6)

    def closest(slices):
        return np.array(
            [
                np.linalg.norm(a[:, None] - b, axis=-1).min()
                for points, within, present in zip(slices.points, slices.within, slices.present)
                for k, a in enumerate(p[w] for p, w, there in zip(points, within, present) if there)
                for b in [p[w] for p, w, there in zip(points, within, present) if there][:k]
            ]
        )

    assert closest(apart).min() > 2.0  # 2.7 between one point in eight
    assert (closest(together) < 3.0).sum() > 10


@pytest.mark.parametrize("thickness", [1, 5])
def test_every_pixel_lies_on_its_membrane(slices, thickness):
    for k in range(4):
        one = _one(slices, k)
        image = np.asarray(rasterise(one, MODEL, thickness))
        assert set(np.unique(image[image > 0])) == set(1 + np.flatnonzero(one.visible.any(-1)))
        for value in np.unique(image[image != 0]):
            row = value - 1 if value > 0 else -1 - value
            points, shown = (one.points, one.visible) if value > 0 else (one.strays, one.stray_visible)
            away = np.linalg.norm(np.argwhere(image == value)[:, None] - points[row][shown[row]], axis=-1).min(1)
            assert away.max() <= 0.5 * thickness + 0.75
    alone = replace(MODEL, membranes=(1, 1), radius=(15.0, 30.0), gap_fraction=(0.0, 0.0), stray_fraction=(0.0, 0.0))
    whole = _draw(alone, 20)  # a third of them lie whole in the slice
    assert whole.closed[:, 0].any()
    one = _one(whole, int(np.argmax(whole.closed[:, 0])))
    image = np.asarray(rasterise(one, MODEL, thickness)) > 0
    assert label(~image)[1] == 2  # the line separates the inside from the outside
    length = np.linalg.norm(np.diff(one.points[0], axis=0, append=one.points[0, :1]), axis=-1).sum()
    assert abs(image.sum() / length - thickness) < 0.8


def test_strays_have_their_share_and_the_same_key_gives_the_same_slice(slices):
    length = 0.5 * slices.stray_visible.sum((1, 2))
    step = np.linalg.norm(np.diff(slices.points[:, :, :2], axis=2), axis=-1)[..., 0]
    labelled = (slices.visible.sum(-1) * step).sum(-1)
    assert 0.02 < (length / labelled).mean() < 0.12
    assert (length / labelled).max() <= 0.2
    again = _draw(MODEL, 2)
    assert all(np.array_equal(a[:2], b) for a, b in zip(slices, again))


def test_gradients_go_forwards_through_the_search():
    """Points move with the wobble as it grows: what they depart by is proportional to it."""

    def points(wobble):
        return draw_contours(jax.random.key(4), replace(MODEL, membranes=(2, 4), wobble=wobble)).points

    at, slope = jax.jvp(points, (jnp.float32(0.3),), (jnp.float32(1.0),))
    assert np.isfinite(slope).all()
    assert np.allclose(at - points(jnp.float32(0.0)), 0.3 * slope, atol=1e-3)
    assert float(jnp.abs(slope).max()) > 0.5


def test_everything_is_double_where_doubles_are_the_default():
    with jax.enable_x64(True):
        one = draw_contours(jax.random.key(0), replace(MODEL, membranes=(1, 2)))
        assert one.points.dtype == one.strays.dtype == one.gap_fraction.dtype == jnp.float64
        assert set(np.unique(rasterise(one, MODEL))) <= set(range(-41, 13))
