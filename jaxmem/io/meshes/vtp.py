"""Surfaces as VTK PolyData (.vtp), for ParaView, pyvista and programs that measure curvature."""

import base64
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

_TYPES = {"f4": "Float32", "i8": "Int64", "u1": "UInt8"}


def _array(name: str, values: np.ndarray, parts: int = 1) -> str:
    """A data array: its size in bytes and its bytes, in base 64."""
    code = values.dtype.str.lstrip("<|")
    raw = values.tobytes()
    text = base64.b64encode(np.array(len(raw), "<u8").tobytes() + raw).decode("ascii")
    return f'<DataArray type="{_TYPES[code]}" Name="{name}" NumberOfComponents="{parts}" format="binary">{text}</DataArray>\n'


def write_vtp(
    path: str | Path,
    vertices: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "m 3"],
    normals: Float[np.ndarray, "n 3"],
    values: dict[str, np.ndarray],
) -> None:
    """Write a triangle mesh with named arrays on its vertices.

    Arguments:
        path: file.
        vertices: xyz, in whatever unit the values are in, too.
        faces: vertex indices.
        normals: xyz.
        values: (n,) each; True and False become 1 and 0.
    """
    point_data = _array("Normals", np.asarray(normals, "<f4"), 3)
    for name, given in values.items():
        point_data += _array(name, np.asarray(given, "u1" if given.dtype == bool else "<f4"))
    ends = np.arange(3, 3 * len(faces) + 1, 3, dtype="<i8")
    with open(path, "w", encoding="ascii") as file:
        file.write(
            '<?xml version="1.0"?>\n<VTKFile type="PolyData" version="1.0" byte_order="LittleEndian" header_type="UInt64">\n'
        )
        file.write(f'<PolyData><Piece NumberOfPoints="{len(vertices)}" NumberOfVerts="0" NumberOfLines="0" ')
        file.write(
            f'NumberOfStrips="0" NumberOfPolys="{len(faces)}">\n<PointData Normals="Normals">\n{point_data}</PointData>\n'
        )
        file.write(f"<Points>\n{_array('Points', np.asarray(vertices, '<f4'), 3)}</Points>\n<Polys>\n")
        file.write(_array("connectivity", np.asarray(faces, "<i8").ravel()) + _array("offsets", ends))
        file.write("</Polys>\n</Piece></PolyData></VTKFile>\n")


def in_nm(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Values of a `Triangles` in nm, 1/nm and 1/nm^2, with the principal curvatures, the larger first, and the error bar of each.

    Error bars of principal curvatures are those of a mean and a Gaussian curvature whose errors are independent; where the two
    curvatures are alike, they are as wide as that of the mean.
    """
    mean, gauss = 10.0 * values["mean_curvature"], 100.0 * values["gaussian_curvature"]
    mean_sigma, gauss_sigma = 10.0 * values["mean_curvature_sigma"], 100.0 * values["gaussian_curvature_sigma"]
    root = np.sqrt(np.maximum(mean**2 - gauss, 0.0))
    safe = np.maximum(root, mean_sigma + 1e-12)
    names = {"sigma": values["sigma"] / 10.0, "seen": values["seen"]}
    for name, sign in (("kappa_1", 1.0), ("kappa_2", -1.0)):
        slopes = 1.0 + sign * mean / safe, -sign * 0.5 / safe
        names[name] = mean + sign * root
        names[f"{name}_sigma"] = np.hypot(slopes[0] * mean_sigma, slopes[1] * gauss_sigma)
    return names | {
        "mean_curvature": mean,
        "mean_curvature_sigma": mean_sigma,
        "gauss_curvature": gauss,
        "gauss_curvature_sigma": gauss_sigma,
    }
