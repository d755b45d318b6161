"""Settings read from a TOML file."""

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, get_args, get_type_hints

from jaxmem.settings import Config
from jaxmem.types import JaxmemError


def load_config(path: str | Path | None) -> Config:
    """Read a TOML file with one table per stage; what it does not name keeps its default.

    Raises:
        JaxmemError: if the file is missing, not TOML, or names something unknown, of the wrong type or out of range.
    """
    if path is None:
        return Config()
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise JaxmemError(f"{path}: cannot be read ({error.strerror}); check the name") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise JaxmemError(f"{path}: not valid TOML ({error})") from None
    try:
        return _build(Config, table, "")
    except JaxmemError as error:
        raise JaxmemError(f"{path}: {error}") from None


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
