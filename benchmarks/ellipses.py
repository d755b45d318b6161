"""Robust ellipse fits beside their peers, in one run: `python benchmarks/ellipses.py` (`peers`, `short`, `flat`, `sequence`, `picture` for a part).

Arcs of ellipses with semi-major axes of 20 to 80 pixels and axis ratios of 1 to 4: 200 points, 1 pixel of noise, 5 % of them
anywhere in a box of 1.5 semi-axes. `peers`: 50 to 100 % of the contour is covered; `short`: 20 to 30 %, cold, from a warm start, and
with a normal prior, both centred on a neighbour whose parameters differ by 3 % of its size. The error is the RMS distance of 100
points of the true contour to the ellipse found; beyond 5 pixels, or where nothing is returned, a fit has failed. Peers fit a part of the
arcs, one after another. `flat` recovers ellipses at 180 angles and at axis ratios of 1 to 10; `sequence` measures the smoother;
`picture` draws `docs/images/few_pixels.png`, the case of the paper's Fig. 14.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from record import recorded
from scipy.optimize import least_squares

from jaxmem import ellipse as ell
from jaxmem.types import Outcome

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "few_pixels.png"
POINTS, SPURIOUS, FAILED = 200, 10, 5.0


class Arcs(NamedTuple):
    points: np.ndarray  # (n, 200, 2)
    truth: ell.Ellipse  # leading axis n
    neighbour: ell.Ellipse
    spread: np.ndarray  # (n,) standard deviation of the neighbour's parameters


def arcs(n: int, cover: tuple[float, float], seed: int = 0) -> Arcs:
    rng = np.random.default_rng(seed)
    long = rng.uniform(20, 80, n)
    axes = np.stack([long, long / rng.uniform(1, 4, n)], 1)
    angle, centre = rng.uniform(0, np.pi, n), rng.uniform(80, 120, (n, 2))
    t = rng.uniform(0, 2 * np.pi, (n, 1)) + 2 * np.pi * rng.uniform(*cover, (n, 1)) * rng.uniform(0, 1, (n, POINTS))
    along = np.stack([np.cos(angle), np.sin(angle)], 1)
    across = np.stack([-np.sin(angle), np.cos(angle)], 1)
    u = axes[:, None] * np.stack([np.cos(t), np.sin(t)], -1)
    points = centre[:, None] + u[..., :1] * along[:, None] + u[..., 1:] * across[:, None] + rng.normal(0, 1, u.shape)
    points[:, :SPURIOUS] = centre[:, None] + rng.uniform(-1.5, 1.5, (n, SPURIOUS, 2)) * long[:, None, None]
    points = points[:, rng.permutation(POINTS)].astype(np.float32)
    truth = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), ell.Ellipse(centre, axes, angle))
    theta = np.asarray(jax.vmap(ell.parameters)(truth))
    spread = 0.03 * axes.mean(1)
    moved = theta + spread[:, None] * rng.normal(size=theta.shape) * np.array([1, 1, 1, np.sqrt(0.5), 1])
    return Arcs(points, truth, jax.vmap(ell.from_parameters)(jnp.asarray(moved, jnp.float32)), spread)


@jax.jit
@jax.vmap
def off(found, true):
    """RMS distance of the true contour to the ellipse found."""
    away = jax.vmap(lambda p: ell.distance(found, p))(ell.boundary(true, 100))
    return jnp.nan_to_num(jnp.sqrt(jnp.mean(away**2)), nan=jnp.inf)


def report(name: str, seconds: float, error: np.ndarray, more: str = "") -> None:
    failed = 100 * np.mean(error > FAILED)
    median, most = np.quantile(error, [0.5, 0.9])
    print(f"| {name} | {len(error) / seconds:,.0f} | {median:.2f} | {most:.2f} | {failed:.2f} % | {more} |", flush=True)


def heading() -> None:
    print("\n| method | fits/s | RMS, median | RMS, 90 % | failed | notes |\n|---|---|---|---|---|---|")


def timed(function: Callable, *args, repeats: int = 5):
    result = jax.block_until_ready(function(*args))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        seconds.append(time.perf_counter() - start)
    return result, float(np.median(seconds))


def one_by_one(name: str, fit: Callable[[int, np.ndarray], tuple], data: Arcs, count: int) -> None:
    """A peer: `fit` gives row, column, two semi-axes and the angle of the first, from the rows towards the columns."""
    found, start = [], time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k in range(count):
            try:
                found.append(np.array(fit(k, data.points[k].astype(float)), float))
            except Exception:
                found.append(np.full(5, np.nan))
    seconds = time.perf_counter() - start
    values = np.stack(found).astype(np.float32)
    values[~(np.isfinite(values).all(1) & (np.abs(values) < 1e6).all(1) & (values[:, 2:4] > 0).all(1))] = np.nan
    shapes = ell.Ellipse(jnp.asarray(values[:, :2]), jnp.asarray(values[:, 2:4]), jnp.asarray(values[:, 4]))
    report(name, seconds, np.asarray(off(shapes, jax.tree.map(lambda a: a[:count], data.truth))), f"{count} fits")


def foot_distance(theta: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Orthogonal distances in NumPy, so that SciPy's solver is not slowed down by calls into JAX."""
    row, column, a, b, angle = theta
    a, b = abs(a) + 1e-6, abs(b) + 1e-6
    c, s = np.cos(angle), np.sin(angle)
    local = (points - [row, column]) @ np.array([[c, -s], [s, c]])
    x, y = np.abs(local[:, 0]), np.abs(local[:, 1]) + 1e-9
    short = min(a, b)
    first, second = (a - short) * (a + short), (b - short) * (b + short)
    lowest = np.maximum(a * x - first, b * y - second)
    root = lowest
    for _ in range(8):
        u, v = a * x / (root + first), b * y / (root + second)
        total = u * u + v * v
        slope = u * u / (root + first) + v * v / (root + second)
        root = np.maximum(root + (np.sqrt(total) - 1) * total / slope, lowest)
    normal = np.stack([x / (root + first), y / (root + second)], 1)
    normal /= np.linalg.norm(normal, axis=1)[:, None]
    return normal[:, 0] * x + normal[:, 1] * y - np.hypot(a * normal[:, 0], b * normal[:, 1])


def scipy_fit(data: Arcs, start: str) -> Callable:
    neighbour = np.concatenate([data.neighbour.centre, data.neighbour.semi_axes, data.neighbour.angle[:, None]], 1)
    moments = jax.jit(ell.moments)

    def fit(k, points):
        if start == "cold":
            cold = moments(jnp.asarray(points, jnp.float32), jnp.ones(POINTS, bool))
            begin = np.concatenate([cold.centre, cold.semi_axes, [cold.angle]])
        else:
            begin = neighbour[k]
        return least_squares(foot_distance, begin, loss="cauchy", f_scale=1.0, args=(points,)).x

    return fit


def peers(count: int) -> Iterable[tuple[str, Callable, int]]:
    """Those that are installed; the others are named as missing."""
    try:
        import cv2

        def opencv(method):
            def fit(_, points):
                (x, y), (width, height), degrees = method(points[:, ::-1].astype(np.float32))
                return y, x, width / 2, height / 2, np.pi / 2 - np.radians(degrees)

            return fit

        for method in ("fitEllipse", "fitEllipseAMS", "fitEllipseDirect"):
            yield f"OpenCV `{method}`", opencv(getattr(cv2, method)), count
    except ImportError:
        print("OpenCV is not installed: left out")
    from skimage.measure import EllipseModel, ransac

    def of_model(model):
        if not model:
            raise ValueError("no ellipse")
        (x, y), (a, b), angle = model.center, model.axis_lengths, model.theta
        return y, x, a, b, np.pi / 2 - angle

    yield "scikit-image `EllipseModel`", lambda _, p: of_model(EllipseModel.from_estimate(p[:, ::-1])), count // 5
    draw = {"min_samples": 5, "residual_threshold": 3.0, "max_trials": 100, "rng": 0}
    yield "scikit-image `ransac`", lambda _, p: of_model(ransac(p[:, ::-1], EllipseModel, **draw)[0]), count // 100
    try:
        from ellipse import LsqEllipse

        def direct(_, points):
            (x, y), a, b, angle = LsqEllipse().fit(points[:, ::-1]).as_parameters()
            return y, x, a, b, np.pi / 2 - angle

        yield "lsq-ellipse", direct, count // 5
    except ImportError:
        print("lsq-ellipse is not installed: left out")


def optimistix_batch() -> Callable | None:
    """Levenberg-Marquardt of Optimistix on the same distances, Cauchy loss as a change of the residuals; vmapped."""
    try:
        import optimistix
    except ImportError:
        print("Optimistix is not installed: left out")
        return None
    solver = optimistix.LevenbergMarquardt(rtol=1e-3, atol=1e-3)

    def fit(points):
        middle = points.mean(0)
        size = jnp.sqrt(jnp.mean((points - middle) ** 2) * 2)
        local = (points - middle) / size
        start = ell.parameters(ell.moments(local, jnp.ones(len(points), bool)))

        def residual(theta, _):
            ellipse = ell.from_parameters(theta)
            square = (jax.vmap(lambda p: ell.distance(ellipse, p))(local) * size) ** 2
            return jnp.sqrt(jnp.log1p(square) + 1e-12)

        found = optimistix.least_squares(residual, solver, start, max_steps=30, throw=False).value
        return ell.from_parameters(found * size + jnp.zeros(5).at[:2].set(middle))

    return jax.jit(jax.vmap(fit))


def direct_fits(count: int, cover: tuple[float, float]) -> tuple[Arcs, np.ndarray]:
    """Arcs with their mask, after a table of what the direct peers make of them was begun."""
    data = arcs(count, cover)
    heading()
    for name, fit, some in peers(count):
        one_by_one(name, fit, data, max(some, 1))
    return data, np.ones(data.points.shape[:2], bool)


def run_peers(count: int) -> None:
    data, mask = direct_fits(count, (0.5, 1.0))
    one_by_one("SciPy `least_squares`, Cauchy loss, orthogonal", scipy_fit(data, "cold"), data, count // 50)
    batch = optimistix_batch()
    if batch is not None:
        some = count // 10
        found, seconds = timed(batch, data.points[:some], repeats=1)
        truth = jax.tree.map(lambda a: a[:some], data.truth)
        report("Optimistix Levenberg-Marquardt, vmapped", seconds, np.asarray(off(found, truth)), f"{some} fits")
    ours = {
        "jaxmem, one `vmap` over all": jax.jit(jax.vmap(lambda p, m: ell.fit(p, m))),
        **{
            f"jaxmem, blocks of {block}": jax.jit(
                lambda p, m, block=block: jax.lax.map(lambda a: ell.fit(*a), (p, m), batch_size=block)
            )
            for block in (64, 250, 1000)
        },
        "jaxmem, Cauchy loss alone": jax.jit(jax.vmap(lambda p, m: ell.fit(p, m, loss="cauchy", noise=1 / 2.385))),
    }
    for name, fit in ours.items():
        found, seconds = timed(fit, data.points, mask)
        report(name, seconds, np.asarray(off(found.ellipse, data.truth)), codes(found))
    found = ours["jaxmem, one `vmap` over all"](data.points, mask)
    miss = np.asarray(jax.vmap(ell.parameters)(found.ellipse) - jax.vmap(ell.parameters)(data.truth))
    bar = np.sqrt(np.einsum("nii->ni", np.asarray(found.covariance)))
    good = np.asarray(found.success)
    z = np.abs(miss[good] / bar[good])
    print(
        f"\nError bars: {100 * np.mean(z < 1):.0f} % of the parameters within one, {100 * np.mean(z < 1.96):.0f} % within 1.96"
    )


def codes(found: ell.EllipseFit) -> str:
    share = {
        Outcome(int(c)).name: np.mean(np.asarray(found.outcome) == c) for c in np.unique(np.asarray(found.outcome))
    }
    return ", ".join(f"{name} {100 * value:.1f} %" for name, value in share.items())


def run_short(count: int) -> None:
    data, mask = direct_fits(count, (0.2, 0.3))
    one_by_one("SciPy, cold", scipy_fit(data, "cold"), data, count // 50)
    one_by_one("SciPy, warm", scipy_fit(data, "warm"), data, count // 50)
    ways = {
        "jaxmem, cold": jax.vmap(lambda p, m, e, s: ell.fit(p, m)),
        "jaxmem, warm": jax.vmap(lambda p, m, e, s: ell.fit(p, m, init=e)),
        "jaxmem, with prior": jax.vmap(lambda p, m, e, s: ell.fit(p, m, prior=ell.isotropic_prior(e, s, s))),
    }
    report("the neighbour itself", np.inf, np.asarray(off(data.neighbour, data.truth)))
    for name, way in ways.items():
        found, seconds = timed(jax.jit(way), data.points, mask, data.neighbour, data.spread.astype(np.float32))
        report(name, seconds, np.asarray(off(found.ellipse, data.truth)), codes(found))


def run_flat() -> None:
    """Whether an angle or an axis ratio is worse than others; 0.5 pixels of noise, the whole contour."""
    rng = np.random.default_rng(1)
    repeat = 40
    fit = jax.jit(jax.vmap(lambda p, m: ell.fit(p, m, noise=0.5)))

    def errors(axes, angle):
        axes, angle = np.repeat(axes, repeat, 0), np.repeat(angle, repeat)
        truth = ell.Ellipse(jnp.full((len(angle), 2), 60.0), jnp.asarray(axes), jnp.asarray(angle))
        turn = jax.vmap(lambda e: e.rotation)(truth)
        t = rng.uniform(0, 2 * np.pi, (len(angle), POINTS))
        u = np.stack([np.cos(t), np.sin(t)], -1) * axes[:, None]
        points = (60 + u @ np.asarray(turn) + rng.normal(0, 0.5, u.shape)).astype(np.float32)
        found = fit(points, np.ones(points.shape[:2], bool))
        away = np.asarray(off(found.ellipse, truth)).reshape(-1, repeat)
        return away, 100 * (1 - np.asarray(found.success).mean())

    angles = np.linspace(0, np.pi, 180, endpoint=False).astype(np.float32)
    away, failed = errors(np.tile(np.float32([30, 10]), (180, 1)), angles)
    by_angle = np.sqrt((away**2).mean(1))
    print(
        f"\n180 angles, axes 30 and 10: RMS {by_angle.min():.3f} to {by_angle.max():.3f}, median {np.median(by_angle):.3f}"
    )
    print(
        f"(40 fits an angle: chance alone spreads them by 6 %); worst fit {away.max():.2f}, codes not OK {failed:.2f} %\n"
    )
    print("| axis ratio | " + " | ".join(str(q) for q in range(1, 11)) + " |\n|---|" + "---|" * 10)
    rows = [errors(np.tile(np.float32([40, 40 / q]), (180, 1)), angles) for q in range(1, 11)]
    print("| RMS | " + " | ".join(f"{np.sqrt((a**2).mean()):.3f}" for a, _ in rows) + " |")
    print("| worst of 7,200 | " + " | ".join(f"{a.max():.2f}" for a, _ in rows) + " |")
    print("| code not OK | " + " | ".join(f"{f:.2f} %" for _, f in rows) + " |")


def vesicles(rng, count: int, slices: int, change: float, shares: Callable[[int], np.ndarray]):
    """Membranes whose parameters walk from slice to slice; in each slice a share of the contour is seen, one point a pixel."""
    size = rng.uniform(20, 45, count)
    theta = np.zeros((count, slices, 5))
    theta[:, 0] = np.stack([np.full(count, 90.0)] * 2 + [size, 0.1 * size * rng.normal(size=count), 0.8 * size], 1)
    step = change * size[:, None, None] * np.array([1, 1, 1, np.sqrt(0.5), 1])
    theta[:, 1:] = step * rng.normal(size=(count, slices - 1, 5))
    truth = jax.vmap(jax.vmap(ell.from_parameters))(jnp.asarray(theta.cumsum(1), jnp.float32))
    contour = np.asarray(jax.vmap(jax.vmap(lambda e: ell.boundary(e, 256)))(truth))
    points = np.zeros((count, slices, 128, 2), np.float32)
    mask = np.zeros((count, slices, 128), bool)
    for m in range(count):
        for z, share in enumerate(shares(slices)):
            n = round(share * 100)
            start, wide = rng.integers(256), max(int(256 * share), 1)
            points[m, z, :n] = contour[m, z, (start + rng.integers(0, wide, n)) % 256] + rng.normal(0, 1, (n, 2))
            mask[m, z, :n] = True
    return points, mask, truth


def run_sequence() -> None:
    print(
        "\n| seen | change | cold | warm starts outwards | with the smoother | membranes/s |\n|---|---|---|---|---|---|"
    )
    slices = 48

    def falling(n):
        return np.clip(1.0 - np.abs(np.arange(n) - n / 2) / (n / 2), 0.08, 1.0)

    def patchy(n):
        return np.random.default_rng(3).choice([0.1, 0.1, 0.3, 0.6], n)

    cold = jax.jit(jax.vmap(jax.vmap(lambda p, m: ell.fit(p, m).ellipse)))
    for name, shares in (("less outwards", falling), ("10 to 60 %, by chance", patchy)):
        for change in (0.01, 0.02):
            points, mask, truth = vesicles(np.random.default_rng(7), 48, slices, change, shares)
            cells = [np.median(np.asarray(jax.vmap(off)(cold(points, mask), truth)))]
            for rounds in (0, 6):
                several = jax.jit(jax.vmap(lambda p, m, r=rounds, c=change: ell.fit_sequence(p, m, change=c, rounds=r)))
                found, seconds = timed(several, points, mask, repeats=3)
                cells.append(np.sqrt(np.mean(np.asarray(jax.vmap(off)(found.ellipse, truth)) ** 2)))
            print(
                f"| {name} | {change} | {cells[0]:.2f} (median) | {cells[1]:.2f} | {cells[2]:.2f} | {len(points) / seconds:.0f} |",
                flush=True,
            )


def draw_picture(path: Path) -> None:
    """An inner vesicle with a few pixels on one slice and many twenty slices away (paper, Fig. 14)."""
    rng = np.random.default_rng(9)
    slices, many, few = 24, 2, 22
    points, mask = np.zeros((slices, 64, 2), np.float32), np.zeros((slices, 64), bool)
    truth = [
        ell.Ellipse(jnp.array([50.0, 50.0]), jnp.array([25 - 0.1 * z, 20 - 0.1 * z]), jnp.array(0.3))
        for z in range(slices)
    ]
    for z in range(slices):
        n, arc = (60, 2 * np.pi) if z < 4 else (8, 1.2)
        t = 0.2 + arc * rng.uniform(0, 1, n)
        u = np.stack([np.cos(t), np.sin(t)], 1) * np.asarray(truth[z].semi_axes)
        points[z, :n] = 50 + u @ np.asarray(truth[z].rotation) + rng.normal(0, 0.5, (n, 2))
        mask[z, :n] = True
    found = jax.jit(ell.fit_sequence)(points, mask)
    cold = jax.jit(ell.fit)(points[few], mask[few])
    bar = jax.jit(jax.vmap(ell.boundary_sigma, (None, 0)))
    figure = Figure(figsize=(10.5, 3.6))
    for column, z in enumerate((many, few)):
        axes = figure.add_subplot(1, 3, column + 1, aspect="equal")
        one = jax.tree.map(lambda a, z=z: a[z], found)
        rim = np.asarray(ell.boundary(one.ellipse, 200))
        outward = rim - 50
        wide = 2 * np.asarray(bar(one, rim))[:, None] * outward / np.linalg.norm(outward, axis=1)[:, None]
        band = np.concatenate([rim + wide, (rim - wide)[::-1]])
        axes.fill(*band[:, ::-1].T, color="#1f77b4", alpha=0.25, linewidth=0, label="two standard deviations")
        axes.plot(*rim[:, ::-1].T, color="#1f77b4", label="from all slices")
        axes.plot(*np.asarray(ell.boundary(truth[z], 200))[:, ::-1].T, "k--", linewidth=0.8, label="truth")
        if z == few:
            alone = np.asarray(ell.boundary(cold.ellipse, 200))
            axes.plot(*alone[:, ::-1].T, color="#d62728", linewidth=1.2, label="from these pixels alone")
        axes.plot(*points[z][mask[z]][:, ::-1].T, ".", color="#ff7f0e", markersize=5, label="pixels")
        axes.set(xlim=(20, 80), ylim=(80, 20), title=f"slice {z}: {mask[z].sum()} pixels")
        axes.tick_params(labelbottom=False, labelleft=False)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.03), ncols=2, frameon=False)
    axes = figure.add_subplot(1, 3, 3)
    error = jax.jit(jax.vmap(ell.errors))(found)
    for i, name in enumerate(("longer", "shorter")):
        axes.errorbar(
            np.arange(slices), found.ellipse.semi_axes[:, i], 2 * np.asarray(error.semi_axes[:, i]), fmt=".", label=name
        )
        axes.plot([float(e.semi_axes[i]) for e in truth], "k--", linewidth=0.8)
    axes.set(xlabel="slice", title="semi-axes, pixels")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["peers", "short", "flat", "sequence", "picture"])
    parser.add_argument("--count", type=int, default=10000, help="arcs that jaxmem and OpenCV fit")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    args = parser.parse_args()
    print(f"JAX {jax.__version__} on {jax.devices()[0].device_kind}")
    if "peers" in args.parts:
        run_peers(args.count)
    if "short" in args.parts:
        run_short(args.count)
    if "flat" in args.parts:
        run_flat()
    if "sequence" in args.parts:
        run_sequence()
    if "picture" in args.parts:
        draw_picture(args.picture)


if __name__ == "__main__":
    with recorded("ellipses"):
        main()
