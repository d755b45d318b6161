"""The command line: thin verbs over the library."""

import argparse
import functools
import logging
import os
import sys
import time
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from jaxmem import __version__
from jaxmem.batch.verbs import add_verbs
from jaxmem.console import failed, prepare
from jaxmem.types import JaxmemError

log = logging.getLogger("jaxmem")
_say = functools.partial(print, flush=True)  # hours of training may be read through a pipe


def _segment(args: argparse.Namespace) -> int:
    from jaxmem.pipeline import segment_file

    return _run(args, args.tomogram, segment_file)


def _fit(args: argparse.Namespace) -> int:
    from jaxmem.pipeline import fit_file

    own = {name: getattr(args, name) for name in ("instances", "filled", "tomogram")}
    return _run(args, args.mask, functools.partial(fit_file, **own))


def _run(args: argparse.Namespace, source: Path, function: Any) -> int:
    config = _configured(args)
    shown = prepare(args.quiet, args.log_json)
    start = time.perf_counter()
    try:
        found = function(
            source,
            args.output,
            config,
            voxel_size=args.voxel_size,
            level=args.level,
            overwrite=args.overwrite,
            keep=args.keep,
            memory=None if args.memory is None else 1e9 * args.memory,
            obj=args.obj,
            zarr=args.zarr,
            progress=shown,
            arguments=args.arguments,
        )
    finally:
        shown.close()
    print(f"{found} membranes in {time.perf_counter() - start:.0f} s; report: {args.output / 'report.html'}")
    return 0


def _configured(args: argparse.Namespace) -> Any:
    """The configuration file's settings, and those of the command line over them."""
    from dataclasses import replace

    from jaxmem.pipeline import load_config

    config = load_config(args.config)
    chosen = replace(config.grouping, method=args.grouping or config.grouping.method)
    return replace(config, grouping=chosen)


def _evaluate(args: argparse.Namespace) -> int:
    from jaxmem.pipeline.scoring import score_run

    print(score_run(args.run, args.truth, classes=args.classes, filled=args.filled, out=args.json))
    return 0


def _demo(args: argparse.Namespace) -> int:
    data = Path(str(resources.files("jaxmem") / "data"))
    args.tomogram, args.voxel_size, args.config, args.grouping = data / "phantom.mrc.gz", None, None, None
    args.obj, args.overwrite, args.zarr, args.level, args.memory, args.keep = False, True, False, None, None, None
    code = _segment(args)
    args.run, args.truth = args.output, [data / "phantom_labels.mrc.gz", data / "phantom_truth.npz"]
    args.json, args.filled, args.classes = None, False, None
    code = code or _evaluate(args)
    print(f"report: {(args.output / 'report.html').resolve()}")
    return code


def _train(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from jaxmem.io import read_mrc
    from jaxmem.pipeline import match_tomogram
    from jaxmem.unet import TrainConfig, train

    if (args.like is None) != (args.membranes is None):
        raise JaxmemError("--like and --membranes belong together; give both or neither")
    prepare()
    if args.linker or args.walker:
        return _train_grouping(args)
    config = TrainConfig(epochs=args.epochs, images=args.images, batch=min(args.batch, args.images), seed=args.seed)
    config = replace(config, test_images=max(config.batch, min(config.test_images, args.images)))
    config = replace(config, network=replace(config.network, width=args.width, depth=args.depth))
    if args.like is not None:
        tomogram = read_mrc(args.like, args.voxel_size)
        mask = np.asarray(read_mrc(args.membranes, tomogram.voxel_size).data)
        try:
            slices = match_tomogram(tomogram, mask)
        except JaxmemError as error:
            raise JaxmemError(f"{args.membranes}: {error}") from None
        log.info("the membranes of %s have a contrast of %.1f", args.like, sum(slices.contrast) / 2)
        config = replace(config, slices=slices)
    train(config, args.output, _say)
    print(
        f'weights: {args.output / "unet.safetensors"}; use them with [network] weights = "..." in a configuration file'
    )
    return 0


def _train_grouping(args: argparse.Namespace) -> int:
    name = "walker" if args.walker else "linker"
    if args.like is not None:
        raise JaxmemError(f"--{name} learns from contours alone; leave --like and --membranes out")
    if args.walker:
        from jaxmem.grouping.rl.walker.train import WalkTraining, train_walker

        train_walker(WalkTraining(seed=args.seed), args.output, _say)
    else:
        from jaxmem.grouping.rl.linker.train import LinkTraining, train_linker

        train_linker(LinkTraining(seed=args.seed), args.output, _say)
    print(f"weights: {args.output / name}.safetensors; read them with jaxmem.grouping.rl.weights.load_{name}")
    return 0


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxmem", description="Membranes of cryo-electron tomograms as closed surfaces with error bars."
    )
    parser.add_argument("--version", action="version", version=f"jaxmem {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True)

    def logs(verb: argparse.ArgumentParser) -> None:
        verb.add_argument("--quiet", action="store_true", help="no progress, warnings only")
        verb.add_argument("--log-json", type=Path, metavar="FILE", help="every message and step as a line of JSON")

    def common(verb: argparse.ArgumentParser) -> None:
        verb.add_argument("-o", "--output", type=Path, required=True, metavar="RUN", help="folder for the results")
        verb.add_argument("--voxel-size", type=float, metavar="A", help="in A; replaces the header's")
        verb.add_argument("--config", type=Path, metavar="FILE.toml", help="settings; see the README")
        verb.add_argument(
            "--grouping",
            choices=("auto", "merge", "rl"),
            help="how points become membranes: region merging (auto is this), or walker and linker",
        )
        verb.add_argument(
            "--overwrite", action="store_true", help="replace an earlier run in RUN; stages that it kept are not redone"
        )
        verb.add_argument(
            "--keep",
            action=argparse.BooleanOptionalAction,
            help="keep in RUN what a later run with other settings need not redo (default: if it takes less than a tenth of the input)",
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
    verb.set_defaults(run_verb=_demo)
    verb = verbs.add_parser("segment", help="from a tomogram to membranes")
    verb.add_argument("tomogram", type=Path, metavar="TOMO", help="an MRC file, or an OME-Zarr")
    common(verb)
    verb.set_defaults(run_verb=_segment)
    verb = verbs.add_parser("fit", help="from a membrane mask to membranes")
    verb.add_argument("mask", type=Path, metavar="MASK.mrc")
    common(verb)
    verb.add_argument("--instances", action="store_true", help="the mask's values number its membranes")
    verb.add_argument("--tomogram", type=Path, help="what the mask was made from: it places the points anew")
    verb.add_argument(
        "--filled", action="store_true", help="the mask fills compartments; their outlines are the membranes"
    )
    verb.set_defaults(run_verb=_fit)
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
    verb.add_argument("--json", type=Path, metavar="FILE", help="where to write the scores (default: RUN/scores.json)")
    verb.set_defaults(run_verb=_evaluate)
    verb = verbs.add_parser("train", help="train the network on simulated slices; continues where it was stopped")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    grouping = verb.add_mutually_exclusive_group()
    for name, what in (("--linker", "the linker of segments"), ("--walker", "the walker over lines")):
        grouping.add_argument(
            name, action="store_true", help=f"train {what} instead, on simulated contours; only --seed matters"
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
    verb.set_defaults(run_verb=_train)
    add_verbs(verbs)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one verb; problems with the input become one line on standard error and exit status 1.

    Arguments:
        argv: the words after `jaxmem`; those of the process when None.

    Returns:
        The exit status.
    """
    args = _parser().parse_args(argv)
    args.arguments = sys.argv[1:] if argv is None else argv
    try:
        # JAX's own threads are enough: with a second set in LAPACK factorisations take longer, on a busy machine far longer
        with threadpool_limits(1, user_api="blas"):
            code = args.run_verb(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read our output has gone; what is left of it must not fail once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except JaxmemError as error:
        failed(str(error))
        print(f"jaxmem: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("jaxmem: interrupted", file=sys.stderr)
        return 130
