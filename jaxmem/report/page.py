"""One self-contained HTML page about a run: a viewer with its data, pictures as data URLs, nothing fetched from anywhere."""

import html
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxmem.report.figures import (
    MOST_SURFACES,
    as_png,
    groups_figure,
    losses_figure,
    neighbours_figure,
    reliability_figure,
    side_figure,
    slice_figure,
    slices_figure,
    surfaces_figure,
)
from jaxmem.report.interactive import programs, style, table, viewer
from jaxmem.settings import Config
from jaxmem.types import JaxmemError, Tomogram

if TYPE_CHECKING:
    import matplotlib.figure

_SCORES = ("<!-- scores -->", "<!-- /scores -->")
"""Where the scores stand in a page."""
MEASURES = ("<!-- measures -->", "<!-- /measures -->")
"""Where measurements stand."""


def picture(figure: "matplotlib.figure.Figure", text: str) -> str:
    """A figure with its words below."""
    return f"<img alt='{html.escape(text)}' src='data:image/png;base64,{as_png(figure)}'><p>{html.escape(text)}</p>"


def write_report(
    path: Path, result: Any, tomogram: Tomogram, rows: list[dict[str, Any]], manifest: dict[str, Any]
) -> None:
    """Write the page.

    Arguments:
        path: HTML file.
        result: of `pipeline.segment` or `fit_mask`.
        tomogram: the input.
        rows: the table of membranes, as in `membranes.csv`.
        manifest: the run's manifest.
    """
    tomogram = tomogram if tomogram.data.ndim == 3 else tomogram._replace(data=tomogram.data[None])
    parts = ["<!doctype html><html lang=en><meta charset=utf-8><title>jaxmem report</title>"]
    parts += [f"<meta name=viewport content='width=device-width'>{style()}"]
    name = html.escape(str(manifest["input"] or "array"))
    shape = " x ".join(str(n) for n in tomogram.data.shape[::-1])
    parts += [f"<h1>{len(rows)} membranes in {name}</h1>"]
    parts += [f"<p>{shape} voxels of {tomogram.voxel_size:.2f} A; {sum(manifest['seconds'].values()):.0f} s.</p>"]
    parts += [f"<p class=warning>{html.escape(text)}</p>" for text in result.warnings]

    parts += ["<h2>Slices and surfaces</h2>", viewer(tomogram, result, rows)]
    if rows:
        parts += ["<h2>Membranes</h2>", table(rows)]
    parts += ["<h2>Pictures</h2>", picture(slices_figure(tomogram, result.semantic, result.labels),
              "Top: the data. Middle: what the network calls membrane. Bottom: the fitted membranes.")]  # fmt: skip
    if len(result.groups.points):
        parts += [picture(groups_figure(tomogram, result.groups, result.labels),
                  "Middles of what the network calls membrane, one colour for each region (top), and the points that surfaces were "
                  "fitted to, one colour for each membrane (bottom): what is gone was dropped, what is new was recovered.")]  # fmt: skip
    if tomogram.data.shape[0] > 5:
        parts += [picture(side_figure(tomogram, result.labels, result.membranes),
                  "The beam runs from top to bottom; caps are inferred where nothing is visible.")]  # fmt: skip
    if rows:
        parts += [picture(surfaces_figure(result.membranes, tomogram.voxel_size),
                  "Standard deviation of the surface's position along its normal"
                  + (f"; the first {MOST_SURFACES} membranes." if len(rows) > MOST_SURFACES else "."))]  # fmt: skip
    parts += ["".join(_SCORES), "".join(MEASURES)]
    decisions = "".join(f"<li>{html.escape(text)}</li>" for text in result.decisions)
    parts += [f"<h2>What was decided</h2><ol>{decisions}</ol>"]
    changed = "".join(f"<li><code>{html.escape(line)}</code></li>" for line in _changed(result.config))
    parts += [f"<h2>Settings that differ from the defaults</h2><ul>{changed or '<li>none</li>'}</ul>"]
    parts += [f"<h2>All settings, versions and times</h2><pre>{html.escape(json.dumps(manifest, indent=2))}</pre>"]
    parts += [programs(), "</html>"]
    path.write_text("\n".join(parts), encoding="utf-8")


def _changed(config: Config) -> list[str]:
    """Settings that are not as by default, what was decided included."""
    ran, usual = asdict(config), asdict(Config())
    return [
        f"{section}.{name} = {value!r}"
        for section, settings in ran.items()
        for name, value in settings.items()
        if value != usual[section][name]
    ]


def add_scores(path: Path, scores: dict[str, Any], text: str) -> None:
    """Put scores against a truth into a page, in place of earlier ones.

    Arguments:
        path: written by `write_report`.
        scores: of `pipeline.evaluate`, and under `losses` columns of a training's `loss.csv`, if there are any.
        text: the same as a table for people.

    Raises:
        JaxmemError: if the page cannot be read or written, or has no place for scores.
    """
    parts = ["<h2>Against the truth</h2>", f"<pre>{html.escape(text)}</pre>"]
    if scores["slices"]:
        parts.append(picture(slice_figure(scores), "Dice of each slice, and of what the network says by itself."))
    if any(part["distances"] for part in scores["neighbouring_slices"].values()):
        parts.append(
            picture(
                neighbours_figure(scores),
                "The largest distance between a membrane's pixel and the nearest one on the next slice, for each pair of slices.",
            )
        )
    if scores["reliability"]:
        parts.append(picture(reliability_figure(scores), "Share of the truth within intervals of each level."))
    if scores.get("losses"):
        parts.append(picture(losses_figure(scores["losses"]), "Loss of the network after each epoch of its training."))
    put_between(path, _SCORES, parts)


def put_between(path: Path, marks: tuple[str, str], parts: list[str]) -> None:
    """Put parts of a page between two marks, in place of what is there.

    Raises:
        JaxmemError: if the page cannot be read or written, or has no such marks.
    """
    try:
        page = path.read_text(encoding="utf-8")
        start, end = page.find(marks[0]), page.find(marks[1])
        if start < 0 or end < start:
            raise JaxmemError(f"{path}: has no place for what is added to it; make the run again with this version")
        partial = path.with_suffix(".partial")
        partial.write_text("\n".join([page[:start] + marks[0], *parts, page[end:]]), encoding="utf-8")
        partial.replace(path)
    except (OSError, UnicodeDecodeError) as error:
        raise JaxmemError(f"{path}: nothing can be added to the report ({error})") from None
