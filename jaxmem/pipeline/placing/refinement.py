"""Refinement stage: every point placed by the density about it, surfaces and points in turn."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from scipy.spatial import cKDTree

from jaxmem.density import OFFSETS, SHIFTS, Placed, local_information, place, residual, whitening
from jaxmem.grouping import Midline, Region
from jaxmem.numerics import map_rows
from jaxmem.pipeline.keeping.pieces import Piece
from jaxmem.pipeline.keeping.record import Run
from jaxmem.pipeline.placing.appearance import (
    KINDS,
    Appearance,
    Residuals,
    cube,
    cubes,
    first_look,
    sharpness,
    shown_of,
    some_of,
    white,
    with_bilayer,
)
from jaxmem.pipeline.placing.lying import STEEP, lying_form
from jaxmem.pipeline.placing.outlines import Outlines
from jaxmem.points import evenly, first_of_each
from jaxmem.settings import Config, FitConfig, RefineConfig
from jaxmem.surface import Errors, Membrane, fit_each, outline
from jaxmem.surface.tiles import CORE, EDGE, MARGIN, Outline, patches, sampled
from jaxmem.types import Tomogram

_FEWEST = 12  # points that a surface is fitted to
_SPREAD = 0.3  # of a membrane's contrast along it, over what it usually has
_CLEAR = 4.0  # log odds of the points from which that is learnt
_MOST = 2.0  # voxels; points that are known less well are left out
_LEAST_SHARE = 0.01  # of what a patch tells, for the arithmetic


class Points(NamedTuple):
    """Points of a membrane as the density has placed them.

    Attributes:
        points, normals: (n, 3) voxels.
        sigma: (n,) standard deviation along the normal, voxels; such that the points count as independent.
        shared: (n,) of what neighbours have in common besides.
        log_odds: (n,) of a membrane against none.
    """

    points: np.ndarray
    normals: np.ndarray
    sigma: np.ndarray
    shared: np.ndarray
    log_odds: np.ndarray


class Refined(NamedTuple):
    """What the refinement found.

    Attributes:
        placed: points of each membrane; None for one that keeps the points it had.
        regions: the membranes, with another form where only a sac's rim is seen.
        config: the settings, with tilts that were left to the spectrum.
        lying: of which membranes only a sac's rim is seen.
        look: what a membrane of this tomogram looks like; None if nothing was refined.
        outlines: the surfaces of the last round.
    """

    placed: list[Points | None]
    regions: list[Region]
    config: Config
    lying: list[bool]
    look: Appearance | None = None
    outlines: Outlines | None = None


def refine(tomogram: Tomogram, line: Midline, regions: list[Region], config: Config, run: Run) -> Refined:
    """Points on each membrane as the tomogram places them.

    A round fits a surface to each membrane's points, and learns from what is seen whole what a membrane looks like across. It computes
    what the tomogram would show of all these surfaces, less what the missing wedge hides, and compares that with what it does show,
    along the normal of each point: the shift that fits best is where the membrane is.

    Arguments:
        tomogram: as it is, not smoothed.
        line, regions: what surfaces are fitted to at first.
        config: `refine` and `fit`.
        run: told what was found; keeps what is finished.
    """
    c, n = config.refine, len(regions)
    placed: list[Points | None] = [None] * n
    if n == 0 or c.rounds == 0:
        return Refined(placed, regions, config, [False] * n)
    formed = [lying_form(line, region, run) for region in regions]
    lying = [one is not other for one, other in zip(formed, regions)]
    regions = formed
    with run.stage("refinement", 2 * c.rounds * n) as step:
        look = first_look(tomogram.data, tomogram.voxel_size, c, run)
        for r in range(c.rounds):
            done = 2 * r * n
            outlines = Outlines(run, [run.name("refinement", done + k) for k in range(n)])
            for k, o in _outlined(outlines, line, regions, placed, tomogram, config):
                outlines.put(k, o)
                step(done + k)
            look = with_bilayer(tomogram.data, (outlines.get(k) for k in some_of(n)), look)
            residuals = Residuals(look.samples)
            place_one = partial(_membrane, tomogram.data, outlines, look, c, lying)
            for k in range(n):
                found = _kept(run, run.name("refinement", done + n + k), partial(place_one, k))
                residuals.add(found.pop("square"), found.pop("count"))
                placed[k] = _points(found, c)
                step(done + n + k)
            look = look._replace(noise=residuals.covariance())
    many = sum(p is not None for p in placed)
    run.decide(f"the tomogram places the points of {many} of {n} membranes")
    low, high, axis = (round(float(angle), 2) for angle in look.wedge)
    config = replace(config, refine=replace(c, tilt_low=low, tilt_high=high, tilt_axis=axis))
    return Refined(placed, regions, config, lying, look, outlines)


def refine_some(
    tomogram: Tomogram, line: Midline, refined: Refined, earlier: list[int | None], more: list[Points | None], run: Run
) -> list[Points | None]:
    """The same for some membranes, where all others stand.

    Arguments:
        tomogram: as it is, not smoothed.
        line: the midline.
        refined: what stands, but with the membranes, their points and their settings as they are to be; look and outlines are of those
            before.
        earlier: of each membrane, its place among those before, or None for one that is to be placed.
        more: points that each membrane has besides, which nothing moves.
        run: keeps what is finished.

    Returns:
        The points of all.
    """
    placed, regions, config = list(refined.placed), refined.regions, refined.config
    look, before, c = refined.look, refined.outlines, refined.config.refine
    new = [k for k, e in enumerate(earlier) if e is None]
    if look is not None and before is not None:
        with run.stage("edits", 2 * c.rounds * len(new)) as step:
            for r in range(c.rounds):
                done = 2 * r * len(regions)
                names = [run.name("edits", done + k) if e is None else before.names[e] for k, e in enumerate(earlier)]
                outlines = Outlines(run, names, before.held)
                for k, o in _outlined(outlines, line, regions, placed, tomogram, config):
                    outlines.put(k, o)
                place_one = partial(_membrane, tomogram.data, outlines, look, c, refined.lying)
                for i, k in enumerate(new):
                    found = _kept(run, run.name("edits", done + len(regions) + k), partial(place_one, k))
                    placed[k] = joined(_points(found, c), more[k])
                    step((2 * r + 1) * len(new) + i)
    return placed


def _outlined(
    outlines: Outlines,
    line: Midline,
    regions: list[Region],
    placed: list[Points | None],
    tomogram: Tomogram,
    config: Config,
) -> Iterator[tuple[int, Outline | None]]:
    """The surfaces that are not there yet, one after another."""
    for k, membrane in fits_of(line, regions, placed, config.fit, outlines.missing()):
        yield k, None if membrane is None else outline(membrane, tomogram.data.shape, config.fit)


def joined(first: Points | None, second: Points | None) -> Points | None:
    """Points of both."""
    if first is None or second is None:
        return second if first is None else first
    return Points(*(np.concatenate(pair) for pair in zip(first, second)))


def fits_of(
    line: Midline,
    regions: list[Region],
    placed: Sequence[Points | None],
    config: FitConfig,
    wanted: Sequence[int],
) -> Iterator[tuple[int, Membrane | None]]:
    """Membranes fitted to their points, those that were not placed by the density first; see `fit_each`."""
    shapes, closed = [r.form for r in regions], [r.closed for r in regions]
    points = [line.points[r.members] if p is None else p.points for r, p in zip(regions, placed)]
    normals = [line.normals[r.members] if p is None else p.normals for r, p in zip(regions, placed)]
    errors = [Errors(np.zeros(0), np.zeros(0)) if p is None else Errors(p.sigma, p.shared) for p in placed]
    # the points' errors are known, and what they share is known apart
    settings = replace(config, inflation=1.0, bars=1.0)
    for fit, given, which in (
        (config, None, [k for k in wanted if placed[k] is None]),
        (settings, errors, [k for k in wanted if placed[k] is not None]),
    ):
        if which:
            yield from fit_each(points, normals, shapes, closed, fit, which, given)


def _kept(run: Run, name: str, compute) -> Piece:
    """A piece of this stage, made if it is not there."""
    if run.pieces is None:
        return compute()
    piece = run.pieces.get(name)
    if piece is None:
        piece = compute()
        run.pieces.put(name, piece)
    return piece


_place = jax.jit(jax.vmap(place, (0, 0, 0, None, None)))
_residual = jax.jit(jax.vmap(residual))
_whitening = jax.jit(jax.vmap(whitening))
_information = jax.jit(jax.vmap(local_information, (0, None, None, None)))


def _points(found: Piece, config: RefineConfig) -> Points | None:
    """The points that are good enough, with the error that each has for being one of many."""
    if not found:
        return None
    good = (found["log_odds"] > config.least_odds) & (found["share"] > config.least_share) & (found["sigma"] < _MOST)
    if good.sum() < _FEWEST:
        return None
    normals, share = found["normals"][good], np.maximum(found["share"][good], _LEAST_SHARE)
    points = found["points"][good] + found["shift"][good, None] * normals
    # patches overlap: white noise in two of them is alike by exp(-d^2 / radius^2)
    tree = cKDTree(points)
    near = tree.sparse_distance_matrix(tree, 2.5 * config.patch, output_type="coo_matrix")
    alike = np.bincount(near.row, np.exp(-((near.data / config.patch) ** 2)), len(points))
    shared = np.hypot(config.common, config.slanted * np.sqrt(1.0 / share - 1.0))
    return Points(points, normals, found["sigma"][good] * np.sqrt(alike), shared, found["log_odds"][good])


def _membrane(volume, outlines: Outlines, look: Appearance, config: RefineConfig, lying: list[bool], k: int) -> Piece:
    """Points evenly spread over one membrane, and where the density places them; sums of what is left besides."""
    nothing = {"square": np.zeros((KINDS, look.samples, look.samples)), "count": np.zeros(KINDS)}
    own, lies = outlines.get(k), lying[k]
    if own is None:
        return nothing
    inside = np.flatnonzero(((own.vertices >= 0) & (own.vertices <= np.array(volume.shape) - 1)).all(1))
    if len(inside) < _FEWEST:
        return nothing
    cells = len(first_of_each(np.floor(own.vertices[inside] / config.spacing).astype(int)))
    chosen = inside[evenly(own.vertices[inside], max(cells, _FEWEST))]
    if lies:
        # of a sac only the rim is seen; what its edges smear along the beam is not its faces
        chosen = chosen[np.abs(own.normals[chosen, 0]) < STEEP]
        if len(chosen) < _FEWEST:
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
    alone = 1.0 / (whole * np.sqrt(np.maximum(share, _LEAST_SHARE)))
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
