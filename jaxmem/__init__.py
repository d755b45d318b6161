"""jaxmem: membranes of cryo-electron tomograms as closed, smooth surfaces with error bars.

    >>> import jaxmem
    >>> result = jaxmem.segment(jaxmem.Tomogram(volume, voxel_size=14.0))  # doctest: +SKIP

The method is that of Zhou et al. 2023 (J. Comput. Sci. 66, 101904). Every stage is a module of its own.
"""

import logging as _logging
from importlib.metadata import version as _version

from jaxmem import _xla
from jaxmem.pipeline import Config as Config
from jaxmem.pipeline import Result as Result
from jaxmem.pipeline import evaluate as evaluate
from jaxmem.pipeline import fit_mask as fit_mask
from jaxmem.pipeline import load_config as load_config
from jaxmem.pipeline import segment as segment
from jaxmem.types import JaxmemError as JaxmemError
from jaxmem.types import Tomogram as Tomogram

_logging.getLogger("jaxmem").addHandler(_logging.NullHandler())

__version__ = _version("jaxmem")
