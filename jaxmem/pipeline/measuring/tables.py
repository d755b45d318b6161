"""Rows of the tables that `jaxmem measure` writes, and the values on the vertices of its meshes; lengths in nm, coordinates in A."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from scipy.spatial import cKDTree

from jaxmem.io import in_nm
from jaxmem.measure import Particles, curvedness, shape_index, willmore
from jaxmem.numerics import bucket_size, map_rows
from jaxmem.pipeline.measuring.inputs import Finished, Skin, units
from jaxmem.pipeline.measuring.leaflets import Thickness
from jaxmem.pipeline.measuring.proteins import EMBEDDED, Foot, normal_error

MEMBRANES = [
    "membrane", "closed", "area_nm2",
    "thickness_nm", "thickness_sigma_nm", "thickness_share", "thickness_log_odds",
    "width_nm", "width_sigma_nm", "width_least_nm",
    "mean_curvature_per_nm", "mean_curvature_sigma_per_nm", "curvedness_per_nm", "curvedness_sigma_per_nm",
    "shape_index", "shape_index_sigma", "willmore", "willmore_sigma",
    "angle_to_beam_deg", "angle_to_tilt_axis_deg", "nearest_membrane", "nearest_nm",
    "proteins", "proteins_per_nm2", "protein_neighbour_nm", "cluster_radius_nm", "cluster_k", "cluster_z",
]  # fmt: skip

PAIRS = [
    "first", "second", "relation", "closest_nm", "closest_sigma_nm",
    "contact_area_nm2", "contact_area_sigma_nm2", "contact_area_other_nm2", "contact_area_other_sigma_nm2",
    "gap_nm", "gap_sigma_nm", "gap_spread_nm", "facing_share", "double", "crossing_area_nm2",
]  # fmt: skip

PARTICLES = [
    "particle", "x_A", "y_A", "z_A", "diameter_nm", "contrast", "membrane", "side", "distance_nm", "distance_sigma_nm",
    "foot_x_A", "foot_y_A", "foot_z_A", "normal_x", "normal_y", "normal_z", "normal_sigma_deg",
]  # fmt: skip

_SMOOTH_GAP = 0.35  # spread of a double membrane's gap over its mean, at most
_MOSTLY = 0.7  # share of the smaller one that faces the other, at least
_PLACE = 6.0  # voxels within which a vertex takes the thickness of a place

_shape = jax.jit(lambda h, k: (curvedness(h, k), shape_index(h, k)))
_willmore = jax.jit(jax.vmap(willmore, (1, None)))


def _round(value: float | None, digits: int = 3) -> float | str:
    return "" if value is None or not np.isfinite(value) else round(float(value), digits)


def _significant(value: float) -> float | str:
    return float(f"{value:.5g}") if np.isfinite(value) else ""


def membrane_row(
    one: Skin,
    thick: Thickness,
    across: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
    count: int,
    cluster: dict[str, float],
    near: tuple[np.ndarray, np.ndarray],
    run: Finished,
) -> dict[str, Any]:
    """The row of one membrane.

    Arguments:
        one: the membrane.
        thick: its thickness.
        across: from `pairs.widths`, of a closed one.
        count: proteins on it.
        cluster: how they lie.
        near: distance of the nearest other membrane at each vertex (voxels), and its number.
        run: of which it is a part.
    """
    size = 0.1 * run.voxel_size
    share = one.area / one.area.sum()
    row: dict[str, Any] = {
        "membrane": one.number,
        "closed": int(one.closed),
        "area_nm2": _round(one.area.sum() * size**2, 1),
    }
    row |= {
        "thickness_nm": _round(_tenth(thick.mean)), "thickness_sigma_nm": _round(_tenth(thick.sigma)),
        "thickness_share": _round(thick.share), "thickness_log_odds": _round(thick.log_odds, 1),
    }  # fmt: skip
    if across is not None and np.isfinite(across[1]).any():
        width, sigma = across[1][np.isfinite(across[1])], across[2][np.isfinite(across[1])]
        row |= {"width_nm": _round(np.median(width) * size), "width_sigma_nm": _round(np.median(sigma) * size), "width_least_nm": _round(width.min() * size)}  # fmt: skip
    row |= _bending(one, share, size)
    beam, axis = _angles(one, run)
    row |= {
        "angle_to_beam_deg": _round(_median(beam, share), 1),
        "angle_to_tilt_axis_deg": _round(_median(axis, share), 1),
    }
    gap, number = near
    if np.isfinite(gap).any():
        k = int(np.argmin(gap))
        row |= {"nearest_membrane": int(number[k]), "nearest_nm": _round(float(gap[k]) * size)}
    row |= {"proteins": count}
    names = {"density": "proteins_per_nm2", "nearest_nm": "protein_neighbour_nm"}
    return row | {names.get(name, name): _significant(value) for name, value in cluster.items()}


def _tenth(value: float | None) -> float | None:
    return None if value is None else 0.1 * value


def _median(values: np.ndarray, share: np.ndarray) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(share[order]), 0.5).clip(0, len(values) - 1)])


def _bending(one: Skin, share: np.ndarray, size: float) -> dict[str, Any]:
    """Means over the area of curvature, curvedness and shape index, and the bending energy, with the error bars of drawn surfaces."""
    mean, gauss = one.values["mean_curvature"], one.values["gaussian_curvature"]
    drawn = [
        np.column_stack([values, values[:, None] + one.drawn(name)])
        for values, name in ((mean, "mean_curvature"), (gauss, "gaussian_curvature"))
    ]
    h, k = (a.astype(np.float32) for a in drawn)
    curved, index = map_rows(_shape, h, k, smallest=4096)
    more = bucket_size(len(h), 4096) - len(h)
    found = {
        "mean_curvature": share @ drawn[0] / size,
        "curvedness": share @ curved / size,
        "shape_index": share @ index,
        "willmore": np.asarray(
            _willmore(np.pad(h, ((0, more), (0, 0))), np.pad(one.area.astype(np.float32), (0, more)))
        ),
    }
    row: dict[str, Any] = {}
    for name, values in found.items():
        unit = "_per_nm" if name in ("mean_curvature", "curvedness") else ""
        row |= {
            f"{name}{unit}": _significant(float(values[0])),
            f"{name}_sigma{unit}": _significant(float(values[1:].std())),
        }
    return row


def _angles(one: Skin, run: Finished) -> tuple[np.ndarray, np.ndarray]:
    """Angle of each vertex's normal to the beam and to the tilt axis, 0...90 degrees."""
    turn = np.radians(run.manifest["config"]["refine"]["tilt_axis"] or 0.0)
    axis = np.array([0.0, np.cos(turn), np.sin(turn)])
    beam = np.abs(one.normals[:, 0])
    return np.degrees(np.arccos(beam.clip(0, 1))), np.degrees(np.arccos(np.abs(one.normals @ axis).clip(0, 1)))


def vertex_values(
    one: Skin,
    thick: Thickness,
    across: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
    near: tuple[np.ndarray, np.ndarray],
    run: Finished,
) -> dict[str, np.ndarray]:
    """Values on the vertices of one membrane, nm; NaN where there is none. Arguments as for `membrane_row`."""
    size = run.voxel_size
    values = in_nm({name: one.values[name] * unit for name, unit in units(size).items()})
    h, k = (values[name].astype(np.float32) for name in ("mean_curvature", "gauss_curvature"))
    values["curvedness"], values["shape_index"] = map_rows(_shape, h, k, smallest=4096)
    values["angle_to_beam"], values["angle_to_tilt_axis"] = _angles(one, run)
    gap, number = near
    values["nearest_distance"] = np.where(np.isfinite(gap), 0.1 * size * gap, np.nan)
    values["nearest_membrane"] = number.astype(float)
    for name, given in (("thickness", thick.distance), ("thickness_sigma", thick.error)):
        values[name] = _from_places(one.vertices, thick.points, 0.1 * given)
    if across is not None:
        start, width, sigma = across
        for name, given in (("width", width), ("width_sigma", sigma)):
            values[name] = _from_places(one.vertices, one.vertices[start], 0.1 * size * given)
    return values


def _from_places(vertices: np.ndarray, places: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The value of the nearest place, if one is near."""
    out = np.full(len(vertices), np.nan)
    if len(places):
        gap, near = cKDTree(places).query(vertices, distance_upper_bound=_PLACE)
        found = np.isfinite(gap)
        out[found] = values[near[found]]
    return out


def pair_row(first: int, second: int, found: dict[str, Any], size: float) -> dict[str, Any]:
    """The row of two membranes.

    Arguments:
        first, second: numbers.
        found: of `pairs.pair_row`, voxels.
        size: of a voxel, nm.
    """
    lengths = ("closest", "closest_sigma", "gap", "gap_sigma", "gap_spread")
    areas = ("contact_area", "contact_area_other", "crossing_area")
    row: dict[str, Any] = {"first": first, "second": second, "relation": found["relation"]}
    row |= {f"{name}_nm": _round(found[name] * size) for name in lengths}
    row |= {f"{name}_nm2": _round(found[name] * size**2, 1) for name in areas}
    row |= {f"{name}_sigma_nm2": _round(found[f"{name}_sigma"] * size**2, 1) for name in areas[:2]}
    even = found["gap_spread"] < _SMOOTH_GAP * found["gap"]
    double = found["relation"] in ("inside", "around") and found["facing_share"] > _MOSTLY and even
    return row | {"facing_share": _round(found["facing_share"]), "double": int(double)}


def particle_rows(
    found: Particles, stand: Sequence[Foot], skin: Callable[[int], Skin], run: Finished
) -> list[dict[str, Any]]:
    """The rows of all particles.

    Arguments:
        found: particles.
        stand: where each stands.
        skin: gives a membrane by its number.
        run: of which they are a part.
    """
    size = run.voxel_size
    world = run.labels.to_world(found.centre)
    rows = []
    for i in range(len(world)):
        row: dict[str, Any] = {"particle": i + 1} | {f"{a}_A": _round(world[i, j], 1) for j, a in enumerate("xyz")}
        row["diameter_nm"] = _round(0.1 * size * (6.0 * found.volume[i] / np.pi) ** (1.0 / 3.0), 2)
        row["contrast"] = _round(found.contrast[i], 2)
        foot = stand[i]
        row["membrane"] = foot.membrane or ""
        if foot.membrane:
            one = skin(foot.membrane)
            side = (
                ("outside" if foot.distance > 0 else "inside")
                if one.closed
                else ("above" if foot.distance > 0 else "below")
            )
            row["side"] = "within" if abs(foot.distance) * size < EMBEDDED else side
            row |= {
                "distance_nm": _round(0.1 * size * foot.distance, 2),
                "distance_sigma_nm": _round(0.1 * size * foot.sigma, 2),
            }
            place, normal = run.labels.to_world(one.vertices[[foot.vertex]])[0], one.normals[foot.vertex][::-1]
            row |= {f"foot_{a}_A": _round(place[j], 1) for j, a in enumerate("xyz")}
            row |= {f"normal_{a}": _round(normal[j], 4) for j, a in enumerate("xyz")}
            row["normal_sigma_deg"] = _round(normal_error(one, foot.vertex), 1)
        rows.append(row)
    return rows
