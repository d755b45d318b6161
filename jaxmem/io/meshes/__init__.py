"""Surfaces in the formats of other programs: PLY, GLB, VTP, OBJ, and points on them as STAR."""

from jaxmem.io.meshes.glb import Painted as Painted
from jaxmem.io.meshes.glb import write_glb as write_glb
from jaxmem.io.meshes.imod import write_imod as write_imod
from jaxmem.io.meshes.ply import read_ply as read_ply
from jaxmem.io.meshes.ply import write_obj as write_obj
from jaxmem.io.meshes.ply import write_ply as write_ply
from jaxmem.io.meshes.star import write_star as write_star
from jaxmem.io.meshes.vtp import in_nm as in_nm
from jaxmem.io.meshes.vtp import write_vtp as write_vtp
