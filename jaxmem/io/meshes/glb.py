"""Surfaces as GLB (binary glTF 2.0): one scene, a node for each membrane, colours and values on the vertices."""

import json
import shutil
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Float, Int

_FLOAT, _UNSIGNED = 5126, 5125  # component types
_VERTICES, _INDICES = 34962, 34963  # targets of buffer views
_SHAPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}


class Painted(NamedTuple):
    """A surface and its colours.

    Attributes:
        name: of the node.
        vertices, normals: (n, 3), xyz, vertices in A.
        faces: (m, 3) vertex indices.
        colours: (n, 3) red, green, blue from 0 to 1.
        values: (n,) on the vertices; a value `sigma` is kept as the attribute `_SIGMA`.
        extras: of the node: numbers and words.
    """

    name: str
    vertices: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "m 3"]
    colours: Float[np.ndarray, "n 3"]
    values: dict[str, np.ndarray]
    extras: dict[str, Any]


def write_glb(path: str | Path, surfaces: Iterable[Painted]) -> None:
    """Write surfaces into one file; coordinates stay in A, so that they lie on the map in ChimeraX.

    Each array has a buffer view of its own, because some readers know no offsets within one. Surfaces are taken one after another.

    Arguments:
        path: file.
        surfaces: may be none.
    """
    scene: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "jaxmem"}, "scene": 0, "scenes": [{"name": Path(path).stem, "nodes": []}],
        "nodes": [], "meshes": [], "accessors": [], "bufferViews": [], "buffers": [{"byteLength": 0}],
        "materials": [{"name": "membrane", "doubleSided": True, "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.8}}],
    }  # fmt: skip
    with tempfile.TemporaryFile(dir=Path(path).parent) as arrays:
        for one in surfaces:
            _add(scene, arrays, one)
        length = arrays.tell()
        scene["buffers"][0]["byteLength"] = length
        if not length:  # empty lists are not allowed
            scene = {key: scene[key] for key in ("asset", "scene")} | {"scenes": [{"name": Path(path).stem}]}
        text = json.dumps(scene, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        arrays.seek(0)
        with open(path, "wb") as file:
            file.write(struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + (8 + length if length else 0)))
            file.write(struct.pack("<I4s", len(text), b"JSON") + text)
            if length:
                file.write(struct.pack("<I4s", length, b"BIN\0"))
                shutil.copyfileobj(arrays, file)


def _add(scene: dict[str, Any], arrays: BinaryIO, one: Painted) -> None:
    """A surface's node, its mesh, and its arrays, at the end of a file."""

    def add(array: np.ndarray, target: int, bounds: bool = False) -> int:
        start = arrays.tell()
        arrays.write(array.tobytes())
        arrays.write(b"\0" * (-array.nbytes % 4))
        view = {"buffer": 0, "byteOffset": start, "byteLength": array.nbytes, "target": target}
        kind = _UNSIGNED if array.dtype == np.uint32 else _FLOAT
        shape = _SHAPES[1 if array.ndim == 1 else array.shape[1]]
        accessor = {
            "bufferView": len(scene["bufferViews"]),
            "byteOffset": 0,
            "componentType": kind,
            "count": len(array),
            "type": shape,
        }
        if bounds:
            accessor |= {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
        scene["bufferViews"].append(view)
        scene["accessors"].append(accessor)
        return len(scene["accessors"]) - 1

    attributes = {"POSITION": add(np.asarray(one.vertices, "<f4"), _VERTICES, bounds=True)}
    size = np.maximum(np.linalg.norm(one.normals, axis=1, keepdims=True), 1e-9)
    attributes["NORMAL"] = add(np.asarray(one.normals / size, "<f4"), _VERTICES)
    opaque = np.concatenate([one.colours, np.ones((len(one.colours), 1))], 1)
    attributes["COLOR_0"] = add(np.asarray(opaque, "<f4"), _VERTICES)
    for name, values in one.values.items():
        attributes[f"_{name.upper()}"] = add(np.asarray(values, "<f4"), _VERTICES)
    indices = add(np.asarray(one.faces, "<u4").ravel(), _INDICES)
    scene["scenes"][0]["nodes"].append(len(scene["nodes"]))
    scene["nodes"].append({"name": one.name, "mesh": len(scene["meshes"]), "extras": one.extras})
    primitive = {"attributes": attributes, "indices": indices, "material": 0, "mode": 4}
    scene["meshes"].append({"name": one.name, "primitives": [primitive]})
