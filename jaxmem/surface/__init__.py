"""From a membrane's points to its implicit function, mesh and labels (paper, Sections 5.2 and 6.2)."""

from jaxmem.levelset import curvatures as curvatures
from jaxmem.levelset import locate as locate
from jaxmem.levelset import position_sigma as position_sigma
from jaxmem.settings import FitConfig as FitConfig
from jaxmem.surface.fitting import Membrane as Membrane
from jaxmem.surface.fitting import fit_membranes as fit_membranes
from jaxmem.surface.labels import paint as paint
from jaxmem.surface.mesh import Mesh as Mesh
from jaxmem.surface.mesh import extract as extract
from jaxmem.surface.mesh import is_watertight as is_watertight
