"""What a run records on the way."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from jaxmem.results import Groups

log = logging.getLogger("jaxmem")

Progress = Callable[[str, int, int], None]
"""Told the stage's name, the steps done, and the steps in all."""


class Run:
    """Collects what a run decides and how long its stages take; a stage's progress goes to the caller."""

    def __init__(self, progress: Progress | None):
        self.progress = progress or (lambda *_: None)
        self.decisions: list[str] = []
        self.warnings: list[str] = []
        self.seconds: dict[str, float] = {}
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
        self.seconds[name] = round(time.perf_counter() - start, 3)
