"""Files read back by libraries that no one here wrote; `.ci/peers` installs them, other runs of the tests skip this."""

import json
import os
import subprocess
from importlib.util import find_spec

import numpy as np
import pytest

from jaxmem.cli import main
from jaxmem.pipeline.export import export_run, surfaces_of

if not any(find_spec(name) for name in ("trimesh", "pyvista", "starfile", "imodmodel")):
    pytest.skip("none of these libraries is installed: .ci/peers does that", allow_module_level=True)

PLACE = (100.0, -50.0, 30.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory, shells):
    from jaxmem.io import write_mrc
    from jaxmem.types import Tomogram

    folder = tmp_path_factory.mktemp("peers")
    mask = (shells[0] == 3).astype(np.int8)
    write_mrc(folder / "mask.mrc", mask, Tomogram(mask, 12.0, PLACE, header_origin=PLACE))
    assert main(["fit", str(folder / "mask.mrc"), "-o", str(folder / "run"), "--quiet"]) == 0
    export_run(folder / "run", ["glb", "vtp", "obj", "star"], folder / "out", spacing=100.0)
    return folder


def test_trimesh_reads_glb_obj_and_ply(run):
    trimesh = pytest.importorskip("trimesh", reason="trimesh is not installed: .ci/peers does that")
    ((_, one),) = surfaces_of(run / "run")
    scene = trimesh.load(run / "run" / "membranes.glb")
    assert list(scene.geometry) == ["membrane 1"]
    mesh = scene.geometry["membrane 1"]
    assert np.abs(mesh.bounds - [one.vertices.min(0), one.vertices.max(0)]).max() < 0.01 * 12.0
    assert mesh.is_watertight
    assert {"color", "_SIGMA", "_SEEN", "_H", "_K"} <= set(mesh.visual.vertex_attributes) | set(mesh.vertex_attributes)
    for path in (run / "out" / "membrane_001.obj", run / "run" / "surfaces" / "membrane_001.ply"):
        other = trimesh.load(path, process=False)
        assert np.abs(other.bounds - mesh.bounds).max() < 0.01 * 12.0
        assert len(other.faces) == len(one.faces)


def test_pyvista_reads_vtp_and_ply(run):
    pyvista = pytest.importorskip("pyvista", reason="pyvista is not installed: .ci/peers does that")
    ((_, one),) = surfaces_of(run / "run")
    mesh = pyvista.read(run / "out" / "membrane_001.vtp")
    assert np.abs(mesh.points * 10.0 - one.vertices).max() < 0.01 * 12.0
    assert np.allclose(mesh.point_data["sigma"] * 10.0, one.values["sigma"], rtol=1e-4)
    assert {"kappa_1", "kappa_2", "mean_curvature", "gauss_curvature", "kappa_1_sigma"} <= set(mesh.point_data.keys())
    assert mesh.n_open_edges == 0
    ply = pyvista.read(run / "run" / "surfaces" / "membrane_001.ply")
    assert np.abs(ply.points - one.vertices).max() < 0.01 * 12.0


def test_starfile_reads_points(run):
    starfile = pytest.importorskip("starfile", reason="starfile is not installed: .ci/peers does that")
    table = starfile.read(run / "out" / "points.star")
    assert len(table) > 10
    assert (table["rlnTomoManifoldIndex"] == 1).all()
    ((_, one),) = surfaces_of(run / "run")
    from jaxmem.io import read_mrc

    shape = np.array(read_mrc(run / "run" / "labels.mrc").data.shape[::-1])
    places = table[[f"rlnCenteredCoordinate{a}Angst" for a in "XYZ"]].to_numpy()
    world = places + 0.5 * shape * 12.0 + np.array(PLACE)
    gap = np.linalg.norm(world[:, None] - one.vertices[None], axis=-1).min(1)
    assert np.median(gap) < 12.0


def test_imodmodel_reads_outlines(run):
    imodmodel = pytest.importorskip("imodmodel", reason="imodmodel is not installed: .ci/peers does that")
    export_run(run / "run", ["mod"], run / "out")
    ((_, one),) = surfaces_of(run / "run")
    model = imodmodel.ImodModel.from_file(run / "out" / "membranes.mod")
    assert model.header.pixelsize == pytest.approx(1.2)
    (item,) = model.objects
    assert item.header.name == "membrane 1"
    points = np.concatenate([contour.points for contour in item.contours])
    assert np.array_equal(np.unique(points[:, 2]), np.round(np.unique(points[:, 2])))
    world = (points - [0.5, 0.5, 0.0]) * 12.0 + np.array(PLACE)
    gap = np.linalg.norm(world[:, None] - one.vertices[None], axis=-1).min(1)
    assert gap.max() < 12.0
    assert np.median(gap) < 4.0
    assert not any(contour.header.flags.open for contour in item.contours)


_COPICK = """
import copick, json, sys
import numpy as np, trimesh, zarr
(run,) = copick.from_file(sys.argv[1]).runs
(segmentation,) = run.segmentations
(mesh,) = run.meshes
(picks,) = run.picks
volume = segmentation.numpy()
points = picks.points
print(json.dumps({
    "run": run.name, "kind": segmentation.segmentation_type, "size": segmentation.voxel_size, "shape": volume.shape,
    "voxels": np.argwhere(volume > 0).mean(0).tolist(), "count": int((volume > 0).sum()),
    "mesh": np.asarray(mesh.mesh.bounds).tolist(),
    "places": [[p.location.x, p.location.y, p.location.z] for p in points],
    "ways": [p.transformation[:3, 2].tolist() for p in points], "instance": [p.instance_id for p in points],
}))
"""


@pytest.mark.skipif(
    "JAXMEM_COPICK" not in os.environ,
    reason="copick needs an older Zarr, and so a Python of its own: .ci/peers has one",
)
def test_copick_reads_all_of_it(run):
    from jaxmem.io import read_mrc

    export_run(run / "run", ["copick"], run / "out", spacing=100.0)
    config = run / "out" / "copick" / "copick.json"
    done = subprocess.run([os.environ["JAXMEM_COPICK"], "-c", _COPICK, str(config)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    labels = np.asarray(read_mrc(run / "run" / "labels.mrc").data)
    ((_, one),) = surfaces_of(run / "run")
    assert (found["run"], found["kind"], found["size"]) == ("run", "instance", 12.0)
    assert found["count"] == (labels > 0).sum()
    assert np.allclose(found["voxels"], np.argwhere(labels > 0).mean(0))
    local = one.vertices - np.array(PLACE)
    assert np.abs(np.array(found["mesh"]) - [local.min(0), local.max(0)]).max() < 0.01 * 12.0
    away = np.linalg.norm(np.array(found["places"])[:, None] - local[None], axis=-1)
    gap, near = away.min(1), away.argmin(1)
    assert np.median(gap) < 12.0
    assert np.median((np.array(found["ways"]) * one.normals[near]).sum(1)) > 0.97
    assert set(found["instance"]) == {1}
