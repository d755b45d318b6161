"""`jaxmem measure`: what is measured on a run, as tables, meshes and a part of its report."""

import json
import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from jaxmem import __version__
from jaxmem.io import OutputFolder, read_mrc, write_csv, write_star, write_vtp
from jaxmem.measure import Particles
from jaxmem.pipeline.keeping.record import Progress, Run
from jaxmem.pipeline.measuring import tables
from jaxmem.pipeline.measuring.inputs import Finished, Skin, density_of, open_run
from jaxmem.pipeline.measuring.leaflets import NOT_READ, Thickness, thicknesses
from jaxmem.pipeline.measuring.pairs import pair_row, widths
from jaxmem.pipeline.measuring.proteins import Foot, clear_ones, clustering, feet, particles_of
from jaxmem.pipeline.placing.appearance import first_look
from jaxmem.points import first_of_each
from jaxmem.report import add_measures
from jaxmem.settings import RefineConfig
from jaxmem.surface import Outline
from jaxmem.types import JaxmemError

log = logging.getLogger("jaxmem")

_HELD = 24  # membranes in memory
_APART = 1.5  # voxels; edge of the cells of which an outline has one vertex each


def measure_run(
    run: str | Path,
    tomogram: str | Path | None = None,
    out: str | Path | None = None,
    *,
    contact: float = 30.0,
    reach: float = 50.0,
    head: float = 80.0,
    foot: float = 20.0,
    progress: Progress | None = None,
) -> Path:
    """Measure a finished run: thickness, distances and contacts, bending, and proteins on its membranes, each with its error bar.

    Written are `membranes.csv`, `pairs.csv` and `particles.csv`, `particles.star` for RELION 5, and a VTP mesh for each membrane with all
    values on its vertices; lengths are nm but for coordinates, which are A. The run's report gets a part with histograms.

    Arguments:
        run: folder.
        tomogram: from which thickness is measured; the run's own when None. Without one there is no thickness.
        out: folder; `measures` in the run when None. One of an earlier measurement is replaced.
        contact: two membranes are in contact where they are no farther apart, nm.
        reach: pairs that come no closer are left out, nm.
        head: least diameter of a protein, A.
        foot: a protein farther from every membrane stands on none, nm; from its centre.
        progress: told how far each part is.

    Returns:
        The folder.

    Raises:
        JaxmemError: if the run, the tomogram or the folder is at fault, or a length is not positive.
    """
    given = {"contact": contact, "reach": reach, "head": head, "foot": foot}
    for name, value in given.items():
        if not value > 0:
            raise JaxmemError(f"--{name}: must be positive, got {value:g}")
    finished = open_run(run)
    out = finished.folder / "measures" if out is None else Path(out)
    density = density_of(finished, tomogram)
    said = Run(progress)
    if density is None:
        said.warn("no tomogram: thickness is not measured; give it with --tomogram")
    data = None if density is None else density.data
    skin = lru_cache(_HELD)(finished.skin)
    with OutputFolder(out, overwrite=True) as folder:
        thick = _thickness(finished, data, said)
        near = _Nearest(finished, skin)
        pairs = _pairs(finished, skin, near, contact, reach, said)
        found, stand = _proteins(finished, skin, data, head, foot, said)
        rows = []
        with said.stage("membranes", len(finished.numbers)) as step:
            for k, number in enumerate(finished.numbers):
                one = skin(number)
                across = widths(one) if one.closed else None
                here = [f.vertex for f in stand if f.membrane == number]
                cluster = clustering(one, np.array(here), finished.voxel_size, number) if len(here) > 1 else {}
                rows.append(tables.membrane_row(one, thick[k], across, len(here), cluster, near.of(k), finished))
                values = tables.vertex_values(one, thick[k], across, near.of(k), finished)
                _write_mesh(folder, one, values, finished)
                step(k + 1)
        write_csv(folder / "membranes.csv", rows, tables.MEMBRANES)
        write_csv(folder / "pairs.csv", pairs, tables.PAIRS)
        particles = tables.particle_rows(found, stand, skin, finished)
        write_csv(folder / "particles.csv", particles, tables.PARTICLES)
        _write_star(folder, found, stand, skin, finished)
        manifest = {
            "command": "measure", "run": str(finished.folder), "tomogram": str(tomogram or finished.manifest["input"]) if density is not None else None,
            "settings": given, "version": __version__, "decisions": said.decisions, "warnings": said.warnings, "seconds": said.seconds,
        }  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    if (finished.folder / "report.html").exists():
        add_measures(finished.folder / "report.html", rows, pairs, particles, said.decisions + said.warnings)
    return out


class _Nearest:
    """For each vertex of each membrane the nearest other membrane, as far as pairs have been looked at."""

    def __init__(self, run: Finished, skin):
        counts = [len(skin(number).vertices) for number in run.numbers]
        self.gap = [np.full(n, np.inf, np.float32) for n in counts]
        self.number = [np.zeros(n, np.int32) for n in counts]

    def note(self, k: int, where: np.ndarray, gap: np.ndarray, number: int) -> None:
        """Vertices of the k-th membrane that are so far from another one."""
        closer = np.abs(gap) < self.gap[k][where]
        self.gap[k][where[closer]] = np.abs(gap)[closer]
        self.number[k][where[closer]] = number

    def of(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Distances in voxels, infinite where nothing is near, and the numbers of membranes."""
        return self.gap[k], self.number[k]


def _thickness(run: Finished, data: Any, said: Run) -> list[Thickness]:
    if data is None or not run.numbers:
        return [NOT_READ] * len(run.numbers)
    settings = run.manifest["config"]["refine"]
    config = RefineConfig(**settings)
    outlines = []
    for number in run.numbers:
        one = run.skin(number)
        chosen = first_of_each(np.floor(one.vertices / _APART).astype(int))
        outlines.append(Outline(one.vertices[chosen].astype(np.float32), one.normals[chosen].astype(np.float32)))
    with said.stage("thickness", len(outlines)) as step:
        look = first_look(data, run.voxel_size, config, said)
        found, reason = thicknesses(data, outlines, look, run.voxel_size, config.patch, step)
    if reason is not None:
        said.warn(f"thickness is not measured: {reason}")
    else:
        many = sum(one.mean is not None for one in found)
        said.decide(f"the thickness of {many} of {len(found)} membranes is measured")
    return found


def _pairs(run: Finished, skin, near: _Nearest, contact: float, reach: float, said: Run) -> list[dict[str, Any]]:
    size = 0.1 * run.voxel_size
    within, far = contact / size, max(reach, contact) / size
    boxes = np.array([[skin(n).vertices.min(0), skin(n).vertices.max(0)] for n in run.numbers]).reshape(-1, 2, 3)
    tree = lru_cache(_HELD)(lambda number: cKDTree(skin(number).vertices))
    rows = []
    with said.stage("distances", len(run.numbers)) as step:
        for i, first in enumerate(run.numbers):
            beside = (boxes[i + 1 :, 1] >= boxes[i, 0] - far).all(1) & (boxes[i + 1 :, 0] <= boxes[i, 1] + far).all(1)
            for j in (i + 1 + np.flatnonzero(beside)).tolist():
                second = run.numbers[j]
                one, other = skin(first), skin(second)
                found = pair_row(one, other, (tree(first), tree(second)), within, far)
                if found is not None:
                    for k, at, number in ((i, found.pop("facing"), second), (j, found.pop("facing_back"), first)):
                        near.note(k, at.where, at.gap, number)
                    rows.append(tables.pair_row(first, second, found, size))
            step(i + 1)
    return rows


def _proteins(run: Finished, skin, data: Any, head: float, foot: float, said: Run) -> tuple[Particles, list[Foot]]:
    semantic = read_mrc(run.folder / "semantic.mrc", run.voxel_size, labels=True).data
    with said.stage("proteins", 2) as step:
        found = particles_of(semantic, data, run.voxel_size, head)
        step(1)
        each = ((skin(number), cKDTree(skin(number).vertices)) for number in run.numbers)
        stand = feet(found.centre, each, 10.0 * foot / run.voxel_size)
        if data is not None:
            found, stand = clear_ones(found, stand)
    said.decide(f"{len(found.centre)} particles, {sum(f.membrane > 0 for f in stand)} of them on membranes")
    return found, stand


def _write_mesh(folder: Path, one: Skin, values: dict[str, np.ndarray], run: Finished) -> None:
    world = run.labels.to_world(one.vertices) / 10.0
    write_vtp(folder / f"membrane_{one.number:03d}.vtp", world, one.faces, one.normals[:, ::-1], values)


def _write_star(folder: Path, found: Particles, stand: Sequence[Foot], skin, run: Finished) -> None:
    on = [i for i, f in enumerate(stand) if f.membrane]
    ways = np.array([skin(stand[i].membrane).normals[stand[i].vertex] * np.sign(stand[i].distance or 1.0) for i in on])
    shape = run.labels.data.shape
    write_star(
        folder / "particles.star", run.folder.resolve().name, found.centre[on][:, ::-1], ways.reshape(-1, 3)[:, ::-1],
        np.array([stand[i].membrane for i in on], int), run.voxel_size, (shape[0], shape[1], shape[2]),
    )  # fmt: skip
