"""Records, axis and unit conventions shared by every stage.

Arrays are indexed zyx (plane, row, column) in voxels; tables and meshes are xyz in A. The conversion is
`origin + index * voxel_size`, reversed in axis order, and is made in one place: `Tomogram.to_world`.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    Scalar: TypeAlias = float | Float[Array, ""]
    """A number, known or traced."""
else:

    def __getattr__(name: str) -> object:
        """`Scalar` when it is first asked for: it needs JAX, which what only reports on files can do without."""
        if name != "Scalar":
            raise AttributeError(f"module 'jaxmem.types' has no attribute {name!r}")
        from jaxtyping import Array, Float

        globals()["Scalar"] = float | Float[Array, ""]
        return globals()["Scalar"]


BACKGROUND, PROTEIN, MEMBRANE = 0, 1, 2


class Outcome(IntEnum):
    """How a fit ended, for every fitter; only OK is a success. Inside jit it is data: nothing is raised there."""

    OK = 0
    EMPTY = 1
    """The mask leaves no rows."""
    TOO_FEW = 2
    """Fewer rows than parameters that only they can tell."""
    TOO_SMALL = 3
    """A semi-axis is at its lower bound or less than three times the noise: the points are nearly one point, or lie along a line."""
    UNDETERMINED = 4
    """The arc is too short or too straight: a semi-axis grew to its upper bound, or its error exceeds half of it."""
    NOT_CONVERGED = 5
    """The search stopped before its minimum."""
    NOT_FINITE = 6
    """NaN or infinity among the inputs, or no finite solution."""
    RADIUS = 7
    """The kernel's R is smaller than the largest distance between points: not a covariance there."""

    @property
    def message(self) -> str:
        """One line for people.

        Example:
            >>> Outcome.EMPTY.message
            'no rows are left by the mask'
        """
        return _MESSAGES[self]


_MESSAGES = {
    Outcome.OK: "fitted",
    Outcome.EMPTY: "no rows are left by the mask",
    Outcome.TOO_FEW: "too few rows for the number of parameters; give a prior",
    Outcome.TOO_SMALL: "the points are nearly one point, or lie along a line",
    Outcome.UNDETERMINED: "the arc is too short or too straight to tell the size; give a prior",
    Outcome.NOT_CONVERGED: "the search stopped before its minimum; give more iterations or a better start",
    Outcome.NOT_FINITE: "NaN or infinity among the inputs, or no finite solution; give more noise",
    Outcome.RADIUS: "R is smaller than the largest distance between points; see `gp.valid_radius`",
}


class JaxmemError(Exception):
    """A problem with the user's input: one line that names the file, what is wrong, and the remedy."""


class Tomogram(NamedTuple):
    """A volume with its place in the world.

    Attributes:
        data: (nz, ny, nx), any real dtype; may be a read-only memory map, or a `LazyArray` that is read as it is indexed.
        voxel_size: edge of the cubic voxel in A.
        origin: position of the centre of voxel (0, 0, 0) in A, xyz; includes `nstart`.
        nstart: the header's start indices, xyz, kept for the outputs.
        header_origin: the header's origin field in A, xyz, kept for the outputs.
    """

    data: np.ndarray
    voxel_size: float
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    nstart: tuple[int, int, int] = (0, 0, 0)
    header_origin: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """Map voxel coordinates (n, 3) zyx to (n, 3) xyz in A.

        Example:
            >>> Tomogram(np.zeros((2, 2, 2)), 10.0, (5.0, 0.0, 0.0)).to_world(np.array([[1.0, 0.0, 0.0]]))
            array([[ 5.,  0., 10.]])
        """
        return np.asarray(points)[:, ::-1] * self.voxel_size + np.asarray(self.origin)

    def to_voxels(self, points: np.ndarray) -> np.ndarray:
        """The inverse of `to_world`: (n, 3) xyz in A to (n, 3) zyx in voxels."""
        return ((np.asarray(points) - np.asarray(self.origin)) / self.voxel_size)[:, ::-1]
