"""Refinement stage: every point placed by the density about it, surfaces and points in turn."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from jaxmem.grouping import Midline, Region
from jaxmem.membrane import LEARN_ROWS
from jaxmem.pipeline.keeping.pieces import Piece
from jaxmem.pipeline.keeping.record import Run
from jaxmem.pipeline.placing.appearance import (
    Appearance,
    Residuals,
    first_look,
    some_of,
    with_bilayer,
)
from jaxmem.pipeline.placing.lying import lying_form
from jaxmem.pipeline.placing.membrane import FEWEST, LEAST_SHARE, place_membrane
from jaxmem.pipeline.placing.outlines import Outlines
from jaxmem.settings import Config, FitConfig, RefineConfig
from jaxmem.surface import Errors, Membrane, fit_each, outline
from jaxmem.surface.tiles import Outline
from jaxmem.types import Tomogram

_MOST = 2.0  # voxels; points that are known less well are left out
_ROWS = 256  # that a surface's amplitude is learnt from while it only says where to look; see docs/decisions.md
_MORE = 2  # rounds for tubes whose top and bottom were guessed


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
    # a guess of what is not seen moves farther than two rounds can follow
    late = [k for k, region in enumerate(regions) if region.blend is not None and region.blend.vaulted > 0]
    more = _MORE if late else 0
    done, names = 0, [""] * n
    with run.stage("refinement", 2 * (c.rounds * n + more * len(late))) as step:
        look = first_look(tomogram.data, tomogram.voxel_size, c, run)
        held: dict[str, Outline | None] = {}
        for r in range(c.rounds + more):
            again = range(n) if r < c.rounds else late
            for k in again:
                names[k] = run.name("refinement", 2 * r * n + k)
            outlines = Outlines(run, list(names), held)
            for k, o in _outlined(outlines, line, regions, placed, tomogram, config):
                outlines.put(k, o)
                step(done := done + 1)
            held = outlines.held
            if r < c.rounds:
                look = with_bilayer(tomogram.data, (outlines.get(k) for k in some_of(n)), look)
            residuals = Residuals(look.samples)
            place_one = partial(place_membrane, tomogram.data, outlines, look, c, lying)
            for k in again:
                found = _kept(run, run.name("refinement", (2 * r + 1) * n + k), partial(place_one, k))
                residuals.add(found.pop("square"), found.pop("count"))
                placed[k] = _points(found, c)
                step(done := done + 1)
            if r < c.rounds:
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
                place_one = partial(place_membrane, tomogram.data, outlines, look, c, refined.lying)
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
    for k, membrane in fits_of(line, regions, placed, config.fit, outlines.missing(), rows=_ROWS):
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
    *,
    rows: int = LEARN_ROWS,
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
            yield from fit_each(points, normals, shapes, closed, fit, which, given, rows=rows)


def _kept(run: Run, name: str, compute) -> Piece:
    """A piece of this stage, made if it is not there."""
    if run.pieces is None:
        return compute()
    piece = run.pieces.get(name)
    if piece is None:
        piece = compute()
        run.pieces.put(name, piece)
    return piece


def _points(found: Piece, config: RefineConfig) -> Points | None:
    """The points that are good enough, with the error that each has for being one of many."""
    if not found:
        return None
    good = (found["log_odds"] > config.least_odds) & (found["share"] > config.least_share) & (found["sigma"] < _MOST)
    if good.sum() < FEWEST:
        return None
    normals, share = found["normals"][good], np.maximum(found["share"][good], LEAST_SHARE)
    points = found["points"][good] + found["shift"][good, None] * normals
    # patches overlap: white noise in two of them is alike by exp(-d^2 / radius^2)
    tree = cKDTree(points)
    near = tree.sparse_distance_matrix(tree, 2.5 * config.patch, output_type="coo_matrix")
    alike = np.bincount(near.row, np.exp(-((near.data / config.patch) ** 2)), len(points))
    shared = np.hypot(config.common, config.slanted * np.sqrt(1.0 / share - 1.0))
    return Points(points, normals, found["sigma"][good] * np.sqrt(alike), shared, found["log_odds"][good])
