"""Properties of scores and of padding."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from strategies import TURNS, clouds, drawn

from jaxmem import metrics
from jaxmem.numerics import bucket_size, map_chunks, pad_to

# --- Scores ---------------------------------------------------------------------------------------------------------

MASKS = st.sampled_from([(0,), (1,), (4, 3)]).flatmap(lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape)))
LABELS = st.sampled_from([(0,), (1,), (3, 4, 5)]).flatmap(
    lambda shape: st.tuples(*[arrays(np.int64, shape, elements=st.integers(0, 4))] * 2)
)


@drawn
@given(masks=MASKS)
def test_dice_is_a_symmetric_share(masks):
    a, b = masks
    assert 0.0 <= metrics.dice(a, b) == metrics.dice(b, a) <= 1.0
    assert metrics.dice(a, a) == 1.0
    assert (metrics.dice(a, b) == 1.0) == np.array_equal(a, b)


@drawn
@given(masks=st.sampled_from([(0, 2, 2), (1, 1, 1), (3, 2, 2)]).flatmap(lambda s: st.tuples(*[arrays(bool, s)] * 2)))
def test_dice_of_slices_is_dice_of_each(masks):
    a, b = masks
    scores = metrics.slice_dice(a, b)
    assert scores.shape == (len(a),)
    for score, x, y in zip(scores, a, b):
        assert np.isnan(score) if not (x.any() or y.any()) else score == metrics.dice(x, y)


@drawn
@given(labels=LABELS, names=st.permutations(range(1, 5)), least=st.sampled_from([0.0, 0.2, 0.5]))
def test_matching_pairs_each_instance_once_whatever_its_number(labels, names, least):
    found, truth = labels
    matching = metrics.match_instances(found, truth, least)
    for column, left, all_ in ((0, matching.missed, truth), (1, matching.invented, found)):
        both = [*matching.pairs[:, column].tolist(), *left]
        assert sorted(both) == np.unique(all_[all_ > 0]).tolist()
    for (t, f), score in zip(matching.pairs, matching.dice):
        assert score == pytest.approx(metrics.dice(found == f, truth == t))
        assert least <= score <= 1.0
    renamed = np.array([0, *names])[found] * 7
    total = metrics.match_instances(found, truth, 0.0).dice.sum()
    assert metrics.match_instances(renamed, truth, 0.0).dice.sum() == pytest.approx(total)
    assert metrics.match_instances(truth, found, 0.0).dice.sum() == pytest.approx(total)
    own = metrics.match_instances(renamed, found)
    assert (own.missed, own.invented) == ([], [])
    assert (own.dice == 1.0).all()


@drawn
@given(labels=LABELS, names=st.permutations(range(5)), order=st.randoms(use_true_random=False))
def test_comparison_of_groups_knows_neither_numbers_nor_order(labels, names, order):
    found, truth = (a.ravel() for a in labels)
    score = metrics.compare_groups(found, truth)
    places = list(range(len(found)))
    order.shuffle(places)
    again = metrics.compare_groups(np.array(names, int)[found][places] - 9, truth[places])
    assert again[1:] == score[1:]
    assert again.adjusted_rand == pytest.approx(score.adjusted_rand)
    assert metrics.compare_groups(truth, found).adjusted_rand == pytest.approx(score.adjusted_rand)
    assert metrics.compare_groups(truth, truth) == (1.0, 0, 0)
    f, t = (np.triu(a[:, None] == a, 1)[np.triu_indices(len(a), 1)] for a in (found, truth))
    chance = f.sum() * t.sum() / max(len(f), 1)
    if (f.sum() + t.sum()) / 2 != chance:  # pair by pair
        assert score.adjusted_rand == pytest.approx(((f & t).sum() - chance) / ((f.sum() + t.sum()) / 2 - chance))


@drawn
@given(
    points=st.sampled_from([0, 1, 5]).flatmap(lambda n: clouds(n, 3)),
    vertices=st.sampled_from([1, 2, 20]).flatmap(lambda n: clouds(n, 3)),
    normals=arrays(float, (20, 3), elements=st.floats(-1.0, 1.0, width=16)),
    rotation=TURNS,
)
def test_distance_to_a_surface_moves_with_it(points, vertices, normals, rotation):
    normals = normals[: len(vertices)] + np.array([0.0, 0.0, 3.0])
    normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    distance = metrics.distance_to_surface(points, vertices, normals)
    assert distance.shape == (len(points),)
    assert (distance >= 0).all()
    nearest = np.linalg.norm(points[:, None] - vertices, axis=-1)
    size = max(np.abs(points).max(initial=0), np.abs(vertices).max())
    assert (distance <= nearest.min(1) + 1e-9 * size).all()
    assert (distance[(nearest == 0).any(1)] == 0).all()
    alone = np.sort(nearest, 1)[:, : 1 + (len(vertices) > 1)]
    clear = alone[:, -1] - alone[:, 0] > 1e-6 * size if len(vertices) > 1 else np.ones(len(points), bool)
    moved = metrics.distance_to_surface(
        2.0 * points @ rotation.T + size, 2.0 * vertices @ rotation.T + size, normals @ rotation.T
    )
    assert np.allclose(moved[clear], 2.0 * distance[clear], atol=1e-6 * size)


def test_one_vertex_has_no_plane():
    far = np.array([[0.0, 3.0, 4.0]])
    assert metrics.distance_to_surface(far, np.zeros((1, 3)), np.array([[1.0, 0.0, 0.0]])).tolist() == [5.0]
    with pytest.raises(ValueError, match="no vertices"):
        metrics.distance_to_surface(far, np.zeros((0, 3)), np.zeros((0, 3)))


@drawn
@given(
    errors=st.sampled_from([0, 1, 7]).flatmap(
        lambda n: st.tuples(*[arrays(float, n, elements=st.floats(0.0, 1e30))] * 2)
    ),
    wider=st.floats(1.0, 10.0),
)
def test_coverage_is_a_share_that_grows_with_the_bars(errors, wider):
    error, sigma = errors
    share = metrics.coverage(error, sigma)
    if len(error) == 0:
        assert np.isnan(share)
        return
    assert 0.0 <= share <= metrics.coverage(-error, wider * sigma) <= 1.0
    assert metrics.coverage(0.0 * error, sigma) == 1.0


# --- Padding --------------------------------------------------------------------------------------------------------


@drawn
@given(n=st.integers(0, 10**9), smallest=st.integers(1, 1000), growth=st.integers(2, 4))
def test_buckets_are_the_smallest_that_hold(n, smallest, growth):
    size = bucket_size(n, smallest, growth)
    assert size >= n
    assert size == smallest or size // growth < n
    while size > smallest:
        assert size % growth == 0
        size //= growth
    assert size == smallest
    assert bucket_size(bucket_size(n, smallest, growth), smallest, growth) == bucket_size(n, smallest, growth)


@drawn
@given(
    rows=st.sampled_from([(0,), (1,), (3, 2), (8, 2)]).flatmap(lambda s: arrays(st.sampled_from(["f4", "i4", "?"]), s)),
    size=st.integers(0, 8),
)
def test_padding_keeps_rows_dtype_and_says_which(rows, size):
    if not 0 < len(rows) <= size:
        with pytest.raises(ValueError, match="pad_to: expected"):
            pad_to(rows, size)
        return
    padded, mask = pad_to(rows, size)
    assert padded.dtype == rows.dtype
    assert padded.shape == (size, *rows.shape[1:])
    assert np.array_equal(padded[mask], rows, equal_nan=rows.dtype == np.float32)
    assert mask.sum() == len(rows)


double = jax.jit(lambda rows: {"sum": rows.sum(1), "twice": 2 * rows})


@drawn
@given(
    rows=st.sampled_from([0, 1, 3, 4, 5, 12, 13]).flatmap(
        lambda n: arrays("f4", (n, 3), elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False))
    )
)
def test_chunks_are_one_call(rows):
    joined = map_chunks(double, rows, 4)
    assert np.array_equal(joined["twice"], 2 * rows)
    assert np.allclose(joined["sum"], rows.sum(1), rtol=1e-5, atol=1e-5 * np.abs(rows).max(initial=0))
    assert joined["twice"].dtype == np.float32
