"""Every gradient is right or refused: forward, reverse, compiled, batched, at singular points, in both precisions.

A table holds every public function of the mathematical core with arguments that it can be differentiated at; a second one those
that have no gradient, and why. What is in neither fails.
"""

import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmem import anchors, density, gp, levelset, measure, membrane, numerics, preprocess, ridges
from jaxmem import ellipse as ell

RNG = np.random.default_rng(0)
T = np.linspace(0.0, 5.5, 14)
RING = np.stack([10.0 * np.sin(T), 8.0 * np.cos(T)], 1) + RNG.normal(0.0, 0.1, (14, 2))
U = RNG.normal(size=(16, 3))
U /= np.linalg.norm(U, axis=1, keepdims=True)
SHELL = 10.0 * U + RNG.normal(0.0, 0.2, U.shape)
SQUARE = RNG.normal(size=(4, 4)) + 4.0 * np.eye(4)
COVARIANCE = 0.1 * np.eye(5) + 0.02
IMAGE = RNG.normal(size=(8, 8))
VOLUME = RNG.normal(size=(6, 6, 6))
BAND = np.exp(-0.5 * (np.hypot(*(np.indices((16, 16)) - 7.6)) - 5.0) ** 2 / 1.5**2)
ON_BAND = np.round(np.stack([7.6 + 5.0 * np.sin(T), 7.6 + 5.0 * np.cos(T)], 1)).astype(int)


def const(values):
    """An array of the precision that is set; JAX keeps what it made of a NumPy array, so of a copy."""
    return jnp.asarray(np.array(values), float)


def ellipse(axes=(10.0, 7.0), angle=0.4, centre=(1.0, 2.0)):
    return ell.Ellipse(*(jnp.asarray(a, float) for a in (centre, axes, angle)))


def ellipsoid(axes=(10.0, 8.0, 7.0)):
    return ell.from_stretch(jnp.arange(3.0), jnp.diag(jnp.asarray(axes, float)))


def tilts():
    return density.Wedge(*(jnp.asarray(a) for a in (-45.0, 45.0, 0.0)))


PROFILE = -np.exp(-0.5 * ((np.arange(-8, 8.5, 0.5) - 0.33) / 1.5) ** 2) + 0.01 * RNG.normal(size=33)


def box():
    """An upright plane within a small volume, and three nodes."""
    plane = jnp.broadcast_to(jnp.arange(6.0)[None, None] - 2.4, (6, 6, 6))
    weights = jnp.full((216, 2), 0.5)
    nodes = jnp.stack([jnp.arange(216) % 3, (jnp.arange(216) // 6) % 3], 1)
    return density.Box(plane, jnp.arange(216), nodes, weights)


def template():
    return density.two_leaflets(14.0, 8.0)(0.25 * (jnp.arange(45.0) - 22.0))


def placed(profile, amplitude):
    return tuple(density.place(profile, template(), density.whitening(0.01 * jnp.eye(17)), amplitude, 0.3))


def closed(noise=0.3, variance=4.0):
    """A process about a circle: what most functions are asked about."""
    return gp.fit(const(RING), jnp.zeros(14), noise=noise, prior=prior(variance))


def prior(variance=4.0):
    kernel = gp.ThinPlate(jnp.asarray(variance, float), jnp.asarray(60.0))
    return gp.Prior(kernel, gp.Ellipsoid(ell.ball(jnp.zeros(2), 9.0), jnp.asarray(0.3)))


def solid(noise=0.3):
    kernel = gp.Cubic(jnp.asarray(4.0), jnp.asarray(60.0))
    trend = gp.Ellipsoid(ell.ball(jnp.zeros(3), 9.5), jnp.asarray(0.3))
    return gp.fit(const(SHELL), jnp.zeros(16), noise=noise, prior=gp.Prior(kernel, trend))


def learnt(points, noise):
    group = jnp.where(jnp.arange(14) < 9, 0, 1)
    options = {"floor": jnp.array([0.01, 0.01]), "ceiling": jnp.array([20.0, 20.0]), "log_sigma": jnp.full(3, 1.0)}
    found = gp.learn(
        points, jnp.zeros(14).at[9:].set(1.0), noise=noise, prior=prior(), group=group, steps=40, **options
    )
    return jnp.concatenate([found.scales, found.prior.kernel.variance[None], found.log_posterior[None], found.error])


def fitted(points, noise, alpha, **options):
    found = membrane.fit_membrane(
        points, noise=noise, alpha=alpha, prior=ell.ball(jnp.zeros(2), 9.0), steps=(40, 40), **options
    )
    return found.surface(jnp.array([9.0, 2.0])), found.info.noise


def known(axes, covariance):
    """A fit whose ellipse and covariance are given, so that a case need not differentiate the search as well."""
    return ell.EllipseFit(ellipse(axes), jnp.asarray(0), jnp.asarray(0.3), covariance, jnp.asarray(1.0))


def through_the_fit(points):
    """All error bars of a fit, of its parameters and of its place: one program, because the fit is most of each."""
    found = ell.fit(points, noise=0.3)
    return tuple(ell.errors(found)), ell.boundary_sigma(found, const(P2))


def drawn(noise):
    return gp.sample(jax.random.key(0), closed(noise), const(RING[:4] * 1.05), 2)


def unit_mesh(scale):
    """An octahedron: vertices in voxels, faces, and the curvatures of the sphere it stands for."""
    vertices = scale * jnp.concatenate([jnp.eye(3), -jnp.eye(3)])
    faces = jnp.array([[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]])
    return vertices, faces, jnp.full(6, 0.1), jnp.full(6, 0.01)


def transfer():
    return measure.Transfer(jnp.array([1.0, -0.7, -0.1, 0.3]))


def two_leaflets_at(profile, amplitude):
    whitener = density.whitening(jnp.eye(17, dtype=profile.dtype))
    found = measure.leaflets(
        profile,
        jnp.arange(-4.0, 4.5, 0.5, dtype=profile.dtype),
        jnp.arange(2.0, 5.0, 0.5, dtype=profile.dtype),
        jax.tree.map(lambda a: a.astype(profile.dtype), transfer()),
        whitener,
        amplitude,
    )
    return found.distance, found.log_odds


class Case(NamedTuple):
    """A function of floats, what it is differentiated at, and where it is singular; `loose` where a search ends before its last digits."""

    function: object
    at: tuple
    singular: tuple = ()
    loose: bool = False


P2, P3 = np.array([7.0, 6.5]), np.array([6.0, 5.0, 5.5])
CASES = {
    "numerics.safe_norm": Case(numerics.safe_norm, (SHELL,), ((np.zeros((2, 3)),),)),
    "numerics.safe_sqrt": Case(numerics.safe_sqrt, (np.array([1.0, 4.0]),), ((np.array([0.0, -1e-9]),),)),
    "numerics.unit": Case(numerics.unit, (SHELL,), ((np.zeros((2, 3)),),)),
    "numerics.cleaned": Case(lambda x: numerics.cleaned(x, jnp.arange(16) < 9), (SHELL,), ((np.full((16, 3), np.nan),),)),
    "numerics.inverse_lower": Case(lambda a: numerics.inverse_lower(jnp.tril(a)), (SQUARE,)),
    "numerics.square_of_lower": Case(lambda a: numerics.square_of_lower(jnp.tril(a)), (SQUARE,)),
    "preprocess.normalised_stack": Case(preprocess.normalised_stack, (VOLUME[..., :5],), ((np.ones((8, 8, 3)),),)),
    "preprocess.robust_normalise": Case(preprocess.robust_normalise, (IMAGE,), ((np.ones((8, 8)),),)),
    "preprocess.safe_std": Case(preprocess.safe_std, (IMAGE,), ((np.ones((8, 8)),),)),
    "preprocess.gaussian": Case(lambda a: preprocess.gaussian(a, (1.0, 1.0)), (IMAGE,), ((np.ones((8, 8)),),)),
    "preprocess.band_pass": Case(lambda a: preprocess.band_pass(a, 0.05, 0.3), (IMAGE,), ((np.ones((8, 8)),),)),
    "preprocess.enhance_contrast": Case(lambda a: preprocess.enhance_contrast(a, 2.0), (IMAGE,), ((np.ones((8, 8)),),)),
    "preprocess.rescale": Case(lambda a: preprocess.rescale(a, (5, 5)), (IMAGE,), ((np.ones((8, 8)),),)),
    "ridges.refine": Case(lambda a: ridges.refine(a, jnp.asarray(ON_BAND)).points, (BAND,), ((np.zeros((16, 16)),),)),
    "ellipse.area": Case(lambda a: (ell.area(ellipse(a)), ell.area(ellipsoid((9.0, 8.0, 7.0))._replace(semi_axes=jnp.append(a, 5.0)))), (np.array([10.0, 7.0]),), ((np.array([7.0, 7.0]),),)),
    "ellipse.ball": Case(lambda r: ell.ball(jnp.zeros(3), r).semi_axes, (np.array(3.0),)),
    "ellipse.bic": Case(lambda r: ell.bic(r, jnp.arange(14) < 9, 5.0), (RING[:, 0],), ((np.zeros(14),),)),
    "ellipse.boundary": Case(lambda a: ell.boundary(ellipse(a), 8), (np.array([10.0, 7.0]),)),
    "ellipse.boundary_sigma": Case(lambda a, c, p: ell.boundary_sigma(known(a, c), p), (np.array([10.0, 7.0]), COVARIANCE, P2), ((np.array([7.0, 7.0]), COVARIANCE, P2),)),
    "ellipse.conic": Case(lambda a: ell.conic(ellipse(a)), (np.array([10.0, 7.0]),), ((np.array([7.0, 7.0]),),)),
    "ellipse.distance": Case(lambda a, p: ell.distance(ellipse(a), p), (np.array([10.0, 7.0]), P2), ((np.array([7.0, 7.0]), np.array([1.0, 2.0])),)),
    "ellipse.errors": Case(through_the_fit, (RING,), loose=True),
    "ellipse.fit": Case(lambda x, n: tuple(ell.fit(x, noise=n).ellipse), (RING, np.array(0.5)), ((np.zeros((14, 2)), np.array(0.5)),), loose=True),
    "ellipse.fit_nested": Case(lambda x: ell.fit_nested(x, rounds=0).ellipse.semi_axes, (np.stack([np.stack([0.5 * RING, 0.5 * RING]), np.stack([RING, RING])]),), loose=True),
    "ellipse.fit_sequence": Case(lambda x: ell.fit_sequence(x, rounds=0).ellipse.semi_axes, (np.stack([RING, RING, 0.99 * RING]),), loose=True),
    "ellipse.foot": Case(lambda a, p: ell.foot(ellipse(a), p), (np.array([10.0, 7.0]), P2), ((np.array([7.0, 7.0]), np.array([9.0, 2.0])),)),
    "ellipse.evaluate": Case(lambda p: ell.evaluate(ellipse(), p), (P2,)),
    "ellipse.from_conic": Case(lambda q: tuple(ell.from_conic(0.5 * (q + q.T))), (np.asarray(ell.conic(ellipse())),)),
    "ellipse.from_parameters": Case(lambda t: tuple(ell.from_parameters(t)), (np.array([1.0, 2.0, 8.0, 1.0, 6.0]),), ((np.array([1.0, 2.0, 6.0, 0.0, 6.0]),),)),
    "ellipse.from_stretch": Case(lambda a: ell.from_stretch(jnp.zeros(3), 0.5 * (a + a.T)).semi_axes, (SQUARE[:3, :3],), ((np.eye(3),),)),
    "ellipse.isotropic_prior": Case(lambda s: ell.isotropic_prior(ellipse(), s, 2.0 * s).covariance, (np.array(1.5),)),
    "ellipse.moments": Case(lambda x: ell.moments(x, jnp.arange(14) < 12).semi_axes, (RING,)),
    "ellipse.parameters": Case(lambda a, t: ell.parameters(ellipse(a, t)), (np.array([10.0, 7.0]), np.array(0.3)), ((np.array([7.0, 7.0]), np.array(0.0)),)),
    "ellipse.perimeter": Case(lambda a: ell.perimeter(ellipse(a)), (np.array([10.0, 7.0]),)),
    "ellipse.sphere_through": Case(lambda x: ell.sphere_through(x, jnp.arange(14) < 12).semi_axes, (RING,), ((np.zeros((14, 2)),), (np.concatenate([RING[:12], np.full((2, 2), np.nan)]),))),
    "ellipse.stretch": Case(lambda a: ell.stretch(ellipse(a)), (np.array([10.0, 7.0]),), ((np.array([7.0, 7.0]),),)),
    "ellipse.triangular": Case(lambda a: ell.triangular(ellipse(a)), (np.array([10.0, 7.0]),), ((np.array([7.0, 7.0]),),)),
    "ellipse.volume": Case(lambda a: ell.volume(ellipsoid()._replace(semi_axes=a)), (np.array([10.0, 8.0, 7.0]),)),
    "anchors.by_rays": Case(lambda x, c, a: tuple(anchors.by_rays(x, c, alpha=a)[:3]), (RING, np.zeros(2), np.array(1.2)), ((np.zeros((3, 2)), np.zeros(2), np.array(1.2)),)),
    "anchors.by_ellipsoid": Case(lambda a, t: tuple(anchors.by_ellipsoid(ellipse(a), 6, alpha=t)[:3]), (np.array([10.0, 7.0]), np.array(1.2))),
    "anchors.by_rings": Case(lambda x, y, c, a: tuple(anchors.by_rings(x, y, c, alpha=a)[:3]), (RING, 0.6 * RING[:5], np.zeros(2), np.array(1.2)), ((np.zeros((3, 2)), np.zeros((2, 2)), np.zeros(2), np.array(1.2)),)),
    "anchors.by_normals": Case(lambda x, n, o: tuple(anchors.by_normals(x, n, o)[:3]), (RING, RING / 10.0, np.full(14, 4.0)), ((np.zeros((3, 2)), np.zeros((3, 2)), np.zeros(3)),)),
    "gp.derivatives": Case(lambda n, p: tuple(gp.derivatives(closed(n), p)), (np.array(0.3), P2), ((np.array(0.3), RING[0]), (np.array(0.3), np.zeros(2)))),
    "gp.derivatives_of": Case(lambda n, p: tuple(gp.derivatives_of(closed(n), jnp.ones((2, 14)), p)), (np.array(0.3), P2), ((np.array(0.3), RING[0]),)),
    "gp.evaluate": Case(lambda n, v, p: gp.evaluate(closed(n, v), p), (np.array(0.3), np.array(4.0), P2), ((np.array(0.3), np.array(4.0), RING[0]),)),
    "gp.mean": Case(lambda n, v, p: gp.mean(solid(n), p) * v, (np.array(0.3), np.array(4.0), P3), ((np.array(0.3), np.array(4.0), SHELL[0]),)),
    "gp.gradient": Case(lambda n, p: gp.gradient(closed(n), p), (np.array(0.3), P2), ((np.array(0.3), RING[0]),)),
    "gp.hessian": Case(lambda n, p: gp.hessian(solid(n), p), (np.array(0.3), P3), ((np.array(0.3), SHELL[0]),)),
    "gp.map_points": Case(lambda n: gp.map_points(gp.mean, closed(n), const(1.1 * RING)), (np.array(0.3),)),
    "gp.means": Case(lambda n: gp.means(closed(n), const(1.1 * RING)), (np.array(0.3),), loose=True),
    "gp.slopes": Case(lambda n: gp.slopes(closed(n), const(1.1 * RING)), (np.array(0.3),), loose=True),
    "gp.with_weights": Case(lambda w: gp.mean(gp.with_weights(closed(), w), const(P2)), (np.ones(14),)),
    "gp.fit": Case(lambda x, y, n: (gp.fit(x, y, noise=n, prior=prior()).weights, gp.fit(x, y, noise=n, prior=prior()).log_likelihood), (RING, np.zeros(14) + 0.1, np.full(14, 0.3)), ((np.zeros((14, 2)), np.zeros(14), np.full(14, 0.3)),)),
    "gp.fit_blend": Case(lambda x, n, r, p: (gp.fit_blend(x, n, x[::3], r, 0.2, 9.0).value(p), gp.fit_blend(x, n, x[::3], r, 0.2, 9.0, jnp.arange(14) < 12).coefficients), (RING, RING / 10.0, np.array(9.0), P2), ((np.zeros((14, 2)), np.zeros((14, 2)), np.array(9.0), P2),)),
    "gp.fit_sparse": Case(lambda x, y, n: (gp.mean(gp.fit_sparse(x, y, x[::2], noise=n, prior=prior()), 1.2 * x[0] + 0.1), gp.fit_sparse(x, y, x[::2], noise=n, prior=prior()).log_likelihood), (RING, np.zeros(14) + 0.1, np.full(14, 0.3)), ((np.zeros((14, 2)), np.zeros(14), np.full(14, 0.3)),)),
    "gp.gram": Case(lambda x, v: gp.gram(gp.ThinPlate(v, jnp.asarray(60.0)), x, x), (RING, np.array(4.0)), ((np.zeros((3, 2)), np.array(4.0)),)),
    "gp.variance": Case(lambda n, p: jnp.sqrt(gp.variance(closed(n), p)), (np.array(0.3), P2), ((np.array(1e-4), RING[0]),)),
    "gp.sample": Case(lambda n: drawn(n)[1], (np.array(0.3),)),
    "gp.level_set_density": Case(gp.level_set_density, (np.array(0.5), np.array(1.5)), ((np.array(0.0), np.array(1.5)),)),
    "gp.leave_one_out": Case(lambda n: gp.leave_one_out(closed(n), jnp.zeros(14)), (np.array(0.3),)),
    "gp.learn": Case(learnt, (RING, np.array(0.4)), loose=True),
    "levelset.curvatures": Case(levelset.curvatures, (P3, SQUARE[:3, :3] + SQUARE[:3, :3].T), ((np.zeros(3), np.eye(3)), (np.zeros(2), np.eye(2)))),
    "levelset.locate": Case(lambda n, p, w: levelset.locate(closed(n), p, w), (np.array(0.3), P2, np.array([0.7, 0.8])), ((np.array(0.3), P2, np.zeros(2)), (np.array(0.3), np.zeros(2), np.array([1.0, 0.0])))),
    "levelset.measure": Case(lambda n: tuple(levelset.measure(closed(n), const(RING))), (np.array(0.3),), loose=True),
    "levelset.position_sigma": Case(lambda n: levelset.position_sigma(closed(n), const(RING)), (np.array(0.3),), loose=True),
    "levelset.draw": Case(lambda n: tuple(levelset.draw(*drawn(n), const(RING[:3]))), (np.array(0.3),), loose=True),
    "levelset.face_areas": Case(lambda v: levelset.face_areas(v, unit_mesh(1.0)[1]), (np.asarray(unit_mesh(9.0)[0]) + 0.1,), ((np.zeros((6, 3)),),)),
    "levelset.content": Case(lambda v, h, k: levelset.content(v, unit_mesh(1.0)[1], h, k), (np.asarray(unit_mesh(9.0)[0]) + 0.1, np.full(6, 0.1), np.full(6, 0.01)), ((np.zeros((6, 3)), np.zeros(6), np.zeros(6)),)),
    "levelset.winding": Case(lambda p, x, a: levelset.winding(p, x, x / 10.0, a, 0.5), (P2, RING, np.full(14, 2.0)), ((RING[0], RING, np.full(14, 2.0)),)),
    "density.filtered": Case(lambda v: density.filtered(v, density.gain((6, 6, 6), tilts())), (VOLUME,), ((np.zeros((6, 6, 6)),),)),
    "density.gain": Case(lambda low: density.gain((6, 6, 6), density.Wedge(low, 60.0, 0.0)), (np.array(-44.5),)),
    "density.invert": Case(lambda v: density.invert(v, box(), density.two_leaflets(14.0, 3.0), density.gain((6, 6, 6), tilts()), 0.2 * jnp.eye(3) + 0.1, 0.3, 1, 3).displacement, (VOLUME,), loose=True),
    "density.laplace": Case(lambda a: density.laplace(density.Inversion(jnp.array([0.1, -0.2, 0.3]), a, jnp.zeros(2)), box(), density.two_leaflets(14.0, 3.0), density.gain((6, 6, 6), tilts()), 0.2 * jnp.eye(3) + 0.1, 0.3), (np.array(1.5),)),
    "density.moved": Case(lambda u: density.moved(u, box()), (np.array([0.1, -0.2, 0.3]),)),
    "density.learn_bilayer": Case(lambda p: (density.learn_bilayer(p, jnp.arange(-8.0, 8.5, 0.5), 6.0)[0].values, density.learn_bilayer(p, jnp.arange(-8.0, 8.5, 0.5), 6.0)[1]), (PROFILE,), ((np.zeros(33),),)),
    "density.local_information": Case(lambda s: density.local_information(jnp.array([0.6, 0.0, 0.8]), density.two_leaflets(14.0, 6.0), s, tilts()), (np.array(3.0),)),
    "density.passes": Case(lambda k: density.passes(k, tilts()), (np.array([[1.0, 0.2, 0.9855], [0.3, 0.1, 0.5]]),), ((np.zeros((1, 3)),),)),
    "density.place": Case(placed, (PROFILE[8:25], np.array(1.0)), ((np.zeros(17), np.array(1.0)),)),
    "density.profile_along": Case(lambda v, p, n: density.profile_along(v, p, n, jnp.arange(-1.0, 1.5, 0.5)), (VOLUME, P3 + np.array([2.3, 2.1, 2.2]), np.array([0.6, 0.1, 0.79])), ((VOLUME, np.full(3, 2.0), np.zeros(3)),)),
    "density.residual": Case(lambda p: density.residual(p, template(), density.Placed(*(jnp.asarray(a) for a in (0.3, 0.1, 3.0, 0.9)))), (PROFILE[8:25],)),
    "density.synthesize": Case(lambda d: density.synthesize(d, density.two_leaflets(14.0, 6.0), density.gain((6, 6, 6), tilts())), (2.0 * VOLUME,), ((np.zeros((6, 6, 6)),),)),
    "density.tilt_of": Case(lambda k, a: density.tilt_of(k, a), (P3, np.array(10.0)), ((np.zeros(3), np.array(10.0)),)),
    "density.two_leaflets": Case(lambda s, w: density.two_leaflets(14.0, 6.0, s, w).values, (np.array(36.0), np.array(9.0))),
    "density.whitening": Case(lambda a: density.whitening(a @ a.T), (SQUARE,)),
    "measure.changes": Case(lambda d: measure.changes(jnp.arange(-6.0, 6.5, 0.5), d, transfer()), (np.array(2.9),)),
    "measure.contact": Case(lambda g: measure.contact(g, jnp.ones(6), 2.0), (np.array([0.5, 1.8, -1.9, 2.05, 2.2, 4.0]),), ((np.zeros(6),), (np.full(6, 1e6),))),
    "measure.curvedness": Case(measure.curvedness, (np.array([0.1, 0.2]), np.array([0.005, -0.01])), ((np.zeros(2), np.zeros(2)), (np.full(2, 0.1), np.full(2, 0.01)))),
    "measure.gap": Case(measure.gap, (P3, P3[::-1] * 0.5, U[0]), ((np.zeros(3), np.zeros(3), np.zeros(3)),)),
    "measure.leaflets": Case(two_leaflets_at, (PROFILE[8:25], np.array(1.0)), ((np.zeros(17), np.array(1.0)),)),
    "measure.learn_transfer": Case(lambda p: (measure.learn_transfer(p, jnp.arange(-6.0, 6.5, 0.5), jnp.array([2.0, 3.0]))[1],), (np.asarray(measure.pair(jnp.arange(-6.0, 6.5, 0.5), 2.8, measure.Transfer(jnp.array([1.0, -0.7, -0.1, 0.3])))) + 0.02 * RNG.normal(size=25),), loose=True),
    "measure.moments": Case(lambda v: measure.moments(v, jnp.arange(6.0)), (RING[:6, 0],), ((np.zeros(6),),)),
    "measure.moved_gap": Case(measure.moved_gap, (np.array(2.0), np.array(-0.9), np.array(0.1), np.array(0.2))),
    "measure.pair": Case(lambda d, c: measure.pair(jnp.arange(-6.0, 6.5, 0.5), d, measure.Transfer(c)), (np.array(2.9), np.array([1.0, -0.7, -0.1, 0.3])), ((np.array(0.0), np.zeros(4)),)),
    "measure.principal": Case(measure.principal, (np.array([0.1, 0.2]), np.array([0.005, -0.01])), ((np.zeros(2), np.zeros(2)), (np.full(2, 0.1), np.full(2, 0.01)))),
    "measure.shape_index": Case(measure.shape_index, (np.array([0.1, 0.2]), np.array([0.005, -0.01])), ((np.zeros(2), np.zeros(2)), (np.full(2, 0.1), np.full(2, 0.01)))),
    "measure.willmore": Case(measure.willmore, (np.array([0.1, 0.2]), np.array([3.0, 4.0])), ((np.zeros(2), np.zeros(2)),)),
    "membrane.evaluate": Case(lambda p: membrane.evaluate(membrane.Surface(closed(), jnp.zeros(2)), p), (P2,), ((RING[0],),)),
    "membrane.fit_membrane": Case(fitted, (RING, np.array(0.4), np.array(1.2)), loose=True),
    "membrane.learn": Case(lambda x: membrane.learn(problem(x), 0.05, 1.0, (40, 40)).posterior.weights, (RING,), loose=True),
    "membrane.solve": Case(lambda x: gp.mean(membrane.solve(membrane.learn(problem(const(RING)), 0.05, 1.0, (40, 40)), problem(x), 1.0, 0.93, 9, fast=False), const(P2)), (RING,), loose=True),  # both in a row: fit_membrane
}  # fmt: skip


def problem(points):
    full = jnp.full(14, 0.4)
    mask = jnp.ones(14, bool)
    given = prior()
    shared = 0.1 * jnp.ones((14, 1))
    return membrane.Problem(
        points,
        jnp.zeros(14),
        full,
        jnp.arange(14) < 10,
        mask,
        given.kernel.variance,
        given.kernel.R,
        given.trend,
        shared,
    )


SINGLE = {"gp.means", "gp.slopes"}  # summed in single precision, so that differences are rough
NO_GRADIENT = {
    "ellipse.judge": "yes or no; the distance is `ellipse.distance`, which is in the other table",
    "ellipse.raster": "voxels are inside or not",
    "ellipse.select": "owners are whole numbers",
    "gp.inducing": "indices are whole numbers",
    "gp.valid_radius": "chosen on the host, once",
    "numerics.bucket_size": "whole numbers",
    "numerics.compiled": "makes programs of functions",
    "numerics.compiler_options": "options",
    "numerics.in_own_precision": "makes functions of functions; tested with membrane.Surface",
    "numerics.jitter": "a constant of the dtype",
    "numerics.map_chunks": "joins results on the host",
    "numerics.map_rows": "returns arrays on the host",
    "numerics.pad_to": "on the host",
    "numerics.unit_rows": "on the host; `numerics.unit` is in the other table",
    "measure.along_surface": "paths on the host",
    "measure.find_particles": "pieces of a mask are counted",
    "measure.graph_of": "a graph on the host",
    "measure.ripley": "particles are counted",
    "measure.ripley_null": "random patterns on the host",
    "measure.vertex_areas": "on the host; `levelset.face_areas` is in the other table",
    "density.estimate_wedge": "on the host: angles of a spectrum",
}


def public(module):
    name = module.__name__.split(".")[-1]
    for key, value in vars(module).items():
        plain = inspect.unwrap(value) if callable(value) else value
        home = getattr(plain, "__module__", "") or ""
        if not key.startswith("_") and inspect.isfunction(plain) and home.startswith(module.__name__):
            yield f"{name}.{key}"


def test_the_tables_hold_every_public_function():
    modules = (numerics, preprocess, ridges, ell, anchors, gp, levelset, density, measure, membrane)
    known = set(CASES) | set(NO_GRADIENT)
    names = {name for module in modules for name in public(module)}
    assert len(names) > 70
    assert names <= known, sorted(names - known)
    assert known <= names, sorted(known - names)


def total(function):
    """A number from all outputs of a function, each with weights of its own."""

    def sum_up(*arguments):
        leaves = [a for a in jax.tree.leaves(function(*arguments)) if jnp.issubdtype(a.dtype, jnp.floating)]
        return sum(jnp.sum(a * jnp.cos(1.0 + jnp.arange(a.size).astype(a.dtype)).reshape(a.shape)) for a in leaves)

    return sum_up


@pytest.mark.parametrize("name", CASES)
def test_reverse_and_forward_equal_differences(name):
    case, rng = CASES[name], np.random.default_rng(1)
    function, step = total(case.function), 1e-3 if case.loose else 1e-5

    @jax.jit
    def both(at, ways):
        # reverse is what forward does, transposed: so the function itself is compiled once for both
        value, along = jax.linearize(function, *at)
        slopes = jax.linear_transpose(along, *at)(jnp.ones_like(value))
        forward = along(*ways)
        steps = step * jnp.array([-2.0, -1.0, 1.0, 2.0])
        values = jax.lax.map(lambda h: function(*(a + h * w for a, w in zip(at, ways))), steps)
        return slopes, forward, values

    with jax.enable_x64(True):
        at = tuple(jnp.asarray(a, float) for a in case.at)
        ways = tuple(jnp.asarray(rng.normal(size=a.shape)) for a in at)
        slopes, forward, values = both(at, ways)
        reverse = float(sum(jnp.vdot(s, w) for s, w in zip(slopes, ways)))
        size = max(abs(reverse), 1e-3 * sum(float(jnp.linalg.norm(s)) for s in slopes))
        assert reverse == pytest.approx(float(forward), abs=(2e-4 if case.loose else 1e-6) * size + 1e-9)
        most = 2e-2 if name in SINGLE else 2e-3 if case.loose else 1e-4
        # of fourth order, so that a large step is right as well
        far, near = (float(values[3] - values[0]) / 4, float(values[2] - values[1]) / 2)
        assert reverse == pytest.approx((4.0 * near - far) / 3.0 / step, abs=most * size)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.singular])
def test_gradients_are_finite_at_singular_points(name):
    case = CASES[name]
    slope = jax.jit(jax.grad(lambda at: total(case.function)(*at)))
    for dtype in (jnp.float32, jnp.float64):
        with jax.enable_x64(dtype == jnp.float64):
            for at in case.singular:
                slopes = slope(tuple(jnp.asarray(a, dtype) for a in at))
                assert all(bool(jnp.isfinite(s).all()) for s in slopes), (at, dtype)
                assert all(s.dtype == dtype for s in slopes)


@pytest.mark.parametrize(
    "name", ["ellipse.distance", "gp.evaluate", "levelset.locate", "anchors.by_rings", "ridges.refine"]
)
def test_batched_gradients_equal_single_ones(name):
    case = CASES[name]
    with jax.enable_x64(True):
        at = tuple(jnp.asarray(a, float) for a in case.at)
        slope = jax.grad(total(case.function), len(at) - 1)
        pair = tuple(jnp.stack([a, 1.01 * a]) for a in at)
        together = jax.jit(jax.vmap(slope))(*pair)
        alone = jax.jit(lambda *a: jax.lax.map(lambda one: slope(*one), a))(*pair)
        assert np.allclose(together, alone, rtol=1e-6, atol=1e-9)


def test_second_derivatives_of_what_locate_finds():
    """The surface's place as a function of the direction: its second derivative against differences of the first."""
    with jax.enable_x64(True):
        function, start = closed(), const(P2)

        def reach(angle):
            return jnp.linalg.norm(levelset.locate(function, 0.9 * start, jnp.stack([jnp.sin(angle), jnp.cos(angle)])))

        @jax.jit
        def both(angle):
            slopes = jax.lax.map(jax.grad(reach), angle + jnp.array([-1e-4, 1e-4]))
            return jax.grad(jax.grad(reach))(angle), slopes

        second, (before, after) = both(0.8)
        assert float(second) == pytest.approx(float(after - before) / 2e-4, rel=1e-4)
