"""Meshes as binary PLY, with a number or more on every vertex, and as OBJ."""

from pathlib import Path

import numpy as np

from jaxmem.types import JaxmemError

_NAMES = {"f4": "float", "u1": "uchar", "i4": "int"}
_CODES = {"float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8", "uchar": "u1", "uint8": "u1", "char": "i1",
          "int": "<i4", "int32": "<i4", "uint": "<u4", "short": "<i2", "ushort": "<u2"}  # fmt: skip
_TRIANGLE = np.dtype([("n", "u1"), ("v", "<i4", 3)])


def write_ply(
    path: str | Path, vertices: np.ndarray, faces: np.ndarray, properties: dict[str, np.ndarray], comment: str = ""
) -> None:
    """Write a triangle mesh as little-endian PLY.

    Arguments:
        path: file.
        vertices: (n, 3) xyz, A.
        faces: (m, 3) vertex indices.
        properties: per-vertex values (n,); bool and bytes are stored as uchar, everything else as float.
        comment: one line, units for instance.
    """
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    fields += [(name, "u1" if values.dtype in (bool, np.uint8) else "<f4") for name, values in properties.items()]
    table = np.empty(len(vertices), fields)
    for axis, name in enumerate("xyz"):
        table[name] = vertices[:, axis]
    for name, values in properties.items():
        table[name] = values
    triangles = np.empty(len(faces), _TRIANGLE)
    triangles["n"], triangles["v"] = 3, faces
    lines = ["ply", "format binary_little_endian 1.0"]
    lines += [f"comment {comment}"] if comment else []
    lines += [f"element vertex {len(vertices)}"]
    lines += [f"property {_NAMES[code.lstrip('<')]} {name}" for name, code in fields]
    lines += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    with open(path, "wb") as file:
        file.write(("\n".join(lines) + "\n").encode("ascii"))
        file.write(table.tobytes())
        file.write(triangles.tobytes())


def read_ply(path: str | Path) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Read what `write_ply` writes: little-endian binary, triangles only.

    Returns:
        vertices (n, 3), faces (m, 3), and the other per-vertex properties.

    Raises:
        JaxmemError: if the file cannot be read or is not such a PLY.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise JaxmemError(f"{path}: cannot be read ({error.strerror}); check the name") from None
    head, end, body = raw.partition(b"end_header\n")
    if not head.startswith(b"ply\nformat binary_little_endian 1.0\n") or not end:
        raise JaxmemError(f"{path}: not a little-endian binary PLY")
    try:
        fields, vertex_count, face_count = _layout(head.decode("ascii"))
        size = vertex_count * fields.itemsize
        if len(body) < size + face_count * _TRIANGLE.itemsize:
            raise ValueError("truncated")
        table = np.frombuffer(body, fields, vertex_count)
        triangles = np.frombuffer(body, _TRIANGLE, face_count, size)
        vertices = np.stack([table[name] for name in "xyz"], 1)
        faces = np.array(triangles["v"])
        if (triangles["n"] != 3).any() or ((faces < 0) | (faces >= vertex_count)).any():
            raise ValueError("faces are not triangles of its vertices")
    except (ValueError, LookupError) as error:
        raise JaxmemError(f"{path}: not a mesh as jaxmem writes it ({error}); write it again") from None
    return vertices, faces, {name: np.array(table[name]) for name in fields.names or () if name not in "xyz"}


def _layout(head: str) -> tuple[np.dtype, int, int]:
    """Layout of a vertex, number of vertices, number of faces; ValueError or LookupError if a header is not understood."""
    elements: dict[str, int] = {}
    properties: dict[str, list[list[str]]] = {}
    for words in (line.split() for line in head.splitlines()[2:]):
        if words[:1] == ["element"]:
            elements[words[1]], properties[words[1]] = int(words[2]), []
        elif words[:1] == ["property"]:
            properties[list(elements)[-1]].append(words[1:])
        elif words[:1] not in (["comment"], ["obj_info"]):
            raise ValueError("its header is not understood")
    ((kind, count, index, _),) = properties["face"]
    known = list(elements)[:2] == ["vertex", "face"] and kind == "list" and all(n >= 0 for n in elements.values())
    if not known or (_CODES[count], _CODES[index]) not in (("u1", "<i4"), ("u1", "<u4")):
        raise ValueError("its elements are not vertices and triangles")
    return np.dtype([(name, _CODES[code]) for code, name in properties["vertex"]]), elements["vertex"], elements["face"]


def write_obj(path: str | Path, vertices: np.ndarray, faces: np.ndarray, normals: np.ndarray) -> None:
    """Write a triangle mesh as Wavefront OBJ with vertex normals; (n, 3) xyz in A, (m, 3) indices, (n, 3) xyz."""
    with open(path, "w", encoding="ascii") as file:
        np.savetxt(file, vertices, "v %.4f %.4f %.4f")
        np.savetxt(file, normals, "vn %.5f %.5f %.5f")
        np.savetxt(file, np.repeat(faces + 1, 2, 1), "f %d//%d %d//%d %d//%d")
