"""One frozen configuration for the whole run, read from TOML."""

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from jaxmem.grouping import MergeConfig, SelectConfig
from jaxmem.surface import FitConfig
from jaxmem.types import JaxmemError


@dataclass(frozen=True)
class PreprocessConfig:
    """Filters before the network.

    Attributes:
        z_sigma: Gaussian smoothing along the beam, A; slices share what they show of a membrane.
        xy_sigma: Gaussian smoothing within the slice, A; 0 is none.
        low, high: band-pass within the slice, cycles per A; 0 turns a cut off.
        contrast_window: local normalisation over this many A; 0 is none.
        rescale_above: slices are resampled to the network's pixel size if the sizes differ by more than this share.
    """

    z_sigma: float = 12.0
    xy_sigma: float = 0.0
    low: float = 0.0
    high: float = 0.0
    contrast_window: float = 0.0
    rescale_above: float = 0.1


@dataclass(frozen=True)
class NetworkConfig:
    """Prediction: weights file (the package's own when empty), tiling in pixels, symmetries averaged over."""

    weights: str = ""
    tile: int = 256
    overlap: int = 64
    symmetries: int = 4


@dataclass(frozen=True)
class MidlineConfig:
    """Thinning of the membrane's band: smoothing in A (0: from the band's own thickness) and least probability."""

    sigma: float = 20.0
    threshold: float = 0.3


@dataclass(frozen=True)
class EllipseConfig:
    """Pruning and recovery slice by slice (paper, Section 5.1); `tolerance` in voxels, `change` relative from slice to slice."""

    enabled: bool = True
    tolerance: float = 2.5
    change: float = 0.1


@dataclass(frozen=True)
class Config:
    """Everything a run depends on besides its input."""

    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    midline: MidlineConfig = field(default_factory=MidlineConfig)
    merge: MergeConfig = field(default_factory=MergeConfig)
    select: SelectConfig = field(default_factory=SelectConfig)
    ellipse: EllipseConfig = field(default_factory=EllipseConfig)
    fit: FitConfig = field(default_factory=FitConfig)


def load_config(path: str | Path | None) -> Config:
    """Read a TOML file with one table per stage; what it does not name keeps its default.

    Raises:
        JaxmemError: if the file is missing, not TOML, or names something unknown or of the wrong type.
    """
    if path is None:
        return Config()
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise JaxmemError(f"{path}: cannot be read ({error.strerror}); check the name") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise JaxmemError(f"{path}: not valid TOML ({error})") from None
    return _build(Config, table, str(path), "")


def _build(cls: type, table: dict[str, Any], path: str, where: str) -> Any:
    hints = get_type_hints(cls)
    values = {}
    for name, value in table.items():
        if name not in hints:
            known = ", ".join(hints)
            raise JaxmemError(f"{path}: unknown setting '{where}{name}'; known here: {known}")
        kind = hints[name]
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, dict):
                raise JaxmemError(f"{path}: '{where}{name}' must be a table")
            values[name] = _build(kind, value, path, f"{name}.")  # type: ignore[arg-type]
            continue
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not kind:
            raise JaxmemError(f"{path}: '{where}{name}' must be {kind.__name__}, got {value!r}")
        values[name] = value
    return cls(**values)
