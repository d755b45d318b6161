"""From a membrane's points to its implicit function, mesh and labels (paper, Sections 5.2 and 6.2)."""

from jaxmem.surface.geometry import curvatures as curvatures
from jaxmem.surface.geometry import locate as locate
from jaxmem.surface.geometry import position_sigma as position_sigma
from jaxmem.surface.implicit import FitConfig as FitConfig
from jaxmem.surface.implicit import Membrane as Membrane
from jaxmem.surface.implicit import fit_membranes as fit_membranes
from jaxmem.surface.labels import paint as paint
from jaxmem.surface.mesh import Mesh as Mesh
from jaxmem.surface.mesh import extract as extract
from jaxmem.surface.mesh import is_watertight as is_watertight
