"""Meshes as binary PLY, with a number or more on every vertex, and as OBJ."""

from pathlib import Path

import numpy as np

from jaxmem.types import JaxmemError

_NAMES = {"f4": "float", "u1": "uchar", "i4": "int"}
_CODES = {"float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8", "uchar": "u1", "uint8": "u1", "char": "i1",
          "int": "<i4", "int32": "<i4", "uint": "<u4", "short": "<i2", "ushort": "<u2"}  # fmt: skip


def write_ply(
    path: str | Path, vertices: np.ndarray, faces: np.ndarray, properties: dict[str, np.ndarray], comment: str = ""
) -> None:
    """Write a triangle mesh as little-endian PLY.

    Arguments:
        path: file.
        vertices: (n, 3) xyz, A.
        faces: (m, 3) vertex indices.
        properties: per-vertex values (n,); bool is stored as uchar, everything else as float.
        comment: one line, units for instance.
    """
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    fields += [(name, "u1" if values.dtype == bool else "<f4") for name, values in properties.items()]
    table = np.empty(len(vertices), fields)
    for axis, name in enumerate("xyz"):
        table[name] = vertices[:, axis]
    for name, values in properties.items():
        table[name] = values
    triangles = np.empty(len(faces), [("n", "u1"), ("v", "<i4", 3)])
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
        JaxmemError: if the file is not such a PLY.
    """
    path = Path(path)
    raw = path.read_bytes()
    end = raw.find(b"end_header\n")
    if not raw.startswith(b"ply\n") or end < 0 or b"binary_little_endian" not in raw[:end]:
        raise JaxmemError(f"{path}: not a little-endian binary PLY")
    fields, counts, element = [], {}, ""
    for line in raw[:end].decode("ascii").splitlines():
        words = line.split()
        if words[:1] == ["element"]:
            element = words[1]
            counts[element] = int(words[2])
        elif words[:1] == ["property"] and element == "vertex":
            fields.append((words[2], _CODES[words[1]]))
    start = end + len(b"end_header\n")
    table = np.frombuffer(raw, fields, counts["vertex"], start)
    triangles = np.frombuffer(raw, [("n", "u1"), ("v", "<i4", 3)], counts["face"], start + table.nbytes)
    vertices = np.stack([table[name] for name in "xyz"], 1)
    others = {name: np.array(table[name]) for name, _ in fields if name not in "xyz"}
    return vertices, np.array(triangles["v"]), others


def write_obj(path: str | Path, vertices: np.ndarray, faces: np.ndarray, normals: np.ndarray) -> None:
    """Write a triangle mesh as Wavefront OBJ with vertex normals; (n, 3) xyz in A, (m, 3) indices, (n, 3) xyz."""
    with open(path, "w", encoding="ascii") as file:
        np.savetxt(file, vertices, "v %.4f %.4f %.4f")
        np.savetxt(file, normals, "vn %.5f %.5f %.5f")
        np.savetxt(file, np.repeat(faces + 1, 2, 1), "f %d//%d %d//%d %d//%d")
