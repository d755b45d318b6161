"""What the workers of `test_batch.py` do instead of segmenting: quick, and importable without JAX."""

import json
import os
import signal
import time
from pathlib import Path

from jaxmem.types import JaxmemError


def finish(target: Path, membranes: int = 2) -> int:
    """A run as `segment_file` leaves it, and a line for each time that it is made."""
    target.mkdir()
    rows = "".join(f"{i},{10.5 * i}\n" for i in range(1, membranes + 1))
    (target / "membranes.csv").write_text(f"membrane,area_A2\n{rows}")
    manifest = {"input": "x", "membranes": membranes, "seconds": {"a": 1.0, "b": 0.5}, "peak_memory_bytes": 7}
    with (target.parent / "log").open("a") as file:
        file.write(f"{target.name}\n")
    (target / "manifest.json").write_text(json.dumps(manifest))
    return membranes


def fake(source, target, config=None, *, voxel_size=None, arguments=()):
    """What happens is in the tomogram's file."""
    source, target = Path(source), Path(target)
    if not source.exists():
        raise JaxmemError(f"{source}: no such file; check the name")
    words = source.read_text()
    marker = target.with_name(f"{target.name}.marker")
    if words == "broken":
        raise JaxmemError(f"{source}: not an MRC file; give a .mrc file")
    if words == "bug":
        raise ValueError("two\nlines")
    if words == "exit":
        raise SystemExit(3)
    if words == "kill" or (words == "kill once" and not marker.exists()):
        with marker.open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
    if words == "memory":
        held = bytearray(1_500_000_000)
        held[::4096] = b"x" * len(held[::4096])
        time.sleep(30)
    if words == "settings":
        (target.parent / "settings").write_text(f"{config!r} {voxel_size} {arguments}")
    return finish(target, int(words) if words.isdecimal() else 2)


def cores(source, target, config=None, *, voxel_size=None, arguments=()):
    """Write down what this worker may use."""
    target = Path(target)
    target.with_name(f"{target.name}.cores").write_text(f"{os.getpid()} {sorted(os.sched_getaffinity(0))}")
    time.sleep(0.5)
    return finish(target)
