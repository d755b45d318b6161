"""What a finished run holds for measurements: its surfaces, one at a time, and the tomogram they were found in."""

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from jaxmem.io import read_mrc, read_ply, read_volume
from jaxmem.measure import vertex_areas
from jaxmem.pipeline.volume import as_volume, is_flat
from jaxmem.types import JaxmemError, Tomogram

_RIM = 4.0  # voxels from its border in which an open surface is known less well than it says
_SHARES = 3  # points of the support that a vertex takes its displacement from


class Skin(NamedTuple):
    """A membrane's surface with what is known about its errors, in voxels, zyx.

    Attributes:
        number: of the membrane.
        vertices, normals: (n, 3), outward.
        faces: (m, 3).
        area: (n,) voxels^2 that each vertex stands for.
        values: (n,) each: sigma, seen, curvatures and their error bars, in voxels.
        closed: it has no border.
        rim: (n,) True where the border of an open surface is near.
        common: error that all of it may have, voxels.
        weights, rows: (n, k) of the drawn surfaces' support, for each vertex.
        displacement: (s, draws) along the normals, voxels.
        mean_curvature, gaussian_curvature: (s, draws) departures.
    """

    number: int
    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    area: np.ndarray
    values: dict[str, np.ndarray]
    closed: bool
    rim: np.ndarray
    common: float
    weights: np.ndarray
    rows: np.ndarray
    displacement: np.ndarray
    mean_curvature: np.ndarray
    gaussian_curvature: np.ndarray

    def drawn(self, name: str, where: np.ndarray | None = None) -> np.ndarray:
        """(n, draws) departures of drawn surfaces at vertices.

        Arguments:
            name: "displacement", "mean_curvature" or "gaussian_curvature".
            where: some of the vertices; all when None.
        """
        weights, rows = (self.weights, self.rows) if where is None else (self.weights[where], self.rows[where])
        few = getattr(self, name)
        return sum(weights[:, j, None] * few[rows[:, j]] for j in range(weights.shape[1]))


class Finished(NamedTuple):
    """A finished run.

    Attributes:
        folder: of the run.
        manifest: of the run.
        numbers: of its membranes.
        labels: the volume of labels, which tells shape, voxel size and origin.
    """

    folder: Path
    manifest: dict[str, Any]
    numbers: list[int]
    labels: Tomogram

    @property
    def voxel_size(self) -> float:
        """A."""
        return self.labels.voxel_size

    def skin(self, number: int) -> Skin:
        """One membrane.

        Raises:
            JaxmemError: if its files cannot be read.
        """
        path = self.folder / "surfaces" / f"membrane_{number:03d}.ply"
        world, faces, values = read_ply(path)
        size = self.voxel_size
        vertices = self.labels.to_voxels(world.astype(float))
        normals = np.stack([values[f"n{a}"] for a in "zyx"], 1).astype(float)
        drawn = _read_drawn(path.with_suffix(".npz"))
        support = drawn["support"]
        near, rows = cKDTree(vertices[support]).query(vertices, k=min(_SHARES, len(support)))
        near, rows = near.reshape(len(vertices), -1), rows.reshape(len(vertices), -1)
        weights = 1.0 / (near**2 + 1e-6)
        border = border_of(faces)
        rim = np.zeros(len(vertices), bool)
        if len(border):
            rim = cKDTree(vertices[border]).query(vertices)[0] < _RIM
        return Skin(
            number, vertices, normals, faces, vertex_areas(vertices, faces),
            {name: values[name].astype(float) / unit for name, unit in units(size).items()}, not len(border), rim,
            float(self.manifest["config"]["fit"]["common"]),
            weights / weights.sum(1, keepdims=True), rows,
            drawn["displacement"] / size, drawn["mean_curvature"] * size, drawn["gaussian_curvature"] * size**2,
        )  # fmt: skip


def units(size: float) -> dict[str, float]:
    """What the values on vertices are multiplied by to come from voxels to A, 1/A and 1/A^2; `size` of a voxel, A."""
    bends = {"mean_curvature": 1 / size, "gaussian_curvature": size**-2}
    return {"sigma": size, "seen": 1.0, **bends, **{f"{name}_sigma": unit for name, unit in bends.items()}}


def border_of(faces: np.ndarray) -> np.ndarray:
    """Vertices on edges that have one triangle only."""
    n = int(faces.max()) + 1
    low, high = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1).T.astype(np.int64)
    edge, count = np.unique(low * n + high, return_counts=True)
    single = edge[count == 1]
    return np.unique(np.concatenate([single // n, single % n]))


def _read_drawn(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as file:
            return {name: file[name] for name in ("support", "displacement", "mean_curvature", "gaussian_curvature")}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        raise JaxmemError(
            f"{path}: drawn surfaces, from which error bars are taken, are not there; make the run again with this version (--overwrite)"
        ) from None


def open_run(folder: str | Path) -> Finished:
    """A finished run.

    Raises:
        JaxmemError: if the folder is none, or it is of a slice or a few.
    """
    folder = Path(folder)
    if not (folder / "manifest.json").exists():
        raise JaxmemError(
            f"{folder}: not a finished run (no manifest.json); give the folder that `jaxmem segment -o` wrote"
        )
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    labels = read_mrc(folder / "labels.mrc", manifest["voxel_size_A"], labels=True)
    if is_flat(labels.data.shape):
        raise JaxmemError(
            f"{folder}: a run of {labels.data.shape[0]} slices has no surfaces to measure; give one of a tomogram"
        )
    numbers = sorted(int(path.stem.split("_")[1]) for path in (folder / "surfaces").glob("membrane_*.ply"))
    return Finished(folder, manifest, numbers, labels)


def density_of(run: Finished, tomogram: str | Path | None) -> Tomogram | None:
    """The tomogram that is measured, or None if none is given and that of the run is not there any more.

    Arguments:
        run: finished.
        tomogram: file; the one in which the run found its membranes when None.

    Raises:
        JaxmemError: if the tomogram cannot be read, or has another shape than the run.
    """
    reading = run.manifest.get("reading", {})
    if tomogram is None:
        source = run.manifest["input"]
        if run.manifest["command"] != "segment" or source is None or not Path(source).exists():
            return None
        found = read_volume(source, **{**reading, "voxel_size": run.voxel_size})
    else:
        own = {name: reading[name] for name in ("invert", "unsigned") if name in reading}
        found = read_volume(tomogram, run.voxel_size, **own)
    found = as_volume(found)
    if found.data.shape != run.labels.data.shape:
        raise JaxmemError(
            f"{tomogram or run.manifest['input']}: has {found.data.shape[::-1]} voxels, the run {run.labels.data.shape[::-1]}; "
            "give the tomogram of the run"
        )
    return found
