"""What the panel knows of a run: its membranes, the edits that were made, and the command that makes them. No window is needed."""

import csv
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from jaxmem.pipeline.editing.edits import Edit, Name, write_edits
from jaxmem.pipeline.export import surfaces_of
from jaxmem.points import evenly
from jaxmem.types import JaxmemError

_FEW = 200  # vertices among which the place that names a membrane is chosen
_COARSE = 1000  # of each other membrane, that it is to be far from


class Desk:
    """A run that is being corrected.

    Arguments:
        run: folder.

    Attributes:
        run: folder.
        manifest: of the run.
        rows: of `membranes.csv`, what deserves a look first.
        edits: those of the run, and those made since.

    Raises:
        JaxmemError: if the folder is no finished run.
    """

    run: Path
    manifest: dict[str, Any]
    rows: list[dict[str, str]]
    edits: list[Edit]

    def __init__(self, run: str | Path):
        self.run = Path(run)
        path = self.run / "manifest.json"
        if not path.is_file():
            raise JaxmemError(f"{run}: not a finished run (no manifest.json)")
        self.manifest = json.loads(path.read_text(encoding="utf-8"))
        with (self.run / "membranes.csv").open(encoding="utf-8", newline="") as file:
            self.rows = sorted(csv.DictReader(file), key=_worry, reverse=True)
        self.edits = [_edit(given) for given in self.manifest.get("edits", [])]
        self._done = len(self.edits)
        self._vertices: dict[int, np.ndarray] | None = None

    @property
    def path(self) -> Path:
        """Where the edits are written: beside the run."""
        return self.run.with_name(f"{self.run.name}-edits.toml")

    def vertices(self) -> dict[int, np.ndarray]:
        """(n, 3) xyz in A of each membrane."""
        if self._vertices is None:
            self._vertices = {number: one.vertices for number, one in surfaces_of(self.run)}
        return self._vertices

    def place_of(self, number: int) -> Name:
        """A place on a membrane, far from all others: numbers are those of the run without edits, places hold in any.

        Arguments:
            number: of the membrane in this run.

        Raises:
            JaxmemError: if it has no surface.
        """
        surfaces = self.vertices()
        if number not in surfaces:
            raise JaxmemError(f"membrane {number} has no surface in {self.run}")
        own = surfaces[number]
        some = own[evenly(own, _FEW)]
        others = [v[evenly(v, _COARSE)] for n, v in surfaces.items() if n != number]
        best = int(np.argmax(cKDTree(np.concatenate(others)).query(some)[0])) if others else 0
        x, y, z = (round(float(c), 1) for c in some[best])
        return x, y, z

    def add(self, verb: str, numbers: Sequence[int] = (), points: Sequence[tuple[float, float, float]] = ()) -> Edit:
        """Note an edit.

        Arguments:
            verb: see `Edit`.
            numbers: of membranes in this run.
            points: (x, y, z) in A: of `split` one in each part, of `add` those to be added, of `keep` one on what was dropped.

        Raises:
            JaxmemError: if these do not go together.
        """
        given = tuple((float(x), float(y), float(z)) for x, y, z in points)
        if verb == "keep":
            edit = Edit(verb, given[:1])
        else:
            edit = Edit(verb, tuple(self.place_of(n) for n in numbers), given if verb in ("split", "add") else ())
        self.edits.append(edit)
        return edit

    def undo(self) -> Edit | None:
        """Take back the last edit."""
        return self.edits.pop() if self.edits else None

    @property
    def changed(self) -> bool:
        """Whether edits were noted that the run does not have."""
        return len(self.edits) != self._done

    def command(self, settings: Sequence[str] = ()) -> tuple[list[str], Path]:
        """Write the edits; what makes them, and the folder in which it is to be run.

        Arguments:
            settings: more of them, as `midline.threshold=0.4`.

        Raises:
            JaxmemError: if the edits cannot be written.
        """
        words = [str(word) for word in self.manifest["arguments"]]
        if words and words[0] == "demo":
            words = ["segment", self.manifest["input"]]
        words = _without(words, {"--edit", "-o", "--output"}, {"--overwrite"})
        words += ["-o", str(self.run.resolve()), "--overwrite"]
        if self.edits:
            write_edits(self.path, self.edits)
            words += ["--edit", str(self.path.resolve())]
        for setting in settings:
            words += ["--set", setting]
        folder = Path(self.manifest.get("folder", os.curdir))
        return [sys.executable, "-m", "jaxmem", *words], folder if folder.is_dir() else Path.cwd()

    def probability(self) -> np.ndarray | None:
        """(nz, ny, nx) what the network says, 0 to 255, if the run kept it."""
        slabs = sorted((self.run / "kept").glob("network-*/*.npz"))
        if not slabs:
            return None
        parts = []
        for path in slabs:
            with np.load(path) as file:
                parts.append(file["probability"])
        return np.concatenate(parts)


def _worry(row: dict[str, str]) -> float:
    """How much a membrane deserves a look: little of it is seen, or it is badly known for its size."""
    return float(row["median_sigma_A"]) / np.sqrt(float(row["area_A2"])) + 0.1 * (1.0 - float(row["seen_fraction"]))


def _edit(given: dict[str, Any]) -> Edit:
    def tuples(value: Any) -> Any:
        return tuple(tuples(v) for v in value) if isinstance(value, list) else value

    return Edit(**{name: tuples(value) for name, value in given.items()})


def _without(words: list[str], pairs: set[str], flags: set[str]) -> list[str]:
    """Words of a command without some options and their values."""
    out, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in pairs:
            skip = True
        elif word not in flags and not any(word.startswith(f"{name}=") for name in pairs):
            out.append(word)
    return out
