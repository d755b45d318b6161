"""All settings of a run: frozen records, each documented, and checked where it is made.

`None` means "decide for me". What was decided is in the result's `config`, and in the manifest: a configuration without `None`.
"""

from dataclasses import dataclass, field, fields

from jaxmem.types import JaxmemError

METHODS = ("auto", "merge", "rl")
"""Values of `grouping.method`."""


def _demand(name: str, *conditions: tuple[bool, str]) -> None:
    for holds, text in conditions:
        if not holds:
            raise JaxmemError(f"{name}.{text}")


def _positive(name: str, settings: object, *names: str) -> None:
    """Raise if a number is not positive; None is not looked at."""
    for key in names:
        value = getattr(settings, key)
        _demand(name, (value is None or value > 0, f"{key} must be positive, got {value}"))


def _not_negative(name: str, settings: object, *names: str) -> None:
    for key in names:
        value = getattr(settings, key)
        _demand(name, (value >= 0, f"{key} must not be negative, got {value}"))


def _shares(name: str, settings: object, *names: str) -> None:
    for key in names:
        value = getattr(settings, key)
        _demand(name, (value is None or 0 <= value <= 1, f"{key} must lie between 0 and 1, got {value}"))


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

    def __post_init__(self):
        _not_negative("preprocess", self, *(f.name for f in fields(self)))


@dataclass(frozen=True)
class NetworkConfig:
    """Prediction.

    Attributes:
        weights: file of `jaxmem train`; the package's own when empty.
        tile: longest side of a tile, pixels.
        overlap: of neighbouring tiles, pixels.
        symmetries: 1, 2, 4 or 8: averaged over so many turned and mirrored slices. On average more than one gains nothing
            on tomograms (`benchmarks/pipeline.py symmetries`), and the network takes so many times as long.
    """

    weights: str = ""
    tile: int = 512
    overlap: int = 64
    symmetries: int = 1

    def __post_init__(self):
        _demand(
            "network",
            (self.symmetries in (1, 2, 4, 8), f"symmetries must be 1, 2, 4 or 8, got {self.symmetries}"),
            (self.tile >= 64 and self.tile % 64 == 0, f"tile must be a multiple of 64, got {self.tile}"),
            (0 < self.overlap < self.tile, f"overlap must lie between 0 and tile, got {self.overlap}"),
        )


@dataclass(frozen=True)
class MidlineConfig:
    """Thinning of the membrane's band to its middle.

    Attributes:
        sigma: smoothing, A. None: 20 A (at least a voxel); of a mask 0.45 times its own thickness, 0.8 to 4 voxels.
        threshold: least smoothed probability of a membrane's point. None: 0.3; of a mask thinner than two voxels 0.2.
    """

    sigma: float | None = None
    threshold: float | None = None

    def __post_init__(self):
        _positive("midline", self, "sigma", "threshold")
        _demand("midline", (self.threshold is None or self.threshold < 1, "threshold must lie between 0 and 1"))


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

    def __post_init__(self):
        _demand(
            "grouping",
            (self.method in METHODS, f"method must be one of {', '.join(METHODS)}, got {self.method!r}"),
            (self.walks >= 0, f"walks must not be negative, got {self.walks}"),
        )


@dataclass(frozen=True)
class MergeConfig:
    """Region merging (paper, Section 4.2). Distances in A.

    Attributes:
        link: points closer than this (and than 2.6 voxels, whichever is more) are neighbours.
        gap: regions further apart (equation 1) are not joined.
        seed: regions of fewer points take no part in joining across gaps.
        support: pairs of points that must agree before two regions join.
        agreement: share of the near pairs between two regions that must agree; parallel membranes have few.
        bridge: regions in a volume are cut in two where so little holds them together (see `cut_bridges`); 0: never.
        agreement_cut: what `agreement` is for regions that a cut has parted; where two membranes touch, half of the pairs do not.
    """

    link: float = 36.0
    gap: float = 140.0
    seed: int = 15
    support: int = 3
    agreement: float = 0.4
    bridge: float = 0.7
    agreement_cut: float = 0.5

    def __post_init__(self):
        _positive("merge", self, "link", "gap")
        _not_negative("merge", self, "seed", "support", "bridge")
        _shares("merge", self, "agreement", "agreement_cut")


@dataclass(frozen=True)
class SelectConfig:
    """When a region counts as a membrane.

    Attributes:
        least_area, least_open_area: least area seen of a closed membrane and of an open one, for which nothing else
            vouches; A^2.
        least_length, least_open_length: the same in a single slice; A.
        least_seen, least_seen_slice: share of a closed membrane's directions that must have points; the same in a single
            slice, where no missing wedge excuses a gap.
        least_expected: the same among directions where it ought to show.
        least_radial: median |cos| between the points' normals and the ellipsoid's.
        least_aspect: shortest over longest semi-axis of a closed membrane; the shortest is at least 3 voxels.
        least_open_probability: mean smoothed probability along an open membrane. None: 0.5; of a mask, which has no probability, 0.
        least_density: median number of a region's points about each of them, per square voxel of surface (per voxel of
            curve): a membrane's lie side by side, stray ones do not.
        tolerance: a fragment joins an ellipsoid within so many voxels (plus the ellipsoid's own misfit).
    """

    least_area: float = 2.5e4
    least_open_area: float = 1.4e5
    least_length: float = 300.0
    least_open_length: float = 700.0
    least_seen: float = 0.25
    least_seen_slice: float = 0.5
    least_expected: float = 0.55
    least_radial: float = 0.8
    least_aspect: float = 0.2
    least_open_probability: float | None = None
    least_density: float = 0.8
    tolerance: float = 2.0

    def __post_init__(self):
        _not_negative("select", self, "least_area", "least_open_area", "least_length", "least_open_length")
        _not_negative("select", self, "least_density")
        _shares("select", self, "least_seen", "least_seen_slice", "least_expected", "least_radial", "least_aspect")
        _shares("select", self, "least_open_probability")
        _positive("select", self, "tolerance")


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

    def __post_init__(self):
        _positive("ellipse", self, "tolerance", "change", "least_probability")
        _shares("ellipse", self, "least_probability")


@dataclass(frozen=True)
class FitConfig:
    """How a membrane becomes a surface; lengths in voxels unless named.

    Attributes:
        alpha: exterior anchors lie alpha times as far from the centre as the membrane (paper, Section 5.2 and Fig. 22).
        rays: number of rays that get anchors.
        shape_sigma: relative standard deviation of the parameters of the ellipsoid that a closed membrane is expected to be near.
        spacing: distance between the points that the process is conditioned on, if `most_points` allows it.
        most_points: largest number of such points.
        inducing: inducing points of a fit on more than 2,048 rows. None: 1,024; of a mask, whose points are known better, 2,048.
        noise: starting standard deviation of a point's position where there are too few to tell; it is learnt from then on.
        least_noise: floor of the learnt noise. None: 0.6; of a mask 0.3, a voxel's width over the root of 12.
        inflation: the errors of neighbouring points agree (one network saw them, in smoothed slices), so that each point
            counts as if its noise were so many times larger. None: 5, chosen on simulated tomograms; of a mask 1.
        bars: all standard deviations are multiplied by this, which leaves the surface as it is; chosen so that the bars of
            simulated membranes hold (`benchmarks/calibration.py`).
        beam: how many times larger the points' errors are along the beam (axis 0) than across it.
        offset: distance of the anchors from an open membrane.
        max_sigma: an open surface ends where its position is known no better than this.
        common: error that all points of a membrane have in common, which no number of points tells: midlines of voxelised shells
            lie up to so far in or out as a whole. It enters the error bars of area and volume.
        curvature_radius: curvatures are averages over this distance on the surface: what is finer is noise.
        draws: sampled surfaces from which the error bars of curvatures, area and volume are taken.
        seed: of those samples.
        thickness: of the labels, A. None: 50 A, a bilayer's; of a mask its own.
    """

    alpha: float = 1.2
    rays: int = 96
    shape_sigma: float = 0.3
    spacing: float = 5.0
    most_points: int = 20000
    inducing: int | None = None
    noise: float = 0.8
    least_noise: float | None = None
    inflation: float | None = None
    bars: float = 0.93
    beam: float = 1.0
    offset: float = 5.0
    max_sigma: float = 2.0
    common: float = 0.05
    curvature_radius: float = 7.0
    draws: int = 32
    seed: int = 0
    thickness: float | None = None

    def __post_init__(self):
        _demand(
            "fit",
            (1.0 < self.alpha < 2.0, f"alpha must lie between 1 and 2, got {self.alpha}"),
            (self.draws > 1, f"draws must be more than 1, got {self.draws}"),
        )
        _positive(
            "fit", self, "most_points", "rays", "inducing", "spacing", "noise", "least_noise", "inflation", "bars"
        )
        _positive("fit", self, "offset", "shape_sigma", "beam", "max_sigma", "thickness")
        _not_negative("fit", self, "curvature_radius", "common")


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
