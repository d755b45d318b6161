"""What is decided where a setting is left open (`None`), and the configuration without anything open."""

from dataclasses import replace
from typing import TypeVar

from jaxmem.settings import Config

BEST_METHOD = "merge"  # what `grouping.method = "auto"` is: better than `rl` in benchmarks/RESULTS.md

T = TypeVar("T")


def decided(config: Config, **tables: dict) -> Config:
    """The configuration with what was left open (`None`, and the method `auto`) filled in from `tables`; what was chosen stays.

    Example:
        >>> decided(Config(), fit={"inflation": 1.0, "alpha": 1.3}).fit.inflation
        1.0
    """
    changed: dict = {}
    if config.grouping.method == "auto":
        changed["grouping"] = replace(config.grouping, method=BEST_METHOD)
    for name, choices in tables.items():
        table = getattr(config, name)
        open_ = {key: value for key, value in choices.items() if getattr(table, key) is None}
        changed[name] = replace(table, **open_)
    return replace(config, **changed)


def known(value: T | None) -> T:
    """A setting that has been decided.

    Raises:
        ValueError: if it has not: then `decided` was not asked.
    """
    if value is None:
        raise ValueError("a setting that is left open (None) was used before it was decided; see settings.decided")
    return value


FROM_NETWORK: dict[str, dict] = {
    "midline": {"threshold": 0.3},
    "select": {"least_open_probability": 0.5},
    "fit": {"inducing": 1024, "least_noise": 0.6, "inflation": 5.0, "thickness": 50.0},
}
"""What is decided for points of a network where nothing was chosen; why, says `docs/decisions.md`."""


FROM_MASK: dict[str, dict] = {
    "select": {"least_open_probability": 0.0},
    "fit": {"inducing": 2048, "least_noise": 0.3, "inflation": 1.0},
}
"""What is decided for points of a mask; thickness and midline follow the mask's own thickness."""
