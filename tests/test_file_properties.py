"""Properties of files: what is written is read as it was, and whatever the bytes, only the package's own error is raised."""

import bz2
import gzip
import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from strategies import drawn

from jaxmem.io import as_instances, read_mrc, read_ply, write_mrc, write_ply
from jaxmem.types import JaxmemError, Tomogram

SIZES = st.sampled_from([1, 2, 3, 5])
SUFFIXES = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}
MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@st.composite
def volumes(draw):
    code = draw(st.sampled_from(list(MODES.values())))
    shape = draw(st.tuples(SIZES, SIZES, SIZES))
    limit = {"f4": 2.0**60, "f2": 2.0**15}.get(code, 0)
    return draw(arrays(code, shape, elements={"min_value": -limit, "max_value": limit} if limit else None))


def single(low, high):
    return st.floats(low, high, width=32)


PLACES = st.fixed_dictionaries(
    {
        "voxel_size": single(2**-10, 2**20).filter(lambda v: abs(v - 1.0) > 1e-3),
        "nstart": st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 3),
        "header_origin": st.tuples(*[single(-(2**100), 2**100)] * 3),
    }
)


def mrc_bytes(values, axes=(1, 2, 3), order="<", voxel_size=10.0, nstart=(0, 0, 0), header_origin=(0.0, 0.0, 0.0)):
    """A file by the standard alone: `values` is zyx, columns, rows and sections of the file run along `axes`."""
    stored = values.transpose([3 - axis for axis in axes[::-1]])
    mode = next(m for m, code in MODES.items() if np.dtype(code) == values.dtype)
    head = bytearray(1024)
    cell = [n * voxel_size for n in values.shape[::-1]]
    struct.pack_into(order + "4i", head, 0, *stored.shape[::-1], mode)
    struct.pack_into(order + "6i", head, 16, *(nstart[axis - 1] for axis in axes), *values.shape[::-1])
    struct.pack_into(order + "6f3i", head, 40, *cell, 90.0, 90.0, 90.0, *axes)
    struct.pack_into(order + "i", head, 88, 1)
    struct.pack_into(order + "3f", head, 196, *header_origin)
    head[208:216] = b"MAP " + (b"\x44\x44\0\0" if order == "<" else b"\x11\x11\0\0")
    return bytes(head) + stored.astype(values.dtype.newbyteorder(order)).tobytes()


def check_place(tomogram, place):
    assert tomogram.voxel_size == pytest.approx(place["voxel_size"], rel=1e-5)
    assert tomogram.nstart == place["nstart"]
    assert tomogram.header_origin == place["header_origin"]
    start = tuple(tomogram.voxel_size * n for n in place["nstart"])
    assert tomogram.origin == (place["header_origin"] if any(place["header_origin"]) else start)


@drawn
@given(values=volumes(), place=PLACES, suffix=st.sampled_from(list(SUFFIXES)))
def test_a_written_volume_is_read_as_it_was(folder, values, place, suffix):
    path = folder / f"a.mrc{suffix}"
    write_mrc(path, values, Tomogram(values, **place))
    again = read_mrc(path)
    assert again.data.dtype == values.dtype
    assert np.array_equal(again.data, values)
    check_place(again, place)


@drawn
@given(
    values=volumes(),
    place=PLACES,
    axes=st.permutations([1, 2, 3]),
    order=st.sampled_from("<>"),
    suffix=st.sampled_from(list(SUFFIXES)),
)
def test_axes_and_byte_orders_of_the_standard_are_put_right(folder, values, place, axes, order, suffix):
    path = folder / f"b.mrc{suffix}"
    path.write_bytes(SUFFIXES[suffix](mrc_bytes(values, axes, order, **place)))
    again = read_mrc(path)
    assert np.array_equal(again.data, values)
    check_place(again, place)


WORDS = st.one_of(
    st.sampled_from([0, 1, 2, 3, 4, 8, 401, 2**31 - 1, 199_999]).map(lambda n: struct.pack("<i", n)),
    st.sampled_from([0.0, -1.0, 1e38, float("nan"), float("inf")]).map(lambda v: struct.pack("<f", v)),
    st.binary(min_size=4, max_size=4),
)
EDITS = st.lists(st.tuples(st.integers(0, 63), WORDS), max_size=4)


def garbled(raw, edits, length):
    raw = bytearray(raw)
    for place, word in edits:
        raw[4 * place : 4 * place + 4] = word
    return bytes(raw[:length])


def check_refused_or_sane(read):
    """Whatever the bytes: a volume with a place, or the package's own error in one line."""
    try:
        tomogram = read()
    except JaxmemError as error:
        message = str(error)
    else:
        message = ""
        assert tomogram.data.ndim == 3
        assert tomogram.data.size > 0
        assert np.isfinite([tomogram.voxel_size, *tomogram.origin]).all()
        assert tomogram.voxel_size > 0
    assert "\n" not in message


@settings(drawn, max_examples=200)
@given(
    edits=EDITS,
    length=st.sampled_from([0, 3, 1023, 1024, 1050, 9999]),
    suffix=st.sampled_from(list(SUFFIXES)),
    given_size=st.sampled_from([None, 10.0]),
)
@example(
    edits=[(0, struct.pack("<i", 199_999)), (1, struct.pack("<i", 199_999))], length=9999, suffix=".gz", given_size=None
)
def test_garbled_headers_are_refused_or_read(folder, edits, length, suffix, given_size):
    path = folder / f"c.mrc{suffix}"
    raw = mrc_bytes(np.arange(30, dtype="i2").reshape(2, 3, 5))
    path.write_bytes(SUFFIXES[suffix](garbled(raw, edits, length)))
    check_refused_or_sane(lambda: read_mrc(path, given_size))


@settings(drawn, max_examples=60)
@given(
    raw=st.one_of(st.binary(max_size=64), st.binary(min_size=1024, max_size=1100)),
    suffix=st.sampled_from(["", ".gz", ".bz2"]),
)
@example(raw=b"", suffix=".gz")
@example(raw=gzip.compress(b"")[:-3], suffix=".gz")
def test_random_bytes_are_refused_or_read(folder, raw, suffix):
    path = folder / f"d.mrc{suffix}"
    path.write_bytes(raw)
    check_refused_or_sane(lambda: read_mrc(path))
    path.write_bytes(raw)
    with pytest.raises(JaxmemError):
        read_ply(path)


@drawn
@given(values=arrays(st.sampled_from(["i1", "i2", "u2", "f4", "f8"]), st.sampled_from([(0,), (1,), (2, 3)])))
@example(values=np.array([2.0**63], np.float32))
def test_labels_are_whole_or_refused(values):
    try:
        labels = as_instances(values, "labels")
    except JaxmemError:
        assert values.dtype == np.int16 or values.dtype.kind == "f"
        return
    assert labels.dtype.kind in "iu"
    assert labels.min(initial=0) >= 0
    assert values.dtype == np.int8 or np.array_equal(labels, values)
    assert np.array_equal(as_instances(labels, "labels"), labels)


@st.composite
def meshes(draw):
    n, m = draw(st.sampled_from([(0, 0), (1, 0), (1, 1), (3, 1), (5, 4)]))
    numbers = st.floats(width=32)
    vertices = draw(arrays("f4", (n, 3), elements=numbers))
    faces = draw(arrays("i4", (m, 3), elements=st.integers(0, max(n - 1, 0))))
    names = draw(st.lists(st.sampled_from(["sigma", "seen", "mean_curvature", "nx"]), unique=True))
    kinds = st.sampled_from([arrays(bool, n), arrays("f4", n, elements=numbers)])
    return vertices, faces, {name: draw(draw(kinds)) for name in names}


@drawn
@given(mesh=meshes())
def test_a_written_mesh_is_read_as_it_was(folder, mesh):
    vertices, faces, properties = mesh
    write_ply(folder / "a.ply", vertices, faces, properties, "units: A")
    v, f, others = read_ply(folder / "a.ply")
    assert np.array_equal(v, vertices, equal_nan=True)
    assert np.array_equal(f, faces)
    assert list(others) == list(properties)
    assert all(np.array_equal(others[name], properties[name], equal_nan=True) for name in properties)


@settings(drawn, max_examples=200)
@given(
    change=st.sampled_from(
        [b"\n", b" ", b"3", b"x", b"float", b"vertex", b"face", b"property", b"element", b"list", b"uchar"]
    ),
    to=st.one_of(
        st.sampled_from([b"", b"-1", b"9" * 30, b"\xff", b"vertex", b"double", b"char"]), st.binary(max_size=3)
    ),
    count=st.sampled_from([1, -1]),
    cut=st.integers(0, 300),
)
def test_garbled_meshes_are_refused_or_read(folder, change, to, count, cut):
    path = folder / "b.ply"
    write_ply(path, np.eye(3), np.array([[0, 1, 2]]), {"sigma": np.ones(3)})
    head, body = path.read_bytes().split(b"end_header\n")
    path.write_bytes((head.replace(change, to, count) + b"end_header\n" + body)[: 1000 if cut > 250 else cut])
    try:
        vertices, faces, others = read_ply(path)
    except JaxmemError:
        return
    assert vertices.shape[1:] == faces.shape[1:] == (3,)
    assert all(values.shape == (len(vertices),) for values in others.values())
    assert np.isin(faces, np.arange(len(vertices))).all()
