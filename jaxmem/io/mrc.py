"""MRC volumes, read permissively and written completely (MRC2014; Cheng et al. 2015)."""

import bz2
import gzip
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import mrcfile
import numpy as np

from jaxmem.types import JaxmemError, Tomogram

_BYTES = {0: 1, 1: 2, 2: 4, 6: 2, 12: 2}
_OTHER_MODES = {3: "complex", 4: "complex", 16: "RGB", 101: "packed 4-bit"}
_IMOD_STAMP = 1146047817
_SLAB = 2**23  # voxels written at a time


class _Header(NamedTuple):
    shape: tuple[int, int, int]  # columns, rows, sections
    mode: int
    unsigned_bytes: bool
    extended: int


def _opener(path: Path):
    return {".gz": gzip.open, ".bz2": bz2.open}.get(path.suffix, open)


def _check(path: Path) -> _Header:
    """Read the first 1024 bytes and say in one line what is wrong, before a library guesses."""
    try:
        with _opener(path)(path, "rb") as file:
            raw = file.read(1024)
    except FileNotFoundError:
        raise JaxmemError(f"{path}: no such file; check the name") from None
    except (OSError, EOFError, zlib.error) as error:
        raise JaxmemError(f"{path}: cannot be read ({error}); check that the file is whole") from None
    if len(raw) < 1024:
        raise JaxmemError(
            f"{path}: not an MRC file ({len(raw)} bytes, a header takes 1024); give a .mrc, .rec or .map file"
        )
    order = ">" if raw[212:214] in (b"\x11\x11",) else "<"
    nx, ny, nz, mode = struct.unpack(order + "4i", raw[:16])
    extended = struct.unpack(order + "i", raw[92:96])[0]
    axes = struct.unpack(order + "3i", raw[64:76])
    stamp, flags = struct.unpack(order + "2i", raw[152:160])
    sane = all(0 < n < 200_000 for n in (nx, ny, nz)) and 0 <= extended < 2**31
    if not sane or not (raw[208:211] == b"MAP" or sorted(axes) == [1, 2, 3]):
        raise JaxmemError(f"{path}: not an MRC file (no valid header); give a .mrc, .rec or .map file")
    if mode in _OTHER_MODES or mode not in _BYTES:
        kind = _OTHER_MODES.get(mode, "unknown")
        raise JaxmemError(f"{path}: mode {mode} ({kind}) is not a density; convert it to mode 0, 1, 2, 6 or 12")
    if sorted(axes) not in ([1, 2, 3], [0, 0, 0]):
        raise JaxmemError(
            f"{path}: axis order {axes} is not a permutation of 1, 2, 3; mend mapc, mapr, maps in the header"
        )
    return _Header((nx, ny, nz), mode, stamp == _IMOD_STAMP and not flags & 1, extended)


def read_mrc(
    path: str | Path, voxel_size: float | None = None, *, labels: bool = False, unsigned: bool = False
) -> Tomogram:
    """Read a volume.

    Uncompressed files are memory-mapped. Axes are put into zyx order. The origin follows ChimeraX: the header's origin,
    or nstart times the voxel size where it is zero.

    Arguments:
        path: .mrc, .rec, .map, .st; also with .gz or .bz2.
        voxel_size: A; replaces the header's. Needed where the header has 0 or 1.0, which count as unknown.
        labels: the file holds a truth's labels: its voxel size may be unknown (1.0 is then returned).
        unsigned: bytes of mode 0 are 0 to 255, though the header does not say so.

    Raises:
        JaxmemError: not an MRC file, truncated, complex or RGB, unknown or non-cubic voxel size.

    Example:
        >>> read_mrc("missing.mrc")
        Traceback (most recent call last):
        jaxmem.types.JaxmemError: missing.mrc: no such file; check the name
    """
    path = Path(path)
    header = _check(path)
    count = int(np.prod(header.shape, dtype=np.int64))
    needed = 1024 + header.extended + count * _BYTES[header.mode]
    compressed = path.suffix in (".gz", ".bz2")
    if not compressed and path.stat().st_size < needed:
        raise JaxmemError(
            f"{path}: truncated: the header claims {needed} bytes, the file has {path.stat().st_size}; copy it again"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a permissive reader warns about what has been checked above
            opened = (mrcfile.open if compressed else mrcfile.mmap)(path, mode="r", permissive=True)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise JaxmemError(f"{path}: cannot be read as MRC ({error}); check that the file is whole") from None
    with opened as file:
        data, head = file.data, file.header
        if data is None or data.size != count:
            raise JaxmemError(f"{path}: truncated: the header claims {count} voxels; copy it again")
        lengths = np.array([float(head.cella[a]) for a in "xyz"])
        intervals = np.array([int(head.mx), int(head.my), int(head.mz)])
        if intervals[2] == 1 and int(head.ispg) == 0 and header.shape[2] > 1:
            # the header of a stack of images: its third length is that of one slice, or of all
            lengths[2] = lengths[0] / max(intervals[0], 1)
        axes = [int(head.mapc), int(head.mapr), int(head.maps)]
        starts = [int(head.nxstart), int(head.nystart), int(head.nzstart)]
        head_origin = (float(head.origin.x), float(head.origin.y), float(head.origin.z))
    data = data.reshape(header.shape[::-1])
    if (header.unsigned_bytes or unsigned) and data.dtype == np.int8:
        data = data.view(np.uint8)
    axes = axes if sorted(axes) == [1, 2, 3] else [1, 2, 3]
    by_array_axis = axes[::-1]  # sections, rows, columns
    data = data.transpose([by_array_axis.index(a) for a in (3, 2, 1)])
    nstart = (starts[axes.index(1)], starts[axes.index(2)], starts[axes.index(3)])
    with np.errstate(divide="ignore", invalid="ignore"):
        size = cubic_size(path, lengths / intervals, voxel_size, labels)
    finite = all(np.isfinite(head_origin))
    from_start = (nstart[0] * size, nstart[1] * size, nstart[2] * size)
    origin = head_origin if finite and any(head_origin) else from_start
    return Tomogram(data, size, origin, nstart, head_origin if finite else (0.0, 0.0, 0.0))


def cubic_size(path: Path, sizes: np.ndarray, given: float | None, labels: bool = False) -> float:
    """The edge of a voxel that is to be a cube, in A.

    Arguments:
        path: for messages.
        sizes: (3,) edges that the file gives, A, xyz. Not finite, not positive or all 1.0 is unknown.
        given: replaces them.
        labels: an unknown size is 1.0.

    Raises:
        JaxmemError: if the size is unknown or not the same along all axes, or the given one is not positive.
    """
    if given is not None:
        if not (np.isfinite(given) and given > 0):
            raise JaxmemError(f"{path}: --voxel-size must be a positive number of A, got {given}")
        return float(given)
    if not np.isfinite(sizes).all() or (sizes <= 0).any() or np.allclose(sizes, 1.0):
        if labels:
            return 1.0
        shown = "0" if not np.isfinite(sizes).all() or (sizes <= 0).any() else "1.0"
        raise JaxmemError(f"{path}: the header's voxel size is {shown}, which means unknown; give --voxel-size in A")
    if np.ptp(sizes) > 0.01 * sizes.mean():
        shown = " x ".join(f"{s:.3f}" for s in sizes)
        raise JaxmemError(
            f"{path}: voxels are not cubic ({shown} A, xyz); resample the volume, or give --voxel-size if the header is wrong"
        )
    return float(sizes.mean())


def write_mrc(path: str | Path, data: Any, like: Tomogram) -> None:
    """Write a volume that lies exactly on `like`: voxel size, origin and nstart are its own; axes in standard order.

    A file that is not compressed is written slab by slab, so that the volume need not be in memory. Equal volumes give equal bytes.

    Arguments:
        path: compressed if it ends in .gz or .bz2.
        data: (nz, ny, nx) int8, int16, uint16, float16 or float32; an array, or what gives one when it is sliced along axis 0.
        like: the input the volume belongs to.

    Raises:
        OSError: if the file cannot be written.
    """
    compression = {".gz": "gzip", ".bz2": "bzip2"}.get(Path(path).suffix)
    if compression:
        with mrcfile.new(path, compression=compression, overwrite=True) as file:
            file.set_data(np.ascontiguousarray(data))
            _describe(file, like)
            file.update_header_stats()
        return
    dtype = np.dtype(data.dtype)
    with mrcfile.new_mmap(path, data.shape, mrcfile.utils.mode_from_dtype(dtype), overwrite=True) as file:
        _describe(file, like)
        start = file.header.nbytes
    count, total, square, least, most = int(np.prod(data.shape)), 0.0, 0.0, np.inf, -np.inf
    step = max(1, _SLAB // (data.shape[1] * data.shape[2]))
    with open(path, "r+b") as file:  # not through the map: a full disk would end the process there, without a word
        file.seek(start)
        for z in range(0, data.shape[0], step):
            slab = np.ascontiguousarray(data[z : z + step])
            file.write(slab.data)
            least, most = min(least, float(slab.min())), max(most, float(slab.max()))
            total += float(slab.sum(dtype=np.float64))
            square += float(np.einsum("i,i->", *[slab.reshape(-1)] * 2, dtype=np.float64, casting="safe"))
    with mrcfile.mmap(path, "r+") as file:
        mean = total / count
        known = least, most, mean, max(square / count - mean**2, 0.0) ** 0.5
        # what MRC2014 writes where they are not known
        head = file.header
        head.dmin, head.dmax, head.dmean, head.rms = known if np.isfinite(known).all() else (0.0, -1.0, -2.0, -1.0)


def _describe(file: Any, like: Tomogram) -> None:
    """The header's fields but for the statistics; the label holds no date, so that equal volumes are equal files."""
    file.set_volume()
    file.voxel_size = like.voxel_size
    head = file.header
    head.nxstart, head.nystart, head.nzstart = like.nstart
    head.origin.x, head.origin.y, head.origin.z = like.header_origin
    head.label[0] = b"jaxmem"


def as_instances(data: np.ndarray, name: str) -> np.ndarray:
    """Label values as whole numbers that are not negative; bytes above 127 are recognised.

    Arguments:
        data: labels of any real dtype.
        name: of the file, for the message.

    Raises:
        JaxmemError: if a value is not whole, not finite, above 2^53, or negative in more than 8 bits.
    """
    data = np.asarray(data)
    if data.dtype == np.int8 and data.min(initial=0) < 0:
        return data.view(np.uint8)  # written by a program that takes mode 0 as unsigned
    whole = (np.abs(data) <= 2**53).all() and (data == np.round(data)).all()  # exact in double precision; False for NaN
    if not whole or data.min(initial=0) < 0:
        raise JaxmemError(f"{name}: labels must be whole numbers from 0; this looks like a density or a probability")
    return data.astype(np.int64) if data.dtype.kind == "f" else data
