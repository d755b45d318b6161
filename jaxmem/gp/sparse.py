"""Sparse posterior: what n points say is carried by m inducing points, in O(n m^2) time and O(m^2) memory."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmem.gp.kernels import Kernel
from jaxmem.gp.posterior import Conditioned, gram, outcome, trend_at
from jaxmem.gp.trend import Trend, Zero
from jaxmem.numerics import compiled, inverse_lower, jitter

_CHUNK = 1024  # data points at a time, at most
_BLOCK = 256  # rows of a triangular matrix at a time


class SparsePosterior(Conditioned):
    """A process conditioned on many values through a few inducing points.

    Attributes:
        x: (m, d) inducing points, voxels.
        prior: (m, m) lower factor L of their prior covariance.
        gain: (m, m) lower factor of I + L^-1 Kzx noise^-2 Kxz L^-T: what the data add.
    """

    prior: Float[Array, "m m"]
    gain: Float[Array, "m m"]

    def whiten(self, cross):
        a = jax.scipy.linalg.solve_triangular(self.prior, cross, lower=True)
        return a, jax.scipy.linalg.solve_triangular(self.gain, a, lower=True)

    def pull_back(self, a, b):
        inner = a - jax.scipy.linalg.solve_triangular(self.gain, b, lower=True, trans=1)
        return jax.scipy.linalg.solve_triangular(self.prior, inner, lower=True, trans=1)


@compiled(static=("m",))
def inducing(x: Float[Array, "n d"], m: int, mask: Bool[Array, " n"] | None = None) -> Int[Array, " m"]:
    """Indices of m points, each the farthest from those chosen before (Gonzalez 1985): within a factor two of the best cover.

    Arguments:
        x: points, voxels.
        m: how many; at most as many as there are distinct points, or the first is repeated.
        mask: rows that may be chosen; all when None.
    """
    mask = jnp.ones(len(x), bool) if mask is None else mask
    x = jnp.where(mask[:, None], x, x[jnp.argmax(mask)])
    middle = jnp.sum(jnp.where(mask[:, None], x, 0.0), 0) / jnp.maximum(mask.sum(), 1)
    blocked = jnp.where(mask, jnp.inf, -1.0).astype(x.dtype)

    def square(point):
        return sum((x[:, i] - point[i]) ** 2 for i in range(x.shape[1]))

    first = jnp.argmax(jnp.minimum(square(middle), blocked))

    def step(i, state):
        chosen, nearest = state
        following = jnp.argmax(nearest)
        return chosen.at[i].set(following.astype(jnp.int32)), jnp.minimum(nearest, square(x[following]))

    start = jnp.zeros(m, jnp.int32).at[0].set(first.astype(jnp.int32))
    return jax.lax.fori_loop(1, m, step, (start, jnp.minimum(square(x[first]), blocked)))[0]


def _times(lower: Float[Array, "m m"], right: Float[Array, "m n"]) -> Float[Array, "m n"]:
    """Product with a lower triangular matrix, without most of the multiplications by zero."""
    ends = range(_BLOCK, len(lower) + _BLOCK, _BLOCK)
    return jnp.concatenate([lower[end - _BLOCK : end, :end] @ right[:end] for end in ends])


def _square(a: Float[Array, "m n"]) -> Float[Array, "m m"]:
    """a a^T below and on the diagonal, zero above."""
    ends = range(_BLOCK, len(a) + _BLOCK, _BLOCK)
    rows = [a[end - _BLOCK : end] @ a[:end].T for end in ends]
    return jnp.tril(jnp.concatenate([jnp.pad(r, [(0, 0), (0, len(a) - r.shape[1])]) for r in rows]))


@compiled
def fit_sparse(
    kernel: Kernel,
    x: Float[Array, "n d"],
    y: Float[Array, " n"],
    noise: Float[Array, " n"],
    z: Float[Array, "m d"],
    mask: Bool[Array, " n"] | None = None,
    trend: Trend | None = None,
) -> SparsePosterior:
    """Condition the process on many values through inducing points, which stand for the function in the best way possible.

    Data are visited in chunks; no n x m matrix is held. What inducing points cannot say about a place stays in its variance.
    The larger the prior's amplitude and the smaller the noise, the more inducing points that takes (`benchmarks/gp.py --sparse`).

    Arguments:
        kernel, x, y, noise, mask, trend: as for `fit`.
        z: inducing points, for example `x[inducing(x, m)]`; repeated ones are harmless.

    Raises:
        ValueError: if shapes disagree, or there are no rows.

    Source: Titsias 2009, equations 6 and 10 (variational free energy).
    """
    n, m = x.shape[0], z.shape[0]
    if n == 0 or m == 0 or y.shape != (n,) or noise.shape != (n,):
        raise ValueError(
            f"gp.fit_sparse: expected points, values, noise and inducing points; got {x.shape}, {y.shape}, {noise.shape}, {z.shape}"
        )
    mask = jnp.ones(n, bool) if mask is None else mask
    x = jnp.where(mask[:, None], x, x[jnp.argmax(mask)])  # padding may hold anything
    trend = Zero() if trend is None else trend
    expected, features = trend_at(trend, x)
    own = jax.vmap(trend.features)(z)
    ridge = jitter(x.dtype) * kernel.variance * jnp.eye(m, dtype=x.dtype)
    prior = jnp.linalg.cholesky(gram(kernel, z, z) + own @ own.T + ridge)
    chunks = -(-n // _CHUNK)
    chunk = -(-n // chunks)
    rows = chunks * chunk
    padded = [
        jnp.pad(a, [(0, rows - n)] + [(0, 0)] * (a.ndim - 1))
        for a in (x, features, jnp.where(mask, y - expected, 0.0), noise, mask)
    ]
    blocks = [a.reshape(chunks, chunk, *a.shape[1:]) for a in padded]
    inverse = inverse_lower(prior)  # products with it take half the time of a triangular solve for every chunk

    def add(state, block):
        precision, pull = state
        points, basis, values, sigma, real = block
        v = _times(inverse, gram(kernel, z, points) + own @ basis.T)
        weight = jnp.where(real, 1.0 / jnp.where(real, sigma**2, 1.0), 0.0)
        scaled = v * jnp.sqrt(weight)
        return (precision + _square(scaled), pull + v @ (weight * values)), None

    start = jnp.eye(m, dtype=x.dtype), jnp.zeros(m, x.dtype)
    (precision, pull), _ = jax.lax.scan(add, start, tuple(blocks))
    gain = jnp.linalg.cholesky(precision + jnp.tril(precision, -1).T)
    whitened = jax.scipy.linalg.cho_solve((gain, True), pull)
    weights = jax.scipy.linalg.solve_triangular(prior, whitened, lower=True, trans=1)
    return SparsePosterior(kernel, trend, z, own, weights, outcome(kernel, x, mask, weights), prior, gain)
