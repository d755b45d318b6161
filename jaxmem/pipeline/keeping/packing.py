"""Results of stages as named arrays, and back, bit for bit."""

from collections.abc import Sequence
from typing import overload

import jax
import jax.numpy as jnp
import numpy as np

from jaxmem import ellipse as ell
from jaxmem import gp
from jaxmem.grouping import Midline, Region
from jaxmem.grouping.shape import Shape
from jaxmem.pipeline.keeping.pieces import Piece, Pieces
from jaxmem.pipeline.pruning import Ellipses
from jaxmem.results import Evidence, MembraneResult
from jaxmem.surface import Mesh, Paint


def pack_lines(lines: list[Midline]) -> Piece:
    """Midlines, of smoothed slices and of slices as they are."""
    return {f"{name}_{k}": value for k, line in enumerate(lines) for name, value in line._asdict().items()}


def unpack_lines(piece: Piece) -> list[Midline]:
    """The inverse of `pack_lines`."""
    many = sum(name.startswith("points_") for name in piece)
    return [Midline(*(piece[f"{name}_{k}"] for name in Midline._fields)) for k in range(many)]


def pack_grouping(grouping: tuple[list[Region], np.ndarray]) -> Piece:
    """Membranes, and the region of each clear point."""
    return pack_regions(grouping[0]) | {"region": grouping[1].astype(np.int32)}


def unpack_grouping(piece: Piece) -> tuple[list[Region], np.ndarray]:
    """The inverse of `pack_grouping`."""
    region = piece.pop("region").astype(int)
    return unpack_regions(piece), region


def pack_pruning(pruning: tuple[dict[int, Ellipses] | None, list[Region]]) -> Piece:
    """Ellipses, and membranes after the pruning."""
    return {f"slices_{k}": v for k, v in pack_ellipses(pruning[0]).items()} | pack_regions(pruning[1])


def unpack_pruning(piece: Piece) -> tuple[dict[int, Ellipses] | None, list[Region]]:
    """The inverse of `pack_pruning`."""
    slices = {k.removeprefix("slices_"): v for k, v in piece.items() if k.startswith("slices_")}
    return unpack_ellipses(slices), unpack_regions(piece)


def pack_regions(regions: list[Region]) -> Piece:
    """Regions: their members one after another, and what describes them."""
    leaves = [jax.tree.leaves(r.shape) for r in regions]
    members = [r.members for r in regions]
    blends = [r.blend for r in regions if r.blend is not None]
    piece = {f"shape_{k}": np.stack(column) for k, column in enumerate(zip(*leaves))}
    return piece | {
        "members": np.concatenate([np.zeros(0, int), *members]).astype(np.int64),
        "counts": np.array([len(m) for m in members], int),
        "closed": np.array([r.closed for r in regions], bool),
        "blended": np.array([r.blend is not None for r in regions], bool),
        **{f"blend_{name}": np.stack([np.asarray(getattr(b, name)) for b in blends]) for name in _BLEND if blends},
    }


def unpack_regions(piece: Piece) -> list[Region]:
    """The inverse of `pack_regions`."""
    members = np.split(piece["members"], np.cumsum(piece["counts"]))
    regions: list[Region] = []
    place = np.cumsum(piece["blended"]) - 1
    for k, closed in enumerate(piece["closed"].tolist()):
        centre, axes, turn, *numbers = (piece[f"shape_{i}"][k] for i in range(3 + len(Shape._fields) - 1))
        blend = (
            gp.Blend(**{n: jnp.asarray(piece[f"blend_{n}"][place[k]]) for n in _BLEND}) if piece["blended"][k] else None
        )
        ellipse = (ell.Ellipse if len(axes) == 2 else ell.Ellipsoid)(centre, axes, turn)
        regions.append(Region(members[k], Shape(ellipse, *map(float, numbers)), closed, blend))
    return regions


def pack_ellipses(slices: dict[int, Ellipses] | None) -> Piece:
    """Ellipses of all membranes: rows one after another."""
    if slices is None:
        return {}
    leaves = zip(*(jax.tree.leaves(e.fits) for e in slices.values()))
    piece = {f"fits_{k}": np.concatenate(column) for k, column in enumerate(leaves)}
    return piece | {
        "regions": np.array(list(slices), int),
        "first": np.array([e.first for e in slices.values()], int),
        "counts": np.array([e.fitted for e in slices.values()], int),
        "rows": np.array([len(e.fits.outcome) for e in slices.values()], int),
    }


def unpack_ellipses(piece: Piece) -> dict[int, Ellipses] | None:
    """The inverse of `pack_ellipses`."""
    if not piece:
        return None
    ends = np.cumsum(piece["rows"])[:-1]
    columns = [np.split(piece[f"fits_{k}"], ends) for k in range(3 + len(ell.EllipseFit._fields) - 1)]
    places = zip(piece["regions"].tolist(), piece["first"].tolist(), piece["counts"].tolist(), zip(*columns))
    return {
        k: Ellipses(ell.EllipseFit(ell.Ellipse(*leaves[:3]), *leaves[3:]), first, count)
        for k, first, count, leaves in places
    }


def pack_membrane(membrane: MembraneResult | None, paint: Paint | None) -> Piece:
    """A membrane with the voxels it claims; None is one that no surface fits."""
    if membrane is None or paint is None:
        return {}
    evidence = membrane.evidence
    piece = {f"mesh_{name}": np.asarray(value) for name, value in membrane.mesh._asdict().items()}
    piece |= {f"paint_{name}": value for name, value in paint._asdict().items()}
    piece |= {"points": np.array(membrane.points), "noise": np.array(membrane.noise)}
    if evidence is not None:
        values = [np.nan if value is None else value for value in evidence[:3]]
        piece |= {"evidence": np.array(values, float), "semi_axes": np.asarray(evidence.semi_axes)}
    return piece


def unpack_membrane(piece: Piece) -> tuple[MembraneResult, Paint] | None:
    """The inverse of `pack_membrane`; the implicit function is not kept."""
    if not piece:
        return None
    values = {name: piece[f"mesh_{name}"] for name in Mesh._fields}
    mesh = Mesh(*(value if value.ndim else value.item() for value in values.values()))  # type: ignore[arg-type]
    evidence = None
    if "evidence" in piece:
        ellipses, ellipsoid, gp = (None if np.isnan(value) else float(value) for value in piece["evidence"])
        evidence = Evidence(ellipses, ellipsoid, gp, piece["semi_axes"])  # type: ignore[arg-type]
    paint = Paint(*(piece[f"paint_{name}"] for name in Paint._fields))
    return MembraneResult(mesh, int(piece["points"]), float(piece["noise"]), evidence, None), paint


_BLEND = (
    "centres",
    "coefficients",
    "radius",
    "sigma",
    "size",
    "frame",
    "middle",
    "bumps",
    "loose",
    "vaulted",
)  # arrays of a blend


class Stored(Sequence[MembraneResult]):
    """Membranes that are read when they are asked for; the last one stays in memory.

    Arguments:
        pieces: where they lie.
        names: of their pieces, in the labels' order.
    """

    def __init__(self, pieces: Pieces, names: list[str]):
        self._pieces, self._names = pieces, names
        self._last: tuple[int, MembraneResult] | None = None

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> MembraneResult: ...
    @overload
    def __getitem__(self, index: slice) -> list[MembraneResult]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        k = range(len(self))[index]
        if self._last is None or self._last[0] != k:
            found = unpack_membrane(self._pieces.take(self._names[k]))
            if found is None:
                raise ValueError(f"{self._names[k]} holds no membrane")
            self._last = k, found[0]
        return self._last[1]
