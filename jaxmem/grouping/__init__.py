"""Which membrane pixels belong to the same membrane (paper, Section 4)."""

from jaxmem.grouping.merging import MergeConfig as MergeConfig
from jaxmem.grouping.merging import merge_regions as merge_regions
from jaxmem.grouping.midline import Midline as Midline
from jaxmem.grouping.midline import as_share as as_share
from jaxmem.grouping.midline import midline as midline
from jaxmem.grouping.resolving import is_closed as is_closed
from jaxmem.grouping.resolving import members_of as members_of
from jaxmem.grouping.select import Region as Region
from jaxmem.grouping.select import select_membranes as select_membranes
from jaxmem.grouping.shape import Shape as Shape
from jaxmem.grouping.shape import describe as describe
from jaxmem.settings import SelectConfig as SelectConfig
