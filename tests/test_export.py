"""Files for other programs: what is in them, and where it lies."""

import base64
import json
import re
import struct
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from jaxmem import JaxmemError
from jaxmem.cli import main
from jaxmem.io import Painted, in_nm, read_mrc, write_glb, write_imod, write_star, write_vtp
from jaxmem.io.copick import turned
from jaxmem.io.meshes.colours import limits, of_membrane, painted
from jaxmem.io.meshes.imod import outlines
from jaxmem.io.meshes.star import angles_of
from jaxmem.pipeline.export import export_run, surfaces_of
from jaxmem.surface.sampling import sample_points

VERTICES = np.array([[0.0, 0, 0], [100.0, 0, 0], [0, 100.0, 0], [0, 0, 100.0]])
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
NORMALS = VERTICES - VERTICES.mean(0)
VALUES = {
    "sigma": np.arange(4.0), "seen": np.array([True, False, True, True]),
    "mean_curvature": np.full(4, 0.01), "gaussian_curvature": np.full(4, 1e-4),
    "mean_curvature_sigma": np.full(4, 1e-3), "gaussian_curvature_sigma": np.full(4, 1e-5),
}  # fmt: skip


def read_glb(path):
    """The JSON part, and each accessor's array."""
    raw = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", raw)
    assert (magic, version, length) == (b"glTF", 2, len(raw))
    size, kind = struct.unpack_from("<I4s", raw, 12)
    assert kind == b"JSON"
    scene = json.loads(raw[20 : 20 + size])
    body = raw[28 + size :]
    arrays = []
    for accessor in scene.get("accessors", []):
        view = scene["bufferViews"][accessor["bufferView"]]
        part = body[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        kind = {5126: "<f4", 5125: "<u4"}[accessor["componentType"]]
        columns = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        arrays.append(np.frombuffer(part, kind).reshape(accessor["count"], columns))
    return scene, arrays


def test_a_scene_has_a_node_for_each_membrane(tmp_path):
    shade = np.tile(of_membrane(2), (4, 1))
    each = [
        Painted(f"membrane {n}", VERTICES + n, NORMALS, FACES, shade, {"sigma": VALUES["sigma"]}, {"membrane": n})
        for n in (1, 2)
    ]
    write_glb(tmp_path / "two.glb", each)
    scene, arrays = read_glb(tmp_path / "two.glb")
    assert [node["name"] for node in scene["nodes"]] == ["membrane 1", "membrane 2"]
    assert scene["scenes"][0]["nodes"] == [0, 1]
    primitive = scene["meshes"][1]["primitives"][0]
    at = primitive["attributes"]
    assert np.allclose(arrays[at["POSITION"]], VERTICES + 2)
    assert np.allclose(arrays[at["COLOR_0"]], [*of_membrane(2), 1.0])
    assert np.allclose(arrays[at["_SIGMA"]].ravel(), VALUES["sigma"])
    assert np.allclose(np.linalg.norm(arrays[at["NORMAL"]], axis=1), 1.0)
    assert np.array_equal(arrays[primitive["indices"]].reshape(-1, 3), FACES)
    low, high = (scene["accessors"][at["POSITION"]][k] for k in ("min", "max"))
    assert np.allclose(low, (VERTICES + 2).min(0))
    assert np.allclose(high, (VERTICES + 2).max(0))
    write_glb(tmp_path / "none.glb", [])
    assert "nodes" not in read_glb(tmp_path / "none.glb")[0]


def test_colours_run_from_the_least_to_the_largest():
    assert limits("sigma", np.array([0.0, 2.0]))[0] == 0.0
    assert limits("seen", np.zeros(3)) == (0.0, 1.0)
    low, high = limits("mean_curvature", np.array([-1.0, 0.5]))
    assert low == -high
    shades = painted("sigma", np.array([-1.0, 0.0, 5.0, 9.0]), (0.0, 5.0))
    assert np.array_equal(shades[0], shades[1])
    assert np.array_equal(shades[2], shades[3])
    assert not np.allclose(shades[0], shades[2])


def test_vtp_arrays_are_named_and_in_nm(tmp_path):
    write_vtp(tmp_path / "one.vtp", VERTICES / 10, FACES, NORMALS, in_nm(VALUES))
    piece = ElementTree.parse(tmp_path / "one.vtp").getroot()[0][0]
    assert (piece.get("NumberOfPoints"), piece.get("NumberOfPolys")) == ("4", "4")
    found = {}
    for array in piece.iter("DataArray"):
        raw = base64.b64decode(array.text)
        kind = {"Float32": "<f4", "Int64": "<i8", "UInt8": "u1"}[array.get("type")]
        assert int.from_bytes(raw[:8], "little") == len(raw) - 8
        found[array.get("Name")] = np.frombuffer(raw[8:], kind)
    assert np.allclose(found["Points"].reshape(-1, 3), VERTICES / 10)
    assert found["seen"].tolist() == [1, 0, 1, 1]
    assert np.allclose(found["mean_curvature"], 0.1)
    assert np.allclose(found["kappa_1"], 0.1, atol=1e-6)
    assert np.allclose(found["kappa_1"] * found["kappa_2"], found["gauss_curvature"], atol=1e-6)
    assert np.array_equal(found["connectivity"].reshape(-1, 3), FACES)
    assert found["offsets"].tolist() == [3, 6, 9, 12]


def test_error_bars_of_principal_curvatures():
    values = VALUES | {"mean_curvature": np.full(4, 0.02), "gaussian_curvature": np.full(4, 3e-4)}  # 0.03 and 0.01
    out = in_nm(values)
    rng = np.random.default_rng(0)
    mean, gauss = rng.normal(0.2, 0.01, 100_000), rng.normal(0.03, 0.001, 100_000)
    drawn = mean + np.sqrt(np.maximum(mean**2 - gauss, 0))
    assert np.allclose(out["kappa_1"], 0.3)
    assert out["kappa_1_sigma"][0] == pytest.approx(drawn.std(), rel=0.1)


def test_points_of_a_star_file_lie_from_the_centre(tmp_path):
    write_star(tmp_path / "p.star", "tomo", np.array([[50.0, 40.0, 30.0], [0.0, 0.0, 0.0]]), np.array([[0, 0, 1.0], [1.0, 0, 0]]),
               np.array([1, 7]), 10.0, (60, 80, 100))  # fmt: skip
    text = (tmp_path / "p.star").read_text()
    names = re.findall(r"^_(\w+) #\d+$", text, re.MULTILINE)
    rows = [line.split() for line in text.splitlines() if line.startswith("tomo ")]
    assert [len(row) for row in rows] == [len(names)] * 2
    first = dict(zip(names, rows[0]))
    assert [float(first[f"rlnCenteredCoordinate{a}Angst"]) for a in "XYZ"] == [0.0, 0.0, 0.0]
    second = dict(zip(names, rows[1]))
    assert [float(second[f"rlnCenteredCoordinate{a}Angst"]) for a in "XYZ"] == [-500.0, -400.0, -300.0]
    assert (second["rlnTomoManifoldIndex"], second["rlnTomoName"]) == ("7", "tomo")
    assert (float(second["rlnAngleRot"]), float(second["rlnAngleTilt"])) == (0.0, 90.0)


def test_angles_turn_the_z_axis_onto_the_normal():
    normals = np.random.default_rng(0).normal(size=(50, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    rotation, tilt = (np.radians(a) for a in angles_of(normals))
    back = np.stack([np.cos(rotation) * np.sin(tilt), np.sin(rotation) * np.sin(tilt), np.cos(tilt)], 1)
    assert np.allclose(back, normals)


def test_sampled_points_are_on_the_mesh_and_apart():
    points, normals = sample_points(VERTICES, FACES, NORMALS, 12.0)
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(len(points))
    assert gaps.min() >= 12.0
    assert gaps.min(1).max() < 24.0
    on_slope = np.abs(points.sum(1) - 100.0) < 1e-6
    assert (on_slope | (np.abs(points) < 1e-9).any(1)).all()
    assert np.allclose(np.linalg.norm(normals, axis=1), 1.0)
    assert len(sample_points(VERTICES, FACES[:0], NORMALS, 12.0)[0]) == 0
    with pytest.raises(ValueError, match="spacing"):
        sample_points(VERTICES, FACES, NORMALS, 0.0)


def test_a_run_is_exported(mrc, shells, tmp_path, capsys):
    run = tmp_path / "run"
    source = mrc((shells[0] == 3).astype(np.int8))
    assert main(["fit", str(source), "-o", str(run), "--quiet"]) == 0
    (number, one), *rest = surfaces_of(run)
    assert number == 1
    assert not rest
    for name in ("membranes", "sigma"):
        scene, arrays = read_glb(run / f"{name}.glb")
        at = scene["meshes"][0]["primitives"][0]["attributes"]
        assert np.allclose(arrays[at["POSITION"]], one.vertices)
    shades = arrays[at["COLOR_0"]]
    assert len(np.unique(shades, axis=0)) > 1
    view = (run / "view.cxc").read_text()
    for line in view.splitlines():
        if line.startswith("open "):
            assert (run / line.removeprefix("open ").strip('"')).exists(), line
    capsys.readouterr()
    assert main(["export", str(run), "--to", "glb", "vtp", "obj", "star", "--colour", "seen", "--spacing", "60"]) == 0
    files = [line.rsplit("/", 1)[-1] for line in capsys.readouterr().out.splitlines()]
    assert files == ["membranes.glb", "membrane_001.vtp", "membrane_001.obj", "points.star"]
    rows = [
        line.split() for line in (run / "export" / "points.star").read_text().splitlines() if line.startswith("run ")
    ]
    places = np.array([[float(v) for v in row[1:4]] for row in rows])
    labels = read_mrc(run / "labels.mrc")
    index = places / labels.voxel_size + 0.5 * np.array(labels.data.shape[::-1])
    inside = np.asarray(labels.data)[tuple(np.round(index[:, ::-1]).astype(int).T)]
    assert (inside == 1).mean() > 0.95
    for arguments, word in (((["stl"],), "stl"), ((["glb"], None), "no colour"), ((["star"],), "spacing")):
        bad = {"no colour": {"colour": "green"}, "spacing": {"spacing": 0.0}}.get(word, {})
        with pytest.raises(JaxmemError, match=word):
            export_run(run, *arguments, **bad)
    assert main(["export", str(tmp_path), "--to", "glb"]) == 1
    assert "not a finished run" in capsys.readouterr().err


def test_outlines_of_a_mesh_are_its_circles():
    """A sphere crossed by planes: one closed circle each; a hole in the mesh leaves an open line."""
    from skimage.measure import marching_cubes

    index = np.indices((24, 24, 24)) - 11.5
    vertices, faces, _, _ = marching_cubes(np.sqrt((index**2).sum(0)), 8.0)
    vertices = vertices[:, ::-1] - 11.5
    for plane, radius in ((0.0, 8.0), (4.0, np.sqrt(48.0)), (-7.5, np.sqrt(64.0 - 7.5**2))):
        ((line, closed),) = outlines(vertices, faces, plane)
        assert closed
        assert np.abs(np.linalg.norm(line[:, :2], axis=1) - radius).max() < 0.15
        assert np.allclose(line[:, 2], plane)
        step = np.linalg.norm(np.diff(np.vstack([line, line[:1]]), axis=0), axis=1)
        assert step.sum() == pytest.approx(2 * np.pi * radius, rel=0.02)
    assert outlines(vertices, faces, 9.0) == []
    centre = vertices[faces].mean(1)
    open_faces = faces[~((np.abs(centre[:, 1]) < 2) & (centre[:, 0] > 0))]
    ((line, closed),) = outlines(vertices, open_faces, 0.0)
    assert not closed
    assert line[[0, -1], 0].min() > 6.0


def test_rotations_take_z_to_directions():
    ways = np.random.default_rng(0).normal(size=(50, 3))
    ways = np.vstack([ways / np.linalg.norm(ways, axis=1, keepdims=True), [[0, 0, 1.0], [0, 0, -1.0]]])
    turns = turned(ways)[:, :3, :3]
    assert np.allclose(turns[:, :, 2], ways)
    assert np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(3))
    assert np.allclose(np.linalg.det(turns), 1.0)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imodmodel.models", None)
    with pytest.raises(JaxmemError, match=r"pip install 'jaxmem\[imod\]'"):
        write_imod(tmp_path / "x.mod", [], 10.0, (2, 2, 2))
