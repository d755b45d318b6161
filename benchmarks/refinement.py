"""What the density adds: `python benchmarks/refinement.py KINDS [--data FOLDER] [--only NAME] [--set NAME=VALUE] [--brief] [--synthesis] [--lattice]`,
each tomogram with and without refinement, or (`--brief`) with it alone; or profiles against analysis by synthesis.

KINDS is the folder that `benchmarks/kinds.py` has filled; FOLDER, with the given data, adds two more tomograms of another simulator
(`--data`). The bundled tomogram is always looked at. Bands are by the component of the true normal along the beam. Errors are in voxels
along the true normal; where a membrane was split or joined wrongly, points further than six voxels from any surface do not count as errors
of its place, and their share is given.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from pipeline import PACKAGE, command
from record import recorded
from scipy.spatial import cKDTree

BANDS = ((0.0, 0.5), (0.5, 0.8), (0.8, 1.01))
FAR = 6.0  # voxels
HEAD = (
    "| tomogram | points | membranes | slice Dice | below 0.5 | 0.5 to 0.8 | above 0.8 | far | in 95 % | by band | in 68 % | s | GiB |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def errors(run: Path, truth: dict[int, tuple[np.ndarray, np.ndarray]], labels: np.ndarray) -> tuple[np.ndarray, float]:
    """(n, 3) error along the true normal, its component along the beam, and sigma, of all matched membranes; and the share far away."""
    from jaxmem.metrics import match_instances
    from jaxmem.pipeline.files import read_run

    found = read_run(run)
    rows, far, many = [], 0, 0
    for true, number in match_instances(found.labels, labels).pairs.astype(int).tolist():
        if number not in found.surfaces or true not in truth:
            continue
        points, normals = truth[true]
        surface = found.surfaces[number]
        gap, nearest = cKDTree(surface.vertices).query(points)
        off = ((surface.vertices[nearest] - points) * normals).sum(1)
        rows.append(np.stack([off, np.abs(normals[:, 0]), surface.sigma[nearest]], 1)[gap < FAR])
        far, many = far + int((gap >= FAR).sum()), many + len(points)
    return np.concatenate(rows), far / many


def row(name: str, what: str, work: Path, cache: Path, tomogram: Path, truth: list[Path], settings: str) -> str:
    """One line of the table."""
    from jaxmem.pipeline.files import read_truth

    config = work / "settings.toml"
    config.write_text(settings)
    seconds, memory = command(
        ["segment", tomogram, "-o", work / "run", "--config", config, "--overwrite", "--quiet", "--no-keep"], cache
    )
    command(["evaluate", work / "run", "--truth", *truth], cache)
    scores = json.loads((work / "run" / "scores.json").read_text())
    labels, points = read_truth(truth)
    table, far = errors(work / "run", points or {}, labels)
    cells, held = [], []
    for low, high in BANDS:
        off, _, sigma = table[(table[:, 1] >= low) & (table[:, 1] < high)].T
        cells.append(f"{np.abs(off).mean():.2f} ({off.mean():+.2f})" if len(off) else "-")
        held.append(f"{100 * (np.abs(off) < 1.96 * sigma).mean():.0f}" if len(off) else "-")
    z = np.abs(table[:, 0]) / table[:, 2]
    i = scores["instances"]
    return (
        f"| {name} | {what} | {i['matched']} of {i['truth']}, {len(i['invented'])} invented | {scores['dice']['mean_slice']:.3f} | "
        + " | ".join(cells)
        + f" | {100 * far:.0f} % | {100 * (z < 1.96).mean():.0f} | {', '.join(held)} | {100 * (z < 1).mean():.0f} | {seconds:.0f} | {memory:.2f} |"
    )


def synthesis(inputs: dict[str, tuple[Path, Path]]) -> None:
    """Profiles against analysis by synthesis, from the same surfaces; both get the bilayer that the profiles ended with."""
    import jax
    import jax.numpy as jnp

    from jaxmem.density import gain, invert, synthesize
    from jaxmem.io import read_mrc
    from jaxmem.metrics import match_instances
    from jaxmem.pipeline import segment
    from jaxmem.pipeline.files import read_truth
    from jaxmem.pipeline.keeping.record import Run
    from jaxmem.pipeline.placing.appearance import first_look, with_bilayer
    from jaxmem.settings import Config, RefineConfig
    from jaxmem.surface import Outline, box_about

    print(
        "\n| tomogram | surfaces | below 0.5 | 0.5 to 0.8 | above 0.8 | s a membrane |\n|---|---|---|---|---|---|",
        flush=True,
    )
    for name, (path, stem) in inputs.items():
        tomogram = read_mrc(path)
        labels, points = read_truth(
            [stem.with_name(stem.name + "_labels.mrc.gz"), stem.with_name(stem.name + "_truth.npz")]
        )
        results = [segment(tomogram, Config(refine=RefineConfig(rounds=r)), keep_surfaces=False) for r in (0, 2)]
        outlines = [[Outline(m.mesh.vertices, m.mesh.normals) for m in r.membranes] for r in results]
        look = with_bilayer(
            tomogram.data, iter(outlines[1]), first_look(tomogram.data, tomogram.voxel_size, Config().refine, Run(None))
        )
        pairs = [match_instances(np.asarray(r.labels), labels).pairs.astype(int).tolist() for r in results]
        tables: dict[str, list] = {
            "of the network": [],
            "profiles": [],
            "synthesis": [],
            "profiles, then synthesis": [],
        }
        seconds = []
        for start, (before, after) in enumerate(
            (("of the network", "synthesis"), ("profiles", "profiles, then synthesis"))
        ):
            for true, found in pairs[start]:
                own = outlines[start][found - 1]
                others = [o for k, o in enumerate(outlines[start]) if k != found - 1]
                boxed = box_about(own, look.bilayer.reach)
                passed = gain(boxed.shape, look.wedge)
                volume = jnp.asarray(boxed.cut(np.asarray(tomogram.data)))
                if others:
                    rest = Outline(*(np.concatenate(a) for a in zip(*others)))
                    volume = volume - synthesize(
                        jnp.asarray(boxed.distance(rest, look.bilayer.reach)), look.bilayer, passed
                    )
                volume = volume - volume.mean()
                square = ((boxed.nodes[:, None] - boxed.nodes[None]) ** 2).sum(-1)
                prior = np.exp(-0.5 * square / 10.0**2) + np.exp(-0.5 * square / 40.0**2) + 1e-3 * np.eye(len(square))
                given = (
                    volume,
                    boxed.box,
                    look.bilayer,
                    passed,
                    jnp.asarray(prior, jnp.float32),
                    3.0 * float(volume.std()),
                )
                jax.block_until_ready(invert(*given))
                begun = time.perf_counter()
                result = jax.block_until_ready(invert(*given))
                seconds.append(time.perf_counter() - begun)
                shift = boxed.at(own.vertices, np.asarray(result.displacement))
                place, normals = points[true]
                for which, vertices in ((before, own.vertices), (after, own.vertices + shift[:, None] * own.normals)):
                    gap, nearest = cKDTree(vertices).query(place)
                    off = ((vertices[nearest] - place) * normals).sum(1)
                    tables[which].append(np.stack([off, np.abs(normals[:, 0])], 1)[gap < FAR])
        for which, rows in tables.items():
            off, upward = np.concatenate(rows).T
            bands = [off[(upward >= low) & (upward < high)] for low, high in BANDS]
            cells = " | ".join(f"{np.abs(b).mean():.2f} ({b.mean():+.2f})" if len(b) else "-" for b in bands)
            cost = f"{np.mean(seconds):.2f}" if "synthesis" in which else ""
            print(f"| {name} | {which} | {cells} | {cost} |", flush=True)


def lattice(data: Path) -> None:
    """Positions of the Gag lattice on nine virus-like particles of a real tomogram (EMPIAR-10164, 40 A) about the surfaces."""
    from jaxmem.io import read_mrc
    from jaxmem.pipeline import segment
    from jaxmem.settings import Config, RefineConfig

    tomogram = read_mrc(data / "real" / "hiv_vlp.mrc.gz")
    given = np.load(data / "real" / "hiv_vlp_points.npz")
    print(
        "\n| lattice points about surfaces | particles closed | standard deviation | robust deviation | medians of the particles |\n|---|---|---|---|---|"
    )
    for what, rounds in (("of the network's points", 0), ("of the density's points", 2)):
        meshes = [
            m.mesh for m in segment(tomogram, Config(refine=RefineConfig(rounds=rounds)), keep_surfaces=False).membranes
        ]
        trees = [cKDTree(m.vertices) for m in meshes]
        spread, middles, closed = [], [], 0
        for particle in np.unique(given["particle"]):
            points = given["points"][given["particle"] == particle]
            gaps = [tree.query(points) for tree in trees]
            k = int(np.argmin([np.median(gap) for gap, _ in gaps]))
            nearest = gaps[k][1]
            off = ((points - meshes[k].vertices[nearest]) * meshes[k].normals[nearest]).sum(1)
            closed += meshes[k].closed
            middles.append(float(np.median(off)))
            spread.append(off - middles[-1])
        off = np.concatenate(spread)
        print(
            f"| {what} | {closed} of {len(middles)} | {off.std():.2f} | {1.48 * np.median(np.abs(off)):.2f} | {min(middles):+.2f} to {max(middles):+.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only")
    parser.add_argument(
        "--lattice", action="store_true", help="a real tomogram instead, of the folder with the given data"
    )
    parser.add_argument("--synthesis", action="store_true", help="compare with analysis by synthesis instead")
    parser.add_argument("--brief", action="store_true", help="surfaces of the density's points alone")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="settings of [refine]")
    args = parser.parse_args()
    if args.set and (args.lattice or args.synthesis):
        parser.error("--set changes the table of simulated tomograms alone")
    inputs = {"phantom": (PACKAGE / "data" / "phantom.mrc.gz", PACKAGE / "data" / "phantom")}
    for name in ("clear_public", "cell_public") if args.data else ():
        inputs[name] = args.data / f"{name}.mrc.gz", args.data / name
    for path in sorted(args.kinds.glob("*_truth.npz")):
        name = path.name.removesuffix("_truth.npz")
        inputs[name] = args.kinds / f"{name}.mrc.gz", args.kinds / name
    chosen = "[refine]\n" + "".join(f"{setting.replace('=', ' = ')}\n" for setting in args.set)
    inputs = {name: files for name, files in inputs.items() if args.only in (None, name)}
    if args.lattice:
        lattice(args.data)
        return
    if args.synthesis:
        synthesis(inputs)
        return
    ways = [("of the network", "[refine]\nrounds = 0\n"), ("of the density", chosen)][args.brief :]
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name, (tomogram, stem) in inputs.items():
            truth = [stem.with_name(stem.name + "_labels.mrc.gz"), stem.with_name(stem.name + "_truth.npz")]
            for what, settings in ways:
                print(row(name, what, work, work / "cache", tomogram, truth, settings), flush=True)


if __name__ == "__main__":
    with recorded("refinement"):
        main()
