"""Properties of scores, padding, ellipses and covariance functions; shapes are few, because compilation is what costs time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxmem import ellipse as ell
from jaxmem import gp, metrics
from jaxmem.numerics import bucket_size, map_chunks, pad_to

drawn = settings(deadline=None, max_examples=30, derandomize=True, database=None)


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


def clouds(n, d):
    """Points of any scale, some of them equal, on a line, or all the same."""

    def shaped(points, scale, kind, offset):
        if kind == "equal":
            points = np.broadcast_to(points[:1], points.shape)
        if kind == "line":
            points = points[:, :1] * np.ones(d)
        if kind == "twice":
            points = np.concatenate([points[: -(n // 2) or None], points[: n // 2]])
        return scale * (points + offset)

    grid = arrays(float, (n, d), elements=st.floats(-1.0, 1.0, width=16))
    gauss = st.integers(0, 999).map(lambda seed: np.random.default_rng(seed).normal(size=(n, d)))
    kinds = st.sampled_from(["any", "any", "line", "twice", "equal"])
    return st.builds(shaped, grid | gauss, st.sampled_from([1e-6, 1.0, 1e6]), kinds, st.sampled_from([0.0, 100.0]))


def turn(quaternion):
    """Rotation (3, 3) of four numbers that are not all zero."""
    w, x, y, z = np.asarray(quaternion) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


TURNS = st.tuples(*[st.floats(-1.0, 1.0, width=16)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1).map(turn)


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


# --- Ellipses and ellipsoids ----------------------------------------------------------------------------------------


@st.composite
def quadrics(draw):
    """Ellipses and ellipsoids: also circles, needles and discs, small and large, in double precision."""
    d = draw(st.sampled_from([2, 3]))
    scale = draw(st.sampled_from([1e-3, 1.0, 1e4]))
    axes = scale * np.array(
        draw(st.lists(st.sampled_from([0.02, 1.0, 1.0, 3.0]) | st.floats(0.05, 3.0), min_size=d, max_size=d))
    )
    centre = scale * draw(arrays(float, d, elements=st.floats(-9.0, 9.0)))
    if d == 2:
        return centre, axes, np.array(draw(st.floats(-4.0, 4.0)))
    return centre, axes, draw(TURNS)


def made(parts):
    return (ell.Ellipse if len(parts[0]) == 2 else ell.Ellipsoid)(*map(jnp.asarray, parts))


def matrix(parts):
    """The symmetric matrix that maps the unit circle to the ellipse."""
    rotation = (
        parts[2]
        if len(parts[0]) == 3
        else np.array([[np.cos(parts[2]), np.sin(parts[2])], [-np.sin(parts[2]), np.cos(parts[2])]])
    )
    return rotation.T @ np.diag(parts[1]) @ rotation


def check_same(one, parts, rtol=1e-6):
    size = np.abs(parts[1]).max()
    assert np.allclose(one.centre, parts[0], atol=rtol * size)
    assert np.allclose(ell.stretch(one), matrix(parts), atol=rtol * size)
    assert (np.diff(one.semi_axes) <= 0).all()


@drawn
@given(parts=quadrics(), factor=st.sampled_from([1.0, -3.0, 1e-6, 1e6]))
def test_parameters_and_conics_are_undone(parts, factor):
    with jax.enable_x64(True):
        one = made(parts)
        check_same(ell.from_parameters(ell.parameters(one)), parts, 1e-9)
        check_same(ell.from_conic(factor * ell.conic(one)), parts)


UNITS = arrays(float, 3, elements=st.floats(-1.0, 1.0, width=16)).filter(lambda v: np.linalg.norm(v[:2]) > 0.1)


@jax.jit
def described(one, there):
    """Distance, its slope, the foot, and the foot's own distance."""
    foot = ell.foot(one, there)
    return *jax.value_and_grad(ell.distance, 1)(one, there), foot, ell.distance(one, foot)


@drawn
@given(parts=quadrics(), unit=UNITS, level=st.sampled_from([0.0, 1e-9, 0.5, 0.999, 1.0, 1.001, 2.0, 1e3]))
def test_distance_is_negative_inside_and_bounded_by_the_axes(parts, unit, level):
    centre, axes, _ = parts
    unit = unit[: len(axes)] / np.linalg.norm(unit[: len(axes)])
    with jax.enable_x64(True):
        one = made(parts)
        there = centre + level * matrix(parts) @ unit
        distance, slope, foot, left = map(np.asarray, described(one, there))
    small = 1e-7 * max(level, 1.0) * axes.max()
    # the ellipse that is `level` times as large lies at least |level - 1| times the shortest semi-axis away
    assert np.sign(level - 1.0) * distance >= abs(level - 1.0) * axes.min() - small
    assert abs(distance) <= abs(level - 1.0) * axes.max() + small
    assert np.linalg.norm(slope) == pytest.approx(1.0, abs=1e-6)
    assert abs(left) <= 1e-5 * axes.max()
    assert np.linalg.norm(foot - there) == pytest.approx(abs(distance), abs=small)


@drawn
@given(
    parts=quadrics(), rotation=TURNS, step=st.floats(-5.0, 5.0), scale=st.sampled_from([1e-3, 1.0, 1e3]), place=UNITS
)
def test_distance_moves_with_the_ellipse(parts, rotation, step, scale, place):
    centre, axes, _ = parts
    d, size = len(axes), axes.max()
    if d == 2:
        angle = 3.0 * step
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    there = centre + 2.0 * size * place[:d]
    full = matrix(parts)
    with jax.enable_x64(True):
        moved = ell.from_stretch(
            jnp.asarray(scale * (rotation @ centre + step * size)), jnp.asarray(scale * rotation @ full @ rotation.T)
        )
        distance = ell.distance(made(parts), jnp.asarray(there))
        again = ell.distance(moved, jnp.asarray(scale * (rotation @ there + step * size)))
    assert float(again) == pytest.approx(scale * float(distance), abs=1e-6 * scale * size)


# --- Covariance functions -------------------------------------------------------------------------------------------

KERNELS = [(gp.ThinPlate, 2), (gp.Cubic, 3)]
VARIANCES = st.sampled_from([1e-6, 1.0, 1e8])


@pytest.mark.parametrize(("kind", "d"), KERNELS)
@settings(drawn, max_examples=60)
@given(data=st.data(), variance=VARIANCES, n=st.sampled_from([2, 6, 40]))
def test_covariances_are_positive_semidefinite(kind, d, data, variance, n):
    points = data.draw(clouds(n, d))
    spread = np.linalg.norm(points[:, None] - points, axis=-1)
    assume(len(np.unique(points, axis=0)) > 1)
    radius = gp.valid_radius(kind, points)
    assert radius >= kind.margin * spread.max() * (1 - 1e-9)
    with jax.enable_x64(True):
        x = jnp.asarray(points)
        gram = np.asarray(gp.gram(kind(jnp.asarray(variance), jnp.asarray(radius)), x, x))
    assert np.array_equal(gram, gram.T)
    assert np.allclose(np.diag(gram), variance)
    assert np.linalg.eigvalsh(gram).min() >= -1e-12 * n * variance


@drawn
@given(point=arrays(float, 3, elements=st.floats(-1e6, 1e6)), n=st.integers(1, 9))
def test_equal_points_have_no_radius(point, n):
    with pytest.raises(ValueError, match="two distinct"):
        gp.valid_radius(gp.Cubic, np.broadcast_to(point, (n, 3)))


@jax.jit
def covariances(kernel, x, y):
    """k(x, x), k(x, y), k(y, x), and the slope and the curvature of k(x, y) in y."""
    curvature = jax.jacfwd(jax.grad(kernel, 1), 1)(x, y)
    return kernel(x, x), kernel(x, y), kernel(y, x), jax.grad(kernel, 1)(x, y), curvature


@pytest.mark.parametrize(("kind", "d"), [*KERNELS, (gp.Matern32, 3), (gp.Matern52, 3), (gp.SquaredExponential, 2)])
@drawn
@given(
    step=st.sampled_from([0.0, 1e-30, 1e-12, 1e-3, 0.7]), scale=st.sampled_from([1e-3, 1.0, 1e6]), variance=VARIANCES
)
def test_covariances_have_finite_slopes_everywhere(kind, d, step, scale, variance):
    x = jnp.full(d, 0.25 * scale)
    y = x.at[0].add(step * scale)
    kernel = kind(jnp.asarray(variance, jnp.float32), jnp.asarray(2.0 * scale, jnp.float32))
    own, value, mirrored, slope, curvature = map(np.asarray, covariances(kernel, x, y))
    assert own == pytest.approx(variance, rel=1e-6)
    assert value == mirrored
    assert 0.0 <= value <= variance * (1 + 1e-6)
    assert np.isfinite(curvature).all()
    assert slope[0] <= 0.0
    assert not slope[1:].any()
    if y[0] == x[0]:
        assert not slope.any()
