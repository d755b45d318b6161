"""Thickness of all membranes of a run: profiles along their normals, the tomogram's transfer, and the leaflets' distance at each place."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import cKDTree

from jaxmem.density import OFFSETS, learn_bilayer, whitening
from jaxmem.measure import Transfer, changes, leaflets, learn_transfer
from jaxmem.numerics import map_rows
from jaxmem.pipeline.placing.appearance import KINDS, Appearance, cube, cubes, shown_of, some_of, with_bilayer
from jaxmem.points import first_of_each
from jaxmem.surface.tiles import Outline, patches, sampled

_UPRIGHT = 15.0  # degrees within the tilts at which a membrane is seen whole
_ENOUGH = 75  # places from which a transfer is learnt
_FEWEST = 12  # places of a membrane from which its thickness is told
_CELL = 4.0  # voxels between places
_STARTS = np.arange(20.0, 61.0, 5.0)  # A; from which the mean distance is sought
# A; distances that are asked about at each place, and of a membrane in half the steps
_ASKED = np.arange(16.0, 64.5, 1.0)
_SENSIBLE = (20.0, 60.0)  # A
_UNLIKE = 0.05  # share of the mean profile that two leaflets may leave
_COARSEST = 26.0  # A; a voxel, beyond which two leaflets are one band whatever the tomogram
_BLOCK = 20.0  # voxels; edge of blocks that hardly share noise
_FEWER = 0.15  # least variance of their means over that of white noise
_CLEAR = 3.0  # log odds of two leaflets against one band, from which a thickness is reported
_MOST = 2.0  # A; a membrane's thickness that is known less well is not reported
_COMMON = 0.2  # A; that all membranes of a tomogram may be off by: how well the transfer is known


class Places(NamedTuple):
    """Places of one membrane at which its profile is read.

    Attributes:
        points: (k, 3) voxels.
        kind: (k,) of the noise, see `Appearance.kind`.
        alike: (k,) of how many places each one's noise is shared.
        profiles: (k, t) density along the normals, averaged over patches.
        share: of the membrane's area that is read.
    """

    points: np.ndarray
    kind: np.ndarray
    alike: np.ndarray
    profiles: np.ndarray
    share: float


class Thickness(NamedTuple):
    """The leaflets' distance of one membrane, A.

    Attributes:
        mean, sigma: of the membrane; None where it cannot be told.
        log_odds: of two leaflets against one band; None if nothing was read.
        share: of the area that is seen well enough.
        points: (k, 3) where it was read, voxels.
        distance, error: (k,) there.
    """

    mean: float | None
    sigma: float | None
    log_odds: float | None
    share: float
    points: np.ndarray
    distance: np.ndarray
    error: np.ndarray


NOT_READ = Thickness(None, None, None, 0.0, np.zeros((0, 3)), np.zeros(0), np.zeros(0))
"""Of a membrane that is nowhere seen well enough."""

_batched = jax.jit(jax.vmap(leaflets, (0, None, None, None, 0, None)))
_single = jax.jit(leaflets)
_changes = jax.jit(changes)
_whitening = jax.jit(jax.vmap(whitening))


def thicknesses(
    volume: Any,
    outlines: Sequence[Outline],
    look: Appearance,
    voxel_size: float,
    patch: float,
    step: Callable[[int], None] = lambda _: None,
) -> tuple[list[Thickness], str | None]:
    """Thickness of each membrane, and why there is none if the tomogram does not tell.

    Arguments:
        volume: (nz, ny, nx), indexed like an array; membranes dark.
        outlines: of the membranes.
        look: tilts, and how far along the normals the density counts.
        voxel_size: A.
        patch: radius over which profiles are averaged along the surface, voxels.
        step: told how many membranes are done.
    """
    nothing = [NOT_READ] * len(outlines)
    if voxel_size > _COARSEST:
        return nothing, f"voxels of {voxel_size:.0f} A do not tell a bilayer's leaflets apart"
    look = with_bilayer(volume, (outlines[k] for k in some_of(len(outlines))), look)
    boxes = np.stack(
        [[o.vertices.min(0), o.vertices.max(0)] if len(o.vertices) else np.full((2, 3), np.nan) for o in outlines]
    )
    offsets, span = _offsets(look.half), look.half + 1.0
    total, many, read = np.zeros(len(_offsets(span))), 0, []
    for k in range(len(outlines)):
        places, mean = _read(volume, outlines, boxes, k, look, span, patch)
        read.append(places)
        if places is not None:
            total, many = total + mean * len(places.points), many + len(places.points)
        step(k)
    if many < _ENOUGH:
        return nothing, f"{many} places are seen well enough; that is too few"
    mean = (total / many).astype(np.float32)
    middle = float(learn_bilayer(jnp.asarray(mean), jnp.asarray(_offsets(span), jnp.float32), look.half)[1])
    even = 0.5 * sum(np.interp(sign * offsets + middle, _offsets(span), mean) for sign in (1, -1))
    with jax.enable_x64(True):
        found = learn_transfer(jnp.asarray(even), jnp.asarray(offsets), jnp.asarray(_STARTS / voxel_size))
    transfer, distance, left = jax.tree.map(lambda a: np.asarray(a, np.float32), found)
    usual = float(distance) * voxel_size
    if not _SENSIBLE[0] < usual < _SENSIBLE[1] or left > _UNLIKE:
        return (
            nothing,
            f"the mean profile is not that of two leaflets ({usual:.0f} A apart; they leave {100 * float(left):.1f} % of it)",
        )
    return _measured(read, transfer, float(distance), voxel_size, offsets), None


def _offsets(reach: float) -> np.ndarray:
    many = round(reach / OFFSETS)
    return OFFSETS * np.arange(-many, many + 1)


def _read(
    volume: Any, outlines: Sequence[Outline], boxes: np.ndarray, k: int, look: Appearance, span: float, patch: float
) -> tuple[Places | None, np.ndarray]:
    """Profiles of one membrane, and their mean over a range a little longer."""
    own = outlines[k]
    empty = None, np.zeros(0)
    if not len(own.vertices):
        return empty
    tilt = look.tilt(own.normals)
    good = (tilt > look.wedge.low + _UPRIGHT) & (tilt < look.wedge.high - _UPRIGHT)
    good &= ((own.vertices > span) & (own.vertices < np.array(volume.shape) - 1 - span)).all(1)
    if good.sum() < _FEWEST:
        return empty
    points, kinds, rows = [], [], []
    for corner, mine in cubes(own.vertices):
        chosen = np.flatnonzero(good & mine)
        if not len(chosen):
            continue
        low, high = own.vertices[chosen].min(0) - patch - span, own.vertices[chosen].max(0) + patch + span
        chosen = chosen[first_of_each(np.floor(own.vertices[chosen] / _CELL).astype(int))]
        measured = cube(volume, corner)
        near = np.flatnonzero((boxes[:, 1] >= low).all(1) & (boxes[:, 0] < high).all(1))
        others = [outlines[j].within(low, high) for j in near.tolist() if j != k]
        others = [o for o in others if len(o.vertices)]
        if others:
            both = Outline(*(np.concatenate(a) for a in zip(*others)))
            measured = measured - np.asarray(shown_of(both, corner, look))
        core = own.within(low, high)
        weights = patches(core, cKDTree(core.vertices).query(own.vertices[chosen])[1], patch)
        rows.append(weights @ sampled(measured, core, corner, span, OFFSETS))
        points.append(own.vertices[chosen])
        kinds.append(look.kind(own.normals[chosen]))
    where, data = np.concatenate(points), np.concatenate(rows)
    tree = cKDTree(where)
    near = tree.sparse_distance_matrix(tree, 2.5 * patch, output_type="coo_matrix")
    alike = np.bincount(near.row, np.exp(-((near.data / patch) ** 2)), len(where))
    cut = round((span - look.half) / OFFSETS)
    places = Places(where, np.concatenate(kinds), alike, data[:, cut:-cut].astype(np.float32), float(good.mean()))
    return places, data.mean(0)


def _measured(
    read: list[Places | None], transfer: Transfer, usual: float, voxel_size: float, offsets: np.ndarray
) -> list[Thickness]:
    """From profiles to distances, twice: what is left over the first time tells the noise."""
    along = offsets.astype(np.float32)
    asked = (_ASKED / voxel_size).astype(np.float32)
    finer = np.linspace(asked[0], asked[-1], 2 * len(asked) - 1, dtype=np.float32)
    own = [usual] * len(read)
    means: list[Any] = []
    noise = np.zeros(0)
    for _ in range(2):
        noise, fewer = _noise(read, own, transfer, along)
        means = []
        for k, places in enumerate(read):
            if places is None or len(places.points) < _FEWEST:
                means.append(None)
                continue
            many = len(places.points) / (fewer * places.alike.mean())
            mixed = np.tensordot(np.bincount(places.kind, minlength=KINDS) / len(places.points), noise, 1) / many
            w = np.asarray(_whitening(mixed[None].astype(np.float32)))[0]
            found = jax.tree.map(
                np.asarray, _single(places.profiles.mean(0), along, finer, transfer, w, np.float32(1.0))
            )
            means.append(found)
            own[k] = float(found.distance)
    whiteners = np.asarray(_whitening(noise.astype(np.float32)))
    out = []
    for places, mean in zip(read, means):
        if places is None or mean is None:
            out.append(NOT_READ)
            continue
        each = map_rows(
            lambda p, w: _batched(p, along, asked, transfer, w, np.float32(1.0)),
            places.profiles,
            whiteners[places.kind],
        )
        sigma = float(np.hypot(mean.sigma * voxel_size, _COMMON))
        clear = float(mean.log_odds) > _CLEAR and sigma < _MOST
        out.append(
            Thickness(
                float(mean.distance) * voxel_size if clear else None,
                sigma if clear else None,
                float(mean.log_odds), places.share, places.points,
                each.distance * voxel_size, each.sigma * voxel_size,
            )
        )  # fmt: skip
    return out


def _noise(
    read: list[Places | None], own: list[float], transfer: Transfer, along: np.ndarray
) -> tuple[np.ndarray, float]:
    """What a pair of leaflets, shifted and blurred, leaves of the profiles.

    Returns:
        Its covariance for each kind of noise, and by how much the variance of means over many places is less than that of white noise
        in the tomogram would be: what a reconstruction's filter takes of long waves.
    """
    t = len(along)
    square, count = np.zeros((KINDS, t, t)), np.zeros(KINDS)
    spread, expected = 0.0, 0.0
    for places, distance in zip(read, own):
        if places is None:
            continue
        known = np.asarray(_changes(along, np.float32(distance), transfer), float)
        basis = np.linalg.qr(np.column_stack([known, np.ones(t), along]))[0]
        left = places.profiles - (places.profiles @ basis) @ basis.T
        for kind in range(KINDS):
            some = left[places.kind == kind]
            square[kind] += some.T @ some
            count[kind] += len(some)
        # means over blocks that hardly share noise
        block = np.unique(np.floor(places.points / _BLOCK).astype(int), axis=0, return_inverse=True)[1].ravel()
        many = np.bincount(block)
        means = np.stack([np.bincount(block, column) for column in left.T], 1) / many[:, None]
        full = many >= 0.5 * many.max()
        spread += float((means[full] ** 2).sum())
        variance = float((left**2).sum(1).mean())
        expected += float((variance * np.minimum(np.bincount(block, places.alike) / many, many) / many)[full].sum())
    whole = square.sum(0) / max(count.sum(), 1)
    free = t / (t - basis.shape[1])
    covariance = np.stack([free * (s / c if c >= 3 * t else whole) for s, c in zip(square, count)])
    return covariance, float(np.clip(spread / max(expected, 1e-30), _FEWER, 1.0))
