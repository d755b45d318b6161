"""What a user wants changed, and the TOML file that says it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from jaxmem.pipeline.config import read_toml
from jaxmem.types import JaxmemError

Place: TypeAlias = tuple[float, float, float]
"""xyz in A, as viewers show it."""

Name: TypeAlias = int | Place
"""A membrane: its number in the run without edits, or a place on it."""

_EXTRAS = {
    "join": {"closed"},
    "split": {"at", "plane", "closed"},
    "drop": set(),
    "keep": {"closed"},
    "close": set(),
    "open": set(),
    "add": {"points", "sigma"},
}


class EditError(JaxmemError):
    """An edit that cannot be made: which, why, and the remedy."""


@dataclass(frozen=True)
class Edit:
    """One change. Edits are made one after another.

    Attributes:
        verb: `join`, `split`, `drop`, `close`, `open`: membranes that were found; `keep`: points that were dropped become a membrane; `add`:
            points are given to a membrane.
        membranes: numbers in the run without edits, or places (xyz, A) that lie on them. Two or more are joined; of `keep` a place near
            the points that were dropped.
        points: of `split` a place in each part, or one on the plane; of `add` the new points.
        normal: of the plane that splits.
        sigma: standard deviation of added points, A.
        closed: whether the outcome is to be closed or open; decided from its points when None.

    Raises:
        EditError: if these do not go together.

    Example:
        >>> Edit("join", (3, 7), closed=True).membranes
        (3, 7)
    """

    verb: str
    membranes: tuple[Name, ...]
    points: tuple[Place, ...] = ()
    normal: Place | None = None
    sigma: float = 10.0
    closed: bool | None = None

    def __post_init__(self) -> None:
        if self.verb not in _EXTRAS:
            raise EditError(f"'{self.verb}' is no edit; known: {', '.join(_EXTRAS)}")
        many = len(self.membranes)
        if self.verb == "join" and many < 2:
            raise EditError("join needs two membranes or more: join = [3, 7]")
        if self.verb != "join" and many != 1:
            raise EditError(f"{self.verb} needs one membrane, got {many}")
        if self.verb == "keep" and isinstance(self.membranes[0], int):
            raise EditError("keep needs a place: keep = [x, y, z] in A, on what was dropped")
        if self.verb == "split" and len(self.points) < (1 if self.normal else 2):
            raise EditError(
                "split needs a plane = {point = ..., normal = ...}, or at = two places or more, one in each part"
            )
        if self.normal is not None and not math.hypot(*self.normal) > 0:
            raise EditError("the plane's normal has no length")
        if self.verb == "add" and not self.points:
            raise EditError("add needs points = [[x, y, z], ...] in A")
        if not 0 < self.sigma < math.inf:
            raise EditError(f"sigma must be a positive length in A, got {self.sigma:g}")

    def __str__(self) -> str:
        names = [str(m) if isinstance(m, int) else "[" + ", ".join(f"{x:g}" for x in m) + "]" for m in self.membranes]
        return f"{self.verb} {', '.join(names)}"


def read_edits(path: str | Path) -> list[Edit]:
    """Read a TOML file of edits.

    Arguments:
        path: the file: `[[edit]]` tables with one verb each.

    Raises:
        JaxmemError: if it is missing, not TOML, or an edit makes no sense.

    Example of a file::

        [[edit]]
        join = [3, 7]

        [[edit]]
        split = 4
        at = [[812.0, 440.0, 600.0], [930.0, 455.0, 610.0]]
    """
    table = read_toml(path)
    entries = table.pop("edit", [])
    if table or not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise JaxmemError(f"{path}: expected [[edit]] tables and nothing else")
    found = []
    for number, entry in enumerate(entries, 1):
        try:
            found.append(_parsed(entry))
        except EditError as error:
            raise JaxmemError(f"{path}: edit {number}: {error}") from None
    return found


def write_edits(path: str | Path, edits: Sequence[Edit]) -> None:
    """Write what `read_edits` reads.

    Arguments:
        path: the file.
        edits: in their order.

    Raises:
        JaxmemError: if it cannot be written.
    """
    lines = []
    for edit in edits:
        names = [_toml(m) for m in edit.membranes]
        lines += ["[[edit]]", f"{edit.verb} = " + (f"[{', '.join(names)}]" if edit.verb == "join" else names[0])]
        if edit.normal is not None:
            lines.append(f"plane = {{ point = {_toml(edit.points[0])}, normal = {_toml(edit.normal)} }}")
        elif edit.points:
            name = "points" if edit.verb == "add" else "at"
            lines.append(f"{name} = [{', '.join(_toml(p) for p in edit.points)}]")
        if edit.verb == "add":
            lines.append(f"sigma = {edit.sigma!r}")
        if edit.closed is not None:
            lines.append(f"closed = {str(edit.closed).lower()}")
        lines.append("")
    try:
        Path(path).write_text("\n".join(lines), encoding="utf-8")
    except OSError as error:
        raise JaxmemError(f"{path}: cannot be written ({error.strerror}); choose another place") from None


def _toml(name: Name) -> str:
    return str(name) if isinstance(name, int) else "[" + ", ".join(repr(float(x)) for x in name) + "]"


def _parsed(entry: dict[str, Any]) -> Edit:
    verbs = [key for key in entry if key in _EXTRAS]
    if len(verbs) != 1:
        raise EditError(f"needs one of {', '.join(_EXTRAS)}, got {', '.join(verbs) or 'none'}")
    verb = verbs[0]
    unknown = sorted(set(entry) - {verb} - _EXTRAS[verb])
    if unknown:
        allowed = ", ".join(sorted(_EXTRAS[verb])) or "nothing else"
        raise EditError(f"{verb} does not take '{unknown[0]}'; it takes {allowed}")
    value = entry[verb]
    if verb == "join":
        if not isinstance(value, list):
            raise EditError("join needs a list of membranes: join = [3, 7]")
        membranes = tuple(_name(one) for one in value)
    else:
        membranes = (_name(value),)
    plane = entry.get("plane")
    if plane is not None and (not isinstance(plane, dict) or set(plane) != {"point", "normal"}):
        raise EditError("plane needs a point and a normal")
    points = [plane["point"]] if plane else entry.get("at", entry.get("points", []))
    if not isinstance(points, list):
        raise EditError(f"expected a list of places, got {points!r}")
    closed, sigma = entry.get("closed"), entry.get("sigma", 10.0)
    if closed is not None and not isinstance(closed, bool):
        raise EditError(f"closed must be true or false, got {closed!r}")
    if isinstance(sigma, bool) or not isinstance(sigma, int | float):
        raise EditError(f"sigma must be a positive length in A, got {sigma!r}")
    normal = _place(plane["normal"]) if plane else None
    return Edit(verb, membranes, tuple(_place(p) for p in points), normal, float(sigma), closed)


def _name(value: Any) -> Name:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return _place(value)


def _place(value: Any) -> Place:
    numbers = isinstance(value, list) and all(isinstance(x, int | float) and not isinstance(x, bool) for x in value)
    if not numbers or len(value) != 3 or not all(math.isfinite(x) for x in value):
        raise EditError(f"expected a membrane's number or a place [x, y, z] in A, got {value!r}")
    x, y, z = map(float, value)
    return x, y, z
