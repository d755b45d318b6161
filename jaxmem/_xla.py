"""Imported before anything else: two faults of XLA on processors are got out of the way before JAX computes."""

import os
import sys
import warnings
from importlib.metadata import version

_FAULTY = ("0.10.2",)
_FLAGS = {
    # sums batched products wrongly, without a word (JAX issue 39103)
    "--xla_cpu_experimental_ynn_fusion_type": "",
    # runs independent triangular solves side by side, which wait for each other's threads for ever on machines with few cores
    "--xla_cpu_enable_concurrency_optimized_scheduler": "false",
}


def spare_faults() -> None:
    """Turn off what makes jaxlib 0.10.2 wrong or stuck on processors.

    Sets `XLA_FLAGS` for this process, which JAX reads when it first computes; flags that are named there already stay.

    Warns:
        RuntimeWarning: if JAX has computed before, so that it is too late.
    """
    given = os.environ.get("XLA_FLAGS", "")
    missing = [f"{name}={value}" for name, value in _FLAGS.items() if name not in given]
    if version("jaxlib") not in _FAULTY or not missing:
        return
    os.environ["XLA_FLAGS"] = " ".join([given, *missing]).strip()
    backends = getattr(sys.modules.get("jax._src.xla_bridge"), "backends_are_initialized", None)
    if backends is not None and backends():
        warnings.warn(
            f"jaxlib {version('jaxlib')} sums batched products wrongly on processors, and gradients can hang; JAX has computed before "
            f"jaxmem was imported: import jaxmem first, set XLA_FLAGS='{' '.join(missing)}' or install another version of JAX",
            RuntimeWarning,
            stacklevel=2,
        )


spare_faults()
