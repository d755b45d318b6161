"""Points on membranes as a STAR file for RELION 5: places for sub-tomogram averaging, each with the direction of the membrane's normal."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

_COLUMNS = (
    "rlnTomoName", "rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst",
    "rlnCenteredCoordinateZAngst", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnTomoManifoldIndex",
)  # fmt: skip


def angles_of(normals: Float[np.ndarray, "n 3"]) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and tilt in degrees (ZYZ) that take the z axis to unit vectors xyz.

    Example:
        >>> [float(a[0]) for a in angles_of(np.array([[0.0, 1.0, 0.0]]))]
        [90.0, 90.0]
    """
    x, y, z = normals.T
    return np.degrees(np.arctan2(y, x)), np.degrees(np.arccos(np.clip(z, -1.0, 1.0)))


def write_star(
    path: str | Path,
    name: str,
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    membrane: Int[np.ndarray, " n"],
    voxel_size: float,
    shape: tuple[int, int, int],
) -> None:
    """Write points with their normals; coordinates are in A from the tomogram's centre, as RELION 5 counts them.

    RELION's centre is half the number of voxels, in voxels from the middle of the first one.

    Arguments:
        path: file.
        name: of the tomogram.
        points: xyz, voxels.
        normals: xyz, unit length.
        membrane: the number of each point's membrane.
        voxel_size: A.
        shape: of the tomogram, (nz, ny, nx).
    """
    centred = (points - 0.5 * np.array(shape[::-1])) * voxel_size
    rotation, tilt = angles_of(normals)
    with open(path, "w", encoding="ascii") as file:
        file.write("# points on membranes; written by jaxmem\n")
        file.write(
            f"# the tomogram has {' x '.join(str(n) for n in shape[::-1])} voxels (x, y, z) of {voxel_size:.4f} A\n"
        )
        file.write("\ndata_particles\n\nloop_\n")
        file.writelines(f"_{column} #{i}\n" for i, column in enumerate(_COLUMNS, 1))
        for place, rot, up, number in zip(centred, rotation, tilt, membrane):
            x, y, z = place
            file.write(f"{name} {x:.3f} {y:.3f} {z:.3f} {rot:.4f} {up:.4f} 0.0000 {number}\n")
