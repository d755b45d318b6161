"""One robust fit of an ellipse or an ellipsoid to points, with a prior, bounds, error bars and a result code."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmem.ellipse.descent import LOSSES, Problem, inverse, minimise, summary
from jaxmem.ellipse.geometry import Quadric, distance, from_parameters, parameters
from jaxmem.ellipse.starts import moments
from jaxmem.numerics import compiled, safe_sqrt
from jaxmem.types import Outcome, Scalar


class Prior(NamedTuple):
    """A normal distribution of the parameters (see `parameters`) around an ellipse.

    Attributes:
        ellipse: the mean.
        covariance: (p, p), voxels^2.
    """

    ellipse: Quadric
    covariance: Float[Array, "p p"]


class Bounds(NamedTuple):
    """Limits within which a fit stays.

    Attributes:
        semi_axes: least and greatest, voxels.
        centre: lowest and highest corner of a box, voxels.
    """

    semi_axes: Float[Array, " 2"]
    centre: Float[Array, "2 d"]


class EllipseFit(NamedTuple):
    """A fitted ellipse or ellipsoid.

    Attributes:
        ellipse: the estimate; what came out even where `outcome` is not OK.
        outcome: an `Outcome`.
        sigma: standard deviation of the points about the ellipse, voxels, robust.
        covariance: of `parameters(ellipse)`, voxels^2, for points whose errors are independent.
        cost: what was minimised, over noise^2.
    """

    ellipse: Quadric
    outcome: Int[Array, ""]
    sigma: Float[Array, ""]
    covariance: Float[Array, "p p"]
    cost: Float[Array, ""]

    @property
    def success(self) -> Bool[Array, ""]:
        """Whether `outcome` is OK."""
        return jnp.equal(self.outcome, Outcome.OK)

    @property
    def params(self) -> Quadric:
        """What `evaluate` takes: the ellipse."""
        return self.ellipse

    @property
    def info(self) -> dict[str, Array]:
        """What there is to know besides the ellipse: `sigma`, `covariance` and `cost`."""
        return {"sigma": self.sigma, "covariance": self.covariance, "cost": self.cost}


class Errors(NamedTuple):
    """Standard deviations of an ellipse's parameters: voxels, and radians (of each turn about an axis in 3D)."""

    centre: Float[Array, " d"]
    semi_axes: Float[Array, " d"]
    angle: Float[Array, "*turns"]


def isotropic_prior(ellipse: Quadric, centre: Scalar, size: Scalar) -> Prior:
    """A prior that does not prefer any direction: standard deviations in voxels of the centre and of every semi-axis."""
    d = ellipse.centre.shape[0]
    rows, columns = jnp.triu_indices(d)
    dtype = ellipse.centre.dtype
    shape = jnp.where(rows == columns, 1.0, 0.5).astype(dtype) * jnp.asarray(size, dtype) ** 2
    variance = jnp.concatenate([jnp.full(d, jnp.asarray(centre, dtype) ** 2), shape])
    return Prior(ellipse, jnp.diag(variance))


@compiled
def errors(fit: EllipseFit) -> Errors:
    """Standard deviations of centre, semi-axes and directions, by the delta method.

    An angle's error is at most that of a direction of which nothing is known, pi / sqrt(12), as for a circle.
    """
    d = fit.ellipse.centre.shape[0]
    turn, axes = fit.ellipse.rotation, fit.ellipse.semi_axes
    pairs = [(i, j) for i in range(d) for j in range(i, d)]
    # change of the matrix in the frame of the axes, for each parameter
    unit = jnp.stack([jnp.zeros((d, d), axes.dtype).at[i, j].set(1.0).at[j, i].set(1.0) for i, j in pairs])
    change = jnp.einsum("ai,kij,bj->kab", turn, unit, turn)
    shape = fit.covariance[d:, d:]
    lengths = [change[:, i, i] @ shape @ change[:, i, i] for i in range(d)]
    angles = []
    for i in range(d):
        for j in range(i + 1, d):
            variance = change[:, i, j] @ shape @ change[:, i, j]
            most = jnp.pi**2 / 12.0
            angles.append(
                jnp.sqrt(jnp.minimum(variance / jnp.maximum((axes[i] - axes[j]) ** 2, variance / most), most))
            )
    centre = jnp.sqrt(jnp.diagonal(fit.covariance)[:d])
    return Errors(centre, jnp.sqrt(jnp.stack(lengths)), angles[0] if d == 2 else jnp.stack(angles))


@compiled
def boundary_sigma(fit: EllipseFit, point: Float[Array, " d"]) -> Float[Array, ""]:
    """Standard deviation in voxels of the ellipse's position, across it, where it is closest to a point."""
    slope = jax.grad(lambda theta: distance(from_parameters(theta), point))(parameters(fit.ellipse))
    # what rounding may leave of a quadratic form is not taken for certainty
    least = jnp.finfo(slope.dtype).eps * fit.sigma**2
    return safe_sqrt(jnp.maximum(slope @ fit.covariance @ slope, least))


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _attach(theta: Array, problem: Problem, loss: str) -> Array:
    """theta, with the derivatives that the minimum has by the implicit function theorem."""
    return theta


@_attach.defjvp
def _attach_jvp(loss, primals, tangents):
    theta, problem = primals

    def cost(theta, problem):
        ellipse = from_parameters(theta)
        r = problem.over_noise(jax.vmap(lambda point: distance(ellipse, point))(problem.points))
        constant, rho, _ = LOSSES[loss]
        width, off = constant * problem.noise, theta - problem.mean
        return (
            width**2 * jnp.sum(problem.weight * rho((r / width) ** 2))
            + problem.noise**2 * off @ problem.precision @ off
        )

    slope = jax.grad(cost)
    _, mixed = jax.jvp(lambda problem: slope(theta, problem), (problem,), (tangents[1],))
    hessian = jax.jacfwd(slope)(theta, problem)
    floor = 1e-6 * jnp.trace(hessian) / len(theta) * jnp.eye(len(theta), dtype=theta.dtype)
    return theta, -jnp.linalg.solve(hessian + floor, mixed)


@compiled(static=("loss", "iterations"))
def fit(
    points: Float[Array, "n d"],
    mask: Bool[Array, " n"] | None = None,
    *,
    init: Quadric | None = None,
    prior: Prior | None = None,
    bounds: Bounds | None = None,
    loss: str = "biweight",
    noise: Scalar | Float[Array, " n"] = 1.0,
    iterations: int = 8,
) -> EllipseFit:
    """Robust least squares on orthogonal distances (paper, Sections 4.3.1 and 5.1).

    Minimises sum_i rho(d_i / noise) + (theta - m)^T C^-1 (theta - m), where theta are the `parameters` and m, C those of the
    prior, by Levenberg-Marquardt: first with a narrow Cauchy loss, which finds its way from a poor start, then with
    `loss`. One example; batch it with `jax.vmap`, on a processor in blocks of a thousand (`jax.lax.map` with `batch_size`): they fit the
    cache, and 1.3 to 2 times as many are done in a second as under one `vmap` over all.

    Arguments:
        points: (n, 2) or (n, 3), voxels; rows that are not in `mask` may hold anything, NaN included.
        mask: rows that count; all when None.
        init: where to start; the prior's ellipse if None, and without a prior the points' `moments`.
        prior: a normal distribution of the parameters, such as what the neighbouring slice says; see `isotropic_prior`.
        bounds: limits of semi-axes and centre; by default half a voxel and 50 times the points' own size.
        loss: "biweight" (points beyond 4.7 noise count for nothing), "cauchy", "huber" or "squares".
        noise: standard deviation of the good points' distances, of each or of all, voxels.
        iterations: of each of the two phases.

    Returns:
        Differentiable in points, prior and noise, by the implicit function theorem; not in `init` and `bounds`.

    Raises:
        ValueError: if shapes do not fit or the loss is unknown.

    Example:
        >>> t = jnp.linspace(0.0, 4.0, 30)  # two thirds of the contour
        >>> found = fit(jnp.stack([9 + 8 * jnp.cos(t), 9 + 5 * jnp.sin(t)], 1), noise=0.5)
        >>> Outcome(int(found.outcome)).name, found.ellipse.semi_axes.round(2).tolist()
        ('OK', [8.0, 5.0])
    """
    mask = jnp.ones(points.shape[0], bool) if mask is None else mask
    if points.ndim != 2 or points.shape[1] not in (2, 3) or mask.shape != points.shape[:1]:
        raise ValueError(f"expected points (n, 2) or (n, 3) and mask (n,), got {points.shape} and {mask.shape}")
    if loss not in LOSSES:
        raise ValueError(f"expected one of the losses {', '.join(LOSSES)}, got {loss!r}")
    unroll = points.shape[1] == 2
    return solve(points, mask, init, prior, bounds, loss, noise, iterations, unroll)


def solve(
    points: Float[Array, "n d"],
    mask: Bool[Array, " n"],
    init: Quadric | None,
    prior: Prior | None,
    bounds: Bounds | None,
    loss: str,
    noise: Scalar | Float[Array, " n"],
    iterations: int,
    unroll: bool,
) -> EllipseFit:
    """`fit` without its checks, with the same arguments and result; `unroll` trades time to compile for speed (see `descent`)."""
    d = points.shape[1]
    p = d + d * (d + 1) // 2
    dtype = points.dtype
    fixed = jax.lax.stop_gradient
    weight = mask.astype(dtype)
    count = weight.sum()
    points = jnp.where(mask[:, None], points, 0.0)
    noise, relative = jnp.asarray(noise, dtype), None
    if noise.ndim:
        each = jnp.where(mask, noise, 1.0)
        noise = jnp.sqrt(jnp.sum(weight * each**2) / jnp.maximum(count, 1.0) + jnp.where(count > 0, 0.0, 1.0))
        relative = each / noise
    middle = fixed((weight[:, None] * points).sum(0) / jnp.maximum(count, 1.0))
    if prior is not None:
        middle = fixed(prior.ellipse.centre)
    local = jnp.where(mask[:, None], points - middle[None], 1.0)
    size = jnp.sqrt(fixed(jnp.sum(weight[:, None] * local**2)) / jnp.maximum(count, 1.0)) + 1e-3
    if prior is not None:
        size = fixed(jnp.max(prior.ellipse.semi_axes))
    shift = jnp.zeros(p, dtype).at[:d].set(middle)

    if prior is None:
        mean, precision = jnp.zeros(p, dtype), jnp.zeros((p, p), dtype)
    else:
        mean = (parameters(prior.ellipse) - shift) / size
        precision = inverse(prior.covariance / size**2, unroll)
    problem = Problem(local / size, weight, mean, precision, noise / size, relative)
    if init is None and prior is None:
        start = parameters(moments(problem.points, mask))
    else:
        start = (parameters(init if init is not None else prior.ellipse) - shift) / size  # type: ignore[union-attr]
    if bounds is None:
        limits = (0.5 / size, jnp.asarray(50.0, dtype), jnp.full(d, -jnp.inf, dtype), jnp.full(d, jnp.inf, dtype))
    else:
        corners = (bounds.centre - middle[None]) / size
        limits = (bounds.semi_axes[0] / size, bounds.semi_axes[1] / size, corners[0], corners[1])
    theta, cost, left = minimise(*fixed((problem, start, limits)), loss, iterations, unroll)
    theta = _attach(theta, problem, loss)
    data, _, _, variance = summary(theta, problem, loss)
    information = data / variance + precision
    # directions of which nothing is known are given the error of 1,000 sizes, or what rounding lets one tell
    floor = 1e-6 + 8.0 * jnp.finfo(dtype).eps * jnp.trace(information)
    covariance = inverse(information + floor * jnp.eye(p, dtype=dtype), unroll)
    least = p if prior is None else 1
    outcome = jnp.where(left > 0.1 * variance, int(Outcome.NOT_CONVERGED), int(Outcome.OK))
    result = EllipseFit(from_parameters(theta), outcome, jnp.sqrt(variance), covariance, cost / problem.noise**2)
    return conclude(result, theta, count, least, limits, size, shift)


def conclude(
    local: EllipseFit, theta: Array, count: Array, least: int, limits: tuple, size: Array, shift: Array
) -> EllipseFit:
    """A fit in voxels from one in units of `size`, with the outcome that is worst about it."""
    axes = local.ellipse.semi_axes
    spread = errors(local).semi_axes
    outcome = jnp.select(
        [
            count == 0,
            count < least,
            ~(jnp.isfinite(theta).all() & jnp.isfinite(local.covariance).all()),
            axes.min() <= jnp.maximum(1.001 * limits[0], 3.0 * local.sigma),
            (axes.max() >= 0.999 * limits[1]) | (spread > 0.5 * axes).any(),
        ],
        [
            jnp.asarray(int(o))
            for o in (Outcome.EMPTY, Outcome.TOO_FEW, Outcome.NOT_FINITE, Outcome.TOO_SMALL, Outcome.UNDETERMINED)
        ],
        local.outcome,
    )
    ellipse = from_parameters(theta * size + shift)
    return EllipseFit(ellipse, outcome.astype(jnp.int32), local.sigma * size, local.covariance * size**2, local.cost)
