"""Edits on membranes: which points each has then, whether it closes, and where the tomogram places what has changed."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from jaxmem.defaults import known
from jaxmem.grouping import Midline, describe
from jaxmem.grouping.shape import directions
from jaxmem.pipeline.editing.edits import Edit, EditError, Name, Place
from jaxmem.pipeline.editing.forming import as_placed, formed, nearest_along
from jaxmem.pipeline.keeping.record import Run
from jaxmem.pipeline.placing.lying import lying_form
from jaxmem.pipeline.placing.refinement import Points, Refined, joined, refine_some
from jaxmem.pipeline.volume import is_flat
from jaxmem.points import evenly
from jaxmem.types import Tomogram

_CLOUD = 4096  # vertices by which a place finds its membrane
_REACH = 100.0  # A; a place is on a membrane that is no farther away
_LINK = 3.0  # voxels; midline points are neighbours within it


class Edited(NamedTuple):
    """Membranes after all edits.

    Attributes:
        refined: membranes, their points and their settings.
        earlier: of each, its place among those before; None where something has changed.
    """

    refined: Refined
    earlier: list[int | None]


class _One:
    """A membrane on its way.

    Attributes:
        members: indices into the midline.
        cloud: (n, d) places on it, voxels.
        numbers: by which it is called.
        placed: points as far as they are known.
        added: those given by the user.
        closed: whether it is to close; decided when None.
        base: its place among those before; None if it has changed.
    """

    def __init__(self, members, cloud, numbers, placed, base=None):
        self.members, self.cloud, self.numbers, self.placed, self.base = members, cloud, numbers, placed, base
        self.added: Points | None = None
        self.closed: bool | None = None

    def changed(self) -> "_One":
        self.base = None
        return self


def apply_edits(
    edits: Sequence[Edit],
    line: Midline,
    refined: Refined,
    surfaces: Iterable[np.ndarray | None],
    tomogram: Tomogram,
    density: Tomogram | None,
    run: Run,
) -> Edited:
    """Make edits one after another. What they do not name stays as it is, bit for bit; the rest is placed by the tomogram again.

    Arguments:
        edits: of the user.
        line: the midline.
        refined: the membranes without edits.
        surfaces: (n, d) vertices of their surfaces, voxels, in the same order; a membrane is called by its number among those that have one.
        tomogram: the size of a voxel and the place of the first.
        density: in which points are placed, if there is one.
        run: told what was done; `run.groups` holds the regions that were dropped.

    Raises:
        EditError: if an edit names what is not there.
    """
    desk = _Desk(line, refined, surfaces, tomogram, run)
    for number, edit in enumerate(edits, 1):
        try:
            desk.make(edit)
        except EditError as error:
            raise EditError(f"edit {number} ({edit}): {error}") from None
        run.decide(f"edit {number}: {edit}")
    return desk.result(density)


class _Desk:
    def __init__(
        self, line: Midline, refined: Refined, surfaces: Iterable[np.ndarray | None], tomogram: Tomogram, run: Run
    ):
        self.line, self.refined, self.tomogram, self.run = line, refined, tomogram, run
        self.flat = is_flat(tomogram.data.shape)
        self.shape = tomogram.data.shape[1:] if self.flat else tomogram.data.shape
        self.all: list[_One] = []
        self.count = 0
        for k, (region, placed, vertices) in enumerate(zip(refined.regions, refined.placed, surfaces)):
            cloud, numbers = line.points[region.members], set()
            if vertices is not None:
                self.count += 1
                cloud, numbers = vertices[evenly(vertices, _CLOUD)], {self.count}
            self.all.append(_One(region.members, cloud, numbers, placed, k))

    def voxels(self, places: Iterable[Place]) -> np.ndarray:
        """Places in voxels; without the beam's axis in a single slice."""
        found = self.tomogram.to_voxels(np.array(list(places), float).reshape(-1, 3))
        return found[:, 1:] if self.flat else found

    def called(self, name: Name) -> _One:
        """The membrane of a number, or the one nearest to a place."""
        if isinstance(name, int):
            found = [one for one in self.all if name in one.numbers]
            if len(found) == 1:
                return found[0]
            if found:
                raise EditError(f"membrane {name} was split; say which part by a place [x, y, z] on it")
            if 1 <= name <= self.count:
                raise EditError(f"membrane {name} was dropped before")
            raise EditError(f"there is no membrane {name}; the run without edits has {self.count}")
        place = self.voxels([name])
        away = [float(cKDTree(one.cloud).query(place)[0][0]) for one in self.all]
        nearest = int(np.argmin(away)) if away else -1
        if nearest < 0 or away[nearest] * self.tomogram.voxel_size > _REACH:
            raise EditError(f"no membrane lies within {_REACH:g} A of {list(name)}; places are x, y, z in A")
        return self.all[nearest]

    def make(self, edit: Edit) -> None:
        """One edit."""
        if edit.verb == "keep":
            self.keep(edit)
            return
        named = [self.called(name) for name in edit.membranes]
        if edit.verb == "drop":
            self.all.remove(named[0])
        elif edit.verb == "join":
            self.join(named, edit.closed)
        elif edit.verb == "split":
            self.split(named[0], edit)
        elif edit.verb == "add":
            self.add(named[0], edit)
        else:
            named[0].changed().closed = edit.verb == "close"

    def join(self, named: list[_One], closed: bool | None) -> None:
        first, *others = named
        for other in others:
            if other not in self.all or other is first:
                raise EditError("two of these are the same membrane")
            self.all.remove(other)
            first.members = np.sort(np.concatenate([first.members, other.members]))
            first.cloud = np.concatenate([first.cloud, other.cloud])
            first.numbers = first.numbers | other.numbers
            both = first.placed is not None and other.placed is not None
            first.placed = joined(first.placed, other.placed) if both else None
            first.added = joined(first.added, other.added)
        first.changed().closed = closed

    def split(self, one: _One, edit: Edit) -> None:
        own = self.line.points[one.members]
        seeds = self.voxels(edit.points)
        if edit.normal is not None:
            normal = np.array(edit.normal[::-1])[-own.shape[1] :]
            part = ((own - seeds[0]) @ normal > 0).astype(int)
        else:
            part = nearest_along(own, seeds)
        tree = cKDTree(own)

        def of(points: np.ndarray) -> np.ndarray:
            return part[tree.query(points)[1]]

        pieces = []
        for k in range(max(2, len(seeds))):
            members = one.members[part == k]
            self.enough(members, "part")
            cloud = one.cloud[of(one.cloud) == k]
            new = _One(members, np.concatenate([cloud, own[part == k]]), set(one.numbers), None)
            new.closed = edit.closed
            for name in ("placed", "added"):
                points = getattr(one, name)
                if points is not None:
                    mine = of(points.points) == k
                    setattr(new, name, Points(*(a[mine] for a in points)) if mine.any() else None)
            pieces.append(new)
        at = self.all.index(one)
        self.all[at : at + 1] = pieces[:1]
        self.all += pieces[1:]

    def keep(self, edit: Edit) -> None:
        place = self.voxels([edit.membranes[0]])  # type: ignore[list-item]
        free = self.line.weight > known(self.refined.config.midline.threshold)
        for one in self.all:
            free[one.members] = False
        index = np.flatnonzero(free)
        points = self.line.points[index]
        away, nearest = cKDTree(points).query(place) if len(index) else (np.array([np.inf]), np.array([0]))
        if away[0] * self.tomogram.voxel_size > _REACH:
            raise EditError(
                f"nothing that was dropped lies within {_REACH:g} A of {list(edit.membranes[0])}; the report says where regions were dropped"  # type: ignore[arg-type]
            )
        region = self.run.groups.region[cKDTree(self.run.groups.points).query(points)[1]]
        alike = np.flatnonzero(region == region[nearest[0]])
        pairs = cKDTree(points[alike]).query_pairs(_LINK, output_type="ndarray")
        graph = coo_matrix((np.ones(len(pairs)), pairs.T), (len(alike),) * 2)
        piece = connected_components(graph, directed=False)[1]
        members = index[alike[piece == piece[np.searchsorted(alike, nearest[0])]]]
        self.enough(members, "region")
        new = _One(members, self.line.points[members], set(), None)
        new.closed = edit.closed
        self.all.append(new)

    def add(self, one: _One, edit: Edit) -> None:
        points = self.voxels(edit.points)
        shape = describe(self.line.points[one.members], self.line.normals[one.members], self.shape)
        nearest = self.line.normals[one.members][cKDTree(self.line.points[one.members]).query(points)[1]]
        closed = one.base is not None and self.refined.regions[one.base].closed
        normals = directions(shape.ellipse, points) if closed else nearest
        n = len(points)
        new = Points(
            points, normals, np.full(n, edit.sigma / self.tomogram.voxel_size), np.zeros(n), np.full(n, np.inf)
        )
        one.added = joined(one.added, new)
        if one.closed is None and one.base is not None:
            one.closed = self.refined.regions[one.base].closed
        one.changed()

    def enough(self, members: np.ndarray, what: str) -> None:
        """Refuse what no surface can be fitted to."""
        least = 4 * len(self.shape) + 1
        if len(members) < least:
            raise EditError(f"a {what} of {len(members)} points is too small for a surface; choose another place")

    def result(self, density: Tomogram | None) -> Edited:
        """Membranes after all edits, placed by the tomogram."""
        config = self.refined.config
        regions, lying = [], []
        for one in self.all:
            if one.base is not None:
                regions.append(self.refined.regions[one.base])
                lying.append(self.refined.lying[one.base])
                continue
            region = formed(self.line, one.members, one.closed, self.shape, config)
            other = lying_form(self.line, region, self.run) if self.refined.look is not None else region
            regions.append(other)
            lying.append(other is not region)
        placed = [one.placed for one in self.all]
        for k, one in enumerate(self.all):
            if one.base is None and one.added is not None:
                placed[k] = joined(placed[k] or as_placed(self.line, one.members, config), one.added)
        earlier = [one.base for one in self.all]
        refined = self.refined._replace(placed=placed, regions=regions, lying=lying)
        if density is not None and refined.look is not None:
            added = [one.added for one in self.all]
            refined = refined._replace(placed=refine_some(density, self.line, refined, earlier, added, self.run))
        return Edited(refined, earlier)
