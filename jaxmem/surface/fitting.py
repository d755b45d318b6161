"""Batches of membranes: their points are chosen on the host, and all of one padded size are fitted by one program."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from jaxmem import gp
from jaxmem.defaults import FROM_NETWORK, decided, known
from jaxmem.grouping.shape import Shape
from jaxmem.membrane import EXACT_ROWS, LEARN_ROWS, Problem, Surface, learn, solve
from jaxmem.membrane.learning import root_mean_square
from jaxmem.numerics import bucket_size, pad_to
from jaxmem.points import Cells, evenly
from jaxmem.settings import Config, FitConfig
from jaxmem.surface.preparing import BETWEEN, Errors, prepare

# parts of a `Problem` that have a row for each value
_ROWWISE = ("points", "values", "sigma", "data", "mask", "shared")
_APART = 1.5  # of the median distance of the nearest point, for points that are spread evenly
_TOGETHER = 64  # membranes at a time on an accelerator, for the memory


class Membrane(NamedTuple):
    """A membrane ready to be meshed.

    Attributes:
        surface: the implicit function, from a fit in double precision.
        points: (n, d) all its points, voxels.
        low, high: (d,) box in voxels within which the surface is looked for.
        closed: whether the surface closes around a centre.
        noise: learnt standard deviation of the points about the surface, voxels.
        apart: distance within which a membrane's points have company, voxels.
    """

    surface: Surface
    points: Float[np.ndarray, "n d"]
    low: Float[np.ndarray, " d"]
    high: Float[np.ndarray, " d"]
    closed: bool
    noise: float
    apart: float = 0.0

    @property
    def posterior(self) -> Any:
        """The conditioned process, in coordinates about `centre`."""
        return self.surface.function

    @property
    def centre(self) -> Float[np.ndarray, " d"]:
        """(d,) what was subtracted from voxel coordinates."""
        return np.asarray(self.surface.centre)


learn_batch = jax.jit(jax.vmap(learn, (0, 0, None)))
solve_batch = jax.jit(jax.vmap(solve, (0, 0, None, None, None)), static_argnums=4)


def fit_membranes(
    points: list[np.ndarray],
    normals: list[np.ndarray],
    shapes: Sequence[Shape | gp.Blend],
    closed: list[bool],
    config: FitConfig | None = None,
) -> list[Membrane | None]:
    """Fit every membrane, and keep all fits: 16 to 32 MB each. `fit_each` gives them one after another.

    Arguments:
        points, normals: per membrane, (n_i, d) in voxels.
        shapes: per membrane, from `shape.describe`, or a blend for a closed one that is no ellipsoid.
        closed: per membrane.
        config: options; what is left open is decided as for a network's points.

    Returns:
        One `Membrane` each, None where the factorisation failed, a point is not finite, or fewer than four are distinct.
    """
    fitted: list[Membrane | None] = [None] * len(points)
    for i, membrane in fit_each(points, normals, shapes, closed, config):
        fitted[i] = membrane
    return fitted


def fit_each(
    points: list[np.ndarray],
    normals: list[np.ndarray],
    shapes: Sequence[Shape | gp.Blend],
    closed: list[bool],
    config: FitConfig | None = None,
    wanted: Iterable[int] | None = None,
    errors: list[Errors] | None = None,
    *,
    rows: int = LEARN_ROWS,
) -> Iterator[tuple[int, Membrane | None]]:
    """Fit membranes, few at a time; those few whose padded sizes agree are one batched program.

    Amplitude, noise and the anchors' reliability are learnt from a few rows of each; the fit then uses all. It runs in double
    precision: with few anchors and little noise its condition exceeds what single precision holds, and the mean is a difference
    of large terms.

    Arguments:
        points, normals, shapes, closed, config: see `fit_membranes`.
        wanted: which to fit; all when None. The others only tell how far away they are.
        errors: per membrane, of its points, if they are known: all points then count.
        rows: points and anchors that amplitudes and noise are learnt from, at most; the time grows with their cube.

    Yields:
        Its place and the membrane, as from `fit_membranes`. Nothing of one is kept when the next few are fitted.
    """
    config = decided(Config(fit=config or FitConfig()), fit=FROM_NETWORK["fit"]).fit
    wanted = list(range(len(points))) if wanted is None else list(wanted)
    others = _Others(points, config.offset / BETWEEN)
    together = 1 if jax.default_backend() == "cpu" else _TOGETHER
    for start in range(0, len(wanted), together):
        some = wanted[start : start + together]
        usable = [i for i in some if np.isfinite(points[i]).all() and len(np.unique(points[i], axis=0)) >= 4]
        fitted: dict[int, Membrane] = {}
        with jax.enable_x64(True):
            prepared = {
                i: prepare(
                    points[i].astype(float),
                    normals[i],
                    None if errors is None else errors[i],
                    jax.tree.map(np.float64, shapes[i]),
                    closed[i],
                    None if closed[i] else others.near(i),
                    config,
                )
                for i in usable
            }
            for i, posterior, noise in _fitted(
                {i: p.problem for i, p in prepared.items()}, config, errors is not None, rows
            ):
                p = prepared[i]
                surface = Surface(posterior, jnp.asarray(p.centre))
                apart = (
                    0.0
                    if errors is None
                    else _APART * float(np.median(cKDTree(points[i]).query(points[i], k=2)[0][:, 1]))
                )
                fitted[i] = Membrane(surface, points[i], p.low, p.high, closed[i], noise, apart)
        for i in some:
            yield i, fitted.pop(i, None)


class _Others:
    """For each membrane the points of the others, as far as they are near it."""

    def __init__(self, points: list[np.ndarray], reach: float):
        self.points, self.reach = points, reach
        finite = [p if np.isfinite(p).all() else p[:0] for p in points]
        self.all = np.concatenate(finite) if points else np.zeros((0, 3))
        self.owner = np.repeat(np.arange(len(points)), [len(p) for p in finite])
        self.cells = Cells(self.all)

    def near(self, i: int) -> cKDTree | None:
        p = self.points[i]
        found = self.cells.within(p.min(0) - self.reach, p.max(0) + self.reach)
        found = found[self.owner[found] != i]
        return cKDTree(self.all[found]) if len(found) else None


def _fitted(
    problems: dict[int, Problem], config: FitConfig, known_errors: bool, rows: int
) -> Iterator[tuple[int, Any, float]]:
    """Posterior and noise (voxels) of each problem whose factorisation succeeds; errors that are known are not learnt to be less."""
    learnt: dict[int, Any] = {}
    for members, problem in _batches({i: _few(p, rows) for i, p in problems.items()}):
        counts = (problem.data & problem.mask).astype(float)
        usual = jax.vmap(root_mean_square)(problem.sigma, counts)
        least = usual if known_errors else jnp.full(len(usual), known(config.least_noise))
        results = learn_batch(problem, least, config.inflation)
        learnt |= dict(zip(members, _rows(results, len(members))))
    for members, problem in _batches({i: p for i, p in problems.items() if bool(learnt[i].posterior.success)}):
        start = _stack([learnt[i] for i in members], len(problem.points))
        results = solve_batch(start, problem, config.inflation, config.bars, known(config.inducing))
        for i, posterior in zip(members, _rows(results, len(members))):
            if bool(posterior.success):
                p = problems[i]
                yield i, posterior, float(learnt[i].noise * np.median(p.sigma[p.data]))


def _few(problem: Problem, rows: int) -> Problem:
    """A problem's points thinned to what hyperparameters are learnt from."""
    data = np.asarray(problem.data)
    real, anchors = np.flatnonzero(data), np.flatnonzero(~data)
    room = rows - min(len(anchors), rows * 3 // 8)
    x = np.asarray(problem.points)
    real = real[evenly(x[real], room)]
    anchors = anchors[evenly(x[anchors], rows - room)]
    few = np.concatenate([real, anchors])
    return problem._replace(**{k: getattr(problem, k)[few] for k in _ROWWISE})


def _padded(problem: Problem, size: int) -> Problem:
    padded = {k: pad_to(np.asarray(getattr(problem, k)), size) for k in _ROWWISE}
    arrays: dict[str, Any] = {k: a for k, (a, _) in padded.items()}
    return problem._replace(**arrays | {"mask": padded["mask"][1]})


def _batches(problems: dict[int, Problem]):
    """Groups of membranes of one padded size with their problems stacked; the last group is filled up by repetition.

    Sizes above `EXACT_ROWS`, for which the program is a sparse one whose cost is linear, grow by factors of four.
    """
    sizes = {i: bucket_size(len(p.points), 256) for i, p in problems.items()}
    sizes = {i: size if size <= EXACT_ROWS else bucket_size(size, 4 * EXACT_ROWS, 4) for i, size in sizes.items()}
    kinds = {i: (size, jax.tree.structure(problems[i].trend)) for i, size in sizes.items()}
    for size, kind in sorted(set(kinds.values()), key=str):
        members = [i for i, k in kinds.items() if k == (size, kind)]
        most = _slots(size) if len(members) > 1 else 1
        for start in range(0, len(members), most):
            chunk = members[start : start + most]
            yield chunk, _stack([_padded(problems[i], size) for i in chunk], most)


def _slots(size: int) -> int:
    """How many problems of a size one program solves: one on a processor, where a batch gains nothing, as memory allows elsewhere.

    A factor of 2,048 rows takes 32 MiB.
    """
    return 1 if jax.default_backend() == "cpu" else max(1, 64 * EXACT_ROWS // size)


def _stack(rows: list, count: int):
    """Rows as one batch of `count`, the last one repeated; on the device if they are there."""

    def stack(*leaves):
        kind = jnp if isinstance(leaves[0], jax.Array) else np
        return kind.stack([*leaves, *[leaves[-1]] * (count - len(leaves))])

    return jax.tree.map(stack, *rows)


@jax.jit
def _row(batch, k):
    return jax.tree.map(lambda a: a[k], batch)


def _rows(batch, count: int) -> list:
    """The first of a batch, one by one, left on the device: factors are large."""
    return [_row(batch, k) for k in range(count)]
