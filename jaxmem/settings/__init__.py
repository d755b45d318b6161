"""All settings of a run: frozen records, each documented, and checked where it is made.

`None` means "decide for me". What was decided is in the result's `config`, and in the manifest: a configuration without `None`, but for tilts where no point
was placed by the tomogram.
"""

from dataclasses import dataclass, field

from jaxmem.settings.finding import METHODS as METHODS
from jaxmem.settings.finding import GroupingConfig as GroupingConfig
from jaxmem.settings.finding import MergeConfig as MergeConfig
from jaxmem.settings.finding import MidlineConfig as MidlineConfig
from jaxmem.settings.finding import NetworkConfig as NetworkConfig
from jaxmem.settings.finding import PreprocessConfig as PreprocessConfig
from jaxmem.settings.finding import SelectConfig as SelectConfig
from jaxmem.settings.fitting import EllipseConfig as EllipseConfig
from jaxmem.settings.fitting import FitConfig as FitConfig
from jaxmem.settings.fitting import RefineConfig as RefineConfig


@dataclass(frozen=True)
class Config:
    """Everything a run depends on besides its input; `jaxmem config` prints all settings with their meaning.

    Attributes:
        preprocess: filters before the network.
        network: weights and tiling.
        midline: points on the middle of membranes.
        grouping: how points become membranes.
        merge: region merging.
        select: which regions are membranes, closed or open.
        ellipse: pruning and recovery slice by slice.
        refine: points placed by the tomogram.
        fit: surfaces and their error bars.
    """

    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    midline: MidlineConfig = field(default_factory=MidlineConfig)
    grouping: GroupingConfig = field(default_factory=GroupingConfig)
    merge: MergeConfig = field(default_factory=MergeConfig)
    select: SelectConfig = field(default_factory=SelectConfig)
    ellipse: EllipseConfig = field(default_factory=EllipseConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    fit: FitConfig = field(default_factory=FitConfig)
