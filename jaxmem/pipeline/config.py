"""One frozen configuration for the whole run, read from TOML."""

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from jaxmem.grouping import MergeConfig, SelectConfig
from jaxmem.surface import FitConfig
from jaxmem.types import JaxmemError

METHODS = ("auto", "merge", "rl")
"""Values of `grouping.method`."""


@dataclass(frozen=True)
class PreprocessConfig:
    """Filters before the network.

    Attributes:
        z_sigma: Gaussian smoothing along the beam, A, of the slices in which membranes are found and grouped: slices share what they
            show. Where a membrane is slanted it gets too far out, so its place is then taken from slices as they are; 0: no smoothing.
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
    """Thinning of the membrane's band: smoothing in A, and least probability. A mask sets both by its own thickness."""

    sigma: float = 20.0
    threshold: float = 0.3


@dataclass(frozen=True)
class GroupingConfig:
    """Which points belong to the same membrane (paper, Section 4).

    Attributes:
        method: `merge`, region merging in the volume; `rl`, walker and linker in each slice, then across slices; or `auto`, the
            better of the two by benchmarks/RESULTS.md, which is `merge`.
        weights: of the linker; the package's own when empty.
        walks: of the linker in each slice, besides the greedy one.
        seed: of the walks.
    """

    method: str = "auto"
    weights: str = ""
    walks: int = 12
    seed: int = 0


@dataclass(frozen=True)
class EllipseConfig:
    """Pruning and recovery slice by slice (paper, Section 5.1).

    Attributes:
        enabled: whether ellipses are fitted at all; without, nothing is pruned, recovered, or compared with them.
        tolerance: points within so many voxels of their ellipse stay, and others come back.
        change: relative standard deviation of an ellipse's change from slice to slice.
        least_probability: smoothed membrane probability of points that come back; lower than `midline.threshold`.
    """

    enabled: bool = True
    tolerance: float = 2.5
    change: float = 0.05
    least_probability: float = 0.2


@dataclass(frozen=True)
class Config:
    """Everything a run depends on besides its input."""

    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    midline: MidlineConfig = field(default_factory=MidlineConfig)
    grouping: GroupingConfig = field(default_factory=GroupingConfig)
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
    return _checked(_build(Config, table, str(path), ""), str(path))


def _checked(config: Config, path: str) -> Config:
    """The configuration, if its values make sense."""
    n, f = config.network, config.fit
    demands = [
        (n.symmetries in (1, 2, 4, 8), "network.symmetries must be 1, 2, 4 or 8"),
        (n.tile >= 64 and n.tile % 64 == 0, "network.tile must be a multiple of 64"),
        (0 < n.overlap < n.tile, "network.overlap must lie between 0 and network.tile"),
        (1.0 < f.alpha < 2.0, "fit.alpha must lie between 1 and 2"),
        (min(f.most_points, f.rays, f.inducing) > 0 and f.draws > 1, "fit's numbers of points must be positive"),
        (
            min(f.spacing, f.noise, f.least_noise, f.inflation, f.offset, f.spread, f.beam, f.max_sigma) > 0,
            "fit's lengths and noise must be positive",
        ),
        (f.curvature_radius >= 0, "fit.curvature_radius must not be negative"),
        (f.common >= 0, "fit.common must not be negative"),
        (config.midline.sigma > 0, "midline.sigma must be positive"),
        (0 < config.midline.threshold < 1, "midline.threshold must lie between 0 and 1"),
        (config.ellipse.tolerance > 0 and config.ellipse.change > 0, "ellipse's lengths must be positive"),
        (0 < config.ellipse.least_probability < 1, "ellipse.least_probability must lie between 0 and 1"),
        (config.merge.link > 0 and config.merge.gap > 0, "merge's distances must be positive"),
        (config.grouping.method in METHODS, f"grouping.method must be one of {', '.join(METHODS)}"),
        (config.grouping.walks >= 0, "grouping.walks must not be negative"),
        (config.preprocess.z_sigma >= 0, "preprocess.z_sigma must not be negative"),
    ]
    for holds, text in demands:
        if not holds:
            raise JaxmemError(f"{path}: {text}")
    return config


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
