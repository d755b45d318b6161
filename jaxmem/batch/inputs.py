"""The tomograms of a folder or a list, and the names of their runs."""

import fnmatch
import os
from collections import Counter
from pathlib import Path

from jaxmem.batch.records import Item
from jaxmem.types import JaxmemError

_VOLUMES = (".mrc", ".rec", ".map", ".st")
_PACKED = (".gz", ".bz2")


def stem_of(path: Path) -> str:
    """A tomogram's file name without what tells its format.

    Example:
        >>> stem_of(Path("data/TS_01.rec.mrc.gz")), stem_of(Path("TS_02.zarr"))
        ('TS_01.rec', 'TS_02')
    """
    name = path.name
    for endings in (_PACKED, (*_VOLUMES, ".zarr")):
        ending = Path(name).suffix
        name = name.removesuffix(ending) if ending.lower() in endings else name
    return name


def is_tomogram(path: Path) -> bool:
    """Whether a name is that of a tomogram: MRC, also compressed, or Zarr."""
    name = path.name.lower()
    packed = Path(name).suffix in _PACKED
    return Path(name.rsplit(".", 1)[0] if packed else name).suffix in (_VOLUMES if packed else (*_VOLUMES, ".zarr"))


def find_inputs(source: str | Path, pattern: str | None = None) -> list[Path]:
    """Every tomogram of a folder (not of folders in it) or of a text list; or the one that is named.

    Arguments:
        source: a folder, a tomogram, or a text file with a path on each line; `#` begins a comment. Relative paths start
            at the list's folder.
        pattern: names to take from a folder, such as `*_rec.mrc`.

    Returns:
        Absolute paths, sorted, each once. Entries of a list need not exist.

    Raises:
        JaxmemError: if the source is missing, unreadable, or holds nothing.
    """
    source = Path(source)
    if not source.exists():
        raise JaxmemError(f"{source}: no such folder, list or tomogram; check the name")
    try:
        if is_tomogram(source):
            found = [source]
        elif source.is_dir():
            found = [p for p in source.iterdir() if not p.name.startswith(".") and _is_wanted(p, pattern)]
        else:
            lines = [line.split("#")[0].strip() for line in source.read_text(encoding="utf-8").splitlines()]
            found = [source.parent / Path(line).expanduser() for line in lines if line]
    except UnicodeDecodeError:
        raise JaxmemError(f"{source}: not a text list; give a folder, or a file with one path a line") from None
    except OSError as error:
        raise JaxmemError(f"{source}: cannot be read ({error.strerror}); check its permissions") from None
    if not found:
        what = f"nothing named {pattern!r}" if pattern else "no .mrc, .rec, .map, .st or .zarr"
        raise JaxmemError(f"{source}: {what if source.is_dir() else 'no path'} in it; check the name")
    return sorted({Path(os.path.abspath(path)) for path in found})


def _is_wanted(path: Path, pattern: str | None) -> bool:
    if not (path.is_file() or path.name.lower().endswith(".zarr")):
        return False
    return is_tomogram(path) if pattern is None else fnmatch.fnmatch(path.name, pattern)


def name_runs(sources: list[Path], earlier: list[Item]) -> list[Item]:
    """A name for each tomogram's run: its stem; with its folder's name before it where that is taken.

    Arguments:
        sources: absolute paths.
        earlier: inputs of earlier batches with the same output: they keep their names.

    Returns:
        Items sorted by name.

    Raises:
        JaxmemError: if two tomograms of one folder would get the same name.
    """
    known = {item.source: item.name for item in earlier}
    names = {source: known.get(source, stem_of(source)) for source in sources}
    others = [i.name for i in earlier if i.source not in names and i.name in set(names.values()) and i.source.exists()]
    taken = Counter([*names.values(), *others])
    for source, name in names.items():
        if taken[name] > 1 and source not in known:
            names[source] = f"{source.parent.name}_{name}"
    owner: dict[str, Path] = {}
    for source, name in names.items():
        if name in owner or name in others:
            other = owner.get(name, "an earlier tomogram")
            raise JaxmemError(
                f"{source}: would get the same run as {other} ({stem_of(source)}); take one with --pattern, or give a list"
            )
        owner[name] = source
    return sorted(Item(name, source) for source, name in names.items())
