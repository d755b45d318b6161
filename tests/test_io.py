import bz2
import gzip
import struct

import mrcfile
import numpy as np
import pytest

from jaxmem.io import OutputFolder, as_instances, read_mrc, read_ply, write_mrc, write_obj, write_ply
from jaxmem.types import JaxmemError, Tomogram

DTYPES = [np.int8, np.int16, np.float32, np.uint16, np.float16]


def volume(dtype=np.int16):
    return np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(dtype)


def patch(path, offset, form, *values):
    raw = bytearray(path.read_bytes())
    struct.pack_into(form, raw, offset, *values)
    path.write_bytes(raw)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2"])
def test_modes_and_compression(mrc, dtype, suffix):
    path = mrc(volume(dtype), 7.5, f"a.mrc{suffix}", nstart=(1, -2, 3), header_origin=(4.0, 5.0, -6.0))
    tomogram = read_mrc(path)
    assert tomogram.data.dtype == dtype
    assert np.array_equal(tomogram.data, volume(dtype))
    assert tomogram.voxel_size == pytest.approx(7.5)
    assert tomogram.nstart == (1, -2, 3)
    assert tomogram.origin == (4.0, 5.0, -6.0)


def test_uncompressed_files_are_mapped(mrc):
    data = read_mrc(mrc(volume())).data
    while data.base is not None and not isinstance(data, np.memmap):
        data = data.base
    assert isinstance(data, np.memmap)


def test_origin_is_nstart_where_the_header_has_none(mrc):
    tomogram = read_mrc(mrc(volume(), 10.0, nstart=(1, 2, 3)))
    assert tomogram.origin == (10.0, 20.0, 30.0)
    assert tomogram.to_world(np.array([[2.0, 1.0, 0.0]])).tolist() == [[10.0, 30.0, 50.0]]
    assert tomogram.to_voxels(np.array([[10.0, 30.0, 50.0]])).tolist() == [[2.0, 1.0, 0.0]]


def test_axis_order_is_put_right(mrc):
    path = mrc(volume(), 10.0)
    with mrcfile.open(path, "r+") as file:
        file.header.mapc, file.header.mapr, file.header.maps = 3, 1, 2  # columns are z, rows x, sections y
        file.header.nxstart, file.header.nystart, file.header.nzstart = 30, 10, 20
        file.header.mx, file.header.my, file.header.mz = 3, 2, 4
        file.header.cella = (30.0, 20.0, 40.0)
    tomogram = read_mrc(path)
    assert tomogram.data.shape == (4, 2, 3)
    assert np.array_equal(tomogram.data, volume().transpose(2, 0, 1))
    assert tomogram.nstart == (10, 20, 30)


def test_unsigned_bytes_of_imod(mrc):
    path = mrc(volume(np.int8) - 5)
    patch(path, 152, "<2i", 1146047817, 0)
    assert read_mrc(path).data.max() == 255


def test_output_header_lies_on_the_input(mrc, tmp_path):
    tomogram = read_mrc(mrc(volume(), 7.5, nstart=(1, 2, 3), header_origin=(40.0, 50.0, 60.0)))
    write_mrc(tmp_path / "out.mrc", volume(np.float32), tomogram)
    again = read_mrc(tmp_path / "out.mrc")
    assert (again.origin, again.nstart, again.header_origin) == (
        tomogram.origin,
        tomogram.nstart,
        tomogram.header_origin,
    )
    assert again.voxel_size == pytest.approx(7.5)
    with mrcfile.open(tmp_path / "out.mrc") as file:
        assert mrcfile.validate(str(tmp_path / "out.mrc"))
        assert file.header.dmax == 23


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.write_bytes(b"hello"), "not an MRC file"),
        (lambda p: p.write_bytes(b"x" * 4096), "not an MRC file"),
        (lambda p: p.write_bytes(p.read_bytes()[:-8]), "truncated"),
        (lambda p: patch(p, 0, "<3i", 4, 3, 2000), "truncated: the header claims"),
        (lambda p: patch(p, 12, "<i", 4), r"mode 4 \(complex\)"),
        (lambda p: patch(p, 12, "<i", 16), r"mode 16 \(RGB\)"),
        (lambda p: patch(p, 12, "<i", 77), r"mode 77 \(unknown\)"),
        (lambda p: patch(p, 40, "<3f", 0.0, 0.0, 0.0), "--voxel-size"),
        (lambda p: patch(p, 40, "<3f", 4.0, 3.0, 2.0), "--voxel-size"),
        (lambda p: patch(p, 40, "<3f", 40.0, 30.0, 50.0), "not cubic"),
        (lambda p: p.unlink(), "no such file"),
    ],
)
def test_bad_files_are_named_in_one_line(mrc, spoil, message):
    path = mrc(volume())
    spoil(path)
    with pytest.raises(JaxmemError, match=message) as caught:
        read_mrc(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flipped_bytes_in_compressed_files(mrc):
    path = mrc(np.random.default_rng(0).normal(size=(8, 32, 32)).astype(np.float32), name="a.mrc.gz")
    raw = bytearray(path.read_bytes())
    raw[2000:2050] = b"x" * 50
    path.write_bytes(raw)
    with pytest.raises(JaxmemError, match="cannot be read"):
        read_mrc(path)


def test_labels_are_whole_numbers_from_zero():
    assert as_instances(np.array([-1, 0, 5], np.int8), "a").tolist() == [255, 0, 5]
    assert as_instances(np.array([0.0, 2.0]), "a").dtype == np.int64
    for bad in (np.array([0.5]), np.array([-2.0]), np.array([np.nan]), np.array([-300], np.int16)):
        with pytest.raises(JaxmemError, match="name: labels must be whole"):
            as_instances(bad, "name")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_broken_compression(mrc, compress):
    suffix = ".gz" if compress is gzip.compress else ".bz2"
    path = mrc(np.random.default_rng(0).normal(size=(8, 16, 16)).astype(np.float32), name="a.mrc" + suffix)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(JaxmemError, match=r"cannot be read|truncated"):
        read_mrc(path)


def test_given_voxel_size_wins_and_masks_need_none(mrc):
    path = mrc(volume())
    patch(path, 40, "<3f", 0.0, 0.0, 0.0)
    assert read_mrc(path, 12.5).voxel_size == 12.5
    assert read_mrc(path, labels=True).voxel_size == 1.0
    with pytest.raises(JaxmemError, match="positive"):
        read_mrc(path, -1.0)


def test_ply_and_obj(tmp_path):
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    faces = np.array([[0, 1, 2]])
    write_ply(
        tmp_path / "a.ply", vertices, faces, {"sigma": np.arange(3.0), "seen": np.array([True, False, True])}, "A"
    )
    v, f, values = read_ply(tmp_path / "a.ply")
    assert np.array_equal(v, vertices)
    assert np.array_equal(f, faces)
    assert values["sigma"].tolist() == [0, 1, 2]
    assert values["seen"].tolist() == [1, 0, 1]
    assert values["seen"].dtype == np.uint8
    write_obj(tmp_path / "a.obj", vertices, faces, vertices)
    lines = (tmp_path / "a.obj").read_text().splitlines()
    assert lines[0].startswith("v 0.0000")
    assert lines[-1] == "f 1//1 2//2 3//3"
    (tmp_path / "b.ply").write_text("not one")
    with pytest.raises(JaxmemError, match="PLY"):
        read_ply(tmp_path / "b.ply")


def test_output_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "run"

    def break_off():
        with OutputFolder(target) as folder:
            (folder / "half").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert list(tmp_path.iterdir()) == []
    with OutputFolder(target) as folder:
        (folder / "manifest.json").write_text("1")
        assert not target.exists()
    with pytest.raises(JaxmemError, match="--overwrite"):
        OutputFolder(target).check()
    with OutputFolder(target, overwrite=True) as folder:
        (folder / "manifest.json").write_text("2")
    assert (target / "manifest.json").read_text() == "2"
    assert list(tmp_path.iterdir()) == [target]


def test_overwriting_takes_only_earlier_runs(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("precious")
    with pytest.raises(JaxmemError, match="not a folder of an earlier run"):
        OutputFolder(tmp_path / "thesis", overwrite=True).check()


def test_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(JaxmemError, match="cannot be written"):
        OutputFolder(tmp_path / "file" / "run").check()
    OutputFolder(tmp_path / "good").check()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_world_of_a_real_header(data):
    tomogram = read_mrc(data / "membrane_crop.rec")
    assert tomogram.voxel_size == pytest.approx(19.73, abs=0.01)
    assert tomogram.origin[0] == pytest.approx(-7995.946, abs=0.01)
    assert isinstance(tomogram, Tomogram)
