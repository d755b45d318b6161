"""Accuracy, time and memory of the whole command: `python benchmarks/pipeline.py [PART ...]`.

Parts: phantom (cold and warm compilation cache), simulated (tomograms drawn from seeds not used in tuning), masks,
other (another simulator) and virion (the folder of given data, `--data`), symmetries (of the network), alpha (Fig. 22 of the paper). Each run is a process of its own, so that time
includes imports and compilation, and memory is the process's peak.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import recorded

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent / "jaxmem"


def command(arguments: list, cache: Path) -> tuple[float, float]:
    """Seconds and peak memory (GiB) of a `jaxmem` command."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from jaxmem.cli import main; sys.exit(main())", *map(str, arguments)],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: jaxmem {' '.join(map(str, arguments))}")
    return time.perf_counter() - start, usage.ru_maxrss / 2**20


def scores(run: Path, truth: list, cache: Path, *options: str) -> dict:
    command(["evaluate", run, "--truth", *truth, *options], cache)
    return json.loads((run / "scores.json").read_text())


def row(name: str, s: dict, seconds: float, memory: float) -> str:
    i, d, v = s["instances"], s["dice"], s["distance_voxels"] or {}
    cells = [f"{v[k]:.2f}" if v.get(k) is not None else "-" for k in ("mean", "sides", "caps", "within_95_interval")]
    found = f"{i['matched']}/{i['truth']}, {len(i['invented'])} invented"
    return (
        f"| {name} | {found} | {d['mean_slice']:.3f} | {d['network_mean_slice']:.3f} | "
        + " | ".join(cells)
        + f" | {seconds:.0f} | {memory:.2f} |"
    )


HEAD = (
    "| run | membranes | slice Dice | network alone | distance | sides | caps | in 95 % | s | GiB |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def phantom(work: Path, cache: Path, *_) -> None:
    data = PACKAGE / "data"
    truth = [data / "phantom_labels.mrc.gz", data / "phantom_truth.npz"]
    for name in ("phantom, cold cache", "phantom, warm cache"):
        used = command(["segment", data / "phantom.mrc.gz", "-o", work / "phantom", "--overwrite", "--quiet"], cache)
        result = scores(work / "phantom", truth, cache)
        print(row(name, result, *used), flush=True)
    closed = [m["closed"] for m in result["membranes"]]
    print(f"\nphantom: {sum(closed)} of {len(closed)} watertight\n")


def drawn(work: Path, seed: int) -> tuple[Path, list[Path]]:
    """The files of a simulated tomogram, and of its truth."""
    import jax
    import numpy as np

    from jaxmem.io import write_mrc
    from jaxmem.simulate import VolumeModel, simulate_tomogram
    from jaxmem.types import Tomogram

    made = simulate_tomogram(jax.random.key(seed), VolumeModel())
    labels = np.asarray(made.labels, np.int16)
    numbers = [int(i) + 1 for i in np.flatnonzero(made.present)]
    tomogram = Tomogram(np.asarray(made.data), 14.0)
    write_mrc(work / "t.mrc", tomogram.data, tomogram)
    write_mrc(work / "l.mrc", labels, tomogram)
    arrays = {f"points_{i}": made.points[i - 1] for i in numbers}
    arrays |= {f"normals_{i}": made.normals[i - 1] for i in numbers}
    np.savez(work / "p.npz", **{k: np.asarray(v) for k, v in arrays.items()})
    return work / "t.mrc", [work / "l.mrc", work / "p.npz"]


def simulated(work: Path, cache: Path, _: Path, seeds: list[int]) -> None:
    for seed in seeds:
        tomogram, truth = drawn(work, seed)
        used = command(["segment", tomogram, "-o", work / "sim", "--overwrite", "--quiet"], cache)
        print(row(f"simulated, seed {seed}", scores(work / "sim", truth, cache), *used), flush=True)


def other(work: Path, cache: Path, data: Path, *_) -> None:
    for name in ("clear_public", "cell_public"):
        truth = [data / f"{name}_labels.mrc.gz", data / f"{name}_truth.npz"]
        used = command(["segment", data / f"{name}.mrc.gz", "-o", work / "o", "--overwrite", "--quiet"], cache)
        print(row(f"other simulator, {name}", scores(work / "o", truth, cache), *used), flush=True)


def symmetries(work: Path, cache: Path, data: Path, seeds: list[int]) -> None:
    """What more looks at each slice gain, and what they cost; the first run of all pays for compilation and is thrown away."""
    public = [
        (data / f"{n}_public.mrc.gz", [data / f"{n}_public_labels.mrc.gz", data / f"{n}_public_truth.npz"])
        for n in ("clear", "cell")
    ]
    print("| symmetries | tomogram | membranes | slice Dice | distance | caps | in 95 % | network s |")
    print("|---|---|---|---|---|---|---|---|")
    for k, source in enumerate([*seeds, *(p for p in public if p[0].exists())]):
        name, truth = drawn(work, source) if isinstance(source, int) else source
        shown = f"seed {source}" if isinstance(source, int) else name.name.split(".")[0]
        for turn, count in enumerate((1, 2, 4) if k else (1, 2, 4, 1, 2, 4)):
            (work / "s.toml").write_text(f"[network]\nsymmetries = {count}\n")
            run = work / "symmetries"
            options = ["--overwrite", "--quiet", "--no-keep", "--config", work / "s.toml"]
            command(["segment", name, "-o", run, *options], cache)
            if k == 0 and turn < 3:
                continue  # compiles
            s = scores(run, truth, cache)
            seconds = json.loads((run / "manifest.json").read_text())["seconds"]["network"]
            v, i = s["distance_voxels"], s["instances"]
            print(
                f"| {count} | {shown} | {i['matched']}/{i['truth']}, {len(i['invented'])} invented | {s['dice']['mean_slice']:.3f} | "
                f"{v['mean']:.3f} | {v['caps']:.2f} | {v['within_95_interval']:.2f} | {seconds:.1f} |",
                flush=True,
            )


def masks(work: Path, cache: Path, data: Path, *_) -> None:
    for name, options in (
        ("t74_vesicle3", []),
        ("thylakoid_T1S2M15", []),
        ("AP_autophagosome", ["--instances"]),
        ("AP_autophagosome", []),
    ):
        file = data / f"{name}.mrc.gz"
        used = command(["fit", file, "-o", work / "fit", "--overwrite", "--quiet", *options], cache)
        print(row(" ".join([name, *options]), scores(work / "fit", [file], cache), *used), flush=True)


def virion(work: Path, cache: Path, data: Path, *_) -> None:
    used = command(
        ["segment", data / "virion_slice.mrc.gz", "-o", work / "v", "--voxel-size", 5, "--overwrite", "--quiet"], cache
    )
    truth = [data / "virion_slice_filled_mask.mrc.gz"]
    print(
        row("virion slice, against the mask's outline", scores(work / "v", truth, cache, "--filled"), *used), flush=True
    )
    filled = json.loads((work / "v" / "scores.json").read_text())["membranes"]
    print(f"\nvirion: Dice of the filled outline with the filled mask {[round(m['dice'], 3) for m in filled]}\n")


def alpha(work: Path, cache: Path, *_) -> None:
    data = PACKAGE / "data"
    truth = [data / "phantom_labels.mrc.gz", data / "phantom_truth.npz"]
    for value in (1.1, 1.2, 1.3):
        (work / "a.toml").write_text(f"[fit]\nalpha = {value}\n")
        arguments = ["segment", data / "phantom.mrc.gz", "-o", work / "a", "--overwrite", "--quiet"]
        used = command([*arguments, "--config", work / "a.toml"], cache)
        print(row(f"phantom, alpha = {value}", scores(work / "a", truth, cache), *used), flush=True)


def main() -> None:
    parts = {f.__name__: f for f in (phantom, simulated, masks, other, virion, alpha, symmetries)}
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", choices=[[], *parts], default=[])
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103, 104, 105, 106], help="of simulated")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name in args.parts or parts:
            print("" if name == "symmetries" else f"\n{HEAD}")
            parts[name](work, work / "cache", args.data, args.seeds)
    print(
        f"\npeak memory of this script's children: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20:.2f} GiB"
    )


if __name__ == "__main__":
    with recorded("pipeline"):
        main()
