"""Surfaces of a run in the formats of other programs: while it is written, and afterwards from its folder."""

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxmem.io import (
    Painted,
    Picks,
    in_nm,
    read_mrc,
    read_ply,
    write_copick,
    write_glb,
    write_imod,
    write_obj,
    write_star,
    write_vtp,
)
from jaxmem.io.meshes import colours
from jaxmem.results import Triangles
from jaxmem.surface.sampling import sample_points
from jaxmem.types import JaxmemError, Tomogram

FORMATS = ("glb", "vtp", "obj", "star", "mod", "copick")
"""What `export_run` writes."""

_VALUES = ("sigma", "seen", "mean_curvature", "gaussian_curvature")
_SHORT = {"mean_curvature": "H", "gaussian_curvature": "K"}


def painted(number: int, one: Triangles, colour: str, between: tuple[float, float] | None) -> Painted:
    """A membrane's surface for a GLB.

    Arguments:
        number: of the membrane.
        one: its surface.
        colour: "membrane", or the value that is shown.
        between: the values of the first colour and the last; None where colours are the membranes'.
    """
    shades = (
        np.tile(colours.of_membrane(number), (len(one.vertices), 1))
        if between is None
        else colours.painted(colour, one.values[colour].astype(float), between)
    )
    values = {_SHORT.get(name, name): one.values[name].astype(float) for name in _VALUES}
    return Painted(f"membrane {number}", one.vertices, one.normals, one.faces, shades, values, {"membrane": number})


def write_scene(path: Path, each: Callable[[], Iterator[tuple[int, Triangles]]], colour: str = "membrane") -> None:
    """All surfaces as one GLB, one after another in memory.

    Arguments:
        path: file.
        each: gives the numbers of membranes and their surfaces; called twice where colours show a value.
        colour: "membrane", or a value on the vertices: sigma, seen, mean_curvature or gaussian_curvature.
    """
    between = None
    if colour != "membrane":
        ends = [colours.limits(colour, one.values[colour].astype(float)) for _, one in each()]
        between = (min((e[0] for e in ends), default=0.0), max((e[1] for e in ends), default=1.0))
    write_glb(path, (painted(number, one, colour, between) for number, one in each()))


def write_view(folder: Path, target: Path, source: str | Path | None, middle: int) -> None:
    """A command file for ChimeraX that opens the surfaces, the labels, and a slice of the tomogram.

    Arguments:
        folder: where the run is being written.
        target: where it will be.
        source: the tomogram, if it is a file.
        middle: slice that is shown.
    """
    lines = [
        "# open this file in ChimeraX; sigma shows the error bars: show ##name=sigma models; hide ##name=membranes models",
        "open membranes.glb",
        "open sigma.glb",
        "hide ##name=sigma models",
        "open labels.mrc",
        "hide ##name=labels.mrc models",
    ]
    if source is not None and Path(source).suffix.lower() in (".mrc", ".rec", ".map"):
        name = os.path.relpath(os.path.abspath(source), os.path.abspath(target))
        lines += [f'open "{name}"', f'volume ##name="{Path(source).name}" planes z,{middle} style image']
    (folder / "view.cxc").write_text("\n".join([*lines, "view"]) + "\n", encoding="utf-8")


def surfaces_of(run: Path) -> Iterator[tuple[int, Triangles]]:
    """Numbers and surfaces of a finished run, one after another.

    Raises:
        JaxmemError: if a surface cannot be read.
    """
    for path in sorted((run / "surfaces").glob("membrane_*.ply")):
        vertices, faces, values = read_ply(path)
        normals = np.stack([values.pop(f"n{a}") for a in "xyz"], 1)
        for name in ("red", "green", "blue"):
            values.pop(name, None)
        yield int(path.stem.split("_")[1]), Triangles(vertices, normals, faces, values)


def export_run(
    run: str | Path,
    formats: Sequence[str],
    out: str | Path | None = None,
    *,
    colour: str = "membrane",
    spacing: float = 150.0,
    height: float = 0.0,
) -> list[Path]:
    """Write the surfaces of a finished run in other formats.

    Arguments:
        run: folder.
        formats: some of `FORMATS`: "glb", one scene in A; "vtp", a mesh for each membrane in nm with principal curvatures and error bars; "obj",
            one for each, in A; "star", points on all membranes for RELION 5; "mod", outlines in the slices for IMOD; "copick", a copick project.
        out: folder, made if missing; `export` in the run when None.
        colour: of the GLB: "membrane", or a value on the vertices.
        spacing: least distance of the points in STAR files and picks, A.
        height: of those points over the surface, along its normal, outwards of closed membranes, A.

    Returns:
        The files.

    Raises:
        JaxmemError: if the folder is no finished run, a name is unknown, a package is missing, or a file cannot be written.
    """
    run = Path(run)
    out = run / "export" if out is None else Path(out)
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise JaxmemError(f"export: no format {unknown[0]!r}; there are {', '.join(FORMATS)}")
    if colour != "membrane" and colour not in _VALUES:
        raise JaxmemError(f"export: no colour {colour!r}; there are membrane, {', '.join(_VALUES)}")
    if not spacing > 0:
        raise JaxmemError(f"export: a spacing of {spacing:g} A makes no sense; give a positive one")
    if not (run / "manifest.json").exists():
        raise JaxmemError(
            f"{run}: not a finished run (no manifest.json); give the folder that `jaxmem segment -o` wrote"
        )
    written: list[Path] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        if "glb" in formats:
            written.append(out / "membranes.glb")
            write_scene(written[-1], lambda: surfaces_of(run), colour)
        for number, one in surfaces_of(run) if {"vtp", "obj"} & set(formats) else ():
            stem = out / f"membrane_{number:03d}"
            if "vtp" in formats:
                written.append(stem.with_suffix(".vtp"))
                write_vtp(written[-1], one.vertices / 10.0, one.faces, one.normals, in_nm(one.values))
            if "obj" in formats:
                written.append(stem.with_suffix(".obj"))
                write_obj(written[-1], one.vertices, one.faces, one.normals)
        if {"star", "mod", "copick"} & set(formats):
            labels = read_mrc(run / "labels.mrc")
            shape = tuple(labels.data.shape)
        if "star" in formats:
            written.append(out / "points.star")
            picks, name = _points(run, labels, spacing, height), run.resolve().name
            write_star(
                written[-1], name, picks.places / labels.voxel_size, picks.directions, picks.instance, labels.voxel_size, shape
            )  # fmt: skip
        if "mod" in formats:
            written.append(out / "membranes.mod")
            inside = ((n, labels.to_voxels(one.vertices)[:, ::-1], one.faces) for n, one in surfaces_of(run))
            write_imod(written[-1], inside, labels.voxel_size, shape)
        if "copick" in formats:
            written += _copick(run, out, labels, spacing, height)
    except OSError as error:
        raise JaxmemError(f"{out}: cannot be written ({error.strerror}); choose another folder with -o") from None
    return written


def _points(run: Path, labels: Tomogram, spacing: float, height: float) -> Picks:
    """Points on all membranes of a run, from the centre of the first voxel."""
    places, ways, numbers = [np.zeros((0, 3))], [np.zeros((0, 3))], [np.zeros(0, int)]
    for number, one in surfaces_of(run):
        at, normal = sample_points(one.vertices, one.faces, one.normals, spacing, seed=number)
        places.append(at + height * normal - np.asarray(labels.origin))
        ways.append(normal)
        numbers.append(np.full(len(at), number))
    return Picks(np.concatenate(places), np.concatenate(ways), np.concatenate(numbers))


def _copick(run: Path, out: Path, labels: Tomogram, spacing: float, height: float) -> list[Path]:
    """A copick project: labels, surfaces, points, and proteins if they were measured."""
    picks = {"membrane-point": _points(run, labels, spacing, height)}
    table = run / "measures" / "particles.csv"
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["membrane"]]

        def column(*names: str) -> np.ndarray:
            return np.array([[float(row[name]) for name in names] for row in rows]).reshape(-1, 3)

        places = column("x_A", "y_A", "z_A") - np.asarray(labels.origin)
        numbers = np.array([int(row["membrane"]) for row in rows], int)
        picks["membrane-protein"] = Picks(places, column("normal_x", "normal_y", "normal_z"), numbers)
    (out / "copick").mkdir(exist_ok=True)
    each = (painted(number, one, "membrane", None) for number, one in surfaces_of(run))
    return write_copick(out / "copick", run.resolve().name, labels.data, labels, each, picks)
