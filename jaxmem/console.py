"""What a command shows while it works: bars, log lines, and the compilation cache that survives the process."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

log = logging.getLogger("jaxmem")


class Bars:
    """A bar and an estimate for each stage, on standard error."""

    def __init__(self, quiet: bool):
        self.quiet, self.name = quiet, ""
        self.bar: Any = None

    def __call__(self, name: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if self.quiet or (self.bar is None and name == self.name):
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


def prepare(quiet: bool) -> Bars:
    """Logging, and a compilation cache that survives the process (unless the user has chosen one)."""
    import jax

    log.handlers = [_ToBars()]
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.propagate = False
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(base / "jaxmem" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return Bars(quiet)
