"""Time and memory on large tomograms: `python benchmarks/large.py [PART ...]`.

Parts: tiles (1, 8 and 27 tiles of 80 x 160 x 160), medium (224 x 448 x 448), large (300 x 928 x 928), slabs (the network stage alone on slices of
2,048 x 2,048), again (how soon a second tomogram of a shape is looked at) and kills (a run killed 20 times). The tomograms are tiled
from eight simulated ones, some of them mirrored. Each run is a process of its own with a warm compilation cache, so that time includes
imports, and memory is the process's peak.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from record import recorded

TILE = (112, 224, 224)
SMALL = (80, 160, 160)  # of the tiles whose number is varied
SEEDS = range(401, 409)  # no setting was chosen on these
CODE = "import sys; from jaxmem.cli import main; sys.exit(main())"
HEAD = (
    "| tomogram | voxels (z, y, x) | membranes | closed | s | GB | network s | midlines s | grouping s | ellipses s | refinement s | surfaces s | the rest s |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def tile(seed: int, folder: Path, size: tuple[int, int, int] = TILE) -> np.ndarray:
    """A simulated tomogram, made once."""
    path = folder / f"tile-{seed}-{size[0]}.npy"
    if not path.exists():
        import jax

        from jaxmem.simulate import VolumeModel, simulate_tomogram

        model = VolumeModel(shape=size, candidates=40, radius_voxels=(12.0, 26.0))
        np.save(path, np.asarray(simulate_tomogram(jax.random.key(seed), model).data, np.float32))
    return np.load(path)


def tiled(shape: tuple[int, int, int], folder: Path, size: tuple[int, int, int] = TILE) -> Path:
    """An MRC file of some shape, made once."""
    from jaxmem.io import write_mrc
    from jaxmem.types import Tomogram

    path = folder / f"{shape[0]}x{shape[1]}x{shape[2]}.mrc"
    if path.exists():
        return path
    tiles = [tile(seed, folder, size) for seed in SEEDS]
    out = np.empty(shape, np.float32)
    for k, place in enumerate(np.ndindex(*(-(-n // t) for n, t in zip(shape, size)))):
        one = tiles[k % len(tiles)][:, :: -1 if k // 8 & 1 else 1, :: -1 if k // 8 & 2 else 1]
        into = tuple(slice(i * t, min((i + 1) * t, n)) for i, t, n in zip(place, size, shape))
        out[into] = one[tuple(slice(0, s.stop - s.start) for s in into)]
    write_mrc(path, out, Tomogram(out, 14.0))
    return path


def segmented(source: Path, run: Path, cache: Path, *options: str) -> tuple[dict, float, float]:
    """The manifest of a run, its seconds, and its peak memory in GB."""
    command = [sys.executable, "-c", CODE, "segment", str(source), "-o", str(run), "--overwrite", "--quiet", *options]
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment(cache), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command[3:])}")
    return json.loads((run / "manifest.json").read_text()), time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e9


def environment(cache: Path) -> dict[str, str]:
    return os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}


def measured(
    name: str, shape: tuple[int, int, int], work: Path, size: tuple[int, int, int] = TILE
) -> tuple[int, float, float]:
    """A row of the table; the number of voxels, seconds and GB."""
    source, run = tiled(shape, work, size), work / "run"
    manifest, seconds, memory = segmented(source, run, work / "cache", "--no-keep")
    took = manifest["seconds"]
    parts = [
        took["network"], took["midlines"], took["merging"] + took["selection"] + took.get("sharpening", 0.0),
        took.get("ellipses", 0.0), took.get("refinement", 0.0), took["surfaces"],
    ]  # fmt: skip
    closed = sum(line.split(",")[1] == "1" for line in (run / "membranes.csv").read_text().splitlines()[1:])
    cells = [f"{p:.0f}" for p in [*parts, seconds - sum(parts)]]
    print(
        f"| {name} | {shape[0]} x {shape[1]} x {shape[2]} | {manifest['membranes']} | {closed} | {seconds:.0f} | {memory:.2f} | "
        + " | ".join(cells) + " |", flush=True,
    )  # fmt: skip
    return int(np.prod(shape)), seconds, memory


def warm(work: Path, *shapes: tuple[int, int, int]) -> None:
    """Programs are compiled and kept: those of all stages on one tile, and the network's on a few slices of the shapes."""
    segmented(tiled(TILE, work), work / "run", work / "cache", "--no-keep")
    for shape in shapes:
        segmented(tiled((8, *shape[1:]), work), work / "run", work / "cache", "--no-keep")


def tiles(work: Path) -> None:
    shapes = [(SMALL[0] * n, SMALL[1] * n, SMALL[2] * n) for n in (1, 2, 3)]
    for shape in (shapes[0], *((8, *s[1:]) for s in shapes[1:])):
        segmented(tiled(shape, work, SMALL), work / "run", work / "cache", "--no-keep")
    print(HEAD)
    rows = [measured(f"{n**3} tiles", shape, work, SMALL) for n, shape in zip((1, 2, 3), shapes)]
    voxels, seconds, memory = (np.array(a, float) for a in zip(*rows))
    print(
        f"\nseconds for 27 tiles over 27 times the difference of 8 and 1: {seconds[2] / (seconds[0] + 26 * (seconds[1] - seconds[0]) / 7):.2f}"
    )
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(voxels / 1e6, seconds / 60, "o-")
    left.set(xlabel="million voxels", ylabel="minutes", ylim=(0, None), xlim=(0, None))
    right.plot(voxels / 1e6, memory, "o-")
    right.set(xlabel="million voxels", ylabel="peak memory, GB", ylim=(0, None), xlim=(0, None))
    figure.savefig(Path(__file__).resolve().parent.parent / "docs" / "images" / "large.png", dpi=100)


def medium(work: Path) -> None:
    warm(work, (224, 448, 448))
    print(HEAD)
    measured("medium", (224, 448, 448), work)


def large(work: Path) -> None:
    warm(work, (300, 928, 928))
    print(HEAD)
    measured("large", (300, 928, 928), work)


def slabs(work: Path) -> None:
    """Slices as they are in the largest tomograms: 8 bits, 2,048 x 2,048; the network alone, in a process for each number of slices."""
    print("| slices of 2,048 x 2,048 | s | GB | s a slice |\n|---|---|---|---|")
    code = (
        "import sys, numpy as np, resource, time\n"
        "from pathlib import Path\n"
        "from jaxmem.pipeline.network import predict\n"
        "from jaxmem.pipeline.keeping.pieces import Pieces\n"
        "from jaxmem.pipeline.keeping.record import Run\n"
        "from jaxmem.pipeline.stages import for_tomogram\n"
        "from jaxmem.settings import Config\n"
        "from jaxmem.types import Tomogram\n"
        "data = np.memmap(sys.argv[1], np.int8, 'r', shape=(int(sys.argv[2]), 2048, 2048))\n"
        "start = time.perf_counter()\n"
        "predict(Tomogram(data, 14.0), for_tomogram(Config(), 14.0), Run(None, Pieces(sys.argv[3]), {'network': 'x'}))\n"
        "print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)\n"
    )
    raw = work / "int8.raw"
    one = np.clip(25.0 * tile(SEEDS[0], work)[:16], -127, 127).astype(np.int8)
    with raw.open("wb") as file:
        for z in range(16):
            file.write(np.tile(one[z], (10, 10))[:2048, :2048].tobytes())
    found = []
    for many in (4, 4, 8, 16):
        with tempfile.TemporaryDirectory(dir=work) as folder:
            arguments = [sys.executable, "-c", code, str(raw), str(many), folder]
            said = subprocess.run(
                arguments, env=environment(work / "cache"), check=True, stdout=subprocess.PIPE, text=True
            )
        found.append((many, *map(float, said.stdout.split()[-2:])))
    for many, seconds, memory in found[1:]:
        print(f"| {many} | {seconds:.0f} | {memory:.2f} | {seconds / many:.2f} |", flush=True)
    each = (found[3][1] - found[1][1]) / 12
    print(f"\n1,024 slices, extrapolated: {1024 * each / 60:.0f} minutes, {found[3][2]:.1f} GB")


def again(work: Path) -> None:
    """From the start of the command to the first slice that is looked at."""
    source, log = tiled(TILE, work), work / "log.jsonl"
    waits = []
    for _ in range(3):
        log.unlink(missing_ok=True)
        start = time.time()
        segmented(source, work / "run", work / "cache", "--no-keep", "--log-json", str(log))
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        waits.append(next(e["time"] for e in lines if e.get("stage") == "network" and e["done"] > 0) - start)
    print(
        f"first slice of the first tomogram of a shape after {waits[0]:.1f} s, of a second after {min(waits[1:]):.1f} s"
    )


def kills(work: Path, times: int = 20) -> None:
    """Runs that are killed at random moments, each followed by the same command once more."""
    from jaxmem.io import write_mrc
    from jaxmem.types import Tomogram

    source = work / "small.mrc"
    data = np.ascontiguousarray(tile(SEEDS[0], work)[24:72, :112, :112])
    write_mrc(source, data, Tomogram(data, 14.0))
    whole = work / "whole"
    segmented(source, whole, work / "cache", "--keep")  # compiles
    shutil.rmtree(whole)
    _, length, _ = segmented(source, whole, work / "cache", "--keep")
    wanted = contents(whole)
    draw = random.Random(0)
    moments, equal = [], 0
    for k in range(times):
        run = work / f"killed-{k}"
        command = [sys.executable, "-c", CODE, "segment", str(source), "-o", str(run), "--quiet", "--keep"]
        moment = draw.uniform(0.1, 0.95) * length
        process = subprocess.Popen(command, env=environment(work / "cache"), stdout=subprocess.DEVNULL)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            moments.append(moment)
        if not run.exists():
            subprocess.run(command, env=environment(work / "cache"), check=True, stdout=subprocess.DEVNULL)
        equal += contents(run) == wanted and not run.with_name(run.name + ".partial").exists()
        shutil.rmtree(run)
    print(
        f"killed {len(moments)} of {times} runs between {min(moments):.1f} and {max(moments):.1f} s of {length:.1f}; {equal} of {times} ended with the same bytes"
    )


def contents(run: Path) -> dict[str, bytes]:
    """Bytes of a run's files, but for the manifest and the report, which hold dates and times."""
    return {
        str(p.relative_to(run)): p.read_bytes()
        for p in sorted(run.rglob("*"))
        if p.is_file() and p.name not in {"manifest.json", "report.html"}
    }


def main() -> None:
    parts = {f.__name__: f for f in (tiles, medium, large, slabs, again, kills)}
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", choices=[[], *parts], default=[])
    parser.add_argument(
        "--work", type=Path, help="folder for tomograms, runs and the compilation cache; kept if it is given"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = args.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        for name in args.parts or parts:
            print()
            parts[name](work)


if __name__ == "__main__":
    with recorded("large"):
        main()
