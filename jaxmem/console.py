"""What a command shows while it works: bars or plain lines, a log in JSON, and the compilation cache that survives the process."""

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from jaxmem.types import JaxmemError

log = logging.getLogger("jaxmem")

_EVERY = 30.0  # seconds between lines on the progress of a stage, where there is no terminal


class Bars:
    """The progress of each stage, on standard error: a bar with an estimate, or lines where that is no terminal.

    Arguments:
        quiet: show nothing.
        record: told of every step, for the log in JSON.
    """

    def __init__(self, quiet: bool, record: "_ToJson | None" = None):
        self.quiet, self.name, self.record = quiet, "", record
        self.bar: Any = None
        self.plain = not sys.stderr.isatty()
        self.done, self.told, self.began = True, 0.0, 0.0

    def __call__(self, name: str, done: int, total: int) -> None:
        if self.record is not None:
            self.record.write("step", stage=name, done=done, total=total)
        if self.quiet:
            return
        if self.plain:
            self._line(name, done, total)
        else:
            self._bar(name, done, total)

    def _line(self, name: str, done: int, total: int) -> None:
        now = time.monotonic()
        if name != self.name or (self.done and done < total):
            self.name, self.began, self.told, self.done = name, now, now, False
        if self.done or (done < total and now - self.told < _EVERY):
            return
        self.told, self.done = now, done >= total
        print(f"{name}: {done} of {total}, {now - self.began:.0f} s", file=sys.stderr, flush=True)

    def _bar(self, name: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if self.bar is None and name == self.name:
            return  # the stage's bar has been closed
        if self.bar is None or name != self.name:
            self.close()
            self.name = name
            form = "{desc:17s} {bar:30} {n_fmt}/{total_fmt} [{elapsed} < {remaining}]"
            self.bar = tqdm(total=total, desc=name, bar_format=form, file=sys.stderr, leave=True)
        self.bar.update(done - self.bar.n)
        if done >= total:
            self.close()

    def close(self) -> None:
        """End the bar that is shown."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class _ToBars(logging.Handler):
    """Log lines that do not tear the bars."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        mark = "warning: " if record.levelno >= logging.WARNING else ""
        tqdm.write(f"  {mark}{record.getMessage()}", file=sys.stderr)


class _ToJson(logging.Handler):
    """Every message, and every step that it is told of, as a line of JSON."""

    def __init__(self, path: Path):
        super().__init__(logging.INFO)
        try:
            self.file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise JaxmemError(
                f"{path}: cannot be written ({error.strerror}); choose another file with --log-json"
            ) from None

    def write(self, event: str, **fields: Any) -> None:
        """One line: when, what, and its fields."""
        line = {"time": round(time.time(), 3), "event": event, **fields}
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def close(self) -> None:
        """End the file."""
        self.file.close()
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        self.write(record.levelname.lower(), message=record.getMessage())


def failed(message: str) -> None:
    """Write into the log in JSON, if there is one, why the command ended."""
    for handler in log.handlers:
        if isinstance(handler, _ToJson):
            handler.write("failed", message=message)


def prepare(quiet: bool = False, log_json: Path | None = None) -> Bars:
    """Logging, and a compilation cache that survives the process (unless the user has chosen one).

    Arguments:
        quiet: warnings only, and no progress.
        log_json: file that gets every message and step, whatever is shown.

    Returns:
        What shows the progress.

    Raises:
        JaxmemError: if the file cannot be written.
    """
    import jax

    for earlier in log.handlers:
        earlier.close()
    log.handlers = []
    shown = _ToBars(logging.WARNING if quiet else logging.INFO)
    record = None if log_json is None else _ToJson(log_json)
    log.handlers = [shown] if record is None else [shown, record]
    log.setLevel(logging.INFO if record is not None or not quiet else logging.WARNING)
    log.propagate = False
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(base / "jaxmem" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return Bars(quiet, record)
