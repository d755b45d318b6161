"""A run's results as a copick project: membranes as an instance segmentation and meshes, points as picks. Needs the extra `zarr`."""

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxmem.io.meshes import Painted, write_glb
from jaxmem.io.zarr_labels import write_zarr_image
from jaxmem.types import Tomogram

_USER, _SESSION = "jaxmem", "1"
_OBJECTS: tuple[tuple[str, bool, list[int]], ...] = (
    ("membrane", False, [230, 159, 0, 255]),
    ("membrane-point", True, [86, 180, 233, 255]),
    ("membrane-protein", True, [0, 158, 115, 255]),
)


class Picks(NamedTuple):
    """Points of one kind.

    Attributes:
        places: (n, 3) xyz in A, from the centre of the tomogram's first voxel.
        directions: (n, 3) unit vectors; particles' z axes point there.
        instance: (n,) the number of each one's membrane, 0 for none.
    """

    places: Float[np.ndarray, "n 3"]
    directions: Float[np.ndarray, "n 3"]
    instance: Int[np.ndarray, " n"]


def name_of(text: str) -> str:
    """A name as copick allows it: without spaces, underscores and what file systems forbid.

    Example:
        >>> name_of("my_run 1")
        'my-run-1'
    """
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-") or "run"


def turned(directions: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 4 4"]:
    """Rotations that take the z axis to unit vectors xyz by the shortest way, as 4 x 4 matrices.

    Example:
        >>> turned(np.array([[1.0, 0.0, 0.0]]))[0, :3, 2].tolist()
        [1.0, 0.0, 0.0]
    """
    x, y, z = directions.T
    one = np.zeros((len(directions), 4, 4))
    opposite = z < -1 + 1e-12
    down = 1.0 / np.where(opposite, 1.0, 1.0 + z)
    rows = (1 - x * x * down, -x * y * down, x), (-x * y * down, 1 - y * y * down, y), (-x, -y, z)
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            one[:, i, j] = value
    one[opposite] = np.diag([1.0, -1.0, -1.0, 0.0])
    one[:, 3, 3] = 1.0
    return one


def write_copick(
    folder: Path,
    run: str,
    labels: Any,
    tomogram: Tomogram,
    surfaces: Iterable[Painted],
    picks: dict[str, Picks],
) -> list[Path]:
    """Write a project with one run. In copick the first voxel is the origin, whatever the map's header says.

    Arguments:
        folder: of the project, which exists.
        run: name of the run.
        labels: (nz, ny, nx) numbers of membranes.
        tomogram: their voxel size and origin.
        surfaces: of the membranes, vertices in A with the map's origin.
        picks: of `membrane-point` and `membrane-protein`.

    Returns:
        The files and folders.

    Raises:
        JaxmemError: if Zarr is not installed.
    """
    run = name_of(run)
    home = folder / "ExperimentRuns" / run
    segmentation = home / "InstanceSegmentations" / f"{tomogram.voxel_size:.3f}_{_USER}_{_SESSION}_membrane.zarr"
    shutil.rmtree(segmentation, ignore_errors=True)  # of an earlier export
    (home / "Meshes").mkdir(parents=True, exist_ok=True)
    segmentation.parent.mkdir(parents=True, exist_ok=True)
    write_zarr_image(segmentation, labels, tomogram._replace(origin=(0.0, 0.0, 0.0)), "membrane")
    mesh = home / "Meshes" / f"{_USER}_{_SESSION}_membrane.glb"
    write_glb(mesh, (one._replace(vertices=one.vertices - np.asarray(tomogram.origin)) for one in surfaces))
    written = [segmentation, mesh]
    for name, some in picks.items():
        (home / "Picks").mkdir(exist_ok=True)
        written.append(home / "Picks" / f"{_USER}_{_SESSION}_{name}.json")
        points = [
            {"location": dict(zip("xyz", place)), "transformation_": turn, "instance_id": number, "score": 1.0}
            for place, turn, number in zip(
                some.places.round(3).tolist(), turned(some.directions).tolist(), some.instance.tolist()
            )
        ]
        about = {
            "pickable_object_name": name, "user_id": _USER, "session_id": _SESSION, "run_name": run,
            "voxel_spacing": tomogram.voxel_size, "unit": "angstrom", "points": points, "trust_orientation": True,
        }  # fmt: skip
        written[-1].write_text(json.dumps(about), encoding="utf-8")
    config = folder / "copick.json"
    described = {
        "config_type": "filesystem", "name": run, "description": "membranes found by jaxmem", "version": "1.31.0",
        "pickable_objects": [
            {"name": name, "is_particle": particle, "label": k, "color": colour}
            for k, (name, particle, colour) in enumerate(_OBJECTS, 1)
        ],
        "overlay_root": f"local://{folder.resolve()}", "overlay_fs_args": {"auto_mkdir": True},
    }  # fmt: skip
    config.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    return [config, *written]
