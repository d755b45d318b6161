"""Gaussian processes for implicit surfaces (paper, Sections 4.3.2 and 5.2)."""

from jaxmem.gp.kernels import Cubic as Cubic
from jaxmem.gp.kernels import Kernel as Kernel
from jaxmem.gp.kernels import ThinPlate as ThinPlate
from jaxmem.gp.kernels import valid_radius as valid_radius
from jaxmem.gp.posterior import Derivatives as Derivatives
from jaxmem.gp.posterior import Posterior as Posterior
from jaxmem.gp.posterior import derivatives as derivatives
from jaxmem.gp.posterior import fit as fit
from jaxmem.gp.posterior import gradient as gradient
from jaxmem.gp.posterior import hessian as hessian
from jaxmem.gp.posterior import level_set_density as level_set_density
from jaxmem.gp.posterior import mean as mean
from jaxmem.gp.posterior import variance as variance
