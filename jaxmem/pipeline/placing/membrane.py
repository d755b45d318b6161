"""Points of one membrane, and where the density places them."""

import jax
import numpy as np
from scipy.spatial import cKDTree

from jaxmem.density import OFFSETS, SHIFTS, Placed, local_information, place, residual, whitening
from jaxmem.numerics import map_rows
from jaxmem.pipeline.keeping.pieces import Piece
from jaxmem.pipeline.placing.appearance import KINDS, Appearance, cube, cubes, sharpness, shown_of, white
from jaxmem.pipeline.placing.lying import STEEP
from jaxmem.pipeline.placing.outlines import Outlines
from jaxmem.points import evenly, first_of_each
from jaxmem.settings import RefineConfig
from jaxmem.surface.tiles import CORE, EDGE, MARGIN, Outline, patches, sampled

FEWEST = 12
"""Points that a surface is fitted to, at least."""

LEAST_SHARE = 0.01
"""Of what a patch tells, for the arithmetic."""

_SPREAD = 0.3  # of a membrane's contrast along it, over what it usually has
_CLEAR = 4.0  # log odds of the points from which that is learnt

_place = jax.jit(jax.vmap(place, (0, 0, 0, None, None)))
_residual = jax.jit(jax.vmap(residual))
_whitening = jax.jit(jax.vmap(whitening))
_information = jax.jit(jax.vmap(local_information, (0, None, None, None)))


def place_membrane(
    volume, outlines: Outlines, look: Appearance, config: RefineConfig, lying: list[bool], k: int
) -> Piece:
    """Points evenly spread over one membrane, and where the density places them; sums of what is left besides.

    Arguments:
        volume: the tomogram, not smoothed.
        outlines: of all membranes.
        look: what a membrane of this tomogram looks like.
        config: spacing and patches.
        lying: of which membranes only a sac's rim is seen.
        k: number of the membrane.
    """
    nothing = {"square": np.zeros((KINDS, look.samples, look.samples)), "count": np.zeros(KINDS)}
    own, lies = outlines.get(k), lying[k]
    if own is None:
        return nothing
    inside = np.flatnonzero(((own.vertices >= 0) & (own.vertices <= np.array(volume.shape) - 1)).all(1))
    if len(inside) < FEWEST:
        return nothing
    cells = len(first_of_each(np.floor(own.vertices[inside] / config.spacing).astype(int)))
    chosen = inside[evenly(own.vertices[inside], max(cells, FEWEST))]
    if lies:
        # of a sac only the rim is seen; what its edges smear along the beam is not its faces
        chosen = chosen[np.abs(own.normals[chosen, 0]) < STEEP]
        if len(chosen) < FEWEST:
            return nothing
    points, normals = own.vertices[chosen].astype(float), own.normals[chosen].astype(float)
    data, template = _profiles(volume, k, own, points, outlines, look, config)
    kind = look.kind(normals)
    noise = white(data, template) if look.noise is None else look.noise
    noise = noise.astype(np.float32)
    whiteners = np.asarray(_whitening(noise))[kind]
    first: Placed = map_rows(_place, data, template, whiteners, rest=(np.float32(1.0), np.float32(1.0)))
    clear = first.log_odds > _CLEAR
    usual = float(np.clip(np.median(first.amplitude[clear]), 0.2, 5.0)) if clear.any() else 1.0
    found: Placed = map_rows(_place, data, template, whiteners, rest=(np.float32(usual), np.float32(_SPREAD * usual)))
    left = map_rows(_residual, data, template, found).astype(float)
    share = map_rows(
        _information, normals.astype(np.float32), rest=(look.bilayer, np.float32(0.5 * config.patch), look.wedge)
    )
    # the template moves as a whole; a patch by itself tells less
    whole = usual * np.asarray(sharpness(noise, look.bilayer, look.samples))[kind]
    alone = 1.0 / (whole * np.sqrt(np.maximum(share, LEAST_SHARE)))
    return {
        "points": points, "normals": normals, "shift": found.shift.astype(float),
        "sigma": np.maximum(found.sigma, alone).astype(float), "log_odds": found.log_odds, "share": share,
        "square": np.stack([left[kind == j].T @ left[kind == j] for j in range(KINDS)]),
        "count": np.bincount(kind, minlength=KINDS).astype(float),
    }  # fmt: skip


def _profiles(
    volume, k: int, own: Outline, points: np.ndarray, outlines: Outlines, look: Appearance, config: RefineConfig
) -> tuple[np.ndarray, np.ndarray]:
    """(n, t) density along each point's normal without what other membranes show, and (n, s) what its own membrane would show."""
    data = np.zeros((len(points), look.samples), np.float32)
    template = np.zeros((len(points), look.template), np.float32)
    beyond = 4.0 * look.half
    for corner, mine in cubes(points):
        low, high = corner - beyond, corner + EDGE + beyond
        measured = cube(volume, corner)
        expected = np.asarray(shown_of(own.within(low, high), corner, look))
        others = outlines.others(k, low, high)
        if others is not None:
            measured = measured - np.asarray(shown_of(others, corner, look))
        core = own.within(corner + MARGIN - config.patch, corner + MARGIN + CORE + config.patch)
        weights = patches(core, cKDTree(core.vertices).query(points[mine])[1], config.patch)
        data[mine] = weights @ sampled(measured, core, corner, look.half, OFFSETS)
        template[mine] = weights @ sampled(expected, core, corner, look.half + look.reach, SHIFTS)
    return data, template
