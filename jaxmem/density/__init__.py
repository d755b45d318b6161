"""What a membrane looks like in a tomogram, and where by that it lies: missing wedge, bilayer, synthesis, profiles."""

from jaxmem.density.bilayer import STEP as STEP
from jaxmem.density.bilayer import Bilayer as Bilayer
from jaxmem.density.bilayer import learn_bilayer as learn_bilayer
from jaxmem.density.bilayer import two_leaflets as two_leaflets
from jaxmem.density.inversion import Box as Box
from jaxmem.density.inversion import Inversion as Inversion
from jaxmem.density.inversion import invert as invert
from jaxmem.density.inversion import laplace as laplace
from jaxmem.density.inversion import moved as moved
from jaxmem.density.profiles import OFFSETS as OFFSETS
from jaxmem.density.profiles import SHIFTS as SHIFTS
from jaxmem.density.profiles import Placed as Placed
from jaxmem.density.profiles import local_information as local_information
from jaxmem.density.profiles import place as place
from jaxmem.density.profiles import profile_along as profile_along
from jaxmem.density.profiles import residual as residual
from jaxmem.density.profiles import whitening as whitening
from jaxmem.density.synthesis import filtered as filtered
from jaxmem.density.synthesis import synthesize as synthesize
from jaxmem.density.wedge import FULL as FULL
from jaxmem.density.wedge import Wedge as Wedge
from jaxmem.density.wedge import estimate_wedge as estimate_wedge
from jaxmem.density.wedge import gain as gain
from jaxmem.density.wedge import passes as passes
from jaxmem.density.wedge import tilt_of as tilt_of
