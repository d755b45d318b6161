"""The words of the command line."""

import argparse
from pathlib import Path

from jaxmem import __version__
from jaxmem.batch.verbs import add_verbs


def _gigabytes(text: str) -> float:
    """A positive number."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of gigabytes, got {text!r}")
    return value


def _count(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The parser of all verbs; `verb` is the name of the one that was asked for."""
    parser = argparse.ArgumentParser(
        prog="jaxmem", description="Membranes of cryo-electron tomograms as closed surfaces with error bars."
    )
    parser.add_argument("--version", action="version", version=f"jaxmem {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True)

    def logs(verb: argparse.ArgumentParser) -> None:
        verb.add_argument("--quiet", action="store_true", help="no progress, warnings only")
        verb.add_argument("--log-json", type=Path, metavar="FILE", help="every message and step as a line of JSON")

    def contrast(verb: argparse.ArgumentParser) -> None:
        verb.add_argument("--invert", action="store_true", help="membranes are bright in the tomogram")
        verb.add_argument(
            "--unsigned", action="store_true", help="the file's bytes are 0 to 255, though its header does not say so"
        )

    def common(verb: argparse.ArgumentParser) -> None:
        verb.add_argument("-o", "--output", type=Path, required=True, metavar="RUN", help="folder for the results")
        verb.add_argument("--voxel-size", type=float, metavar="A", help="in A; replaces the header's")
        verb.add_argument("--config", type=Path, metavar="FILE.toml", help="settings; jaxmem config prints all")
        verb.add_argument(
            "--set", action="append", default=[], metavar="SECTION.NAME=VALUE", help="one setting: fit.alpha=1.3"
        )
        verb.add_argument(
            "--grouping",
            choices=("auto", "merge", "rl"),
            help="how points become membranes: region merging (auto is this), or walker and linker",
        )
        verb.add_argument(
            "--overwrite", action="store_true", help="replace an earlier run in RUN; stages that it kept are not redone"
        )
        verb.add_argument(
            "--edit",
            type=Path,
            metavar="EDITS.toml",
            help="membranes to join, split, drop, keep, close or open (docs/editing.md)",
        )
        verb.add_argument(
            "--keep",
            action=argparse.BooleanOptionalAction,
            help="keep in RUN what a later run with other settings need not redo (default: if it takes less than 50 MB, or than a tenth of the input)",
        )
        verb.add_argument(
            "--memory", type=_gigabytes, metavar="GB", help="that may be used (default: half of what is free)"
        )
        verb.add_argument(
            "--level", type=int, metavar="N", help="of an OME-Zarr (default: the one nearest the network)"
        )
        verb.add_argument("--zarr", action="store_true", help="write labels and uncertainty as OME-Zarr too")
        verb.add_argument("--obj", action="store_true", help="write OBJ meshes too")
        logs(verb)

    verb = verbs.add_parser("demo", help="segment the tomogram that comes with the package and compare with its truth")
    verb.add_argument(
        "-o", "--output", type=Path, default=Path("jaxmem-demo"), metavar="RUN", help="folder for the results"
    )
    logs(verb)
    verb = verbs.add_parser("segment", help="from a tomogram to membranes")
    verb.add_argument("tomogram", type=Path, metavar="TOMO", help="an MRC file, or an OME-Zarr")
    common(verb)
    contrast(verb)
    verb = verbs.add_parser("info", help="what a tomogram's file says, what is odd about it, and what a run will need")
    verb.add_argument("tomogram", type=Path, metavar="TOMO", help="an MRC file, or an OME-Zarr")
    verb.add_argument("--voxel-size", type=float, metavar="A", help="in A; replaces the header's")
    verb.add_argument("--level", type=int, metavar="N", help="of an OME-Zarr (default: the one nearest the network)")
    contrast(verb)
    verb = verbs.add_parser("fit", help="from a membrane mask to membranes")
    verb.add_argument("mask", type=Path, metavar="MASK.mrc")
    common(verb)
    verb.add_argument("--instances", action="store_true", help="the mask's values number its membranes")
    verb.add_argument("--tomogram", type=Path, help="what the mask was made from: it places the points anew")
    verb.add_argument(
        "--filled", action="store_true", help="the mask fills compartments; their outlines are the membranes"
    )
    verb = verbs.add_parser("evaluate", help="compare a run with a truth")
    verb.add_argument("run", type=Path, metavar="RUN")
    verb.add_argument(
        "--truth",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="label volume (MRC), and .npz of surface points",
    )
    verb.add_argument("--filled", action="store_true", help="the truth fills compartments; their outlines are compared")
    verb.add_argument(
        "--classes",
        type=Path,
        metavar="FILE",
        help="true classes of the network (MRC): 0 background, 1 protein, 2 membrane",
    )
    verb.add_argument(
        "--losses", type=Path, metavar="loss.csv", help="of the network's training: its curves go into the report"
    )
    verb.add_argument("--json", type=Path, metavar="FILE", help="where to write the scores (default: RUN/scores.json)")
    verb = verbs.add_parser("config", help="print all settings with their meaning and their defaults, as a TOML file")
    verb = verbs.add_parser("completion", help="print a script by which a shell completes verbs, options and files")
    verb.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    verb = verbs.add_parser("export", help="write the surfaces of a run in formats of other programs")
    verb.add_argument("run", type=Path, metavar="RUN")
    verb.add_argument(
        "--to", nargs="+", required=True, choices=("glb", "vtp", "obj", "star", "mod", "copick"),
        help="one scene; meshes in nm with principal curvatures; meshes; points with normals for RELION 5; an IMOD model; a copick project",
    )  # fmt: skip
    verb.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="where to (default: RUN/export)")
    verb.add_argument(
        "--colour", default="membrane", choices=("membrane", "sigma", "seen", "mean_curvature", "gaussian_curvature"),
        help="what the scene's colours show",
    )  # fmt: skip
    verb.add_argument("--spacing", type=float, default=150.0, metavar="A", help="of the points in STAR files and picks")
    verb.add_argument("--height", type=float, default=0.0, metavar="A", help="of those points over the surface")
    verb = verbs.add_parser(
        "measure", help="thickness, distances, contacts, bending and proteins of a run, each with its error bar"
    )
    verb.add_argument("run", type=Path, metavar="RUN")
    verb.add_argument(
        "--tomogram", type=Path, metavar="TOMO", help="which thickness is measured in (default: the run's)"
    )
    verb.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="where to (default: RUN/measures)")
    for name, default, what in (
        ("--contact", 30.0, "nm; two membranes are in contact where they are no farther apart"),
        ("--reach", 50.0, "nm; pairs of membranes that come no closer are left out"),
        ("--head", 80.0, "A; least diameter of a protein"),
        ("--foot", 20.0, "nm; a protein whose centre is farther from every membrane stands on none"),
    ):
        verb.add_argument(name, type=float, default=default, metavar="LENGTH", help=f"{what} (default: {default:g})")
    logs(verb)
    verb = verbs.add_parser("train", help="train the network on simulated slices; continues where it was stopped")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    grouping = verb.add_mutually_exclusive_group()
    for name, what in (("--linker", "the linker of segments"), ("--walker", "the walker over lines")):
        grouping.add_argument(
            name, action="store_true", help=f"train {what} instead, on simulated contours; only --seed matters"
        )
    grouping.add_argument(
        "--tomograms",
        type=_count,
        metavar="N",
        help="train on N tomograms simulated by physics instead; --slices, --steps, --start, --batch, --seed",
    )
    verb.add_argument(
        "--slices", type=_count, default=5, help="neighbouring slices that the network then sees; 1 or odd"
    )
    verb.add_argument("--steps", type=_count, default=6000, help="of that training")
    verb.add_argument(
        "--start", default="", metavar="FILE", help="weights that it begins with, or none (default: the package's)"
    )
    verb.add_argument("--epochs", type=_count, default=10)
    verb.add_argument("--images", type=_count, default=4800)
    verb.add_argument("--batch", type=_count, default=4, help="images a step; 32 or more suit a GPU")
    verb.add_argument("--width", type=_count, default=16)
    verb.add_argument("--depth", type=_count, default=4)
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--like", type=Path, metavar="TOMO.mrc", help="match membranes and noise to those of a tomogram")
    verb.add_argument(
        "--membranes", type=Path, metavar="MASK.mrc", help="where membranes of that tomogram are; some of them will do"
    )
    verb.add_argument("--voxel-size", type=float, metavar="A", help="of that tomogram; replaces the header's")
    add_verbs(verbs)
    return parser


def completion(shell: str) -> str:
    """A script by which a shell completes the command line.

    Arguments:
        shell: bash, zsh or tcsh.
    """
    import shtab

    whole = parser()
    waiting = [whole]
    while waiting:
        for action in waiting.pop()._actions:
            if isinstance(action.choices, dict):
                waiting += action.choices.values()
            elif action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(whole, shell=shell)
