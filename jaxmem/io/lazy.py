"""Volumes that stay on disk and are read as they are indexed."""

import operator
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from jaxmem.types import JaxmemError

_KEPT = 512 * 2**20  # bytes of planes that may be kept; those of a chunk's depth seldom need more


def reason(error: Exception) -> str:
    """What an error says, on one line.

    Example:
        >>> reason(KeyError("axes"))
        "KeyError: 'axes'"
    """
    return f"{type(error).__name__}: {error}".splitlines()[0]


class LazyArray(NDArrayOperatorsMixin):
    """A Zarr array as a volume (nz, ny, nx): what is indexed is read, and becomes a NumPy array in native byte order.

    Whole planes are read a chunk's depth at a time and kept until others are asked for, so that going through the volume plane by
    plane decompresses each chunk once. At most 512 MiB are kept. `numpy.asarray` and arithmetic read the whole volume.

    Arguments:
        stored: the Zarr array.
        order: which of its axes are z, y and x. The others have one entry.
        name: of the file, for messages.

    Raises:
        JaxmemError: when indexed, if a chunk cannot be read.
        IndexError: when indexed by something else than whole numbers, slices and one ellipsis, or beyond the ends.
    """

    ndim = 3

    def __init__(self, stored: Any, order: tuple[int, int, int], name: str):
        self._stored, self._order, self._name = stored, order, name
        self.shape: tuple[int, int, int] = tuple(int(stored.shape[axis]) for axis in order)  # type: ignore[assignment]
        self.dtype = np.dtype(stored.dtype).newbyteorder("=")
        self._chunk = max(1, int(stored.chunks[order[0]]))
        plane = max(1, self.shape[1] * self.shape[2] * self.dtype.itemsize)
        self._depth = min(self._chunk, max(1, _KEPT // plane))
        self._kept: tuple[int, np.ndarray | None] = (-1, None)  # number of the first plane, and planes

    @property
    def size(self) -> int:
        """Number of voxels."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes that the whole volume takes in memory."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"LazyArray({self._name}, shape={self.shape}, dtype={self.dtype})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a LazyArray is on disk and cannot be viewed without a copy")
        return self[:].astype(dtype or self.dtype, copy=False)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return getattr(ufunc, method)(*(np.asarray(i) if isinstance(i, LazyArray) else i for i in inputs), **kwargs)

    def __getitem__(self, key: Any) -> Any:  # a scalar for three whole numbers
        keys = _expanded(key)
        picked = [range(n)[k] for n, k in zip(self.shape, keys)]
        spans = [range(p, p + 1) if isinstance(p, int) else p for p in picked]
        drop = tuple(0 if isinstance(p, int) else slice(None, None, -1 if p.step < 0 else 1) for p in picked)
        if not all(spans):
            return np.empty([len(span) for span in spans], self.dtype)[drop]
        return self._planes([span if span.step > 0 else span[::-1] for span in spans])[drop]

    def _planes(self, spans: list[range]) -> np.ndarray:
        """Voxels at ascending spans that are not empty; from what is kept where whole planes of one block are asked for."""
        z = spans[0]
        chunk = z[0] - z[0] % self._chunk
        first = chunk + (z[0] - chunk) // self._depth * self._depth
        end = min(first + self._depth, chunk + self._chunk, self.shape[0])
        whole = all(span == range(n) for span, n in zip(spans[1:], self.shape[1:]))
        if not whole or z[-1] >= end or end - first == 1:
            return self._fetch(spans)
        start, planes = self._kept
        if planes is None or start != first:
            self._kept, planes = (-1, None), None  # so that two blocks are never held
            planes = self._fetch([range(first, end), *spans[1:]])
            self._kept = (first, planes)
        return planes[z[0] - first : z[-1] - first + 1 : z.step].copy()  # a view would hold on to the block

    def _fetch(self, spans: list[range]) -> np.ndarray:
        """Voxels at ascending spans, from the file."""
        index: list[Any] = [0] * self._stored.ndim
        for axis, span in zip(self._order, spans):
            index[axis] = slice(span[0], span[-1] + 1, span.step)
        try:
            values = np.asarray(self._stored[tuple(index)])
        except MemoryError:
            raise
        except Exception as error:  # each compressor has errors of its own
            raise JaxmemError(
                f"{self._name}: a chunk cannot be read ({reason(error)}); check that the copy is whole"
            ) from None
        values = values.transpose([sorted(self._order).index(axis) for axis in self._order])
        return values.astype(self.dtype, copy=False)


def _expanded(key: Any) -> list[Any]:
    """One whole number or slice for each of three axes."""
    keys = list(key) if isinstance(key, tuple) else [key]
    dots = [i for i, k in enumerate(keys) if k is Ellipsis]
    if len(keys) - len(dots) > 3 or len(dots) > 1:
        raise IndexError(f"too many indices for a volume of three axes: {len(keys)}")
    at = dots[0] if dots else len(keys)
    keys = keys[:at] + [slice(None)] * (3 - len(keys) + len(dots)) + keys[at + 1 :]
    try:
        return [k if isinstance(k, slice) else operator.index(k) for k in keys]
    except TypeError:
        raise IndexError(
            "a LazyArray takes whole numbers and slices; make an array of it with numpy.asarray first"
        ) from None


class Negated(NDArrayOperatorsMixin):
    """A volume with its contrast inverted: what is indexed is read, and comes as 32-bit floats.

    Arguments:
        stored: (nz, ny, nx), an array or what can be indexed like one.
    """

    ndim = 3
    dtype = np.dtype(np.float32)

    def __init__(self, stored: Any):
        self.base, self.shape = stored, tuple(stored.shape)
        self.size, self.nbytes = int(np.prod(stored.shape)), int(stored.nbytes)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("an inverted volume cannot be viewed without a copy")
        return self[:].astype(dtype or self.dtype, copy=False)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return getattr(ufunc, method)(*(np.asarray(i) if isinstance(i, Negated) else i for i in inputs), **kwargs)

    def __getitem__(self, key: Any) -> Any:
        return np.negative(np.asarray(self.base[key], np.float32))
