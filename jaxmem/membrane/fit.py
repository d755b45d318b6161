"""The fit of one membrane, from its points to its surface."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmem import anchors as anc
from jaxmem import ellipse as ell
from jaxmem import gp
from jaxmem.defaults import FROM_MASK, decided, known
from jaxmem.membrane.learning import AMPLITUDE, LEARN_ROWS, STEPS, Problem, learn, root_mean_square, solve
from jaxmem.membrane.surface import Surface
from jaxmem.numerics import cleaned, compiled, safe_norm
from jaxmem.settings import Config, FitConfig
from jaxmem.types import Outcome, Scalar


class MembraneInfo(NamedTuple):
    """What was learnt on the way: noise of the points in voxels, the anchors' factor, amplitude of the prior in voxels, and
    the logarithm of the posterior density of these."""

    noise: Float[Array, ""]
    trust: Float[Array, ""]
    amplitude: Float[Array, ""]
    log_posterior: Float[Array, ""]


class MembraneFit(NamedTuple):
    """A fitted membrane: its surface, an `Outcome`, and what was learnt."""

    params: Surface
    outcome: Int[Array, ""]
    info: MembraneInfo

    @property
    def surface(self) -> Surface:
        """The same as `params`."""
        return self.params

    @property
    def success(self) -> Bool[Array, ""]:
        """Whether `outcome` is OK."""
        return jnp.equal(self.outcome, Outcome.OK)


def evaluate(surface: Surface, point: Float[Array, " d"]) -> Float[Array, ""]:
    """The surface's function at one point, voxels."""
    return surface(point)


@compiled(static=("config", "steps"))
def fit_membrane(
    points: Float[Array, "n d"],
    mask: Bool[Array, " n"] | None = None,
    *,
    noise: Scalar | Float[Array, " n"] = 0.8,
    normals: Float[Array, "n d"] | None = None,
    prior: ell.Quadric | None = None,
    alpha: Scalar | None = None,
    config: FitConfig | None = None,
    steps: tuple[int, ...] = STEPS,
) -> MembraneFit:
    """The surface of one membrane through its points, with its error bars (paper, Section 5.2).

    A membrane closes around a centre, unless normals are given: then it is open, and ends where it is no longer known. The points
    are used as they are; a tomogram's are thinned before (`points.evenly`), and their normals oriented (`points.orient`).

    Arguments:
        points: (n, 3) or (n, 2) on the membrane, voxels.
        mask: rows that count; all when None. The others may hold anything, NaN included.
        noise: standard deviation of the points' positions, of each or of all, voxels: a start, from which it is learnt.
        normals: of an open membrane, oriented unit normals of any length but zero.
        prior: ellipsoid (ellipse) that a closed membrane is expected to be near; fitted to the points when None.
        alpha: distance of the anchors over that of the points (paper, Fig. 15); `config.alpha` when None.
        config: `alpha`, `rays`, `shape_sigma`, `offset`, `inflation`, `least_noise`, `bars` and `inducing` count; left open, points are taken
            to be independent, as a mask's. Static under jit.
        steps: of the optimiser in each round of learning. Static under jit.

    Returns:
        Differentiable in points, noise, normals, prior and alpha. Which points get anchors, and which stand for all of them, are choices
        that have no gradient.

    Raises:
        ValueError: at trace, if shapes disagree.

    Example:
        >>> turn = jnp.linspace(0.0, 5.75, 24)
        >>> ring = jnp.stack([jnp.sin(turn), jnp.cos(turn)], 1)
        >>> found = fit_membrane(50.0 + 10.0 * ring, noise=0.3)
        >>> radius = found.surface.locate(jnp.array([50.0, 61.0]), jnp.array([0.0, 1.0]))[1] - 50.0
        >>> Outcome(int(found.outcome)).name, round(float(radius), 1)
        ('OK', 10.0)
    """
    n, d = points.shape
    if n == 0 or d not in (2, 3) or (normals is not None and normals.shape != points.shape):
        raise ValueError(
            f"fit_membrane: expected points (n, 2) or (n, 3) with n > 0, and normals of the same shape; got {points.shape}"
            + ("" if normals is None else f" and {normals.shape}")
        )
    config = decided(Config(fit=config or FitConfig()), fit=FROM_MASK["fit"]).fit
    mask = jnp.ones(n, bool) if mask is None else mask
    dtype = points.dtype
    points = cleaned(points, mask)
    noise = jnp.where(mask, jnp.broadcast_to(jnp.asarray(noise, dtype), (n,)), 1.0)
    alpha = jnp.asarray(config.alpha if alpha is None else alpha, dtype)
    centre = jnp.sum(jnp.where(mask[:, None], points, 0.0), 0) / jnp.maximum(mask.sum(), 1).astype(dtype)
    trend: gp.Trend = gp.Zero()
    if normals is None:
        shape = _ellipsoid(points, mask) if prior is None else prior
        chosen = _spread_out(points, mask, config.rays)
        extra = anc.by_rays(points[chosen], shape.centre, mask[chosen], alpha=alpha)
        trend = gp.Ellipsoid(shape._replace(centre=shape.centre - centre), jnp.asarray(config.shape_sigma, dtype))
    else:
        facing = cleaned(normals, mask).astype(dtype)
        facing = facing / jnp.maximum(safe_norm(facing), 1e-6)[:, None]
        chosen = _spread_out(points, mask, LEARN_ROWS)
        extra = anc.by_normals(points[chosen], facing[chosen], config.offset, mask[chosen])
    x = jnp.concatenate([points, extra.points]) - centre[None]
    real = jnp.concatenate([mask, extra.mask])
    x = jnp.where(real[:, None], x, 0.0)
    reach = jnp.max(safe_norm(x))
    # corners of the box, and a little more: wherever the surface may be asked about
    R = gp.Cubic.margin * 2.0 * (reach + config.offset)
    problem = Problem(
        x,
        jnp.concatenate([jnp.zeros(n, dtype), extra.values]),
        jnp.concatenate([noise, extra.sigma]),
        jnp.arange(len(x)) < n,
        real,
        ((AMPLITUDE if normals is None else 1.0) * reach) ** 2,
        R,
        trend,
        jnp.zeros((len(x), 0), dtype),
    )
    learned = learn(_few(problem, n), known(config.least_noise), known(config.inflation), steps)
    posterior = solve(learned, problem, known(config.inflation), config.bars, known(config.inducing), fast=False)
    typical = root_mean_square(noise, mask.astype(dtype))
    outcome = jnp.where(learned.posterior.success, posterior.outcome, learned.posterior.outcome)
    info = MembraneInfo(
        learned.noise * typical, learned.trust, jnp.sqrt(learned.posterior.kernel.variance), learned.log_posterior
    )
    return MembraneFit(Surface(posterior, centre), outcome, info)


def _ellipsoid(points: Array, mask: Array) -> ell.Quadric:
    """An ellipsoid through the points, held by a wide prior where they say nothing."""
    start = ell.sphere_through(points, mask)
    size = start.semi_axes.mean()
    prior = ell.isotropic_prior(start, 3.0 * size, 3.0 * size)
    return ell.fit(points, mask, prior=prior, loss="cauchy", noise=0.85, iterations=30).ellipse


def _spread_out(points: Array, mask: Array, most: int) -> Array:
    """Indices of at most `most` rows, evenly spread."""
    return jnp.arange(len(points)) if len(points) <= most else gp.inducing(points, most, mask)


def _few(problem: Problem, n: int) -> Problem:
    """At most `LEARN_ROWS` rows, of which the first n are points: five eighths points at least."""
    if len(problem.points) <= LEARN_ROWS:
        return problem
    anchors = len(problem.points) - n
    room = LEARN_ROWS - min(anchors, LEARN_ROWS * 3 // 8)
    rows = [
        _spread_out(problem.points[:n], problem.mask[:n], room),
        n + _spread_out(problem.points[n:], problem.mask[n:], LEARN_ROWS - room),
    ]
    some = jnp.concatenate(rows)
    few = {k: getattr(problem, k)[some] for k in ("points", "values", "sigma", "data", "mask", "shared")}
    return problem._replace(**few)
