"""A fitted membrane as a function that can be called, differentiated and sampled."""

from contextlib import nullcontext

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxmem import gp, levelset
from jaxmem.numerics import in_own_precision


class Surface(eqx.Module):
    """A membrane as the zero level set of a function, negative inside (or on one side): what a fit returns.

    All methods take **one** point in voxels, zyx (yx in two dimensions), and answer in its precision, whatever the precision of the
    fit; batch them with `jax.vmap`. They can be differentiated with respect to the point.

    Attributes:
        function: a posterior, or one of the functions drawn from it, in coordinates about `centre`.
        centre: (d,) voxels.
    """

    function: gp.Expansion
    centre: Float[Array, " d"]

    def __call__(self, point: Float[Array, " d"]) -> Float[Array, ""]:
        """The function; near the surface the signed distance in voxels, but for a factor: its slope."""
        return in_own_precision(lambda s, p: gp.mean(s.function, p - s.centre))(self, point)

    def gradient(self, point: Float[Array, " d"]) -> Float[Array, " d"]:
        """Its gradient: along the normal, outwards."""
        return in_own_precision(lambda s, p: gp.gradient(s.function, p - s.centre))(self, point)

    def sigma(self, point: Float[Array, " d"]) -> Float[Array, ""]:
        """Standard deviation, in voxels, of the position along the normal of the level set that passes through the point.

        Raises:
            TypeError: if this is a drawn surface, of which nothing is uncertain.
        """
        self._posterior("sigma")

        def sigma(s, p):
            return levelset.position_sigma(s.function, (p - s.centre)[None])[0]

        return in_own_precision(sigma)(self, point)

    def _posterior(self, name: str) -> gp.Conditioned:
        if not isinstance(self.function, gp.Conditioned):
            raise TypeError(
                f"Surface.{name}: nothing is uncertain about a drawn surface; ask the one it was drawn from"
            )
        return self.function

    def locate(self, point: Float[Array, " d"], direction: Float[Array, " d"] | None = None) -> Float[Array, " d"]:
        """Where the line through the point, along the normal or a direction, meets the surface; see `levelset.locate`."""

        def locate(s, x):
            return levelset.locate(s.function, x[0] - s.centre, *x[1:]) + s.centre

        given = [point] if direction is None else [point, direction]
        return in_own_precision(locate)(self, jnp.stack(given))

    def curvatures(self, point: Float[Array, " d"]) -> Float[Array, " 2"]:
        """Mean and Gaussian curvature of the level set through the point, 1/voxel and 1/voxel^2."""

        def bend(s, p):
            _, slope, hessian = gp.derivatives(s.function, p - s.centre)
            return jnp.stack(levelset.curvatures(slope, hessian))

        return in_own_precision(bend)(self, point)

    def sample(self, key: Key[Array, ""], support: Float[Array | np.ndarray, "m d"], draws: int = 1) -> "list[Surface]":
        """Surfaces drawn from the posterior.

        Arguments:
            key: random key.
            support: where they are right, voxels: points spread over the surface, such as some vertices of its mesh.
            draws: how many.

        Raises:
            TypeError: if this is a drawn surface.
        """
        posterior = self._posterior("sample")
        with jax.enable_x64(True) if self.centre.dtype == jnp.float64 else nullcontext():
            places = jnp.asarray(support, self.centre.dtype) - self.centre[None]
            function, weights = gp.sample(key, posterior, places, draws)
            return [Surface(gp.with_weights(function, w), self.centre) for w in weights]
