"""Surfaces of one round of the refinement, in memory or among a run's pieces."""

from functools import lru_cache

import numpy as np

from jaxmem.pipeline.keeping.record import Run
from jaxmem.surface.tiles import Outline

_KEPT = 8  # outlines in memory, where others lie on disk


class Outlines:
    """The surfaces of one round.

    Arguments:
        run: keeps them.
        names: of their pieces.
        held: those of the round before, by name, where nothing is kept on disk; what has none of the names is let go.
    """

    def __init__(self, run: Run, names: list[str], held: dict[str, Outline | None] | None = None):
        self._pieces, self.names = run.pieces, names
        self.held: dict[str, Outline | None] = {n: o for n, o in (held or {}).items() if n in set(names)}
        self._box = np.full((len(names), 2, 3), np.nan)
        self._read = lru_cache(_KEPT)(self._take)

    def missing(self) -> list[int]:
        """Those that are not there yet; boxes of the others are noted."""
        out = []
        for k, name in enumerate(self.names):
            if self._pieces is None:
                there, o = name in self.held, self.held.get(name)
            else:
                piece = self._pieces.get(name)
                there, o = piece is not None, Outline(**piece) if piece else None
            if there:
                self._note(k, o)
            else:
                out.append(k)
        return out

    def _note(self, k: int, o: Outline | None) -> None:
        if o is not None:
            self._box[k] = o.vertices.min(0), o.vertices.max(0)

    def put(self, k: int, o: Outline | None) -> None:
        """Keep one."""
        self._note(k, o)
        if self._pieces is None:
            self.held[self.names[k]] = o
        else:
            self._pieces.put(self.names[k], {} if o is None else o._asdict())

    def _take(self, k: int) -> Outline | None:
        if self._pieces is None:
            return self.held.get(self.names[k])
        piece = self._pieces.take(self.names[k])
        return Outline(**piece) if piece else None

    def get(self, k: int) -> Outline | None:
        """One of them."""
        return self._read(k)

    def others(self, k: int, low: np.ndarray, high: np.ndarray) -> Outline | None:
        """What lies in a box of all but one."""
        near = np.flatnonzero((self._box[:, 1] >= low).all(1) & (self._box[:, 0] < high).all(1))
        found = [self.get(j) for j in near.tolist() if j != k]
        parts = [o.within(low, high) for o in found if o is not None]
        parts = [o for o in parts if len(o.vertices)]
        return Outline(*(np.concatenate(a) for a in zip(*parts))) if parts else None
