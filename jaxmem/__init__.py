"""jaxmem: membranes of cryo-electron tomograms as closed, smooth surfaces with error bars.

    >>> import jaxmem
    >>> result = jaxmem.segment(jaxmem.Tomogram(volume, voxel_size=14.0))  # doctest: +SKIP

The method is that of Zhou et al. 2023 (J. Comput. Sci. 66, 101904). Every stage is a module of its own.
Modules and functions are loaded when they are first used.
"""

import importlib as _importlib
import logging as _logging
from typing import TYPE_CHECKING

from jaxmem import _xla

if TYPE_CHECKING:
    from jaxmem import anchors as anchors
    from jaxmem import batch as batch
    from jaxmem import checkpoints as checkpoints
    from jaxmem import console as console
    from jaxmem import defaults as defaults
    from jaxmem import density as density
    from jaxmem import ellipse as ellipse
    from jaxmem import gp as gp
    from jaxmem import grouping as grouping
    from jaxmem import io as io
    from jaxmem import levelset as levelset
    from jaxmem import measure as measure
    from jaxmem import membrane as membrane
    from jaxmem import metrics as metrics
    from jaxmem import numerics as numerics
    from jaxmem import pipeline as pipeline
    from jaxmem import points as points
    from jaxmem import preprocess as preprocess
    from jaxmem import report as report
    from jaxmem import results as results
    from jaxmem import ridges as ridges
    from jaxmem import settings as settings
    from jaxmem import simulate as simulate
    from jaxmem import surface as surface
    from jaxmem import types as types
    from jaxmem import unet as unet
    from jaxmem import viewing as viewing
    from jaxmem.pipeline import fit_mask as fit_mask
    from jaxmem.pipeline import load_config as load_config
    from jaxmem.pipeline import segment as segment
    from jaxmem.pipeline.evaluate import evaluate as evaluate
    from jaxmem.results import Result as Result
    from jaxmem.settings import Config as Config
    from jaxmem.types import JaxmemError as JaxmemError
    from jaxmem.types import Tomogram as Tomogram

__version__ = "0.2.0"

_HOMES = {
    "Config": "settings",
    "JaxmemError": "types",
    "Result": "results",
    "Tomogram": "types",
    "evaluate": "pipeline",
    "fit_mask": "pipeline",
    "load_config": "pipeline",
    "segment": "pipeline",
}
_MODULES = (
    "anchors", "batch", "checkpoints", "console", "defaults", "density", "ellipse", "gp", "grouping", "io", "levelset", "measure", "membrane", "metrics", "numerics", "pipeline", "points",
    "preprocess", "report", "results", "ridges", "settings", "simulate", "surface", "types", "unet", "viewing",
)  # fmt: skip
__all__ = (*_HOMES, *_MODULES, "__version__")

_logging.getLogger("jaxmem").addHandler(_logging.NullHandler())


if not TYPE_CHECKING:  # so that type checkers refuse names that are not there

    def __getattr__(name: str) -> object:
        """Load a public name when it is first asked for (PEP 562)."""
        if name in _HOMES:
            value = getattr(_importlib.import_module(f"jaxmem.{_HOMES[name]}"), name)
        elif name in _MODULES:
            value = _importlib.import_module(f"jaxmem.{name}")
        else:
            raise AttributeError(f"module 'jaxmem' has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        """Public names, those not loaded yet among them."""
        return sorted(__all__)
