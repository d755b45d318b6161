"""Settings of the stages that find membranes."""

from dataclasses import dataclass, fields

from jaxmem.settings.checks import demand, not_negative, positive, shares

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

    def __post_init__(self):
        not_negative("preprocess", self, *(f.name for f in fields(self)))


SEEN = ("auto", "depth", "slice")
"""What the network sees."""


@dataclass(frozen=True)
class NetworkConfig:
    """Prediction.

    Attributes:
        weights: file of `jaxmem train`; the package's own when empty.
        sees: of the package's own weights "depth", which see each slice with its neighbours, or "slice", which see single slices. "auto" takes
            those that see depth, unless in a few slices they find less than half of what the others find: then the tomogram is unlike all
            that they learnt from.
        tile: longest side of a tile, pixels.
        overlap: of neighbouring tiles, pixels.
        symmetries: 1, 2, 4 or 8: averaged over so many turned and mirrored slices. On average more than one gains nothing
            on tomograms (`benchmarks/pipeline.py symmetries`), and the network takes so many times as long.
    """

    weights: str = ""
    sees: str = "auto"
    tile: int = 512
    overlap: int = 64
    symmetries: int = 1

    def __post_init__(self):
        demand(
            "network",
            (self.sees in SEEN, f"sees must be one of {', '.join(SEEN)}, got {self.sees!r}"),
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
        positive("midline", self, "sigma", "threshold")
        demand("midline", (self.threshold is None or self.threshold < 1, "threshold must lie between 0 and 1"))


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
        demand(
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
        positive("merge", self, "link", "gap")
        not_negative("merge", self, "seed", "support", "bridge")
        shares("merge", self, "agreement", "agreement_cut")


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
        least_shut: share that must be there of what would be seen of a closed membrane that is no ellipsoid, by area.
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
    least_shut: float = 0.75
    least_radial: float = 0.8
    least_aspect: float = 0.2
    least_open_probability: float | None = None
    least_density: float = 0.8
    tolerance: float = 2.0

    def __post_init__(self):
        not_negative("select", self, "least_area", "least_open_area", "least_length", "least_open_length")
        not_negative("select", self, "least_density")
        shares(
            "select",
            self,
            "least_shut",
            "least_seen",
            "least_seen_slice",
            "least_expected",
            "least_radial",
            "least_aspect",
        )
        shares("select", self, "least_open_probability")
        positive("select", self, "tolerance")
