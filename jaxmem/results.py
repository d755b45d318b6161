"""What a run returns."""

from typing import NamedTuple

import numpy as np

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
    """One membrane: surface in voxels, number of points, their learnt noise in voxels, and what models say of a closed one."""

    mesh: Mesh
    points: int
    noise: float
    evidence: Evidence | None


class Surface(NamedTuple):
    """A surface for `evaluate`, in voxels, zyx: vertices and normals (n, 3), sigma (n,), and whether it is closed."""

    vertices: np.ndarray
    normals: np.ndarray
    sigma: np.ndarray
    closed: bool


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

    Attributes:
        semantic: int8; 0 background, 1 protein, 2 membrane: what the network (or the mask) says.
        labels: int16; instances 1...n, the membranes' surfaces at equal thickness.
        uncertainty: float32; standard deviation of the surface's position in A, on labelled voxels; 0 elsewhere.
        membranes: in the labels' order.
        decisions: what was decided, in words.
        warnings: what the user should know.
        seconds: time of each stage.
        weights_hash: SHA-256 of the network's weights; empty for `fit_mask`.
        groups: points of the midline, their regions, and those of each membrane.
    """

    semantic: np.ndarray
    labels: np.ndarray
    uncertainty: np.ndarray
    membranes: list[MembraneResult]
    decisions: list[str]
    warnings: list[str]
    seconds: dict[str, float]
    weights_hash: str
    groups: Groups

    def surfaces(self) -> dict[int, Surface]:
        """The surface of each label, as `evaluate` takes them; curves of a single slice lie at z = 0."""
        out = {}
        for number, membrane in enumerate(self.membranes, 1):
            mesh = membrane.mesh
            lift = ((0, 0), (3 - mesh.vertices.shape[1], 0))
            out[number] = Surface(np.pad(mesh.vertices, lift), np.pad(mesh.normals, lift), mesh.sigma, mesh.closed)
        return out
