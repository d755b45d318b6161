"""Scores of a run against a truth: read, written as JSON, put into the report, and printed."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxmem.io import read_mrc
from jaxmem.metrics import match_instances
from jaxmem.pipeline.evaluate import evaluate
from jaxmem.pipeline.files import read_run, read_truth
from jaxmem.pipeline.masks import band_thickness, fill, outline
from jaxmem.report import add_scores
from jaxmem.types import JaxmemError

_CLASSES = {0: "background", 1: "protein", 2: "membrane"}


def read_losses(path: Path) -> dict[str, list[float]]:
    """The table that training writes after each epoch, by column: `epoch`, `train_loss`, `loss` of test images, and their scores.

    Raises:
        JaxmemError: if it cannot be read or is not such a table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {name: [float(row[name]) for row in rows] for name in ("epoch", "train_loss", "loss", *rows[0])}
    except (OSError, UnicodeDecodeError, LookupError, TypeError, ValueError) as error:
        raise JaxmemError(f"{path}: not a table of losses ({error}); give the loss.csv of `jaxmem train`") from None


def score_run(
    run: Path,
    truth: list[Path],
    *,
    classes: Path | None = None,
    filled: bool = False,
    losses: Path | None = None,
    out: Path | None = None,
) -> str:
    """Compare a finished run with a truth, write the scores as JSON, and put them into its report.

    Arguments:
        run: folder.
        truth: see `read_truth`.
        classes: MRC file of true classes.
        filled: the truth fills compartments, whose outlines are compared.
        losses: `loss.csv` of the network's training, whose curves go into the report (paper, Fig. 16).
        out: where the scores go; `scores.json` in the run when None.

    Returns:
        The scores as a table for people.

    Raises:
        JaxmemError: if something cannot be read or written, or shapes differ.
    """
    curves = None if losses is None else read_losses(losses)
    found = read_run(run)
    labels, points = read_truth(truth)
    if labels.shape != found.labels.shape:
        raise JaxmemError(
            f"{truth[0]}: has shape {labels.shape}, the run {found.labels.shape}; give the truth of the same volume"
        )
    matching = None
    if filled:
        matching = match_instances(fill(found.labels), labels)
        labels = outline(labels, 0.5 * band_thickness(found.labels > 0))
    known = None if classes is None else np.asarray(read_mrc(classes, labels=True).data)
    if known is not None and known.shape != found.labels.shape:
        raise JaxmemError(
            f"{classes}: has shape {known.shape}, the run {found.labels.shape}; give the classes of the same volume"
        )
    scores = evaluate(found, labels, points, matching=matching, classes=known) | {"losses": curves}
    out = out or run / "scores.json"
    partial = out.with_suffix(".partial")
    try:
        partial.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
        partial.replace(out)
    except OSError as error:
        raise JaxmemError(f"{out}: cannot be written ({error.strerror}); choose another file with --json") from None
    text = format_scores(scores)
    if (run / "report.html").exists():
        add_scores(run / "report.html", scores, text)
    return f"{text}\n\nscores as JSON: {out}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def format_scores(scores: dict[str, Any]) -> str:
    """The scores as a table for people."""
    i, d = scores["instances"], scores["dice"]
    lines = [
        f"membranes      {i['matched']} of {i['truth']} found; missed {i['missed'] or 'none'}, invented {i['invented'] or 'none'}",
        f"slice-wise Dice {_number(d['mean_slice'])} (network alone {_number(d['network_mean_slice'])});"
        f" overall {d['overall']:.3f} ({d['network_overall']:.3f})",
    ]
    columns = ("mean", "sides", "caps", "percentile_95", "within_95_interval")
    if scores["distance_voxels"]:
        lines += ["", "truth found   dice  closed  distance in voxels: mean  sides   caps    95 %  in 95 % interval"]

        def cells(row: dict[str, Any]) -> str:
            return "  ".join(f"{row[c]:6.2f}" if row.get(c) is not None else "     -" for c in columns)

        for row in scores["membranes"]:
            closed = {True: "yes", False: "no"}.get(row.get("closed"), "-")
            lines.append(f"{row['truth']:5d} {row['found']:5d} {row['dice']:6.3f}  {closed:>6s}{'':22s}{cells(row)}")
        lines.append(f"{'all':>5s} {'':5s} {'':6s}  {'':6s}{'':22s}{cells(scores['distance_voxels'])}")
    if scores["angles"]:
        lines += ["", "normal to beam   found   mean   bias  in 68 %  in 95 % interval"]
        keys = ("found", "mean", "bias", "within_68_interval", "within_95_interval")
        for band in scores["angles"]:
            values = "  ".join(f"{band[k]:5.2f}" if band[k] is not None else "    -" for k in keys)
            lines.append(f"{band['from']:5.0f} to {band['to']:3.0f}    {values}")
    steps = scores["neighbouring_slices"]
    if steps["surfaces"]["largest"] is not None:
        lines += ["", "largest distance to the next slice, voxels   median   worst"]
        for name, label in (("network", "network alone"), ("surfaces", "surfaces")):
            median, worst = (_number(steps[name][k]) for k in ("median", "largest"))
            lines.append(f"{label:40s}   {median:>8s}{worst:>8s}")
    if scores["classes"]:
        each = ", ".join(f"{_CLASSES.get(k, k)} {v:.3f}" for k, v in scores["classes"]["dice"].items())
        lines += ["", f"classes        {scores['classes']['accuracy']:.2%} of pixels are right; Dice: {each}"]
    slices = scores["slices"]
    if slices:
        lines += ["", "slice   Dice  network"]
        lines += [
            f"{s['slice']:5d}  {s['dice']:.3f}    {s['network_dice']:.3f}" for s in slices[:: max(1, len(slices) // 12)]
        ]
    return "\n".join(lines)
