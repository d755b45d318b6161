"""Settings read from a TOML file."""

import dataclasses
import inspect
import json
import re
import textwrap
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from jaxmem.settings import Config
from jaxmem.types import JaxmemError


def load_config(path: str | Path | None, changes: Sequence[str] = ()) -> Config:
    """Read a TOML file with one table per stage; what it does not name keeps its default.

    Arguments:
        path: the file; none when None.
        changes: settings that replace the file's, as `fit.alpha=1.3`.

    Raises:
        JaxmemError: if the file is missing, not TOML, or names something unknown, of the wrong type or out of range; or a change does.
    """
    table: dict[str, Any] = {}
    if path is not None:
        table = read_toml(path)
        try:
            _build(Config, table, "")
        except JaxmemError as error:
            raise JaxmemError(f"{path}: {error}") from None
    for change in changes:
        section, name, value = _parsed(change)
        table.setdefault(section, {})[name] = value
        try:
            _build(Config, {section: {name: value}}, "")
        except JaxmemError as error:
            raise JaxmemError(f"--set {change}: {error}") from None
    return _build(Config, table, "")


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Arguments:
        path: the file.

    Raises:
        JaxmemError: if it is missing or not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise JaxmemError(f"{path}: cannot be read ({error.strerror}); check the name") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise JaxmemError(f"{path}: not valid TOML ({error})") from None


def _parsed(change: str) -> tuple[str, str, Any]:
    """Section, name and value of `section.name=value`; what is no number, truth value or quoted text is a text."""
    name, equals, value = (part.strip() for part in change.partition("="))
    section, dot, name = name.partition(".")
    if not (equals and dot and value):
        raise JaxmemError(f"--set {change}: expected section.name=value, fit.alpha=1.3 for instance")
    try:
        return section, name, tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        return section, name, value


def describe_settings() -> str:
    """All settings with their meaning and their defaults, as a TOML file in which nothing is set.

    Example:
        >>> "# alpha = 1.2" in describe_settings()
        True
    """
    lines = [
        "# All settings of jaxmem: take away the # before what you change. Settings without a value are decided from the data."
    ]
    for section, value in ((f.name, getattr(Config(), f.name)) for f in dataclasses.fields(Config)):
        meanings = _meanings(type(value))
        lines += ["", f"[{section}]"]
        for field in dataclasses.fields(value):
            lines += textwrap.wrap(meanings[field.name], 110, initial_indent="# ", subsequent_indent="#   ")
            lines += [f"# {field.name} = {_toml(getattr(value, field.name))}", ""]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    return "" if value is None else json.dumps(value)


def _meanings(cls: type) -> dict[str, str]:
    """What a record's docstring says of each of its attributes; of names that share a line, the same."""
    found: dict[str, str] = {}
    text = inspect.getdoc(cls) or ""
    for entry in re.split(r"\n    (?=[a-z])", text.partition("Attributes:")[2].partition("\n\n")[0]):
        names, colon, meaning = entry.strip().partition(":")
        if colon:
            found |= dict.fromkeys((name.strip() for name in names.split(",")), " ".join(meaning.split()))
    return found


def _build(cls: type, table: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(cls)
    values = {}
    for name, value in table.items():
        if name not in hints:
            known = ", ".join(hints)
            raise JaxmemError(f"unknown setting '{where}{name}'; known here: {known}")
        kind = hints[name]
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, dict):
                raise JaxmemError(f"'{where}{name}' must be a table")
            values[name] = _build(kind, value, f"{name}.")  # type: ignore[arg-type]
            continue
        kind = next((k for k in get_args(kind) if k is not type(None)), kind)  # of `float | None` the number
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not kind:
            raise JaxmemError(f"'{where}{name}' must be {kind.__name__}, got {value!r}")
        values[name] = value
    return cls(**values)
