"""Sparse posterior: what n points say is carried by m inducing points, in O(n m^2) time and O(m^2) memory."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmem.gp.kernels import Kernel
from jaxmem.gp.posterior import LOG_TWO_PI, Conditioned, check_rows, gram, outcome_of, trend_at
from jaxmem.gp.trend import Prior, as_prior
from jaxmem.numerics import cleaned, compiled, inverse_lower, jitter
from jaxmem.types import Scalar

_CHUNK = 1024  # data points at a time, at most
_BLOCK = 256  # rows of a triangular matrix at a time


class SparsePosterior(Conditioned):
    """A process conditioned on many values through a few inducing points.

    Attributes:
        points: (m, d) inducing points, voxels.
        factor: (m, m) lower factor L of their prior covariance.
        gain: (m, m) lower factor of I + L^-1 Kzx noise^-2 Kxz L^-T: what the data add.
    """

    factor: Float[Array, "m m"]
    gain: Float[Array, "m m"]

    def whiten(self, cross):
        a = jax.scipy.linalg.solve_triangular(self.factor, cross, lower=True)
        return a, jax.scipy.linalg.solve_triangular(self.gain, a, lower=True)

    def pull_back(self, a, b):
        inner = a - jax.scipy.linalg.solve_triangular(self.gain, b, lower=True, trans=1)
        return jax.scipy.linalg.solve_triangular(self.factor, inner, lower=True, trans=1)


@compiled(static=("m",))
def inducing(points: Float[Array, "n d"], m: int, mask: Bool[Array, " n"] | None = None) -> Int[Array, " m"]:
    """Indices of m points, each the farthest from those chosen before (Gonzalez 1985): within a factor two of the best cover.

    Arguments:
        points: voxels.
        m: how many; at most as many as there are distinct points, or the first is repeated.
        mask: rows that may be chosen; all when None.
    """
    mask = jnp.ones(len(points), bool) if mask is None else mask
    x = cleaned(points, mask)
    middle = jnp.sum(jnp.where(mask[:, None], x, 0.0), 0) / jnp.maximum(mask.sum(), 1).astype(x.dtype)
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
    points: Float[Array, "n d"],
    values: Float[Array, " n"],
    support: Float[Array, "m d"],
    mask: Bool[Array, " n"] | None = None,
    *,
    noise: Scalar | Float[Array, " n"],
    prior: Kernel | Prior,
    shared: Float[Array, "n k"] | None = None,
) -> SparsePosterior:
    """Condition the process on many values through inducing points, which stand for the function in the best way possible.

    Data are visited in chunks; no n x m matrix is held. What inducing points cannot say about a place stays in its variance.
    The larger the prior's amplitude and the smaller the noise, the more inducing points that takes (`benchmarks/gp.py --sparse`).

    Arguments:
        points, values, mask, noise, prior, shared: as for `fit`.
        support: inducing points, for example `points[inducing(points, m)]`; repeated ones are harmless.

    Raises:
        ValueError: if shapes disagree, or there are no rows.

    Source: Titsias 2009, equations 6 and 10 (variational free energy).
    """
    noise = check_rows("gp.fit_sparse", points, values, noise)
    n, m = points.shape[0], support.shape[0]
    if m == 0 or support.shape[1:] != points.shape[1:]:
        raise ValueError(
            f"gp.fit_sparse: expected inducing points (m, {points.shape[1]}) with m > 0, got {support.shape}"
        )
    mask = jnp.ones(n, bool) if mask is None else mask
    kernel, trend = as_prior(prior).kernel, as_prior(prior).trend
    points = cleaned(points, mask)
    noise = jnp.where(mask, noise, 1.0)
    dtype = points.dtype
    expected, features = trend_at(trend, points)
    own = jax.vmap(trend.features)(support)
    ridge = jitter(dtype) * kernel.variance * jnp.eye(m, dtype=dtype)
    factor = jnp.linalg.cholesky(gram(kernel, support, support) + own @ own.T + ridge)
    chunks = -(-n // _CHUNK)
    chunk = -(-n // chunks)
    rows = chunks * chunk
    residual = jnp.where(mask, jnp.where(mask, values, 0.0) - expected, 0.0)
    alike = jnp.zeros((n, 0), dtype) if shared is None else jnp.where(mask[:, None], cleaned(shared, mask), 0.0)
    given = (points, features, residual, noise, mask, alike)
    padded = [jnp.pad(a, [(0, rows - n)] + [(0, 0)] * (a.ndim - 1)) for a in given]
    blocks = [a.reshape(chunks, chunk, *a.shape[1:]) for a in padded]
    inverse = inverse_lower(factor)  # products with it take half the time of a triangular solve for every chunk

    def add(state, block):
        precision, pull, bound, across, among, felt = state
        x, basis, residual, sigma, real, alike = block
        v = _times(inverse, gram(kernel, support, x) + own @ basis.T)
        weight = jnp.where(real, 1.0 / jnp.where(real, sigma**2, 1.0), 0.0)
        scaled = v * jnp.sqrt(weight)[None]
        # of the bound: squares of the values, logarithms of the noise, and what the inducing points do not explain
        spare = kernel.variance + jnp.sum(basis**2, 1) - jnp.sum(v**2, 0)
        parts = weight * (residual**2 + spare) + jnp.where(real, 2.0 * jnp.log(jnp.where(real, sigma, 1.0)), 0.0)
        weighted = weight[:, None] * alike
        sums = across + v @ weighted, among + alike.T @ weighted, felt + weighted.T @ residual
        return (precision + _square(scaled), pull + v @ (weight * residual), bound + jnp.sum(parts), *sums), None

    k = alike.shape[1]
    start = jnp.eye(m, dtype=dtype), jnp.zeros(m, dtype), mask.sum().astype(dtype) * LOG_TWO_PI
    none = jnp.zeros((m, k), dtype), jnp.eye(k, dtype=dtype), jnp.zeros(k, dtype)
    (precision, pull, bound, across, among, felt), _ = jax.lax.scan(add, (*start, *none), tuple(blocks))
    precision = precision + jnp.tril(precision, -1).T
    if k:  # what rows share, they say once (Woodbury)
        root = jnp.linalg.cholesky(among)
        across, felt = (jax.scipy.linalg.solve_triangular(root, a, lower=True) for a in (across.T, felt))
        precision, pull = precision - across.T @ across, pull - across.T @ felt
        bound = bound - felt @ felt + 2.0 * jnp.sum(jnp.log(jnp.diagonal(root)))
    gain = jnp.linalg.cholesky(precision)
    whitened = jax.scipy.linalg.cho_solve((gain, True), pull)
    weights = jax.scipy.linalg.solve_triangular(factor, whitened, lower=True, trans=1)
    log_likelihood = -0.5 * (bound - pull @ whitened) - jnp.sum(jnp.log(jnp.diagonal(gain)))
    outcome = outcome_of(kernel, points, mask, weights)
    return SparsePosterior(kernel, trend, support, own, weights, outcome, log_likelihood, factor, gain)
