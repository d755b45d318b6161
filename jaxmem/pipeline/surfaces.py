"""Surface stage: from points to surfaces and the voxels they claim, one membrane after another; and what a run returns."""

from collections.abc import Sequence

import numpy as np

from jaxmem.defaults import known
from jaxmem.grouping import Midline
from jaxmem.pipeline.editing.applying import Edited, apply_edits
from jaxmem.pipeline.editing.edits import Edit
from jaxmem.pipeline.evidence import cloud, weigh
from jaxmem.pipeline.keeping.packing import Stored, pack_membrane, unpack_membrane
from jaxmem.pipeline.keeping.pieces import Slabs
from jaxmem.pipeline.keeping.record import Run
from jaxmem.pipeline.placing.refinement import Refined, fits_of
from jaxmem.pipeline.pruning import Ellipses
from jaxmem.pipeline.volume import is_flat
from jaxmem.results import MembraneResult, Result
from jaxmem.surface import Canvas, Paint, extract, paint
from jaxmem.types import Tomogram

Volume = np.ndarray | Slabs


class Made:
    """Surfaces that are finished, in memory or among a run's pieces; None is a membrane that no surface fits.

    Arguments:
        run: keeps them.
    """

    def __init__(self, run: Run):
        self.pieces = run.pieces
        self._held: dict[str, tuple[MembraneResult, Paint] | None] = {}

    def has(self, name: str) -> bool:
        """Whether one is there."""
        return name in self._held if self.pieces is None else self.pieces.get(name) is not None

    def put(self, name: str, one: tuple[MembraneResult, Paint] | None) -> None:
        """Keep one."""
        if self.pieces is None:
            self._held[name] = one
        else:
            self.pieces.put(name, pack_membrane(*(one or (None, None))))

    def get(self, name: str) -> tuple[MembraneResult, Paint] | None:
        """One of them."""
        return self._held[name] if self.pieces is None else unpack_membrane(self.pieces.take(name))

    def vertices(self, name: str) -> np.ndarray | None:
        """(n, d) vertices of one, voxels."""
        one = self.get(name)
        return None if one is None else one[0].mesh.vertices


def make_surfaces(
    names: list[str],
    line: Midline,
    refined: Refined,
    slices: dict[int, Ellipses] | None,
    shape: tuple[int, ...],
    voxel_size: float,
    run: Run,
    made: Made,
    keep: bool,
) -> None:
    """Implicit functions, meshes, and labels of equal thickness, one membrane after another.

    Surfaces are fitted to the points that the tomogram has placed, and to the midline's where it has not.

    Arguments:
        names: under which each membrane is kept.
        line: the midline.
        refined: membranes, their points, and settings.
        slices: ellipses of the membranes' slices.
        shape: of the volume.
        voxel_size: A.
        run: told how far it is.
        made: takes what is not there yet.
        keep: membranes hold their implicit functions.
    """
    volume_shape = shape[1:] if is_flat(shape) else shape
    regions, placed, fit = refined.regions, refined.placed, refined.config.fit
    # thinner than a voxel's diagonal in the slice, labels would fall to pieces
    half = max(0.5 * known(fit.thickness) / voxel_size, 0.75)
    missing = [k for k, name in enumerate(names) if not made.has(name)]
    with run.stage("surfaces", len(regions)) as step:
        fits = fits_of(line, regions, placed, fit, missing)
        for done, (k, membrane) in enumerate(fits, 1 + len(regions) - len(missing)):
            one = None
            if membrane is not None and (extracted := extract(membrane, volume_shape, fit)) is not None:
                mesh, field = extracted
                seen = cloud(line, regions[k], placed[k], membrane.noise, fit)
                evidence = (
                    weigh(seen, (slices or {}).get(k), mesh) if regions[k].closed and regions[k].blend is None else None
                )
                surface = membrane.surface if keep else None
                result = MembraneResult(mesh, len(membrane.points), membrane.noise, evidence, surface)
                one = result, paint(mesh, field, half, volume_shape)
            made.put(names[k], one)
            step(done)


def finish(
    run: Run,
    semantic: Volume,
    line: Midline,
    refined: Refined,
    slices: dict[int, Ellipses] | None,
    tomogram: Tomogram,
    density: Tomogram | None = None,
    *,
    keep_surfaces: bool = True,
    edits: Sequence[Edit] = (),
) -> Result:
    """Surfaces of all membranes, what a user changes of them, and the record of the run.

    Arguments:
        run: told what was decided.
        semantic: what the network or the mask says.
        line: the midline.
        refined: membranes, their points, and settings.
        slices: ellipses of the membranes' slices.
        tomogram: the input: its size and place.
        density: in which points are placed; None if there is no tomogram.
        keep_surfaces: see `segment`.
        edits: made in this order.

    Raises:
        JaxmemError: if an edit names what is not there.
    """
    if not refined.regions:
        run.warn("no membrane was found: the labels are empty")
    shape = tomogram.data.shape
    if shape[0] > 1 and is_flat(shape):
        run.decide(f"{shape[0]} slices are too few for surfaces: their mean is fitted with curves")
    size, made = tomogram.voxel_size, Made(run)
    names = [run.name("surfaces", k) for k in range(len(refined.regions))]
    make_surfaces(names, line, refined, slices, shape, size, run, made, keep_surfaces)
    if edits:
        new: Edited = apply_edits(edits, line, refined, (made.vertices(name) for name in names), tomogram, density, run)
        slices = {k: slices[e] for k, e in enumerate(new.earlier) if e is not None and e in slices} if slices else None
        names = [run.name("edited", k) if e is None else names[e] for k, e in enumerate(new.earlier)]
        refined = new.refined
        make_surfaces(names, line, refined, slices, shape, size, run, made, keep_surfaces)
    found, canvas = _collected(names, line, refined, shape, run, made)
    labels: Volume = Slabs(lambda k: canvas.slab(k)[0], canvas.shape, np.int16, canvas.thickness)
    sigma: Volume = Slabs(lambda k: size * canvas.slab(k)[1], canvas.shape, np.float32, canvas.thickness)
    if is_flat(shape):
        labels, sigma = (np.ascontiguousarray(np.broadcast_to(np.asarray(a), shape)) for a in (labels, sigma))
    elif run.pieces is None:
        labels, sigma = np.asarray(labels), np.asarray(sigma)
    return Result(
        semantic, labels, sigma, found, refined.config, size, tomogram.origin,
        run.decisions, run.warnings, run.seconds, run.digests, run.groups,
    )  # fmt: skip


def _collected(
    names: list[str], line: Midline, refined: Refined, shape: tuple[int, ...], run: Run, made: Made
) -> tuple[Sequence[MembraneResult], Canvas]:
    """The membranes in the labels' order, and their labels; what no surface fits is told."""
    canvas = Canvas(shape[1:] if is_flat(shape) else shape)
    found: list[MembraneResult] = []
    kept: list[str] = []
    for name, region, points in zip(names, refined.regions, refined.placed):
        one, members = made.get(name), line.points[region.members]
        where = np.round(members.mean(0)).astype(int).tolist()
        if one is None:
            run.warn(f"the membrane at {where} was dropped: no surface fits its {len(members)} points")
            continue
        result, painted = one
        kept.append(name)
        canvas.add(len(kept), painted)
        run.groups.members.append(members if points is None else points.points)
        mesh = result.mesh
        kind = "closed" if mesh.closed else "cut by the volume's border" if mesh.cut else "open"
        run.decide(
            f"membrane {len(kept)} at {where}: {kind}, {len(mesh.vertices)} vertices, noise {result.noise:.2f} voxels"
        )
        if made.pieces is None:
            found.append(result)
    return (found if made.pieces is None else Stored(made.pieces, kept)), canvas
