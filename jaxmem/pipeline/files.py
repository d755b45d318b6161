"""The files of a run, written under a temporary name and moved into place together, and read back for `evaluate`."""

import dataclasses
import json
import platform
import sys
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmem.io import (
    OutputFolder,
    as_instances,
    read_mrc,
    read_ply,
    sha256,
    write_csv,
    write_mrc,
    write_obj,
    write_ply,
    write_zarr,
)
from jaxmem.io.meshes.colours import of_membrane
from jaxmem.pipeline.editing.edits import Edit
from jaxmem.pipeline.export import write_scene, write_view
from jaxmem.pipeline.keeping.pieces import Pieces
from jaxmem.pipeline.volume import is_flat
from jaxmem.report import write_report
from jaxmem.results import Evidence, Found, Result, Triangles, Vertices, triangles
from jaxmem.surface import Mesh, is_watertight
from jaxmem.types import JaxmemError, Tomogram

COLUMNS = [
    "membrane", "closed", "points", "center_x_A", "center_y_A", "center_z_A", "area_A2", "area_sigma_A2", "volume_A3", "volume_sigma_A3",
    "seen_fraction", "median_sigma_A", "max_sigma_A", "point_noise_A", "median_mean_curvature_per_A",
    "model", "bic_ellipses", "bic_ellipsoid", "bic_gp", "semi_axis_1_A", "semi_axis_2_A", "semi_axis_3_A",
]  # fmt: skip


KEPT = "kept"
"""Name of the folder in a run where pieces are kept for a later one."""


def measure(result: Result) -> list[dict[str, Any]]:
    """One row per membrane: place, size, and how well it is known. Columns as in `COLUMNS`, lengths in A."""
    return [_row(result, number) for number in range(1, len(result.membranes) + 1)]


def _row(result: Result, number: int) -> dict[str, Any]:
    size = result.voxel_size
    membrane = result.membranes[number - 1]
    mesh = membrane.mesh
    center = triangles(result, number).vertices.mean(0)
    three = mesh.vertices.shape[1] == 3
    unit = size**2 if three else size**2 * len(result.labels)  # a ribbon's area is length times height
    return {
        "membrane": number,
        "closed": int(mesh.closed),
        "points": membrane.points,
        **{f"center_{a}_A": round(float(center[i]), 2) for i, a in enumerate("xyz")},
        "area_A2": round(mesh.area * unit, 1),
        "area_sigma_A2": round(mesh.area_sigma * unit, 1),
        "volume_A3": round(mesh.volume * size**3, 1) if mesh.closed and three else "",
        "volume_sigma_A3": round(mesh.volume_sigma * size**3, 1) if mesh.closed and three else "",
        "seen_fraction": round(float(mesh.seen.mean()), 4),
        "median_sigma_A": round(float(np.median(mesh.sigma)) * size, 3),
        "max_sigma_A": round(float(mesh.sigma.max()) * size, 3),
        "point_noise_A": round(membrane.noise * size, 3),
        "median_mean_curvature_per_A": float(f"{np.median(mesh.mean_curvature) / size:.6g}"),
        **_models(membrane.evidence, size),
    }  # fmt: skip


def _models(evidence: Evidence | None, voxel_size: float) -> dict[str, Any]:
    """The columns on what describes a membrane; an open one is the Gaussian process's alone."""
    values: list = [None] * 3 if evidence is None else list(evidence[:3])
    row: dict[str, Any] = {"model": "gp" if evidence is None else evidence.model}
    names = ("bic_ellipses", "bic_ellipsoid", "bic_gp")
    row |= {name: "" if value is None else round(value, 1) for name, value in zip(names, values)}
    axes = [] if evidence is None else list(evidence.semi_axes)
    return row | {
        f"semi_axis_{i + 1}_A": round(float(axes[i]) * voxel_size, 2) if i < len(axes) else "" for i in range(3)
    }


def write_run(
    target: str | Path,
    result: Result,
    tomogram: Tomogram,
    *,
    source: str | Path | None = None,
    overwrite: bool = False,
    obj: bool = False,
    command: str = "segment",
    arguments: Sequence[str] = (),
    zarr: bool = False,
    digest: str | None = None,
    pieces: tuple[Pieces, float] | None = None,
    work: Path | None = None,
    reading: dict[str, Any] | None = None,
    edits: Sequence[Edit] = (),
) -> None:
    """Write everything `segment` or `fit` promises into a folder; nothing is left behind if it fails.

    Arguments:
        target: the run's folder.
        result: what was computed.
        tomogram: from what, and where that lies.
        source: the input file, for the manifest.
        overwrite: replace an earlier run.
        obj: write OBJ meshes beside the PLY ones.
        command, arguments: for the manifest.
        zarr: write labels and uncertainty as OME-Zarr, too.
        digest: SHA-256 of the source, if it is known; of an MRC file it is computed.
        pieces: of the run, which are kept in the folder as far as they take no more than so many bytes.
        work: where the folder is filled; see `OutputFolder`.
        reading: how the source is read, for the manifest; see `read_volume`.
        edits: that were made, for the manifest.

    Raises:
        JaxmemError: if the folder exists or cannot be written.
    """
    result = result._replace(voxel_size=tomogram.voxel_size, origin=tomogram.origin)
    with OutputFolder(target, overwrite, work) as folder:
        write_mrc(folder / "semantic.mrc", result.semantic, tomogram)
        write_mrc(folder / "labels.mrc", result.labels, tomogram)
        write_mrc(folder / "uncertainty.mrc", result.uncertainty, tomogram)
        (folder / "surfaces").mkdir()
        rows = []
        for number in range(1, len(result.membranes) + 1):
            one = triangles(result, number)
            name = folder / "surfaces" / f"membrane_{number:03d}"
            properties = {f"n{a}": one.normals[:, i] for i, a in enumerate("xyz")} | one.values | _shades(number, one)
            comment = "coordinates and sigma in A, curvatures in 1/A and 1/A^2"
            write_ply(name.with_suffix(".ply"), one.vertices, one.faces, properties, comment)
            write_drawn(name.with_suffix(".npz"), result.membranes[number - 1].mesh, result.voxel_size)
            if obj:
                write_obj(name.with_suffix(".obj"), one.vertices, one.faces, one.normals)
            rows.append(_row(result, number))
        write_csv(folder / "membranes.csv", rows, COLUMNS)
        each = range(1, len(result.membranes) + 1)
        for scene, colour in (("membranes", "membrane"), ("sigma", "sigma")):
            write_scene(folder / f"{scene}.glb", lambda: ((n, triangles(result, n)) for n in each), colour)
        write_view(folder, Path(target), source, len(result.labels) // 2)
        if zarr:
            write_zarr(folder / "membranes.zarr", result.uncertainty, result.labels, tomogram, rows)
        if pieces is not None:
            pieces[0].keep(folder / KEPT, pieces[1])
        manifest = _manifest(result, tomogram, source, digest, command, arguments, reading or {})
        manifest["edits"] = [dataclasses.asdict(edit) for edit in edits]
        write_report(folder / "report.html", result, tomogram, rows, manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _manifest(
    result: Result,
    tomogram: Tomogram,
    source: str | Path | None,
    digest: str | None,
    command: str,
    arguments: Sequence[str],
    reading: dict[str, Any],
) -> dict[str, Any]:
    """What ran, on what, where, and when: enough to run it again."""
    device = jax.devices()[0]
    return {
        "command": command,
        "arguments": list(arguments),
        "folder": str(Path.cwd()),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "device": f"{device.platform}: {device.device_kind}",
        "input": str(source) if source else None,
        "reading": reading,
        "input_sha256": digest or (sha256(source) if source else None),
        "weights_sha256": result.digests,
        "voxel_size_A": result.voxel_size,
        "shape_zyx": list(tomogram.data.shape if tomogram.data.ndim == 3 else (1, *tomogram.data.shape)),
        "origin_xyz_A": list(tomogram.origin),
        "config": dataclasses.asdict(result.config),
        "seeds": {"error_bars": result.config.fit.seed, "grouping": result.config.grouping.seed},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "seconds": result.seconds,
        "peak_memory_bytes": peak_memory(),
        "membranes": len(result.membranes),
        "decisions": result.decisions,
        "warnings": result.warnings,
    }


def write_drawn(path: Path, mesh: Mesh, voxel_size: float) -> None:
    """Write how surfaces drawn from the posterior depart from a membrane's: what `jaxmem measure` takes its error bars from; A, 1/A and 1/A^2."""
    np.savez(
        path,
        support=mesh.support.astype(np.int32),
        displacement=(mesh.drawn * voxel_size).astype(np.float32),
        mean_curvature=(mesh.drawn_mean / voxel_size).astype(np.float32),
        gaussian_curvature=(mesh.drawn_gaussian / voxel_size**2).astype(np.float32),
    )


def peak_memory() -> int | None:
    """The most memory that this process has had, bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _shades(number: int, one: Triangles) -> dict[str, np.ndarray]:
    """The colour of a membrane on each of its vertices, as bytes."""
    shade = np.round(255 * of_membrane(number)).astype(np.uint8)
    return {name: np.full(len(one.vertices), c) for name, c in zip(("red", "green", "blue"), shade)}


_PACKAGES = ("jaxmem", "jax", "jaxlib", "flax", "equinox", "numpy", "scipy", "scikit-image", "mrcfile")


def read_run(folder: str | Path) -> Found:
    """What a finished run found, as `evaluate` takes it.

    Raises:
        JaxmemError: if the folder is not a complete run.
    """
    folder = Path(folder)
    if not (folder / "manifest.json").exists():
        raise JaxmemError(
            f"{folder}: not a finished run (no manifest.json); give the folder that `jaxmem segment -o` wrote"
        )
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    size = manifest["voxel_size_A"]
    labels = read_mrc(folder / "labels.mrc", size)
    semantic = np.asarray(read_mrc(folder / "semantic.mrc", size).data)
    surfaces = {}
    for path in sorted((folder / "surfaces").glob("membrane_*.ply")):
        vertices, faces, values = read_ply(path)
        normals = np.stack([values[f"n{a}"] for a in "zyx"], 1)
        flat = is_flat(labels.data.shape)
        closed = _closed_ribbon(faces, len(vertices)) if flat else is_watertight(faces)
        place = labels.to_voxels(vertices) * ([0, 1, 1] if flat else [1, 1, 1])
        surfaces[int(path.stem.split("_")[1])] = Vertices(
            place, normals, values["sigma"] / size, values["seen"] > 0, closed
        )
    return Found(np.asarray(labels.data), semantic, surfaces, size)


def _closed_ribbon(faces: np.ndarray, n: int) -> bool:
    """A ribbon closes if each lower vertex belongs to exactly two segments, that is, to three triangles."""
    counts = np.bincount(faces.ravel(), minlength=n)
    return bool(len(faces)) and bool((counts == 3).all())


def read_truth(paths: list[Path]) -> tuple[np.ndarray, dict[int, tuple[np.ndarray, np.ndarray]] | None]:
    """Truth files: one MRC of labels, and if there is one an .npz with `points_i` and `normals_i` (zyx voxels).

    Raises:
        JaxmemError: if there is no label volume, more than one, or the .npz holds no points.
    """
    volumes = [p for p in paths if p.suffix != ".npz"]
    if len(volumes) != 1 or len(paths) > 2:
        raise JaxmemError(
            f"--truth needs exactly one label volume (MRC) and at most one .npz, got {[str(p) for p in paths]}"
        )
    labels = as_instances(read_mrc(volumes[0], labels=True).data, str(volumes[0]))
    points = None
    for path in paths:
        if path.suffix == ".npz":
            try:
                with np.load(path) as file:
                    numbers = [int(k.split("_")[1]) for k in file.files if k.startswith("points_")]
                    points = {
                        i: (file[f"points_{i}"].astype(float), file[f"normals_{i}"].astype(float)) for i in numbers
                    }
            except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
                raise JaxmemError(
                    f"{path}: cannot be read as truth ({error}); it needs arrays points_1, normals_1, ..."
                ) from None
    return labels, points
