"""Files: MRC and OME-Zarr volumes, meshes for other programs, and the folder of a run."""

from jaxmem.io.copick import Picks as Picks
from jaxmem.io.copick import write_copick as write_copick
from jaxmem.io.lazy import LazyArray as LazyArray
from jaxmem.io.lazy import Negated as Negated
from jaxmem.io.looking import Oddity as Oddity
from jaxmem.io.looking import oddities as oddities
from jaxmem.io.meshes import Painted as Painted
from jaxmem.io.meshes import in_nm as in_nm
from jaxmem.io.meshes import read_ply as read_ply
from jaxmem.io.meshes import write_glb as write_glb
from jaxmem.io.meshes import write_imod as write_imod
from jaxmem.io.meshes import write_obj as write_obj
from jaxmem.io.meshes import write_ply as write_ply
from jaxmem.io.meshes import write_star as write_star
from jaxmem.io.meshes import write_vtp as write_vtp
from jaxmem.io.mrc import as_instances as as_instances
from jaxmem.io.mrc import read_mrc as read_mrc
from jaxmem.io.mrc import write_mrc as write_mrc
from jaxmem.io.run import OutputFolder as OutputFolder
from jaxmem.io.run import sha256 as sha256
from jaxmem.io.run import write_csv as write_csv
from jaxmem.io.volumes import read_volume as read_volume
from jaxmem.io.zarr import is_zarr as is_zarr
from jaxmem.io.zarr import read_zarr as read_zarr
from jaxmem.io.zarr_labels import write_zarr as write_zarr
