"""A batch under fire: `python benchmarks/batch.py [--tomograms 100] [--workers 2] [--kills 2] [--compared 20]`.

Tomograms are crops of the bundled one with noise of their own; three files are broken. While `jaxmem batch` runs, random workers
are killed. Then the same command runs again, and some tomograms are run by workers and by one process on the same cores.
"""

import argparse
import csv
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
from record import recorded

from jaxmem.io import read_mrc, write_mrc
from jaxmem.types import Tomogram

PACKAGE = Path(__file__).resolve().parents[1] / "jaxmem"
SHAPE = (24, 96, 96)
NOISE = 0.3  # of the crop's own standard deviation


def make(folder: Path, count: int, seed: int) -> tuple[list[str], list[str]]:
    """Write tomograms, three of them broken; names of the good and of the broken ones."""
    rng = np.random.default_rng(seed)
    whole = read_mrc(PACKAGE / "data" / "phantom.mrc.gz")
    broken = {int(k): how for how, k in enumerate(rng.choice(count, 3, replace=False))}
    names: tuple[list[str], list[str]] = ([], [])
    for number in range(count):
        start = [int(rng.integers(0, n - s + 1)) for n, s in zip(whole.data.shape, SHAPE)]
        crop = np.asarray(whole.data[tuple(slice(a, a + s) for a, s in zip(start, SHAPE))], np.float32)
        values = (crop + NOISE * crop.std() * rng.normal(size=SHAPE)).astype(np.float32)
        how = broken.get(number)
        path = folder / f"tomo_{number:03d}.mrc"
        write_mrc(path, values, Tomogram(values, 1.0 if how == 2 else whole.voxel_size))
        if how == 0:
            path.write_bytes(path.read_bytes()[: 40 * 1024])
        if how == 1:
            path.write_text("not a tomogram\n" * 200)
        names[how is not None].append(path.stem)
    return names


def start(arguments: list, cache: Path, log: Path) -> subprocess.Popen:
    with log.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-c", "import sys; from jaxmem.cli import main; sys.exit(main())", *map(str, arguments)],
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)},
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def under_fire(process: subprocess.Popen, runs: Path, after: list[int]) -> int:
    """Wait for a batch, and kill a random worker whenever so many tomograms are finished; how many were killed."""
    killed = 0
    while process.poll() is None:
        time.sleep(0.2)
        finished = len(list(runs.glob("*/manifest.json")))
        if killed < len(after) and finished >= after[killed]:
            time.sleep(random.uniform(0.0, 3.0))  # somewhere within a tomogram
            try:
                random.choice(workers_of(process)).kill()
                killed += 1
            except (psutil.Error, IndexError):
                continue
    return killed


def outcome(runs: Path, good: list[str], broken: list[str], killed: int, seconds: float, log: str) -> None:
    with (runs / "tomograms.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    done = {row["tomogram"] for row in rows if row["status"] == "done" and (runs / row["tomogram"]).is_dir()}
    failed = {row["tomogram"]: row["reason"] for row in rows if row["status"] == "failed"}
    lines = Counter(line.split("] ")[1].split(":")[0] for line in log.splitlines() if line.startswith("["))
    with (runs / "membranes.csv").open(newline="") as file:
        pairs = Counter((row["tomogram"], row["membrane"]) for row in csv.DictReader(file))
    counts = [Counter(row["tomogram"] for row in rows), lines, pairs]
    doubled = sum(n > 1 for count in counts for n in count.values())
    lost = len({*good, *broken} - done - failed.keys()) + len(list(runs.glob("*.partial")))
    print("| tomograms | done | failed | lost | doubled | workers killed | s |\n|---|---|---|---|---|---|---|")
    total = len(good) + len(broken)
    print(f"| {total} | {len(done)} | {len(failed)} | {lost} | {doubled} | {killed} | {seconds:.0f} |\n")
    print("| failed | reason |\n|---|---|")
    for name, reason in failed.items():
        print(f"| {name} | {reason.replace(str(runs.parent), '')} |")
    print(flush=True)


def compare(work: Path, cache: Path, names: list[str], workers: int) -> None:
    listed = work / "compared.txt"
    listed.write_text("\n".join(f"in/{name}.mrc" for name in names))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print("| processes | tomograms | s | tomograms/h |\n|---|---|---|---|")
    rates = []
    for title, options in ((f"{workers} workers", ("--workers", workers)), ("one", ("--index", 0, "--of", 1))):
        begin = time.perf_counter()
        target = work / f"compared-{title[0]}"
        if start(["batch", listed, "-o", target, *options], cache, work / "compared.log").wait():
            raise SystemExit((work / "compared.log").read_text())
        seconds = time.perf_counter() - begin
        rates.append(3600 * len(names) / seconds)
        print(f"| {title}, {cores} cores in all | {len(names)} | {seconds:.0f} | {rates[-1]:.0f} |", flush=True)
    print(f"\n{workers} workers finish {rates[0] / rates[1]:.2f} times as many tomograms as one process\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tomograms", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--compared", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random.seed(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "in").mkdir()
        good, broken = make(work / "in", args.tomograms, args.seed)
        words = ["batch", work / "in", "-o", work / "runs", "--workers", args.workers]
        begin = time.perf_counter()
        process = start(words, work / "cache", work / "log")
        after = sorted(random.sample(range(1, len(good)), min(args.kills, len(good) - 1)))
        killed = under_fire(process, work / "runs", after)
        seconds = time.perf_counter() - begin
        if process.returncode not in (0, 1):
            raise SystemExit((work / "log").read_text())
        outcome(work / "runs", good, broken, killed, seconds, (work / "log").read_text())
        begin = time.perf_counter()
        start(words, work / "cache", work / "again").wait()
        again = (work / "again").read_text()
        if "nothing to do" not in again:
            raise SystemExit(again)
        print(f"nothing to do after {time.perf_counter() - begin:.2f} s\n", flush=True)
        if args.compared:
            compare(work, work / "cache", good[: args.compared], args.workers)


if __name__ == "__main__":
    with recorded("batch"):
        main()
