"""Surface stage: from points to surfaces and the voxels they claim, one membrane after another."""

from collections.abc import Sequence

import numpy as np

from jaxmem.defaults import known
from jaxmem.grouping import Midline, Region
from jaxmem.pipeline.evidence import cloud, weigh
from jaxmem.pipeline.keeping.packing import Stored, pack_membrane, unpack_membrane
from jaxmem.pipeline.keeping.record import Run
from jaxmem.pipeline.placing.refinement import Points, fits_of
from jaxmem.pipeline.pruning import Ellipses
from jaxmem.pipeline.volume import is_flat
from jaxmem.results import MembraneResult
from jaxmem.settings import Config
from jaxmem.surface import Canvas, Paint, extract, paint


def surfaces(
    line: Midline,
    regions: list[Region],
    slices: dict[int, Ellipses] | None,
    placed: list[Points | None],
    shape: tuple[int, ...],
    voxel_size: float,
    config: Config,
    run: Run,
    keep: bool = True,
) -> tuple[Sequence[MembraneResult], Canvas]:
    """Surface stage: implicit functions, meshes, and labels of equal thickness, one membrane after another.

    Surfaces are fitted to the points that the tomogram has placed, and to the midline's where it has not. With `keep` the result's
    membranes hold their implicit functions.
    """
    volume_shape = shape[1:] if is_flat(shape) else shape
    members = [r.members for r in regions]
    # thinner than a voxel's diagonal in the slice, labels would fall to pieces
    half = max(0.5 * known(config.fit.thickness) / voxel_size, 0.75)
    made: dict[int, tuple[MembraneResult, Paint] | None] = {}
    names = [run.name("surfaces", k) for k in range(len(regions))]
    with run.stage("surfaces", len(regions)) as step:
        pieces = run.pieces
        missing = [k for k, name in enumerate(names) if pieces is None or pieces.get(name) is None]
        fits = fits_of(line, regions, placed, config.fit, missing)
        for done, (k, membrane) in enumerate(fits, 1 + len(regions) - len(missing)):
            one = None
            if membrane is not None and (extracted := extract(membrane, volume_shape, config.fit)) is not None:
                mesh, field = extracted
                seen = cloud(line, regions[k], placed[k], membrane.noise, config.fit)
                evidence = (
                    weigh(seen, (slices or {}).get(k), mesh) if regions[k].closed and regions[k].blend is None else None
                )
                surface = membrane.surface if keep else None
                result = MembraneResult(mesh, len(membrane.points), membrane.noise, evidence, surface)
                one = result, paint(mesh, field, half, volume_shape)
            if pieces is None:
                made[k] = one
            else:
                pieces.put(names[k], pack_membrane(*(one or (None, None))))
            step(done)
    canvas = Canvas(volume_shape)
    found: list[MembraneResult] = []
    kept: list[str] = []
    for k in range(len(regions)):
        one = made.pop(k) if pieces is None else unpack_membrane(pieces.take(names[k]))
        where = np.round(line.points[members[k]].mean(0)).astype(int).tolist()
        if one is None:
            run.warn(f"the membrane at {where} was dropped: no surface fits its {len(members[k])} points")
            continue
        result, painted = one
        kept.append(names[k])
        canvas.add(len(kept), painted)
        points = placed[k]
        run.groups.members.append(line.points[members[k]] if points is None else points.points)
        mesh = result.mesh
        kind = "closed" if mesh.closed else "cut by the volume's border" if mesh.cut else "open"
        run.decide(
            f"membrane {len(kept)} at {where}: {kind}, {len(mesh.vertices)} vertices, noise {result.noise:.2f} voxels"
        )
        if pieces is None:
            found.append(result)
    return (found if pieces is None else Stored(pieces, kept)), canvas
