"""What a run returns: volumes, meshes, and surfaces that can be called; and the same as other programs want it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmem.membrane import Surface
from jaxmem.settings import Config
from jaxmem.surface import Mesh


class Evidence(NamedTuple):
    """Bayesian information criteria of three models of one closed membrane; the least is the best.

    Attributes:
        ellipses: an ellipse in each slice, held by its neighbours; of a single slice, one ellipse. None if not fitted.
        ellipsoid: one ellipsoid; None in two dimensions.
        gp: the Gaussian process, that is, the surface in the output.
        semi_axes: of the ellipsoid (in two dimensions the ellipse), longest first, voxels.
    """

    ellipses: float | None
    ellipsoid: float | None
    gp: float
    semi_axes: np.ndarray

    @property
    def model(self) -> str:
        """The name of the best."""
        given = {name: value for name, value in self._asdict().items() if name != "semi_axes" and value is not None}
        return min(given, key=lambda name: given[name])


class MembraneResult(NamedTuple):
    """One membrane.

    Attributes:
        mesh: its surface, voxels.
        points: number of points it was fitted to.
        noise: learnt standard deviation of the points, voxels.
        evidence: what models say of a closed one.
        surface: the implicit function: value, gradient, error bar, samples at any point in voxels. None if it was not kept.
    """

    mesh: Mesh
    points: int
    noise: float
    evidence: Evidence | None
    surface: Surface | None


class Vertices(NamedTuple):
    """A surface for `evaluate`, in voxels, zyx: vertices and normals (n, 3), sigma (n,), where it is seen (n,), and whether it is closed."""

    vertices: np.ndarray
    normals: np.ndarray
    sigma: np.ndarray
    seen: np.ndarray
    closed: bool


class Found(NamedTuple):
    """What `evaluate` compares with a truth.

    Attributes:
        labels: (nz, ny, nx) instances.
        semantic: (nz, ny, nx) 0 background, 1 protein, 2 membrane.
        surfaces: of each instance.
        voxel_size: A.
    """

    labels: np.ndarray
    semantic: np.ndarray
    surfaces: dict[int, Vertices]
    voxel_size: float


class Groups(NamedTuple):
    """What grouping made of the midline's points, in voxels, zyx (yx in two dimensions).

    Attributes:
        points: (n, d) clear points of the midline.
        region: (n,) of each, before membranes were selected: 1...m by falling size, or the number of a mask's instance.
        members: (k, d) for each membrane of the result, in the labels' order: the points that its surface was fitted to.
    """

    points: np.ndarray
    region: np.ndarray
    members: list[np.ndarray]


class Result(NamedTuple):
    """What `segment` and `fit_mask` return; volumes are (nz, ny, nx), on the input's voxels.

    In a run whose pieces are kept on disk (`segment_file`) volumes and membranes are read from there when they are indexed.

    Attributes:
        semantic: int8; 0 background, 1 protein, 2 membrane: what the network (or the mask) says.
        labels: int16; instances 1...n, the membranes' surfaces at equal thickness.
        uncertainty: float32; standard deviation of the surface's position in A, on labelled voxels; 0 elsewhere.
        membranes: in the labels' order.
        config: what ran: the settings with everything decided that had been left open.
        voxel_size: A.
        origin: of voxel (0, 0, 0), xyz, A.
        decisions: what was decided, in words.
        warnings: what the user should know.
        seconds: time of each stage.
        digests: SHA-256 of each file of weights that was used: `network`, `linker`, `walker`.
        groups: points of the midline, their regions, and those of each membrane.
    """

    semantic: Any
    labels: Any
    uncertainty: Any
    membranes: Sequence[MembraneResult]
    config: Config
    voxel_size: float
    origin: tuple[float, float, float]
    decisions: list[str]
    warnings: list[str]
    seconds: dict[str, float]
    digests: dict[str, str]
    groups: Groups

    def surfaces(self) -> dict[int, Vertices]:
        """The surface of each label, as `evaluate` takes them; curves of a single slice lie at z = 0."""
        out = {}
        for number, membrane in enumerate(self.membranes, 1):
            mesh = membrane.mesh
            lift = ((0, 0), (3 - mesh.vertices.shape[1], 0))
            places = np.pad(mesh.vertices, lift), np.pad(mesh.normals, lift)
            out[number] = Vertices(*places, mesh.sigma, mesh.seen, mesh.closed)
        return out

    def found(self) -> Found:
        """What `evaluate` compares with a truth."""
        return Found(self.labels, self.semantic, self.surfaces(), self.voxel_size)


class Triangles(NamedTuple):
    """A mesh in the world: vertices (n, 3) xyz in A, normals (n, 3) xyz, faces (m, 3), and values on the vertices by name."""

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    values: dict[str, np.ndarray]


def lifted(mesh: Mesh, slices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A mesh as triangles in three dimensions: vertices and normals (n, 3) zyx, faces, and the source vertex of each.

    A curve becomes a ribbon as high as the volume's few `slices`; its area is length times height.
    """
    if mesh.vertices.shape[1] == 3:
        return mesh.vertices, mesh.normals, mesh.faces, np.arange(len(mesh.vertices))
    n = len(mesh.vertices)
    source = np.tile(np.arange(n), 2)
    height = np.repeat([-0.5, slices - 0.5], n)[:, None]
    a, b = mesh.faces.T
    faces = np.concatenate([np.stack([a, b, b + n], 1), np.stack([a, b + n, a + n], 1)])
    flat = np.zeros((2 * n, 1))
    return np.hstack([height, mesh.vertices[source]]), np.hstack([flat, mesh.normals[source]]), faces, source


def triangles(result: Result, number: int) -> Triangles:
    """One membrane's mesh in the world, with its error bar (A), whether it is seen, and its curvatures (1/A, 1/A^2).

    Arguments:
        result: of `segment` or `fit_mask`.
        number: of the membrane, from 1, as in the labels.

    Raises:
        IndexError: if there is no such membrane.
    """
    if not 1 <= number <= len(result.membranes):
        raise IndexError(f"membrane {number} of {len(result.membranes)}")
    mesh, size = result.membranes[number - 1].mesh, result.voxel_size
    vertices, normals, faces, of = lifted(mesh, len(result.labels))
    values = {
        "sigma": mesh.sigma[of] * size,
        "seen": mesh.seen[of],
        "mean_curvature": mesh.mean_curvature[of] / size,
        "gaussian_curvature": mesh.gaussian_curvature[of] / size**2,
        "mean_curvature_sigma": mesh.mean_curvature_sigma[of] / size,
        "gaussian_curvature_sigma": mesh.gaussian_curvature_sigma[of] / size**2,
    }
    world = vertices[:, ::-1] * size + np.asarray(result.origin)
    return Triangles(world, normals[:, ::-1], faces, values)


def napari_layers(result: Result, colour: str = "sigma") -> list[tuple[Any, dict[str, Any], str]]:
    """Layers for napari: labels, uncertainty, and a surface for each membrane, in A, zyx.

    Arguments:
        result: of `segment` or `fit_mask`.
        colour: which value of `triangles` the surfaces show.

    Example:
        >>> for layer in napari_layers(result):  # doctest: +SKIP
        ...     viewer.add_layer(napari.layers.Layer.create(*layer))
    """
    place = {"scale": (result.voxel_size,) * 3, "translate": result.origin[::-1]}
    layers: list[tuple[Any, dict[str, Any], str]] = [
        (result.labels, {"name": "membranes", **place}, "labels"),
        (result.uncertainty, {"name": "uncertainty (A)", "visible": False, "colormap": "viridis", **place}, "image"),
    ]
    for number in range(1, len(result.membranes) + 1):
        one = triangles(result, number)
        surface = (one.vertices[:, ::-1], one.faces, one.values[colour].astype(np.float32))
        layers.append((surface, {"name": f"membrane {number}", "colormap": "viridis"}, "surface"))
    return layers


def trimesh_arguments(result: Result, number: int) -> dict[str, Any]:
    """Arguments of `trimesh.Trimesh` for one membrane, xyz in A; values on the vertices come along as attributes.

    Example:
        >>> mesh = trimesh.Trimesh(**trimesh_arguments(result, 1))  # doctest: +SKIP
    """
    one = triangles(result, number)
    return {
        "vertices": one.vertices,
        "faces": one.faces,
        "vertex_normals": one.normals,
        "vertex_attributes": one.values,
        "process": False,
    }


def pyvista_arrays(result: Result, number: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Points (n, 3) xyz in A, faces as pyvista takes them (each after its count, 3), and values on the points.

    Example:
        >>> points, faces, values = pyvista_arrays(result, 1)  # doctest: +SKIP
        >>> mesh = pyvista.PolyData(points, faces)  # doctest: +SKIP
        >>> mesh.point_data.update(values)  # doctest: +SKIP
    """
    one = triangles(result, number)
    return one.vertices, np.insert(one.faces, 0, 3, axis=1).ravel(), one.values
