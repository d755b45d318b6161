"""Training a small network through the surface: `python benchmarks/chain.py`. Runs `notebooks/chain.py` and prints what it found."""

import runpy
from pathlib import Path

import matplotlib
from record import recorded


def main() -> None:
    matplotlib.use("Agg")
    runpy.run_path(str(Path(__file__).resolve().parents[1] / "notebooks" / "chain.py"))


if __name__ == "__main__":
    with recorded("chain"):
        main()
