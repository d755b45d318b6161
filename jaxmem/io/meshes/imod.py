"""Surfaces as an IMOD model: an object for each membrane, its outlines in the slices as contours. Needs the extra `imod`."""

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxmem.io.meshes.colours import of_membrane
from jaxmem.types import JaxmemError

_NM = -9  # IMOD's number for lengths in nm
_CORNER = np.array([0.5, 0.5, 0.0])  # the centre of the first voxel


def outlines(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], plane: float
) -> list[tuple[Float[np.ndarray, "k 3"], bool]]:
    """Where a mesh crosses a plane of constant z: lines of points in order, and whether each closes.

    Arguments:
        vertices: xyz.
        faces: vertex indices; each edge belongs to two triangles, at the border to one.
        plane: z.

    Example:
        >>> square = np.array([[0.0, 0, 0], [2, 0, 0], [0, 0, 2], [2, 0, 2]])
        >>> [(line.tolist(), closed) for line, closed in outlines(square, np.array([[0, 1, 2], [1, 3, 2]]), 0.5)]
        [([[0.0, 0.0, 0.5], [1.5, 0.0, 0.5], [2.0, 0.0, 0.5]], False)]
    """
    above = vertices[:, 2] > plane  # a vertex in the plane counts as below, so that no triangle is crossed at one point
    crossed = faces[above[faces].any(1) & ~above[faces].all(1)]
    if not len(crossed):
        return []
    edges = np.sort(np.stack([crossed, np.roll(crossed, -1, 1)], -1), -1)  # (m, 3, 2)
    cut = above[edges[..., 0]] != above[edges[..., 1]]  # two of three
    pairs, index = np.unique(edges[cut], axis=0, return_inverse=True)
    a, b = vertices[pairs[:, 0]], vertices[pairs[:, 1]]
    share = (plane - a[:, 2]) / (b[:, 2] - a[:, 2])
    points = a + share[:, None] * (b - a)
    near: list[list[int]] = [[] for _ in pairs]
    for one, other in index.reshape(-1, 2).tolist():
        near[one].append(other)
        near[other].append(one)
    left, lines = set(range(len(pairs))), []
    for start in sorted(left, key=lambda i: (len(near[i]) != 1, i)):  # ends of open lines first
        if start not in left:
            continue
        line = [start]
        left.discard(start)
        while (step := next((i for i in near[line[-1]] if i in left), None)) is not None:
            line.append(step)
            left.discard(step)
        lines.append((points[line], len(line) > 2 and start in near[line[-1]] and len(near[start]) == 2))
    return lines


def write_imod(
    path: str | Path,
    surfaces: Iterable[tuple[int, Float[np.ndarray, "n 3"], Int[np.ndarray, "m 3"]]],
    voxel_size: float,
    shape: tuple[int, int, int],
) -> None:
    """Write an IMOD model. IMOD counts x and y from the corner of the first voxel, and z from its centre.

    Arguments:
        path: file.
        surfaces: number of each membrane, its vertices (xyz, voxels from the centre of the first one) and faces.
        voxel_size: A.
        shape: of the tomogram, (nz, ny, nx).

    Raises:
        JaxmemError: if the package imodmodel is not installed.
    """
    try:
        models: Any = importlib.import_module("imodmodel.models")
    except ImportError:
        raise JaxmemError(f"{path}: IMOD models need the package imodmodel: pip install 'jaxmem[imod]'") from None
    model = models.ImodModel()
    depth, height, width = shape
    header = model.header
    header.name, header.xmax, header.ymax, header.zmax = "membranes of jaxmem", width, height, depth
    header.pixelsize, header.units = voxel_size / 10.0, _NM
    for number, vertices, faces in surfaces:
        item = models.Object(color=tuple(of_membrane(number).tolist()))
        item.header.name = f"membrane {number}"
        low, high = vertices[:, 2].min(), vertices[:, 2].max()
        for z in range(max(0, int(np.ceil(low))), min(depth - 1, int(np.floor(high))) + 1):
            for line, closed in outlines(vertices, faces, float(z)):
                contour = models.Contour(points=line + _CORNER, header=models.ContourHeader())
                contour.header.flags.open = not closed
                item.contours.append(contour)
        item.update_sizes()
        model.objects.append(item)
    model.update_sizes()
    model.to_file(path)
