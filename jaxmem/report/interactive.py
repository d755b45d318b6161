"""The part of a report that can be turned and clicked: slices, surfaces and table, with all their data in the page."""

import base64
import html
import json
import zlib
from importlib import resources
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxmem.io.meshes.colours import MAPS, MEMBRANES, limits
from jaxmem.results import lifted
from jaxmem.types import Tomogram

_MOST_VOXELS = 4e6  # of a volume in the page, about as many bytes
_MOST_VERTICES = 150_000  # of all surfaces in the page
_STOPS = 9  # colours of a map
_UNITS = {"sigma": "nm", "seen": "", "mean_curvature": "1/nm", "gaussian_curvature": "1/nm^2"}
_TITLES = {"sigma": "error bar", "seen": "seen", "mean_curvature": "mean curvature", "gaussian_curvature": "Gaussian curvature"}  # fmt: skip
_MOSTLY_INFERRED, _WIDE = 0.4, 5.0  # share that is seen, and largest error bar over the median, which deserve a look


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 6)).decode("ascii")


def _blob(name: str, array: np.ndarray) -> str:
    return f"<script type='text/plain' id='{name}'>{_packed(array)}</script>"


def _pooled(slab: np.ndarray, step: int, mean: bool) -> np.ndarray:
    """One slice of a slab of `step` slices, or fewer: means or maxima of squares."""
    slab = slab[:, : slab.shape[1] // step * step, : slab.shape[2] // step * step]
    parts = slab.reshape(len(slab), slab.shape[1] // step, step, slab.shape[2] // step, step)
    return parts.mean((0, 2, 4)) if mean else parts.max((0, 2, 4))


def step_of(shape: tuple[int, ...]) -> int:
    """So many voxels along each axis become one in the page."""
    step = 1
    while np.prod([max(1, n // step) for n in shape]) > _MOST_VOXELS:
        step += 1
    return min(step, min(shape[1:]))


def volumes(tomogram: Tomogram, result: Any, top: float) -> tuple[dict[str, np.ndarray], tuple[int, int, int], int]:
    """The volumes of the page, slab by slab: grey values, labels, classes, and error bars up to `top` (A), as bytes.

    Returns:
        The volumes by name, their shape (nz, ny, nx), and how many voxels became one.
    """
    data = tomogram.data
    step = step_of(data.shape)
    starts = range(0, len(data), step)
    some = [np.asarray(data[int(k)], np.float32) for k in np.linspace(0, len(data) - 1, 5)]
    finite = np.concatenate([s[np.isfinite(s)] for s in some])
    low, high = np.percentile(finite, [0.5, 99.5]) if finite.size else (0.0, 1.0)
    scale = 255.0 / max(float(high - low), 1e-9)
    out: dict[str, list[np.ndarray]] = {name: [] for name in ("grey", "labels", "classes", "sigmas")}
    for z in starts:
        here = slice(z, z + step)
        slab = np.nan_to_num(np.asarray(data[here], np.float32), nan=float(low))
        out["grey"].append(np.clip(scale * (_pooled(slab, step, True) - low), 0, 255).astype(np.uint8))
        out["labels"].append(_pooled(np.asarray(result.labels[here]), step, False).astype(np.uint16))
        out["classes"].append(_pooled(np.asarray(result.semantic[here]), step, False).astype(np.uint8))
        sigma = np.nan_to_num(np.asarray(result.uncertainty[here], np.float32))
        out["sigmas"].append(np.clip(255.0 / top * _pooled(sigma, step, False), 0, 255).astype(np.uint8))
    found = {name: np.stack(parts) for name, parts in out.items()}
    nz, ny, nx = found["grey"].shape
    return found, (nz, ny, nx), step


def simplified(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], values: Float[np.ndarray, "n v"], cell: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A mesh with the vertices in each cell of a grid made one (Rossignac & Borrel 1993); as it is where the cell's edge is 0."""
    if cell <= 0 or not len(vertices):
        return vertices, faces, values
    key = np.floor(vertices / cell).astype(np.int64)
    _, of, count = np.unique(key, axis=0, return_inverse=True, return_counts=True)
    of = of.ravel()
    merged = [np.stack([np.bincount(of, column) for column in a.T], 1) / count[:, None] for a in (vertices, values)]
    corners = of[faces]
    a, b, c = corners.T
    return merged[0], corners[(a != b) & (b != c) & (c != a)], merged[1]


def _surfaces(result: Any, step: int, between: dict[str, tuple[float, float]]) -> dict[str, Any]:
    """Vertices, triangles and values of all membranes, in voxels of the page."""
    counts = [len(m.mesh.vertices) for m in result.membranes]
    total = sum(counts)
    cell = 1.2 * (total / _MOST_VERTICES) ** 0.5 if total > _MOST_VERTICES else 0.0
    places, corners, values, sizes = [], [], [], []
    for membrane in result.membranes:
        vertices, _, faces, of = lifted(membrane.mesh, len(result.labels))
        each = np.stack([np.asarray(getattr(membrane.mesh, name), float)[of] for name in MAPS], 1)
        vertices, faces, each = simplified(vertices, faces, each, cell)
        places.append((vertices[:, ::-1] + 0.5) / step)
        corners.append(faces.astype(np.uint32))
        values.append(each)
        sizes.append((len(vertices), len(faces)))
    where, each = np.concatenate(places), np.concatenate(values)
    low = where.min(0)
    quantum = max(float(np.ptp(where, axis=0).max()) / 65535.0, 1e-9)
    ends = np.array([between[name] for name in MAPS])
    shares = np.clip(255.0 * (each - ends[:, 0]) / (ends[:, 1] - ends[:, 0]), 0, 255).astype(np.uint8)
    return {
        "places": np.round((where - low) / quantum).astype(np.uint16),
        "corners": np.concatenate(corners), "values": shares.T, "sizes": sizes, "low": low.tolist(), "quantum": quantum,
    }  # fmt: skip


def _limits(result: Any) -> dict[str, tuple[float, float]]:
    """Between what the colours of each value run, in voxels."""
    found = {}
    for name in MAPS:
        ends = [limits(name, np.asarray(getattr(m.mesh, name), float)) for m in result.membranes]
        found[name] = (min(e[0] for e in ends), max(e[1] for e in ends))
    return found


def _value(row: dict[str, Any], name: str, sigma: str, factor: float) -> str:
    """A cell with a value and its error bar."""
    if row[name] == "":
        return "<td data-v='-1'>-</td>"
    value, error = factor * float(row[name]), factor * float(row[sigma])
    return f"<td data-v='{value:.6g}'>{value:,.0f} &plusmn; {error:,.0f}</td>"


def flags_of(row: dict[str, Any]) -> list[str]:
    """What of a membrane deserves a look."""
    flags = [] if row["closed"] else ["open"]
    if float(row["seen_fraction"]) < _MOSTLY_INFERRED:
        flags.append("mostly inferred")
    if float(row["max_sigma_A"]) > _WIDE * float(row["median_sigma_A"]):
        flags.append("uncertain in places")
    return flags


def table(rows: list[dict[str, Any]]) -> str:
    """The table of membranes for people: lengths in nm, values with their error bars, and what deserves a look."""
    titles = ("membrane", "closed", "area, nm&sup2;", "volume, nm&sup3;", "seen, %", "error bar, nm", "largest, nm", "mean curvature, 1/nm", "look at")  # fmt: skip
    head = "".join(f"<th scope='col'><button type='button'>{title}</button></th>" for title in titles)
    body = []
    for row in rows:
        number = int(row["membrane"])
        shade = "#" + "".join(f"{round(255 * c):02x}" for c in MEMBRANES[(number - 1) % len(MEMBRANES)])
        cells = f"<td data-v='{number}'><span class='chip' style='background:{shade}'></span>{number}</td>"
        cells += f"<td>{'yes' if row['closed'] else 'no'}</td>"
        cells += _value(row, "area_A2", "area_sigma_A2", 0.01) + _value(row, "volume_A3", "volume_sigma_A3", 0.001)
        cells += f"<td>{100 * float(row['seen_fraction']):.0f}</td><td>{0.1 * float(row['median_sigma_A']):.2f}</td>"
        cells += f"<td>{0.1 * float(row['max_sigma_A']):.2f}</td><td>{10 * float(row['median_mean_curvature_per_A']):.4f}</td>"
        cells += f"<td class='words'>{html.escape(', '.join(flags_of(row)))}</td>"
        body.append(f"<tr tabindex='0' data-number='{number}'>{cells}</tr>")
    return (
        "<label>Filter <input id='filter' placeholder='open, inferred, 12 ...'></label>"
        f"<div class='scroll'><table id='membranes'><thead><tr>{head}</tr></thead><tbody id='rows'>{''.join(body)}</tbody></table></div>"
        "<p>All columns are in <code>membranes.csv</code>.</p>"
    )


def _words(row: dict[str, Any]) -> str:
    area = f"{0.01 * float(row['area_A2']):,.0f} ± {0.01 * float(row['area_sigma_A2']):,.0f} nm²"
    parts = ["closed" if row["closed"] else "open", area, f"{100 * float(row['seen_fraction']):.0f} % seen"]
    return ", ".join(parts + [flag for flag in flags_of(row) if flag != "open"])


def _controls(surfaces: bool) -> str:
    def check(name: str, title: str, on: bool = False) -> str:
        return f"<label><input type='checkbox' id='{name}-on'{' checked' if on else ''}> {title}</label>"

    planes = "".join(f"<option>{plane}</option>" for plane in ("xy", "xz", "yz"))
    left = (
        f"<div class='view'><div class='controls'><label>plane <select id='plane'>{planes}</select></label>"
        f"{check('labels', 'membranes', True)}{check('sigma', 'error bars')}{check('network', 'network')}{check('proteins', 'proteins')}"
        "<label>contrast <input type='range' id='contrast' min='0.5' max='4' step='0.1' value='1'></label>"
        "<div class='wide'><label for='where'>slice</label><input type='range' id='where' min='0' max='1' value='0'><span id='place'></span></div></div>"
        "<canvas id='slice' tabindex='0' aria-label='a slice of the tomogram'></canvas></div>"
    )
    if not surfaces:
        return left
    options = "<option value='membrane'>membrane</option>" + "".join(
        f"<option value='{k}'>{v}</option>" for k, v in _TITLES.items()
    )
    return left + (
        f"<div class='view'><div class='controls'><label>colour <select id='colour'>{options}</select></label>"
        "<label>opacity <input type='range' id='opacity' min='0.1' max='1' step='0.05' value='1'></label>"
        "<span id='key'><span id='least'></span> <span class='bar' id='bar'></span> <span id='most'></span></span></div>"
        "<canvas id='space' tabindex='0' aria-label='surfaces in space; drag to turn, scroll to zoom, or use the arrow keys'></canvas></div>"
    )


def viewer(tomogram: Tomogram, result: Any, rows: list[dict[str, Any]]) -> str:
    """The viewer, its data and its programs, as a part of a page.

    Arguments:
        tomogram: (nz, ny, nx).
        result: of `pipeline.segment` or `fit_mask`.
        rows: the table of membranes.
    """
    from matplotlib import colormaps

    size = tomogram.voxel_size
    between = _limits(result) if rows else {}
    top = max(between["sigma"][1] * size if rows else 1.0, 1e-6)
    found, shape, step = volumes(tomogram, result, top)
    shapes: dict[str, Any] = _surfaces(result, step, between) if rows else {"places": np.zeros(0), "corners": np.zeros(0), "values": np.zeros(0), "sizes": []}  # fmt: skip
    unit = 0.1 * size  # nm
    powers = {"sigma": unit, "seen": 1.0, "mean_curvature": 1.0 / unit, "gaussian_curvature": unit**-2}
    described = []
    origin = np.asarray(tomogram.origin)
    for row, (vertices, triangles) in zip(rows, shapes["sizes"]):
        centre = np.array([float(row[f"center_{a}_A"]) for a in "xyz"])
        middle = ((centre - origin) / size / step).round(2).tolist()
        described.append({"vertices": vertices, "triangles": triangles, "middle": middle, "words": _words(row)})
    meta = {
        "shape": shape, "step": step, "rows": described, "colours": MEMBRANES.tolist(), "values": list(MAPS), "units": _UNITS,
        "maps": {name: np.round(colormaps[m](np.linspace(0, 1, _STOPS))[:, :3], 3).tolist() for name, m in MAPS.items()},
        "limits": {name: [float(f"{powers[name] * v:.3g}") for v in ends] for name, ends in between.items()},
        "low": shapes.get("low"), "quantum": shapes.get("quantum"),
    }  # fmt: skip
    blobs = [_blob(name, array) for name, array in found.items()]
    blobs += [_blob(name, shapes[name]) for name in ("places", "corners", "values")] if rows else []
    text = json.dumps(meta).replace("<", "\\u003c")
    return (
        f"<div class='views'>{_controls(bool(rows))}</div><p id='chosen' aria-live='polite'></p><p id='broken' class='warning'></p>"
        f"<script type='application/json' id='meta'>{text}</script>{''.join(blobs)}"
    )


def programs() -> str:
    """The viewer's programs, which run once the page is read: three.js (MIT licence) and its own."""
    return "".join(f"<script>{_file(name)}</script>" for name in ("three.min.js", "viewer.js"))


def style() -> str:
    """The page's style sheet."""
    return f"<style>{_file('viewer.css')}</style>"


def _file(name: str) -> str:
    return (
        (resources.files("jaxmem.report") / "viewer" / name)
        .read_text(encoding="utf-8")
        .replace("</script", "<\\/script")
    )
