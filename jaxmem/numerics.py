"""Safe norms, the jitter policy, padding to buckets and chunked evaluation."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

_F = TypeVar("_F", bound=Callable)


@overload
def compiled(function: _F) -> _F: ...


@overload
def compiled(*, static: tuple[str, ...]) -> Callable[[_F], _F]: ...


def compiled(function=None, *, static=()):
    """`jax.jit` for functions that are also called by themselves, as in a notebook: one program, not one for each operation.

    Within other compiled functions it makes no difference, for there it is inlined. The type is that of the function.

    Arguments:
        static: names of arguments that shapes or the program itself depend on.

    Example:
        >>> float(compiled(lambda x: 2 * x)(3.0))
        6.0
    """
    if function is None:
        return functools.partial(compiled, static=static)
    return jax.jit(function, static_argnames=static, inline=True)


def safe_norm(x: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
    """Euclidean norm over the last axis whose gradient at zero is zero, not NaN.

    Example:
        >>> float(jax.grad(lambda x: safe_norm(x))(jnp.zeros(3)).sum())
        0.0
    """
    return safe_sqrt(jnp.sum(x * x, -1))


def safe_sqrt(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Square root of what is positive, 0 of everything else, with derivative 0 there: never NaN.

    Example:
        >>> float(safe_sqrt(jnp.array(-1e-9))), float(jax.grad(safe_sqrt)(jnp.array(0.0)))
        (0.0, 0.0)
    """
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def unit(x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """Vectors of length 1 along the last axis; of a zero vector zero, with derivative 0.

    Example:
        >>> unit(jnp.array([[0.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.0, 1.0], [0.0, 0.0]]
    """
    length = safe_norm(x)[..., None]
    return jnp.where(length > 0, x / jnp.where(length > 0, length, 1.0), 0.0)


def unit_rows(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows of length 1, on the host; of zero rows zero."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def cleaned(rows: Array, mask: Bool[Array, " n"]) -> Array:
    """Rows with those that do not count replaced, so that nothing they hold, NaN included, reaches values or gradients.

    Arguments:
        rows: (n, ...), one for each row of the mask.
        mask: rows that count; the others become the first of them, or zero where none counts.
    """
    wide = mask.reshape(mask.shape + (1,) * (rows.ndim - 1))
    first = jnp.argmax(mask)
    return jnp.where(wide, rows, jnp.where(mask[first], rows[first], 0)[None])


def jitter(dtype: jnp.dtype) -> float:
    """Smallest diagonal term, relative to k(0), that keeps a Cholesky factorisation stable in `dtype`."""
    return 1e-10 if jnp.finfo(dtype).bits == 64 else 1e-6


def inverse_lower(lower: Float[Array, "n n"], block: int = 128) -> Float[Array, "n n"]:
    """Inverse of a lower triangular matrix, mostly by matrix products: faster than a solve with the identity.

    Blocks on the diagonal are inverted together, by one call (several at a time can block one another on a processor), and
    joined in pairs: the inverse of [[A, 0], [C, B]] is [[A^-1, 0], [-B^-1 C A^-1, B^-1]].

    Arguments:
        lower: (n, n), zero above the diagonal, which holds no zero; any n.
        block: largest number of rows inverted without products.

    Example:
        >>> inverse_lower(jnp.array([[2.0, 0.0], [1.0, 1.0]])).tolist()
        [[0.5, 0.0], [-0.5, 1.0]]
    """
    n, parts = len(lower), 1
    while parts * block < n:
        parts *= 2
    size = -(-n // parts)
    padded = jnp.eye(parts * size, dtype=lower.dtype).at[:n, :n].set(lower)

    def diagonal(count):
        each = jnp.arange(count)
        return padded.reshape(count, len(padded) // count, count, -1)[each, :, each]

    identity = jnp.broadcast_to(jnp.eye(size, dtype=lower.dtype), (parts, size, size))
    inverse = jax.lax.linalg.triangular_solve(diagonal(parts), identity, left_side=True, lower=True)
    while len(inverse) > 1:
        first, last = inverse[::2], inverse[1::2]
        corner = last @ (diagonal(len(first))[:, size:, :size] @ first)
        inverse = jnp.block([[first, jnp.zeros_like(first)], [-corner, last]])
        size *= 2
    return inverse[0, :n, :n]


def square_of_lower(lower: Float[Array, "n n"], block: int = 128) -> Float[Array, "n n"]:
    """L^T L of a lower triangular matrix, without most of the multiplications by zero and each pair of columns once.

    Arguments:
        lower: (n, n), zero above the diagonal.
        block: rows at a time.

    Example:
        >>> square_of_lower(jnp.array([[2.0, 0.0], [1.0, 1.0]])).tolist()
        [[5.0, 1.0], [1.0, 1.0]]
    """
    n = len(lower)
    rows = [lower[a:, a : a + block].T @ lower[a:, : a + block] for a in range(0, n, block)]
    below = jnp.concatenate([jnp.pad(row, ((0, 0), (0, n - row.shape[1]))) for row in rows])
    return jnp.tril(below) + jnp.tril(below, -1).T


def bucket_size(n: int, smallest: int = 64, growth: int = 2) -> int:
    """The smallest of `smallest`, `growth` times that, ... that holds `n`, so that few programs are compiled.

    Example:
        >>> bucket_size(65), bucket_size(3)
        (128, 64)
    """
    size = smallest
    while size < n:
        size *= growth
    return size


def pad_to(array: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pad the leading axis with its last row to `size`; returns the padded array and the mask of real rows.

    Raises:
        ValueError: if the array is empty or longer than `size`.
    """
    n = len(array)
    if not 0 < n <= size:
        raise ValueError(f"pad_to: expected between 1 and {size} rows, got {n}")
    return np.concatenate([array, np.repeat(array[-1:], size - n, 0)]), np.arange(size) < n


def map_chunks(fun: Callable, xs: np.ndarray, chunk: int) -> Any:
    """Apply a jitted `fun` to row blocks of fixed size (the last is padded) and join the results on the host.

    Arguments:
        fun: maps (chunk, ...) to one array, or a tuple of arrays, of leading size chunk.
        xs: (n, ...) rows; n = 0 is allowed only if `fun` can be traced on shapes alone.
        chunk: rows per call; the largest memory a call takes grows with it.
    """
    if len(xs) == 0:
        shapes = jax.eval_shape(fun, jax.ShapeDtypeStruct((chunk, *xs.shape[1:]), xs.dtype))
        return jax.tree.map(lambda s: np.zeros((0, *s.shape[1:]), s.dtype), shapes)
    parts = []
    for start in range(0, len(xs), chunk):
        block = xs[start : start + chunk]
        padded, _ = pad_to(block, chunk)
        count = len(block)
        parts.append(jax.tree.map(lambda a, n=count: np.asarray(a)[:n], fun(padded)))
    return jax.tree.map(lambda *blocks: np.concatenate(blocks), *parts)


def map_rows(fun: Callable, *rows: Any, rest: tuple = (), smallest: int = 256) -> Any:
    """Apply a jitted, mapped `fun` to all rows at once, filled up to few sizes so that few programs are compiled.

    Arguments:
        fun: maps trees of arrays of n rows each, and `rest`, to one of n rows.
        rows: trees of arrays, n > 0 rows each.
        rest: further arguments, as they are.
        smallest: number of rows of the smallest program.

    Returns:
        On the host, n rows.
    """
    count = len(jax.tree.leaves(rows)[0])
    size = bucket_size(count, smallest)
    padded = (jax.tree.map(lambda a: pad_to(np.asarray(a), size)[0], tree) for tree in rows)
    return jax.tree.map(lambda a: np.asarray(a)[:count], fun(*padded, *rest))


@functools.cache
def compiler_options() -> dict[str, str]:
    """Options for `jax.jit` that make convolutions fast on a CPU, where this build of XLA knows them; else none."""
    options = {"xla_cpu_experimental_ynn_fusion_type": ""}
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x + 1, compiler_options=options).lower(jnp.zeros(())).compile()
    except (jax.errors.JaxRuntimeError, ValueError):
        return {}
    return options


def in_own_precision(function: Callable) -> Callable:
    """`function(params, x)` computed in double precision where `params` are, and returned in the precision of `x`.

    A posterior made in double precision can so be evaluated where JAX is set to single precision. It can be differentiated
    with respect to x, as often as one likes, and vmapped and compiled. `params` are constants: no gradient with respect to them.

    Arguments:
        function: from a pytree of arrays and one array to one array.

    Example:
        >>> with jax.enable_x64(True):
        ...     third = jnp.float64(1.0) / 3.0
        >>> in_own_precision(lambda a, x: a * x)(third, jnp.float32(3.0)).dtype.name
        'float32'
    """

    def call(params: Any, x: Array) -> Array:
        x = jnp.asarray(x)
        kinds = [leaf.dtype for leaf in jax.tree.leaves(params) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        if np.float64 not in kinds or x.dtype == np.float64:
            return function(params, x)

        @jax.custom_jvp
        def evaluate(x):
            with jax.enable_x64(True):
                return function(params, x.astype(np.float64)).astype(x.dtype)

        @evaluate.defjvp
        def _(primals, tangents):
            (x,), (step,) = primals, tangents
            slope = in_own_precision(jax.jacfwd(function, 1))(params, x)
            return evaluate(x), jnp.tensordot(slope, step, x.ndim)

        return evaluate(x)

    return call
