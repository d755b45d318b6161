"""Imported before anything else: a fault of XLA is got out of the way before JAX computes."""

import os
import sys
import warnings
from importlib.metadata import version

_FLAG = "--xla_cpu_experimental_ynn_fusion_type="
_FAULTY = ("0.10.2",)


def spare_faulty_fusion() -> None:
    """Turn off the fusion with which jaxlib 0.10.2 sums batched products wrongly on processors, without a word (JAX issue 39103).

    Sets `XLA_FLAGS` for this process, which JAX reads when it first computes; flags that name this fusion already stay.

    Warns:
        RuntimeWarning: if JAX has computed before, so that it is too late.
    """
    if version("jaxlib") not in _FAULTY or _FLAG in os.environ.get("XLA_FLAGS", ""):
        return
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}".strip()
    backends = getattr(sys.modules.get("jax._src.xla_bridge"), "backends_are_initialized", None)
    if backends is not None and backends():
        warnings.warn(
            f"jaxlib {version('jaxlib')} sums batched products wrongly on processors, and JAX has computed before jaxmem was "
            f"imported: import jaxmem first, set XLA_FLAGS={_FLAG} or install another version of JAX",
            RuntimeWarning,
            stacklevel=2,
        )


spare_faulty_fusion()
