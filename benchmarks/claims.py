"""What each benchmark is the measure of: claims, bars, and when a bar holds.

A claim is found in what a benchmark prints by a regular expression: in a whole table, or in a line, whose first group is the number then.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple


class Table(NamedTuple):
    """A Markdown table: headings and rows of texts."""

    columns: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """The table as text."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def numbers(self, column: str, rows: str = "") -> list[float]:
        """The first number of each cell in the first column of such a heading, in rows whose text has a regular expression.

        Cells without a number are left out.
        """
        at = next(k for k, heading in enumerate(self.columns) if re.search(column, heading))
        cells = [row[at] for row in self.rows if re.search(rows, " | ".join(row))]
        return [numbers(cell)[0] for cell in cells if numbers(cell)]


def numbers(text: str) -> list[float]:
    """All numbers in a text; commas part thousands."""
    return [float(found.replace(",", "")) for found in re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)]


class Claim(NamedTuple):
    """One line of the page.

    Attributes:
        text: what is measured.
        shows: regular expression of the table or line that has the number.
        bar: what was asked for; empty if nothing was.
        holds: whether the bar is met, of the table or of the line's number.
        note: how to read the number.
        on_gpu: the bar is one for GPUs; on processors there is none.
    """

    text: str
    shows: str
    bar: str = ""
    holds: Callable[[Any], bool] | None = None
    note: str = ""
    on_gpu: bool = False


class Benchmark(NamedTuple):
    """A section of the page: its title, how to read it, and its claims."""

    title: str
    about: str
    claims: tuple[Claim, ...]


def _all_found(table: Table) -> bool:
    counts = [numbers(row[1]) for row in table.rows]
    return all(found == there and invented == 0 for found, there, invented in counts)


def _deeper(table: Table) -> bool:
    dice, seconds = (
        [table.numbers(column, rf"\| {sees} \|") for sees in ("slice", "depth")] for column in ("Dice", "^s$")
    )
    return all(b > a for a, b in zip(*dice)) and sum(seconds[1]) <= 0.5 * sum(seconds[0])


def _refined(table: Table) -> bool:
    density = "of the density"
    near = all(
        max(table.numbers(band, density)) <= bar for band, bar in (("below 0.5", 0.2), ("0.5 to", 0.35), ("above", 0.9))
    )
    held = table.numbers("in 95", density)
    return near and min(held) >= 90 and max(held) <= 98


def _phantom(table: Table) -> bool:
    cold, warm = table.numbers("^s$")[:2]
    close = min(table.numbers("slice Dice")) >= 0.75 and max(table.numbers("^distance$")) <= 1.0
    return _all_found(table) and close and cold <= 180 and warm <= 120 and max(table.numbers("GiB")) <= 3.0


def _speed(line: str) -> bool:
    found = re.search(r"^(\d+) labelled.* midline ([\d.]+) s, merging ([\d.]+) s.* peak ([\d.]+) GiB", line)
    if found is None:
        raise ValueError(f"expected voxels, two times and a memory, got {line!r}")
    voxels, midline, merging, peak = map(float, found.groups())
    return midline + merging <= 20 * voxels / 1e6 and peak * 2**30 <= 2e9 * voxels / 1e6


def _linking(table: Table) -> bool:
    best, others = r"best set", r"nearest end|least cost"
    columns = ("30-40", "40-50", "50-60")
    ahead = all(table.numbers(c, best)[0] > max(table.numbers(c, others)) for c in columns)
    return ahead and table.numbers("20-30", best)[0] >= 0.97 and table.numbers("40-50", best)[0] >= 0.90


def _peers(table: Table) -> bool:
    ours = table.numbers("fits/s", r"jaxmem, blocks"), table.numbers("failed", r"jaxmem, blocks")
    error = table.numbers("median", r"jaxmem, blocks"), table.numbers("median", r"SciPy")
    return max(ours[0]) >= 15000 and max(ours[1]) <= 1.0 and max(error[0]) <= min(error[1])


def _times(table: Table) -> bool:
    ratio, sigma = table.columns.index("SciPy global / jaxmem"), "mean . sigma"
    by_size = {int(row[0]): float(row[ratio]) for row in table.rows}
    mean, poisson = table.numbers("jaxmem mean"), table.numbers("^Poisson$")
    quick = all(m <= p for m, p in zip(mean, poisson)) and all(s <= 3 * m for s, m in zip(table.numbers(sigma), mean))
    return quick and by_size.get(2000, 0) >= 60 and by_size.get(8000, 0) >= 100


def _hundredfold(table: Table) -> bool:
    ours = table.columns.index("jaxmem mean")
    peers = [k for k, heading in enumerate(table.columns) if heading.startswith(("GPyTorch", "scikit-learn"))]
    pairs = [(numbers(row[k]), numbers(row[ours])) for row in table.rows for k in peers]
    return all(slow[0] >= 100 * quick[0] for slow, quick in pairs if slow)


def _sparse(table: Table) -> bool:
    rows = [row for row in table.rows if row[1] == "2000"]
    return all(0.9 <= ratio <= 1.1 for row in rows for ratio in numbers(row[3]))


def _calibrated(table: Table) -> bool:
    one, two = table.numbers("1 sigma", r"^all \|"), table.numbers("1.96 sigma", r"^all \|")
    return all(64 <= v <= 72 for v in one) and all(92 <= v <= 98 for v in two)


def _curvature(table: Table) -> bool:
    first, second = table.numbers("kappa 1"), table.numbers("kappa 2")
    return all(a <= b for a, b in zip(first, (6.0, 2.6, 100.0, 2.7))) and all(
        a <= b for a, b in zip(second, (3.2, 0.8, 100.0, 15.0))
    )


_RUN = (
    "Distances are in voxels, from the truth to the surface. Caps are where the normal is within 41 degrees of the beam. "
    "`in 95 %` is the share of the truth within the surface's 95 % interval. Time and peak memory are those of a process of "
    "its own, imports and compilation included."
)


def _thick(table: Table) -> bool:
    bias, right, held = table.numbers("bias"), table.numbers("ordered"), table.numbers("95 %")
    return max(map(abs, bias)) <= 1.0 and min(right) >= 95 and min(held) >= 90 and max(held) <= 98


def _apart(table: Table) -> bool:
    bias, held = table.numbers("closest: bias"), table.numbers("95 %")
    area = [numbers(row[-1])[-1] for row in table.rows if numbers(row[-1])]
    return max(map(abs, bias)) <= 0.3 and min(held) >= 90 and max(held) <= 98 and max(area) <= 5.0


def _heads(table: Table) -> bool:
    recall, precision, side = table.numbers("recall"), table.numbers("precision"), table.numbers("right side")
    foot, normal = table.numbers("foot off"), table.numbers("normal off")
    return min(recall + precision) >= 80 and max(foot) <= 1.5 and max(normal) <= 15 and min(side) >= 95


def _falls(text: str) -> bool:
    before, after = numbers(text)[:2]
    return after < before


def _batched(table: Table) -> bool:
    tomograms, done, failed, lost, doubled, killed = (int(cell) for cell in table.rows[0][:6])
    return done == tomograms - 3 and failed == 3 and not lost and not doubled and killed >= 2


def _large(table: Table, membranes: int, seconds: float, memory: float) -> bool:
    return (
        table.numbers("membranes")[0] >= membranes
        and table.numbers("^s$")[0] <= seconds
        and table.numbers("^GB$")[0] <= memory
    )


CLAIMS = {
    "imports": Benchmark(
        "Importing",
        "Wall-clock time of a Python process that imports and ends, Python's own start included; medians.",
        (
            Claim("Time to import jaxmem", r"^\| imported", "1.2 s", lambda t: t.numbers("median", "^import jaxmem")[0] <= 1.2,
                  "The first use of a function loads what it needs, JAX among it."),
        ),
    ),
    "chain": Benchmark(
        "Training through the surface",
        "A small network learns pixels from labels 1.5 pixels too far out, and then from the distance of the fitted curve from the truth.",
        (
            Claim("Mean distance of the curve from the truth, on contours never seen, before and after",
                  r"^distance from the truth .*: (.*) pixels", "gets better", _falls, "80 steps on 8 contours; 16 held out."),
        ),
    ),
    "pipeline": Benchmark(
        "The whole command",
        _RUN,
        (
            Claim("`jaxmem segment` on the bundled tomogram", r"^\| phantom, cold cache", "all found, none invented, slice Dice 0.75, "
                  "distance 1.0 voxel, 180 s cold and 120 s warm, 3 GB", _phantom, "This tomogram is not held out: settings were chosen with it."),
            Claim("Watertight membranes of the bundled tomogram", r"^phantom: (.*) watertight"),
            Claim("`jaxmem segment` on simulated tomograms that set nothing", r"^\| simulated, seed",
                  note="96 x 192 x 192 voxels of 14 A, missing wedge beyond 60 degrees, no beads, proteins or film."),
            Claim("`jaxmem segment` on tomograms of another simulator", r"^\| other simulator"),
            Claim("What more looks at each slice gain", r"^\| symmetries \| tomogram",
                  note="Looks are averaged over turned and mirrored slices. `jaxmem segment` takes one."),
            Claim("`jaxmem fit` on real masks", r"^\| AP_autophagosome", note="The truth is the mask's own midline, which is rough over more than a voxel."),
            Claim("`jaxmem segment` on a real slice", r"^\| virion slice", note="The published mask covers the particle with what sticks out of it."),
            Claim("Dice coefficient of the virion's filled outline", r"^virion: Dice of the filled outline with the filled mask \[(.*)\]"),
            Claim("The anchors' distance (paper, Fig. 22)", r"^\| phantom, alpha"),
        ),
    ),
    "unet": Benchmark(
        "The network",
        "Rates are beside the same network in PyTorch, in one process, in turns. Accuracy is that of the shipped weights on simulated "
        "slices that training never saw; 4 views is the mean over four symmetries; `jaxmem segment` takes one view.",
        (
            Claim("Images a second, training and inference", r"^\| width", "0.7 and 1.0 of PyTorch's default layout",
                  lambda t: t.numbers("training /", "jaxmem float32")[0] >= 0.7 and t.numbers("inference /", "jaxmem float32")[0] >= 1.0),
            Claim("Pixels right, and Dice coefficients", r"^\| slices \| pixels", "99 % on ten held-out slices",
                  lambda t: t.numbers("1 view", "^10 held out")[0] >= 99.0),
        ),
    ),
    "grouping": Benchmark(
        "Grouping of segments and lines",
        "Simulated slices of 256 x 256 pixels that no training saw. Columns are the share of every contour that is missing. "
        "Segments are given in order, so that a walker's errors are not in the figures of linking.",
        (
            Claim("Adjusted Rand index of linking", r"^\| adjusted_rand", "0.97 at 30 %, 0.90 at 50 %, better than nearest ends and matching from 30 % on", _linking),
            Claim("Share of membranes that linking finds exactly", r"^\| exact"),
            Claim("Features of pairs", r"^features of pairs: (.*)"),
            Claim("Junctions at which the walk keeps to its membrane", r"^\| thickness \| policy", "97 %",
                  lambda t: t.numbers("junctions right", r"^all \| trained")[0] >= 0.97),
            Claim("Linking that learns on the slice itself", r"^\| adjusted Rand index, share exact"),
        ),
    ),
    "merging": Benchmark(
        "Instances in volumes",
        "Splits and false merges count pieces of a tenth of a membrane or more. Components of fewer than 200 voxels are left out.",
        (
            Claim("Instances in tomograms of touching vesicles", r"^\| tomogram \| method"),
            Claim("Grouping of real masks whose labels were removed", r"^\| mask \| method",
                  note="Pieces are the connected components of each label: what can be known without joining what does not touch."),
            Claim("Midline and merging of a million voxels", r"^(\d+ labelled voxels.*)", "20 s and 2 GB a million voxels, both together", _speed),
        ),
    ),
    "ellipses": Benchmark(
        "Ellipses",
        "Arcs of 200 points with 1 pixel of noise and 5 % spurious points. An RMS distance beyond 5 pixels counts as failed.",
        (
            Claim("Fits of 50 to 100 % of a contour, beside peers", r"jaxmem, one `vmap`", "15,000 fits/s, at most 1 % failed, RMS no worse than SciPy's", _peers),
            Claim("Parameters within their error bars", r"^Error bars: (.*)"),
            Claim("Fits of 20 to 30 % of a contour, beside peers", r"jaxmem, with prior", "at most 1 % failed with a prior",
                  lambda t: t.numbers("failed", "with prior")[0] <= 1.0),
            Claim("RMS distance at 180 angles", r"^180 angles, axes 30 and 10: (.*)"),
            Claim("RMS distance by axis ratio", r"^\| axis ratio"),
            Claim("Sequences of 48 slices", r"^\| seen \| change"),
        ),
    ),
    "gp": Benchmark(
        "The Gaussian process",
        "N points with 0.3 voxel of noise on a bumpy closed surface of radius 40, with anchors; so many cells along the longest side. "
        "Mean is fit, evaluation and mesh; sigma is the position's error bar at every vertex besides.",
        (
            Claim("Time of a surface, beside peers", r"^\| N \| cells \| jaxmem mean", "60 times SciPy at 2,000 points and 100 times at 8,000; "
                  "no slower than screened Poisson; mean and sigma within three times the mean", _times),
            Claim("Time beside GPyTorch and scikit-learn", r"^\| N \| cells \| jaxmem mean", "100 times", _hundredfold),
            Claim("RMS and worst error of a surface, voxels", r"^\| N \| cells \| jaxmem RMS"),
            Claim("Peak memory before any peer ran", r"peak memory before any peer ran: (.*)"),
            Claim("How time grows with the points", r"^\| N \| fit \|"),
            Claim("How time grows with the membranes", r"^\| membranes \| fit_membranes"),
            Claim("Inducing points against the exact posterior of 4,000 points", r"^\| amplitude", "sigma within 10 % through 2,000 inducing points", _sparse),
            Claim("A hundred membranes, learnt and fitted", r"^(one batch .*)", "1 s on a GPU, their surfaces included",
                  lambda line: numbers(line)[0] <= 1.0, on_gpu=True),
            Claim("Programs compiled for a hundred membranes", r"rows; (\d+) programs", "8", lambda n: int(n) <= 8),
            Claim("Surfaces and sigma of a hundred membranes", r"^mean surface on 64 cells and sigma at its vertices, one after the other: (.*)"),
        ),
    ),
    "calibration": Benchmark(
        "Do the error bars hold?",
        "Ellipsoids, bumpy surfaces, tori and folded sheets, with noise, spurious points, gaps and missing caps. The numbers of cases are in brackets.",
        (
            Claim("Share of the truth within the error bars", r"^\| shapes \| part", "64 to 72 % within 1 sigma, 92 to 98 % within 1.96, on the inferred part as well, over all shapes", _calibrated),
        ),
    ),
    "geometry": Benchmark(
        "Curvature, area and volume",
        "Hollow masks, three voxels thick, as `jaxmem fit --instances` fits them. Errors are relative; of kappa 2 to 1/50 per voxel at least.",
        (
            Claim("Errors of curvatures, area and volume", r"^\| shape \| kappa 1", "kappa 1 and 2: 6.0 and 3.2 % (small sphere), 2.6 and 0.8 % (large), 2.7 and 15 % (torus)", _curvature,
                  "The bar is what the most used tool publishes; how it normalises kappa 2 is not known."),
        ),
    ),
    "thickness": Benchmark(
        "Thickness of membranes",
        "The distance of a bilayer's leaflets, measured by `jaxmem measure` in simulated tomograms in each of which membranes have one of three distances, 3 A apart.",
        (
            Claim("Leaflet distances of 28 to 45 A", r"^\| tomogram \| membranes found", "bias at most 1 A; 95 % of pairs in the right order; 95 % intervals hold 90 to 98 %", _thick,
                  "How well the transfer is known, 0.2 A, and when a thickness is reported were chosen on tomograms of other seeds (41 to 46). Bars are a little too wide. Seconds include compilation."),
        ),
    ),
    "distances": Benchmark(
        "Distances and contacts of membranes",
        "Masks whose gaps are known, and pairs of membranes in the simulated tomograms of `thickness.py`; errors in voxels. The contact area is that within 30 nm.",
        (
            Claim("Closest distance, mean gap and contact area of pairs", r"^\| what \| pairs", "bias at most 0.3 voxel; 95 % intervals hold 90 to 98 %; area within 5 %", _apart,
                  "Masks have no noise, so that bars of their distances are too wide."),
        ),
    ),
    "proteins": Benchmark(
        "Proteins on membranes",
        "Heads of 80 A and more on membranes that were found: the bundled tomogram and two given ones, whose heads are known as masks, and four simulated ones. A particle is right within 50 A of a head.",
        (
            Claim("Particles, their feet and sides", r"^\| tomogram \| heads", "recall and precision 80 %; foot within 1.5 voxels and normal within 15 degrees (medians); right side 95 %", _heads,
                  "The least contrast of a particle, 0.6 of the median, was chosen knowing all of these."),
        ),
    ),
    "heldout": Benchmark(
        "Real membranes where they were not shown",
        "30 % and more of each midline's points are held out in patches of a twentieth of the membrane's extent.",
        (
            Claim("Distance of held-out points from the surface, voxels", r"^\| membrane \| closed", "a median of at most 1 voxel", lambda t: max(t.numbers("median")) <= 1.0),
        ),
    ),
    "finding": Benchmark(
        "What the network finds",
        "By itself, before anything is grouped or fitted: the bundled tomogram, two given ones and eight simulated kinds (`benchmarks/kinds.py`). `slice` looks twice at single slices, `depth` once at each slice with its"
        " neighbours. Precision is within two voxels; found is the share of true points within two voxels of membrane, by the angle between normal and beam.",
        (
            Claim("Membrane pixels of tomograms that trained neither network", r"^\| tomogram \| sees", "higher slice Dice with depth on each, in half the time", _deeper,
                  "The drawn slices' ranges were set knowing the bundled tomogram."),
            Claim("A slice of an alga beside the mask of a published network", r"^\| real slice \|", "Dice 0.86, precision 0.95, on both", lambda t: min(t.numbers("Dice")) >= 0.86 and min(t.numbers("precision")) >= 0.95,
                  "One slice is looked at by the network for single slices. The mask is a peer's, not the truth."),
        ),
    ),
    "refinement": Benchmark(
        "Points placed by the density",
        "The bundled tomogram, two given ones and nine simulated kinds (`benchmarks/kinds.py`), with points where the network has"
        " them and where the density places them. Bands are by the component of the true normal along the beam; mean error and, in brackets, bias in voxels.",
        (
            Claim("Distance of surfaces from the truth, and how often error bars hold", r"^\| tomogram \| points", "below 0.5: 0.2 voxel (0.4 at the least signal); 0.5 to 0.8: 0.35; above: 0.9;"
                  " 95 % intervals hold 90 to 98 % on each tomogram", _refined,
                  "Settings were chosen on phantom, clear_public, cell_public, vesicles_8A and tubes_10A; noisy_14A and sacs_14A were looked at; cell_12A was made after all were chosen. Tubes and flattened sacs are those whose hidden faces no ellipsoid stands for."
                  " Other work ran beside it, so that seconds say little."),
            Claim("A real tomogram: 5,377 positions of the Gag lattice on nine virus-like particles (EMPIAR-10164, 40 A a voxel) about their surfaces, voxels", r"^\| lattice points",
                  "9 of 9 closed; the spread smaller with the density", lambda t: all(n == 9 for n in t.numbers("closed")) and t.numbers("robust")[1] < t.numbers("robust")[0],
                  "The lattice lies a little inside the membrane; its own scatter is in the spread."),
            Claim("Profiles against analysis by synthesis, from the same surfaces", r"^\| tomogram \| surfaces", note="The default are profiles, which give each point its error bar."),
        ),
    ),
    "large": Benchmark(
        "Large tomograms",
        "Tiled from eight simulated tomograms of 112 x 224 x 224 voxels of 14 A. Compilation is cached. Memory is the peak of the process, decimal GB.",
        (
            Claim("224 x 448 x 448 voxels", r"^\| medium \|", "84 membranes or more, 300 s, 3 GB", lambda t: _large(t, 84, 300.0, 3.0)),
            Claim("300 x 928 x 928 voxels", r"^\| large \|", "350 membranes or more, 1,800 s, 5 GB", lambda t: _large(t, 350, 1800.0, 5.0),
                  "Other work ran beside it for some minutes."),
            Claim("1, 8 and 27 tiles", r"^\| 27 tiles \|", note="Plotted in docs/images/large.png."),
            Claim("Time of 27 tiles over what 1 and 8 let expect", r"^seconds for 27 tiles over .*: (.*)$", "linear: at most 1.1", lambda s: float(s) <= 1.1),
            Claim("The network stage on slices of 2,048 x 2,048 voxels of 8 bits", r"^\| slices of 2,048", "memory flat: 10 % from 4 slices to 16",
                  lambda t: max(t.numbers("GB")) <= 1.1 * min(t.numbers("GB"))),
            Claim("The same for 1,024 slices", r"^1,024 slices, extrapolated: (.*)$"),
            Claim("Until the first slice is looked at", r"^(first slice of .*)$", "5 s for a second tomogram of a shape", lambda s: numbers(s)[-1] <= 5.0),
            Claim("Runs killed at random moments", r"^(killed .*)$", "20 of 20 end with the same bytes", lambda s: "20 of 20 ended" in s,
                  note="All files but the manifest and the report, which hold dates and times."),
        ),
    ),
    "batch": Benchmark(
        "Many tomograms",
        "Crops of the bundled tomogram, 24 x 96 x 96 voxels, each with noise of its own; three files are broken, and random workers are killed.",
        (
            Claim("What becomes of a batch", r"^\| tomograms \| done", "all done but three that fail, none lost or doubled, two workers killed", _batched),
            Claim("Why tomograms failed", r"^\| failed \| reason"),
            Claim("The same command again", r"^nothing to do after (.*) s$", "10 s", lambda s: float(s) <= 10.0),
            Claim("Tomograms an hour on the same cores", r"^\| processes \|", note="Compilation is cached for both; starting the processes is included."),
        ),
    ),
}  # fmt: skip
