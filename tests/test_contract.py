"""One contract, one battery: the network, the Gaussian process, the ellipse and the membrane are fitted and evaluated alike.

`fit(data, mask=None, ...)` returns `params`, `outcome`, `info` and `success`; `evaluate(params, x)` is for one x.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmem import ellipse as ell
from jaxmem import gp, membrane, unet
from jaxmem.types import Outcome

RNG = np.random.default_rng(0)
N = 18
TURN = np.linspace(0.0, 5.6, N)
RING = np.stack([10.0 * np.sin(TURN), 8.0 * np.cos(TURN)], 1) + RNG.normal(0.0, 0.1, (N, 2))
U = RNG.normal(size=(N, 3))
SHELL = U / np.linalg.norm(U, axis=1, keepdims=True) * [10.0, 8.0, 9.0] + RNG.normal(0.0, 0.1, (N, 3))


def prior(points):
    d = points.shape[1]
    kernel = (gp.ThinPlate if d == 2 else gp.Cubic)(jnp.asarray(4.0, points.dtype), jnp.asarray(60.0, points.dtype))
    ball = ell.ball(jnp.zeros(d, points.dtype), 9.0)
    return gp.Prior(kernel, gp.Ellipsoid(ball, jnp.asarray(0.3, points.dtype)))


def network(images, mask):
    return unet.fit(
        jax.random.key(0), images, (images > 0.5).astype(jnp.int32), mask,
        config=unet.UNetConfig(depth=2, width=4), steps=3, batch=2,
    )  # fmt: skip


class Fitter(NamedTuple):
    """`fit(data, mask)`, `evaluate(params, x)`, data (rows first) and an x."""

    fit: object
    evaluate: object
    data: np.ndarray
    x: np.ndarray


def zeros(data):
    return jnp.zeros(len(data), data.dtype)


P2, P3 = np.array([7.0, 7.5]), np.array([6.0, 5.0, 5.5])
FITTERS = {
    "ellipse": Fitter(lambda p, m: ell.fit(p, m, noise=0.4), ell.evaluate, RING, P2),
    "ellipsoid": Fitter(lambda p, m: ell.fit(p, m, noise=0.4), ell.evaluate, SHELL, P3),
    "gp": Fitter(lambda p, m: gp.fit(p, zeros(p), m, noise=0.4, prior=prior(p)), gp.evaluate, RING, P2),
    "gp in 3D": Fitter(lambda p, m: gp.fit(p, zeros(p), m, noise=zeros(p) + 0.4, prior=prior(p)), gp.evaluate, SHELL, P3),
    "sparse gp": Fitter(lambda p, m: gp.fit_sparse(p, zeros(p), jnp.asarray(RING[::2], p.dtype), m, noise=0.4, prior=prior(p)), gp.evaluate, RING, P2),
    "membrane": Fitter(lambda p, m: membrane.fit_membrane(p, m, noise=0.4, prior=ell.ball(jnp.zeros(2, p.dtype), 9.0)), membrane.evaluate, RING, P2),
    "network": Fitter(network, unet.evaluate, (RNG.uniform(size=(4, 8, 8))).astype(float), RNG.uniform(size=(8, 8))),
}  # fmt: skip
POINTS = [name for name in FITTERS if name != "network"]


def everything(name, dtype=float):
    fitter = FITTERS[name]
    return fitter, jnp.asarray(fitter.data, dtype), jnp.asarray(fitter.x, dtype)


def mask_of(name, data, kept):
    """Rows that count; of the network's images, pixels."""
    mask = jnp.arange(len(data)) < kept
    return jnp.broadcast_to(mask[:, None, None], data.shape) if name == "network" else mask


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", FITTERS)
def test_a_fit_says_what_it_found_and_how_it_ended(name):
    fitter, data, x = everything(name)
    found = jax.jit(fitter.fit)(data, None)
    assert Outcome(int(found.outcome)) is Outcome.OK
    assert bool(found.success)
    assert jax.tree.leaves(found.info)
    value = fitter.evaluate(found.params, x)
    assert value.dtype == x.dtype
    assert jnp.isfinite(value).all()
    many = jax.vmap(fitter.evaluate, (None, 0))(found.params, jnp.stack([x, 0.9 * x]))
    assert np.allclose(many[0], value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", FITTERS)
def test_nothing_left_by_the_mask_is_an_outcome(name):
    fitter, data, _ = everything(name)
    found = jax.jit(fitter.fit)(data, mask_of(name, data, 0))
    assert Outcome(int(found.outcome)) is Outcome.EMPTY
    assert not bool(found.success)


@pytest.mark.parametrize("name", POINTS)
def test_masked_rows_may_hold_anything(name):
    """NaN in them changes neither the value nor the gradient, which is zero there."""
    fitter, data, x = everything(name)
    kept = N - 4

    def value(data, mask):
        return fitter.evaluate(fitter.fit(data, mask).params, x)

    slope = jax.jit(jax.value_and_grad(value))
    with_nan = slope(data.at[kept:].set(jnp.nan), jnp.arange(N) < kept)
    with_junk = slope(data.at[kept:].set(77.0), jnp.arange(N) < kept)
    for got, other in zip(with_nan, with_junk):
        assert jnp.isfinite(got).all()
        assert np.allclose(got, other, rtol=1e-9, atol=1e-12)
    assert not with_nan[1][kept:].any()
    alone = jax.jit(value)(data[:kept], None)
    # a search that is padded takes other steps to the same place
    close = 2e-3 if name == "membrane" else 1e-6
    assert float(with_nan[0]) == pytest.approx(float(alone), rel=close, abs=close)


@pytest.mark.parametrize("name", POINTS)
def test_batched_equals_single(name):
    fitter, data, x = everything(name)
    pair, mask = jnp.stack([data, 1.02 * data]), jnp.ones((2, N), bool)
    together = jax.jit(jax.vmap(lambda d, m: fitter.evaluate(fitter.fit(d, m).params, x)))(pair, mask)
    alone = jax.jit(lambda d: fitter.evaluate(fitter.fit(d, mask[0]).params, x))
    assert np.allclose(together, [alone(d) for d in pair], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FITTERS)
def test_the_dtype_is_that_of_the_data(name):
    fitter, data, x = everything(name, jnp.float32)
    found = jax.jit(fitter.fit)(data, None)
    floats = [a.dtype for a in jax.tree.leaves(found.params) if jnp.issubdtype(a.dtype, jnp.floating)]
    assert set(floats) == {jnp.dtype("float32")}
    assert fitter.evaluate(found.params, x).dtype == jnp.float32


@pytest.mark.parametrize("name", FITTERS)
def test_a_second_fit_of_the_same_shape_is_not_traced_again(name):
    fitter, data, _ = everything(name)
    traces = []

    @jax.jit
    def fit(data):
        traces.append(1)
        return fitter.fit(data, None).outcome

    fit(data)
    fit(1.01 * data)
    assert len(traces) == 1


@pytest.mark.parametrize("name", [n for n in POINTS if n != "sparse gp"])
def test_noise_is_of_each_row_or_of_all(name):
    _, data, x = everything(name)
    each = jnp.full(N, 0.4)
    fits = {
        "ellipse": lambda n: ell.fit(data, noise=n),
        "ellipsoid": lambda n: ell.fit(data, noise=n),
        "gp": lambda n: gp.fit(data, jnp.zeros(N), noise=n, prior=prior(data)),
        "gp in 3D": lambda n: gp.fit(data, jnp.zeros(N), noise=n, prior=prior(data)),
        "membrane": lambda n: membrane.fit_membrane(data, noise=n, prior=ell.ball(jnp.zeros(2), 9.0)),
    }
    one, other = (FITTERS[name].evaluate(jax.jit(fits[name])(n).params, x) for n in (0.4, each))
    assert float(one) == pytest.approx(float(other), rel=1e-5, abs=1e-5)


def test_a_noisy_point_counts_less():
    """One point a voxel off, said to be bad: the ellipse stays where it was."""
    clean = ell.fit(jnp.asarray(RING), noise=0.2, loss="squares").ellipse
    moved = jnp.asarray(RING).at[3].mul(1.3)
    noise = jnp.full(N, 0.2).at[3].set(20.0)
    told, untold = (ell.fit(moved, noise=n, loss="squares").ellipse for n in (noise, 0.2))
    off = [float(jnp.abs(ell.parameters(e) - ell.parameters(clean)).max()) for e in (told, untold)]
    assert off[0] < 0.2 * off[1]


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_has_a_message(outcome):
    assert len(outcome.message) > 5
    assert "\n" not in outcome.message
