"""What a run has finished, kept in a folder piece by piece, so that a killed run goes on and a changed setting redoes only what depends on it.

A piece is named after everything it was made from: another input, setting or version gives another name, and a piece is never out of
date. It is written under another name and renamed, and carries a checksum (CRC-32) of each of its arrays: what is half written or damaged
does not count.
"""

import functools
import hashlib
import json
import os
import shutil
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxmem.types import JaxmemError

Piece = dict[str, np.ndarray]

_CACHED = 4  # slabs that a volume keeps in memory


def key_of(*parts: Any) -> str:
    """A short name for whatever JSON can hold.

    Example:
        >>> key_of("a", 1) == key_of("a", 1), key_of("a", 1) == key_of("a", 2)
        (True, False)
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class Pieces:
    """Named groups of arrays in a folder.

    Arguments:
        folder: where pieces are written; made when the first one is.
        earlier: where those of an earlier run lie, which are used as they are.
    """

    def __init__(self, folder: str | Path, earlier: str | Path | None = None):
        self.folder = Path(folder)
        self._places = [self.folder] + ([Path(earlier)] if earlier else [])
        self.used: dict[str, Path] = {}

    def get(self, name: str) -> Piece | None:
        """A piece, or None if it is not there or not whole."""
        for place in self._places:
            path = place / f"{name}.npz"
            try:
                with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                    piece = {key: file[key] for key in file.files}
            except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
                continue
            self.used[name] = path
            return piece
        return None

    def take(self, name: str) -> Piece:
        """A piece that has been written before.

        Raises:
            JaxmemError: if it is not there any more, or damaged.
        """
        piece = self.get(name)
        if piece is None:
            raise JaxmemError(
                f"{self.folder / name}.npz: gone or damaged while the run went on; give the same command again"
            )
        return piece

    def put(self, name: str, piece: Piece) -> None:
        """Write a piece.

        Raises:
            JaxmemError: if the folder cannot be written, or the disk is full.
        """
        path = self.folder / f"{name}.npz"
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(partial, "w") as file:
                for key, array in piece.items():
                    entry = zipfile.ZipInfo(f"{key}.npy")  # without a date, so that equal pieces are equal files
                    entry.compress_type, entry._compresslevel = zipfile.ZIP_DEFLATED, 1  # type: ignore[attr-defined]
                    with file.open(entry, "w", force_zip64=True) as out:
                        np.lib.format.write_array(out, np.asanyarray(array), allow_pickle=False)
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise JaxmemError(
                f"{self.folder}: cannot be written ({error.strerror}); make room, and the same command goes on from here"
            ) from None
        self.used[name] = path

    def keep(self, folder: Path, most: float) -> None:
        """Put the pieces that were used into another folder, stage by stage as long as they take at most so many bytes.

        Links where the file system has them; copies elsewhere.
        """
        stages: dict[str, list[str]] = {}
        for name in self.used:
            stages.setdefault(name.split("-")[0], []).append(name)
        for names in stages.values():
            size = sum(self.used[name].stat().st_size for name in names)
            if size > most:
                continue
            most -= size
            for name in names:
                target = folder / f"{name}.npz"
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(self.used[name], target)
                except OSError:
                    shutil.copyfile(self.used[name], target)


class Slabs:
    """A volume that is read, or made, slab by slab along axis 0 when it is asked for.

    Arguments:
        read: from the number of a slab to its array; the last few are kept in memory.
        shape: of the volume.
        dtype: of its values.
        slab: slices in a slab; the last one may have fewer.
    """

    def __init__(self, read: Callable[[int], np.ndarray], shape: tuple[int, ...], dtype: Any, slab: int):
        self.shape, self.dtype, self.ndim = shape, np.dtype(dtype), len(shape)
        self._slab, self._lock = slab, threading.Lock()
        self._read = functools.lru_cache(_CACHED)(read)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        first, rest = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        if isinstance(first, slice):
            index = range(*first.indices(len(self)))
            if not len(index):
                return np.zeros((0, *self.shape[1:]), self.dtype)[(slice(None), *rest)]
            if index.step == 1:
                return np.concatenate([part[(slice(None), *rest)] for part in self._parts(index.start, index.stop)])
            return np.stack([self[(z, *rest)] for z in index])
        z = int(first) + (len(self) if first < 0 else 0)
        if not 0 <= z < len(self):
            raise IndexError(f"slice {first} of {len(self)}")
        return self._at(z // self._slab)[(z % self._slab, *rest)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def _at(self, k: int) -> np.ndarray:
        with self._lock:
            return self._read(k)

    def _parts(self, start: int, stop: int) -> list[np.ndarray]:
        first, last = start // self._slab, (stop - 1) // self._slab
        return [self._at(k)[max(start - k * self._slab, 0) : stop - k * self._slab] for k in range(first, last + 1)]
