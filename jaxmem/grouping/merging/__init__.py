"""Region merging: near points that agree become one region, and regions join across gaps (paper, Section 4.2)."""

from jaxmem.grouping.merging.bridges import cut_bridges as cut_bridges
from jaxmem.grouping.merging.regions import merge_regions as merge_regions
from jaxmem.grouping.merging.regions import neighbours as neighbours
from jaxmem.grouping.merging.regions import relabel_by_size as relabel_by_size
from jaxmem.settings import MergeConfig as MergeConfig
