"""OME-Zarr: read lazily and in the right place, written as the specification has it, refused in one line."""

import hashlib
import importlib
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import PACKAGE

from jaxmem.io import LazyArray, is_zarr, read_mrc, read_volume, read_zarr, write_mrc, write_zarr
from jaxmem.io import lazy as lazy_module
from jaxmem.types import JaxmemError, Tomogram

zarr = pytest.importorskip("zarr")
yaozarrs = pytest.importorskip("yaozarrs")

SHAPE = (12, 6, 8)
FORMATS = ["0.4", "0.5"]


def volume(shape=SHAPE, dtype=np.int16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def scaled(*steps):
    """Coordinate transformations: tuples are scales, lists translations."""
    return [
        {"type": "scale", "scale": list(s)} if isinstance(s, tuple) else {"type": "translation", "translation": s}
        for s in steps
    ]


def spaced(names="zyx", unit="angstrom"):
    kinds = {"t": "time", "c": "channel"}
    return [{"name": n, "type": kinds[n]} if n in kinds else {"name": n, "type": "space"} | ({"unit": unit} if unit else {}) for n in names]  # fmt: skip


@pytest.fixture
def ome(tmp_path):
    """Write levels as an OME-Zarr and return its path; `steps` are the transformations of each level."""

    def write(levels, steps, version="0.4", axes=None, own=None, name="in.zarr", chunks=(4, 3, 8)) -> Path:
        path = tmp_path / name
        group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
        for i, values in enumerate(levels):
            fitting = tuple(min(c, n) for c, n in zip((1,) * (values.ndim - 3) + chunks, values.shape))
            key = {"name": "v2", "separator": "/"} if version == "0.4" else {"name": "default", "separator": "/"}
            names = None if version == "0.4" else [axis["name"] for axis in axes or spaced()]
            group.create_array(f"s{i}", data=values, chunks=fitting, chunk_key_encoding=key, dimension_names=names)
        sets = [{"path": f"s{i}", "coordinateTransformations": one} for i, one in enumerate(steps)]
        image = {"axes": axes or spaced(), "datasets": sets, "name": "in"}
        image |= {"coordinateTransformations": own} if own else {}
        if version == "0.4":
            group.attrs.put({"multiscales": [image | {"version": "0.4"}]})
        else:
            group.attrs.put({"ome": {"version": "0.5", "multiscales": [image]}})
        return path

    return write


def edit(path, change, name=".zattrs"):
    content = json.loads((path / name).read_text())
    change(content)
    (path / name).write_text(json.dumps(content))


@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", "f4", "f8", "bool"])
def test_both_versions(ome, version, dtype):
    values = (volume() % 2).astype(dtype) if dtype == "bool" else volume(dtype=dtype)
    path = ome([values], [scaled((10.0, 10.0, 10.0), [3.0, 2.0, -1.0])], version)
    yaozarrs.validate_zarr_store(str(path))
    tomogram = read_zarr(path)
    assert isinstance(tomogram.data, LazyArray)
    assert tomogram.data.dtype == np.dtype(dtype).newbyteorder("=")
    assert tomogram.data[0].dtype.isnative
    assert np.array_equal(np.asarray(tomogram.data), values)
    assert tomogram.voxel_size == 10.0
    assert tomogram.origin == tomogram.header_origin == (-1.0, 2.0, 3.0)
    assert tomogram.nstart == (0, 0, 0)


@pytest.mark.parametrize(
    ("unit", "factor"), [("angstrom", 1.0), ("nanometer", 10.0), ("micrometer", 1e4), (None, 1.0), ("Angstrom", 1.0)]
)
def test_units(ome, unit, factor):
    size, place = 7.5 / factor, [30.0 / factor, 20.0 / factor, 10.0 / factor]
    tomogram = read_zarr(ome([volume()], [scaled((size,) * 3, place)], axes=spaced(unit=unit)))
    assert tomogram.voxel_size == pytest.approx(7.5)
    assert tomogram.origin == pytest.approx((10.0, 20.0, 30.0))


@pytest.mark.parametrize("version", FORMATS)
def test_transformations_of_the_level_come_before_those_of_the_image(ome, version):
    own = scaled((5.0, 5.0, 5.0), [100.0, 200.0, 300.0])
    tomogram = read_zarr(ome([volume()], [scaled((2.0, 2.0, 2.0), [1.0, 2.0, 3.0])], version, own=own))
    assert tomogram.voxel_size == 10.0
    assert tomogram.origin == (315.0, 210.0, 105.0)


@pytest.mark.parametrize("names", ["".join(p) for p in itertools.permutations("zyx")])
@pytest.mark.parametrize("version", FORMATS)
def test_axes_are_put_in_order(ome, names, version):
    order = ["zyx".index(n) for n in names]
    place = np.array([1.0, 2.0, 3.0])[order].tolist()
    path = ome([volume().transpose(order)], [scaled((10.0,) * 3, place)], version, axes=spaced(names))
    tomogram = read_zarr(path)
    assert tomogram.data.shape == SHAPE
    assert np.array_equal(tomogram.data[:], volume())
    assert np.array_equal(tomogram.data[3, 1:4, ::2], volume()[3, 1:4, ::2])
    assert np.array_equal(tomogram.data[5], volume()[5])
    assert tomogram.origin == (3.0, 2.0, 1.0)


def test_axes_of_one_entry_are_dropped(ome):
    axes, step = spaced("tczyx"), scaled((1.0, 1.0, 9.0, 9.0, 9.0), [7.0, 7.0, 1.0, 2.0, 3.0])
    tomogram = read_zarr(ome([volume()[None, None]], [step], axes=axes))
    assert np.array_equal(tomogram.data[:], volume())
    assert (tomogram.voxel_size, tomogram.origin) == (9.0, (3.0, 2.0, 1.0))
    with pytest.raises(JaxmemError, match="axis c has 2 entries"):
        read_zarr(ome([np.stack([volume()] * 2)[None]], [step], axes=axes))


KEYS = [
    0, -1, np.int64(7), slice(None), slice(2, 9), slice(5, 2), slice(None, None, -1), slice(9, 1, -3), (3, 2), (3, 2, 1),
    (slice(None), 4), (Ellipsis, 5), (2, Ellipsis, slice(1, 3)), Ellipsis, (slice(1, 3), slice(4, 5), slice(None, None, 2)),
    (slice(0, 3), slice(None), slice(None)), (slice(4, 8, 2),), slice(40, 50), (slice(None), slice(3, 3)),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_indexing_is_that_of_numpy(ome, key):
    data = read_zarr(ome([volume()], [scaled((10.0,) * 3)])).data
    for _ in range(2):  # from the file, and from what was kept
        got = data[key]
        assert got.shape == volume()[key].shape
        assert np.array_equal(got, volume()[key])


def test_lazy_arrays_are_like_arrays(ome):
    data = read_zarr(ome([volume()], [scaled((10.0,) * 3)])).data
    assert (data.shape, data.ndim, len(data), data.size) == (SHAPE, 3, 12, volume().size)
    assert data.nbytes == volume().nbytes
    assert np.array_equal(data > 5, volume() > 5)
    assert np.array_equal(data != 0, volume() != 0)
    assert np.asarray(data, np.float32).dtype == np.float32
    assert [int(plane.sum()) for plane in data] == volume().sum((1, 2)).tolist()
    assert "shape=(12, 6, 8)" in repr(data)
    data[2][:] = 0  # what is handed out is the caller's
    assert np.array_equal(data[2], volume()[2])
    for bad, message in (
        ((0, 0, 0, 0), "too many"),
        (12, "range"),
        (None, "asarray"),
        ([0, 1], "asarray"),
        ("a", "asarray"),
    ):
        with pytest.raises(IndexError, match=message):
            data[bad]
    with pytest.raises(ValueError, match="copy"):
        np.array(data, copy=False)


@pytest.fixture
def reads(monkeypatch):
    """Stored spans along z that were read from files."""
    seen = []
    plain = LazyArray._fetch

    def fetch(self, spans):
        seen.append((spans[0].start, spans[0].stop))
        return plain(self, spans)

    monkeypatch.setattr(LazyArray, "_fetch", fetch)
    return seen


def test_each_chunk_is_read_once_plane_by_plane(ome, reads):
    data = read_zarr(ome([volume()], [scaled((10.0,) * 3)], chunks=(5, 3, 8))).data
    assert reads == []
    for z in range(12):
        assert np.array_equal(data[z], volume()[z])
    assert reads == [(0, 5), (5, 10), (10, 12)]
    data[11], data[10:12], data[3, 2:4]
    assert reads[3:] == [(3, 4)]  # of a part of a plane nothing else is read


def test_what_is_kept_is_bounded(ome, reads, monkeypatch):
    monkeypatch.setattr(lazy_module, "_KEPT", 3 * 6 * 8 * 2)  # three planes
    data = read_zarr(ome([volume()], [scaled((10.0,) * 3)], chunks=(5, 3, 8))).data
    for z in range(12):
        assert np.array_equal(data[z], volume()[z])
    assert reads == [(0, 3), (3, 5), (5, 8), (8, 10), (10, 12)]
    monkeypatch.setattr(lazy_module, "_KEPT", 1)
    data = read_zarr(ome([volume()], [scaled((10.0,) * 3)], chunks=(5, 3, 8))).data
    reads.clear()
    assert np.array_equal(data[4], volume()[4])
    assert reads == [(4, 5)]


def test_opening_touches_no_chunk(ome):
    path = ome([volume()], [scaled((10.0,) * 3)])
    for chunk in (path / "s0" / "1").rglob("0"):
        if chunk.is_file():
            chunk.write_bytes(b"spoilt")
    data = read_zarr(path).data
    assert np.array_equal(data[:4], volume()[:4])
    with pytest.raises(
        JaxmemError, match=r"in.zarr: a chunk cannot be read \(.*check that the copy is whole"
    ) as caught:
        data[4]
    assert "\n" not in str(caught.value)


def test_sharded_arrays(tmp_path, reads):
    group = zarr.open_group(tmp_path / "a", mode="w", zarr_format=3)
    group.create_array("0", shape=SHAPE, chunks=(2, 3, 4), shards=(6, 6, 8), dtype="i2")[:] = volume()
    image = {"axes": spaced(), "datasets": [{"path": "0", "coordinateTransformations": scaled((10.0,) * 3)}]}
    group.attrs.put({"ome": {"version": "0.5", "multiscales": [image]}})
    assert np.array_equal(read_zarr(tmp_path / "a").data[5], volume()[5])
    assert reads == [(4, 6)]


@pytest.fixture
def pyramid(ome):
    """Levels of 5, 10, 20 and 40 A, each centred on the voxels that it averages, and one that is not cubic."""
    sizes = [(5.0,) * 3, (10.0,) * 3, (20.0,) * 3, (20.0, 40.0, 40.0)]
    arrays = [volume(tuple(max(1, n >> k) for n in SHAPE)) for k in range(4)]
    return ome(arrays, [scaled(s, [(x - 5.0) / 2 for x in s]) for s in sizes])


def test_levels(pyramid):
    assert (read_zarr(pyramid).voxel_size, read_zarr(pyramid, level=0).data.shape) == (5.0, SHAPE)
    second = read_zarr(pyramid, level=2)
    assert (second.voxel_size, second.origin, second.data.shape) == (20.0, (7.5,) * 3, (3, 1, 2))
    for level in (4, -1):
        with pytest.raises(JaxmemError) as caught:
            read_zarr(pyramid, level=level)
        assert str(caught.value) == (
            f"{pyramid}: no level {level}; give one of these: "
            "0 (5.00 A), 1 (10.00 A), 2 (20.00 A), 3 (40.00 x 40.00 x 20.00 A)"
        )
    with pytest.raises(JaxmemError, match="not cubic"):
        read_zarr(pyramid, level=3)
    assert read_zarr(pyramid, 33.0, level=3).voxel_size == 33.0


@pytest.mark.parametrize(
    ("pixel_size", "expected"),
    [(1.0, 5.0), (5.0, 5.0), (7.0, 5.0), (7.2, 10.0), (13.0, 10.0), (13.4, 10.0), (14.2, 20.0), (16.0, 20.0), (500.0, 20.0)],
)  # fmt: skip
def test_the_level_nearest_to_the_network(pyramid, pixel_size, expected):
    assert read_zarr(pyramid, pixel_size=pixel_size).voxel_size == expected


def test_a_finer_level_is_preferred_to_one_without_detail(ome):
    levels, steps = [volume(), volume()], [scaled((4.0,) * 3), scaled((16.0,) * 3)]
    path = ome(levels, steps)
    assert read_zarr(path, pixel_size=10.0).voxel_size == 4.0  # 16 is nearer in ratio
    assert read_zarr(path, pixel_size=11.0).voxel_size == 16.0
    assert read_zarr(path, 12.0, pixel_size=11.0).data.shape == SHAPE
    assert read_zarr(path, 12.0, pixel_size=11.0).voxel_size == 12.0


def test_unknown_voxel_size(ome):
    path = ome([volume(), volume((6, 3, 4))], [scaled((1.0,) * 3), scaled((2.0,) * 3)])
    for level in (None, 0, 1):
        with pytest.raises(
            JaxmemError, match=r"the header's voxel size is 1.0, which means unknown; give --voxel-size"
        ):
            read_zarr(path, level=level, pixel_size=14.0)
    assert read_zarr(path, 14.0).voxel_size == 14.0
    assert read_zarr(path, labels=True).voxel_size == 1.0
    with pytest.raises(JaxmemError, match=r"no level 2; give one of these: 0 \(voxel size unknown\), 1"):
        read_zarr(path, level=2)
    edit(path, lambda c: c["multiscales"][0]["datasets"][0].pop("coordinateTransformations"))
    with pytest.raises(JaxmemError, match="unknown"):
        read_zarr(path)
    with pytest.raises(JaxmemError, match="positive"):
        read_zarr(path, -3.0)


def first(content):
    return content["multiscales"][0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.rename(p.with_name("elsewhere")), "no such folder; check the name"),
        (lambda p: (p.rename(p.with_name("b")), p.write_text("x")), "a file, where a Zarr is a folder"),
        (lambda p: [(p / n).unlink() for n in (".zattrs", ".zgroup")], "not a Zarr"),
        (lambda p: (p / ".zattrs").unlink(), "without multiscales"),
        (lambda p: (p / ".zattrs").write_text("{"), r"\.zattrs: cannot be read"),
        (lambda p: (p / ".zattrs").write_text("[]"), r"\.zattrs: cannot be read"),
        (lambda p: (p / "s0" / ".zarray").write_text("{"), "array s0 cannot be opened"),
        (lambda p: edit(p, lambda c: c.update(shape=3), "s0/.zarray"), "array s0 cannot be opened"),
        (lambda p: edit(p, lambda c: c["compressor"].update(id="nope"), "s0/.zarray"), "array s0 cannot be opened"),
        (lambda p: (p / "s0" / ".zarray").unlink(), "array s0 cannot be opened"),
        (lambda p: edit(p, lambda c: first(c).pop("axes")), "broken OME-Zarr metadata .KeyError: 'axes'"),
        (lambda p: edit(p, lambda c: first(c).update(datasets=[])), "no datasets"),
        (lambda p: edit(p, lambda c: c.update(multiscales=[])), "broken OME-Zarr metadata"),
        (lambda p: edit(p, lambda c: first(c).update(version="0.3")), "version 0.3 of OME-Zarr .Zarr 2. is not read"),
        (lambda p: edit(p, lambda c: first(c)["axes"][0].update(unit="foot")), "unit foot is not known"),
        (lambda p: edit(p, lambda c: first(c)["axes"][0].update(name="q")), "has axes q, y, x"),
        (lambda p: edit(p, lambda c: first(c)["axes"].pop(0)), "has axes y, x"),
        (lambda p: edit(p, lambda c: first(c)["datasets"][0].update(coordinateTransformations=scaled((2.0,)))), "1 values for 3"),
        (lambda p: edit(p, lambda c: first(c)["datasets"][0].update(coordinateTransformations=[{"type": "affine", "affine": [1, 2, 3]}])), "affine"),
        (lambda p: edit(p, lambda c: first(c)["datasets"][0].update(coordinateTransformations=scaled((0.0,) * 3))), "voxel size is 0"),
        (lambda p: edit(p, lambda c: first(c)["datasets"][0].update(coordinateTransformations=scaled((9.0, 9.0, 12.0)))), "not cubic .12.000 x 9.000 x 9.000 A, xyz."),
    ],
)  # fmt: skip
def test_bad_folders_are_named_in_one_line(ome, spoil, message):
    path = ome([volume()], [scaled((10.0,) * 3)])
    spoil(path)
    with pytest.raises(JaxmemError, match=message) as caught:
        read_zarr(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_version_0_4_need_not_be_said(ome):
    path = ome([volume()], [scaled((10.0,) * 3)])
    edit(path, lambda c: first(c).pop("version"))
    assert read_zarr(path).voxel_size == 10.0


def test_newer_versions_and_wrong_folders(ome):
    path = ome([volume()], [scaled((10.0,) * 3)], "0.5")
    with pytest.raises(JaxmemError, match=r"without multiscales; give the folder .*that of an array"):
        read_zarr(path / "s0")
    (path.parent / ".zattrs").write_text("{}")
    with pytest.raises(JaxmemError, match=r"such as in\.zarr in it"):
        read_zarr(path.parent)
    edit(path, lambda c: c["attributes"]["ome"].pop("version"), "zarr.json")
    with pytest.raises(JaxmemError, match="version missing"):
        read_zarr(path)
    edit(path, lambda c: c["attributes"]["ome"].update(version="0.6"), "zarr.json")
    with pytest.raises(JaxmemError, match=r"version 0\.6 of OME-Zarr \(Zarr 3\) is not read"):
        read_zarr(path)


@pytest.mark.parametrize("dtype", ["c8", "S3", "datetime64[s]"])
def test_only_real_numbers(ome, dtype):
    with pytest.raises(JaxmemError, match="is not a density"):
        read_zarr(ome([np.zeros(SHAPE, dtype)], [scaled((10.0,) * 3)]))


def test_without_the_package(ome, monkeypatch):
    path = ome([volume()], [scaled((10.0,) * 3)])
    tomogram = read_zarr(path)
    plain = importlib.import_module

    def missing(name, *rest):
        if name == "zarr":
            raise ImportError
        return plain(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(JaxmemError, match=r"pip install 'jaxmem\[zarr\]'"):
        read_zarr(path)
    with pytest.raises(JaxmemError, match=r"pip install 'jaxmem\[zarr\]'"):
        write_zarr(path.with_name("out.zarr"), volume(), volume(), tomogram, [])
    monkeypatch.setattr(importlib, "import_module", plain)
    monkeypatch.setattr(zarr, "__version__", "2.18.3")
    with pytest.raises(JaxmemError, match="3 or newer"):
        read_zarr(path)


def test_importing_io_does_not_import_zarr():
    code = "import sys, jaxmem.io; print(*(n for n in ('zarr', 'numcodecs', 'jaxmem.io.zarr') if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["jaxmem.io.zarr"]


def test_any_volume(ome, mrc, tmp_path):
    path = ome([volume(), volume()[::2, ::2, ::2]], [scaled((5.0,) * 3), scaled((10.0,) * 3)], name="plain")
    assert is_zarr(path)
    assert is_zarr(str(tmp_path / "missing.zarr"))
    assert not is_zarr(tmp_path)
    assert read_volume(path).voxel_size == 5.0
    assert read_volume(path, level=1).voxel_size == read_volume(path, pixel_size=10.0).voxel_size == 10.0
    assert read_volume(path, 8.0, labels=True).voxel_size == 8.0
    file = mrc(volume())
    assert not is_zarr(file)
    assert np.array_equal(read_volume(file, pixel_size=3.0).data, volume())
    assert read_volume(str(file), 3.0).voxel_size == 3.0
    for wrong, options, message in (
        (file, {"level": 0}, "only an OME-Zarr has levels"),
        (tmp_path, {}, "a folder that is not a Zarr .*; give an MRC file or the folder of an OME-Zarr image"),
        (tmp_path / "missing.zarr", {"level": 0}, "no such folder"),
        (tmp_path / "missing.mrc", {}, "no such file"),
    ):
        with pytest.raises(JaxmemError, match=message):
            read_volume(wrong, **options)


ROWS = [
    {"membrane": 1, "closed": 1, "area_A2": np.float32(12.5), "volume_A3": "", "model": "gp", "bic_gp": float("nan")},
    {"membrane": 7, "closed": 0, "area_A2": 3.25, "volume_A3": 8.0, "model": "ellipsoid", "bic_gp": -1.5},
]


@pytest.fixture
def written(tmp_path):
    """An image of three levels, with labels, where it lies, and the folder."""
    shape = (37, 40, 530)
    image = np.random.default_rng(0).normal(size=shape)
    labels = np.zeros(shape, np.int16)
    labels[3:9, 5:20, 7:300], labels[30:, :, 400:] = 1, 7
    tomogram = Tomogram(image, 7.5, (10.0, -20.0, 30.5))
    write_zarr(tmp_path / "out.zarr", image, labels, tomogram, ROWS)
    return image, labels, tomogram, tmp_path / "out.zarr"


def test_round_trip(written):
    image, labels, tomogram, path = written
    yaozarrs.validate_zarr_store(str(path))
    yaozarrs.validate_zarr_store(str(path / "labels" / "membranes"))
    for where, values in ((path, image.astype(np.float32)), (path / "labels" / "membranes", labels)):
        for level, step in enumerate((1, 2, 4)):
            again = read_zarr(where, level=level)
            assert again.data.dtype == values.dtype
            assert np.array_equal(again.data[:], values[::step, ::step, ::step])
            assert (again.voxel_size, again.origin) == (7.5 * step, tomogram.origin)


def test_metadata_of_labels(written):
    *_, path = written
    assert json.loads((path / "labels" / ".zattrs").read_text()) == {"labels": ["membranes"]}
    text = (path / "labels" / "membranes" / ".zattrs").read_text()
    yaozarrs.validate_ome_json(text, yaozarrs.v04.LabelImage)
    label = json.loads(text)["image-label"]
    assert label["version"] == "0.4"
    assert label["source"] == {"image": "../../"}
    assert label["properties"] == [
        {"label-value": 1, "closed": 1, "area_A2": 12.5, "model": "gp"},
        {"label-value": 7, "closed": 0, "area_A2": 3.25, "volume_A3": 8.0, "model": "ellipsoid", "bic_gp": -1.5},
    ]
    assert [c["label-value"] for c in label["colors"]] == [1, 7]
    image = json.loads((path / ".zattrs").read_text())["multiscales"][0]
    assert image["name"] == "uncertainty"
    assert [axis["unit"] for axis in image["axes"]] == ["angstrom"] * 3
    assert json.loads((path / "0" / ".zarray").read_text())["chunks"] == [16, 40, 256]


def test_colours_are_distinct(tmp_path):
    rows = [{"membrane": n} for n in range(1, 3001)]
    zeros = np.zeros((1, 2, 2), np.uint8)
    write_zarr(tmp_path / "a.zarr", zeros, zeros, Tomogram(zeros, 5.0), rows)
    found = json.loads((tmp_path / "a.zarr" / "labels" / "membranes" / ".zattrs").read_text())["image-label"]["colors"]
    assert len({tuple(c["rgba"]) for c in found}) == 3000
    assert all(len(c["rgba"]) == 4 and c["rgba"][3] == 255 for c in found)
    near = np.array([c["rgba"][:3] for c in found[:10]], float)
    apart = np.abs(near[:, None] - near).max(-1)
    assert apart[~np.eye(10, dtype=bool)].min() > 20


def test_no_membranes(tmp_path):
    zeros = np.zeros((3, 4, 5), np.int16)
    write_zarr(tmp_path / "a.zarr", zeros, zeros, Tomogram(zeros, 5.0), [])
    yaozarrs.validate_zarr_store(str(tmp_path / "a.zarr"))
    assert not read_zarr(tmp_path / "a.zarr" / "labels" / "membranes").data[:].any()


def digest(path):
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return hashlib.sha256(b"".join(str(p.relative_to(path)).encode() + p.read_bytes() for p in files)).hexdigest()


class Slabs:
    """An array of which only thin slabs may be read."""

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype

    def __getitem__(self, key):
        assert isinstance(key, slice)
        assert key.stop - key.start <= 16
        return self.values[key]


def test_written_in_slabs_and_always_alike(written, tmp_path):
    image, labels, tomogram, path = written
    write_zarr(tmp_path / "again.zarr", Slabs(image), Slabs(labels), tomogram, ROWS)
    assert digest(tmp_path / "again.zarr") == digest(path)


def test_what_is_not_written(written, tmp_path):
    image, labels, tomogram, path = written
    before = digest(path)
    with pytest.raises(JaxmemError, match="exists already; choose another name"):
        write_zarr(path, image, labels, tomogram, ROWS)
    assert digest(path) == before
    for wrong, message in ((labels[1:], "one shape"), (image, "whole numbers"), (labels > 0, "whole numbers")):
        with pytest.raises(ValueError, match=message):
            write_zarr(tmp_path / "b.zarr", image, wrong, tomogram, ROWS)
    assert not (tmp_path / "b.zarr").exists()


def test_zarr_and_mrc_lie_in_one_place(written, tmp_path):
    *_, path = written
    tomogram = read_zarr(path / "labels" / "membranes")
    write_mrc(tmp_path / "a.mrc", np.asarray(tomogram.data), tomogram)
    again = read_mrc(tmp_path / "a.mrc")
    assert (again.origin, again.voxel_size) == (tomogram.origin, tomogram.voxel_size)
