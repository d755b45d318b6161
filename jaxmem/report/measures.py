"""The part of a report on what was measured: histograms, and tables in nm."""

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmem.report.figures import new_figure
from jaxmem.report.page import MEASURES, picture, put_between

if TYPE_CHECKING:
    import matplotlib.figure

_MOST_ROWS = 60  # of a table in the page


def _numbers(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows if row.get(name) not in (None, "")])


def histograms(
    rows: list[dict[str, Any]], pairs: list[dict[str, Any]], particles: list[dict[str, Any]]
) -> "matplotlib.figure.Figure | None":
    """Histograms of what is there of thickness, width, distances and proteins; None if nothing is.

    Arguments:
        rows, pairs, particles: of the tables.
    """
    shown = [
        (_numbers(rows, "thickness_nm"), "thickness, nm", "membranes"),
        (_numbers(rows, "width_nm"), "width across, nm", "membranes"),
        (_numbers(pairs, "closest_nm"), "closest distance, nm", "pairs"),
        (_numbers(particles, "distance_nm"), "protein to membrane, nm", "proteins"),
    ]
    shown = [one for one in shown if len(one[0])]
    if not shown:
        return None
    figure = new_figure(2.7 * len(shown), 2.4)
    for k, (values, title, what) in enumerate(shown, 1):
        axes = figure.add_subplot(1, len(shown), k)
        axes.hist(values, bins=min(20, max(5, len(values) // 3)))
        axes.set(xlabel=title, ylabel=what)
    figure.tight_layout()
    return figure


def _cell(row: dict[str, Any], name: str, sigma: str | None, digits: int) -> str:
    value = row.get(name)
    if value in (None, ""):
        return "<td>-</td>"
    if isinstance(value, str):
        return f"<td>{html.escape(value)}</td>"
    error = row.get(sigma) if sigma else None
    more = f" &plusmn; {float(error):.{digits}f}" if error not in (None, "") else ""
    return f"<td>{float(value):.{digits}f}{more}</td>"


def _table(rows: list[dict[str, Any]], columns: list[tuple[str, str, str | None, int]]) -> str:
    head = "".join(f"<th scope='col'>{title}</th>" for title, *_ in columns)
    body = "".join(
        f"<tr>{''.join(_cell(row, name, sigma, digits) for _, name, sigma, digits in columns)}</tr>"
        for row in rows[:_MOST_ROWS]
    )
    more = f"<p>{len(rows) - _MOST_ROWS} more are in the table's file.</p>" if len(rows) > _MOST_ROWS else ""
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}"


def add_measures(
    path: Path,
    rows: list[dict[str, Any]],
    pairs: list[dict[str, Any]],
    particles: list[dict[str, Any]],
    said: list[str],
) -> None:
    """Put what was measured into a page, in place of an earlier measurement.

    Arguments:
        path: written by `write_report`.
        rows, pairs, particles: of the tables.
        said: what was decided, in words.

    Raises:
        JaxmemError: if the page cannot be read or written, or has no place for them.
    """
    parts = ["<h2>Measured</h2>", "<ul>", *(f"<li>{html.escape(text)}</li>" for text in said), "</ul>"]
    figure = histograms(rows, pairs, particles)
    if figure is not None:
        parts.append(picture(figure, "What was measured on membranes, pairs of them, and proteins."))
    if rows:
        parts += ["<h3>Membranes</h3>", _table(rows, [
            ("membrane", "membrane", None, 0), ("thickness, nm", "thickness_nm", "thickness_sigma_nm", 2), ("of its area", "thickness_share", None, 2),
            ("width, nm", "width_nm", "width_sigma_nm", 1), ("mean curvature, 1/nm", "mean_curvature_per_nm", "mean_curvature_sigma_per_nm", 4),
            ("shape index", "shape_index", "shape_index_sigma", 2), ("bending energy / 2&kappa;", "willmore", "willmore_sigma", 1),
            ("nearest", "nearest_membrane", None, 0), ("nm away", "nearest_nm", None, 1), ("proteins", "proteins", None, 0),
        ])]  # fmt: skip
    if pairs:
        parts += ["<h3>Pairs</h3>", _table(pairs, [
            ("first", "first", None, 0), ("second", "second", None, 0), ("the first is", "relation", None, 0),
            ("closest, nm", "closest_nm", "closest_sigma_nm", 2), ("contact, nm&sup2;", "contact_area_nm2", "contact_area_sigma_nm2", 0),
            ("mean gap there, nm", "gap_nm", "gap_sigma_nm", 2),
        ])]  # fmt: skip
    put_between(path, MEASURES, parts)
