import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmem.numerics import bucket_size, inverse_lower, map_chunks, pad_to, safe_norm, square_of_lower


def test_safe_norm_at_zero_and_elsewhere():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    assert np.allclose(safe_norm(x), [5.0, 0.0])
    slope = jax.jacobian(safe_norm)(x)
    assert np.allclose(slope[0, 0], [0.6, 0.8])
    assert np.isfinite(slope).all()
    assert np.allclose(slope[1, 1], 0.0)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 20])
def test_map_chunks_equals_one_call(n):
    x = np.arange(n * 2, dtype=np.float32).reshape(n, 2)
    double, total = map_chunks(jax.jit(lambda a: (2 * a, a.sum(1))), x, 8)
    assert np.allclose(double, 2 * x)
    assert np.allclose(total, x.sum(1))
    assert double.shape == (n, 2)


def test_padding_keeps_rows_and_says_which():
    padded, mask = pad_to(np.arange(3), bucket_size(3, 4))
    assert padded.tolist() == [0, 1, 2, 2]
    assert mask.tolist() == [True, True, True, False]
    with pytest.raises(ValueError, match="between 1 and 2 rows, got 3"):
        pad_to(np.arange(3), 2)


@pytest.mark.parametrize("n", [1, 5, 128, 129, 300, 512])
def test_a_triangular_matrix_is_inverted(n):
    with jax.enable_x64(True):
        lower = jnp.tril(np.random.default_rng(n).normal(0.0, 0.1, (n, n))) + 3.0 * jnp.eye(n)
        inverse = jax.jit(inverse_lower)(lower)
        assert np.allclose(jax.jit(square_of_lower)(inverse), np.asarray(inverse).T @ np.asarray(inverse))
        assert np.allclose(inverse @ lower, np.eye(n), atol=1e-12)
        assert np.array_equal(inverse, np.tril(inverse))
        step = np.random.default_rng(0).normal(size=(n, n))
        change = jax.jvp(inverse_lower, (lower,), (jnp.tril(step),))[1]
        assert np.allclose(change, -inverse @ np.tril(step) @ inverse, atol=1e-8)


def test_batched_products_are_summed_right():
    # jaxlib 0.10.2 does this wrongly unless a fusion is turned off (JAX issue 39103)
    rng = np.random.default_rng(0)
    x, matrices, weights = (rng.normal(size=s).astype(np.float32) for s in ((6000, 3), (12, 4, 3), (12, 4)))
    there = jnp.asarray(x)

    def total(matrix, weight):
        product = there @ matrix.T
        return 1.0 + jnp.sum(weight[None] * (1.5 * product**2 - 0.5), -1)

    product = np.einsum("nk,vbk->vnb", x, matrices)
    expected = 1.0 + (weights[:, None] * (1.5 * product**2 - 0.5)).sum(-1)
    assert np.allclose(jax.jit(jax.vmap(total))(matrices, weights), expected, rtol=1e-3, atol=1e-3)
