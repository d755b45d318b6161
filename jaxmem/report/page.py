"""One self-contained HTML page about a run: pictures as data URLs, nothing fetched from anywhere."""

import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxmem.report.figures import (
    MOST_SURFACES,
    as_png,
    groups_figure,
    neighbours_figure,
    reliability_figure,
    side_figure,
    slice_figure,
    slices_figure,
    surfaces_figure,
)
from jaxmem.types import JaxmemError, Tomogram

if TYPE_CHECKING:
    import matplotlib.figure

_STYLE = """
body{font-family:system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1b1b1b;background:#fff}
img{max-width:100%;height:auto} table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:right} th{font-weight:600}
.warning{background:#fff3cd;border-left:4px solid #d39e00;padding:.5rem .8rem;margin:.4rem 0} pre{overflow:auto;background:#f6f6f6;padding:.8rem}
.scroll{overflow-x:auto}
"""


_SCORES = ("<!-- scores -->", "<!-- /scores -->")
"""Where the scores stand in a page."""


def _picture(figure: "matplotlib.figure.Figure", text: str) -> str:
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
    parts += [f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>"]
    name = html.escape(str(manifest["input"] or "array"))
    shape = " x ".join(str(n) for n in tomogram.data.shape[::-1])
    parts += [f"<h1>{len(rows)} membranes in {name}</h1>"]
    parts += [f"<p>{shape} voxels of {tomogram.voxel_size:.2f} A; {sum(manifest['seconds'].values()):.0f} s.</p>"]
    parts += [f"<p class=warning>{html.escape(text)}</p>" for text in result.warnings]

    parts += ["<h2>Slices</h2>", _picture(slices_figure(tomogram, result.semantic, result.labels),
              "Top: the data. Middle: what the network calls membrane. Bottom: the fitted membranes.")]  # fmt: skip
    if len(result.groups.points):
        parts += ["<h2>From pixels to membranes</h2>", _picture(groups_figure(tomogram, result.groups, result.labels),
                  "Middles of what the network calls membrane, one colour for each region (top), and the points that surfaces were "
                  "fitted to, one colour for each membrane (bottom): what is gone was dropped, what is new was recovered.")]  # fmt: skip
    if tomogram.data.shape[0] > 5:
        parts += ["<h2>From the side</h2>", _picture(side_figure(tomogram, result.labels, result.membranes),
                  "The beam runs from top to bottom; caps are inferred where nothing is visible.")]  # fmt: skip
    if rows:
        parts += ["<h2>Surfaces</h2>", _picture(surfaces_figure(result.membranes, tomogram.voxel_size),
                  "Standard deviation of the surface's position along its normal"
                  + (f"; the first {MOST_SURFACES} membranes." if len(rows) > MOST_SURFACES else "."))]  # fmt: skip
        head = "".join(f"<th>{html.escape(c)}</th>" for c in rows[0])
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(v))}</td>" for v in row.values()) + "</tr>" for row in rows
        )
        parts += [f"<h2>Membranes</h2><div class=scroll><table><tr>{head}</tr>{body}</table></div>"]
    parts += ["".join(_SCORES)]
    decisions = "".join(f"<li>{html.escape(text)}</li>" for text in result.decisions)
    parts += [f"<h2>What was decided</h2><ol>{decisions}</ol>"]
    parts += [f"<h2>Settings and times</h2><pre>{html.escape(json.dumps(manifest, indent=2))}</pre></html>"]
    path.write_text("\n".join(parts), encoding="utf-8")


def add_scores(path: Path, scores: dict[str, Any], text: str) -> None:
    """Put scores against a truth into a page, in place of earlier ones.

    Arguments:
        path: written by `write_report`.
        scores: of `pipeline.evaluate`.
        text: the same as a table for people.

    Raises:
        JaxmemError: if the page cannot be read or written, or has no place for scores.
    """
    parts = ["<h2>Against the truth</h2>", f"<pre>{html.escape(text)}</pre>"]
    if scores["slices"]:
        parts.append(_picture(slice_figure(scores), "Dice of each slice, and of what the network says by itself."))
    if any(part["distances"] for part in scores["neighbouring_slices"].values()):
        parts.append(
            _picture(
                neighbours_figure(scores),
                "The largest distance between a membrane's pixel and the nearest one on the next slice, for each pair of slices.",
            )
        )
    if scores["reliability"]:
        parts.append(_picture(reliability_figure(scores), "Share of the truth within intervals of each level."))
    try:
        page = path.read_text(encoding="utf-8")
        start, end = page.find(_SCORES[0]), page.find(_SCORES[1])
        if start < 0 or end < start:
            raise JaxmemError(f"{path}: has no place for scores; make the run again with this version")
        partial = path.with_suffix(".partial")
        partial.write_text("\n".join([page[:start] + _SCORES[0], *parts, page[end:]]), encoding="utf-8")
        partial.replace(path)
    except (OSError, UnicodeDecodeError) as error:
        raise JaxmemError(f"{path}: the scores cannot be put into the report ({error})") from None
