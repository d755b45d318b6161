import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmem import anchors, gp
from jaxmem.ellipse import ball, from_stretch
from jaxmem.points import sphere_directions


def test_rays_lie_where_the_paper_says():
    """|AC| = alpha |BC| (Section 5.2, Fig. 15), values are the distances from B."""
    rng = np.random.default_rng(0)
    centre = jnp.array([5.0, 6.0, 7.0])
    b = centre[None] + jnp.asarray(rng.normal(0, 10, (8, 3)), jnp.float32)
    a = anchors.by_rays(b, centre, alpha=1.2)
    length = np.linalg.norm(b - centre[None], axis=1)
    assert np.allclose(np.linalg.norm(a.points[:8] - centre[None], axis=1), 1.2 * length, rtol=1e-5)
    assert np.allclose(np.linalg.norm(a.points[8:] - centre[None], axis=1), 0.8 * length, rtol=1e-5)
    assert np.allclose(a.values, np.r_[0.2 * length, -0.2 * length], rtol=1e-4)
    assert (a.sigma > 0).all()


@pytest.mark.parametrize("d", [2, 3])
def test_ellipsoid_anchors_enclose(d):
    axes = jnp.array([10.0, 15.0, 20.0][:d])
    a = anchors.by_ellipsoid(from_stretch(jnp.zeros(d), jnp.diag(axes)), 50)
    level = np.linalg.norm(a.points / axes[None], axis=1)
    assert np.allclose(level[:50], 1.2, rtol=1e-4)
    assert np.allclose(level[50:], 0.8, rtol=1e-4)
    assert (a.values[:50] > 0).all()
    assert (a.values[50:] < 0).all()


@pytest.mark.parametrize("alpha", [1.0, 2.0, 0.5])
def test_alpha_out_of_range(alpha):
    with pytest.raises(ValueError, match="alpha"):
        anchors.by_rays(jnp.ones((1, 3)), jnp.zeros(3), alpha=alpha)
    with pytest.raises(ValueError, match="alpha"):
        anchors.by_ellipsoid(ball(jnp.zeros(3), 1.0), 4, alpha=alpha)


def test_directions_are_even():
    u = np.asarray(sphere_directions(300, 3))
    assert np.allclose(np.linalg.norm(u, axis=1), 1.0, atol=1e-5)
    assert np.abs(u.mean(0)).max() < 0.02
    gaps = np.sort(np.linalg.norm(u[:, None] - u[None], axis=-1), 1)[:, 1]
    assert gaps.min() > 0.6 * gaps.mean()


def test_normals_give_both_sides():
    a = anchors.by_normals(jnp.zeros((1, 3)), jnp.array([[0.0, 0.0, 1.0]]), 4.0)
    assert a.points.tolist() == [[0, 0, 4], [0, 0, -4]]
    assert a.values.tolist() == [4, -4]


def test_rings_close_both_circles_of_a_double_membrane():
    """Fig. 11: a quarter of the outer circle and another of the inner one are missing; one function has both as its zero."""
    with jax.enable_x64(True):
        angle = jnp.linspace(0.0, 1.5 * jnp.pi, 60)
        turn = jnp.stack([jnp.sin(angle), jnp.cos(angle)], 1)
        outer, inner = 20.0 * turn, -13.0 * turn
        extra = anchors.by_rings(outer[::4], inner[::4], jnp.zeros(2))
        x = jnp.concatenate([outer, inner, extra.points])
        y = jnp.concatenate([jnp.zeros(120), extra.values])
        noise = jnp.concatenate([jnp.full(120, 0.3), extra.sigma])
        kernel = gp.ThinPlate(jnp.array(100.0), jnp.array(gp.valid_radius(gp.ThinPlate, np.asarray(x))))
        posterior = gp.fit(x, y, noise=noise, prior=kernel)
        rays = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        radius = np.linspace(5.0, 23.0, 200)
        grid = radius[:, None, None] * np.stack([np.sin(rays), np.cos(rays)], 1)
        value = np.asarray(gp.map_points(gp.mean, posterior, jnp.asarray(grid.reshape(-1, 2)))).reshape(200, 40)
        for i in range(40):
            crossing = radius[1:][np.diff(np.sign(value[:, i])) != 0]
            assert len(crossing) == 2
            assert np.abs(crossing - [13.0, 20.0]).max() < 1.0
