"""Properties of ellipses and covariance functions; shapes are few, because compilation is what costs time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from strategies import TURNS, clouds, drawn

from jaxmem import ellipse as ell
from jaxmem import gp

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
