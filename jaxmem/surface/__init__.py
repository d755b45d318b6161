"""The host half of the surfaces: batches of membranes, meshes with error bars, labels (paper, Sections 5.2 and 6.2)."""

from jaxmem.surface.boxes import Boxed as Boxed
from jaxmem.surface.boxes import box_about as box_about
from jaxmem.surface.fitting import Membrane as Membrane
from jaxmem.surface.fitting import fit_each as fit_each
from jaxmem.surface.fitting import fit_membranes as fit_membranes
from jaxmem.surface.labels import Canvas as Canvas
from jaxmem.surface.labels import Paint as Paint
from jaxmem.surface.labels import paint as paint
from jaxmem.surface.mesh import Mesh as Mesh
from jaxmem.surface.mesh import extract as extract
from jaxmem.surface.mesh import is_watertight as is_watertight
from jaxmem.surface.mesh import outline as outline
from jaxmem.surface.preparing import Errors as Errors
from jaxmem.surface.tiles import Outline as Outline
