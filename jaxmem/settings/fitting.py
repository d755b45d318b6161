"""Settings of the stages that fit surfaces."""

from dataclasses import dataclass

from jaxmem.settings.checks import demand, not_negative, positive, shares


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
        positive("ellipse", self, "tolerance", "change", "least_probability")
        shares("ellipse", self, "least_probability")


@dataclass(frozen=True)
class RefineConfig:
    """How points are placed by the tomogram itself, once there are surfaces; lengths in voxels unless named.

    Attributes:
        rounds: of placing points and fitting surfaces to them; 0: surfaces are fitted to the network's points.
        spacing: distance between the points.
        patch: radius over which the density is averaged along the surface: two standard deviations of the weights.
        window: A; how far to both sides of the membrane the density counts, 4 voxels at least.
        range: A; how far a point may move in a round, 1.5 voxels at least.
        least_odds: logarithm of the odds of a membrane against none that a point needs.
        least_share: of what a patch tells of its place, so much must not be hidden by the missing wedge; other points are left out.
        common: error that points within some 30 voxels share where the membrane is seen whole: how it looks is known on average only.
        slanted: the same where half of what a patch tells is hidden; it grows with what is hidden.
        tilt_low, tilt_high: first and last tilt, degrees. None: from the tomogram's spectrum.
        tilt_axis: of the tilts, degrees from y towards x. None: from the spectrum.
    """

    rounds: int = 2
    spacing: float = 5.0
    patch: float = 6.0
    window: float = 80.0
    range: float = 40.0
    least_odds: float = 2.0
    least_share: float = 0.3
    common: float = 0.1
    slanted: float = 0.3
    tilt_low: float | None = None
    tilt_high: float | None = None
    tilt_axis: float | None = None

    def __post_init__(self):
        positive("refine", self, "spacing", "patch", "window", "range")
        not_negative("refine", self, "rounds", "common", "slanted")
        shares("refine", self, "least_share")
        low, high = self.tilt_low, self.tilt_high
        demand(
            "refine",
            ((low is None) == (high is None), "tilt_low and tilt_high belong together: give both or none"),
            (low is None or high is None or low < high, f"tilt_low must be less than tilt_high, got {low} and {high}"),
        )


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
        demand(
            "fit",
            (1.0 < self.alpha < 2.0, f"alpha must lie between 1 and 2, got {self.alpha}"),
            (self.draws > 1, f"draws must be more than 1, got {self.draws}"),
        )
        positive("fit", self, "most_points", "rays", "inducing", "spacing", "noise", "least_noise", "inflation", "bars")
        positive("fit", self, "offset", "shape_sigma", "beam", "max_sigma", "thickness")
        not_negative("fit", self, "curvature_radius", "common")
