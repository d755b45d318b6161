"""Time to import: `python benchmarks/imports.py [--repeats 5]`. Each import is a process of its own; the first is not counted."""

import argparse
import statistics
import subprocess
import sys
import time

from record import recorded

CODES = ("pass", "import jax", "import jaxmem", "import jaxmem; jaxmem.Tomogram", "import jaxmem; jaxmem.segment")


def seconds(code: str) -> float:
    """Of a process that runs the code and ends."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    print("| imported | median | quickest |\n|---|---|---|")
    for code in CODES:
        seconds(code)
        times = [seconds(code) for _ in range(repeats)]
        print(f"| {code} | {statistics.median(times):.2f} s | {min(times):.2f} s |", flush=True)


if __name__ == "__main__":
    with recorded("imports"):
        main()
