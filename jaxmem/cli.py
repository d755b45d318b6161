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

from jaxmem._arguments import completion, parser
from jaxmem.console import failed, prepare
from jaxmem.types import JaxmemError

log = logging.getLogger("jaxmem")
_say = functools.partial(print, flush=True)  # hours of training may be read through a pipe


def _segment(args: argparse.Namespace) -> int:
    from jaxmem.pipeline import segment_file

    own = {name: getattr(args, name) for name in ("invert", "unsigned")}
    return _run(args, args.tomogram, functools.partial(segment_file, **own))


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
            edits=args.edit or (),
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
    if args.quiet:
        return 0
    print(f"{found} membranes in {time.perf_counter() - start:.0f} s; report: {args.output / 'report.html'}")
    return 0


def _configured(args: argparse.Namespace) -> Any:
    """The configuration file's settings, and those of the command line over them."""
    from dataclasses import replace

    from jaxmem.pipeline import load_config

    config = load_config(args.config, args.set)
    chosen = replace(config.grouping, method=args.grouping or config.grouping.method)
    return replace(config, grouping=chosen)


def _evaluate(args: argparse.Namespace) -> int:
    from jaxmem.pipeline.scoring import score_run

    print(score_run(args.run, args.truth, classes=args.classes, filled=args.filled, losses=args.losses, out=args.json))
    return 0


def _config(args: argparse.Namespace) -> int:
    from jaxmem.pipeline.config import describe_settings

    print(describe_settings())
    return 0


def _completion(args: argparse.Namespace) -> int:
    print(completion(args.shell))
    return 0


def _info(args: argparse.Namespace) -> int:
    from jaxmem.pipeline.info import describe_file

    prepare(quiet=True)
    lines = describe_file(
        args.tomogram, voxel_size=args.voxel_size, level=args.level, invert=args.invert, unsigned=args.unsigned
    )
    for line in lines:
        print(line, flush=True)
    return 0


def _export(args: argparse.Namespace) -> int:
    from jaxmem.pipeline.export import export_run

    for path in export_run(
        args.run, args.to, args.output, colour=args.colour, spacing=args.spacing, height=args.height
    ):
        print(path)
    return 0


def _measure(args: argparse.Namespace) -> int:
    from jaxmem.pipeline.measuring import measure_run

    shown = prepare(args.quiet, args.log_json)
    own = {name: getattr(args, name) for name in ("contact", "reach", "head", "foot")}
    try:
        out = measure_run(args.run, args.tomogram, args.output, progress=shown, **own)
    finally:
        shown.close()
    if not args.quiet:
        print(f"tables and meshes: {out}")
    return 0


def _demo(args: argparse.Namespace) -> int:
    data = Path(str(resources.files("jaxmem") / "data"))
    args.tomogram, args.voxel_size, args.config, args.grouping = data / "phantom.mrc.gz", None, None, None
    args.set, args.edit = [], None
    args.invert, args.unsigned = False, False
    args.obj, args.overwrite, args.zarr, args.level, args.memory, args.keep = False, True, False, None, None, None
    code = _segment(args)
    args.run, args.truth = args.output, [data / "phantom_labels.mrc.gz", data / "phantom_truth.npz"]
    args.json, args.filled, args.classes, args.losses = None, False, None, None
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
    if args.tomograms:
        return _train_on_tomograms(args)
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


def _train_on_tomograms(args: argparse.Namespace) -> int:
    from jaxmem.unet import UNetConfig
    from jaxmem.unet.depth import DepthTraining, train_on_tomograms

    if args.like is not None:
        raise JaxmemError("--tomograms are simulated; leave --like and --membranes out")
    if args.slices % 2 == 0:
        raise JaxmemError(
            f"--slices {args.slices}: expected an odd number, as many slices above the middle one as below"
        )
    network = UNetConfig(depth=args.depth, width=args.width, slices=args.slices)
    config = DepthTraining(
        network, tomograms=args.tomograms, steps=args.steps, batch=args.batch, seed=args.seed, start=args.start
    )
    train_on_tomograms(config, args.output, _say)
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


_VERBS = {
    "completion": _completion, "config": _config, "demo": _demo, "evaluate": _evaluate, "export": _export, "fit": _fit, "info": _info,
    "measure": _measure, "segment": _segment, "train": _train,
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run one verb; problems with the input become one line on standard error and exit status 1.

    Arguments:
        argv: the words after `jaxmem`; those of the process when None.

    Returns:
        The exit status.
    """
    args = parser().parse_args(argv)
    args.arguments = sys.argv[1:] if argv is None else argv
    try:
        # JAX's own threads are enough: with a second set in LAPACK factorisations take longer, on a busy machine far longer
        with threadpool_limits(1, user_api="blas"):
            run = getattr(args, "run_verb", None) or _VERBS[args.verb]
            code = run(args)
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
