"""What a run records on the way, and what it keeps for a later one."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np

from jaxmem.pipeline.keeping.pieces import Piece, Pieces
from jaxmem.results import Groups

log = logging.getLogger("jaxmem")

Progress = Callable[[str, int, int], None]
"""Told the stage's name, the steps done, and the steps in all."""

T = TypeVar("T")


class Run:
    """Collects what a run decides and how long its stages take; a stage's progress goes to the caller.

    Arguments:
        progress: told how far each stage is.
        pieces: where finished pieces are kept; nowhere when None.
        keys: of each stage: names of what it is made from.
        workers: threads that take slabs side by side; each takes memory of its own. As many as there are cores when None.
        clock: file in which the stages' seconds are kept, to go on with those of a process that was killed.
    """

    def __init__(
        self,
        progress: Progress | None,
        pieces: Pieces | None = None,
        keys: dict[str, str] | None = None,
        workers: int | None = None,
        clock: Path | None = None,
    ):
        self.progress = progress or (lambda *_: None)
        self.pieces, self.keys, self.workers = pieces, keys or {}, workers
        self.decisions: list[str] = []
        self.warnings: list[str] = []
        self.seconds: dict[str, float] = {}
        self._clock = clock
        if clock is not None:
            with suppress(OSError, ValueError):
                self.seconds |= json.loads(clock.read_text())
        self.digests: dict[str, str] = {}
        self.groups = Groups(np.zeros((0, 3)), np.zeros(0, int), [])

    def decide(self, text: str) -> None:
        """Record a decision, and log it."""
        self.decisions.append(text)
        log.info(text)

    def warn(self, text: str) -> None:
        """Record a warning, and log it."""
        self.warnings.append(text)
        log.warning(text)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Time a stage; what is yielded is told the steps that are done."""
        start = time.perf_counter()
        self.progress(name, 0, total)
        yield lambda done: self.progress(name, done, total)
        self.progress(name, total, total)
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)
        if self._clock is not None:
            new = self._clock.with_suffix(".new")
            new.write_text(json.dumps(self.seconds))
            new.replace(self._clock)

    def name(self, stage: str, part: int | None = None) -> str:
        """Of a stage's piece.

        Arguments:
            stage: one of `keys`.
            part: number of the piece, of a stage that has many.
        """
        whole = f"{stage}-{self.keys.get(stage, '')}"
        return whole if part is None else f"{whole}/{part:05d}"

    def once(self, stage: str, compute: Callable[[], T], pack: Callable[[T], Piece], unpack: Callable[[Piece], T]) -> T:
        """What a stage computes, or what was kept of it; in both cases with what it decided.

        Arguments:
            stage: one of `keys`.
            compute: the stage.
            pack, unpack: its result as a piece, and back.
        """
        if self.pieces is None:
            return compute()
        kept = self.pieces.get(self.name(stage))
        if kept is not None:
            said = json.loads(str(kept.pop("said")))
            for text in said["decisions"]:
                self.decide(text)
            for text in said["warnings"]:
                self.warn(text)
            self.digests |= said["digests"]
            return unpack(kept)
        many = len(self.decisions), len(self.warnings)
        digests = set(self.digests)
        value = compute()
        said = {
            "decisions": self.decisions[many[0] :],
            "warnings": self.warnings[many[1] :],
            "digests": {name: d for name, d in self.digests.items() if name not in digests},
        }
        self.pieces.put(self.name(stage), pack(value) | {"said": np.array(json.dumps(said))})
        return value
